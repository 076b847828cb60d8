//! The storage engine on a data directory: files, index, chunks, and what volumes share.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use sterna_runtime::chance;
use sterna_storage_node::chunk_store::index::{Index, RocksIndex, VolumeRecords};
use sterna_storage_node::chunk_store::{PackStore, PackStoreOptions};
use sterna_storage_node::disk::Disk;
use sterna_storage_node::journal::SaltSource;
use sterna_storage_node::volume::{Storage, StorageOptions};

use super::config::StorageConfig;
use super::directory::DataDirectory;

/// The storage engine of a node.
#[derive(Debug)]
pub(super) struct Engine {
    /// The files.
    pub(super) disk: Arc<dyn Disk>,
    /// The chunks.
    pub(super) store: Arc<PackStore>,
    /// What volumes share; its chunks are `store`.
    pub(super) storage: Arc<Storage>,
}

impl Engine {
    /// Opens it. May block.
    ///
    /// # Errors
    /// What is damaged, missing, or of another version.
    pub(super) fn open(directory: &DataDirectory, config: &StorageConfig) -> Result<Self> {
        let path = directory.index();
        // An index that is gone must not be taken for a new one: volumes would seem to be empty.
        ensure!(
            path.join(DATABASE_FILE).exists(),
            "the index of the data directory is missing ({}): restore it, or read the packs with `sterna salvage`",
            path.display()
        );
        let index = Arc::new(open_index(&path, config)?);
        // The store may use what journals leave free: it is what makes room.
        let defaults = PackStoreOptions::default();
        let reserve_bytes = defaults.reserve_bytes.min(config.options.reserve_bytes / 2);
        Self::on(directory.disk().clone(), index, config.options, PackStoreOptions { reserve_bytes, ..defaults })
    }

    /// Opens it on these files and this index. May block.
    ///
    /// # Errors
    /// What is damaged, or missing.
    pub(super) fn on(
        disk: Arc<dyn Disk>,
        index: Arc<dyn Index>,
        options: StorageOptions,
        packs: PackStoreOptions,
    ) -> Result<Self> {
        let store = Arc::new(PackStore::open(Arc::clone(&disk), Arc::clone(&index), packs)?);
        let salts = SaltSource::new(chance::bytes()?);
        let storage = Storage::new(Arc::clone(&disk), store.clone(), VolumeRecords::new(index), salts, options);
        let storage = storage.context("cannot prepare the journals of the data directory")?;
        Ok(Self { disk, store, storage })
    }
}

/// Makes the index of a new data directory. Durable on return.
///
/// # Errors
/// What the system says.
pub(super) fn create_index(directory: &DataDirectory) -> Result<()> {
    open_index(&directory.index(), &StorageConfig::default()).map(drop)
}

fn open_index(path: &Path, config: &StorageConfig) -> Result<RocksIndex> {
    RocksIndex::open(path, config.index_cache_bytes)
        .with_context(|| format!("cannot open the index in {}", path.display()))
}

/// A file that each database of RocksDB has.
const DATABASE_FILE: &str = "CURRENT";
