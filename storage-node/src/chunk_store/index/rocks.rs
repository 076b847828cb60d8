//! The index on the operating system: a RocksDB database.
//!
//! Each space is a column family; the default one holds nothing but the version, a `u32`, little-endian, under `version`.
//! Durable batches are written with a synced log. What `open` does after a crash: RocksDB replays its log up to the first
//! record that does not check, which is behind every synced one.

use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType, DBRecoveryMode, Direction,
    ErrorKind, IteratorMode, LogLevel, Options, ReadOptions, WriteBatch, WriteOptions,
};

use super::{Batch, Index, IndexError, KeyValue, Space};

/// A RocksDB database.
pub struct RocksIndex {
    database: DB,
    /// Set once a commit has failed.
    poisoned: AtomicBool,
}

impl fmt::Debug for RocksIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RocksIndex").field("path", &self.database.path()).finish()
    }
}

impl RocksIndex {
    /// The version of what is written; see the table of [`Space`]s.
    pub const VERSION: u32 = 1;

    /// Opens the database in the directory `path`, or makes a new one there. It takes at most `cache_bytes` for blocks and
    /// filters that were read, and 48 MiB for what is not yet in its files.
    ///
    /// # Errors
    /// [`IndexError::Version`] where another version wrote it, [`IndexError::Damaged`], and what the system says.
    pub fn open(path: &Path, cache_bytes: usize) -> Result<Self, IndexError> {
        let options = database_options();
        let database = DB::open_cf_descriptors(&options, path, families(cache_bytes)).map_err(refused)?;
        let index = Self { database, poisoned: AtomicBool::new(false) };
        index.check_version(path)?;
        Ok(index)
    }

    /// Opens the database in the directory `path` for reading. Nothing there is altered; every commit fails. It takes as
    /// much memory as [`RocksIndex::open`] says, and more for what is in the database's log alone.
    ///
    /// # Errors
    /// As [`RocksIndex::open`]; and where there is no database.
    pub fn open_read_only(path: &Path, cache_bytes: usize) -> Result<Self, IndexError> {
        let mut options = database_options();
        options.create_if_missing(false);
        options.create_missing_column_families(false);
        let opened = DB::open_cf_descriptors_read_only(&options, path, families(cache_bytes), false);
        let index = Self { database: opened.map_err(refused)?, poisoned: AtomicBool::new(false) };
        match index.check_known_version(path)? {
            true => Ok(index),
            false => Err(IndexError::Damaged { what: "it has no version".to_owned() }),
        }
    }

    /// Whether it says its version, which then is the one that is known here.
    fn check_known_version(&self, path: &Path) -> Result<bool, IndexError> {
        let Some(found) = self.database.get(VERSION_KEY).map_err(refused)? else { return Ok(false) };
        let found = <[u8; 4]>::try_from(&found[..]).map(u32::from_le_bytes);
        let found = found.map_err(|_| IndexError::Damaged { what: "its version is not four bytes".to_owned() })?;
        let known = Self::VERSION;
        if found == known { Ok(true) } else { Err(IndexError::Version { path: path.to_owned(), found, known }) }
    }

    fn check_version(&self, path: &Path) -> Result<(), IndexError> {
        if self.check_known_version(path)? {
            return Ok(());
        }
        // A crash may have come between the making of the database and this: then nothing is in it.
        for space in [Space::Chunks, Space::Records] {
            if !self.page(space, &[], None, 1)?.is_empty() {
                return Err(IndexError::Damaged { what: "it has entries and no version".to_owned() });
            }
        }
        self.database.put_opt(VERSION_KEY, Self::VERSION.to_le_bytes(), &synced(true)).map_err(refused)
    }

    fn family(&self, space: Space) -> Result<&ColumnFamily, IndexError> {
        let missing = || IndexError::Damaged { what: format!("{space:?} is missing") };
        self.database.cf_handle(family_name(space)).ok_or_else(missing)
    }
}

