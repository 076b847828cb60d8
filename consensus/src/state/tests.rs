//! Random commands against what is always true, and single cases that random ones seldom meet.

use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};
use proptest::{collection, option};
use sterna_types::{ByteRate, ByteSize, ChunkId, ClusterId, Epoch, Root, SnapshotName, VolumeSize};

use super::command::{NewSnapshot, NewVolume, Origin, RootPublication};
use super::policy::{AttachPolicy, DegradedPolicy, Durability, SyncCopies};
use super::request::RequestId;
use super::session::SessionNumber;
use super::volume::{Generation, Published, UnixTime, VolumeFormat, VolumeState};
use super::*;
use crate::limits::{MAX_ANSWERED_REQUESTS, MAX_SNAPSHOTS_PER_VOLUME};

mod handoffs;
mod hydration;
mod in_sync;
mod moves;
pub(crate) mod nodes;
mod outage;
pub(crate) mod replicas;
mod taking_back;

pub(crate) fn bootstrap_command() -> Command {
    let address = Some("10.77.0.1:7400".parse().unwrap());
    let (site, node) = ("ams".parse().unwrap(), "ams-1".parse().unwrap());
    Command::Bootstrap(Bootstrap { cluster: ClusterId::from_bytes([7; 16]), site, node, address })
}

pub(crate) fn create_volume(name: &str) -> Command {
    Command::CreateVolume(new_volume(name, Origin::Blank))
}

fn new_volume(name: &str, origin: Origin) -> NewVolume {
    NewVolume {
        name: name.parse().unwrap(),
        size: blocks(100),
        format: VolumeFormat(1),
        durability: Durability::Local,
        attach: AttachPolicy::Manual,
        origin,
        owner: NodeId::FIRST,
    }
}

pub(crate) fn root(number: u8) -> Root {
    if number == 0 { Root::EMPTY } else { Root::at(ChunkId::from_bytes([number; 32])) }
}

fn blocks(count: u64) -> VolumeSize {
    VolumeSize::try_from(ByteSize(count * 4096)).unwrap()
}

fn apply(metadata: &mut Metadata, command: Command) -> Result<Outcome, Refusal> {
    metadata.apply(&Request { id: None, command })
}

fn begun() -> Metadata {
    let mut metadata = Metadata::default();
    apply(&mut metadata, bootstrap_command()).unwrap();
    metadata
}

fn with_volume(name: &str) -> (Metadata, VolumeId) {
    let mut metadata = begun();
    apply(&mut metadata, create_volume(name)).unwrap();
    let id = metadata.volume_named(&name.parse().unwrap()).unwrap().id;
    (metadata, id)
}

fn publication(volume: VolumeId, epoch: u64, number: u8, generation: u64) -> RootPublication {
    let epoch = Epoch::from_number(epoch).unwrap();
    let (written_blocks, at) = (10 * generation, Some(UnixTime { unix_ms: 1_000 * generation }));
    RootPublication { volume, epoch, root: root(number), generation: Generation(generation), written_blocks, at }
}

fn snapshot(volume: VolumeId, name: &str, number: u8, generation: u64) -> Command {
    let (epoch, at) = (Epoch::FIRST, UnixTime { unix_ms: 1_700_000_000_000 });
    let (name, generation) = (name.parse().unwrap(), Generation(generation));
    Command::CreateSnapshot(NewSnapshot { volume, epoch, name, root: root(number), generation, size: blocks(100), at })
}

/// Of every kind.
fn any_command() -> impl Strategy<Value = Command> {
    prop_oneof![
        6 => any_volume_command(),
        3 => nodes::any_node_command(),
        2 => replicas::any_replica_command(),
        2 => moves::any_handoff_command(),
        1 => in_sync::any_in_sync_command(),
    ]
}

