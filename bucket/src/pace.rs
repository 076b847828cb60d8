//! How fast is sent where there is a limit: what was sent is paid for with time before more is.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sterna_types::ByteRate;
use tokio::time::{Instant, sleep_until};

/// What is still to be paid for.
#[derive(Debug)]
pub(crate) struct Pace {
    rate: Option<ByteRate>,
    paid_at: Mutex<Option<Instant>>,
}

impl Pace {
    /// At this rate; as fast as it goes without one.
    pub(crate) fn new(rate: Option<ByteRate>) -> Self {
        Self { rate, paid_at: Mutex::new(None) }
    }

    /// Notes that so many bytes are sent, and waits until all that was noted before is paid for.
    ///
    /// # Cancel safety
    /// May be dropped at any time; what was noted stays noted.
    pub(crate) async fn send(&self, bytes: u64) {
        let Some(rate) = self.rate else { return };
        let begin = {
            // Nothing panics while it is held.
            let mut paid_at = self.paid_at.lock().unwrap_or_else(PoisonError::into_inner);
            let begin = paid_at.unwrap_or_else(Instant::now).max(Instant::now());
            let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(rate.0.max(1));
            *paid_at = Some(begin + Duration::from_nanos_u128(nanos));
            begin
        };
        sleep_until(begin).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_sent_is_paid_for_with_time() {
        let (pace, begun) = (Pace::new(Some(ByteRate(1_000_000))), Instant::now());
        for _ in 0..11 {
            pace.send(500_000).await;
        }
        assert_eq!(begun.elapsed(), Duration::from_secs(5), "the last one is under way");
        Pace::new(None).send(u64::MAX).await;
        assert_eq!(begun.elapsed(), Duration::from_secs(5));
    }
}
