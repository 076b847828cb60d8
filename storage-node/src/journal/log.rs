//! Appending to a journal, and making it durable.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sterna_types::VolumeId;
use tokio::sync::Notify;

use super::file::{FIRST_RECORD, FileNumber, JournalFile, JournalNote, NOTE_BYTES};
use super::pool::JournalPool;
use super::record::{HEADER_BYTES, RecordHeader, RecordKind, Sequence};
use super::replay::Replayed;

/// Why a record is not in the journal, or not durable.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// A record that was durable cannot be read any more.
    #[error(
        "{path}: record {sequence} is damaged, though it was durable once: `sterna salvage` can read what is around it"
    )]
    Damaged {
        /// The file in which the journal breaks off, or the directory, relative to the data directory.
        path: String,
        /// The first record that is not there.
        sequence: u64,
    },
    /// There is no space for another file of the journal.
    #[error("no space left for the journal")]
    Full,
    /// A sync has failed: what is durable is unknown until the journal has been opened anew.
    #[error("an earlier sync of the journal failed")]
    Poisoned,
    /// The file system refused.
    #[error("{path}: {source}")]
    Io {
        /// The file or directory, relative to the data directory.
        path: String,
        /// What the system said.
        source: io::Error,
    },
}

impl JournalError {
    pub(super) fn from_io(path: String, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full,
            _ => Self::Io { path, source },
        }
    }
}

/// Where a record's payload is.
#[derive(Clone, Debug)]
pub struct Appended {
    /// The file that it is in.
    pub file: Arc<JournalFile>,
    /// The first byte of the payload there.
    pub payload_at: u64,
    /// The record's place in the history.
    pub sequence: Sequence,
}

/// The journal of one open volume.
///
/// Appends are made one at a time, by whoever holds the `Appender`; syncs by anybody, at any time.
#[derive(Debug)]
pub struct Journal {
    volume: VolumeId,
    directory: String,
    pool: Arc<JournalPool>,
    /// What goes into the headers of the files to come.
    note: Mutex<JournalNote>,
    appender: Mutex<Appender>,
    /// The newest record that is in a file.
    appended: AtomicU64,
    /// The newest record that is durable, with all before it.
    durable: AtomicU64,
    /// Held while syncing.
    syncing: Mutex<()>,
    /// Told when the current file has become half full.
    next_wanted: Notify,
    poisoned: AtomicBool,
}

#[derive(Debug)]
struct Appender {
    /// The file that is appended to, and where; none until the first record, and after a volume came to rest.
    current: Option<(Arc<JournalFile>, u64)>,
    /// The file after it, ready for use.
    prepared: Option<JournalFile>,
    /// The newest file that has, or had, a record.
    last_used: FileNumber,
    /// The number of the next file that is taken from the pool.
    next_number: FileNumber,
    /// Files with records that may not be durable, oldest first; the last one may be the current one.
    unsynced: Vec<Arc<JournalFile>>,
    /// Bytes of these records.
    unsynced_bytes: u64,
    /// The newest file of which records were synced. A file's first sync may have more to write: what an earlier use has left.
    last_synced: Option<FileNumber>,
    /// All files that are not given back yet, oldest first.
    live: Vec<Arc<JournalFile>>,
}

impl Appender {
    /// Whether the current file is half full, and there is none to go on with.
    fn wants_next(&self) -> bool {
        let is_half_full = |(file, at): &(Arc<JournalFile>, u64)| file.room_from(*at) < *at;
        self.prepared.is_none() && self.current.as_ref().is_some_and(is_half_full)
    }

    /// Whether what is to be synced is a few records in one file that was synced before.
    fn has_little_unsynced(&self) -> bool {
        let is_known = |file: &Arc<JournalFile>| self.last_synced == Some(file.number());
        self.unsynced_bytes <= LITTLE_BYTES && self.unsynced.len() <= 1 && self.unsynced.iter().all(is_known)
    }

    fn draw_number(&mut self) -> FileNumber {
        let number = self.next_number;
        self.next_number = number.next();
        number
    }
}

