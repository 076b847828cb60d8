//! What format 1 looks like, in `fixtures/format-1`, and what formats 4, 5 and 6 have beside, in `fixtures/format-4` and so on. What has
//! been written is read for ever: a new version gets a directory of its own beside them, and these files are never changed.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;

use openraft::storage::RaftStateMachine;
use openraft::{EmptyNode, EntryPayload, LeaderId, RaftSnapshotBuilder};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sterna_types::{ByteRate, ByteSize, Epoch, NodeId, VolumeId, VolumeSize};

use super::record::{EntryRecord, SnapshotRecord, VoteRecord, from_json, to_json};
use super::snapshots::Snapshots;
use super::{Absent, Store};
use crate::raft::{Batch, Entry, LogId, Membership, SnapshotMeta, StoredMembership, Vote};
use crate::state::Metadata;
use crate::state::cluster::MetadataVersion;
use crate::state::command::{Command, NewSnapshot, NewVolume, Origin, ReplicaReport, RootPublication};
use crate::state::handoffs::{ReceivedVolume, VolumeHandoff};
use crate::state::in_sync::InSyncRevision;
use crate::state::ownership::HandoffNumber;
use crate::state::policy::{AttachPolicy, DegradedPolicy, Durability, SyncCopies};
use crate::state::replica::ReplicaMode;
use crate::state::request::{Request, RequestId};
use crate::state::session::SessionNumber;
use crate::state::tests::nodes::{with_nodes, with_nodes_that_know};
use crate::state::tests::replicas::site;
use crate::state::tests::{bootstrap_command, create_volume, root};
use crate::state::volume::{Generation, Published, UnixTime, VolumeFormat};

/// The file holds the value, to the byte.
fn stands_as<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T, file: &str) {
    let file = file.trim_end();
    assert_eq!(String::from_utf8(to_json(value)).unwrap(), file);
    assert_eq!(from_json::<T>(Path::new("here"), "the fixture", file.as_bytes()).unwrap(), *value);
}

/// One of each command.
fn commands() -> Vec<Command> {
    let volume = VolumeId(2);
    let size = VolumeSize::try_from(ByteSize(1 << 30)).unwrap();
    let imported = NewVolume {
        name: "imported".parse().unwrap(),
        size,
        format: VolumeFormat(1),
        durability: Durability::Sync(SyncCopies::new(2).unwrap()),
        attach: AttachPolicy::Auto,
        origin: Origin::Import,
        owner: NodeId::FIRST,
    };
    let snapshot_name = "before-upgrade".parse().unwrap();
    let from_snapshot = Origin::Snapshot { volume, name: "before-upgrade".parse().unwrap() };
    let clone = NewVolume { name: "clone".parse().unwrap(), origin: from_snapshot, ..imported };
    let from_root = Origin::Published { volume, root: root(4) };
    let second_clone = NewVolume { name: "clone-2".parse().unwrap(), origin: from_root, ..imported };
    let (epoch, generation) = (Epoch::FIRST, Generation(3));
    let publication =
        RootPublication { volume, epoch, root: root(4), generation: Generation(4), written_blocks: 0, at: None };
    let snapshot = NewSnapshot {
        volume,
        epoch,
        name: "before-upgrade".parse().unwrap(),
        root: root(3),
        generation,
        size,
        at: UnixTime { unix_ms: 1_700_000_000_000 },
    };
    vec![
        bootstrap_command(),
        create_volume("web-1.root"),
        Command::CreateVolume(imported),
        Command::FinishImport { volume, epoch, root: root(3), generation },
        Command::CreateSnapshot(snapshot),
        Command::PublishRoots(vec![publication]),
        Command::CreateVolume(clone),
        Command::CreateVolume(second_clone),
        Command::RenameVolume { volume, name: "renamed".parse().unwrap() },
        Command::ResizeVolume { volume, size: VolumeSize::try_from(ByteSize(2 << 30)).unwrap() },
        Command::SetDurability { volume, durability: Durability::Local },
        Command::SetAttach { volume, attach: AttachPolicy::Manual },
        Command::DeleteSnapshot { volume: VolumeId(9), name: snapshot_name },
        Command::DeleteVolume { volume: VolumeId(1), with_snapshots: true },
    ]
}

fn requests() -> Vec<Request> {
    let id = |number: usize| (number % 3 == 1).then_some(RequestId(number as u128));
    commands().into_iter().enumerate().map(|(number, command)| Request { id: id(number), command }).collect()
}

