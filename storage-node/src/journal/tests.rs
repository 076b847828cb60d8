//! The journal as a whole: what a replay finds after ends of all kinds.

use std::sync::Arc;

use sterna_types::VolumeId;

use super::record::{RecordHeader, RecordKind, Sequence};
use super::{FileNumber, Journal, JournalError, JournalPool, Replay, Replayed, SaltSource, replay};
use crate::disk::simulated::CrashMode;
use crate::disk::{Disk, SimulatedDisk};

const VOLUME: VolumeId = VolumeId(3);
const DIRECTORY: &str = "volumes/3/journal";
const FILE_BYTES: u64 = 64 << 10;
const BEGIN: Replay = Replay { volume: VOLUME, sealed_through: Sequence(0), from: FileNumber(1) };

struct Fixture {
    disk: SimulatedDisk,
    pool: Arc<JournalPool>,
}

impl Fixture {
    fn on(disk: SimulatedDisk, seed: u8) -> Self {
        disk.create_dir(DIRECTORY).expect("a directory");
        let pool = JournalPool::open(Arc::new(disk.clone()), SaltSource::new([seed; 32]), FILE_BYTES, 0);
        Self { disk, pool: Arc::new(pool.expect("a pool")) }
    }

    fn replay(&self, begin: Replay) -> Result<Replayed, JournalError> {
        replay(&self.pool, DIRECTORY, begin)
    }

    fn journal(&self, begin: Replay) -> Journal {
        let replayed = self.replay(begin).expect("a journal that can be read");
        Journal::behind(VOLUME, DIRECTORY.to_owned(), Arc::clone(&self.pool), &replayed)
    }

    fn files(&self) -> Vec<String> {
        self.disk.list(DIRECTORY).expect("a directory")
    }
}

/// Appends `count` records of one block, the content of each its place among them.
fn append(journal: &Journal, count: u64) {
    for _ in 0..count {
        let block = journal.appended().0;
        let payload = [u8::try_from(block % 251).expect("a small number"); 4096];
        journal.append(RecordKind::Data, block, 1, &payload).expect("space for a record");
    }
}

fn sequences(replayed: &Replayed) -> Vec<u64> {
    replayed.records.iter().map(|(header, _, _): &(RecordHeader, _, _)| header.sequence.0).collect()
}

#[test]
fn what_was_appended_is_replayed_across_files_with_its_payloads() {
    let fixture = Fixture::on(SimulatedDisk::new(), 1);
    append(&fixture.journal(BEGIN), 40);
    let killed = Fixture::on(fixture.disk.after_kill(), 2);
    let replayed = killed.replay(BEGIN).expect("a replay");
    assert_eq!(sequences(&replayed), (1..=40).collect::<Vec<_>>());
    assert!(killed.files().len() > 2, "40 blocks do not fit two files of 64 KiB: {:?}", killed.files());
    for (header, file, at) in &replayed.records {
        let mut payload = [0; 4096];
        file.read_at(*at, &mut payload).expect("a payload");
        assert!(payload == [u8::try_from(header.first_block % 251).expect("a small number"); 4096]);
    }
}

#[test]
fn what_was_synced_survives_power_loss_and_the_journal_goes_on_behind_it() {
    for (seed, mode) in (0..20).flat_map(|seed| CrashMode::ALL.map(|mode| (seed, mode))) {
        let fixture = Fixture::on(SimulatedDisk::new(), 1);
        let journal = fixture.journal(BEGIN);
        append(&journal, 17);
        journal.sync().expect("a sync");
        append(&journal, 9);
        let cut = Fixture::on(fixture.disk.crash_image(seed, mode), 2);
        let found = cut.replay(BEGIN).expect("a replay").last.0;
        assert!((17..=26).contains(&found), "{found} records after power was lost");
        // Twice, and with more behind what was found.
        append(&cut.journal(BEGIN), 5);
        let again = Fixture::on(cut.disk.after_kill(), 3);
        assert_eq!(again.replay(BEGIN).expect("a replay").last.0, found + 5);
    }
}

#[test]
fn a_damaged_record_that_was_durable_once_is_an_error_and_nothing_is_removed() {
    let fixture = Fixture::on(SimulatedDisk::new(), 1);
    let journal = fixture.journal(BEGIN);
    append(&journal, 5);
    journal.sync().expect("a sync");
    // It says that the five before it were durable.
    append(&journal, 1);
    let killed = Fixture::on(fixture.disk.after_kill(), 2);
    let path = format!("{DIRECTORY}/{}", killed.files()[0]);
    let file = killed.disk.open(&path).expect("the journal's file");
    file.write_at(4096 + 2 * (48 + 4096) + 100, &[b"damage"]).expect("a write");
    let before = killed.files();
    let damaged = killed.replay(BEGIN);
    assert!(
        matches!(&damaged, Err(JournalError::Damaged { sequence: 3, .. })),
        "{:?}",
        damaged.map(|found| found.last)
    );
    assert_eq!(killed.files(), before);
}

