//! The new chunks of a seal, an import or an update, gathered into few large appends.

use std::collections::HashMap;
use std::mem;
use std::sync::Arc;

use bytes::Bytes;
use sterna_types::ChunkId;

use crate::chunk_store::{ChunkStore, NewChunk, Room, StoreError, StorePin};

/// Takes chunks, leaves out those that the store has, and appends the others in large pieces.
///
/// Whoever puts a manifest or a node has put before, through the same writer, each chunk that it refers to, or holds that
/// chunk by a root that is recorded. So a chunk is appended no later than those that refer to it, and nothing that a
/// collection could take is referred to. Invariants:
/// * each chunk that was put is in the store or pending, in the order of the calls;
/// * less than [`MAX_PENDING_BYTES`] and [`MAX_PENDING_CHUNKS`] are pending between two calls that succeed.
#[derive(Debug)]
pub struct ChunkWriter {
    store: Arc<dyn ChunkStore>,
    room: Room,
    pin: StorePin,
    pending: Vec<NewChunk>,
    /// Where in `pending` a chunk is.
    places: HashMap<ChunkId, usize>,
    pending_bytes: usize,
    stats: WriterStats,
}

/// What became of the chunks that were put.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct WriterStats {
    /// Chunks that the store has taken, or will at the next append.
    pub new_chunks: u64,
    /// Their bytes.
    pub new_bytes: u64,
    /// Chunks that the store had, or that were put before.
    pub known_chunks: u64,
    /// Their bytes.
    pub known_bytes: u64,
    /// Appends to the store, each of which has cost a sync.
    pub appends: u64,
}

impl ChunkWriter {
    /// A writer to `store`. Until its pin is dropped no collection begins: waits for one that is just beginning.
    pub fn new(store: Arc<dyn ChunkStore>) -> Self {
        let pin = store.pin();
        Self {
            store,
            room: Room::BesideReserve,
            pin,
            pending: Vec::new(),
            places: HashMap::new(),
            pending_bytes: 0,
            stats: WriterStats::default(),
        }
    }

    /// The same writer, which takes of the disk what there is `room` for.
    #[must_use]
    pub fn with_room(self, room: Room) -> Self {
        Self { room, ..self }
    }

    /// Takes a chunk, and says what it is called. It is durable once [`ChunkWriter::finish`] has returned.
    ///
    /// # Errors
    /// [`StoreError`]; the chunks that are pending stay so.
    ///
    /// # Panics
    /// Where it can be no chunk: no bytes, or more than [`MAX_CHUNK_BYTES`](crate::chunk_store::MAX_CHUNK_BYTES).
    pub fn put(&mut self, chunk: NewChunk) -> Result<ChunkId, StoreError> {
        let (id, length) = (chunk.id, chunk.bytes.len());
        assert!((1..=crate::chunk_store::MAX_CHUNK_BYTES).contains(&length), "{length} bytes are no chunk");
        if self.places.contains_key(&id) || self.store.keep(id, &self.pin)? {
            self.stats.known_chunks += 1;
            self.stats.known_bytes += length as u64;
            return Ok(id);
        }
        self.places.insert(id, self.pending.len());
        self.pending.push(chunk);
        self.pending_bytes += length;
        self.stats.new_chunks += 1;
        self.stats.new_bytes += length as u64;
        if self.pending_bytes >= MAX_PENDING_BYTES || self.pending.len() >= MAX_PENDING_CHUNKS {
            self.append()?;
        }
        Ok(id)
    }

