//! A chunk store in memory that counts, for the tests of maps.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use sterna_types::ChunkId;

use crate::chunk_store::{ChunkStore, Encoding, Location, NewChunk, Room, StoreError, StorePin};
use crate::disk::DiskFile;

/// Chunks in memory, in the order in which they came.
#[derive(Debug, Default)]
pub(crate) struct TestStore {
    chunks: Mutex<HashMap<ChunkId, NewChunk>>,
    order: Mutex<Vec<ChunkId>>,
    gets: AtomicUsize,
    keeps: AtomicUsize,
    appends: Mutex<Vec<usize>>,
    pins: Arc<()>,
}

impl TestStore {
    /// How many chunks have been asked for by [`ChunkStore::get`] since it was last asked.
    pub(crate) fn take_gets(&self) -> usize {
        self.gets.swap(0, Ordering::Relaxed)
    }

    /// How often it was asked by [`ChunkStore::keep`] whether a chunk is here since it was last asked.
    pub(crate) fn take_keeps(&self) -> usize {
        self.keeps.swap(0, Ordering::Relaxed)
    }

    /// Of how many chunks each append was.
    pub(crate) fn appends(&self) -> Vec<usize> {
        self.appends.lock().unwrap().clone()
    }

    /// The chunks in the order in which they were appended.
    pub(crate) fn in_order(&self) -> Vec<NewChunk> {
        let chunks = self.chunks.lock().unwrap();
        self.order.lock().unwrap().iter().map(|id| chunks[id].clone()).collect()
    }

    /// Makes a chunk vanish.
    pub(crate) fn lose(&self, id: ChunkId) {
        self.chunks.lock().unwrap().remove(&id);
    }

    /// How many pins live.
    pub(crate) fn pins(&self) -> usize {
        Arc::strong_count(&self.pins) - 1
    }
}

impl ChunkStore for TestStore {
    fn pin(&self) -> StorePin {
        StorePin::holding(Arc::clone(&self.pins))
    }

    fn keep(&self, id: ChunkId, _pin: &StorePin) -> Result<bool, StoreError> {
        self.keeps.fetch_add(1, Ordering::Relaxed);
        Ok(self.chunks.lock().unwrap().contains_key(&id))
    }

    fn append(&self, chunks: &[NewChunk], _room: Room, _pin: &StorePin) -> Result<(), StoreError> {
        self.appends.lock().unwrap().push(chunks.len());
        for chunk in chunks {
            if self.chunks.lock().unwrap().insert(chunk.id, chunk.clone()).is_none() {
                self.order.lock().unwrap().push(chunk.id);
            }
        }
        Ok(())
    }

    fn locate(&self, id: ChunkId) -> Result<Option<Location>, StoreError> {
        Ok(self.chunks.lock().unwrap().get(&id).map(|chunk| Location {
            file: Arc::new(TestFile(chunk.bytes.clone())),
            offset: 0,
            length: u32::try_from(chunk.bytes.len()).unwrap(),
            encoding: Encoding::Raw,
            checksums: Arc::new([]),
            id,
        }))
    }

    fn read(&self, location: &Location, from: u32, into: &mut [u8]) -> Result<(), StoreError> {
        location
            .file
            .read_at(u64::from(from), into)
            .map_err(|source| StoreError::Io { path: "test".to_owned(), source })
    }

    fn read_now(&self, location: &Location, from: u32, into: &mut [u8]) -> Option<Result<(), StoreError>> {
        Some(self.read(location, from, into))
    }

    fn get(&self, id: ChunkId) -> Result<Option<Bytes>, StoreError> {
        self.gets.fetch_add(1, Ordering::Relaxed);
        Ok(self.chunks.lock().unwrap().get(&id).map(|chunk| chunk.bytes.clone()))
    }
}

#[derive(Debug)]
struct TestFile(Bytes);

impl DiskFile for TestFile {
    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        let at = usize::try_from(at).unwrap();
        into.copy_from_slice(self.0.get(at..at + into.len()).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn read_at_now(&self, at: u64, into: &mut [u8]) -> bool {
        self.read_at(at, into).is_ok()
    }

    fn write_at(&self, _at: u64, _parts: &[&[u8]]) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn drop_cached(&self) {}

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn allocate(&self, _length: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }
}
