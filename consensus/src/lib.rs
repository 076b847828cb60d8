//! Sterna's metadata: who may write which volume, decided by Raft (design sections 5, 10 and 11).
//!
//! From the bottom up; each module knows only those above it in this list:
//! * [`limits`]: every bound, with its reason.
//! * [`state`]: the metadata as a pure value, and what each command makes of it.
//! * [`handoff`]: what a node promises about a volume that passes from it or to it, and what it may do then.
//! * `store`: Raft's log, vote and snapshots in RocksDB, or in a simulated database, durable before they count.
//! * `callers`: which nodes may ask this one something.
//! * `raft`: the types that openraft is run with, its chance, and its messages between nodes.
//! * [`node`]: [`MetadataNode`], what the rest of the program sees of all this.
//! * [`session`]: this node's session, and until when it may acknowledge anything.
//! * `rehearsal`: pretended surroundings, for measurements; only with the feature of that name.
//! * `simulation`: the metadata of simulated machines; only with the feature of that name.
//!
//! This crate is *not* a database for everybody: nothing that happens per block or per request of a guest comes here. It knows
//! no chunk and no journal, and no type of openraft or RocksDB leaves it. The formats on disk are written down in
//! `docs/on-disk-format.md`.

#![cfg_attr(test, expect(clippy::disallowed_methods, reason = "no simulation runs a test"))]

mod callers;
pub mod handoff;
pub mod limits;
pub mod node;
mod raft;
#[cfg(feature = "rehearsal")]
pub mod rehearsal;
pub mod session;
#[cfg(feature = "simulation")]
pub mod simulation;
pub mod state;
mod store;

use std::path::Path;

pub use node::{MetadataConfig, MetadataNode, OpenError, ProposeError, ReadError, link_to};
pub use state::Metadata;
pub use store::FoundMetadata;

/// Reads the newest metadata in `dir` without taking part in anything, as far as it can be read: for salvage. Nothing in
/// the directory is altered. Nobody else has it open. Blocks.
///
/// It has all that is known here to be committed, which in a group of one is all that was ever acknowledged; in a larger
/// group other nodes may know of more.
///
/// # Errors
/// [`OpenError`]; not for damage behind which the metadata was still found: see [`FoundMetadata::damage`].
pub fn read_only(dir: &Path) -> Result<FoundMetadata, OpenError> {
    Ok(store::read_only(dir)?)
}
