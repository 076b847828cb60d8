//! The store without collections: what is stored is read, damage is noticed, failures leave what they should.

use std::sync::Arc;

use super::index::{MemoryIndex, RocksIndex};
use super::testing::{EAGER, Machine, OPTIONS, data, parent, root_of, tree};
use super::*;
use crate::disk::simulated::{CrashMode, Operation};
use crate::disk::{Disk, SimulatedDisk, SystemDisk};

fn located(machine: &Machine, id: ChunkId) -> Location {
    machine.store.locate(id).expect("an answer").expect("a place")
}

#[test]
fn what_was_appended_is_read_whole_and_in_parts() {
    let machine = Machine::new();
    let (blocks, text) = (data(1, 3), NewChunk::of(ChunkKind::Manifest, vec![b'm'; 10_000].into()));
    machine.append(&[blocks.clone(), text.clone(), blocks.clone()]).expect("stored chunks");
    assert_eq!(machine.store.get(text.id).expect("a chunk"), Some(text.bytes.clone()));
    for chunk in [&blocks, &text] {
        let location = located(&machine, chunk.id);
        for (from, length) in [(0, chunk.bytes.len()), (4096, 4096), (1, 1), (4095, 2), (5000, 4000), (8000, 0)] {
            let mut into = vec![0; length];
            machine.store.read(&location, u32::try_from(from).expect("small"), &mut into).expect("bytes");
            assert_eq!(into, chunk.bytes[from..from + length]);
            into.fill(0);
            let now = machine.store.read_now(&location, u32::try_from(from).expect("small"), &mut into);
            assert!(now.expect("in memory").is_ok() && into == chunk.bytes[from..from + length]);
        }
        let beyond = machine.store.read(&location, location.length, &mut [0]);
        assert!(matches!(beyond, Err(StoreError::Corrupt { .. })), "{beyond:?}");
    }
    assert!(matches!(located(&machine, text.id).encoding, Encoding::Zstd { stored_length: ..100 }));
    let location = located(&machine, blocks.id);
    assert!(location.encoding == Encoding::Raw && location.offset.is_multiple_of(4096));
    let stats = machine.store.stats().expect("figures");
    assert_eq!((stats.chunks, stats.chunk_bytes, stats.packs), (2, 22_288, 1));
    assert!((12_288..12_388).contains(&stats.stored_bytes), "{stats:?}");
    machine.check();
}

#[test]
fn parts_of_several_chunks_are_read_to_where_each_is_wanted() {
    let machine = Machine::new();
    let text = NewChunk::of(ChunkKind::Manifest, vec![b'm'; 10_000].into());
    let chunks = [data(1, 3), data(2, 4), text, data(3, 1), data(4, 2)];
    machine.append(&chunks[..3]).expect("a batch");
    machine.append(&chunks[3..]).expect("another batch");
    let locations = chunks.each_ref().map(|chunk| located(&machine, chunk.id));
    // Neighbours, the same twice, within a block, compressed, and in no order at all.
    let wanted =
        [(4, 4096, 4096), (1, 0, 8192), (0, 4096, 8192), (2, 5000, 4000), (3, 0, 4096), (0, 100, 7), (1, 8192, 8192)];
    let wanted = [&wanted[..], &wanted[1..2]].concat();
    let expected = wanted.iter().map(|&(chunk, from, length)| chunks[chunk].bytes[from..from + length].to_vec());
    let expected: Vec<_> = expected.collect();
    for now in [false, true] {
        let mut places: Vec<_> = wanted.iter().map(|&(_, _, length)| vec![0; length]).collect();
        let part = |(&(chunk, from, _), into): (&(usize, usize, usize), _)| {
            let from = u32::try_from(from).expect("small");
            ChunkPart { location: &locations[chunk], from, into }
        };
        let mut parts: Vec<_> = wanted.iter().zip(places.iter_mut().map(|place| &mut place[..])).map(part).collect();
        let read = if now {
            machine.store.read_parts_now(&mut parts).expect("in memory")
        } else {
            machine.store.read_parts(&mut parts)
        };
        read.expect("all parts");
        assert!(places == expected, "something else was read, now: {now}");
    }
    let mut beyond = [0; 4097];
    let mut parts = [ChunkPart { location: &locations[3], from: 0, into: &mut beyond }];
    assert!(matches!(machine.store.read_parts(&mut parts), Err(StoreError::Corrupt { .. })));
    assert!(matches!(machine.store.read_parts_now(&mut parts), Some(Err(StoreError::Corrupt { .. }))));
    machine.store.read_parts(&mut []).expect("nothing");
}

