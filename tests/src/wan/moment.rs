//! Points in time, as the model sees them.

use std::time::Duration;

/// Nanoseconds since the wan was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment(u64);

impl Moment {
    /// So many nanoseconds after the start.
    pub(super) const fn after_start_ns(ns: u64) -> Self {
        Self(ns)
    }

    /// This much later. What no clock can show is the last moment that one can.
    pub(super) const fn plus_ns(self, ns: u64) -> Self {
        Self(self.0.saturating_add(ns))
    }

    /// From `earlier` to this; nothing where that is not earlier.
    pub(super) const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}
