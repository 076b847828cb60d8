//! What the volumes of a node share.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use quick_cache::Weighter;
use sterna_types::{SegmentIndex, VolumeId};

use super::segment_map::SegmentMap;
use super::volume::Volume;
use crate::cache::Cache;
use crate::chunk_store::index::VolumeRecords;
use crate::chunk_store::{ChunkStore, StoreError};
use crate::disk::Disk;
use crate::journal::{JOURNAL_FILE_BYTES, JournalPool, SaltSource};
use crate::map::NodeCache;

/// How much a node's volumes may hold.
#[derive(Clone, Copy, Debug)]
pub struct StorageOptions {
    /// Bytes of memory for the maps of segments that are read.
    pub segment_cache_bytes: u64,
    /// Bytes of memory for the maps' nodes.
    pub node_cache_bytes: u64,
    /// Bytes of a volume's journal at which it is sealed.
    pub seal_after_bytes: u64,
    /// How long what was written stays unsealed at most: long enough for a block that is written again and again to be
    /// sealed once, short enough for replicas to follow.
    pub seal_age: Duration,
    /// Bytes of a volume's journal at which its writers wait for the seal.
    pub journal_limit_bytes: u64,
    /// Bytes of a file of a journal.
    pub journal_file_bytes: u64,
    /// Bytes of the data directory that new journal files leave free.
    pub reserve_bytes: u64,
}

impl Default for StorageOptions {
    fn default() -> Self {
        Self {
            segment_cache_bytes: 256 << 20,
            node_cache_bytes: 64 << 20,
            seal_after_bytes: 32 << 20,
            seal_age: Duration::from_secs(5),
            journal_limit_bytes: 1 << 30,
            journal_file_bytes: JOURNAL_FILE_BYTES,
            reserve_bytes: 128 << 20,
        }
    }
}

/// What the volumes of a node share: chunks, records, caches, journal files.
#[derive(Debug)]
pub struct Storage {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) store: Arc<dyn ChunkStore>,
    pub(super) records: VolumeRecords,
    pub(super) pool: Arc<JournalPool>,
    pub(super) nodes: NodeCache,
    pub(super) segments: SegmentCache,
    pub(super) options: StorageOptions,
    /// The volumes that are open, so that none is twice. A slot is held while its volume is opened; the table never is.
    open: Mutex<HashMap<VolumeId, Slot>>,
    /// The volumes whose journal's directory is durable: those that were opened, or made ready for, since the start.
    with_directory: Mutex<HashSet<VolumeId>>,
}

/// A place for one volume: the one that is open, if it is.
pub(super) type Slot = Arc<Mutex<Weak<Volume>>>;

impl Storage {
    /// The storage on `disk`, whose chunks are in `store`. `salts` are random, and others in each run.
    ///
    /// # Errors
    /// What the system says.
    pub fn new(
        disk: Arc<dyn Disk>,
        store: Arc<dyn ChunkStore>,
        records: VolumeRecords,
        salts: SaltSource,
        options: StorageOptions,
    ) -> io::Result<Arc<Self>> {
        let pool =
            Arc::new(JournalPool::open(Arc::clone(&disk), salts, options.journal_file_bytes, options.reserve_bytes)?);
        disk.create_dir(VOLUMES)?;
        let nodes = NodeCache::new(options.node_cache_bytes);
        let segments = SegmentCache::new(options.segment_cache_bytes);
        let (open, with_directory) = (Mutex::default(), Mutex::default());
        Ok(Arc::new(Self { disk, store, records, pool, nodes, segments, options, open, with_directory }))
    }

    /// Has all ready that does not depend on what a volume holds, for one that is to come here: its journal's directory, and a file.
    /// What is not needed is nothing: an empty directory, and a file of the pool.
    ///
    /// # Errors
    /// [`super::VolumeError`].
    pub fn make_ready(&self, volume: VolumeId) -> Result<(), super::VolumeError> {
        self.make_directory(volume)?;
        Ok(self.pool.stock()?)
    }

    /// Makes the directory of a volume's journal, durably, where it has not been made since the start.
    pub(super) fn make_directory(&self, volume: VolumeId) -> Result<String, super::VolumeError> {
        let directory = journal_directory(volume);
        if !lock(&self.with_directory).contains(&volume) {
            let failed = |source| StoreError::Io { path: directory.clone(), source };
            self.disk.create_dir(&directory).map_err(failed)?;
            lock(&self.with_directory).insert(volume);
        }
        Ok(directory)
    }

    /// Notes that the directory of a volume's journal is about to go.
    pub(super) fn forget_directory(&self, volume: VolumeId) {
        lock(&self.with_directory).remove(&volume);
    }

    /// The chunks.
    pub fn store(&self) -> &Arc<dyn ChunkStore> {
        &self.store
    }

    /// The sealed states of the volumes.
    pub fn records(&self) -> &VolumeRecords {
        &self.records
    }

    /// The nodes of maps that were read lately.
    pub fn nodes(&self) -> &NodeCache {
        &self.nodes
    }

    /// The slot of a volume.
    pub(super) fn slot(&self, volume: VolumeId) -> Slot {
        Arc::clone(self.slots().entry(volume).or_default())
    }

