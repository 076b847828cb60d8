//! Immutable chunks, each named by the BLAKE3-256 of its contents.
//!
//! [`ChunkStore`] is what the rest of the engine sees. Payloads live in append-only pack files; an index says where. The
//! order of writing, which every crash has to leave intact: pack synced, then index written, and only then may anybody
//! record a root that needs the chunk. A crash leaves orphans, never dangling pointers.
//!
//! Invariants:
//! * a chunk that the index names can be read, and hashes to its id;
//! * a chunk is never altered; it moves (compaction) or goes (garbage collection), and one who holds its [`Location`] can
//!   read it there still;
//! * that a chunk is here says nothing about the chunks that it refers to: whoever records a root has kept or appended all
//!   of them, or took them from a root that is recorded;
//! * while a [`StorePin`] lives, no collection begins, and a running one spares what was kept or appended under the pin.

use std::fmt;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use sterna_types::{BLOCK_SIZE, ChunkId};

use crate::disk::DiskFile;

mod bits;
pub mod collect;
pub mod index;
mod memory;
pub mod pack;
mod pack_store;
mod scrub;
mod stats;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod throttle;

pub use memory::MemoryChunkStore;
pub use pack_store::{PackStore, PackStoreOptions};
pub use scrub::{Damage, DamagedFrame, Leavings, ScrubOptions, ScrubReport, ScrubWatcher};
pub use stats::StoreStats;
pub use throttle::Throttle;

/// The longest chunk, in bytes: a fully fragmented manifest is the largest piece of the map, a data chunk has 128 KiB.
pub const MAX_CHUNK_BYTES: usize = 256 << 10;

/// How far chunks may go into what a store leaves free of its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Room {
    /// Up to the reserve.
    #[default]
    BesideReserve,
    /// Into half of the reserve: for what gives back more than it takes, and has to be stored before anything can be given
    /// back.
    OfReserve,
}

/// Chunks by id. All calls may block, unless they say otherwise.
pub trait ChunkStore: fmt::Debug + Send + Sync + 'static {
    /// Holds the beginning of the next collection back until it is dropped: taken before the first [`ChunkStore::keep`] or
    /// [`ChunkStore::append`] of a root, dropped once the root is recorded where collections look for roots. Waits for a
    /// collection that is just beginning, and with it for the pins that are held: nobody takes a second one while holding
    /// one. It never waits for a collection that runs.
    fn pin(&self) -> StorePin;

    /// Whether the chunk is here; if it is, it stays at least until `pin` is dropped.
    ///
    /// # Errors
    /// [`StoreError`].
    fn keep(&self, id: ChunkId, pin: &StorePin) -> Result<bool, StoreError>;

    /// Stores chunks, as far as there is `room`; those that are here already, or twice among them, are stored once. Durable,
    /// with their places in the index, on return.
    ///
    /// # Errors
    /// [`StoreError::Full`], and then nothing of it is in the index and a later call may succeed; [`StoreError::Poisoned`]
    /// for good after a failed sync.
    fn append(&self, chunks: &[NewChunk], room: Room, pin: &StorePin) -> Result<(), StoreError>;

    /// Where a chunk is; `None` where it is not here.
    ///
    /// # Errors
    /// [`StoreError`].
    fn locate(&self, id: ChunkId) -> Result<Option<Location>, StoreError>;

    /// How often chunks have got other places so far. As long as it does not change, what was located stays where it was.
    fn moves(&self) -> u64 {
        0
    }

    /// Fills all of `into` with the bytes of a chunk from byte `from` on, having verified the checksum of each piece of
    /// 4 KiB that it read (of all of a compressed chunk).
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] where a checksum differs, and then `into` holds anything.
    fn read(&self, location: &Location, from: u32, into: &mut [u8]) -> Result<(), StoreError>;

    /// The same if it can be answered without waiting for a device; `None` where it cannot.
    fn read_now(&self, location: &Location, from: u32, into: &mut [u8]) -> Option<Result<(), StoreError>>;

    /// As [`ChunkStore::read`] for each of the parts, of one chunk or of several. Those that are neighbours in a pack are
    /// read together. The parts are in another order afterwards.
    ///
    /// # Errors
    /// As [`ChunkStore::read`]; then all of them hold anything.
    fn read_parts(&self, parts: &mut [ChunkPart<'_>]) -> Result<(), StoreError> {
        parts.iter_mut().try_for_each(|part| self.read(part.location, part.from, part.into))
    }

    /// The same if it can be answered without waiting for a device; `None` where it cannot.
    fn read_parts_now(&self, parts: &mut [ChunkPart<'_>]) -> Option<Result<(), StoreError>> {
        for part in parts {
            if let Err(error) = self.read_now(part.location, part.from, part.into)? {
                return Some(Err(error));
            }
        }
        Some(Ok(()))
    }

    /// All of a chunk, verified against its id; `None` where it is not here.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] where the bytes do not hash to the id.
    fn get(&self, id: ChunkId) -> Result<Option<Bytes>, StoreError>;
}

/// What a chunk is, for those who follow its references; it is no part of the id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChunkKind {
    /// Blocks of a volume.
    Data,
    /// The extents of a segment; refers to data.
    Manifest,
    /// A node of a map's radix tree; refers to nodes or manifests.
    Node,
    /// Which volume a root belongs to, so that packs alone tell what was there; refers to the root.
    Checkpoint,
}