/// One of each command about handoffs, of two volumes that the first of three nodes owns. They leave one of these with a source, the
/// other on its way, and an outcome that has refusals.
fn handoff_commands() -> Vec<Command> {
    let (a, b, c) = (NodeId(1), NodeId(2), NodeId(3));
    let (volume, other) = (VolumeId(1), VolumeId(2));
    let of = |volume, number| VolumeHandoff { volume, handoff: HandoffNumber(number) };
    let at = Some(UnixTime { unix_ms: 1_700_000_000_000 });
    let contents = Published { written_blocks: 70, at, ..Published::of(root(7), Generation(7)) };
    let received = |number| ReceivedVolume { volume, handoff: HandoffNumber(number), contents };
    let snapshots = vec!["before-upgrade".parse().unwrap()];
    let second = Epoch::FIRST.next();
    vec![
        Command::BeginHandoff { by: a, to: b, volumes: vec![of(volume, 1), of(other, 1)] },
        Command::AbortHandoff { by: a, volumes: vec![of(other, 1)] },
        Command::CommitHandoff { by: b, volumes: vec![received(1)] },
        Command::FinishHydration { volume, epoch: second, node: b, snapshots },
        Command::BeginHandoff { by: b, to: c, volumes: vec![of(volume, 2)] },
        Command::DeclineHandoff { by: c, volumes: vec![of(volume, 2), of(other, 2)] },
        Command::Reclaim { volume, epoch: second, node: b },
        Command::BeginHandoff { by: b, to: c, volumes: vec![of(volume, 3)] },
        Command::CommitHandoff { by: c, volumes: vec![received(3)] },
        Command::BeginHandoff { by: a, to: c, volumes: vec![of(other, 2)] },
    ]
}

/// One of each command about limits.
fn limit_commands() -> Vec<Command> {
    let limit = Some(ByteRate(6_250_000));
    let (from, to) = ("ams".parse().unwrap(), "s2".parse().unwrap());
    vec![
        Command::SetVolumeLimit { volume: VolumeId(2), limit },
        Command::SetVolumeLimit { volume: VolumeId(1), limit: None },
        Command::SetLinkLimit { from, to, limit },
    ]
}

/// One of each command about who is in sync, of a volume that the first of three nodes owns. They leave it
/// taken over by that one, and then in sync with the third.
fn in_sync_commands() -> Vec<Command> {
    let (a, b, c, volume) = (NodeId(1), NodeId(2), NodeId(3), VolumeId(1));
    let (first, second) = (Epoch::FIRST, Epoch::FIRST.next());
    let durability = Durability::Sync(SyncCopies::new(2).unwrap());
    let of = |node| Command::SetReplica { volume, node, mode: ReplicaMode::Sync };
    let holds = |node, epoch, complete| {
        let report = ReplicaReport { volume, epoch, complete: Some(complete), is_map: false, snapshots: Vec::new() };
        Command::ReportReplicas { node, reports: vec![report] }
    };
    let change = |epoch, node, revision, add: &[NodeId], remove: &[NodeId]| Command::ChangeInSync {
        volume,
        epoch,
        node,
        revision: InSyncRevision(revision),
        add: add.iter().copied().collect(),
        remove: remove.iter().copied().collect(),
    };
    let contents = |generation| Published::of(root(4), Generation(generation));
    let publication =
        RootPublication { volume, epoch: first, root: root(4), generation: Generation(4), written_blocks: 0, at: None };
    vec![
        Command::SetDurability { volume, durability },
        Command::SetDegraded { volume, policy: DegradedPolicy::Continue },
        of(b),
        of(c),
        Command::PublishRoots(vec![publication]),
        holds(b, first, contents(4)),
        holds(c, first, contents(4)),
        change(first, a, 0, &[b, c], &[]),
        change(first, a, 1, &[], &[c]),
        Command::CloseSession { node: a, number: SessionNumber(1), all_is_published: false },
        Command::TakeOver { volume, epoch: first, node: b },
        holds(c, second, contents(5)),
        change(second, b, 0, &[c], &[]),
    ]
}

/// One of each command about caches, of a volume that the first of three nodes owns. They leave the second a cache, and the third one
/// that is to have all of it again.
fn cache_commands() -> Vec<Command> {
    let (volume, epoch) = (VolumeId(1), Epoch::FIRST);
    let of = |node, mode| Command::SetReplica { volume, node: NodeId(node), mode };
    let maps = |node| {
        let complete = Some(Published::of(root(4), Generation(4)));
        let report = ReplicaReport { volume, epoch, complete, is_map: true, snapshots: Vec::new() };
        Command::ReportReplicas { node: NodeId(node), reports: vec![report] }
    };
    let publication =
        RootPublication { volume, epoch, root: root(4), generation: Generation(4), written_blocks: 0, at: None };
    vec![
        of(2, ReplicaMode::Cache),
        of(3, ReplicaMode::Cache),
        Command::PublishRoots(vec![publication]),
        maps(2),
        maps(3),
        of(3, ReplicaMode::Async),
    ]
}

