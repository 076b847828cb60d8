//! What can be read of a journal, for salvage: damage is listed and never refused, and nothing is changed.
//!
//! Each file has a **row**: the records from its beginning on, each with the next sequence number, up to the first that does
//! not check. Behind it there may be **strays**: whole records that a loss of power has cut off from the row, or damage has.
//! [`Survey::on`] says what a row of rows comes to on top of a root, as [`replay()`](super::replay()) would have it.

use std::fmt;
use std::io;
use std::sync::Arc;

use sterna_types::VolumeId;

use super::JOURNAL_FILE_BYTES;
use super::file::{FIRST_RECORD, FileNumber, JournalFile, JournalNote};
use super::record::{HEADER_BYTES, RecordHeader, Sequence};
use super::replay::{Opened, RECORD_ALIGNMENT, Replay, open};
use crate::disk::Disk;

/// A record, and where its payload is.
pub type Found = (RecordHeader, Arc<JournalFile>, u64);

/// A journal as far as it can be read, its files in the order of their numbers.
#[derive(Debug, Default)]
pub struct Survey {
    files: Vec<SurveyedFile>,
    /// What is bad.
    pub damages: Vec<JournalDamage>,
}

#[derive(Debug)]
struct SurveyedFile {
    number: FileNumber,
    note: JournalNote,
    row: Vec<Found>,
    strays: Vec<Found>,
}

/// Something bad about a journal.
#[derive(Debug)]
pub enum JournalDamage {
    /// A file without a header that checks: none of it is used.
    Header {
        /// The file, relative to the data directory.
        path: String,
    },
    /// The system does not let it be read.
    Unreadable {
        /// The file or directory, relative to the data directory.
        path: String,
        /// What the system said.
        source: io::Error,
    },
}

impl fmt::Display for JournalDamage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header { path } => write!(f, "{path}: its header is damaged, none of it can be used"),
            Self::Unreadable { path, source } => write!(f, "{path}: {source}"),
        }
    }
}

/// What a journal comes to on top of a root.
#[derive(Debug)]
pub struct Continued {
    /// The records to put over the root, in order.
    pub records: Vec<Found>,
    /// The newest record of which all before it are there; the newest that is sealed, where there is none.
    pub last: Sequence,
    /// The newest record that was durable once by what others say, where that is behind `last`: those between were lost.
    pub durable_once: Option<Sequence>,
    /// Whole records behind `last` that are not in a row with it. They are in `records` if that was asked for.
    pub strays: u64,
    /// Whether the journal goes on from an older root, so that this one was never recorded: a seal was cut off.
    pub contradicts: bool,
}

/// Reads the journal of `volume` in `directory`.
pub fn survey(disk: &dyn Disk, directory: &str, volume: VolumeId) -> Survey {
    let mut survey = Survey::default();
    let names = disk.list(directory).unwrap_or_else(|source| {
        survey.damages.push(JournalDamage::Unreadable { path: directory.to_owned(), source });
        Vec::new()
    });
    for name in names {
        let Some(number) = FileNumber::of_file_name(&name) else { continue };
        let path = format!("{directory}/{name}");
        match open(disk, &path, volume, number).and_then(|opened| read(opened, number)) {
            Ok(Read::File(file)) => survey.files.push(file),
            Ok(Read::Foreign) => {}
            Ok(Read::Headless) => survey.damages.push(JournalDamage::Header { path }),
            Err(source) => survey.damages.push(JournalDamage::Unreadable { path, source }),
        }
    }
    survey
}

impl Survey {
    /// The notes in the headers of the files, oldest file first.
    pub fn notes(&self) -> impl Iterator<Item = &JournalNote> {
        self.files.iter().map(|file| &file.note)
    }

    /// Whether there is any record.
    pub fn is_empty(&self) -> bool {
        self.files.iter().all(|file| file.row.is_empty() && file.strays.is_empty())
    }

    /// What the journal comes to on top of the root that `begin` speaks of. With `past_damage` also the records that are
    /// not in a row with it: the result is then the volume of no moment, as those between are missing.
    pub fn on(&self, begin: &Replay, past_damage: bool) -> Continued {
        let files: Vec<_> = self.files.iter().filter(|file| file.number >= begin.from).collect();
        let mut last = begin.sealed_through;
        let mut records = Vec::new();
        for file in &files {
            for record in &file.row {
                if record.0.sequence != last.next() {
                    break;
                }
                last = record.0.sequence;
                records.push(record.clone());
            }
        }
        let all = || files.iter().flat_map(|file| file.row.iter().chain(&file.strays));
        let durable = all().map(|record| record.0.durable).max().unwrap_or_default();
        let strays = strays_behind(&files, last);
        let count = strays.len() as u64;
        if past_damage {
            records.extend(strays);
        }
        let first_of_row = |file: &&SurveyedFile| file.row.first().map(|record| record.0.sequence);
        Continued {
            records,
            last,
            durable_once: (durable > last).then_some(durable),
            strays: count,
            contradicts: files.iter().filter_map(first_of_row).any(|first| first <= begin.sealed_through),
        }
    }
}

