//! When a node that could not be reached is tried again. No clock is in it.

use std::time::Duration;

use tokio::time::Instant;

use crate::limits::{BACKOFF_MAX, BACKOFF_MIN, STABLE_AFTER};

/// The attempts to connect to one node.
///
/// What is never false: between two attempts that both failed there are at least [`BACKOFF_MIN`], and a node is never
/// left alone for longer than [`BACKOFF_MAX`] after an attempt.
#[derive(Debug, Default)]
pub struct Backoff {
    /// The wait after the last failure; nothing if there was none since a connection that lasted.
    delay: Duration,
    /// When the next attempt may begin.
    next: Option<Instant>,
    /// When the connection was made that has not been judged yet.
    connected: Option<Instant>,
}

impl Backoff {
    /// Asks to begin an attempt, since there is no connection any more.
    ///
    /// # Errors
    /// How long it is until one may begin.
    pub fn begin(&mut self, now: Instant) -> Result<(), Duration> {
        if let Some(since) = self.connected.take() {
            if now.saturating_duration_since(since) >= STABLE_AFTER {
                *self = Self::default();
            } else {
                self.failed(since);
            }
        }
        match self.next.map(|next| next.saturating_duration_since(now)) {
            Some(wait) if !wait.is_zero() => Err(wait),
            _ => Ok(()),
        }
    }

    /// The attempt has failed.
    pub fn failed(&mut self, now: Instant) {
        self.delay = (self.delay * 2).clamp(BACKOFF_MIN, BACKOFF_MAX);
        self.next = Some(now + self.delay);
    }

    /// The attempt has made a connection. If it does not last, it counts as a failure.
    pub fn connected(&mut self, now: Instant) {
        self.connected = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        let (mut backoff, mut now) = (Backoff::default(), Instant::now());
        let mut waits = Vec::new();
        for _ in 0..7 {
            assert_eq!(backoff.begin(now), Ok(()));
            backoff.failed(now);
            let wait = backoff.begin(now).expect_err("it has just failed");
            waits.push(wait.as_millis());
            assert_eq!(backoff.begin(now + wait - Duration::from_millis(1)), Err(Duration::from_millis(1)));
            now += wait;
        }
        assert_eq!(waits, [100, 200, 400, 800, 1600, 1600, 1600]);
    }

    #[test]
    fn a_connection_that_lasted_is_made_again_at_once() {
        let (mut backoff, now) = (Backoff::default(), Instant::now());
        backoff.failed(now);
        backoff.connected(now);
        assert_eq!(backoff.begin(now + STABLE_AFTER), Ok(()));
        backoff.failed(now + STABLE_AFTER);
        assert_eq!(backoff.begin(now + STABLE_AFTER), Err(BACKOFF_MIN));
    }

    #[test]
    fn a_peer_that_hangs_up_at_once_is_not_called_in_a_tight_loop() {
        let (mut backoff, mut now) = (Backoff::default(), Instant::now());
        let mut attempts = 0;
        let end = now + Duration::from_secs(60);
        while now < end {
            if backoff.begin(now).is_ok() {
                attempts += 1;
                backoff.connected(now);
            }
            now += Duration::from_millis(1);
        }
        assert!(attempts < 60, "{attempts} attempts in a minute");
    }
}
