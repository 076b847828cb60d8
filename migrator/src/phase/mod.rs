//! Who does what next in a migration, at both of its ends, as pure functions of what is known.
//!
//! Neither end goes through a list of steps. Each looks at what it knows of QEMU, of the volumes and of the other end ([`SourceFacts`],
//! [`DestinationFacts`]), and [`source()`] and [`destination()`] say what is to be done now, what is waited for, or how it has ended. So a
//! migrator that was killed, or has lost its connection, learns what there is and goes on; and each thing that is done before the volumes
//! are handed over has its undoing, which is what is to be done once the migration is not wanted any more.
//!
//! ```text
//! source                                                          destination
//! ──────                                                          ───────────
//! prepare ──────────────────────────────────────────────────────> starts its QEMU, which waits for memory
//! memory, while the VM runs ════════════════════════════════════> loads it
//! volumes: what is hot is brought there, and kept up to date
//! both nearly there: room is made for the volumes; `stop`
//!   the rest of memory, devices ════════════════════════════════> all is loaded
//!   the volumes are handed over ────────────────────────────────> its node owns them
//!                                                                 both: writes down that it runs the VM; `cont`
//! ends its QEMU <──────────────────────────────────────────────── it runs
//! ```
//!
//! Offline, the VM is stopped first, once what is hot of its volumes is there, and each page of its memory travels once.
//!
//! What may never be false, and is checked over all that can happen to two ends and a link between them (the model `migration`):
//!
//! * at most one end runs the VM;
//! * the source runs it only while its node owns the volumes, the destination only while its does;
//! * of running and declining, the destination writes down one, once;
//! * where both hosts and the link last, the VM runs in the end.
//!
//! Why it is like that is [decision 35](https://github.com/sterna/sterna/blob/main/docs/decisions/0035-who-runs-a-vm-that-moves.md).

pub mod destination;
pub mod source;

#[cfg(test)]
mod tests;

pub use destination::{DestinationFacts, DestinationStep, destination};
pub use source::{SourceFacts, SourceStep, source};

/// Where volumes are, as one end knows it. All of a VM's are at the same place: they are handed over in one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Volumes {
    /// This end's node owns them, and no handoff of them has begun.
    Here,
    /// The same, and what is hot of them is at the other node, which is kept up to date.
    Brought,
    /// This end's node owns them; a handoff is prepared, and waits for a word.
    Ready,
    /// The word was given: it is not known yet which node owns them.
    UnderWay,
    /// The other end's node owns them.
    There,
}

/// What the destination has made of a migration; on its disk before anything follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// It runs the VM, or has been about to.
    Runs,
    /// It never has and never will.
    Declined,
}
