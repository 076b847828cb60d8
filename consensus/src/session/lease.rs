//! Until when this node may acknowledge what clients ask for.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sterna_runtime::BootTime;

/// The end of this node's right to acknowledge anything. It is asked for each acknowledgement: one load and one look at a
/// clock, which the kernel answers without a system call.
///
/// Invariants: it ends by itself; while it lasts, no other node may take over what this one owned when it was last prolonged.
#[derive(Debug, Default)]
pub struct Lease {
    /// Nanoseconds of [`BootTime`].
    end: AtomicU64,
}

impl Lease {
    /// Whether it lasts at this moment.
    #[inline]
    pub fn is_valid(&self) -> bool {
        self.is_valid_at(BootTime::now())
    }

    /// How much of it is left.
    pub fn left(&self) -> Duration {
        BootTime::now().until(self.end())
    }

    /// Whether it lasts at this moment, which is now.
    #[inline]
    pub fn is_valid_at(&self, now: BootTime) -> bool {
        now < self.end()
    }

    fn end(&self) -> BootTime {
        BootTime::from_nanoseconds(self.end.load(Ordering::Acquire))
    }

    /// Has it last until `end`. Only the keeper says so.
    pub(super) fn set_end(&self, end: BootTime) {
        self.end.store(end.nanoseconds(), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_ends_by_itself() {
        let lease = Lease::default();
        assert!(!lease.is_valid() && !lease.is_valid_at(BootTime::START));
        let at = |ms| BootTime::START.plus(Duration::from_millis(ms));
        lease.set_end(at(1_000));
        assert!(lease.is_valid_at(at(999)) && !lease.is_valid_at(at(1_000)));
        lease.set_end(BootTime::START);
        assert!(!lease.is_valid_at(BootTime::START));
        lease.set_end(BootTime::NEVER);
        assert!(lease.is_valid_at(at(u64::MAX / 2_000_000)));
    }

    #[test]
    fn the_clock_goes_on() {
        let lease = Lease::default();
        lease.set_end(BootTime::now().plus(Duration::from_secs(3_600)));
        assert!(lease.is_valid() && lease.left() > Duration::from_secs(3_000));
    }
}
