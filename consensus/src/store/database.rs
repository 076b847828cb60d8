//! RocksDB, with the few guarantees that the metadata needs of it.
//!
//! | column | key | value |
//! |---|---|---|
//! | `meta` | a name | a small record |
//! | `log` | an entry's index, 8 bytes, big-endian | the entry |
//! | `snapshot` | a snapshot's serial number and a piece's, 8 + 4 bytes, big-endian | the piece |
//!
//! Invariants:
//! * a batch is there as a whole or not at all, and batches are there in the order in which they were written;
//! * one that was written with [`Sync::Durable`] is on the disk when the call returns, and so is all that was written before;
//! * after a write that failed there is no other ([`StoreError::Poisoned`]).
//!
//! Recovery takes the write-ahead log up to the first record that does not check, because a record that was not synced may be
//! on the disk in part after power was lost. Everything that was acknowledged stands before it.

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rocksdb::{
    ColumnFamily, ColumnFamilyDescriptor, DB, DBRecoveryMode, Direction, ErrorKind, IteratorMode, LogLevel, Options,
    WriteBatch, WriteOptions,
};
use tokio::sync::watch;

use super::format::{self, Found};
use super::{Absent, StoreError};

/// The directory of the database within that of the metadata.
pub(super) const DATABASE_DIR: &str = "db";

/// The database of one metadata directory.
pub(crate) struct Database {
    db: DB,
    dir: PathBuf,
    /// Set for good by a write that failed.
    poisoned: AtomicBool,
    #[cfg(test)]
    options: Options,
    /// Makes the next write fail, as a disk would.
    #[cfg(test)]
    pub(crate) fail_next_write: AtomicBool,
    /// Dropped behind the database, and so tells those who wait for it to be closed. Fields are dropped in this order.
    closed: watch::Sender<()>,
}

/// One of the kinds of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Column {
    Meta,
    Log,
    Snapshot,
}

/// A key and its value.
pub(super) type Stored = (Box<[u8]>, Box<[u8]>);

/// What a write waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sync {
    /// The disk.
    Durable,
    /// The operating system's cache.
    Later,
}

impl Database {
    /// Opens the database in the metadata directory `dir`, or makes it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(super) fn open(dir: &Path, absent: Absent) -> Result<Self, StoreError> {
        let found = format::check_or_make(dir, absent)?;
        let path = dir.join(DATABASE_DIR);
        if absent == Absent::Refuse && found == Found::Known && !path.exists() {
            return Err(StoreError::NotThere { dir: dir.to_owned() });
        }
        format::raise(dir)?;
        let options = options(absent);
        let column = |column: &Column| ColumnFamilyDescriptor::new(column.name(), column_options());
        let db = DB::open_cf_descriptors(&options, &path, Column::ALL.iter().map(column))
            .map_err(|error| failed_to_open(dir, &error))?;
        if absent == Absent::Create {
            // RocksDB syncs what is in its directory, but not its directory's own name.
            let synced = File::open(dir).and_then(|dir| dir.sync_all());
            synced.map_err(|source| StoreError::Io { dir: dir.to_owned(), source })?;
        }
        Ok(Self {
            db,
            dir: dir.to_owned(),
            poisoned: AtomicBool::new(false),
            #[cfg(test)]
            options,
            #[cfg(test)]
            fail_next_write: AtomicBool::new(false),
            closed: watch::Sender::new(()),
        })
    }

    /// Opens the database in the metadata directory `dir` for reading; nothing there is altered, and every write fails.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(super) fn open_read_only(dir: &Path) -> Result<Self, StoreError> {
        format::check_or_make(dir, Absent::Refuse)?;
        let options = options(Absent::Refuse);
        let columns = Column::ALL.iter().map(|column| ColumnFamilyDescriptor::new(column.name(), column_options()));
        let db = DB::open_cf_descriptors_read_only(&options, dir.join(DATABASE_DIR), columns, false)
            .map_err(|error| failed_to_open(dir, &error))?;
        Ok(Self {
            db,
            dir: dir.to_owned(),
            poisoned: AtomicBool::new(true),
            #[cfg(test)]
            options,
            #[cfg(test)]
            fail_next_write: AtomicBool::new(false),
            closed: watch::Sender::new(()),
        })
    }

    /// The metadata directory.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Ends its first wait with an error once the database is closed.
    pub(crate) fn closed(&self) -> watch::Receiver<()> {
        self.closed.subscribe()
    }

    /// A batch with nothing in it yet.
    pub(super) fn batch(&self) -> Batch<'_> {
        Batch { database: self, batch: WriteBatch::default() }
    }

    /// Writes all of a batch.
    ///
    /// # Errors
    /// [`StoreError::Database`]; then what is on the disk is unknown, and every later write is refused.
    pub(super) fn write(&self, batch: Batch<'_>, sync: Sync) -> Result<(), StoreError> {
        if self.poisoned.load(Ordering::Acquire) {
            return Err(StoreError::Poisoned { dir: self.dir.clone() });
        }
        let mut options = WriteOptions::default();
        options.set_sync(sync == Sync::Durable);
        self.injected_failure()
            .and_then(|()| self.db.write_opt(batch.batch, &options).map_err(|error| self.refused(&error)))
            .inspect_err(|_| self.poisoned.store(true, Ordering::Release))
    }

    /// The value under a key.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(super) fn get(&self, column: Column, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.db.get_cf(self.handle(column), key).map_err(|error| self.refused(&error))
    }

    /// The entries from `from` on, in the order of their keys.
    pub(super) fn iter_from<'a>(
        &'a self,
        column: Column,
        from: &'a [u8],
    ) -> impl Iterator<Item = Result<Stored, StoreError>> + 'a {
        let entries = self.db.iterator_cf(self.handle(column), IteratorMode::From(from, Direction::Forward));
        entries.map(|entry| entry.map_err(|error| self.refused(&error)))
    }

    /// The entry with the highest key.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(super) fn last(&self, column: Column) -> Result<Option<Stored>, StoreError> {
        let mut entries = self.db.iterator_cf(self.handle(column), IteratorMode::End);
        entries.next().transpose().map_err(|error| self.refused(&error))
    }

    /// How often the write-ahead log has been synced since the database was opened.
    #[cfg(test)]
    pub(crate) fn syncs(&self) -> u64 {
        self.options.get_ticker_count(rocksdb::statistics::Ticker::WalFileSynced)
    }

    fn handle(&self, column: Column) -> &ColumnFamily {
        self.db.cf_handle(column.name()).expect("the columns were opened with the database")
    }

    fn refused(&self, error: &rocksdb::Error) -> StoreError {
        let what = error.to_string();
        match error.kind() {
            ErrorKind::Corruption => StoreError::Damaged { dir: self.dir.clone(), what },
            _ => StoreError::Database { dir: self.dir.clone(), what },
        }
    }

    #[cfg(test)]
    fn injected_failure(&self) -> Result<(), StoreError> {
        if self.fail_next_write.swap(false, Ordering::AcqRel) {
            return Err(StoreError::Database { dir: self.dir.clone(), what: "the disk is on fire".to_owned() });
        }
        Ok(())
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "tests have another one, which may fail")]
    fn injected_failure(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").field("dir", &self.dir).field("poisoned", &self.poisoned).finish_non_exhaustive()
    }
}

