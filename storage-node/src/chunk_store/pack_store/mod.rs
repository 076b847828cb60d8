//! Chunks in pack files, with an index that says where.
//!
//! How chunks are appended; each process begins new packs, and never writes to one that it found:
//!
//! 1. The pack is made, and its directory synced. *A crash after it leaves a pack that is empty or whose header is torn.*
//! 2. Batches are written, each with one gathered write. *A crash after it leaves frames that the index does not name.*
//! 3. The pack is synced.
//! 4. The index learns of all the chunks in one durable batch. *A crash after it has lost nothing.*
//!
//! [`PackStore::open`] does nothing about the leavings of steps 1 to 3: the index names none of them, the next pack gets a
//! higher id, and the next collection removes packs in which nothing lives and compacts those in which little does.
//!
//! Where a write fails for want of space, nothing is in the index, and the pack is left as it is: the next append begins
//! another. Where a sync or a batch of the index fails, what is durable is unknown: the store is poisoned. What is in the
//! index can be read still.
//!
//! Locks, in the order in which they are taken: `writer`, then `marking`. Invariants:
//! * entries of the index are changed with `marking` locked, and in the same batch the totals of them all, so that these
//!   agree with the entries after any crash;
//! * the pack that `writer` has open is in no collection's set of packs to be swept.

mod entries;
mod gate;
mod read;

use std::collections::HashSet;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use quick_cache::UnitWeighter;
use sterna_types::ChunkId;

use super::collect::Marking;
use super::index::{Batch, Index, IndexEntry, Space, Totals};
use super::pack::{BatchLayout, FULL_PACK_BYTES, PACK_DIRECTORY, PackId, PackWriter, StoredChunk};
use super::{ChunkKind, ChunkPart, ChunkStore, Encoding, Location, NewChunk, Room, StoreError, StorePin, chunk_id};
use crate::cache::Cache;
use crate::disk::{Disk, DiskFile};
pub(super) use entries::{EntryChanges, EntryLock};
pub(super) use gate::PinGate;
use read::{ByLength, Decompressed, TYPICAL_CHUNK_BYTES};

/// How a [`PackStore`] behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackStoreOptions {
    /// Bytes of the disk that appends leave free: half for what gives more back (a seal of holes, collection, compaction),
    /// half for the index, which must never find the disk full.
    pub reserve_bytes: u64,
    /// A pack of this length is full; at most 1 GiB.
    pub full_pack_bytes: u64,
    /// Packs that are held open, beside those that somebody has a [`Location`] in.
    pub open_packs: u64,
    /// Memory for chunks that were decompressed.
    pub decompressed_bytes: u64,
}

impl Default for PackStoreOptions {
    /// 64 MiB in reserve: a batch of compaction, with as much again for the index. 256 packs, a quarter of the least number
    /// of files that a process may have. 16 MiB of decompressed chunks: a sequential read of cold data decompresses each
    /// once, with 128 readers at it.
    fn default() -> Self {
        Self {
            reserve_bytes: 64 << 20,
            full_pack_bytes: FULL_PACK_BYTES,
            open_packs: 256,
            decompressed_bytes: 16 << 20,
        }
    }
}

/// Chunks in pack files, with an index that says where. It appends, keeps, reads and repairs chunks ([`ChunkStore`]), collects
/// those that nobody needs ([`PackStore::collect`]), and looks for damage ([`PackStore::scrub`]).
///
/// ```
/// use std::sync::Arc;
/// use sterna_storage_node::chunk_store::index::MemoryIndex;
/// use sterna_storage_node::chunk_store::{ChunkKind, ChunkStore, NewChunk, PackStore, PackStoreOptions, Room};
/// use sterna_storage_node::disk::SimulatedDisk;
///
/// let (disk, index) = (Arc::new(SimulatedDisk::new()), Arc::new(MemoryIndex::new()));
/// let store = PackStore::open(disk, index, PackStoreOptions::default())?;
/// let chunk = NewChunk::of(ChunkKind::Data, vec![7; 8192].into());
/// store.append(&[chunk.clone()], Room::BesideReserve, &store.pin())?;
/// let location = store.locate(chunk.id)?.expect("it was stored");
/// let mut block = [0; 4096];
/// store.read(&location, 4096, &mut block)?;
/// assert_eq!(block, [7; 4096]);
/// # Ok::<(), sterna_storage_node::chunk_store::StoreError>(())
/// ```
#[derive(Debug)]
pub struct PackStore {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) index: Arc<dyn Index>,
    options: PackStoreOptions,
    gate: Arc<PinGate>,
    /// The pack that appends go to.
    writer: Mutex<Option<PackWriter>>,
    /// What a running collection knows; `None` while there is none.
    marking: Mutex<Option<Marking>>,
    /// Held by the collection that runs.
    pub(super) collecting: Mutex<()>,
    next_pack: AtomicU64,
    /// How many packs were removed, and chunks repaired.
    moves: AtomicU64,
    /// What the entries of the index come to; changed with `marking` locked.
    totals: Mutex<Totals>,
    poisoned: AtomicBool,
    open_packs: Cache<PackId, Arc<dyn DiskFile>, UnitWeighter>,
    decompressed: Decompressed,
}

