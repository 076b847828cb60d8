//! Finding out, when a volume is opened, what its journal holds.
//!
//! The files are read in the order of their numbers, from the one that the volume's record names. Each is read up to the
//! first record that does not check or does not have the next sequence number; the next file may go on where it stopped,
//! as a file is left early when a record does not fit it, and when the process that wrote it ended.
//!
//! 1. Read all files, and find where the row of records breaks off.
//! 2. Where any record behind that place says that more had been durable, or a file has no header that checks, or the row
//!    ends in one that has become shorter (each is allocated before it gets its name), it is damage and not a loss of power:
//!    refuse, and change nothing.
//! 3. Sync what was replayed: the process may have been killed before it could, and the next flush promises these too.
//! 4. Remove the files that hold nothing of it. A crash in between leaves some of them for the next replay.

use std::io;
use std::sync::Arc;

use sterna_types::VolumeId;

use super::JOURNAL_FILE_BYTES;
use super::file::{FIRST_RECORD, FileHeader, FileNumber, JournalFile, JournalNote, PAGE_BYTES};
use super::log::JournalError;
use super::pool::JournalPool;
use super::record::{HEADER_BYTES as RECORD_HEADER_BYTES, RecordHeader, Sequence};
use crate::disk::Disk;

/// Where a replay begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replay {
    /// Whose journal it is.
    pub volume: VolumeId,
    /// The newest record that is sealed.
    pub sealed_through: Sequence,
    /// The oldest file that holds a record that is not sealed.
    pub from: FileNumber,
}

/// What a journal held.
#[derive(Debug)]
pub struct Replayed {
    /// The records in order, each with the place of its payload.
    pub records: Vec<(RecordHeader, Arc<JournalFile>, u64)>,
    /// The newest record, durable now.
    pub last: Sequence,
    /// The newest file there was.
    pub last_used: FileNumber,
}

/// Reads the journal in `directory`, makes what is needed of it durable, and removes the rest.
///
/// # Errors
/// [`JournalError::Damaged`] where records are missing that were durable, [`JournalError::Io`] where the system does not
/// let it be read; then nothing has been removed.
pub fn replay(pool: &JournalPool, directory: &str, begin: Replay) -> Result<Replayed, JournalError> {
    let disk = pool.disk();
    let failed = |path: &str, source| JournalError::Io { path: path.to_owned(), source };
    let mut reader = Reader::new(begin, pool.file_bytes());
    let mut useless = Vec::new();
    for name in disk.list(directory).map_err(|source| failed(directory, source))? {
        let path = format!("{directory}/{name}");
        let holds_records = reader.read(&**disk, &path, &name).map_err(|source| failed(&path, source))?;
        if !holds_records {
            useless.push(path);
        }
    }
    let Reader { replayed, known_durable, broke_off_in, headless, cut, .. } = reader;
    if let Some(path) = headless.or(cut) {
        // What it held may have been durable.
        return Err(JournalError::Damaged { path, sequence: replayed.last.next().0 });
    }
    if known_durable > replayed.last {
        let path = broke_off_in.unwrap_or_else(|| directory.to_owned());
        return Err(JournalError::Damaged { path, sequence: replayed.last.next().0 });
    }
    for path in &useless {
        disk.remove(path).map_err(|source| failed(path, source))?;
    }
    if !replayed.records.is_empty() {
        disk.sync_dir(directory).map_err(|source| failed(directory, source))?;
    }
    Ok(replayed)
}

/// The note in the header of the newest file of the journal in `directory`; `None` where there is no file of `volume`.
///
/// # Errors
/// [`JournalError::Damaged`] where there are files and none has a header that checks, [`JournalError::Io`].
pub fn newest_note(disk: &dyn Disk, directory: &str, volume: VolumeId) -> Result<Option<JournalNote>, JournalError> {
    let failed = |path: &str, source| JournalError::Io { path: path.to_owned(), source };
    let mut headless = None;
    for name in disk.list(directory).map_err(|source| failed(directory, source))?.into_iter().rev() {
        let Some(number) = FileNumber::of_file_name(&name) else { continue };
        let path = format!("{directory}/{name}");
        match open(disk, &path, volume, number) {
            Ok(Opened::Ours(file)) => return Ok(Some(file.header.note)),
            Ok(Opened::Foreign) => {}
            Ok(Opened::Headless) => headless = Some(path),
            // It was given back a moment ago.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(failed(&path, source)),
        }
    }
    headless.map_or(Ok(None), |path| Err(JournalError::Damaged { path, sequence: Sequence::default().next().0 }))
}

