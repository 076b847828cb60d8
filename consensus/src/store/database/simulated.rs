//! A database in the memory of a simulation, which loses what was not synced when its machine loses power.
//!
//! Invariants:
//! * what is there now is what is durable, and then the pending batches in their order, but for one that has failed, which is
//!   the last of them;
//! * opening it makes durable all that it finds, as RocksDB does when it has read its write-ahead log;
//! * it is open once at a time.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Batch, Change, Column, Engine, Failure, Stored, Sync};
use crate::store::{Absent, StoreError};

/// The metadata of a simulated machine, as far as it is on the machine's disk or on the way there. Its copies are the same
/// database.
#[derive(Clone, Debug, Default)]
pub struct SimulatedDatabase(Arc<Mutex<State>>);

type Map = BTreeMap<(Column, Vec<u8>), Arc<[u8]>>;

#[derive(Debug, Default)]
struct State {
    /// Whether it has ever been made.
    made: bool,
    open: bool,
    now: Map,
    durable: Map,
    /// Since the last sync, in order; behind them the one that has failed.
    pending: Vec<Vec<Written>>,
    fail_next_write: bool,
    #[cfg(test)]
    syncs: u64,
}

/// A change that was written.
#[derive(Clone, Debug)]
enum Written {
    Put((Column, Vec<u8>), Arc<[u8]>),
    Delete((Column, Vec<u8>)),
    DeleteRange(Column, Vec<u8>, Vec<u8>),
}

impl SimulatedDatabase {
    /// A place where no database has been made yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The database as it may be found after power is lost: all that was durable, and as many of the batches behind it, in
    /// order, as the seed says. Nobody has it open, and whoever still has this one open does nothing to it.
    #[must_use]
    pub fn crash_image(&self, seed: u64) -> Self {
        let state = self.lock();
        let kept = usize::try_from(seed % (state.pending.len() as u64 + 1)).unwrap_or(0);
        let mut durable = state.durable.clone();
        state.pending[..kept].iter().flatten().for_each(|change| apply(change, &mut durable));
        Self::holding(State { made: state.made, durable, ..State::default() })
    }

    /// The database as it is found after `kill -9`: all that was written, of which what was pending may still be lost with the
    /// machine's power until somebody opens it. Nobody has it open, and whoever still has this one open does nothing to it.
    #[must_use]
    pub fn after_kill(&self) -> Self {
        let state = self.lock();
        let (durable, pending) = (state.durable.clone(), state.pending.clone());
        Self::holding(State { made: state.made, durable, pending, ..State::default() })
    }

    /// Makes the next write fail, as a disk would. What it would have written may be found after a crash.
    pub fn fail_next_write(&self) {
        self.lock().fail_next_write = true;
    }

    /// Opens it as that in the metadata directory `dir`, or makes it. Durable on return.
    ///
    /// # Errors
    /// [`StoreError::NotThere`], [`StoreError::InUse`].
    pub(super) fn open(&self, dir: &Path, absent: Absent) -> Result<Opened, StoreError> {
        let mut state = self.lock();
        if state.open {
            return Err(StoreError::InUse { dir: dir.to_owned() });
        }
        if !state.made && absent == Absent::Refuse {
            return Err(StoreError::NotThere { dir: dir.to_owned() });
        }
        (state.made, state.open) = (true, true);
        state.sync();
        state.now = state.durable.clone();
        Ok(Opened(self.clone()))
    }

    fn holding(state: State) -> Self {
        Self(Arc::new(Mutex::new(state)))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn sync(&mut self) {
        let Self { durable, pending, .. } = self;
        pending.drain(..).flatten().for_each(|change| apply(&change, durable));
    }
}

/// A simulated database while it is open.
pub(super) struct Opened(SimulatedDatabase);

impl Drop for Opened {
    fn drop(&mut self) {
        self.0.lock().open = false;
    }
}

impl Engine for Opened {
    fn write(&self, batch: Batch<'_>, sync: Sync) -> Result<(), Failure> {
        let mut state = self.0.lock();
        let written: Vec<_> = batch.changes.into_iter().map(Written::from).collect();
        if std::mem::take(&mut state.fail_next_write) {
            state.pending.push(written);
            return Err(Failure::Refused("the simulated disk is on fire".to_owned()));
        }
        written.iter().for_each(|change| apply(change, &mut state.now));
        state.pending.push(written);
        if sync == Sync::Durable {
            state.sync();
            #[cfg(test)]
            {
                state.syncs += 1;
            }
        }
        Ok(())
    }

    fn get(&self, column: Column, key: &[u8]) -> Result<Option<Vec<u8>>, Failure> {
        Ok(self.0.lock().now.get(&(column, key.to_owned())).map(|value| value.to_vec()))
    }

    fn iter_from<'a>(
        &'a self,
        column: Column,
        from: &'a [u8],
    ) -> Box<dyn Iterator<Item = Result<Stored, Failure>> + 'a> {
        let state = self.0.lock();
        let found = state.now.range((column, from.to_owned())..).take_while(|((of, _), _)| *of == column);
        // The values are shared, so this copies hardly more than the keys.
        let entries: Vec<_> = found.map(|((_, key), value)| (key.clone(), Arc::clone(value))).collect();
        Box::new(entries.into_iter().map(|(key, value)| Ok((key.into(), Box::from(&*value)))))
    }

    fn last(&self, column: Column) -> Result<Option<Stored>, Failure> {
        let state = self.0.lock();
        let last = state.now.iter().rev().find(|((of, _), _)| *of == column);
        Ok(last.map(|((_, key), value)| (key.clone().into(), Box::from(&**value))))
    }

    #[cfg(test)]
    fn syncs(&self) -> u64 {
        self.0.lock().syncs
    }
}

impl From<Change<'_>> for Written {
    fn from(change: Change<'_>) -> Self {
        match change {
            Change::Put { column, key, value } => Self::Put((column, key), Arc::from(&*value)),
            Change::Delete { column, key } => Self::Delete((column, key)),
            Change::DeleteRange { column, from, end } => Self::DeleteRange(column, from, end),
        }
    }
}

fn apply(change: &Written, map: &mut Map) {
    match change {
        Written::Put(key, value) => {
            map.insert(key.clone(), Arc::clone(value));
        }
        Written::Delete(key) => {
            map.remove(key);
        }
        Written::DeleteRange(column, from, end) => {
            let behind = map.range((*column, from.clone())..).map(|(key, _)| key);
            let keys: Vec<_> = behind.take_while(|(of, key)| of == column && key < end).cloned().collect();
            keys.iter().for_each(|key| drop(map.remove(key)));
        }
    }
}

/// Has the directory `dir` stand for a database from now on.
pub(crate) fn put(dir: &Path, database: SimulatedDatabase) {
    directories().insert(dir.to_owned(), database);
}

/// The database that a directory stands for.
///
/// # Errors
/// [`StoreError::NotThere`] where none was put.
pub(super) fn at(dir: &Path) -> Result<SimulatedDatabase, StoreError> {
    directories().get(dir).cloned().ok_or_else(|| StoreError::NotThere { dir: dir.to_owned() })
}

fn directories() -> MutexGuard<'static, BTreeMap<PathBuf, SimulatedDatabase>> {
    static DIRECTORIES: Mutex<BTreeMap<PathBuf, SimulatedDatabase>> = Mutex::new(BTreeMap::new());
    DIRECTORIES.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