/// Few ids, names, roots and generations, so that random commands meet each other.
fn any_volume_command() -> impl Strategy<Value = Command> {
    let id = || (0u64..12).prop_map(VolumeId);
    let epoch = || prop_oneof![9 => Just(Epoch::FIRST), 1 => Just(Epoch::FIRST.next())];
    let name = || (0u8..8).prop_map(|n| format!("v{n}").parse::<VolumeName>().unwrap());
    let snapshot_name = || (0u8..5).prop_map(|n| format!("s{n}").parse::<SnapshotName>().unwrap());
    let size = || (1u64..6).prop_map(|n| blocks(n * 50));
    let generation = || (0u64..20).prop_map(Generation);
    let root = || (0u8..4).prop_map(root);
    let durability = || prop_oneof![Just(Durability::Local), Just(Durability::Sync(SyncCopies::new(2).unwrap()))];
    let degraded = || prop_oneof![Just(DegradedPolicy::Wait), Just(DegradedPolicy::Continue)];
    let attach = || prop_oneof![Just(AttachPolicy::Manual), Just(AttachPolicy::Auto)];
    let origin = prop_oneof![
        4 => Just(Origin::Blank),
        2 => Just(Origin::Import),
        2 => (id(), snapshot_name()).prop_map(|(volume, name)| Origin::Snapshot { volume, name }),
        2 => (id(), root()).prop_map(|(volume, root)| Origin::Published { volume, root }),
    ];
    let create = (name(), size(), 1u32..3, durability(), attach(), origin, 1u64..3).prop_map(
        |(name, size, format, durability, attach, origin, owner)| {
            let (format, owner) = (VolumeFormat(format), NodeId(owner));
            Command::CreateVolume(NewVolume { name, size, format, durability, attach, origin, owner })
        },
    );
    let snapshot = (id(), epoch(), snapshot_name(), root(), generation(), size(), any::<u32>()).prop_map(
        |(volume, epoch, name, root, generation, size, at)| {
            let at = UnixTime { unix_ms: u64::from(at) };
            Command::CreateSnapshot(NewSnapshot { volume, epoch, name, root, generation, size, at })
        },
    );
    let site = || prop_oneof![Just("ams"), Just("s2"), Just("nowhere")].prop_map(|name| name.parse().unwrap());
    let rate = || (1u64..9).prop_map(ByteRate);
    let written = || (0u64..50, option::of((0u64..9).prop_map(|unix_ms| UnixTime { unix_ms })));
    let publication = (id(), epoch(), root(), generation(), written()).prop_map(
        |(volume, epoch, root, generation, (written_blocks, at))| RootPublication {
            volume,
            epoch,
            root,
            generation,
            written_blocks,
            at,
        },
    );
    prop_oneof![
        1 => Just(bootstrap_command()),
        8 => create,
        3 => (id(), epoch(), root(), generation()).prop_map(|(volume, epoch, root, generation)| {
            Command::FinishImport { volume, epoch, root, generation }
        }),
        3 => (id(), any::<bool>()).prop_map(|(volume, with_snapshots)| Command::DeleteVolume { volume, with_snapshots }),
        2 => (id(), name()).prop_map(|(volume, name)| Command::RenameVolume { volume, name }),
        2 => (id(), size()).prop_map(|(volume, size)| Command::ResizeVolume { volume, size }),
        6 => snapshot,
        2 => (id(), snapshot_name()).prop_map(|(volume, name)| Command::DeleteSnapshot { volume, name }),
        8 => collection::vec(publication, 0..6).prop_map(Command::PublishRoots),
        1 => (id(), durability()).prop_map(|(volume, durability)| Command::SetDurability { volume, durability }),
        1 => (id(), degraded()).prop_map(|(volume, policy)| Command::SetDegraded { volume, policy }),
        1 => (id(), attach()).prop_map(|(volume, attach)| Command::SetAttach { volume, attach }),
        1 => (id(), option::of(rate())).prop_map(|(volume, limit)| Command::SetVolumeLimit { volume, limit }),
        1 => (site(), site(), option::of(rate())).prop_map(|(from, to, limit)| Command::SetLinkLimit { from, to, limit }),
    ]
}

/// A cluster that has just begun, or one of three nodes.
fn any_cluster() -> impl Strategy<Value = Metadata> {
    prop_oneof![Just(nodes::raised()), Just(nodes::with_nodes(3))]
}

fn any_request() -> impl Strategy<Value = Request> {
    let id = option::weighted(0.3, (0u128..20).prop_map(RequestId));
    (id, any_command()).prop_map(|(id, command)| Request { id, command })
}

