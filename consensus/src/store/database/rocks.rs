//! RocksDB in a directory, as the metadata uses it.
//!
//! Recovery takes the write-ahead log up to the first record that does not check, because a record that was not synced may be
//! on the disk in part after power was lost. Everything that was acknowledged stands before it.

use std::fs::File;
use std::path::Path;

use rocksdb::{
    ColumnFamily, ColumnFamilyDescriptor, DB, DBRecoveryMode, Direction, ErrorKind, IteratorMode, LogLevel, Options,
    WriteBatch, WriteOptions,
};

use super::{Batch, Change, Column, Engine, Failure, Stored, Sync};
use crate::store::format::{self, Found};
use crate::store::{Absent, StoreError};

/// The directory of the database within that of the metadata.
pub(in crate::store) const DATABASE_DIR: &str = "db";

/// An open RocksDB.
pub(super) struct Rocks {
    db: DB,
    #[cfg(test)]
    options: Options,
}

impl Rocks {
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
        let db = DB::open_cf_descriptors(&options, &path, columns()).map_err(|error| failed_to_open(dir, &error))?;
        if absent == Absent::Create {
            // RocksDB syncs what is in its directory, but not its directory's own name.
            let synced = File::open(dir).and_then(|dir| dir.sync_all());
            synced.map_err(|source| StoreError::Io { dir: dir.to_owned(), source })?;
        }
        Ok(Self {
            db,
            #[cfg(test)]
            options,
        })
    }

    /// Opens the database in the metadata directory `dir` for reading.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(super) fn open_read_only(dir: &Path) -> Result<Self, StoreError> {
        format::check_or_make(dir, Absent::Refuse)?;
        let options = options(Absent::Refuse);
        let db = DB::open_cf_descriptors_read_only(&options, dir.join(DATABASE_DIR), columns(), false)
            .map_err(|error| failed_to_open(dir, &error))?;
        Ok(Self {
            db,
            #[cfg(test)]
            options,
        })
    }

    fn handle(&self, column: Column) -> &ColumnFamily {
        self.db.cf_handle(name(column)).expect("the columns were opened with the database")
    }
}

impl Engine for Rocks {
    fn write(&self, batch: Batch<'_>, sync: Sync) -> Result<(), Failure> {
        let mut changes = WriteBatch::default();
        for change in &batch.changes {
            match change {
                Change::Put { column, key, value } => changes.put_cf(self.handle(*column), key, value),
                Change::Delete { column, key } => changes.delete_cf(self.handle(*column), key),
                Change::DeleteRange { column, from, end } => changes.delete_range_cf(self.handle(*column), from, end),
            }
        }
        let mut options = WriteOptions::default();
        options.set_sync(sync == Sync::Durable);
        Ok(self.db.write_opt(changes, &options)?)
    }

    fn get(&self, column: Column, key: &[u8]) -> Result<Option<Vec<u8>>, Failure> {
        Ok(self.db.get_cf(self.handle(column), key)?)
    }

    fn iter_from<'a>(
        &'a self,
        column: Column,
        from: &'a [u8],
    ) -> Box<dyn Iterator<Item = Result<Stored, Failure>> + 'a> {
        let entries = self.db.iterator_cf(self.handle(column), IteratorMode::From(from, Direction::Forward));
        Box::new(entries.map(|entry| Ok(entry?)))
    }

    fn last(&self, column: Column) -> Result<Option<Stored>, Failure> {
        let mut entries = self.db.iterator_cf(self.handle(column), IteratorMode::End);
        Ok(entries.next().transpose()?)
    }

    #[cfg(test)]
    fn syncs(&self) -> u64 {
        self.options.get_ticker_count(rocksdb::statistics::Ticker::WalFileSynced)
    }
}

impl From<rocksdb::Error> for Failure {
    fn from(error: rocksdb::Error) -> Self {
        let what = error.to_string();
        match error.kind() {
            ErrorKind::Corruption => Self::Damaged(what),
            _ => Self::Refused(what),
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

fn columns() -> impl Iterator<Item = ColumnFamilyDescriptor> {
    let columns = [Column::Meta, Column::Log, Column::Snapshot].into_iter();
    columns.map(|column| ColumnFamilyDescriptor::new(name(column), column_options()))
}

const fn name(column: Column) -> &'static str {
    match column {
        Column::Meta => "meta",
        Column::Log => "log",
        Column::Snapshot => "snapshot",
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
