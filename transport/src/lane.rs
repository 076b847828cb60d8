//! Lanes: each has a connection of its own, so that what is urgent never waits behind what is long.

use std::fmt;

/// What a channel is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Short messages that others wait for: Raft's, sessions', administrators'.
    Control,
    /// What a guest waits for: data that it needs before it has arrived by itself.
    Demand,
    /// What a guest is expected to need next.
    Prefetch,
    /// Long transfers: snapshots.
    Bulk,
}

impl Lane {
    /// All lanes.
    pub const ALL: [Self; 4] = [Self::Control, Self::Demand, Self::Prefetch, Self::Bulk];
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Control => "control",
            Self::Demand => "demand",
            Self::Prefetch => "prefetch",
            Self::Bulk => "bulk",
        })
    }
}
