//! A chunk store in memory, for the tests of what stands on one.
//!
//! It forgets nothing, collects nothing and loses nothing: durability is tested with the real one on a simulated disk.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use sterna_types::ChunkId;

use super::{ChunkKind, ChunkStore, Encoding, Location, NewChunk, Room, StoreError, StorePin, piece_checksums};
use crate::disk::{Disk, DiskFile, SimulatedDisk};

/// Chunks in a map.
///
/// ```
/// use sterna_storage_node::chunk_store::{ChunkKind, ChunkStore, MemoryChunkStore, NewChunk, Room};
///
/// let store = MemoryChunkStore::new();
/// let chunk = NewChunk::of(ChunkKind::Data, vec![1; 4096].into());
/// store.append(&[chunk.clone()], Room::BesideReserve, &store.pin())?;
/// assert_eq!(store.get(chunk.id)?, Some(chunk.bytes));
/// # Ok::<(), sterna_storage_node::chunk_store::StoreError>(())
/// ```
#[derive(Debug, Default)]
pub struct MemoryChunkStore {
    chunks: Mutex<HashMap<ChunkId, NewChunk>>,
}

impl MemoryChunkStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many chunks there are.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// What a chunk was stored as; `None` where it is not here.
    pub fn kind(&self, id: ChunkId) -> Option<ChunkKind> {
        self.lock().get(&id).map(|chunk| chunk.kind)
    }

    /// Takes a chunk away, as damage would: `false` where it was not here.
    pub fn lose(&self, id: ChunkId) -> bool {
        self.lock().remove(&id).is_some()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ChunkId, NewChunk>> {
        self.chunks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ChunkStore for MemoryChunkStore {
    fn pin(&self) -> StorePin {
        StorePin::holding(())
    }

    fn keep(&self, id: ChunkId, _pin: &StorePin) -> Result<bool, StoreError> {
        Ok(self.lock().contains_key(&id))
    }

    fn append(&self, chunks: &[NewChunk], _room: Room, _pin: &StorePin) -> Result<(), StoreError> {
        let mut stored = self.lock();
        for chunk in chunks {
            chunk.check();
            stored.entry(chunk.id).or_insert_with(|| chunk.clone());
        }
        Ok(())
    }

    fn locate(&self, id: ChunkId) -> Result<Option<Location>, StoreError> {
        let Some(bytes) = self.get(id)? else { return Ok(None) };
        let failed = |source| StoreError::Io { path: id.to_string(), source };
        // A location holds a file: each one gets its own.
        let file: Arc<dyn DiskFile> = SimulatedDisk::new().create("chunk").map_err(failed)?;
        file.write_at(0, &[&bytes]).map_err(failed)?;
        let checksums = piece_checksums(&bytes).into();
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        Ok(Some(Location { file, offset: 0, length, encoding: Encoding::Raw, checksums, id }))
    }

    fn read(&self, location: &Location, from: u32, into: &mut [u8]) -> Result<(), StoreError> {
        let read = location.file.read_at(location.offset + u64::from(from), into);
        read.map_err(|source| StoreError::Io { path: location.id.to_string(), source })
    }

    fn read_now(&self, location: &Location, from: u32, into: &mut [u8]) -> Option<Result<(), StoreError>> {
        Some(self.read(location, from, into))
    }

    fn get(&self, id: ChunkId) -> Result<Option<Bytes>, StoreError> {
        Ok(self.lock().get(&id).map(|chunk| chunk.bytes.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_read_where_they_were_located() {
        let store = MemoryChunkStore::new();
        let chunk = NewChunk::of(ChunkKind::Manifest, (0..=255).collect::<Vec<u8>>().into());
        let pin = store.pin();
        assert!(!store.keep(chunk.id, &pin).expect("an answer"));
        store.append(&[chunk.clone(), chunk.clone()], Room::BesideReserve, &pin).expect("a stored chunk");
        assert!(store.keep(chunk.id, &pin).expect("an answer"));
        assert_eq!((store.len(), store.kind(chunk.id)), (1, Some(ChunkKind::Manifest)));
        let location = store.locate(chunk.id).expect("an answer").expect("a place");
        assert!(store.lose(chunk.id) && store.is_empty());
        let mut bytes = [0; 3];
        store.read(&location, 7, &mut bytes).expect("bytes of a chunk that has moved");
        assert_eq!(bytes, [7, 8, 9]);
        assert!(store.read(&location, 254, &mut bytes).is_err());
        assert!(store.locate(chunk.id).expect("an answer").is_none());
    }
}