fn handoff_requests() -> Vec<Request> {
    let id = |number: u128| Some(RequestId(number));
    (1..).zip(handoff_commands()).map(|(number, command)| Request { id: id(number), command }).collect()
}

fn log_id(index: u64) -> LogId {
    LogId::new(LeaderId::new(3, 1), index)
}

fn members() -> Membership {
    Membership::new(vec![BTreeSet::from([1]), BTreeSet::from([1, 2, 3])], BTreeSet::from([1, 2, 3, 4]))
}

#[test]
fn the_state_reads_as_it_always_did() {
    let mut metadata = Metadata::default();
    for request in requests() {
        let _ = metadata.apply(&request);
    }
    assert_eq!(metadata.volume_count(), 3);
    stands_as(&metadata, include_str!("../../fixtures/format-1/state.json"));
}

#[test]
fn handoffs_read_as_they_always_did() {
    let mut metadata = with_nodes_that_know(MetadataVersion::PROPAGATION, 3);
    for name in ["a", "b"] {
        metadata.apply(&Request { id: None, command: create_volume(name) }).unwrap();
    }
    let requests = handoff_requests();
    for request in &requests {
        let _ = metadata.apply(request);
    }
    let sources = metadata.volumes().map(|volume| volume.sources.len());
    assert!(sources.eq([1, 0]) && metadata.volumes().any(|volume| volume.moving_to.is_some()));
    let before = include_str!("../../fixtures/format-4/state.json").trim_end();
    let before: Metadata = from_json(Path::new("here"), "the fixture", before.as_bytes()).unwrap();
    assert!(before.volumes().eq(metadata.volumes()));
    for command in limit_commands() {
        metadata.apply(&Request { id: None, command }).unwrap();
    }
    stands_as(&metadata, include_str!("../../fixtures/format-5/state.json"));
    let limits = limit_commands().into_iter().map(|command| Request { id: None, command }).collect::<Vec<_>>();
    let entry = Entry { log_id: log_id(22), payload: EntryPayload::Normal(Batch::from(limits)) };
    stands_as(&EntryRecord::from(&entry), include_str!("../../fixtures/format-5/entry-limits.json"));
    let entry = Entry { log_id: log_id(21), payload: EntryPayload::Normal(Batch::from(requests)) };
    stands_as(&EntryRecord::from(&entry), include_str!("../../fixtures/format-4/entry-handoffs.json"));
}

#[test]
fn who_is_in_sync_reads_as_it_always_did() {
    let mut metadata = with_nodes_that_know(MetadataVersion::PROPAGATION, 3);
    metadata.apply(&Request { id: None, command: create_volume("a") }).unwrap();
    let requests: Vec<_> = in_sync_commands().into_iter().map(|command| Request { id: None, command }).collect();
    for request in &requests {
        metadata.apply(request).unwrap();
    }
    assert!(metadata.volumes().all(|volume| volume.reclaimed == Some(Epoch::FIRST) && volume.copies_in_force() == 2));
    stands_as(&metadata, include_str!("../../fixtures/format-5/state-in-sync.json"));
    let entry = Entry { log_id: log_id(23), payload: EntryPayload::Normal(Batch::from(requests)) };
    stands_as(&EntryRecord::from(&entry), include_str!("../../fixtures/format-5/entry-in-sync.json"));
}

#[test]
fn caches_read_as_they_always_did() {
    let mut metadata = with_nodes(3);
    metadata.apply(&Request { id: None, command: create_volume("a") }).unwrap();
    let requests: Vec<_> = cache_commands().into_iter().map(|command| Request { id: None, command }).collect();
    for request in &requests {
        metadata.apply(request).unwrap();
    }
    let has_mapped = |node: u64| metadata.volumes().all(|volume| volume.replicas[&site(node)].mapped.is_some());
    assert!(has_mapped(2) && has_mapped(3), "one that is a cache, and one that was");
    stands_as(&metadata, include_str!("../../fixtures/format-6/state.json"));
    let entry = Entry { log_id: log_id(24), payload: EntryPayload::Normal(Batch::from(requests)) };
    stands_as(&EntryRecord::from(&entry), include_str!("../../fixtures/format-6/entry-caches.json"));
}