/// What never happens from one moment to a later one.
fn check_step(before: &Metadata, after: &Metadata) {
    assert!(before.last_volume <= after.last_volume && before.last_node <= after.last_node, "an id was taken back");
    for volume in after.volumes() {
        let Some(was) = before.volume(volume.id) else {
            assert!(volume.id.0 > before.last_volume, "the id {} was given out again", volume.id);
            continue;
        };
        assert!(was.epoch <= volume.epoch, "the epoch of volume {} fell", volume.id);
        assert!(was.owner == volume.owner || was.epoch < volume.epoch, "an owner changed within an epoch");
        assert!(was.size <= volume.size, "volume {} shrank", volume.id);
        let (old, new) = (was.published, volume.published);
        assert!(old.generation < new.generation || old == new, "the root of volume {} fell or changed", volume.id);
        assert!(was.state == volume.state || volume.state == VolumeState::Ready, "a volume became incomplete");
    }
    nodes::check_step(before, after);
    replicas::check_step(before, after);
    moves::check_step(before, after);
    in_sync::check_step(before, after);
}

proptest! {
    #[test]
    fn whatever_is_asked_the_invariants_hold_and_a_refusal_changes_nothing(
        cluster in any_cluster(),
        requests in collection::vec(any_request(), 1..150),
    ) {
        let mut metadata = cluster.clone();
        let mut twin = cluster;
        for request in &requests {
            let before = metadata.clone();
            let answered_before = request.id.is_some_and(|id| before.answered.outcome(id).is_some());
            let outcome = metadata.apply(request);
            prop_assert_eq!(metadata.check(), Ok(()));
            check_step(&before, &metadata);
            if outcome.is_err() || answered_before {
                prop_assert_eq!(&metadata, &before);
            }
            prop_assert_eq!(twin.apply(request), outcome);
        }
        prop_assert_eq!(&metadata, &twin);
    }

    #[test]
    fn metadata_that_was_written_down_is_the_same_and_behaves_the_same(
        mut metadata in any_cluster(),
        first in collection::vec(any_request(), 1..100),
        second in collection::vec(any_request(), 1..50),
    ) {
        for request in &first {
            let _ = metadata.apply(request);
        }
        let json = serde_json::to_string(&metadata).unwrap();
        let mut read: Metadata = serde_json::from_str(&json).unwrap();
        prop_assert_eq!(&read, &metadata);
        prop_assert_eq!(serde_json::to_string(&read).unwrap(), json);
        for request in &second {
            prop_assert_eq!(read.apply(request), metadata.apply(request));
        }
        prop_assert_eq!(read, metadata);
    }

    #[test]
    fn a_request_reads_back_and_is_no_longer_than_it_is_taken_for(request in any_request()) {
        let json = serde_json::to_string(&request).unwrap();
        prop_assert!(json.len() <= request.bytes_at_most());
        prop_assert_eq!(serde_json::from_str::<Request>(&json).unwrap(), request);
    }
}

#[test]
fn the_longest_requests_are_no_longer_than_they_are_taken_for() {
    let long = "x".repeat(63);
    let mut volume = new_volume(&long, Origin::Snapshot { volume: VolumeId(u64::MAX), name: long.parse().unwrap() });
    volume.owner = NodeId(u64::MAX);
    volume.format = VolumeFormat(u32::MAX);
    let publication = RootPublication {
        generation: Generation(u64::MAX),
        written_blocks: u64::MAX,
        at: Some(UnixTime { unix_ms: u64::MAX }),
        ..publication(VolumeId(u64::MAX), u64::MAX, 9, 0)
    };
    let bootstrap = Bootstrap {
        cluster: ClusterId::from_bytes([255; 16]),
        site: long.parse().unwrap(),
        node: long.parse().unwrap(),
        address: Some("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff%4294967295]:65535".parse().unwrap()),
    };
    let mut commands = vec![Command::CreateVolume(volume), Command::Bootstrap(bootstrap), nodes::longest_admission()];
    commands.push(snapshot(VolumeId(u64::MAX), &long, 9, u64::MAX));
    commands.push(Command::PublishRoots(vec![publication; 1000]));
    commands.extend(replicas::longest_commands());
    commands.extend(moves::longest_commands());
    commands.extend(in_sync::longest_commands());
    commands.push(Command::PublishRoots(vec![publication]));
    commands.push(Command::RenewSession { node: NodeId(u64::MAX), number: SessionNumber(u64::MAX) });
    for command in commands {
        let request = Request { id: Some(RequestId(u128::MAX)), command };
        let bytes = serde_json::to_vec(&request).unwrap().len();
        assert!(bytes <= request.bytes_at_most(), "{bytes} bytes: {:?}", request.command);
    }
}