impl PackStore {
    /// Opens the store whose packs are on `disk`, and whose chunks `index` names. Both are empty for a new one. An index
    /// that has no totals yet is read once.
    ///
    /// # Errors
    /// [`StoreError::Io`] and [`StoreError::Index`].
    pub fn open(disk: Arc<dyn Disk>, index: Arc<dyn Index>, options: PackStoreOptions) -> Result<Self, StoreError> {
        disk.create_dir(PACK_DIRECTORY).map_err(io_at(PACK_DIRECTORY))?;
        let store = Self {
            disk,
            index,
            options,
            gate: Arc::default(),
            writer: Mutex::default(),
            marking: Mutex::default(),
            collecting: Mutex::default(),
            next_pack: AtomicU64::new(1),
            moves: AtomicU64::new(0),
            totals: Mutex::default(),
            poisoned: AtomicBool::new(false),
            open_packs: Cache::new(options.open_packs, 1, UnitWeighter),
            decompressed: Cache::new(options.decompressed_bytes, TYPICAL_CHUNK_BYTES, ByLength),
        };
        if let Some(last) = store.packs()?.last() {
            store.next_pack.store(last.0 + 1, Ordering::Relaxed);
        }
        store.load_totals()?;
        Ok(store)
    }

    /// The packs that there are, in the order of their ids. Other files beside them are left alone.
    pub(super) fn packs(&self) -> Result<Vec<PackId>, StoreError> {
        let names = self.disk.list(PACK_DIRECTORY).map_err(io_at(PACK_DIRECTORY))?;
        Ok(names.iter().filter_map(|name| PackId::of_file_name(name)).collect())
    }

    /// What the index says about a chunk.
    pub(super) fn entry(&self, id: ChunkId) -> Result<Option<IndexEntry>, StoreError> {
        let value = self.index.get(Space::Chunks, id.as_bytes())?;
        value.map(|value| Ok(IndexEntry::decode(id, &value)?)).transpose()
    }

    /// Whether a chunk is here and stays: a running collection spares it, or else it counts as absent. So does a piece of
    /// the map that is here as data: a guest can write what will be a manifest into a block of its own.
    fn hold(&self, id: ChunkId, kind: Option<ChunkKind>) -> Result<bool, StoreError> {
        let mut marking = self.marking();
        let Some(entry) = self.entry(id)? else { return Ok(false) };
        if entry.frame.kind == ChunkKind::Data && kind.is_some_and(|kind| kind != ChunkKind::Data) {
            return Ok(false);
        }
        Ok(marking.as_mut().is_none_or(|marking| marking.spare(&entry)))
    }

    /// Stores a chunk anew, in place of one that is damaged. Durable on return; the damaged copy goes with its pack.
    ///
    /// # Errors
    /// As [`ChunkStore::append`], and [`StoreError::Corrupt`] where the bytes do not hash to the id.
    pub fn repair(&self, chunk: &NewChunk, _pin: &StorePin) -> Result<(), StoreError> {
        self.check_sound()?;
        if chunk_id(&chunk.bytes) != chunk.id {
            return Err(StoreError::Corrupt { id: chunk.id, what: "what it was to be repaired with".to_owned() });
        }
        chunk.check();
        self.decompressed.remove(&chunk.id);
        self.append_fresh(&[StoredChunk::fresh(chunk)], Room::BesideReserve)?;
        self.moves.fetch_add(1, Ordering::Release);
        Ok(())
    }

