//! How fast a link carries, as far as what its sockets take tells.

use std::collections::VecDeque;
use std::time::Duration;

use sterna_types::ByteRate;
use tokio::time::Instant;

/// What the sockets of a link have taken lately. The most that any of the last windows had is what the link carries: nothing is known of it
/// in times when nobody has anything to send.
#[derive(Debug, Default)]
pub(super) struct Speed {
    /// When the window has begun, and how much was taken since.
    window: Option<(Instant, u64)>,
    /// Of the last windows.
    rates: VecDeque<ByteRate>,
}

impl Speed {
    /// So much was taken.
    pub(super) fn sent(&mut self, bytes: usize, now: Instant) {
        let (begun, before) = *self.window.get_or_insert((now, 0));
        let (sent, took) = (before + bytes as u64, now - begun);
        if took < WINDOW {
            self.window = Some((begun, sent));
            return;
        }
        self.window = Some((now, 0));
        // A pause tells nothing.
        if took < 2 * WINDOW {
            let rate = u128::from(sent) * 1_000_000 / took.as_micros();
            self.rates.push_back(ByteRate(u64::try_from(rate).unwrap_or(u64::MAX)));
            if self.rates.len() > WINDOWS {
                self.rates.pop_front();
            }
        }
    }

    /// The window that is open tells nothing.
    pub(super) fn skip(&mut self) {
        self.window = None;
    }

    /// What the link carries, where that is known.
    pub(super) fn rate(&self) -> Option<ByteRate> {
        self.rates.iter().copied().max()
    }
}

/// Longer than the bursts in which a socket takes what is written.
const WINDOW: Duration = Duration::from_millis(250);
/// Two seconds.
const WINDOWS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_as_fast_as_it_was_when_there_was_something_to_send() {
        let (mut speed, mut now) = (Speed::default(), Instant::now());
        assert_eq!(speed.rate(), None, "nothing is known");
        let mut send = |speed: &mut Speed, bytes: usize, every: Duration, times: u32| {
            for _ in 0..times {
                speed.sent(bytes, now);
                now += every;
            }
        };
        send(&mut speed, 32_000, Duration::from_millis(10), 100);
        let rate = speed.rate().expect("it is known");
        assert!((3_200_000..=3_400_000).contains(&rate.0), "{rate:?}");
        // Little now and then.
        send(&mut speed, 100, Duration::from_secs(1), 20);
        assert_eq!(speed.rate(), Some(rate));
        // It has become slower.
        send(&mut speed, 8_000, Duration::from_millis(10), 300);
        let rate = speed.rate().expect("it is known");
        assert!((800_000..=850_000).contains(&rate.0), "{rate:?}");
    }
}