#[test]
fn nothing_is_done_before_there_is_a_cluster_nor_a_second_one_made() {
    let mut metadata = Metadata::default();
    assert_eq!(apply(&mut metadata, create_volume("a")), Err(Refusal::NotBootstrapped));
    apply(&mut metadata, bootstrap_command()).unwrap();
    let cluster = ClusterId::from_bytes([7; 16]);
    assert_eq!(apply(&mut metadata, bootstrap_command()), Err(Refusal::AlreadyBootstrapped { cluster }));
}

#[test]
fn an_id_is_not_given_out_again_after_its_volume_was_deleted() {
    let (mut metadata, first) = with_volume("a");
    apply(&mut metadata, Command::DeleteVolume { volume: first, with_snapshots: false }).unwrap();
    apply(&mut metadata, create_volume("a")).unwrap();
    assert!(metadata.volume_named(&"a".parse().unwrap()).unwrap().id > first);
}

#[test]
fn roots_are_refused_volume_by_volume() {
    let (mut metadata, a) = with_volume("a");
    apply(&mut metadata, create_volume("b")).unwrap();
    let b = metadata.volume_named(&"b".parse().unwrap()).unwrap().id;
    apply(&mut metadata, Command::PublishRoots(vec![publication(a, 1, 1, 5)])).unwrap();
    let missing = VolumeId(99);
    let outcome = apply(
        &mut metadata,
        Command::PublishRoots(vec![
            publication(a, 2, 2, 6),
            publication(a, 1, 2, 4),
            publication(a, 1, 2, 5),
            publication(a, 1, 1, 5),
            publication(missing, 1, 1, 1),
            publication(b, 1, 3, 1),
        ]),
    );
    let refused = vec![
        (a, Refusal::WrongEpoch { volume: a, given: Epoch::FIRST.next(), current: Epoch::FIRST }),
        (a, Refusal::OldGeneration { volume: a, given: Generation(4), published: Generation(5) }),
        (a, Refusal::OtherRoot { volume: a, generation: Generation(5) }),
        (missing, Refusal::NoSuchVolume { volume: missing }),
    ];
    assert_eq!(outcome, Ok(Outcome::Published { refused }));
    let published = |id| {
        let Published { root, generation, .. } = metadata.volume(id).unwrap().published;
        Published::of(root, generation)
    };
    assert_eq!(published(a), Published::of(root(1), Generation(5)));
    assert_eq!(published(b), Published::of(root(3), Generation(1)));
}

#[test]
fn an_import_is_complete_only_when_it_is_said_to_be() {
    let mut metadata = begun();
    apply(&mut metadata, Command::CreateVolume(new_volume("a", Origin::Import))).unwrap();
    let volume = VolumeId(1);
    assert_eq!(apply(&mut metadata, snapshot(volume, "s", 0, 0)), Err(Refusal::StillImporting { volume }));
    let clone = Command::CreateVolume(new_volume("b", Origin::Published { volume, root: Root::EMPTY }));
    assert_eq!(apply(&mut metadata, clone.clone()), Err(Refusal::StillImporting { volume }));
    let finish = Command::FinishImport { volume, epoch: Epoch::FIRST, root: root(1), generation: Generation(1) };
    apply(&mut metadata, finish.clone()).unwrap();
    assert_eq!(apply(&mut metadata, finish), Err(Refusal::NotImporting { volume }));
    assert_eq!(apply(&mut metadata, clone), Err(Refusal::RootHasMoved { volume }));
    let clone = Command::CreateVolume(new_volume("b", Origin::Published { volume, root: root(1) }));
    apply(&mut metadata, clone).unwrap();
    let made = metadata.volume_named(&"b".parse().unwrap()).unwrap();
    assert_eq!((made.published.root, made.origin.as_ref().unwrap().volume), (root(1), volume));
}

#[test]
fn a_clone_of_a_snapshot_is_what_the_snapshot_is() {
    let (mut metadata, volume) = with_volume("a");
    apply(&mut metadata, Command::PublishRoots(vec![publication(volume, 1, 1, 1)])).unwrap();
    apply(&mut metadata, snapshot(volume, "s", 1, 1)).unwrap();
    apply(&mut metadata, Command::PublishRoots(vec![publication(volume, 1, 2, 2)])).unwrap();
    let clone = |name, size, format| {
        let origin = Origin::Snapshot { volume, name: "s".parse().unwrap() };
        Command::CreateVolume(NewVolume {
            size: blocks(size),
            format: VolumeFormat(format),
            ..new_volume(name, origin)
        })
    };
    assert!(matches!(apply(&mut metadata, clone("c", 99, 1)), Err(Refusal::SmallerThanOrigin { .. })));
    assert!(matches!(apply(&mut metadata, clone("c", 100, 2)), Err(Refusal::OtherFormat { .. })));
    apply(&mut metadata, clone("c", 200, 1)).unwrap();
    let refusal = apply(&mut metadata, Command::DeleteVolume { volume, with_snapshots: false });
    assert_eq!(refusal, Err(Refusal::HasSnapshots { volume, count: 1 }));
    apply(&mut metadata, Command::DeleteVolume { volume, with_snapshots: true }).unwrap();
    let made = metadata.volume_named(&"c".parse().unwrap()).unwrap();
    assert_eq!(made.published, Published::of(root(1), Generation::FIRST));
    assert_eq!(metadata.check(), Ok(()));
}

