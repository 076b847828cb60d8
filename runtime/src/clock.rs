//! Two clocks. [`BootTime`] goes forward only, and does not stand still while the machine sleeps: leases are measured by it.
//! [`wall_time`] is the time of day, which people set: nothing about who owns what is decided by it.

use std::time::{Duration, SystemTime};

/// A moment since this machine was started, by `CLOCK_BOOTTIME` (clock_gettime(2)). [`std::time::Instant`] stands still while the
/// machine sleeps, and a lease that it measured would be valid when it wakes.
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
        #[cfg(feature = "simulation")]
        if let Some(simulated) = crate::simulation::installed() {
            return Self { nanoseconds: simulated.boot_time_ns() };
        }
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
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

    /// The moment so many nanoseconds after the start.
    pub fn from_nanoseconds(nanoseconds: u64) -> Self {
        Self { nanoseconds }
    }
}

/// The time of day, by this machine's clock.
pub fn wall_time() -> SystemTime {
    #[cfg(feature = "simulation")]
    if let Some(simulated) = crate::simulation::installed() {
        return SystemTime::UNIX_EPOCH + simulated.since_1970();
    }
    #[expect(clippy::disallowed_methods, reason = "this is where the time of day comes from")]
    SystemTime::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_apart_by_durations() {
        let at = |ns| BootTime::from_nanoseconds(ns);
        assert_eq!(at(5).until(at(12)), Duration::from_nanos(7));
        assert_eq!(at(12).until(at(5)), Duration::ZERO);
        assert_eq!(at(5).plus(Duration::from_nanos(7)), at(12));
        assert_eq!(at(5).plus(Duration::MAX), BootTime::NEVER);
    }

    #[test]
    fn the_clock_goes_on() {
        let before = BootTime::now();
        assert!(before > BootTime::START && BootTime::now() >= before);
    }
}
