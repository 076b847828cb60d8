//! A clock that goes forward only, and does not stand still while the machine sleeps: `CLOCK_BOOTTIME` (clock_gettime(2)).
//! [`std::time::Instant`] stands still then, and a lease that it measured would be valid when the machine wakes.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// A moment since this machine was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BootTime {
    nanoseconds: u64,
}

impl BootTime {
    /// Before every other.
    pub const START: Self = Self { nanoseconds: 0 };

    /// After every other.
    pub const NEVER: Self = Self { nanoseconds: u64::MAX };

    /// This moment.
    #[inline]
    pub fn now() -> Self {
        let time = clock_gettime(ClockId::Boottime);
        // Neither is negative, and the sum lasts for 584 years.
        let part = |part: i64| u64::try_from(part).unwrap_or(0);
        Self { nanoseconds: part(time.tv_sec) * 1_000_000_000 + part(time.tv_nsec) }
    }

    /// So long before another moment; zero where that has passed.
    pub fn until(self, later: Self) -> Duration {
        Duration::from_nanos(later.nanoseconds.saturating_sub(self.nanoseconds))
    }

    /// The moment so much later.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self { nanoseconds: self.nanoseconds.saturating_add(nanoseconds) }
    }

    /// In nanoseconds.
    pub fn nanoseconds(self) -> u64 {
        self.nanoseconds
    }

    pub(super) fn from_nanoseconds(nanoseconds: u64) -> Self {
        Self { nanoseconds }
    }
}