#[test]
fn an_append_is_one_write_one_sync_and_one_commit() {
    let machine = Machine::new();
    machine.append(&[data(1, 1)]).expect("a chunk");
    let before = machine.disk.log().len();
    machine.append(&[data(2, 1), data(3, 1), parent(ChunkKind::Manifest, &[data(2, 1).id])]).expect("chunks");
    machine.append(&[data(2, 1)]).expect("a chunk that is here");
    let log = machine.disk.log().split_off(before);
    let [Operation::Write { .. }, Operation::Sync(_), Operation::Other("index")] = &log[..] else {
        panic!("it took {log:?}");
    };
    assert!(machine.store.keep(data(3, 1).id, &machine.store.pin()).expect("an answer"));
    assert!(!machine.store.keep(data(4, 1).id, &machine.store.pin()).expect("an answer"));
}

#[test]
fn a_store_on_the_operating_system_is_found_again() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let open = || {
        let disk = SystemDisk::open(directory.path()).expect("a data directory");
        let index = RocksIndex::open(&disk.root().join("index"), 1 << 20).expect("an index");
        PackStore::open(Arc::new(disk), Arc::new(index), OPTIONS).expect("a store")
    };
    let chunks = tree(&[&[1, 2, 3], &[3, 4]]);
    let store = open();
    store.append(&chunks, Room::BesideReserve, &store.pin()).expect("stored chunks");
    drop(store);
    let store = open();
    store.append(&[data(9, 1)], Room::BesideReserve, &store.pin()).expect("a chunk in a new pack");
    for chunk in &chunks {
        assert_eq!(store.get(chunk.id).expect("a chunk"), Some(chunk.bytes.clone()));
    }
    assert_eq!(store.stats().expect("figures").packs, 2);
    let roots = [testing::root(root_of(&chunks))];
    let report = testing::collected(&store, || Ok(roots), &testing::references);
    assert_eq!((report.finished, report.dead_chunks, report.marked_chunks), (true, 1, 7));
    drop(store);
    let store = open();
    assert!(chunks.iter().all(|chunk| store.get(chunk.id).expect("a chunk").is_some()));
    assert_eq!(store.get(data(9, 1).id).expect("an answer"), None);
}

#[test]
fn large_appends_are_split_into_batches() {
    let disk = SimulatedDisk::new();
    let index = Arc::new(MemoryIndex::on(&disk));
    let machine = Machine::with_options(disk, index, PackStoreOptions::default());
    let chunks: Vec<NewChunk> = (0..280).map(|seed| data(seed, 32)).collect();
    machine.append(&chunks).expect("35 MiB");
    let writes: Vec<u64> = machine
        .disk
        .log()
        .iter()
        .filter_map(|operation| match operation {
            Operation::Write { length, .. } => Some(*length),
            _ => None,
        })
        .collect();
    assert_eq!(writes.len(), 3, "the header of the pack and two batches: {writes:?}");
    assert!(writes.iter().all(|length| *length <= (32 << 20) + (512 << 10)));
    let log = machine.disk.log();
    assert_eq!(log.iter().filter(|operation| matches!(operation, Operation::Sync(_))).count(), 1);
    assert!(chunks.iter().all(|chunk| machine.store.get(chunk.id).expect("a chunk").as_ref() == Some(&chunk.bytes)));
}

#[test]
fn a_flipped_byte_is_noticed_by_reads_and_reported_by_scrub() {
    let machine = Machine::new();
    let (good, bad) = (data(1, 2), data(3, 2));
    machine.append(&[good, bad.clone()]).expect("chunks");
    let location = located(&machine, bad.id);
    let mut byte = [0];
    location.file.read_at(location.offset + 5000, &mut byte).expect("a byte");
    location.file.write_at(location.offset + 5000, &[&[byte[0] ^ 4]]).expect("damage");
    let mut block = vec![0; 4096];
    machine.store.read(&location, 0, &mut block).expect("the block that is sound");
    let read = machine.store.read(&location, 4096, &mut block);
    assert!(matches!(read, Err(StoreError::Corrupt { id, .. }) if id == bad.id), "{read:?}");
    let now = machine.store.read_now(&location, 4096, &mut block);
    assert!(matches!(now, Some(Err(StoreError::Corrupt { .. }))), "{now:?}");
    assert!(matches!(machine.store.get(bad.id), Err(StoreError::Corrupt { .. })));
    let pack = pack::PackId(1);
    assert_eq!(
        machine.scrub().damaged,
        [DamagedFrame { id: bad.id, pack, offset: location.offset, damage: Damage::Lost }]
    );
}

