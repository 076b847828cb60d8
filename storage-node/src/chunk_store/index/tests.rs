//! Both indexes against one contract, and what each does alone.

use std::sync::Arc;

use sterna_types::VolumeId;

use super::*;
use crate::disk::SimulatedDisk;

fn put(index: &dyn Index, space: Space, key: &[u8], value: &[u8], durable: bool) {
    let mut batch = Batch::new();
    batch.put(space, key, value.to_vec());
    index.commit(batch, durable).expect("a committed batch");
}

fn conforms(index: &dyn Index) {
    let mut batch = Batch::new();
    for key in [&b"a"[..], b"ab", b"abc", b"b", b"\xff\xff"] {
        batch.put(Space::Chunks, key, key.to_vec());
    }
    batch.put(Space::Records, b"abd", vec![1]);
    batch.delete(Space::Chunks, b"b");
    batch.delete(Space::Chunks, b"never there");
    index.commit(batch, false).expect("a batch");
    index.commit(Batch::new(), true).expect("all of it durable");
    assert_eq!(index.get(Space::Chunks, b"ab").expect("an answer"), Some(b"ab".to_vec()));
    assert_eq!(index.get(Space::Chunks, b"b").expect("an answer"), None);
    assert_eq!(index.get(Space::Chunks, b"abd").expect("an answer"), None, "spaces are apart");
    let keys = |prefix: &[u8], after: Option<&[u8]>, limit| -> Vec<Vec<u8>> {
        let page = index.page(Space::Chunks, prefix, after, limit).expect("a page");
        page.into_iter().map(|(key, _)| key).collect()
    };
    assert_eq!(keys(b"", None, 9), [&b"a"[..], b"ab", b"abc", b"\xff\xff"]);
    assert_eq!(keys(b"ab", None, 9), [&b"ab"[..], b"abc"]);
    assert_eq!(keys(b"ab", Some(b"ab"), 9), [b"abc"]);
    assert_eq!(keys(b"ab", Some(b"aba"), 9), [b"abc"]);
    assert_eq!(keys(b"ab", Some(b"a"), 1), [b"ab"]);
    assert_eq!(keys(b"\xff", Some(b"\xff\xff"), 9), Vec::<Vec<u8>>::new());
}

#[test]
fn both_indexes_keep_the_contract() {
    conforms(&MemoryIndex::new());
    let directory = tempfile::tempdir().expect("a temporary directory");
    conforms(&RocksIndex::open(directory.path(), 1 << 20).expect("an index"));
    let again = RocksIndex::open(directory.path(), 1 << 20).expect("the same index");
    assert_eq!(again.page(Space::Chunks, b"", None, 9).expect("a page").len(), 4);
}

#[test]
fn an_index_of_another_version_is_refused() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    drop(RocksIndex::open(directory.path(), 1 << 20).expect("an index"));
    let families = ["default", "chunks", "records"];
    let database = rocksdb::DB::open_cf(&rocksdb::Options::default(), directory.path(), families).expect("a database");
    database.put(b"version", 7u32.to_le_bytes()).expect("another version");
    drop(database);
    let refused = RocksIndex::open(directory.path(), 1 << 20).expect_err("another version");
    assert!(matches!(refused, IndexError::Version { found: 7, known: 1, .. }), "{refused}");
}

#[test]
fn a_damaged_index_is_refused_with_a_reason() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    drop(RocksIndex::open(directory.path(), 1 << 20).expect("an index"));
    let current = directory.path().join("CURRENT");
    std::fs::write(current, b"MANIFEST-999999\n").expect("a pointer to nothing");
    let refused = RocksIndex::open(directory.path(), 1 << 20).expect_err("a database without its manifest");
    assert!(!refused.to_string().is_empty());
}

