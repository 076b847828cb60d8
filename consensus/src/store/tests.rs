//! openraft's own suite, what is on the disk when, and what `open` makes of what it finds.

use std::fs;
use std::sync::atomic::Ordering;

use openraft::storage::{RaftLogStorage, RaftLogStorageExt, RaftStateMachine};
use openraft::testing::{StoreBuilder, Suite};
use openraft::{EntryPayload, LeaderId, RaftLogReader, RaftSnapshotBuilder};
use tempfile::TempDir;

use super::record::{EntryRecord, to_json};
use super::*;
use crate::raft::{Batch, Entry, StorageError, TypeConfig, Vote};
use crate::state::request::Request;
use crate::state::tests::{bootstrap_command, create_volume};

struct Builder;

impl StoreBuilder<TypeConfig, LogStore, StateMachine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, StateMachine), StorageError> {
        let (dir, store) = fresh();
        Ok((dir, store.log, store.machine))
    }
}

#[test]
fn the_store_keeps_what_openraft_expects_of_one() {
    Suite::test_all(Builder).unwrap();
}

fn fresh() -> (TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Absent::Create).unwrap();
    (dir, store)
}

fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(LeaderId::new(term, 1), index)
}

fn entry(index: u64, requests: Vec<Request>) -> Entry {
    Entry { log_id: log_id(1, index), payload: EntryPayload::Normal(Batch::from(requests)) }
}

/// Entry 0 begins a cluster, each other one makes a volume.
fn volume_entry(index: u64) -> Entry {
    let command = if index == 0 { bootstrap_command() } else { create_volume(&format!("v{index}")) };
    entry(index, vec![Request { id: None, command }])
}

#[tokio::test(flavor = "multi_thread")]
async fn votes_and_entries_are_synced_before_they_are_acknowledged() {
    let (_dir, mut store) = fresh();
    let mut syncs = store.database.syncs();
    let mut one_more = |database: &Database, what: &str| {
        assert!(database.syncs() > syncs, "{what} was acknowledged without a sync");
        syncs = database.syncs();
    };
    store.log.save_vote(&Vote::new(1, 1)).await.unwrap();
    one_more(&store.database, "a vote");
    for index in 0..5 {
        store.log.blocking_append([volume_entry(index)]).await.unwrap();
        one_more(&store.database, "an entry");
    }
    store.log.truncate(log_id(1, 4)).await.unwrap();
    one_more(&store.database, "a truncation");
    store.machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
    one_more(&store.database, "a snapshot");
    store.log.save_committed(Some(log_id(1, 3))).await.unwrap();
    assert_eq!(store.database.syncs(), syncs, "how far was committed is only a shortcut");
}

