//! The database that the metadata is kept in, with the few guarantees that it needs of one.
//!
//! | column | key | value |
//! |---|---|---|
//! | `meta` | a name | a small record |
//! | `log` | an entry's index, 8 bytes, big-endian | the entry |
//! | `snapshot` | a snapshot's serial number and a piece's, 8 + 4 bytes, big-endian | the piece |
//!
//! `rocks` is RocksDB, which everybody has. `simulated` is in memory and belongs to a simulated machine; only with the feature
//! `simulation`, and only in a process that is one.
//!
//! Invariants, of either:
//! * a batch is there as a whole or not at all, and batches are there in the order in which they were written;
//! * one that was written with [`Sync::Durable`] is on the disk when the call returns, and so is all that was written before;
//! * after a write that failed there is no other ([`StoreError::Poisoned`]);
//! * a database is open once at a time ([`StoreError::InUse`]).

mod rocks;
#[cfg(feature = "simulation")]
mod simulated;

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

use super::{Absent, StoreError};
use rocks::Rocks;

pub(super) use rocks::DATABASE_DIR;
#[cfg(feature = "simulation")]
pub use simulated::SimulatedDatabase;
#[cfg(feature = "simulation")]
pub(crate) use simulated::put;

/// The database of one metadata directory.
pub(crate) struct Database {
    engine: Box<dyn Engine>,
    dir: PathBuf,
    /// Set for good by a write that failed.
    poisoned: AtomicBool,
    /// Makes the next write fail, as a disk would.
    #[cfg(test)]
    pub(crate) fail_next_write: AtomicBool,
    /// Dropped behind the database, and so tells those who wait for it to be closed. Fields are dropped in this order.
    closed: watch::Sender<()>,
}

/// One of the kinds of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
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

/// What keeps the records of an open database.
trait Engine: Send + std::marker::Sync {
    /// Writes all of a batch. It is not called again after it has failed.
    fn write(&self, batch: Batch<'_>, sync: Sync) -> Result<(), Failure>;

    /// The value under a key.
    fn get(&self, column: Column, key: &[u8]) -> Result<Option<Vec<u8>>, Failure>;

    /// The entries from `from` on, in the order of their keys, as they are at this moment.
    fn iter_from<'a>(
        &'a self,
        column: Column,
        from: &'a [u8],
    ) -> Box<dyn Iterator<Item = Result<Stored, Failure>> + 'a>;

    /// The entry with the highest key.
    fn last(&self, column: Column) -> Result<Option<Stored>, Failure>;

    /// How often it has waited for the disk since it was opened.
    #[cfg(test)]
    fn syncs(&self) -> u64;
}

/// What an engine says when it cannot.
enum Failure {
    /// What is there is not what was written.
    Damaged(String),
    /// Anything else.
    Refused(String),
}