    fn append_fresh(&self, fresh: &[StoredChunk], room: Room) -> Result<(), StoreError> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        self.check_space(fresh, room)?;
        let entries = self.write(&mut writer, fresh)?;
        let no_sweep_now = self.marking();
        let mut changes = EntryChanges::new(self, &no_sweep_now);
        for entry in &entries {
            changes.put(entry, self.entry(entry.frame.id)?.as_ref());
        }
        changes.commit(true)
    }

    /// Writes chunks to packs, and syncs these: steps 1 to 3.
    pub(super) fn write(
        &self,
        writer: &mut Option<PackWriter>,
        mut chunks: &[StoredChunk],
    ) -> Result<Vec<IndexEntry>, StoreError> {
        let mut entries = Vec::with_capacity(chunks.len());
        while !chunks.is_empty() {
            let (batch, rest) = chunks.split_at(BatchLayout::fitting(chunks));
            let mut pack = match writer.take() {
                Some(pack) => pack,
                None => self.begin_pack()?,
            };
            // A pack that failed is not put back: the next batch begins another.
            entries.extend(pack.append(batch).map_err(|error| space_or_io(error, &pack.id().path()))?);
            let is_full = pack.length() >= self.options.full_pack_bytes.min(FULL_PACK_BYTES);
            if rest.is_empty() || is_full {
                self.poison_unless(pack.sync().map_err(io_at(&pack.id().path())))?;
            }
            if !is_full {
                *writer = Some(pack);
            }
            chunks = rest;
        }
        Ok(entries)
    }

    fn begin_pack(&self) -> Result<PackWriter, StoreError> {
        let id = PackId(self.next_pack.fetch_add(1, Ordering::Relaxed));
        let pack = PackWriter::create(&*self.disk, id).map_err(|error| space_or_io(error, &id.path()))?;
        self.open_packs.insert(id, Arc::clone(pack.file()));
        Ok(pack)
    }

    /// Changes the index, for good if `durable`, or poisons the store.
    fn commit(&self, batch: Batch, durable: bool) -> Result<(), StoreError> {
        self.poison_unless(self.index.commit(batch, durable).map_err(StoreError::from))
    }

    /// Makes everything durable that was changed in the index, or poisons the store.
    pub(super) fn settle_index(&self) -> Result<(), StoreError> {
        self.commit(Batch::new(), true)
    }

    fn poison_unless<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        if result.is_err() {
            self.poisoned.store(true, Ordering::Release);
        }
        result
    }

    pub(super) fn check_sound(&self) -> Result<(), StoreError> {
        if self.poisoned.load(Ordering::Acquire) { Err(StoreError::Poisoned) } else { Ok(self.index.check_sound()?) }
    }

    fn check_space(&self, chunks: &[StoredChunk], room: Room) -> Result<(), StoreError> {
        let available = self.disk.available_bytes().map_err(io_at(""))?;
        let stored: usize = chunks.iter().map(|chunk| chunk.bytes.len() + ENTRY_OVERHEAD_BYTES).sum();
        let left_free = if room == Room::OfReserve { self.index_reserve_bytes() } else { self.options.reserve_bytes };
        let needed = (stored as u64).saturating_add(left_free);
        if available < needed { Err(StoreError::Full) } else { Ok(()) }
    }

    /// Half of the reserve: what nobody but the index takes of the disk.
    fn index_reserve_bytes(&self) -> u64 {
        self.options.reserve_bytes / 2
    }

    /// Whether chunks can be moved, which takes so much until their pack is removed.
    pub(super) fn has_room_to_move(&self, chunks: u64, stored_bytes: u64) -> Result<bool, StoreError> {
        let available = self.disk.available_bytes().map_err(io_at(""))?;
        let overhead = chunks.saturating_mul(ENTRY_OVERHEAD_BYTES as u64);
        Ok(available >= stored_bytes.saturating_add(overhead).saturating_add(self.index_reserve_bytes()))
    }

    /// Closes the pack that is being written. No append can run: there is no pin.
    pub(super) fn close_pack(&self) {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    pub(super) fn marking(&self) -> EntryLock<'_> {
        self.marking.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn is_marking_locked(&self) -> bool {
        self.marking.try_lock().is_err()
    }

    pub(super) fn gate(&self) -> &PinGate {
        &self.gate
    }

    /// The file of a pack, opened where it is not.
    pub(super) fn pack_file(&self, pack: PackId) -> Result<Arc<dyn DiskFile>, StoreError> {
        if let Some(file) = self.open_packs.get(&pack) {
            return Ok(file);
        }
        let file = self.disk.open(&pack.path()).map_err(io_at(&pack.path()))?;
        self.open_packs.insert(pack, Arc::clone(&file));
        Ok(file)
    }

    /// Removes a pack that no entry of the index points to. Those who have a [`Location`] in it read on.
    pub(super) fn remove_pack(&self, pack: PackId) -> Result<(), StoreError> {
        self.moves.fetch_add(1, Ordering::Release);
        self.open_packs.remove(&pack);
        self.disk.remove(&pack.path()).map_err(io_at(&pack.path()))
    }
}