#[tokio::test(flavor = "multi_thread")]
async fn several_entries_of_one_append_share_one_sync() {
    let (_dir, mut store) = fresh();
    let before = store.database.syncs();
    store.log.blocking_append((0..50).map(volume_entry)).await.unwrap();
    assert_eq!(store.database.syncs(), before + 1);
    assert_eq!(store.log.try_get_log_entries(0..100).await.unwrap(), (0..50).map(volume_entry).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_write_that_failed_there_is_no_other() {
    let (dir, mut store) = fresh();
    store.log.blocking_append([volume_entry(0)]).await.unwrap();
    store.database.fail_next_write.store(true, Ordering::Release);
    let error = store.log.blocking_append([volume_entry(1)]).await.expect_err("the disk is on fire");
    assert!(error.to_string().contains(dir.path().to_str().unwrap()), "{error}");
    let error = store.log.save_vote(&Vote::new(9, 1)).await.expect_err("a poisoned store");
    assert!(error.to_string().contains("an earlier write failed"), "{error}");
    drop(store);
    let mut store = Store::open(dir.path(), Absent::Refuse).unwrap();
    assert_eq!(store.log.get_log_state().await.unwrap().last_log_id, Some(log_id(1, 0)));
    assert_eq!(store.log.read_vote().await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_found_again_with_what_it_was_made_of() {
    let (dir, mut store) = fresh();
    store.machine.apply((0..20).map(volume_entry)).await.unwrap();
    let metadata = store.view.borrow().clone();
    let made = store.machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
    store.machine.apply([volume_entry(20)]).await.unwrap();
    drop(store);
    let mut store = Store::open(dir.path(), Absent::Refuse).unwrap();
    assert_eq!(*store.view.borrow(), metadata);
    assert_eq!(store.machine.applied_state().await.unwrap().0, Some(log_id(1, 19)));
    let found = store.machine.get_current_snapshot().await.unwrap().expect("a snapshot");
    assert_eq!((found.meta, found.snapshot.into_inner()), (made.meta, made.snapshot.into_inner()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_of_earlier_does_not_replace_one_of_later() {
    let (dir, mut store) = fresh();
    store.machine.apply((0..5).map(volume_entry)).await.unwrap();
    let mut early = store.machine.get_snapshot_builder().await;
    store.machine.apply((5..9).map(volume_entry)).await.unwrap();
    store.machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
    early.build_snapshot().await.unwrap();
    drop((store, early));
    let mut store = Store::open(dir.path(), Absent::Refuse).unwrap();
    assert_eq!(store.machine.applied_state().await.unwrap().0, Some(log_id(1, 8)));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_remains_of_an_unfinished_snapshot_are_taken_out() {
    let (dir, mut store) = fresh();
    store.machine.apply((0..5).map(volume_entry)).await.unwrap();
    store.machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
    for serial in [0u64, 7] {
        let mut key = serial.to_be_bytes().to_vec();
        key.extend([0; 4]);
        let mut batch = database::Batch::default();
        batch.put(Column::Snapshot, &key, b"half of one");
        store.database.write(batch, Sync::Later).unwrap();
    }
    drop(store);
    let mut store = Store::open(dir.path(), Absent::Refuse).unwrap();
    assert_eq!(store.database.iter_from(Column::Snapshot, &[]).count(), 1);
    assert_eq!(store.machine.applied_state().await.unwrap().0, Some(log_id(1, 4)));
    store.machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
    assert_eq!(store.database.iter_from(Column::Snapshot, &[]).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_cannot_be_read_replaces_nothing() {
    let (_dir, mut store) = fresh();
    store.machine.apply((0..5).map(volume_entry)).await.unwrap();
    let mut good = store.machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
    good.meta.last_log_id = Some(log_id(2, 100));
    let before = store.view.borrow().clone();
    let bad = Box::new(std::io::Cursor::new(b"{\"cluster\":null}".to_vec()));
    assert!(store.machine.install_snapshot(&good.meta, bad).await.is_err());
    assert_eq!(*store.view.borrow(), before);
    store.machine.install_snapshot(&good.meta, good.snapshot).await.unwrap();
    assert_eq!(store.machine.applied_state().await.unwrap().0, Some(log_id(2, 100)));
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_that_were_cut_off_or_purged_are_not_read_from_memory() {
    let (_dir, mut store) = fresh();
    store.log.blocking_append((0..9).map(volume_entry)).await.unwrap();
    store.log.purge(log_id(1, 2)).await.unwrap();
    assert_eq!(store.log.try_get_log_entries(0..9).await.unwrap(), (3..9).map(volume_entry).collect::<Vec<_>>());
    store.log.truncate(log_id(1, 5)).await.unwrap();
    assert_eq!(store.log.try_get_log_entries(0..9).await.unwrap(), (3..5).map(volume_entry).collect::<Vec<_>>());
    let other = Entry { log_id: log_id(2, 5), payload: EntryPayload::Blank };
    store.log.blocking_append([other.clone()]).await.unwrap();
    assert_eq!(store.log.try_get_log_entries(4..9).await.unwrap(), [volume_entry(4), other.clone()]);
    assert_eq!(store.log.try_get_log_entries(5..6).await.unwrap(), [other]);
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_for_a_follower_stops_at_a_bound_but_not_before_the_first_entry() {
    let (_dir, mut store) = fresh();
    let long = |index| entry(index, vec![Request { id: None, command: create_volume("v") }; 625]);
    store.log.blocking_append((0..3).map(long)).await.unwrap();
    assert!(to_json(&EntryRecord::from(&long(0))).len() * 2 < crate::limits::MAX_READ_BYTES);
    assert!(to_json(&EntryRecord::from(&long(0))).len() * 3 > crate::limits::MAX_READ_BYTES);
    for place in ["memory", "the database"] {
        assert_eq!(store.log.limited_get_log_entries(0, 3).await.unwrap(), [long(0), long(1)], "from {place}");
        assert_eq!(store.log.limited_get_log_entries(2, 3).await.unwrap(), [long(2)], "from {place}");
        assert_eq!(store.log.try_get_log_entries(0..3).await.unwrap().len(), 3, "from {place}");
        store.log.forget_recent();
    }
}

/// What opening says after `damage` was done to a directory with a snapshot and entries behind it.
async fn open_after(damage: impl FnOnce(&Database)) -> String {
    let (dir, mut store) = fresh();
    store.log.blocking_append((0..9).map(volume_entry)).await.unwrap();
    store.machine.apply((0..5).map(volume_entry)).await.unwrap();
    store.machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
    store.log.purge(log_id(1, 2)).await.unwrap();
    damage(&store.database);
    drop(store);
    let error = Store::open(dir.path(), Absent::Refuse).map(|_| ()).expect_err("damage that is seen");
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains(dir.path().to_str().unwrap()), "{text} does not name the directory");
    text
}

fn put(database: &Database, column: Column, key: &[u8], value: &[u8]) {
    let mut batch = database::Batch::default();
    batch.put(column, key, value);
    database.write(batch, Sync::Later).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_records_are_named() {
    let text = open_after(|database| put(database, Column::Log, &8u64.to_be_bytes(), b"{\"id\":")).await;
    assert!(text.contains("entry 8 of the log"), "{text}");
    let misplaced = to_json(&EntryRecord::from(&volume_entry(7)));
    let text = open_after(|database| put(database, Column::Log, &8u64.to_be_bytes(), &misplaced)).await;
    assert!(text.contains("in place of entry 8 of its log there is entry 7"), "{text}");
    let text = open_after(|database| put(database, Column::Log, b"abc", b"{}")).await;
    assert!(text.contains("a key of its log has 3 bytes"), "{text}");
    let text = open_after(|database| {
        let mut batch = database::Batch::default();
        batch.delete(Column::Log, &5u64.to_be_bytes());
        database.write(batch, Sync::Later).unwrap();
    });
    let text = text.await;
    assert!(text.contains("entry 4 of term 1 of its log is followed by entry 6 of term 1"), "{text}");
    let first = to_json(&EntryRecord::from(&volume_entry(2)));
    let text = open_after(|database| put(database, Column::Log, &2u64.to_be_bytes(), &first)).await;
    assert!(text.contains("begins with entry 2, not 3"), "{text}");
    let text = open_after(|database| put(database, Column::Meta, NODE_KEY, b"\"one\"")).await;
    assert!(text.contains("the node's id"), "{text}");
    let text = open_after(|database| {
        let (key, mut piece) = database.last(Column::Snapshot).unwrap().unwrap();
        piece[40] ^= 1;
        put(database, Column::Snapshot, &key, &piece);
    });
    assert!(text.await.contains("snapshot"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hole_in_the_log_is_seen_when_it_is_read() {
    let (_dir, mut store) = fresh();
    store.log.blocking_append((0..9).map(volume_entry)).await.unwrap();
    let mut batch = database::Batch::default();
    batch.delete(Column::Log, &4u64.to_be_bytes());
    store.database.write(batch, Sync::Later).unwrap();
    store.log.forget_recent();
    let error = store.log.try_get_log_entries(0..9).await.expect_err("a hole");
    assert!(error.to_string().contains("entry 3 of term 1 of its log is followed by entry 5 of term 1"), "{error}");
}

#[test]
fn a_directory_has_one_user_at_a_time() {
    let (dir, store) = fresh();
    let error = Store::open(dir.path(), Absent::Refuse).map(|_| ()).expect_err("two users");
    assert!(matches!(error, StoreError::InUse { .. }), "{error}");
    drop(store);
    Store::open(dir.path(), Absent::Refuse).unwrap();
}

#[test]
fn a_database_that_has_lost_a_file_is_called_damaged() {
    let (dir, store) = fresh();
    drop(store);
    let names = fs::read_dir(dir.path().join("db")).unwrap().map(|file| file.unwrap().path());
    let manifest = names.into_iter().find(|path| path.to_str().unwrap().contains("MANIFEST")).unwrap();
    fs::write(manifest, b"nothing of it").unwrap();
    let error = Store::open(dir.path(), Absent::Refuse).map(|_| ()).expect_err("no manifest");
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
}
