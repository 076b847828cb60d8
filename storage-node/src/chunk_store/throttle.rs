//! A limit for background work: so many bytes per second, and an end when it is called off.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sterna_runtime::work::pause;
use tokio::time::Instant;

/// Lets work through at a rate. Over its whole life it lets no more through than the rate allows, up to the piece that is
/// being worked on.
#[derive(Debug)]
pub struct Throttle<'a> {
    bytes_per_second: Option<NonZeroU64>,
    cancel: &'a AtomicBool,
    started: Instant,
    passed_bytes: u64,
}

impl<'a> Throttle<'a> {
    /// A limit of so many bytes per second (`None`: as fast as can be), until `cancel` is set.
    pub fn new(bytes_per_second: Option<NonZeroU64>, cancel: &'a AtomicBool) -> Self {
        Self { bytes_per_second, cancel, started: Instant::now(), passed_bytes: 0 }
    }

    /// Says that `bytes` were worked on, and waits until more may be; `false` if there is to be no more.
    pub fn pass(&mut self, bytes: u64) -> bool {
        self.passed_bytes = self.passed_bytes.saturating_add(bytes);
        while !self.is_cancelled() {
            let wait = self.due().saturating_sub(self.started.elapsed());
            if wait.is_zero() || !pause(wait.min(CANCEL_CHECK)) {
                return true;
            }
        }
        false
    }

    /// Whether there is to be no more work.
    pub fn is_cancelled(&self) -> bool {
        self.cancel.load(Ordering::Relaxed)
    }

    #[cfg(test)]
    pub(crate) fn passed_bytes(&self) -> u64 {
        self.passed_bytes
    }

    /// How long after the beginning the next piece may begin.
    fn due(&self) -> Duration {
        let Some(rate) = self.bytes_per_second else { return Duration::ZERO };
        let nanoseconds = u128::from(self.passed_bytes) * 1_000_000_000 / u128::from(rate.get());
        Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }
}

/// How long it may take to notice that the work was called off.
const CANCEL_CHECK: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_due_when_the_rate_allows_it() {
        let cancel = AtomicBool::new(false);
        let mut throttle = Throttle::new(NonZeroU64::new(1 << 30), &cancel);
        assert!(throttle.pass(1 << 20));
        assert_eq!(throttle.due(), Duration::from_nanos(976_562));
        assert!(throttle.started.elapsed() >= throttle.due());
    }

    #[test]
    fn work_that_is_called_off_waits_no_more() {
        let cancel = AtomicBool::new(true);
        assert!(!Throttle::new(NonZeroU64::new(1), &cancel).pass(u64::MAX));
        assert!(!Throttle::new(None, &cancel).pass(0));
    }
}