#[test]
fn a_damaged_chunk_is_repaired_with_its_own_bytes_and_no_others() {
    let machine = Machine::new();
    let chunk = data(1, 2);
    machine.append(std::slice::from_ref(&chunk)).expect("a chunk");
    let location = located(&machine, chunk.id);
    location.file.write_at(location.offset, &[b"damage"]).expect("damage");
    let pin = machine.store.pin();
    machine
        .store
        .append(std::slice::from_ref(&chunk), Room::BesideReserve, &pin)
        .expect("a chunk that is here, it seems");
    assert_eq!(damages(&machine), [Damage::Lost]);
    let other = NewChunk { bytes: data(3, 2).bytes, ..chunk };
    assert!(matches!(machine.store.repair(&other, &pin), Err(StoreError::Corrupt { .. })));
    machine.store.repair(&chunk, &pin).expect("a repaired chunk");
    assert_eq!(machine.store.get(chunk.id).expect("a sound chunk"), Some(chunk.bytes));
    let heard = machine.scrub();
    assert_eq!((heard.damaged, heard.report.leavings), (Vec::new(), Leavings { frames: 1, bytes: 8192 }));
}

#[test]
fn a_full_pack_is_followed_by_another() {
    let machine = Machine::new();
    for seed in 0..30 {
        machine.append(&[data(seed, 1)]).expect("a chunk");
    }
    let stats = machine.store.stats().expect("figures");
    assert_eq!((stats.chunks, stats.packs), (30, 6), "{stats:?}");
    machine.check();
}

fn damages(machine: &Machine) -> Vec<Damage> {
    machine.scrub().damaged.into_iter().map(|bad| bad.damage).collect()
}

#[test]
fn a_scrub_says_how_far_it_has_come() {
    let machine = Machine::new();
    for seed in 0..9 {
        machine.append(&[data(seed, 2)]).expect("a chunk");
    }
    let stored_bytes = machine.store.stats().expect("figures").stored_bytes;
    let heard = machine.scrub();
    assert_eq!(heard.progress.len(), 9);
    assert!(heard.progress.is_sorted_by_key(|progress| progress.done_bytes));
    assert!(heard.progress.iter().all(|progress| progress.total_bytes == stored_bytes), "{heard:?}");
    assert_eq!(heard.progress[8].done_bytes, stored_bytes);
    machine.store.repair(&data(1, 2), &machine.store.pin()).expect("a copy that takes the place of another");
    let last = machine.scrub().progress[9];
    assert_eq!((last.done_bytes, last.total_bytes), (stored_bytes + 8192, stored_bytes + 8192));
}

#[test]
fn what_a_crash_leaves_of_an_append_is_no_damage_and_goes_with_the_next_collection() {
    let (kept, mut left_something_torn) = (tree(&[&[1]]), false);
    // The third change of the disk of an append to a new pack is its batch.
    for (changes, seed) in (1..5).flat_map(|changes| (0..8).map(move |seed| (changes, seed))) {
        let machine = Machine::new();
        machine.append(&kept).expect("chunks");
        let machine = machine.after_kill();
        machine.disk.crash_after(changes);
        assert!(machine.append(&[data(3, 2), data(5, 4)]).is_err());
        let reopened = machine.after_crash(seed, CrashMode::Scramble);
        let heard = reopened.scrub();
        assert_eq!(heard.damaged, [], "{heard:?}");
        left_something_torn |= heard.report.leavings.frames > 0;
        reopened.collect(&[root_of(&kept)], &EAGER).expect("a collection");
        let heard = reopened.scrub();
        assert_eq!((heard.damaged, heard.report.leavings), (Vec::new(), Leavings::default()));
        assert_eq!(reopened.store.stats().expect("figures").packs, 1);
    }
    assert!(left_something_torn, "no crash came between a batch and its entries");
}

#[test]
fn scrub_tells_a_damaged_header_from_a_pack_that_is_gone() {
    let machine = Machine::new();
    machine.append(&[data(1, 1)]).expect("a chunk");
    assert_eq!(damages(&machine), []);
    located(&machine, data(1, 1).id).file.write_at(4096, &[b"X"]).expect("damage");
    assert_eq!(damages(&machine), [Damage::Unlisted]);
    machine.disk.remove("packs/0000000000000001.pack").expect("a lost pack");
    let reopened = machine.after_kill();
    assert_eq!(damages(&reopened), [Damage::Dangling]);
    let located = reopened.store.locate(data(1, 1).id);
    assert!(matches!(located, Err(StoreError::Corrupt { .. })), "{located:?}");
}

