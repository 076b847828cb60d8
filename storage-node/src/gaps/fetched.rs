//! Taking what was fetched: what it is called, and what it is.

use std::sync::Arc;

use bytes::Bytes;
use sterna_types::{BLOCK_SIZE, ChunkId};

use super::Wanted;
use crate::chunk_store::{
    ChunkKind, ChunkStore, MAX_CHUNK_BYTES, NewChunk, PackStore, Room, StoreError, StorePin, chunk_id,
};
use crate::chunk_writer::{MAX_PENDING_BYTES, MAX_PENDING_CHUNKS};
use crate::map::{self, ReferencesError};

/// Why fetched chunks were not stored.
#[derive(Debug, thiserror::Error)]
pub enum FetchedError {
    /// What came is not what was asked for: it was altered on its way, or where it is kept.
    #[error("chunk {id} came with the contents of {found}: it is to be fetched elsewhere")]
    Altered {
        /// The chunk that was wanted.
        id: ChunkId,
        /// What the bytes that came are called.
        found: ChunkId,
    },
    /// No store takes a chunk of such a length. It has the right id: the one who wrote it was wrong.
    #[error("chunk {id} came with {length} bytes, and no chunk of its kind has so many")]
    Length {
        /// The chunk.
        id: ChunkId,
        /// Its length in bytes.
        length: usize,
    },
    /// The chunk is not what the map has in its place. It has the right id: the one who wrote it was wrong.
    #[error("chunk {id} is not what the map says: {source}")]
    Kind {
        /// The chunk.
        id: ChunkId,
        /// What is wrong with it.
        source: ReferencesError,
    },
    /// The store could not take them.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Verifies each chunk against its id, and that a node or manifest is one, and stores them: durable on return, and kept at
/// least until `pin` is dropped. Blocks.
///
/// # Errors
/// [`FetchedError`]. Where one of the chunks is not what was wanted, it is named, and none of them is stored; where the store
/// fails, some may be.
pub fn store_fetched(
    store: &Arc<dyn ChunkStore>,
    pin: &StorePin,
    chunks: Vec<(Wanted, Bytes)>,
) -> Result<(), FetchedError> {
    let verified: Result<Vec<NewChunk>, _> =
        chunks.into_iter().map(|(wanted, bytes)| verified(wanted, bytes)).collect();
    let verified = verified?;
    let (mut begin, mut bytes) = (0, 0);
    for (at, chunk) in verified.iter().enumerate() {
        bytes += chunk.bytes.len();
        if bytes >= MAX_PENDING_BYTES || at + 1 - begin >= MAX_PENDING_CHUNKS || at + 1 == verified.len() {
            store.append(&verified[begin..=at], Room::BesideReserve, pin)?;
            (begin, bytes) = (at + 1, 0);
        }
    }
    Ok(())
}

/// Verifies each chunk as [`store_fetched`] does, and stores it in place of one that is damaged: durable on return. Blocks.
///
/// # Errors
/// [`FetchedError`]. Where one of the chunks is not what was wanted, none of them is stored; where the store fails, some may be.
pub fn repair_fetched(store: &PackStore, pin: &StorePin, chunks: Vec<(Wanted, Bytes)>) -> Result<(), FetchedError> {
    let verified: Result<Vec<NewChunk>, _> =
        chunks.into_iter().map(|(wanted, bytes)| verified(wanted, bytes)).collect();
    verified?.iter().try_for_each(|chunk| store.repair(chunk, pin)).map_err(FetchedError::from)
}

fn verified(wanted: Wanted, bytes: Bytes) -> Result<NewChunk, FetchedError> {
    let Wanted { id, kind } = wanted;
    let found = chunk_id(&bytes);
    if found != id {
        return Err(FetchedError::Altered { id, found });
    }
    let length = bytes.len();
    let is_whole = kind != ChunkKind::Data || (length as u64).is_multiple_of(BLOCK_SIZE);
    if !(1..=MAX_CHUNK_BYTES).contains(&length) || !is_whole {
        return Err(FetchedError::Length { id, length });
    }
    map::children(kind, &bytes).map_err(|source| FetchedError::Kind { id, source })?;
    Ok(NewChunk { id, kind, bytes, read_soon: false })
}
