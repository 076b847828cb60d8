//! What a request to a volume costs, counted: memory that is taken for it, and bytes that the disk is given. What becomes dearer
//! shows here before it shows in any timing.

use std::collections::BTreeMap;

use allocation_counter::measure;
use sterna_types::{BLOCK_SIZE, ByteOffset, Root};

use super::Volume;
use super::tests::{Machine, range, real_storage, spec};
use crate::disk::simulated::Operation;

const BLOCKS: u64 = 2048;

/// What no two blocks have in common.
fn block(number: u64) -> Vec<u8> {
    let mut bytes = vec![0; 4096];
    blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Every block once, in an order in which none has a neighbour that was written shortly before.
fn scattered() -> impl Iterator<Item = u64> {
    (0..BLOCKS).map(|index| index * 1237 % BLOCKS)
}

fn write_scattered(volume: &Volume) {
    for number in scattered() {
        volume.write(ByteOffset(number * BLOCK_SIZE), &block(number)).expect("a write");
    }
}

/// Allocations for each of so many requests.
fn allocations(requests: u64, work: impl FnMut()) -> f64 {
    let counted = measure(work).count_total;
    f64::from(u32::try_from(counted).expect("few")) / f64::from(u32::try_from(requests).expect("few"))
}

#[test]
fn a_read_of_cached_sealed_data_takes_little_memory() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let storage = real_storage(directory.path());
    let volume = Volume::open(&storage, &spec(1, BLOCKS * BLOCK_SIZE, Root::EMPTY)).expect("a volume");
    write_scattered(&volume);
    volume.seal().expect("a seal");
    let read_all = |length: u64| {
        let mut into = vec![0; usize::try_from(length).expect("short")];
        let count = BLOCKS * BLOCK_SIZE / length;
        // First so that all of it, and all maps, are in memory.
        for number in 0..count {
            volume.read(range(number * length, length), &mut into).expect("a read");
        }
        let read_again = || {
            for number in 0..count {
                let read = volume.read_now(range(number * length, length), &mut into);
                read.expect("it is in memory").expect("a read");
            }
        };
        allocations(count, read_again)
    };
    let (short, long) = (read_all(BLOCK_SIZE), read_all(128 << 10));
    // A list of the places that it is in: 1. For a long one that grows, with lists of gaps and of buffers: 4.1 were counted.
    assert!(short <= 1.01, "{short} allocations for a read of a block");
    assert!(long <= 4.5, "{long} allocations for a read of 32 blocks in one place");
}

#[test]
fn a_write_takes_little_memory() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let storage = real_storage(directory.path());
    let volume = Volume::open(&storage, &spec(1, BLOCKS * BLOCK_SIZE, Root::EMPTY)).expect("a volume");
    let blocks: Vec<_> = scattered().map(|number| (ByteOffset(number * BLOCK_SIZE), block(number))).collect();
    let write_all = || {
        for (at, block) in &blocks {
            volume.write(*at, block).expect("a write");
        }
    };
    let each = allocations(BLOCKS, write_all);
    // A list of what is written, and now and then a node of the overlay: 1.2 were counted.
    assert!(each <= 1.4, "{each} allocations for a write of a block");
}

/// Bytes that were written for each byte of all blocks, by the first part of the files' paths.
fn written_per_byte(log: &[Operation]) -> BTreeMap<&str, f64> {
    let mut written = BTreeMap::new();
    for operation in log {
        if let Operation::Write { path, length, .. } = operation {
            let directory = path.split('/').next().unwrap_or_default();
            *written.entry(directory).or_insert(0.0) += *length as f64 / (BLOCKS * BLOCK_SIZE) as f64;
        }
    }
    written
}

#[test]
fn a_block_is_written_once_to_the_journal_and_once_to_a_pack() {
    let machine = Machine::new();
    let volume = machine.volume(1, BLOCKS * BLOCK_SIZE, Root::EMPTY);
    write_scattered(&volume);
    volume.seal().expect("a seal");
    let log = machine.disk.log();
    let written = written_per_byte(&log);
    let (journal, packs) = (written["journal-pool"], written["packs"]);
    // 1.083 and 1.004 were counted: headers of records and, of these small files, of files; of batches, and the map. The
    // index is not among it, which is in memory here.
    assert!((1.0..=1.1).contains(&journal), "{journal} bytes to the journal for each that was written");
    assert!((1.0..=1.02).contains(&packs), "{packs} bytes to packs for each that was written");
    assert_eq!(written.len(), 2, "{written:?}");
}

#[test]
fn a_flush_is_one_sync_of_what_was_written() {
    const TIMES: u64 = 8;
    let machine = Machine::new();
    let volume = machine.volume(1, BLOCKS * BLOCK_SIZE, Root::EMPTY);
    volume.write(ByteOffset(0), &block(0)).expect("the write that makes a file");
    let before = machine.disk.log().len();
    for number in 0..TIMES {
        volume.write(ByteOffset(number * BLOCK_SIZE), &block(number)).expect("a write");
        volume.flush().expect("a flush");
    }
    let log = machine.disk.log().split_off(before);
    let is_record = |operation: &Operation| matches!(operation, Operation::Write { length, .. } if *length < 4096 + 64);
    assert!(log.chunks(2).all(|both| is_record(&both[0]) && matches!(both[1], Operation::Sync(_))), "{log:?}");
    assert_eq!(log.len() as u64, 2 * TIMES, "{log:?}");
}
