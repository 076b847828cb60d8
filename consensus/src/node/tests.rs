//! A group of one: what is acknowledged is there again, however it ended; and what cannot be is said.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command as Process, Stdio};
use std::sync::atomic::Ordering;
use std::time::Instant;

use sterna_types::{ClusterId, VolumeId};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use super::*;
use crate::state::command::RootPublication;
use crate::state::outcome::Outcome;
use crate::state::refusal::Refusal;
use crate::state::request::RequestId;
use crate::state::tests::{bootstrap_command, create_volume, root};
use crate::state::volume::Generation;

pub(super) fn new_bootstrap() -> Bootstrap {
    match bootstrap_command() {
        Command::Bootstrap(bootstrap) => bootstrap,
        other => unreachable!("{other:?}"),
    }
}

fn config() -> MetadataConfig {
    MetadataConfig::default()
}

/// An empty place for metadata.
fn place() -> (TempDir, PathBuf) {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("metadata");
    (temp, dir)
}

async fn begun(dir: &Path) -> MetadataNode {
    MetadataNode::bootstrap(dir, config(), new_bootstrap()).await.unwrap()
}

async fn error_of_open(dir: &Path) -> OpenError {
    MetadataNode::open(dir, config(), None).await.map(|_| ()).expect_err("nothing to open")
}