    /// The contents of a chunk that was put, or that the store has; `None` where it is not here.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn get(&self, id: ChunkId) -> Result<Option<Bytes>, StoreError> {
        match self.places.get(&id).and_then(|place| self.pending.get(*place)) {
            Some(chunk) => Ok(Some(chunk.bytes.clone())),
            None => self.store.get(id),
        }
    }

    /// Appends what is pending. On return all that was put is durable, and stays as long as the pin lives: record the root
    /// where collections look for roots, then drop the pin.
    ///
    /// # Errors
    /// [`StoreError`]; what has been appended of it will be collected.
    pub fn finish(mut self) -> Result<(StorePin, WriterStats), StoreError> {
        if !self.pending.is_empty() {
            self.append()?;
        }
        Ok((self.pin, self.stats))
    }

    fn append(&mut self) -> Result<(), StoreError> {
        self.store.append(&self.pending, self.room, &self.pin)?;
        self.stats.appends += 1;
        self.places.clear();
        self.pending_bytes = 0;
        drop(mem::take(&mut self.pending));
        Ok(())
    }
}

/// Bytes that are held back before they are appended: enough that a sync is a small part of writing them, and little
/// beside the journal's overlay.
pub const MAX_PENDING_BYTES: usize = 16 << 20;
/// Chunks that are held back, so that an append's batch for the index is bounded too.
pub const MAX_PENDING_CHUNKS: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk_store::{ChunkKind, chunk_id};
    use crate::map::test_store::TestStore;

    fn data(number: u64, length: usize) -> Bytes {
        let mut bytes = vec![0; length];
        blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof().fill(&mut bytes);
        bytes.into()
    }

    fn chunk(number: u64, length: usize) -> NewChunk {
        NewChunk::of(ChunkKind::Data, data(number, length))
    }

    fn ids(store: &TestStore) -> Vec<ChunkId> {
        store.in_order().iter().map(|chunk| chunk.id).collect()
    }

    #[test]
    fn chunks_reach_the_store_in_the_order_of_the_calls_and_once() {
        let store = Arc::new(TestStore::default());
        let mut writer = ChunkWriter::new(Arc::<TestStore>::clone(&store));
        let put = [1, 2, 1, 3, 2].map(|number| writer.put(chunk(number, 4096)).unwrap());
        assert_eq!(put[0], chunk_id(&data(1, 4096)));
        assert_eq!(ids(&store), [], "nothing is appended before there is much of it");
        assert_eq!(writer.get(put[1]).unwrap(), Some(data(2, 4096)), "what is pending can be read");
        assert_eq!(writer.get(chunk_id(b"other")).unwrap(), None);

        let (pin, stats) = writer.finish().unwrap();
        assert_eq!(ids(&store), [put[0], put[1], put[3]]);
        let known = WriterStats { known_chunks: 2, known_bytes: 8192, ..WriterStats::default() };
        assert_eq!(stats, WriterStats { new_chunks: 3, new_bytes: 12288, appends: 1, ..known });
        assert_eq!(store.pins(), 1, "nothing is collected before the root is recorded");
        drop(pin);
        assert_eq!(store.pins(), 0);
    }

    #[test]
    fn what_the_store_has_is_not_appended_again() {
        let store = Arc::new(TestStore::default());
        for appends in [1, 0] {
            let mut writer = ChunkWriter::new(Arc::<TestStore>::clone(&store));
            writer.put(NewChunk::of(ChunkKind::Manifest, data(1, 100))).unwrap();
            assert_eq!(writer.finish().unwrap().1.appends, appends);
        }
        assert_eq!(ids(&store).len(), 1);
    }

    #[test]
    fn what_is_pending_is_bounded_in_bytes_and_in_number() {
        for (length, chunks) in [(128 << 10, 128), (64, 4096)] {
            let store = Arc::new(TestStore::default());
            let mut writer = ChunkWriter::new(Arc::<TestStore>::clone(&store));
            for number in 0..chunks {
                assert_eq!(ids(&store).len(), 0);
                writer.put(chunk(number, length)).unwrap();
            }
            assert_eq!(ids(&store).len() as u64, chunks, "all of it was appended at the bound");
            writer.put(chunk(0, length)).unwrap();
            assert_eq!(writer.finish().unwrap().1.appends, 1, "what was appended before is known");
        }
    }
}