#[test]
fn a_request_that_comes_again_is_answered_and_not_carried_out_again() {
    let mut metadata = begun();
    let request = |id: u128, command| Request { id: Some(RequestId(id)), command };
    let outcome = metadata.apply(&request(1, create_volume("a"))).unwrap();
    assert_eq!(metadata.apply(&request(1, create_volume("a"))), Ok(outcome));
    assert!(matches!(metadata.apply(&request(2, create_volume("a"))), Err(Refusal::VolumeNameTaken { .. })));
    let volume = VolumeId(1);
    for id in 0..MAX_ANSWERED_REQUESTS as u128 {
        let command = Command::SetAttach { volume, attach: AttachPolicy::Auto };
        metadata.apply(&request(100 + id, command)).unwrap();
    }
    assert_eq!(metadata.check(), Ok(()));
    assert!(matches!(metadata.apply(&request(1, create_volume("a"))), Err(Refusal::VolumeNameTaken { .. })));
}

#[test]
fn a_copy_shows_its_moment_whatever_comes_later() {
    let (mut metadata, volume) = with_volume("a");
    let copy = metadata.clone();
    apply(&mut metadata, Command::PublishRoots(vec![publication(volume, 1, 1, 1)])).unwrap();
    apply(&mut metadata, Command::RenameVolume { volume, name: "b".parse().unwrap() }).unwrap();
    assert_eq!(copy.volume(volume).unwrap().published.root, Root::EMPTY);
    assert!(copy.volume_named(&"b".parse().unwrap()).is_none());
    assert!(metadata.volume_named(&"a".parse().unwrap()).is_none());
}

#[test]
fn ten_thousand_volumes_and_a_thousand_snapshots_of_one_fit_and_snapshots_have_a_bound() {
    let mut metadata = begun();
    let mut views = Vec::new();
    for number in 0..10_000 {
        apply(&mut metadata, create_volume(&format!("v{number}"))).unwrap();
        views.push(metadata.clone());
    }
    assert!(views.iter().zip(1..).all(|(view, count)| view.volume_count() == count));
    let volume = VolumeId(5_000);
    for number in 0..MAX_SNAPSHOTS_PER_VOLUME {
        apply(&mut metadata, snapshot(volume, &format!("s{number}"), 0, 0)).unwrap();
    }
    let refusal = apply(&mut metadata, snapshot(volume, "one-more", 0, 0));
    assert_eq!(refusal, Err(Refusal::TooManySnapshotsOfVolume { volume }));
    assert_eq!(metadata.check(), Ok(()));
}

#[test]
fn metadata_that_contradicts_itself_is_not_read() {
    let (mut metadata, volume) = with_volume("a");
    apply(&mut metadata, snapshot(volume, "s", 0, 0)).unwrap();
    let json = serde_json::to_string(&metadata).unwrap();
    for (good, bad) in [
        ("\"owner\":1", "\"owner\":2"),
        ("\"last_volume\":1", "\"last_volume\":0"),
        ("\"id\":1,\"name\":\"a\"", "\"id\":2,\"name\":\"a\""),
        ("\"version\":1", "\"version\":99"),
        ("\"epoch\":1", "\"epoch\":0"),
        ("\"cluster\":{", "\"later\":1,\"cluster\":{"),
        ("\"root\":\"empty\",\"size\":409600", "\"root\":\"empty\",\"size\":4096000"),
        ("\"site\":\"ams\"", "\"site\":\"fra\""),
    ] {
        assert!(json.contains(good), "{json} has no {good}");
        let read = serde_json::from_str::<Metadata>(&json.replacen(good, bad, 1));
        assert!(read.is_err(), "{bad} was read");
    }
}