fn names(metadata: &Metadata) -> Vec<String> {
    metadata.volumes().map(|volume| volume.name.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_proposed_is_there_after_a_restart() {
    let (_temp, dir) = place();
    let node = begun(&dir).await;
    node.propose(create_volume("a")).await.unwrap();
    node.propose(create_volume("b")).await.unwrap();
    let before = node.read();
    node.shutdown().await;
    let node = MetadataNode::open(&dir, config(), None).await.unwrap();
    assert_eq!(node.read(), before);
    assert_eq!(names(&node.linearizable().await.unwrap()), ["a", "b"]);
    let outcome = node.propose(create_volume("c")).await.unwrap();
    assert!(matches!(outcome, Outcome::Created { volume: VolumeId(3), .. }));
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_is_begun_once() {
    let (_temp, dir) = place();
    assert!(matches!(error_of_open(&dir).await, OpenError::NotInitialised { .. }));
    let node = begun(&dir).await;
    assert!(matches!(error_of_open(&dir).await, OpenError::InUse { .. }));
    node.shutdown().await;
    let other = Bootstrap { cluster: ClusterId::from_bytes([9; 16]), ..new_bootstrap() };
    let error = MetadataNode::bootstrap(&dir, config(), other).await.map(|_| ()).expect_err("a second cluster");
    let first = new_bootstrap().cluster;
    assert!(matches!(error, OpenError::AlreadyInitialised { cluster, .. } if cluster == first), "{error}");
    let node = MetadataNode::open(&dir, config(), None).await.unwrap();
    assert_eq!(node.read().cluster().unwrap().id, first);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_beginning_that_was_cut_off_goes_on_from_where_it_was() {
    for steps in 1..=3 {
        let (_temp, dir) = place();
        let mut store = Store::open(&dir, Absent::Create).unwrap();
        if steps >= 2 {
            store.set_node(NodeId::FIRST).unwrap();
        }
        if steps >= 3 {
            let node = MetadataNode::start(&dir, config(), store, NoNetwork, None).await.unwrap();
            node.raft.initialize(BTreeSet::from([1])).await.unwrap();
            node.shutdown().await;
        } else {
            drop(store);
        }
        let error = error_of_open(&dir).await;
        assert!(matches!(error, OpenError::NotInitialised { .. }), "after step {steps}: {error}");
        let node = begun(&dir).await;
        node.propose(create_volume("a")).await.unwrap();
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_told_from_an_outcome_that_is_not_known() {
    let (_temp, dir) = place();
    let node = begun(&dir).await;
    node.propose(create_volume("a")).await.unwrap();
    let error = node.propose(create_volume("a")).await.expect_err("a name that is taken");
    assert!(matches!(error, ProposeError::Refused(Refusal::VolumeNameTaken { .. })), "{error}");
    node.shutdown().await;
    assert_eq!(node.ended().await, Ending::ShutDown);
    let error = node.propose(create_volume("b")).await.expect_err("nobody to propose to");
    assert!(matches!(error, ProposeError::Stopped { .. }), "{error}");
    assert!(matches!(node.linearizable().await, Err(ReadError::Stopped { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_proposed_again_is_answered_with_its_first_outcome_even_after_a_restart() {
    let (_temp, dir) = place();
    let node = begun(&dir).await;
    let outcome = node.propose_once(RequestId(5), create_volume("a")).await.unwrap();
    assert_eq!(node.propose_once(RequestId(5), create_volume("a")).await.unwrap(), outcome);
    node.shutdown().await;
    let node = MetadataNode::open(&dir, config(), None).await.unwrap();
    assert_eq!(node.propose_once(RequestId(5), create_volume("a")).await.unwrap(), outcome);
    assert_eq!(node.read().volume_count(), 1);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_watches_sees_each_outcome_no_later_than_its_answer() {
    let (_temp, dir) = place();
    let node = begun(&dir).await;
    let mut watch = node.watch();
    watch.mark_unchanged();
    let held = node.read();
    node.propose(create_volume("a")).await.unwrap();
    assert!(watch.has_changed().unwrap());
    assert_eq!(names(&watch.borrow_and_update()), ["a"]);
    assert_eq!(names(&node.read()), ["a"]);
    assert_eq!(held.volume_count(), 0, "what a reader holds does not change");
    node.shutdown().await;
}

/// Has so many proposers make so many volumes each, one behind the other; says how many syncs that took.
async fn propose_together(proposers: usize, each: usize) -> usize {
    let (_temp, dir) = place();
    let node = Arc::new(begun(&dir).await);
    let database = node.database.upgrade().unwrap();
    let (syncs, begun) = (database.syncs(), Instant::now());
    let mut tasks = JoinSet::new();
    for proposer in 0..proposers {
        let node = Arc::clone(&node);
        tasks.spawn(async move {
            for number in 0..each {
                node.propose(create_volume(&format!("v-{proposer}-{number}"))).await.unwrap();
            }
        });
    }
    tasks.join_all().await;
    let syncs = usize::try_from(database.syncs() - syncs).unwrap();
    let per_second = (proposers * each) as f64 / begun.elapsed().as_secs_f64();
    println!("{proposers} proposers: {per_second:.0} proposals/s, {syncs} syncs for {}", proposers * each);
    drop(database);
    assert_eq!(node.read().volume_count(), proposers * each);
    node.shutdown().await;
    syncs
}

#[tokio::test(flavor = "multi_thread")]
async fn proposals_that_come_together_share_their_syncs_and_none_is_lost() {
    let syncs = propose_together(64, 40).await;
    assert!(syncs < 64 * 40 / 2, "{syncs} syncs for {} proposals", 64 * 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proposal_that_comes_alone_waits_for_its_own_sync() {
    let syncs = propose_together(1, 500).await;
    assert!(syncs >= 500, "{syncs} syncs for 500 proposals");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_before_a_snapshot_is_dropped_and_nothing_of_it_is_missing() {
    let (_temp, dir) = place();
    let few = MetadataConfig { snapshot_after_entries: 20, kept_entries: 5, ..config() };
    let node = MetadataNode::bootstrap(&dir, few, new_bootstrap()).await.unwrap();
    for number in 0..100 {
        node.propose(create_volume(&format!("v{number}"))).await.unwrap();
    }
    let purged =
        |metrics: &openraft::RaftMetrics<u64, openraft::EmptyNode>| metrics.purged.is_some_and(|id| id.index > 50);
    node.raft.wait(None).metrics(purged, "the log is dropped").await.unwrap();
    let before = node.read();
    node.shutdown().await;
    let node = MetadataNode::open(&dir, few, None).await.unwrap();
    assert_eq!(node.read(), before);
    node.propose(create_volume("one-more")).await.unwrap();
    assert_eq!(node.read().check(), Ok(()));
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fails_ends_the_nodes_part_and_costs_nothing_that_was_acknowledged() {
    let (_temp, dir) = place();
    let node = begun(&dir).await;
    node.propose(create_volume("a")).await.unwrap();
    node.database.upgrade().unwrap().fail_next_write.store(true, Ordering::Release);
    let error = node.propose(create_volume("b")).await.expect_err("a disk on fire");
    assert!(matches!(error, ProposeError::Unknown { .. }), "{error}");
    let Ending::Failed { what } = node.ended().await else { panic!("it did not fail") };
    assert!(what.contains("the disk is on fire") && what.contains(dir.to_str().unwrap()), "{what}");
    let error = node.propose(create_volume("c")).await.expect_err("no metadata any more");
    assert!(matches!(error, ProposeError::Stopped { .. }), "{error}");
    node.shutdown().await;
    let node = MetadataNode::open(&dir, config(), None).await.unwrap();
    assert_eq!(names(&node.read()), ["a"]);
    node.shutdown().await;
}

#[test]
fn what_was_acknowledged_is_there_after_everything_was_dropped_at_once() {
    let (_temp, dir) = place();
    for round in 0..5 {
        let runtime = Runtime::new().unwrap();
        runtime.block_on(async {
            let node = match round {
                0 => begun(&dir).await,
                _ => MetadataNode::open(&dir, config(), None).await.unwrap(),
            };
            assert_eq!(node.read().volume_count(), round * 10);
            for number in 0..10 {
                node.propose(create_volume(&format!("v-{round}-{number}"))).await.unwrap();
            }
        });
        drop(runtime);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_that_cannot_be_understood_is_refused_with_its_directory() {
    let (_temp, dir) = place();
    begun(&dir).await.shutdown().await;
    fs::write(dir.join("FORMAT"), "sterna-metadata 8\n").unwrap();
    let error = error_of_open(&dir).await;
    assert!(matches!(error, OpenError::NewerFormat { found: 8, known: 6, .. }), "{error}");
    assert!(error.to_string().contains(dir.to_str().unwrap()), "{error}");
    fs::write(dir.join("FORMAT"), "sterna-metadata 1\n").unwrap();
    fs::remove_dir_all(dir.join("db")).unwrap();
    assert!(matches!(error_of_open(&dir).await, OpenError::NotInitialised { .. }));
    assert!(!dir.join("db").exists(), "a lost database is not replaced by an empty one");
}

/// One process begins or opens the metadata and says of each volume when it is acknowledged; another one kills it in the
/// midst of that, and finds all of them.
#[test]
fn what_was_acknowledged_is_there_after_kill_9() {
    if let Some(dir) = std::env::var_os(VICTIM_DIR) {
        return Runtime::new().unwrap().block_on(propose_until_killed(Path::new(&dir)));
    }
    let (_temp, dir) = place();
    let mut acknowledged = 0;
    for _ in 0..4 {
        let mut victim = Process::new(std::env::current_exe().unwrap())
            .args(["--exact", "node::tests::what_was_acknowledged_is_there_after_kill_9", "--nocapture"])
            .env(VICTIM_DIR, &dir)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(victim.stdout.take().unwrap()).lines();
        let mut seen = 0;
        while seen < 40 {
            let line = lines.next().expect("the victim lives until it is killed").unwrap();
            if let Some(count) = line.strip_prefix("acknowledged ") {
                acknowledged = count.parse::<usize>().unwrap();
                seen += 1;
            }
        }
        victim.kill().unwrap();
        victim.wait().unwrap();
        Runtime::new().unwrap().block_on(async {
            let node = MetadataNode::open(&dir, config(), None).await.unwrap();
            let metadata = node.read();
            assert!(metadata.volume_count() >= acknowledged, "of {acknowledged}, {} are left", metadata.volume_count());
            assert_eq!(metadata.check(), Ok(()));
            assert!(
                metadata.volumes().all(|volume| volume.published.generation <= Generation(acknowledged as u64 + 1))
            );
            node.shutdown().await;
        });
    }
}

async fn propose_until_killed(dir: &Path) {
    let few = MetadataConfig { snapshot_after_entries: 10, kept_entries: 2, ..config() };
    let node = match MetadataNode::open(dir, few, None).await {
        Err(OpenError::NotInitialised { .. }) => MetadataNode::bootstrap(dir, few, new_bootstrap()).await.unwrap(),
        opened => opened.unwrap(),
    };
    loop {
        let count = node.read().volume_count() + 1;
        node.propose(create_volume(&format!("v{count}"))).await.unwrap();
        println!("acknowledged {count}");
        let (volume, epoch, generation) = (VolumeId(1), sterna_types::Epoch::FIRST, Generation(count as u64));
        let publication = RootPublication { volume, epoch, root: root(1), generation, written_blocks: 0, at: None };
        node.propose(Command::PublishRoots(vec![publication])).await.unwrap();
    }
}

/// Tells a process that it is the one to be killed, and where.
const VICTIM_DIR: &str = "STERNA_METADATA_VICTIM_DIR";
