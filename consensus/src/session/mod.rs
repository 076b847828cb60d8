//! This node's session: how it stays alive for the others, and how it knows by itself that it does (design section 5).
//!
//! * [`lease`]: until when this node may acknowledge what clients ask for.
//! * [`keeper`]: the task that renews it.
//! * [`trace`]: what happened to it, for programs that judge it.
//!
//! The way of one renewal, and what a crash or a cut leaves behind each step:
//! 1. the node notes the time;
//! 2. it proposes the renewal. Cut here, its lease runs out by itself;
//! 3. the renewal is applied by whoever leads, whose own count begins now. Cut here, the lease of before runs out, sooner than the
//!    other count does;
//! 4. the node has applied the log up to the renewal, and so every change of owner that came before it;
//! 5. it gives up what it does not own any more;
//! 6. only then does its lease last, from the time of step 1.
//!
//! How this keeps two nodes from serving one volume (Gray and Cheriton: Leases, 1989): a node that may take over has seen the
//! session lapse, which whoever leads says `length + margin` after step 3 at the earliest; the lease lasted until `length -
//! margin` after step 1. Clocks may drift against each other by much more than is assumed of them before the two meet.

pub mod keeper;
pub mod lease;
pub mod trace;

pub use keeper::{SessionKeeper, SessionNews};
pub use lease::Lease;

use std::time::Duration;

use crate::state::session::SessionLength;

/// For how long a renewal lets its node acknowledge anything, from the moment before it was asked for, by the node's clock.
pub fn holds_for(length: SessionLength) -> Duration {
    length.duration() - margin(length)
}

/// How long whoever leads waits, by its own clock, from when it has seen a renewal applied, before it says that the session has
/// lapsed.
pub fn lapses_after(length: SessionLength) -> Duration {
    length.duration() + margin(length)
}

/// What a node gives up of its session, and what whoever leads adds to it: a tenth.
fn margin(length: SessionLength) -> Duration {
    length.duration() / 10
}
