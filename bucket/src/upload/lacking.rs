//! A node's store as the walk of a root sees it that looks for what a bucket lacks: it reads what is here, and asks what is there.

use std::collections::HashSet;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use sterna_storage_node::chunk_store::{ChunkStore, Location, NewChunk, Room, StoreError, StorePin};
use sterna_types::ChunkId;

use crate::catalogue::Catalogue;

/// The store.
#[derive(Debug)]
pub(super) struct Lacking {
    store: Arc<dyn ChunkStore>,
    catalogue: Arc<Catalogue>,
    pending: Arc<Pending>,
}

/// The chunks of packs that are being filled, or on their way: some ten thousand.
#[derive(Debug, Default)]
pub(super) struct Pending(Mutex<HashSet<ChunkId>>);

impl Lacking {
    pub(super) fn new(store: Arc<dyn ChunkStore>, catalogue: Arc<Catalogue>) -> Self {
        Self { store, catalogue, pending: Arc::default() }
    }

    pub(super) fn pending(&self) -> Arc<Pending> {
        Arc::clone(&self.pending)
    }
}

impl Pending {
    /// A chunk was put into a pack.
    pub(super) fn is_coming(&self, id: ChunkId) {
        self.ids().insert(id);
    }

    /// A pack has come, and the catalogue knows it.
    pub(super) fn have_come(&self, ids: impl Iterator<Item = ChunkId>) {
        let mut pending = self.ids();
        ids.for_each(|id| {
            pending.remove(&id);
        });
    }

    fn ids(&self) -> MutexGuard<'_, HashSet<ChunkId>> {
        // Each id is put in whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ChunkStore for Lacking {
    fn pin(&self) -> StorePin {
        self.store.pin()
    }

    /// Whether it is in the bucket, or on its way there.
    fn keep(&self, id: ChunkId, _: &StorePin) -> Result<bool, StoreError> {
        if self.pending.ids().contains(&id) {
            return Ok(true);
        }
        let failed = |error: crate::BucketError| StoreError::Io {
            path: "what is remembered of the bucket".to_owned(),
            source: io::Error::other(error),
        };
        self.catalogue.holds(id).map_err(failed)
    }

    fn append(&self, chunks: &[NewChunk], room: Room, pin: &StorePin) -> Result<(), StoreError> {
        self.store.append(chunks, room, pin)
    }

    fn locate(&self, id: ChunkId) -> Result<Option<Location>, StoreError> {
        self.store.locate(id)
    }

    fn moves(&self) -> u64 {
        self.store.moves()
    }

    fn read(&self, location: &Location, from: u32, into: &mut [u8]) -> Result<(), StoreError> {
        self.store.read(location, from, into)
    }

    fn read_now(&self, location: &Location, from: u32, into: &mut [u8]) -> Option<Result<(), StoreError>> {
        self.store.read_now(location, from, into)
    }

    fn get(&self, id: ChunkId) -> Result<Option<Bytes>, StoreError> {
        self.store.get(id)
    }
}