impl Journal {
    /// The journal in `directory` that goes on behind what was replayed of it, which is durable.
    pub fn behind(volume: VolumeId, directory: String, pool: Arc<JournalPool>, replayed: &Replayed) -> Self {
        let mut live: Vec<Arc<JournalFile>> = Vec::new();
        for (_, file, _) in &replayed.records {
            if !live.last().is_some_and(|last| Arc::ptr_eq(last, file)) {
                live.push(Arc::clone(file));
            }
        }
        let last_used = replayed.last_used;
        let appender = Appender {
            current: None,
            prepared: None,
            last_used,
            next_number: last_used.next(),
            unsynced: Vec::new(),
            unsynced_bytes: 0,
            last_synced: None,
            live,
        };
        Self {
            volume,
            directory,
            pool,
            note: Mutex::new([0; NOTE_BYTES]),
            appender: Mutex::new(appender),
            appended: AtomicU64::new(replayed.last.0),
            durable: AtomicU64::new(replayed.last.0),
            syncing: Mutex::new(()),
            next_wanted: Notify::new(),
            poisoned: AtomicBool::new(false),
        }
    }

    /// Has the headers of the files to come say what the journal stands on.
    pub fn set_note(&self, note: JournalNote) {
        *self.note.lock().unwrap_or_else(PoisonError::into_inner) = note;
    }

    /// Appends a record: on return it survives the end of the process, and power loss after the next sync.
    ///
    /// The caller makes one append at a time.
    ///
    /// # Errors
    /// [`JournalError`]; then the journal is as it was, and a later append may succeed unless it is poisoned.
    ///
    /// # Panics
    /// Where the payload is not as long as `kind` and `block_count` say.
    pub fn append(
        &self,
        kind: RecordKind,
        first_block: u64,
        block_count: u64,
        payload: &[u8],
    ) -> Result<Appended, JournalError> {
        self.check_sound()?;
        let mut appender = self.appender();
        let bytes = (HEADER_BYTES + payload.len()) as u64;
        let (file, at) = self.room_for(&mut appender, bytes)?;
        let sequence = Sequence(self.appended.load(Ordering::Acquire)).next();
        let durable = Sequence(self.durable.load(Ordering::Acquire));
        let header = RecordHeader { kind, salt: file.header.salt, sequence, first_block, block_count, durable };
        let written = file.file.write_at(at, &[&header.encode(payload), payload]);
        written.map_err(|source| JournalError::from_io(file.path.clone(), source))?;
        if !appender.unsynced.last().is_some_and(|last| Arc::ptr_eq(last, &file)) {
            appender.unsynced.push(Arc::clone(&file));
        }
        appender.unsynced_bytes += bytes;
        appender.current = Some((Arc::clone(&file), at + bytes));
        if appender.wants_next() {
            self.next_wanted.notify_one();
        }
        self.appended.store(sequence.0, Ordering::Release);
        Ok(Appended { file, payload_at: at + HEADER_BYTES as u64, sequence })
    }

    /// Whether a record with `payload_bytes` can be appended without taking another file.
    pub fn has_room_for(&self, payload_bytes: u64) -> bool {
        let appender = self.appender();
        let bytes = HEADER_BYTES as u64 + payload_bytes;
        let fits = |(file, at): &(Arc<JournalFile>, u64)| file.room_from(*at) >= bytes;
        appender.prepared.is_some() || appender.current.as_ref().is_some_and(fits)
    }

    /// Has the next file ready before the current one is full, so that no append waits for it.
    ///
    /// # Errors
    /// [`JournalError`]; nothing is lost by it.
    pub fn prepare(&self) -> Result<(), JournalError> {
        let number = {
            let mut appender = self.appender();
            if !appender.wants_next() {
                return Ok(());
            }
            appender.draw_number()
        };
        // Made without the lock. Where an append could not wait and took a later file, this one is not needed.
        let file = self.take(number)?;
        let mut appender = self.appender();
        if appender.last_used < number && appender.prepared.is_none() {
            appender.prepared = Some(file);
            return Ok(());
        }
        drop(appender);
        self.pool.give_back(file).map_err(|source| JournalError::from_io(self.directory.clone(), source))
    }

    /// The most blocks that one record may have.
    pub fn max_record_blocks(&self) -> u64 {
        self.pool.max_record_blocks()
    }

    /// Waits until [`Journal::prepare`] has something to do.
    ///
    /// # Cancel safety
    /// May be dropped at any time.
    pub async fn next_wanted(&self) {
        self.next_wanted.notified().await;
    }

    /// The newest record.
    pub fn appended(&self) -> Sequence {
        Sequence(self.appended.load(Ordering::Acquire))
    }

    /// Makes every record durable that was appended before this call. Calls at the same time share their syncs.
    ///
    /// # Errors
    /// [`JournalError::Poisoned`] for good, once a sync has failed.
    pub fn sync(&self) -> Result<(), JournalError> {
        let wanted = self.appended();
        let turn = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        self.sync_through(wanted, &turn)
    }

