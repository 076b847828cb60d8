//! What a simulated database has lost after a crash and what it has not, and openraft's own suite on it. None of this is in a
//! simulation: that would be for all of this process.

use openraft::storage::{RaftLogStorage, RaftLogStorageExt};
use openraft::testing::{StoreBuilder, Suite};
use openraft::{EntryPayload, LeaderId};

use super::*;
use crate::raft::{Entry, LogId, StorageError, TypeConfig, Vote};
use crate::store::{Database, LogStore, StateMachine, Store};

const DIR: &str = "/metadata/of/a/simulated/machine";

fn open(simulated: &SimulatedDatabase, absent: Absent) -> Result<Database, StoreError> {
    Database::on_simulated(simulated, Path::new(DIR), absent)
}

fn made() -> (SimulatedDatabase, Database) {
    let simulated = SimulatedDatabase::new();
    let database = open(&simulated, Absent::Create).unwrap();
    (simulated, database)
}

fn write(database: &Database, key: u8, sync: Sync) -> Result<(), StoreError> {
    let mut batch = Batch::default();
    batch.put(Column::Meta, &[key], vec![key]);
    batch.put(Column::Log, &[key], vec![key]);
    database.write(batch, sync)
}

/// The keys that are there, which have to be the same in both columns.
fn keys(simulated: &SimulatedDatabase) -> Vec<u8> {
    let database = open(simulated, Absent::Refuse).unwrap();
    let keys_of = |column| -> Vec<u8> {
        let entries = database.iter_from(column, &[]).map(Result::unwrap);
        entries.inspect(|(key, value)| assert_eq!(key, value)).map(|(key, _)| key[0]).collect()
    };
    assert_eq!(keys_of(Column::Meta), keys_of(Column::Log), "half of a batch");
    keys_of(Column::Meta)
}

#[test]
fn what_was_not_synced_may_be_lost_but_not_before_what_came_later() {
    let (simulated, database) = made();
    for (key, sync) in [(0, Sync::Later), (1, Sync::Durable), (2, Sync::Later), (3, Sync::Later), (4, Sync::Later)] {
        write(&database, key, sync).unwrap();
    }
    let found: Vec<_> = (0..4).map(|seed| keys(&simulated.crash_image(seed))).collect();
    assert_eq!(found, [vec![0, 1], vec![0, 1, 2], vec![0, 1, 2, 3], vec![0, 1, 2, 3, 4]]);
    assert_eq!(keys(&simulated.after_kill()), [0, 1, 2, 3, 4]);
    write(&database, 5, Sync::Durable).unwrap();
    assert!((0..9).all(|seed| keys(&simulated.crash_image(seed)).len() == 6));
}

#[test]
fn what_only_a_kill_was_survived_by_is_durable_once_it_has_been_opened() {
    let (simulated, database) = made();
    write(&database, 0, Sync::Later).unwrap();
    let killed = simulated.after_kill();
    assert!(keys(&killed.crash_image(0)).is_empty());
    assert_eq!(keys(&killed), [0]);
    assert_eq!(keys(&killed.crash_image(0)), [0]);
}

#[test]
fn what_is_left_of_a_crashed_machine_changes_nothing() {
    let (simulated, database) = made();
    let images = [simulated.crash_image(0), simulated.after_kill()];
    write(&database, 0, Sync::Durable).unwrap();
    for image in images {
        let _opened = open(&image, Absent::Refuse).unwrap();
        assert!(!image.lock().now.contains_key(&(Column::Meta, vec![0])));
    }
}

#[test]
fn a_database_has_one_user_at_a_time() {
    let (simulated, database) = made();
    let error = open(&simulated, Absent::Refuse).expect_err("two users");
    assert!(matches!(error, StoreError::InUse { .. }), "{error}");
    open(&simulated.crash_image(0), Absent::Refuse).unwrap();
    drop(database);
    open(&simulated, Absent::Refuse).unwrap();
}