#[test]
fn a_torn_record_that_nobody_was_told_of_ends_the_journal() {
    let fixture = Fixture::on(SimulatedDisk::new(), 1);
    append(&fixture.journal(BEGIN), 5);
    let killed = Fixture::on(fixture.disk.after_kill(), 2);
    let path = format!("{DIRECTORY}/{}", killed.files()[0]);
    let file = killed.disk.open(&path).expect("the journal's file");
    file.write_at(4096 + 2 * (48 + 4096) + 100, &[b"torn"]).expect("a write");
    assert_eq!(sequences(&killed.replay(BEGIN).expect("a replay")), [1, 2]);
}

#[test]
fn retired_files_are_used_again_and_what_was_in_them_is_not_replayed() {
    let fixture = Fixture::on(SimulatedDisk::new(), 1);
    let journal = fixture.journal(BEGIN);
    append(&journal, 30);
    let (sealed_through, from) = journal.cut();
    journal.retire_before(from);
    assert_eq!(fixture.files().len(), 0);
    // Fewer records than before: those of the first use lie whole behind them.
    append(&journal, 3);
    let begin = Replay { volume: VOLUME, sealed_through, from };
    let killed = Fixture::on(fixture.disk.after_kill(), 2);
    assert_eq!(sequences(&killed.replay(begin).expect("a replay")), [31, 32, 33]);
}

#[test]
fn a_file_that_somebody_reads_is_not_written_over() {
    let fixture = Fixture::on(SimulatedDisk::new(), 1);
    let journal = fixture.journal(BEGIN);
    let payload = [7; 4096];
    let read = journal.append(RecordKind::Data, 0, 1, &payload).expect("space for a record");
    let (_, from) = journal.cut();
    journal.retire_before(from);
    append(&journal, 40);
    let mut found = [0; 4096];
    read.file.read_at(read.payload_at, &mut found).expect("a payload");
    assert!(found == payload, "the file was used again while somebody read it");
    drop(read);
    journal.retire_before(from);
    assert!(!fixture.files().contains(&"0000000000000001.journal".to_owned()), "{:?}", fixture.files());
}

#[test]
fn a_file_of_another_volume_is_nothing_to_this_one() {
    let fixture = Fixture::on(SimulatedDisk::new(), 1);
    append(&fixture.journal(BEGIN), 3);
    let other = Replay { volume: VolumeId(4), ..BEGIN };
    let killed = Fixture::on(fixture.disk.after_kill(), 2);
    assert_eq!(killed.replay(other).expect("a replay").records.len(), 0);
}

#[test]
fn without_space_an_append_fails_and_succeeds_once_there_is_some() {
    let fixture = Fixture::on(SimulatedDisk::new(), 1);
    let journal = fixture.journal(BEGIN);
    append(&journal, 3);
    fixture.disk.limit(Some(FILE_BYTES + 4096));
    let mut appended = 3;
    while journal.append(RecordKind::Data, 0, 1, &[1; 4096]).is_ok() {
        appended += 1;
    }
    let refused = journal.append(RecordKind::Data, 0, 1, &[1; 4096]);
    assert!(matches!(refused, Err(JournalError::Full)), "{refused:?}");
    journal.sync().expect("what was appended can be made durable");
    fixture.disk.limit(None);
    append(&journal, 1);
    let killed = Fixture::on(fixture.disk.after_kill(), 2);
    assert_eq!(killed.replay(BEGIN).expect("a replay").last, Sequence(appended + 1));
}

#[test]
fn little_is_synced_at_once_and_what_may_be_much_is_not() {
    let fixture = Fixture::on(SimulatedDisk::new(), 1);
    let journal = fixture.journal(BEGIN);
    let durable = || {
        let cut = Fixture::on(fixture.disk.crash_image(1, CrashMode::Lose), 2);
        cut.replay(BEGIN).expect("a replay").last.0
    };
    append(&journal, 1);
    assert!(journal.sync_little().is_none(), "a file's first sync may find much of an earlier use");
    journal.sync().expect("a sync");
    append(&journal, 2);
    journal.sync_little().expect("two records").expect("a sync");
    assert_eq!(durable(), 3);
    journal.sync_little().expect("nothing to be synced").expect("nothing done");
    append(&journal, 20);
    assert!(fixture.files().len() > 1 && journal.sync_little().is_none(), "two files, one of them new");
    assert_eq!(durable(), 3);
    journal.sync().expect("a sync");
    append(&journal, 1);
    fixture.disk.fail_next_sync();
    assert!(matches!(journal.sync_little(), Some(Err(JournalError::Io { .. }))));
    assert!(matches!(journal.sync_little(), Some(Err(JournalError::Poisoned))));
}
