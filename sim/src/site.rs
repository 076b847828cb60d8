//! The storage of one site as a node has it: packs, journals, records; on a disk that can be cut off at any moment, and with an index
//! in memory that loses what was not made durable.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use sterna_runtime::chance;
use sterna_storage_node::chunk_store::collect::{CollectError, CollectOptions};
use sterna_storage_node::chunk_store::index::{MemoryIndex, VolumeRecords};
use sterna_storage_node::chunk_store::{
    PackStore, PackStoreOptions, ScrubOptions, ScrubReport, ScrubWatcher, StoreError,
};
use sterna_storage_node::disk::simulated::CrashMode;
use sterna_storage_node::disk::{Disk, SimulatedDisk};
use sterna_storage_node::journal::SaltSource;
use sterna_storage_node::volume::{Storage, StorageOptions, VolumeError};
use sterna_types::Root;

/// A machine that runs.
#[derive(Debug)]
pub struct Site {
    /// Its disk.
    pub disk: SimulatedDisk,
    index: Arc<MemoryIndex>,
    store: Arc<PackStore>,
    /// What its volumes are opened from.
    pub storage: Arc<Storage>,
}

/// How a machine stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Its process is killed: what was written is there.
    Kill,
    /// Power is lost: what was not synced may be lost, torn or out of order. Which, the number decides.
    PowerLoss(u64, CrashMode),
}

impl Site {
    /// One with an empty disk.
    ///
    /// # Errors
    /// What the storage says.
    pub fn new() -> Result<Self, VolumeError> {
        let disk = SimulatedDisk::new();
        let index = MemoryIndex::on(&disk);
        Self::on(disk, index)
    }

    /// The same machine after it has stopped and was started again.
    ///
    /// # Errors
    /// What the storage says.
    pub fn after(&self, stop: Stop) -> Result<Self, VolumeError> {
        match stop {
            Stop::Kill => {
                let disk = self.disk.after_kill();
                let index = self.index.after_kill(&disk);
                Self::on(disk, index)
            }
            Stop::PowerLoss(seed, mode) => {
                let disk = self.disk.crash_image(seed, mode);
                let index = self.index.crash_image(seed, &disk);
                Self::on(disk, index)
            }
        }
    }

    /// Reads all chunks again, and tells of those that are damaged.
    ///
    /// # Errors
    /// What the storage says.
    pub fn scrub(&self, watcher: &mut dyn ScrubWatcher, cancel: &AtomicBool) -> Result<ScrubReport, StoreError> {
        self.store.scrub(&ScrubOptions { bytes_per_second: None }, watcher, cancel)
    }

    fn on(disk: SimulatedDisk, index: MemoryIndex) -> Result<Self, VolumeError> {
        let index = Arc::new(index);
        // So small that a run of a few hundred steps fills each of them more than once.
        let options = StorageOptions {
            segment_cache_bytes: 64 << 10,
            node_cache_bytes: 64 << 10,
            journal_file_bytes: 64 << 10,
            reserve_bytes: 0,
            ..StorageOptions::default()
        };
        let pack_options = PackStoreOptions { reserve_bytes: 0, ..PackStoreOptions::default() };
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let store = Arc::new(PackStore::open(Arc::clone(&shared), index.clone(), pack_options)?);
        let records = VolumeRecords::new(index.clone());
        let salts = SaltSource::new(chance::bytes().expect("a simulation never lacks chance"));
        let storage = Storage::new(shared, store.clone(), records, salts, options).map_err(VolumeError::ReadBack)?;
        Ok(Self { disk, index, store, storage })
    }

    /// Removes all chunks that neither a volume nor one of `roots` needs.
    ///
    /// # Errors
    /// What the storage says.
    pub fn collect(&self, roots: &[Root]) -> Result<(), CollectError> {
        let options = CollectOptions { dead_percent: 30, ..CollectOptions::default() };
        let never = AtomicBool::new(false);
        self.storage.collect(&self.store, || Ok(roots.to_vec()), &options, &mut |_| {}, &never).map(drop)
    }
}