impl Index for RocksIndex {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        self.database.get_cf(self.family(space)?, key).map_err(refused)
    }

    fn page(
        &self,
        space: Space,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<KeyValue>, IndexError> {
        let start = after.filter(|key| *key >= prefix).unwrap_or(prefix);
        let mut options = ReadOptions::default();
        // Whole scans would push out what is read again and again.
        options.fill_cache(false);
        let from = IteratorMode::From(start, Direction::Forward);
        let mut page = Vec::new();
        for pair in self.database.iterator_cf_opt(self.family(space)?, options, from) {
            let (key, value) = pair.map_err(refused)?;
            if !key.starts_with(prefix) || page.len() == limit {
                break;
            }
            if after != Some(&*key) {
                page.push((key.into_vec(), value.into_vec()));
            }
        }
        Ok(page)
    }

    fn commit(&self, batch: Batch, durable: bool) -> Result<(), IndexError> {
        self.check_sound()?;
        let mut writes = WriteBatch::default();
        for change in batch.changes {
            let family = self.family(change.space)?;
            match change.value {
                Some(value) => writes.put_cf(family, change.key, value),
                None => writes.delete_cf(family, change.key),
            }
        }
        let written = match (writes.is_empty(), durable) {
            (false, _) => self.database.write_opt(writes, &synced(durable)),
            (true, true) => self.database.flush_wal(true),
            (true, false) => Ok(()),
        };
        written.map_err(|error| {
            self.poisoned.store(true, Ordering::Release);
            refused(error)
        })
    }

    fn check_sound(&self) -> Result<(), IndexError> {
        if self.poisoned.load(Ordering::Acquire) { Err(IndexError::Poisoned) } else { Ok(()) }
    }
}

fn refused(error: rocksdb::Error) -> IndexError {
    let damaged = error.kind() == ErrorKind::Corruption;
    let what = error.into_string();
    if damaged { IndexError::Damaged { what } } else { IndexError::Refused { what } }
}

fn synced(durable: bool) -> WriteOptions {
    let mut options = WriteOptions::default();
    options.set_sync(durable);
    options
}

fn families(cache_bytes: usize) -> [ColumnFamilyDescriptor; 3] {
    let cache = Cache::new_lru_cache(cache_bytes);
    [
        ColumnFamilyDescriptor::new(VERSION_FAMILY, Options::default()),
        ColumnFamilyDescriptor::new(family_name(Space::Chunks), chunk_options(&cache)),
        ColumnFamilyDescriptor::new(family_name(Space::Records), record_options(&cache)),
    ]
}

fn family_name(space: Space) -> &'static str {
    match space {
        Space::Chunks => "chunks",
        Space::Records => "records",
    }
}

fn database_options() -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_paranoid_checks(true);
    // Synced records are whole whatever happens, so that only what nobody relied on lies behind the first bad one. A log
    // that is missing altogether is found out.
    options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    options.set_track_and_verify_wals_in_manifest(true);
    options.set_db_write_buffer_size(WRITE_BUFFERS_BYTES);
    options.set_max_total_wal_size(4 * WRITE_BUFFERS_BYTES as u64);
    options.set_max_open_files(OPEN_FILES);
    options.set_max_background_jobs(2);
    // Large merges go out in small steps, so that they do not hold a sync up.
    options.set_bytes_per_sync(1 << 20);
    options.set_log_level(LogLevel::Warn);
    options.set_keep_log_file_num(4);
    options.set_stats_dump_period_sec(0);
    options
}

/// Hashes of 32 bytes, asked for one by one, and most often in vain: the question is whether a chunk is here already.
fn chunk_options(cache: &Cache) -> Options {
    let mut options = record_options(cache);
    // Ids and checksums do not compress.
    options.set_compression_type(DBCompressionType::None);
    options.set_write_buffer_size(WRITE_BUFFERS_BYTES / 2);
    // What is not yet in files is asked first, and most often in vain too.
    options.set_memtable_whole_key_filtering(true);
    options.set_memtable_prefix_bloom_ratio(MEMTABLE_BLOOM_RATIO);
    options
}

fn record_options(cache: &Cache) -> Options {
    let mut tables = BlockBasedOptions::default();
    tables.set_block_cache(cache);
    tables.set_bloom_filter(BLOOM_BITS_PER_KEY, false);
    // Within the cache, so that its size bounds all that is kept of a large index.
    tables.set_cache_index_and_filter_blocks(true);
    tables.set_pin_l0_filter_and_index_blocks_in_cache(true);
    let mut options = Options::default();
    options.set_block_based_table_factory(&tables);
    options.set_compression_type(DBCompressionType::Lz4);
    options
}

const VERSION_FAMILY: &str = "default";
const VERSION_KEY: &[u8] = b"version";
/// What is not yet in files, in all; half as much again may be on its way there.
const WRITE_BUFFERS_BYTES: usize = 32 << 20;
/// Files of the database that are open at once; it has 64 MiB in each.
const OPEN_FILES: i32 = 256;
/// Of a write buffer's bytes: as many bits for each of its entries, of a hundred bytes and more, as files have.
const MEMTABLE_BLOOM_RATIO: f64 = 0.02;
/// One question in a hundred is answered by a look at a file in vain.
const BLOOM_BITS_PER_KEY: f64 = 10.0;
