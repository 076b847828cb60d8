//! A sequence of bytes that goes on where it was, when the connection that carried it has ended.
//!
//! QEMU takes a migration for failed when its socket ends, and it measures the link by how fast the socket takes what it writes. So the
//! sockets are between it and a migrator beside it, and outlive the connection between the two migrators; and what the source's has taken
//! and the destination's has not got is bounded by what the link carries in a moment ([`window`]).
//!
//! ```text
//! QEMU ── socket ──> [Outbox: taken, not acknowledged] ── connection, may end ──> [Inbox: how far] ── socket ──> QEMU
//! ```
//!
//! Each byte has its place, counted from the beginning. The receiver acknowledges what its QEMU has taken. After a new connection it says
//! how far it has come, and the sender begins again there; nothing is lost and nothing comes twice.
//!
//! * [`carrier`]: one end, with its socket. * [`outbox`]: what has not been acknowledged. * [`inbox`]: what comes next. * [`window`]: how much may be on the way.

pub mod carrier;
pub mod inbox;
pub mod outbox;
pub mod window;

pub use carrier::{Carried, Carrier, CarryEnd, Frame, Plain, Tap, TapError};
pub use inbox::Inbox;
pub use outbox::Outbox;
pub use window::Window;

/// A place in a sequence of bytes: how many are before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(pub u64);

impl Offset {
    /// The place that is this many bytes behind.
    ///
    /// # Panics
    /// There are more than 2^64 bytes.
    #[must_use]
    pub fn behind(self, bytes: usize) -> Self {
        Self(self.0.checked_add(bytes as u64).expect("no stream is that long"))
    }

    /// How many bytes there are from `earlier` to here; `None` where that is behind.
    pub fn since(self, earlier: Self) -> Option<u64> {
        self.0.checked_sub(earlier.0)
    }
}

#[cfg(test)]
mod tests;