    /// The same, if little is to be synced and nobody else syncs now; `None` where it is not so, and nothing has happened.
    ///
    /// # Errors
    /// As [`Journal::sync`].
    pub fn sync_little(&self) -> Option<Result<(), JournalError>> {
        let wanted = self.appended();
        let turn = self.syncing.try_lock().ok()?;
        let has_little = self.appender().has_little_unsynced();
        has_little.then(|| self.sync_through(wanted, &turn))
    }

    fn sync_through(&self, wanted: Sequence, _turn: &MutexGuard<'_, ()>) -> Result<(), JournalError> {
        self.check_sound()?;
        if self.durable.load(Ordering::Acquire) >= wanted.0 {
            return Ok(());
        }
        let (files, bytes, through) = {
            let appender = self.appender();
            (appender.unsynced.clone(), appender.unsynced_bytes, self.appended())
        };
        for file in &files {
            if let Err(source) = file.file.sync() {
                self.poisoned.store(true, Ordering::Release);
                return Err(JournalError::Io { path: file.path.clone(), source });
            }
        }
        self.durable.store(through.0, Ordering::Release);
        let mut appender = self.appender();
        // The last of these files may have got more records meanwhile.
        let last = if self.appended() == through { None } else { files.last() };
        let is_done = |file: &Arc<JournalFile>| files.iter().any(|synced| Arc::ptr_eq(synced, file));
        let is_last = |file: &Arc<JournalFile>| last.is_some_and(|last| Arc::ptr_eq(last, file));
        appender.unsynced.retain(|file| !is_done(file) || is_last(file));
        appender.unsynced_bytes -= bytes;
        appender.last_synced = files.last().map(|file| file.number()).or(appender.last_synced);
        Ok(())
    }

    /// Ends the current file: later records go to others. Returns the newest record before, and the file from which on
    /// all later ones are.
    pub fn cut(&self) -> (Sequence, FileNumber) {
        let mut appender = self.appender();
        appender.current = None;
        (self.appended(), appender.last_used.next())
    }

    /// Gives back the files before `number`, whose records are sealed. One that somebody still reads is given back by a
    /// later call.
    pub fn retire_before(&self, number: FileNumber) {
        let retired: Vec<_> = {
            let mut appender = self.appender();
            appender.unsynced.retain(|file| file.number() >= number);
            let (retired, live) =
                std::mem::take(&mut appender.live).into_iter().partition(|file| file.number() < number);
            appender.live = live;
            retired
        };
        for file in retired {
            match Arc::try_unwrap(file) {
                // A file that could not be given back is removed when the volume is opened next.
                Ok(file) => drop(self.pool.give_back(file)),
                Err(read) => self.appender().live.insert(0, read),
            }
        }
    }

    /// Gives back what was prepared and not used.
    pub fn rest(&self) {
        let prepared = self.appender().prepared.take();
        if let Some(file) = prepared {
            // A file that could not be given back is removed when the volume is opened next.
            let _ = self.pool.give_back(file);
        }
    }

    /// Refuses, once a sync has failed.
    ///
    /// # Errors
    /// [`JournalError::Poisoned`].
    pub fn check_sound(&self) -> Result<(), JournalError> {
        if self.poisoned.load(Ordering::Acquire) { Err(JournalError::Poisoned) } else { Ok(()) }
    }

    fn room_for(&self, appender: &mut Appender, bytes: u64) -> Result<(Arc<JournalFile>, u64), JournalError> {
        if let Some((file, at)) = &appender.current
            && file.room_from(*at) >= bytes
        {
            return Ok((Arc::clone(file), *at));
        }
        let file = match appender.prepared.take() {
            Some(file) => file,
            None => {
                let number = appender.draw_number();
                self.take(number)?
            }
        };
        let file = Arc::new(file);
        appender.last_used = file.number();
        appender.live.push(Arc::clone(&file));
        appender.current = Some((Arc::clone(&file), FIRST_RECORD));
        Ok((file, FIRST_RECORD))
    }

    fn take(&self, number: FileNumber) -> Result<JournalFile, JournalError> {
        let note = *self.note.lock().unwrap_or_else(PoisonError::into_inner);
        self.pool.take(self.volume, &self.directory, number, note)
    }

    fn appender(&self) -> MutexGuard<'_, Appender> {
        self.appender.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// So much is written in the time that a sync takes anyway.
const LITTLE_BYTES: u64 = 64 << 10;