struct Reader {
    begin: Replay,
    replayed: Replayed,
    /// The newest record that any record found says was durable.
    known_durable: Sequence,
    /// The file in which the row of records last broke off.
    broke_off_in: Option<String>,
    /// A file whose header cannot be read.
    headless: Option<String>,
    /// Bytes that a file has.
    file_bytes: u64,
    /// The first file that has become shorter, if the row does not go on behind it.
    cut: Option<String>,
}

impl Reader {
    fn new(begin: Replay, file_bytes: u64) -> Self {
        let last_used = FileNumber(begin.from.0.saturating_sub(1));
        let replayed = Replayed { records: Vec::new(), last: begin.sealed_through, last_used };
        let known_durable = Sequence::default();
        Self { begin, replayed, known_durable, broke_off_in: None, headless: None, file_bytes, cut: None }
    }

    /// Reads the file at `path`; whether it holds records of the row.
    fn read(&mut self, disk: &dyn Disk, path: &str, name: &str) -> io::Result<bool> {
        let Some(number) = FileNumber::of_file_name(name) else {
            return Ok(false);
        };
        self.replayed.last_used = self.replayed.last_used.max(number);
        if number < self.begin.from {
            return Ok(false);
        }
        let file = match open(disk, path, self.begin.volume, number)? {
            Opened::Ours(file) => file,
            Opened::Foreign => return Ok(false),
            Opened::Headless => {
                self.headless.get_or_insert_with(|| path.to_owned());
                return Ok(true);
            }
        };
        let length = usize::try_from(file.length.min(JOURNAL_FILE_BYTES)).map_err(io::Error::other)?;
        let mut bytes = vec![0; length];
        file.file.read_at(0, &mut bytes)?;
        let file = Arc::new(file);
        let before = self.replayed.records.len();
        let end = self.read_row(&file, &bytes)?;
        let found = self.replayed.records.len() > before;
        self.look_behind(&bytes[end..], file.header.salt);
        self.broke_off_in = Some(path.to_owned());
        if found {
            file.file.sync()?;
            self.cut = None;
        }
        if file.length < self.file_bytes {
            self.cut.get_or_insert_with(|| path.to_owned());
        }
        Ok(found || self.cut.is_some())
    }

    /// Adds the records of a file that go on where the replay has come to; where they end.
    fn read_row(&mut self, file: &Arc<JournalFile>, bytes: &[u8]) -> io::Result<usize> {
        let mut at = usize::try_from(FIRST_RECORD).map_err(io::Error::other)?;
        while let Ok(header) = RecordHeader::parse(&bytes[at..], file.header.salt) {
            if header.sequence != self.replayed.last.next() {
                break;
            }
            self.replayed.last = header.sequence;
            self.known_durable = self.known_durable.max(header.durable);
            self.replayed.records.push((header, Arc::clone(file), (at + RECORD_HEADER_BYTES) as u64));
            at += usize::try_from(header.record_bytes()).map_err(io::Error::other)?;
        }
        Ok(at)
    }

    /// Learns from records that are not of the row what had been durable.
    fn look_behind(&mut self, rest: &[u8], salt: u64) {
        let salt_bytes = salt.to_le_bytes();
        for at in (0..rest.len().saturating_sub(RECORD_HEADER_BYTES - 1)).step_by(RECORD_ALIGNMENT) {
            if rest[at + 8..at + 16] == salt_bytes
                && let Ok(header) = RecordHeader::parse(&rest[at..], salt)
            {
                self.known_durable = self.known_durable.max(header.durable);
            }
        }
    }
}

/// Records begin at multiples of this: their headers have 48 bytes, and their payloads are blocks.
pub(super) const RECORD_ALIGNMENT: usize = 16;

/// What a file with the name of a journal's is.
pub(super) enum Opened {
    /// A file of this volume, with this number.
    Ours(JournalFile),
    /// One that has changed hands, by its header.
    Foreign,
    /// It has no header that checks.
    Headless,
}

/// Opens the file at `path`, which has the name of file `number` of `volume`.
pub(super) fn open(disk: &dyn Disk, path: &str, volume: VolumeId, number: FileNumber) -> io::Result<Opened> {
    let file = disk.open(path)?;
    file.drop_cached();
    let length = file.size()?;
    if length < FIRST_RECORD {
        return Ok(Opened::Headless);
    }
    let mut page = [0; PAGE_BYTES];
    file.read_at(0, &mut page)?;
    Ok(match FileHeader::parse_page(&page) {
        Some(header) if header.volume == volume && header.number == number => {
            Opened::Ours(JournalFile { file, header, length, path: path.to_owned() })
        }
        Some(_) => Opened::Foreign,
        None => Opened::Headless,
    })
}
