//! One disk out of journal, map and chunks.
//!
//! A [`Volume`] takes writes into its journal and notes in an overlay where their contents are. From time to time it is
//! sealed: what is in the overlay becomes chunks, manifests and a new root, and the journal is freed. A read looks into
//! the overlay, then into what is being sealed, then into the map.
//!
//! ```text
//!   write ──> journal ──> overlay (active) ──freeze──> overlay (sealing) ──seal──> chunks, map, root
//!   read  <────────────────── first ─────────────────────── second ─────────────────── last
//! ```
//!
//! * [`Storage`]: what all volumes of a node share: chunks, records, caches, journal files.
//! * `absence`: what a volume needs and this node does not have, and who brings it.
//! * `handoff`: a volume that passes from one node to another, and `tail`: what of it is newer than its root.
//! * `feed`: what is written to a volume, for those who keep a `mirror` of it at another node.
//! * `kept`: what a node has of a volume that is not open, and forgetting it.
//! * [`Volume`]: one of them, open; all its calls may block.
//! * [`VolumeDevice`]: the `BlockDevice` in front, which never does.
//! * `sealer`: the background task that seals each open volume in time. `used`: how it is used. `prefetcher`: the task that
//!   brings what its guest is about to need and is not here.
//!
//! Invariants of an open volume:
//! * what the layers show, from the newest to the root, is every acknowledged write;
//! * `sealed <= durable` for what is dropped: an overlay and its journal files go only after the record with the new root
//!   is durable;
//! * a chunk that the map in memory names is in the store.

mod absence;
#[cfg(test)]
mod absence_tests;
mod collect;
#[cfg(test)]
mod cost_tests;
mod device;
mod draft;
mod error;
mod feed;
mod filler;
mod handoff;
#[cfg(test)]
mod handoff_tests;
mod kept;
#[cfg(test)]
mod kept_tests;
mod mirror;
#[cfg(test)]
mod mirror_tests;
pub(crate) mod overlay;
mod prefetcher;
#[cfg(test)]
mod prefetcher_tests;
mod read;
mod read_ahead;
mod record;
pub(crate) mod recover;
mod rewrite;
mod rewrite_cold;
mod seal;
mod sealer;
mod segment_map;
pub(crate) mod storage;
mod tail;
#[cfg(test)]
mod tests;
mod used;
#[expect(clippy::module_inception, reason = "the type that this module is named after has a file of its own")]
mod volume;
mod write;

pub use absence::{Absence, Supplied, Supply, Urgency};
pub use device::VolumeDevice;
pub(crate) use draft::{Draft, Drafted};
pub use error::VolumeError;
pub use feed::{Beginning, Copied, Copies, Feed, FeedCut, FeedRecord};
pub use handoff::{Inheritance, Released};
pub use mirror::{Change, Changed, Rebase};
pub use prefetcher::{BringingStatus, Prefetcher};
pub use record::VolumeRecord;
pub use sealer::Sealer;
pub use storage::{Storage, StorageOptions};
pub use tail::{InvalidTail, MAX_TAIL_RUNS, Tail, TailRun};
pub use volume::{SealedState, Volume, VolumeSpec, VolumeStatus};