impl Database {
    /// Opens the database in the metadata directory `dir`, or makes it. In a simulation it is the one that was put there.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(super) fn open(dir: &Path, absent: Absent) -> Result<Self, StoreError> {
        #[cfg(feature = "simulation")]
        if sterna_runtime::simulation::installed().is_some() {
            return Self::on_simulated(&simulated::at(dir)?, dir, absent);
        }
        Ok(Self::over(Box::new(Rocks::open(dir, absent)?), dir, false))
    }

    /// Opens the database in the metadata directory `dir` for reading; nothing there is altered, and every write fails.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(super) fn open_read_only(dir: &Path) -> Result<Self, StoreError> {
        #[cfg(feature = "simulation")]
        if sterna_runtime::simulation::installed().is_some() {
            // A copy can be opened whatever is done to it.
            let copy = simulated::at(dir)?.after_kill();
            return Ok(Self::over(Box::new(copy.open(dir, Absent::Refuse)?), dir, true));
        }
        Ok(Self::over(Box::new(Rocks::open_read_only(dir)?), dir, true))
    }

    /// Opens a simulated database as that in the metadata directory `dir`, of which nothing is touched.
    ///
    /// # Errors
    /// [`StoreError::NotThere`], [`StoreError::InUse`].
    #[cfg(feature = "simulation")]
    pub(super) fn on_simulated(simulated: &SimulatedDatabase, dir: &Path, absent: Absent) -> Result<Self, StoreError> {
        Ok(Self::over(Box::new(simulated.open(dir, absent)?), dir, false))
    }

    fn over(engine: Box<dyn Engine>, dir: &Path, poisoned: bool) -> Self {
        Self {
            engine,
            dir: dir.to_owned(),
            poisoned: AtomicBool::new(poisoned),
            #[cfg(test)]
            fail_next_write: AtomicBool::new(false),
            closed: watch::Sender::new(()),
        }
    }

    /// The metadata directory.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Ends its first wait with an error once the database is closed.
    pub(crate) fn closed(&self) -> watch::Receiver<()> {
        self.closed.subscribe()
    }

    /// Writes all of a batch.
    ///
    /// # Errors
    /// [`StoreError::Database`]; then what is on the disk is unknown, and every later write is refused.
    pub(super) fn write(&self, batch: Batch<'_>, sync: Sync) -> Result<(), StoreError> {
        if self.poisoned.load(Ordering::Acquire) {
            return Err(StoreError::Poisoned { dir: self.dir.clone() });
        }
        self.injected_failure()
            .and_then(|()| self.engine.write(batch, sync))
            .map_err(|failure| self.failed(failure))
            .inspect_err(|_| self.poisoned.store(true, Ordering::Release))
    }

    /// The value under a key.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(super) fn get(&self, column: Column, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.engine.get(column, key).map_err(|failure| self.failed(failure))
    }

    /// The entries from `from` on, in the order of their keys.
    pub(super) fn iter_from<'a>(
        &'a self,
        column: Column,
        from: &'a [u8],
    ) -> impl Iterator<Item = Result<Stored, StoreError>> + 'a {
        self.engine.iter_from(column, from).map(|entry| entry.map_err(|failure| self.failed(failure)))
    }

    /// The entry with the highest key.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(super) fn last(&self, column: Column) -> Result<Option<Stored>, StoreError> {
        self.engine.last(column).map_err(|failure| self.failed(failure))
    }

    /// How often the disk has been waited for since the database was opened.
    #[cfg(test)]
    pub(crate) fn syncs(&self) -> u64 {
        self.engine.syncs()
    }

    fn failed(&self, failure: Failure) -> StoreError {
        let dir = self.dir.clone();
        match failure {
            Failure::Damaged(what) => StoreError::Damaged { dir, what },
            Failure::Refused(what) => StoreError::Database { dir, what },
        }
    }

    #[cfg(test)]
    fn injected_failure(&self) -> Result<(), Failure> {
        if self.fail_next_write.swap(false, Ordering::AcqRel) {
            return Err(Failure::Refused("the disk is on fire".to_owned()));
        }
        Ok(())
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "tests have another one, which may fail")]
    fn injected_failure(&self) -> Result<(), Failure> {
        Ok(())
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").field("dir", &self.dir).field("poisoned", &self.poisoned).finish_non_exhaustive()
    }
}

/// Changes that are made together. Values may be borrowed: they are copied once, by the engine.
#[derive(Default)]
pub(super) struct Batch<'a> {
    changes: Vec<Change<'a>>,
}

enum Change<'a> {
    Put { column: Column, key: Vec<u8>, value: Cow<'a, [u8]> },
    Delete { column: Column, key: Vec<u8> },
    DeleteRange { column: Column, from: Vec<u8>, end: Vec<u8> },
}

impl<'a> Batch<'a> {
    /// Puts a value under a key.
    pub(super) fn put(&mut self, column: Column, key: &[u8], value: impl Into<Cow<'a, [u8]>>) {
        self.changes.push(Change::Put { column, key: key.to_owned(), value: value.into() });
    }

    /// Takes out what is under a key.
    pub(super) fn delete(&mut self, column: Column, key: &[u8]) {
        self.changes.push(Change::Delete { column, key: key.to_owned() });
    }

    /// Takes out all from the key `from` up to and without `end`.
    pub(super) fn delete_range(&mut self, column: Column, from: &[u8], end: &[u8]) {
        self.changes.push(Change::DeleteRange { column, from: from.to_owned(), end: end.to_owned() });
    }
}