/// A chunk to be stored.
#[derive(Clone, Debug)]
pub struct NewChunk {
    /// The hash of `bytes`.
    pub id: ChunkId,
    /// What it is.
    pub kind: ChunkKind,
    /// Its contents: at least one byte, at most [`MAX_CHUNK_BYTES`]; whole blocks for [`ChunkKind::Data`].
    pub bytes: Bytes,
    /// Whether it is likely to be read soon, so that it is best kept in memory.
    pub read_soon: bool,
}

impl NewChunk {
    /// A chunk of these contents, under the name that they give it. Nobody is known to want it soon.
    pub fn of(kind: ChunkKind, bytes: Bytes) -> Self {
        Self { id: chunk_id(&bytes), kind, bytes, read_soon: false }
    }

    /// Asserts what is true of every chunk that is stored, except for its id where debug assertions are off.
    ///
    /// # Panics
    /// Where the caller made a chunk that cannot be one.
    fn check(&self) {
        let length = self.bytes.len();
        assert!((1..=MAX_CHUNK_BYTES).contains(&length), "chunk {} of {length} bytes", self.id);
        let whole = self.kind != ChunkKind::Data || (length as u64).is_multiple_of(BLOCK_SIZE);
        assert!(whole, "data chunk {} of {length} bytes", self.id);
        debug_assert_eq!(self.id, chunk_id(&self.bytes), "a chunk under the name of another");
    }
}

/// The id of a chunk with these contents.
pub fn chunk_id(contents: &[u8]) -> ChunkId {
    ChunkId::from_bytes(*blake3::hash(contents).as_bytes())
}

/// CRC-32C of each 4 KiB, the last piece possibly shorter.
pub(crate) fn piece_checksums(stored: &[u8]) -> Vec<u32> {
    stored.chunks(PIECE_BYTES).map(crc32c::crc32c).collect()
}

/// Bytes under one checksum: a block, so that a read of one block verifies what it read and no more.
const PIECE_BYTES: usize = 4096;
const _: () = assert!(PIECE_BYTES as u64 == BLOCK_SIZE);

/// Where a chunk is kept, for reading it again and again without asking the index. It stays readable when the chunk moves:
/// it holds the file, whose space is given back once nobody does.
#[derive(Clone, Debug)]
pub struct Location {
    /// The pack that it is in.
    pub file: Arc<dyn DiskFile>,
    /// Its first byte there.
    pub offset: u64,
    /// Bytes of the chunk itself.
    pub length: u32,
    /// How they are kept.
    pub encoding: Encoding,
    /// CRC-32C of each 4 KiB of what is kept, the last piece possibly shorter.
    pub checksums: Arc<[u32]>,
    /// Whose contents these are, for what is said about it.
    pub id: ChunkId,
}

/// A part of a chunk, and where its bytes are wanted.
#[derive(Debug)]
pub struct ChunkPart<'a> {
    /// Where the chunk is.
    pub location: &'a Location,
    /// The first byte of it that is wanted.
    pub from: u32,
    /// Room for as many bytes as are wanted.
    pub into: &'a mut [u8],
}

/// How the bytes of a chunk are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// As they are.
    Raw,
    /// Compressed with zstd.
    Zstd {
        /// Bytes that are kept.
        stored_length: u32,
    },
}

/// A promise that nothing kept or appended under it is collected. See [`ChunkStore::pin`].
#[derive(Debug)]
pub struct StorePin {
    _held: Box<dyn fmt::Debug + Send>,
}

impl StorePin {
    /// A pin that lasts as long as `held` does: what the store counts its pins with.
    pub fn holding(held: impl fmt::Debug + Send + 'static) -> Self {
        Self { _held: Box::new(held) }
    }
}

/// Why a chunk could not be read or stored.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A root, a node or a manifest names a chunk that is not here.
    #[error("chunk {id} is not here")]
    Missing {
        /// The chunk.
        id: ChunkId,
    },
    /// What is kept is not what was stored.
    #[error("chunk {id} is damaged: {what}")]
    Corrupt {
        /// The chunk.
        id: ChunkId,
        /// What is wrong with it, and where.
        what: String,
    },
    /// There is no space left, or only what is held back for making space.
    #[error("no space left in the data directory")]
    Full,
    /// A sync has failed: what is durable is unknown until the data directory has been opened anew.
    #[error("an earlier sync failed: open the data directory anew to go on from what is durable")]
    Poisoned,
    /// The file system refused.
    #[error("{path}: {source}")]
    Io {
        /// The file or directory, relative to the data directory.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// The index refused.
    #[error(transparent)]
    Index(#[from] index::IndexError),
}