impl ChunkStore for PackStore {
    fn pin(&self) -> StorePin {
        self.gate.pin()
    }

    fn keep(&self, id: ChunkId, _pin: &StorePin) -> Result<bool, StoreError> {
        self.check_sound()?;
        self.hold(id, None)
    }

    fn append(&self, chunks: &[NewChunk], room: Room, _pin: &StorePin) -> Result<(), StoreError> {
        self.check_sound()?;
        let (mut fresh, mut seen) = (Vec::new(), HashSet::new());
        for chunk in chunks {
            chunk.check();
            if seen.insert(chunk.id) && !self.hold(chunk.id, Some(chunk.kind))? {
                fresh.push(StoredChunk::fresh(chunk));
            }
        }
        if fresh.is_empty() { Ok(()) } else { self.append_fresh(&fresh, room) }
    }

    fn locate(&self, id: ChunkId) -> Result<Option<Location>, StoreError> {
        loop {
            let Some(entry) = self.entry(id)? else { return Ok(None) };
            match self.pack_file(entry.place.pack) {
                Ok(file) => return Ok(Some(location_of(&entry, file))),
                // It moved between the two; it cannot be where it was, or the entry points nowhere.
                Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                    if self.entry(id)?.is_some_and(|now| now.place == entry.place) {
                        let what = format!("its pack {} is not here", entry.place.pack);
                        return Err(StoreError::Corrupt { id, what });
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn moves(&self) -> u64 {
        self.moves.load(Ordering::Acquire)
    }

    fn read(&self, location: &Location, from: u32, into: &mut [u8]) -> Result<(), StoreError> {
        self.read_parts(&mut [ChunkPart { location, from, into }])
    }

    fn read_now(&self, location: &Location, from: u32, into: &mut [u8]) -> Option<Result<(), StoreError>> {
        self.read_parts_now(&mut [ChunkPart { location, from, into }])
    }

    fn read_parts(&self, parts: &mut [ChunkPart<'_>]) -> Result<(), StoreError> {
        read::read(&self.decompressed, parts)
    }

    fn read_parts_now(&self, parts: &mut [ChunkPart<'_>]) -> Option<Result<(), StoreError>> {
        read::read_now(&self.decompressed, parts)
    }

    fn get(&self, id: ChunkId) -> Result<Option<Bytes>, StoreError> {
        let Some(location) = self.locate(id)? else { return Ok(None) };
        read::whole(&location).map(Some)
    }
}

/// The place that an entry of the index names, in the file of its pack.
pub(super) fn location_of(entry: &IndexEntry, file: Arc<dyn DiskFile>) -> Location {
    let frame = &entry.frame;
    Location {
        file,
        offset: frame.offset.into(),
        length: frame.length,
        encoding: frame.encoding,
        checksums: Arc::clone(&frame.checksums),
        id: frame.id,
    }
}

pub(super) fn io_at(path: &str) -> impl Fn(io::Error) -> StoreError + use<> {
    let path = path.to_owned();
    move |source| StoreError::Io { path: path.clone(), source }
}

fn space_or_io(error: io::Error, path: &str) -> StoreError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::Full,
        _ => io_at(path)(error),
    }
}

/// What a chunk takes beside its bytes: its share of headers and of padding, and its entry in the index, twice over while
/// the database merges its files.
const ENTRY_OVERHEAD_BYTES: usize = 512;