#[test]
fn a_database_is_made_only_where_it_may_be() {
    let simulated = SimulatedDatabase::new();
    for missing in [&simulated, &simulated.crash_image(1), &simulated.after_kill()] {
        let error = open(missing, Absent::Refuse).expect_err("nothing there");
        assert!(matches!(error, StoreError::NotThere { .. }), "{error}");
    }
    drop(open(&simulated, Absent::Create).unwrap());
    assert!(keys(&simulated.crash_image(0)).is_empty());
}

#[test]
fn a_directory_stands_for_what_was_put_there() {
    let dir = Path::new("/metadata/of/one/more/simulated/machine");
    assert!(matches!(at(dir), Err(StoreError::NotThere { .. })));
    for _ in 0..2 {
        let (simulated, _database) = made();
        put(dir, simulated.clone());
        assert!(Arc::ptr_eq(&at(dir).unwrap().0, &simulated.0));
    }
}

#[test]
fn after_a_write_that_failed_there_is_no_other() {
    let (simulated, database) = made();
    write(&database, 0, Sync::Durable).unwrap();
    simulated.fail_next_write();
    let error = write(&database, 1, Sync::Durable).expect_err("the disk is on fire");
    assert!(matches!(error, StoreError::Database { .. }), "{error}");
    let error = write(&database, 2, Sync::Later).expect_err("a poisoned database");
    assert!(matches!(error, StoreError::Poisoned { .. }), "{error}");
    assert_eq!(database.get(Column::Meta, &[1]).unwrap(), None);
    assert_eq!((0..2).map(|seed| keys(&simulated.crash_image(seed)).len()).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn ranges_are_taken_out_in_one_column_only_and_without_their_end() {
    let (simulated, database) = made();
    (0..5).for_each(|key| write(&database, key, Sync::Durable).unwrap());
    let mut batch = Batch::default();
    batch.delete_range(Column::Log, &[1], &[3]);
    batch.delete(Column::Log, &[4]);
    batch.delete_range(Column::Log, &[9], &[0]);
    database.write(batch, Sync::Durable).unwrap();
    drop(database);
    let database = open(&simulated, Absent::Refuse).unwrap();
    let left = |column| database.iter_from(column, &[]).map(|entry| entry.unwrap().0[0]).collect::<Vec<_>>();
    assert_eq!((left(Column::Meta), left(Column::Log)), (vec![0, 1, 2, 3, 4], vec![0, 3]));
    assert_eq!(database.last(Column::Log).unwrap().unwrap().0[..], [3]);
    assert_eq!(database.last(Column::Snapshot).unwrap(), None);
    assert_eq!(database.iter_from(Column::Meta, &[3]).count(), 2);
}

fn store(simulated: &SimulatedDatabase, absent: Absent) -> Store {
    Store::on(open(simulated, absent).unwrap()).unwrap()
}

struct Builder;

impl StoreBuilder<TypeConfig, LogStore, StateMachine, ()> for Builder {
    async fn build(&self) -> Result<((), LogStore, StateMachine), StorageError> {
        let store = store(&SimulatedDatabase::new(), Absent::Create);
        Ok(((), store.log, store.machine))
    }
}

#[test]
fn a_store_on_it_keeps_what_openraft_expects_of_one() {
    Suite::test_all(Builder).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn votes_and_entries_that_were_acknowledged_survive_every_crash() {
    let simulated = SimulatedDatabase::new();
    let mut running = store(&simulated, Absent::Create);
    running.log.save_vote(&Vote::new(7, 1)).await.unwrap();
    let log_id = LogId::new(LeaderId::new(7, 1), 0);
    running.log.blocking_append([Entry { log_id, payload: EntryPayload::Blank }]).await.unwrap();
    running.log.save_committed(Some(log_id)).await.unwrap();
    let mut noted = 0;
    for seed in 0..2 {
        let mut found = store(&simulated.crash_image(seed), Absent::Refuse);
        assert_eq!(found.log.read_vote().await.unwrap(), Some(Vote::new(7, 1)));
        assert_eq!(found.log.get_log_state().await.unwrap().last_log_id, Some(log_id));
        noted += u32::from(found.log.read_committed().await.unwrap().is_some());
    }
    assert_eq!(noted, 1, "how far was committed is only a shortcut");
}
