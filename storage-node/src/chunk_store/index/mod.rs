//! The index: an ordered key-value store with atomic batches. It says where chunks are, and keeps the records of volumes.
//!
//! Two implementations: [`RocksIndex`] on the operating system, and [`MemoryIndex`] for tests and simulation, which loses
//! at a crash what was not made durable. Keys live in one of two [`Space`]s:
//!
//! | space | key | value |
//! |---|---|---|
//! | [`Space::Chunks`] | chunk id, 32 bytes | where it is: `IndexEntry` |
//! | [`Space::Records`] | table, 1 byte; the rest is the table's own | the owner's own: [`VolumeRecords`], `Totals` |
//!
//! What may be relied on: batches are atomic; they are seen in the order in which they were committed; after a crash a
//! prefix of them is there, and it has every batch up to the last one that was committed as durable. A batch whose commit
//! has failed is the last one of its index: it is not seen, it may be there after a crash, and nothing is changed any more
//! until the index has been opened anew. So whatever was decided by what is seen holds also for what will be found.

mod entry;
mod memory;
mod records;
mod rocks;
#[cfg(test)]
mod tests;
mod totals;

use std::fmt;
use std::path::PathBuf;

pub(super) use entry::IndexEntry;
use sterna_types::ChunkId;
pub(super) use totals::Totals;

pub use memory::MemoryIndex;
pub use records::VolumeRecords;
pub use rocks::RocksIndex;

use super::pack::{Frame, PackId};

/// A key with its value.
pub type KeyValue = (Vec<u8>, Vec<u8>);

/// An ordered key-value store. All calls may block.
pub trait Index: fmt::Debug + Send + Sync + 'static {
    /// The value of a key; `None` where it has none.
    ///
    /// # Errors
    /// [`IndexError`].
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError>;

    /// Keys that begin with `prefix`, in order, with their values: the first `limit` of those behind `after`. A caller who
    /// asks page by page sees each key that is there all the time; of others he may see any.
    ///
    /// # Errors
    /// [`IndexError`].
    fn page(
        &self,
        space: Space,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<KeyValue>, IndexError>;

    /// Applies all of a batch or nothing. With `durable` it and all batches before are durable on return; an empty one does
    /// this too.
    ///
    /// # Errors
    /// [`IndexError`]; what is durable is then unknown, and every later commit is refused with [`IndexError::Poisoned`]. That
    /// the disk was full makes no difference: the database does not say how far it has come.
    fn commit(&self, batch: Batch, durable: bool) -> Result<(), IndexError>;

    /// Refuses once a commit has failed: then what is read may not be what is found after a crash. It does not block.
    ///
    /// # Errors
    /// [`IndexError::Poisoned`].
    fn check_sound(&self) -> Result<(), IndexError>;
}

/// Where the index says that a chunk is: the pack, and the frame in it. `None` where it says nothing that can be read.
pub(crate) fn frame_of(index: &dyn Index, id: ChunkId) -> Option<(PackId, Frame)> {
    let value = index.get(Space::Chunks, id.as_bytes()).ok().flatten()?;
    let entry = IndexEntry::decode(id, &value).ok()?;
    Some((entry.place.pack, entry.frame))
}

/// Which keys are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Space {
    /// Where chunks are.
    Chunks,
    /// What else the engine remembers.
    Records,
}

/// Changes that are made together, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    changes: Vec<Change>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Change {
    space: Space,
    key: Vec<u8>,
    /// `None`: the key goes.
    value: Option<Vec<u8>>,
}

impl Batch {
    /// No change.
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives a key a value, in place of any that it has.
    pub fn put(&mut self, space: Space, key: &[u8], value: Vec<u8>) {
        self.changes.push(Change { space, key: key.to_vec(), value: Some(value) });
    }

    /// Removes a key; one that is not there is no error.
    pub fn delete(&mut self, space: Space, key: &[u8]) {
        self.changes.push(Change { space, key: key.to_vec(), value: None });
    }

    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}

/// Why the index could not answer.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// It is of a version that this program does not know.
    #[error("the index in {path} has version {found}, and this program reads version {known}: use the program that wrote it", path = path.display())]
    Version {
        /// The directory of the index.
        path: PathBuf,
        /// What it says.
        found: u32,
        /// What this program knows.
        known: u32,
    },
    /// What it says cannot be.
    #[error("the index is damaged: {what}; `sterna salvage` reads the packs without it")]
    Damaged {
        /// What is wrong, and where.
        what: String,
    },
    /// A commit has failed: what is durable is unknown until the index has been opened anew.
    #[error("an earlier change of the index failed: start the node anew, it goes on from what is durable")]
    Poisoned,
    /// The database refused.
    #[error("the database of the index refused: {what}")]
    Refused {
        /// What it said.
        what: String,
    },
}