/// A directory as version 0.2 left it: format 1, and a snapshot that is JSON as it stands in the fixture.
fn directory_of_format_1() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Absent::Create).unwrap();
    let last_membership = StoredMembership::new(Some(log_id(18)), members());
    let meta = SnapshotMeta { last_log_id: Some(log_id(20)), last_membership, snapshot_id: "T3-N1-20".to_owned() };
    let state = include_str!("../../fixtures/format-1/state.json").trim_end();
    let snapshots = Snapshots::open(Arc::clone(&store.database)).unwrap();
    snapshots.save(&meta, state.as_bytes()).unwrap();
    drop((store, snapshots));
    std::fs::write(dir.path().join("FORMAT"), "sterna-metadata 1\n").unwrap();
    dir
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_of_an_earlier_version_opens_and_its_next_snapshot_is_compressed_once_all_nodes_know_that() {
    let dir = directory_of_format_1();
    let mut store = Store::open(dir.path(), Absent::Refuse).unwrap();
    assert_eq!(store.view.borrow().volume_count(), 3);
    assert_eq!(store.view.borrow().version(), MetadataVersion::FIRST);
    assert_eq!(std::fs::read_to_string(dir.path().join("FORMAT")).unwrap(), "sterna-metadata 6\n");
    let raise = Command::RaiseVersion { version: MetadataVersion::CURRENT };
    for (index, command, first_byte) in [(21, create_volume("one-more"), b'{'), (22, raise, 0x28)] {
        let payload = EntryPayload::Normal(Batch::from(vec![Request { id: None, command }]));
        store.machine.apply([Entry { log_id: log_id(index), payload }]).await.unwrap();
        let made = store.machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
        assert_eq!(made.snapshot.into_inner().first(), Some(&first_byte));
    }
    let before = store.view.borrow().clone();
    drop(store);
    let store = Store::open(dir.path(), Absent::Refuse).unwrap();
    assert_eq!(*store.view.borrow(), before);
    assert_eq!(store.view.borrow().volume_count(), 4);
}

#[test]
fn entries_read_as_they_always_did() {
    let entry = |index, payload| EntryRecord::from(&Entry { log_id: log_id(index), payload });
    let batch = EntryPayload::Normal(Batch::from(requests()));
    stands_as(&entry(17, batch), include_str!("../../fixtures/format-1/entry-requests.json"));
    let membership = EntryPayload::Membership(members());
    stands_as(&entry(18, membership), include_str!("../../fixtures/format-1/entry-members.json"));
    stands_as(&entry(19, EntryPayload::Blank), include_str!("../../fixtures/format-1/entry-blank.json"));
}

#[test]
fn an_entry_is_the_same_after_it_was_written_down() {
    let payloads =
        [EntryPayload::Blank, EntryPayload::Membership(members()), EntryPayload::Normal(Batch::from(requests()))];
    for payload in payloads {
        let entry = Entry { log_id: log_id(5), payload };
        assert_eq!(Entry::from(EntryRecord::from(&entry)), entry);
    }
    let no_default = Membership::new(vec![BTreeSet::from([1])], std::collections::BTreeMap::from([(1, EmptyNode {})]));
    let entry = Entry { log_id: log_id(6), payload: EntryPayload::Membership(no_default) };
    assert_eq!(Entry::from(EntryRecord::from(&entry)), entry);
}

#[test]
fn votes_and_snapshots_read_as_they_always_did() {
    let vote = Vote { leader_id: LeaderId::new(3, 1), committed: true };
    stands_as(&VoteRecord::from(vote), include_str!("../../fixtures/format-1/vote.json"));
    assert_eq!(Vote::from(VoteRecord::from(vote)), vote);
    let last_membership = StoredMembership::new(Some(log_id(18)), members());
    let meta = SnapshotMeta { last_log_id: Some(log_id(20)), last_membership, snapshot_id: "T3-N1-20".to_owned() };
    let record = SnapshotRecord::new(7, &meta, b"contents");
    stands_as(&record, include_str!("../../fixtures/format-1/snapshot.json"));
    assert_eq!(record.meta(), meta);
}

#[test]
fn what_a_newer_version_says_is_refused_and_not_dropped() {
    let read = |json: &str| from_json::<EntryRecord>(Path::new("/there"), "entry 1 of the log", json.as_bytes());
    let known = r#"{"id":{"term":1,"node":1,"index":1},"payload":{"requests":[{"id":null,"command":{"set_attach":{"volume":1,"attach":"auto"}}}]}}"#;
    assert!(read(known).is_ok());
    for (old, new) in [
        ("set_attach", "set_colour"),
        ("\"attach\"", "\"colour\":1,\"attach\""),
        ("auto", "ask"),
        ("requests", "wishes"),
    ] {
        let error = read(&known.replacen(old, new, 1)).expect_err(new);
        assert!(error.to_string().starts_with("the metadata in /there is damaged: entry 1 of the log: "), "{error}");
    }
}
