//! What a limit leaves: a token bucket that may be in debt, kept as the one moment at which all that was sent is paid for.
//! That is the virtual scheduling algorithm of GCRA (ITU-T I.371, annex A), whose theoretical arrival time it is.

use std::time::Duration;

use sterna_types::ByteRate;
use tokio::time::Instant;

use crate::limits::{LIMIT_BURST, MAX_DEBT, MIN_LIMIT};

/// A limit, and what was taken of it.
///
/// What is never false: in any time `t`, whoever writes only when it is [free](Self::free_at) takes no more than
/// `rate * (t + LIMIT_BURST)` bytes and one write.
#[derive(Debug)]
pub(super) struct Bucket {
    rate: ByteRate,
    /// When what was taken will have been paid for.
    paid_at: Instant,
}

impl Bucket {
    /// A limit from now on, with nothing saved.
    pub(super) fn new(rate: ByteRate, now: Instant) -> Self {
        Self { rate: rate.max(MIN_LIMIT), paid_at: now }
    }

    pub(super) fn rate(&self) -> ByteRate {
        self.rate
    }

    /// From when on the next may write, however much.
    pub(super) fn free_at(&self) -> Instant {
        self.paid_at
    }

    /// So many bytes were written, by whoever it was.
    pub(super) fn take(&mut self, bytes: usize, now: Instant) {
        let saved = now.checked_sub(LIMIT_BURST).unwrap_or(now);
        self.paid_at = (self.paid_at.max(saved) + self.time_for(bytes)).min(now + MAX_DEBT);
    }

    /// How long the limit takes for so many bytes.
    pub(super) fn time_for(&self, bytes: usize) -> Duration {
        Duration::from_nanos_u128(bytes as u128 * NANOS_PER_SECOND / u128::from(self.rate.0))
    }

    /// Another rate from now on. As many bytes are owed as before.
    pub(super) fn change(&mut self, rate: ByteRate, now: Instant) {
        let (before, rate) = (self.rate, rate.max(MIN_LIMIT));
        let debt = self.paid_at.saturating_duration_since(now);
        if !debt.is_zero() {
            let debt = Duration::from_nanos_u128(debt.as_nanos() * u128::from(before.0) / u128::from(rate.0));
            self.paid_at = now + debt.min(MAX_DEBT);
        }
        self.rate = rate;
    }
}

const NANOS_PER_SECOND: u128 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(rate: u64) -> (Bucket, Instant) {
        let now = Instant::now();
        (Bucket::new(ByteRate(rate), now), now)
    }

    #[test]
    fn what_was_taken_is_paid_for_at_the_rate() {
        let (mut bucket, now) = bucket(1 << 20);
        bucket.take(1 << 18, now);
        assert_eq!(bucket.free_at() - now, Duration::from_millis(250));
        bucket.take(1 << 18, now);
        assert_eq!(bucket.free_at() - now, Duration::from_millis(500));
    }

    #[test]
    fn little_is_saved_while_nothing_is_sent() {
        let (mut bucket, now) = bucket(1 << 20);
        let later = now + Duration::from_secs(60);
        bucket.take(1 << 20, later);
        assert_eq!(bucket.free_at() - later, Duration::from_secs(1) - LIMIT_BURST);
    }

    #[test]
    fn debts_are_bounded_and_kept_when_the_rate_changes() {
        let (mut bucket, now) = bucket(1 << 20);
        bucket.take(1 << 30, now);
        assert_eq!(bucket.free_at() - now, MAX_DEBT);
        bucket.change(ByteRate(2 << 20), now);
        assert_eq!(bucket.free_at() - now, MAX_DEBT / 2);
        bucket.change(ByteRate(1), now);
        assert_eq!((bucket.rate(), bucket.free_at() - now), (MIN_LIMIT, MAX_DEBT));
    }
}
