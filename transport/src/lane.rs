//! Lanes: each has a connection of its own, so that what is urgent never waits behind what is long.
//!
//! Which lane a connection is of is agreed upon in its handshake: the calling end offers the lane's name for HTTP/2 as a
//! protocol (ALPN, RFC 7301), and plain `h2` behind it. A node that knows no lanes takes `h2`, and one that offers
//! nothing else is on [`Lane::Control`].

use std::fmt;

/// What a channel is for. In this order they go before one another ([`links`](crate::links)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Short messages that others wait for: Raft's, sessions', administrators'.
    Control,
    /// What a guest waits for: data that it needs before it has arrived by itself.
    Demand,
    /// What a handoff leaves behind: the owner's newest writes, which nobody else has yet.
    Tail,
    /// What a guest's flush waits for at the sites that hold its writes too.
    Sync,
    /// What a guest is expected to need next.
    Prefetch,
    /// Long transfers: snapshots, and what a site is to have some day.
    Bulk,
}

impl Lane {
    /// All lanes.
    pub const ALL: [Self; 6] = [Self::Control, Self::Demand, Self::Tail, Self::Sync, Self::Prefetch, Self::Bulk];

    /// Whether its writes are ever held back, by another lane or by a limit.
    pub fn yields(self) -> bool {
        !matches!(self, Self::Control | Self::Demand)
    }

    /// Whether the other one does not write while this one does. The control lane's messages are short, and hold nobody
    /// back.
    pub fn goes_before(self, other: Self) -> bool {
        self != Self::Control && other.yields() && self < other
    }

    /// What HTTP/2 is called on this lane when a connection is made.
    pub(crate) fn protocol(self) -> &'static [u8] {
        match self {
            Self::Control => ALPN,
            Self::Demand => b"sterna-demand",
            Self::Tail => b"sterna-tail",
            Self::Sync => b"sterna-sync",
            Self::Prefetch => b"sterna-prefetch",
            Self::Bulk => b"sterna-bulk",
        }
    }

    /// The lane of a connection on which this was agreed upon; `None` if that is no HTTP/2.
    pub(crate) fn of_protocol(agreed: Option<&[u8]>) -> Option<Self> {
        Self::ALL.into_iter().find(|lane| Some(lane.protocol()) == agreed)
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Control => "control",
            Self::Demand => "demand",
            Self::Tail => "tail",
            Self::Sync => "sync",
            Self::Prefetch => "prefetch",
            Self::Bulk => "bulk",
        })
    }
}

/// HTTP/2, which is all that is spoken, as everybody calls it.
pub(crate) const ALPN: &[u8] = b"h2";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_go_before_one_another_in_the_order_of_the_design() {
        let ordered = [Lane::Demand, Lane::Tail, Lane::Sync, Lane::Prefetch, Lane::Bulk];
        for (place, lane) in ordered.into_iter().enumerate() {
            for (other_place, other) in ordered.into_iter().enumerate() {
                assert_eq!(lane.goes_before(other), place < other_place, "{lane} before {other}");
            }
            assert!(!lane.goes_before(Lane::Control) && !Lane::Control.goes_before(lane), "{lane}");
        }
    }

    #[test]
    fn a_lane_is_known_by_its_protocol() {
        for lane in Lane::ALL {
            assert_eq!(Lane::of_protocol(Some(lane.protocol())), Some(lane));
        }
        assert_eq!(Lane::of_protocol(Some(b"h2")), Some(Lane::Control));
        assert_eq!([Lane::of_protocol(Some(b"http/1.1")), Lane::of_protocol(None)], [None; 2]);
    }
}
