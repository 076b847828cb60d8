//! Journals of records that nobody would write, with damage: a replay and a survey come to the same, or the replay refuses.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use sterna_storage_node::disk::{Disk, SimulatedDisk};
use sterna_storage_node::journal::record::{RecordHeader, RecordKind, Sequence};
use sterna_storage_node::journal::{FileNumber, JournalPool, NOTE_BYTES, Replay, SaltSource, replay, survey};
use sterna_types::VolumeId;

const VOLUME: VolumeId = VolumeId(1);
const DIRECTORY: &str = "volumes/1/journal";
const FILE_BYTES: u64 = 64 << 10;

fuzz_target!(|data: &[u8]| {
    let disk = SimulatedDisk::new();
    disk.create_dir(DIRECTORY).expect("a directory");
    let pool = JournalPool::open(Arc::new(disk.clone()), SaltSource::new([1; 32]), FILE_BYTES, 0).expect("a pool");
    let Some((&[from, sealed, ..], data)) = data.split_first_chunk::<2>() else { return };
    let half = data.len() / 2;
    for (number, part) in (1..).zip([&data[..half], &data[half..]]) {
        fill(&disk, &pool, FileNumber(number), part);
    }
    let begin = Replay {
        volume: VOLUME,
        sealed_through: if sealed == 255 { Sequence(u64::MAX - 1) } else { Sequence(u64::from(sealed % 4)) },
        from: FileNumber(u64::from(from % 4)),
    };
    let surveyed = survey(&disk, DIRECTORY, VOLUME);
    let continued = surveyed.on(&begin, false);
    surveyed.on(&begin, true);
    let names = disk.list(DIRECTORY).expect("names");
    let Ok(replayed) = replay(&pool, DIRECTORY, begin) else {
        assert_eq!(disk.list(DIRECTORY).expect("names"), names, "a replay that refuses removes nothing");
        return;
    };
    assert_eq!(continued.durable_once, None);
    // Where a file goes on with records that are in the root, only the survey knows what to make of it.
    if !continued.contradicts {
        assert_eq!(replayed.last, continued.last);
        let of_replay = replayed.records.iter().map(|record| record.0);
        assert!(of_replay.eq(continued.records.iter().map(|record| record.0)));
    }
});

/// A file of records, eight bytes of `part` for each, and damage.
fn fill(disk: &SimulatedDisk, pool: &JournalPool, number: FileNumber, part: &[u8]) {
    let file = pool.take(VOLUME, DIRECTORY, number, [0; NOTE_BYTES]).expect("a file");
    drop(file);
    let name = format!("{DIRECTORY}/{:016x}.journal", number.0);
    let file = disk.open(&name).expect("the file");
    let mut salt = [0; 8];
    file.read_at(32, &mut salt).expect("a header");
    let (mut at, mut last) = (4096, 0);
    for [step, kind, block, count, durable, how, place, bits] in part.as_chunks::<8>().0.iter().take(12) {
        let sequence = match step {
            0 => u64::MAX,
            step if step % 4 == 0 => u64::from(*step / 4),
            _ => last + 1,
        };
        last = sequence.min(u64::MAX - 1);
        let (kind, block_count) = match kind % 5 {
            0 => (RecordKind::Data, 1),
            1 => (RecordKind::Arrived, 1),
            2 => (RecordKind::AnewData, 1),
            3 => (RecordKind::AnewHole, u64::from(*count)),
            _ => (RecordKind::Hole, u64::from(*count)),
        };
        let header = RecordHeader {
            kind,
            salt: u64::from_le_bytes(salt),
            sequence: Sequence(sequence),
            first_block: u64::from(*block),
            block_count,
            durable: Sequence(u64::from(*durable % 16)),
        };
        let payload = vec![*block; usize::try_from(header.payload_bytes()).expect("a block")];
        if at + header.record_bytes() > FILE_BYTES {
            break;
        }
        file.write_at(at, &[&header.encode(&payload), &payload]).expect("a write");
        match how % 8 {
            0 => file.write_at(at + u64::from(*place), &[&[*bits]]).expect("damage"),
            1 => file.write_at(u64::from(*place), &[&[*bits]]).expect("damage of the header"),
            2 => at += 16 * u64::from(*place % 8),
            _ => {}
        }
        at += header.record_bytes();
    }
}
