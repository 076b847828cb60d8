//! Raft's log and vote, as openraft wants them.
//!
//! Invariants:
//! * the entries that are there have consecutive indexes; the first one follows the last that was purged;
//! * a vote or an entry is on the disk before anybody is told so; one write follows the other.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{AnyError, LogState, OptionalSend, RaftLogReader, StorageIOError};

use super::database::{Batch, Column, Database, Sync};
use super::recent::Recent;
use super::record::{EntryRecord, LogIdRecord, VoteRecord, from_json, to_json};
use super::{StoreError, blocking, place};
use crate::limits::MAX_READ_BYTES;
use crate::raft::{Entry, LogId, StorageError, TypeConfig, Vote};

/// The log and the vote in a database. Its copies are the same log.
#[derive(Clone, Debug)]
pub(crate) struct LogStore {
    database: Arc<Database>,
    recent: Arc<Mutex<Recent>>,
}

impl LogStore {
    /// The log in the database, after all of it was looked at: it is bounded by what a snapshot leaves of it, and what is
    /// damaged is better known now than when it is needed. Blocks.
    pub(super) fn open(database: Arc<Database>) -> Result<Self, StoreError> {
        let store = Self { database, recent: Arc::default() };
        let purged = store.state()?.last_purged_log_id;
        let mut first = None;
        read_entries(&store.database, 0, |_, _| true, |entry| first = first.or(Some(entry.log_id.index)))?;
        match (purged.map(|purged| purged.index + 1), first) {
            (Some(expected), Some(first)) if first != expected => {
                let what = format!("its log begins with entry {first}, not {expected}");
                Err(StoreError::Damaged { dir: store.database.dir().to_owned(), what })
            }
            _ => Ok(store),
        }
    }

    fn state(&self) -> Result<LogState<TypeConfig>, StoreError> {
        let database = &self.database;
        let purged = read_log_id(database, PURGED_KEY)?;
        let last = match database.last(Column::Log)? {
            Some((key, json)) => Some(decode(database, &key, &json)?.log_id),
            None => purged,
        };
        Ok(LogState { last_purged_log_id: purged, last_log_id: last })
    }

    /// Reads entries from `start` up to and without `end`; stops early, but not before the first, at [`MAX_READ_BYTES`] if
    /// `limited`.
    async fn entries(&self, start: u64, end: u64, limited: bool) -> Result<Vec<Entry>, StoreError> {
        let max_bytes = if limited { MAX_READ_BYTES } else { usize::MAX };
        if let Some(entries) = self.recent().get(start, end, max_bytes) {
            return Ok(entries);
        }
        blocking(&self.database, move |database| {
            let (mut entries, mut bytes) = (Vec::new(), 0);
            let wanted = |index: u64, json: &[u8]| {
                bytes += json.len();
                index < end && !(index > start && bytes > max_bytes)
            };
            read_entries(database, start, wanted, |entry| entries.push(entry))?;
            Ok(entries)
        })
        .await
    }