#[test]
fn a_full_disk_is_noticed_before_anything_is_touched() {
    let machine = Machine::new();
    machine.append(&[data(1, 1)]).expect("a chunk");
    let operations = machine.disk.operations();
    machine.disk.limit(Some((1 << 20) + (64 << 10)));
    let large: Vec<NewChunk> = (2..30).map(|seed| data(seed, 1)).collect();
    assert!(matches!(machine.append(&large), Err(StoreError::Full)));
    assert_eq!(machine.disk.operations(), operations);
    machine.append(&large[..2]).expect("fewer chunks");
    // What gives more back may take half of the reserve.
    let into_reserve = |chunks| machine.store.append(chunks, Room::OfReserve, &machine.store.pin());
    machine.disk.leave(576 << 10);
    assert!(matches!(machine.append(&large[2..3]), Err(StoreError::Full)));
    into_reserve(&large[2..12]).expect("less than half of the reserve");
    assert!(matches!(into_reserve(&large[12..]), Err(StoreError::Full)));
    machine.disk.limit(None);
    machine.append(&large).expect("all of them, once there is space");
    machine.check();
}

#[test]
fn a_write_that_finds_no_space_leaves_nothing_in_the_index() {
    let machine = Machine::new();
    machine.append(&[data(1, 1)]).expect("a chunk");
    machine.disk.fail_operation(1);
    assert!(matches!(machine.append(&[data(3, 1)]), Err(StoreError::Io { .. })));
    assert_eq!(machine.store.get(data(3, 1).id).expect("an answer"), None);
    machine.append(&[data(3, 1)]).expect("a chunk in another pack");
    assert_eq!(located(&machine, data(3, 1).id).file.size().expect("a size"), 12_288);
    assert_eq!(machine.store.stats().expect("figures").packs, 2);
    machine.check();
}

#[test]
fn a_failed_sync_poisons_the_store_for_good() {
    for operation in [2, 3] {
        let machine = Machine::new();
        machine.append(&[data(1, 1)]).expect("a chunk");
        machine.disk.fail_operation(operation);
        assert!(machine.append(&[data(3, 1)]).is_err());
        assert!(matches!(machine.append(&[data(5, 1)]), Err(StoreError::Poisoned)));
        assert!(matches!(machine.store.keep(data(1, 1).id, &machine.store.pin()), Err(StoreError::Poisoned)));
        assert!(machine.collect(&[], &EAGER).is_err());
        assert!(machine.store.get(data(1, 1).id).expect("a chunk that is durable").is_some());
        let reopened = machine.after_crash(7, CrashMode::Scramble);
        reopened.append(&[data(5, 1)]).expect("a chunk after it was opened anew");
        reopened.check();
    }
}

#[test]
fn many_packs_are_read_through_few_open_files() {
    let mut machine = Machine::new();
    for seed in 0..12 {
        machine.append(&[data(seed, 1)]).expect("a chunk");
        machine = machine.after_kill();
    }
    let locations: Vec<Location> = (0..12).map(|seed| located(&machine, data(seed, 1).id)).collect();
    for (seed, location) in (0..12).zip(&locations) {
        let mut block = vec![0; 4096];
        machine.store.read(location, 0, &mut block).expect("a block");
        assert_eq!(block, data(seed, 1).bytes);
    }
}

#[test]
fn what_was_appended_survives_a_crash_at_every_operation() {
    let batches: Vec<Vec<NewChunk>> =
        vec![tree(&[&[1, 2], &[3]]), tree(&[&[1, 4]]), vec![data(5, 2)], tree(&[&[1, 2], &[3, 6, 8]])];
    for crash_at in 0.. {
        let machine = Machine::new();
        machine.disk.crash_after(crash_at);
        let done = batches.iter().take_while(|batch| machine.append(batch).is_ok()).count();
        for seed in 0..6 {
            for mode in CrashMode::ALL {
                let reopened = machine.after_crash(seed, mode);
                for chunk in batches[..done].iter().flatten() {
                    assert_eq!(reopened.store.get(chunk.id).expect("a chunk").as_ref(), Some(&chunk.bytes));
                }
                reopened.check();
                reopened.append(&batches[3]).expect("work that goes on");
                reopened.check_reachable([root_of(&batches[3])]);
            }
        }
        if !machine.disk.has_crashed() {
            assert!(done == 4 && crash_at > 10);
            break;
        }
    }
}