#[test]
fn a_crash_keeps_a_prefix_of_batches_with_all_durable_ones() {
    let disk = SimulatedDisk::new();
    let index = MemoryIndex::on(&disk);
    put(&index, Space::Records, b"1", b"", false);
    put(&index, Space::Records, b"2", b"", true);
    put(&index, Space::Records, b"3", b"", false);
    put(&index, Space::Records, b"4", b"", false);
    let counts = |seed| {
        let image = index.crash_image(seed, &SimulatedDisk::new());
        let page = image.page(Space::Records, b"", None, 9).expect("a page");
        assert!(page.iter().enumerate().all(|(n, (key, _))| *key == [b'1' + u8::try_from(n).expect("small")]));
        page.len()
    };
    assert_eq!((0..3).map(counts).collect::<Vec<_>>(), [2, 3, 4]);
    disk.crash_after(0);
    let mut last = Batch::new();
    last.put(Space::Records, b"5", Vec::new());
    assert!(index.commit(last, true).is_err() && index.get(Space::Records, b"1").is_err());
    assert_eq!((0..4).map(counts).collect::<Vec<_>>(), [2, 3, 4, 5], "the batch that was interrupted may be there");
}

/// After its first failed commit an index changes nothing, and shows nothing on which something would be removed.
fn is_poisoned_by_a_failed_commit(index: Arc<dyn Index>) {
    index.check_sound().expect("nothing has failed");
    let mut batch = Batch::new();
    batch.put(Space::Records, b"v-new", Vec::new());
    assert!(matches!(index.commit(batch.clone(), true), Err(IndexError::Refused { .. })));
    assert!(matches!(index.commit(batch, false), Err(IndexError::Poisoned)));
    assert!(matches!(index.commit(Batch::new(), true), Err(IndexError::Poisoned)));
    assert!(matches!(index.check_sound(), Err(IndexError::Poisoned)));
    assert_eq!(index.get(Space::Records, b"v-new").expect("an answer"), None);
    assert_eq!(index.get(Space::Chunks, b"old").expect("an answer"), Some(Vec::new()));
    let records = VolumeRecords::new(index);
    assert!(matches!(records.get(VolumeId(1)), Err(IndexError::Poisoned)));
    assert!(matches!(records.list(), Err(IndexError::Poisoned)));
}

#[test]
fn a_commit_that_fails_is_the_last_one() {
    let disk = SimulatedDisk::new();
    let memory = Arc::new(MemoryIndex::on(&disk));
    put(&*memory, Space::Chunks, b"old", b"", true);
    disk.fail_operation(1);
    is_poisoned_by_a_failed_commit(memory.clone());
    let is_there = |seed| {
        let found = memory.crash_image(seed, &SimulatedDisk::new());
        found.check_sound().expect("it has been opened anew");
        found.get(Space::Records, b"v-new").expect("an answer").is_some()
    };
    assert_eq!([is_there(0), is_there(1)], [false, true], "a crash may find it or not");
    let directory = tempfile::tempdir().expect("a temporary directory");
    put(&RocksIndex::open(directory.path(), 1 << 20).expect("an index"), Space::Chunks, b"old", b"", true);
    let read_only = RocksIndex::open_read_only(directory.path(), 1 << 20).expect("an index in which commits fail");
    is_poisoned_by_a_failed_commit(Arc::new(read_only));
}

#[test]
fn records_of_volumes_are_a_table() {
    let records = VolumeRecords::new(Arc::new(MemoryIndex::new()));
    for id in (0..600u64).rev() {
        records.put(VolumeId(id), id.to_le_bytes().to_vec()).expect("a record");
    }
    records.remove(VolumeId(7)).expect("a removed record");
    assert_eq!(records.get(VolumeId(8)).expect("an answer"), Some(8u64.to_le_bytes().to_vec()));
    assert_eq!(records.get(VolumeId(7)).expect("an answer"), None);
    records.make_pledge(VolumeId(8), b"kept".to_vec(), None).expect("a pledge");
    records.make_pledge(VolumeId(700), b"both".to_vec(), Some(b"record".to_vec())).expect("a pledge");
    assert_eq!(records.get(VolumeId(700)).expect("an answer"), Some(b"record".to_vec()));
    records.remove(VolumeId(700)).expect("a removed record");
    assert_eq!(records.pledge(VolumeId(700)).expect("an answer"), Some(b"both".to_vec()));
    assert_eq!(records.pledged().expect("pledges"), [VolumeId(8), VolumeId(700)]);
    records.remove_pledge(VolumeId(700)).expect("a removed pledge");
    assert_eq!(records.pledge(VolumeId(700)).expect("an answer"), None);
    let ids: Vec<u64> = records.list().expect("records").into_iter().map(|(id, _)| id.0).collect();
    assert_eq!(ids, (0..600).filter(|id| *id != 7).collect::<Vec<_>>());
}