/// The records behind `last`, in order. Where two have one sequence number, the one in the later file is the one that
/// counts, and so are those behind it: the earlier ones were cut off by a loss of power before the later file was begun.
fn strays_behind(files: &[&SurveyedFile], last: Sequence) -> Vec<Found> {
    let (mut strays, mut before) = (Vec::new(), Sequence(u64::MAX));
    for file in files.iter().rev() {
        let mut of_file: Vec<_> = file.row.iter().chain(&file.strays).collect();
        of_file.retain(|record| record.0.sequence > last && record.0.sequence < before);
        before = file.row.first().map_or(before, |first| before.min(first.0.sequence));
        strays.extend(of_file.into_iter().rev().cloned());
    }
    strays.reverse();
    strays
}

enum Read {
    File(SurveyedFile),
    Foreign,
    Headless,
}

fn read(opened: Opened, number: FileNumber) -> io::Result<Read> {
    let file = match opened {
        Opened::Ours(file) => Arc::new(file),
        Opened::Foreign => return Ok(Read::Foreign),
        Opened::Headless => return Ok(Read::Headless),
    };
    let length = usize::try_from(file.length.min(JOURNAL_FILE_BYTES)).map_err(io::Error::other)?;
    let mut bytes = vec![0; length];
    file.read_at(0, &mut bytes)?;
    let (mut row, mut strays): (Vec<Found>, Vec<Found>) = (Vec::new(), Vec::new());
    let mut at = usize::try_from(FIRST_RECORD).map_err(io::Error::other)?;
    let mut in_row = true;
    while at + HEADER_BYTES <= bytes.len() {
        // Salts are not to be guessed: what has this one and checks was written as a record.
        let is_ours = bytes[at + 8..at + 16] == file.header.salt.to_le_bytes();
        let Some(header) = is_ours.then(|| RecordHeader::parse(&bytes[at..], file.header.salt).ok()).flatten() else {
            in_row = false;
            at += RECORD_ALIGNMENT;
            continue;
        };
        in_row = in_row && row.last().is_none_or(|before| before.0.sequence.next() == header.sequence);
        let records = if in_row { &mut row } else { &mut strays };
        records.push((header, Arc::clone(&file), (at + HEADER_BYTES) as u64));
        at += usize::try_from(header.record_bytes()).map_err(io::Error::other)?;
    }
    let note = file.header.note;
    Ok(Read::File(SurveyedFile { number, note, row, strays }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::SimulatedDisk;
    use crate::journal::record::RecordKind;
    use crate::journal::{JournalPool, NOTE_BYTES, SaltSource};

    const VOLUME: VolumeId = VolumeId(1);
    const DIRECTORY: &str = "volumes/1/journal";

    /// A journal of files with holes under these sequence numbers.
    fn survey_of(files: &[&[u64]]) -> Survey {
        let disk = Arc::new(SimulatedDisk::new());
        disk.create_dir(DIRECTORY).expect("a directory");
        let pool = JournalPool::open(disk.clone(), SaltSource::new([1; 32]), 64 << 10, 0).expect("a pool");
        for (number, sequences) in (1..).zip(files) {
            let file = pool.take(VOLUME, DIRECTORY, FileNumber(number), [0; NOTE_BYTES]).expect("a file");
            for (place, sequence) in (0..).zip(*sequences) {
                let (kind, salt, durable) = (RecordKind::Hole, file.header.salt, Sequence(sequence - 1));
                let sequence = Sequence(*sequence);
                let header = RecordHeader { kind, salt, sequence, first_block: place, block_count: 1, durable };
                let at = FIRST_RECORD + place * HEADER_BYTES as u64;
                file.file.write_at(at, &[&header.encode(&[])]).expect("a write");
            }
        }
        survey(&*disk, DIRECTORY, VOLUME)
    }

    fn on(survey: &Survey, sealed: u64, past_damage: bool) -> (Vec<u64>, Continued) {
        let begin = Replay { volume: VOLUME, sealed_through: Sequence(sealed), from: FileNumber(1) };
        let continued = survey.on(&begin, past_damage);
        (continued.records.iter().map(|record| record.0.sequence.0).collect(), continued)
    }

    #[test]
    fn a_file_that_does_not_go_on_where_the_one_before_ends_is_not_in_the_row() {
        // Found by fuzzing: a replay does not look for its next record within a file.
        let (records, continued) = on(&survey_of(&[&[1], &[1, 2]]), 0, false);
        assert_eq!((records, continued.last, continued.contradicts), (vec![1], Sequence(1), false));
        let (records, continued) = on(&survey_of(&[&[1, 2], &[4, 5]]), 0, false);
        assert_eq!((records, continued.durable_once, continued.strays), (vec![1, 2], Some(Sequence(4)), 2));
    }

    #[test]
    fn strays_of_a_later_file_take_the_place_of_earlier_ones() {
        // A loss of power cut off records 4 and 5 of the first file; the volume went on with others, and 3 is damaged now.
        let survey = survey_of(&[&[1, 2, 4, 5, 6], &[4, 5]]);
        let (records, continued) = on(&survey, 0, true);
        assert_eq!((records, continued.last), (vec![1, 2, 4, 5], Sequence(2)));
        assert_eq!(continued.records[2].1.number(), FileNumber(2));
    }

    #[test]
    fn a_root_that_holds_what_a_later_file_begins_with_is_contradicted() {
        let survey = survey_of(&[&[3, 4]]);
        assert!(on(&survey, 5, false).1.contradicts);
        assert!(on(&survey, 3, false).1.contradicts);
        assert!(!on(&survey, 2, false).1.contradicts);
    }
}