    /// Has everything read from the database.
    #[cfg(test)]
    pub(super) fn forget_recent(&self) {
        self.recent().clear();
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Hands the entries from `start` on to `take`, as long as they are `wanted` by index and bytes.
///
/// # Errors
/// [`StoreError::Damaged`] where one cannot be read, or does not follow the one before.
fn read_entries(
    database: &Database,
    start: u64,
    mut wanted: impl FnMut(u64, &[u8]) -> bool,
    mut take: impl FnMut(Entry),
) -> Result<(), StoreError> {
    let mut before: Option<LogId> = None;
    for stored in database.iter_from(Column::Log, &start.to_be_bytes()) {
        let (key, json) = stored?;
        let index = index_of(database, &key)?;
        if !wanted(index, &json) {
            break;
        }
        let entry = decode(database, &key, &json)?;
        if let Some(before) = before.filter(|before| before.index + 1 != index || *before >= entry.log_id) {
            let what = format!("{} of its log is followed by {}", place(&before), place(&entry.log_id));
            return Err(StoreError::Damaged { dir: database.dir().to_owned(), what });
        }
        before = Some(entry.log_id);
        take(entry);
    }
    Ok(())
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, StorageError> {
        let (start, end) = half_open(&range);
        self.entries(start, end, false).await.map_err(|error| StorageIOError::read_logs(AnyError::new(&error)).into())
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, StorageError> {
        self.entries(start, end, true).await.map_err(|error| StorageIOError::read_logs(AnyError::new(&error)).into())
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, StorageError> {
        let store = self.clone();
        let state = blocking(&self.database, move |_| store.state()).await;
        state.map_err(|error| StorageIOError::read_logs(AnyError::new(&error)).into())
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        let json = to_json(&VoteRecord::from(*vote));
        let written = blocking(&self.database, move |database| {
            let mut batch = Batch::default();
            batch.put(Column::Meta, VOTE_KEY, &json);
            database.write(batch, Sync::Durable)
        });
        written.await.map_err(|error| StorageIOError::write_vote(AnyError::new(&error)).into())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        let read = blocking(&self.database, |database| {
            let json = database.get(Column::Meta, VOTE_KEY)?;
            json.map(|json| from_json::<VoteRecord>(database.dir(), "the vote", &json)).transpose()
        });
        let record = read.await.map_err(|error| StorageIOError::read_vote(AnyError::new(&error)))?;
        Ok(record.map(Vote::from))
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        let Some(committed) = committed else { return Ok(()) };
        // Without a sync: should it be lost, an earlier one is found, and Raft finds out again what was committed since.
        let mut batch = Batch::default();
        batch.put(Column::Meta, COMMITTED_KEY, to_json(&LogIdRecord::from(committed)));
        let written = self.database.write(batch, Sync::Later);
        written.map_err(|error| StorageIOError::write(AnyError::new(&error)).into())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError> {
        let read = blocking(&self.database, |database| read_log_id(database, COMMITTED_KEY));
        read.await.map_err(|error| StorageIOError::read(AnyError::new(&error)).into())
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<TypeConfig>) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let encoded = |entry: Entry| (to_json(&EntryRecord::from(&entry)), entry);
        let entries: Vec<(Vec<u8>, Entry)> = entries.into_iter().map(encoded).collect();
        let written = blocking(&self.database, move |database| {
            let mut batch = Batch::default();
            for (json, entry) in &entries {
                batch.put(Column::Log, &entry.log_id.index.to_be_bytes(), json);
            }
            database.write(batch, Sync::Durable).map(|()| entries)
        });
        // Only now, with the entries on the disk, may they count. An error ends this node's part in Raft.
        let written = written.await.map(|entries| {
            let mut recent = self.recent();
            entries.into_iter().for_each(|(json, entry)| recent.push(entry, json.len()));
        });
        callback.log_io_completed(written.map_err(io::Error::other));
        Ok(())
    }

    async fn truncate(&mut self, since: LogId) -> Result<(), StorageError> {
        self.recent().clear();
        let written = blocking(&self.database, move |database| {
            let mut batch = Batch::default();
            batch.delete_range(Column::Log, &since.index.to_be_bytes(), BEHIND_LAST_INDEX);
            database.write(batch, Sync::Durable)
        });
        written.await.map_err(|error| StorageIOError::write_log_entry(since, AnyError::new(&error)).into())
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), StorageError> {
        self.recent().forget(upto.index);
        let written = blocking(&self.database, move |database| {
            let mut batch = Batch::default();
            batch.put(Column::Meta, PURGED_KEY, to_json(&LogIdRecord::from(upto)));
            batch.delete_range(Column::Log, &0u64.to_be_bytes(), &(upto.index + 1).to_be_bytes());
            database.write(batch, Sync::Durable)
        });
        written.await.map_err(|error| StorageIOError::write_log_entry(upto, AnyError::new(&error)).into())
    }
}

pub(super) fn read_log_id(database: &Database, key: &[u8]) -> Result<Option<LogId>, StoreError> {
    let what = String::from_utf8_lossy(key);
    let json = database.get(Column::Meta, key)?;
    let record = json.map(|json| from_json::<LogIdRecord>(database.dir(), &what, &json)).transpose()?;
    Ok(record.map(LogId::from))
}

fn index_of(database: &Database, key: &[u8]) -> Result<u64, StoreError> {
    let damaged = || StoreError::Damaged {
        dir: database.dir().to_owned(),
        what: format!("a key of its log has {} bytes", key.len()),
    };
    key.try_into().map(u64::from_be_bytes).map_err(|_| damaged())
}

/// The entry under a key, which has to be its own.
pub(super) fn decode(database: &Database, key: &[u8], json: &[u8]) -> Result<Entry, StoreError> {
    let index = index_of(database, key)?;
    let record: EntryRecord = from_json(database.dir(), &format!("entry {index} of the log"), json)?;
    let entry = Entry::from(record);
    if entry.log_id.index != index {
        let what = format!("in place of entry {index} of its log there is {}", place(&entry.log_id));
        return Err(StoreError::Damaged { dir: database.dir().to_owned(), what });
    }
    Ok(entry)
}

fn half_open(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(last) => last.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    (start, end)
}

pub(super) const VOTE_KEY: &[u8] = b"vote";
pub(super) const COMMITTED_KEY: &[u8] = b"committed";
pub(super) const PURGED_KEY: &[u8] = b"purged";
/// Above the key of every entry.
const BEHIND_LAST_INDEX: &[u8] = &[0xff; 9];