    /// Empties the slot of a volume that has been closed, unless it has been opened anew by now.
    pub(super) fn vacate(&self, closed: &Volume) {
        let slot = self.slot(closed.id());
        let mut held = lock(&slot);
        if std::ptr::eq(held.as_ptr(), closed) {
            *held = Weak::new();
        }
        drop(held);
        self.tidy(closed.id(), &slot);
    }

    /// Drops the slot of a volume if it is empty and nobody else has it.
    pub(super) fn tidy(&self, volume: VolumeId, slot: &Slot) {
        let mut slots = self.slots();
        // The table's own, and the caller's: more are given out under the table's lock only.
        if Arc::strong_count(slot) == 2 && lock(slot).strong_count() == 0 {
            slots.remove(&volume);
        }
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<VolumeId, Slot>> {
        lock(&self.open)
    }

    /// Gives the space of journal files that nobody uses back, where less than `bytes` are free.
    ///
    /// # Errors
    /// [`super::VolumeError`].
    pub(crate) fn make_room(&self, bytes: u64) -> Result<(), super::VolumeError> {
        let failed = |source| StoreError::Io { path: String::new(), source };
        if self.disk.available_bytes().map_err(failed)? < bytes {
            self.pool.shrink()?;
        }
        Ok(())
    }
}

/// What a panic of another thread has left is whole: a slot has a volume or none.
pub(super) fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where what a node keeps of a volume is, beside chunks and record.
pub(super) fn volume_directory(volume: VolumeId) -> String {
    format!("{VOLUMES}/{:016x}", volume.0)
}

/// Where a volume's journal is.
pub(crate) fn journal_directory(volume: VolumeId) -> String {
    format!("{}/journal", volume_directory(volume))
}

/// The maps of segments that were read lately, of all volumes.
///
/// An entry is of the root that its volume has now: it is put in and taken out by those who hold the volume's layers, so
/// that no reader of an older root can put back what a seal has replaced.
#[derive(Debug)]
pub(super) struct SegmentCache {
    maps: Cache<(VolumeId, SegmentIndex), CachedMap, ByWeight>,
}

/// A map that is kept.
#[derive(Clone, Debug)]
struct CachedMap {
    map: Arc<SegmentMap>,
    /// Whether it is that of the root of now. One that is not tells where most of the segment's chunks are all the same.
    is_current: bool,
}

#[derive(Clone, Debug)]
struct ByWeight;

impl Weighter<(VolumeId, SegmentIndex), CachedMap> for ByWeight {
    fn weight(&self, _key: &(VolumeId, SegmentIndex), cached: &CachedMap) -> u64 {
        cached.map.weight_bytes() + ENTRY_BYTES
    }
}

impl SegmentCache {
    fn new(capacity_bytes: u64) -> Self {
        Self { maps: Cache::new(capacity_bytes, TYPICAL_MAP_BYTES, ByWeight) }
    }

    pub(super) fn get(&self, volume: VolumeId, segment: SegmentIndex) -> Option<Arc<SegmentMap>> {
        self.maps.get(&(volume, segment)).filter(|cached| cached.is_current).map(|cached| cached.map)
    }

    /// The map of an earlier root, if there is no newer one.
    pub(super) fn superseded(&self, volume: VolumeId, segment: SegmentIndex) -> Option<Arc<SegmentMap>> {
        self.maps.get(&(volume, segment)).filter(|cached| !cached.is_current).map(|cached| cached.map)
    }

    pub(super) fn put(&self, volume: VolumeId, segment: SegmentIndex, map: Arc<SegmentMap>) {
        self.maps.insert((volume, segment), CachedMap { map, is_current: true });
    }

    /// Whether a guest reads the segment: it has, since the last seal that changed it.
    pub(super) fn is_read(&self, volume: VolumeId, segment: SegmentIndex) -> bool {
        self.maps.get(&(volume, segment)).is_some_and(|cached| cached.map.is_read())
    }

    /// Notes that a segment's map is that of an earlier root now. Whether a guest has read by it, so that it is best looked up
    /// anew; `false` also where it was not here, or was so already. One by which nobody has read goes: it would hold packs
    /// that are collected.
    pub(super) fn supersede(&self, volume: VolumeId, segment: SegmentIndex) -> bool {
        let key = (volume, segment);
        let Some(CachedMap { map, .. }) = self.maps.get(&key).filter(|cached| cached.is_current) else { return false };
        let is_read = map.is_read();
        if is_read {
            self.maps.insert(key, CachedMap { map, is_current: false });
        } else {
            self.maps.remove(&key);
        }
        is_read
    }

    pub(super) fn remove(&self, volume: VolumeId, segment: SegmentIndex) {
        self.maps.remove(&(volume, segment));
    }

    /// Drops everything of one volume.
    pub(super) fn forget(&self, volume: VolumeId) {
        self.maps.retain(|(of, _)| *of != volume);
    }
}

pub(crate) const VOLUMES: &str = "volumes";

/// Bytes of a cached entry beside the map itself: key, counters, links.
const ENTRY_BYTES: u64 = 64;

/// The map of a segment of imported data: 128 chunks of 32 KiB.
const TYPICAL_MAP_BYTES: u64 = 16 << 10;