/// Changes that are made together.
pub(super) struct Batch<'a> {
    database: &'a Database,
    batch: WriteBatch,
}

impl Batch<'_> {
    /// Puts a value under a key.
    pub(super) fn put(&mut self, column: Column, key: &[u8], value: &[u8]) {
        self.batch.put_cf(self.database.handle(column), key, value);
    }

    /// Takes out what is under a key.
    pub(super) fn delete(&mut self, column: Column, key: &[u8]) {
        self.batch.delete_cf(self.database.handle(column), key);
    }

    /// Takes out all from the key `from` up to and without `end`.
    pub(super) fn delete_range(&mut self, column: Column, from: &[u8], end: &[u8]) {
        self.batch.delete_range_cf(self.database.handle(column), from, end);
    }
}

impl Column {
    const ALL: [Self; 3] = [Self::Meta, Self::Log, Self::Snapshot];

    const fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Log => "log",
            Self::Snapshot => "snapshot",
        }
    }
}

fn failed_to_open(dir: &Path, error: &rocksdb::Error) -> StoreError {
    let (dir, what) = (dir.to_owned(), error.to_string());
    match error.kind() {
        ErrorKind::Corruption | ErrorKind::InvalidArgument => StoreError::Damaged { dir, what },
        ErrorKind::IOError if what.contains("/LOCK:") => StoreError::InUse { dir },
        _ => StoreError::Database { dir, what },
    }
}

fn options(absent: Absent) -> Options {
    let mut options = Options::default();
    options.create_if_missing(absent == Absent::Create);
    options.create_missing_column_families(absent == Absent::Create);
    options.set_paranoid_checks(true);
    options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    // A finished write-ahead log that has gone, or lost its end, is noticed when the database is opened.
    options.set_track_and_verify_wals_in_manifest(true);
    options.set_max_total_wal_size(MAX_WAL_BYTES);
    options.set_max_open_files(MAX_OPEN_FILES);
    options.set_log_level(LogLevel::Warn);
    options.set_keep_log_file_num(KEPT_INFO_LOGS);
    #[cfg(test)]
    options.enable_statistics();
    options
}

fn column_options() -> Options {
    let mut options = Options::default();
    options.set_write_buffer_size(WRITE_BUFFER_BYTES);
    options
}

/// How much has to be read again when the database is opened, at most: a moment's work. RocksDB allocates as much beforehand,
/// out of what the storage engine leaves free on a full disk.
const MAX_WAL_BYTES: u64 = 16 << 20;
/// Memory for what is not in a table file yet, for each column. The log comes and goes within this.
const WRITE_BUFFER_BYTES: usize = 8 << 20;
/// Table files that are kept open; there is hardly ever more than a handful.
const MAX_OPEN_FILES: i32 = 64;
/// RocksDB writes a file of remarks at every start; so many are kept.
const KEPT_INFO_LOGS: usize = 4;
