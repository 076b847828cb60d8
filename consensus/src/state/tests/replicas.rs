//! Replicas, and taking over without the owner.

use super::nodes::{layout_revision, open_session, with_nodes};
use super::*;
use crate::limits::{MAX_REPLICAS, MAX_SUPERSEDED};
use crate::state::command::{Branch, ReplicaReport};
use crate::state::layout::NodeChange;
use crate::state::replica::{Complete, Loss, Replica, ReplicaMode, Superseded};
use crate::state::session::SessionNumber;

pub(super) const VOLUME: VolumeId = VolumeId(1);
pub(super) const OWNER: NodeId = NodeId(1);

/// Few ids, so that random commands meet each other.
pub(super) fn any_replica_command() -> impl Strategy<Value = Command> {
    let id = || (0u64..6).prop_map(VolumeId);
    let node = || (1u64..5).prop_map(NodeId);
    let site = || {
        prop_oneof![1 => Just("ams".to_owned()), 3 => (0u8..3).prop_map(|n| format!("s{n}"))]
            .prop_map(|s| s.parse::<SiteName>().unwrap())
    };
    let epoch = || (1u64..4).prop_map(|number| Epoch::from_number(number).unwrap());
    let names = || collection::vec((0u8..5).prop_map(|n| format!("s{n}").parse::<SnapshotName>().unwrap()), 0..3);
    let contents = || {
        (0u8..4, 0u64..20, 0u64..50).prop_map(|(number, generation, written_blocks)| Published {
            written_blocks,
            ..Published::of(root(number), Generation(generation))
        })
    };
    let is_map = prop_oneof![3 => Just(false), 1 => Just(true)];
    let report = (id(), epoch(), option::of(contents()), is_map, names()).prop_map(
        |(volume, epoch, complete, is_map, snapshots)| ReplicaReport { volume, epoch, complete, is_map, snapshots },
    );
    let mode = prop_oneof![1 => Just(ReplicaMode::Async), 2 => Just(ReplicaMode::Sync), 1 => Just(ReplicaMode::Cache)];
    let branch = (0u8..5, contents(), 1u64..6).prop_map(|(name, contents, size)| Branch {
        name: format!("s{name}").parse().unwrap(),
        root: contents.root,
        generation: contents.generation,
        size: blocks(50 * size),
        at: UnixTime { unix_ms: 1 },
    });
    prop_oneof![
        4 => (id(), node(), mode).prop_map(|(volume, node, mode)| Command::SetReplica { volume, node, mode }),
        1 => (id(), site()).prop_map(|(volume, site)| Command::UnsetReplica { volume, site }),
        4 => (node(), collection::vec(report, 0..4))
            .prop_map(|(node, reports)| Command::ReportReplicas { node, reports }),
        4 => (id(), epoch(), site(), 0u8..4).prop_map(|(volume, epoch, site, number)| {
            Command::FailOver { volume, epoch, site, root: root(number), published: None }
        }),
        2 => (id(), epoch(), node(), option::of(branch)).prop_map(|(volume, epoch, node, branch)| {
            Command::SettleEpoch { volume, epoch, node, branch }
        }),
    ]
}

pub(super) fn longest_commands() -> Vec<Command> {
    let long: SnapshotName = "x".repeat(63).parse().unwrap();
    let (epoch, volume, node) = (Epoch::from_number(u64::MAX).unwrap(), VolumeId(u64::MAX), NodeId(u64::MAX));
    let contents = Published {
        written_blocks: u64::MAX,
        at: Some(UnixTime { unix_ms: u64::MAX }),
        ..Published::of(root(9), Generation(u64::MAX))
    };
    let report =
        ReplicaReport { volume, epoch, complete: Some(contents), is_map: false, snapshots: vec![long.clone(); 100] };
    let branch = Branch {
        name: long,
        root: root(9),
        generation: Generation(u64::MAX),
        size: VolumeSize::try_from(VolumeSize::MAX).unwrap(),
        at: UnixTime { unix_ms: u64::MAX },
    };
    vec![
        Command::ReportReplicas { node, reports: vec![report; 100] },
        Command::SettleEpoch { volume, epoch, node, branch: Some(branch) },
    ]
}

/// What never happens to copies from one moment to a later one.
pub(super) fn check_step(before: &Metadata, after: &Metadata) {
    for was in before.volumes() {
        let Some(volume) = after.volume(was.id) else { continue };
        if was.owner != volume.owner && was.moving_to != Some(volume.owner) {
            let mut past = volume.superseded.iter();
            let ended = past.find(|past| past.epoch == was.epoch).expect("an epoch ended, and nobody remembers it");
            assert_eq!((ended.owner, ended.published), (was.owner, was.published));
            // An heir that was in sync goes on with more than it has published: see there.
            assert!(ended.resumed.root == volume.published.root || was.in_sync.contains(&volume.owner));
        }
        for (name, snapshot) in was.snapshots.iter() {
            let Some(now) = volume.snapshots.get(name) else { continue };
            assert!(volume.holders(now).next().is_some(), "nobody holds snapshot {name}");
            let is_owners = was.epoch == volume.epoch && now.holders.contains(&volume.owner);
            let was_held = is_owners || was.holders(snapshot).any(|holder| volume.is_held_by(now, holder));
            let is_gone = was.holders(snapshot).all(|holder| after.node(holder).is_none());
            assert!(was_held && !is_gone || snapshot.root != now.root, "the copies of snapshot {name} are forgotten");
        }
    }
}

pub(crate) fn site(number: u64) -> SiteName {
    format!("s{number}").parse().unwrap()
}

pub(super) fn published(number: u8, generation: u64) -> Published {
    let RootPublication { root, generation, written_blocks, at, .. } = publication(VOLUME, 1, number, generation);
    Published { root, generation, written_blocks, at }
}

pub(super) fn set(node: u64) -> Command {
    Command::SetReplica { volume: VOLUME, node: NodeId(node), mode: ReplicaMode::Async }
}

pub(super) fn report(node: u64, epoch: Epoch, complete: Published) -> Command {
    let report =
        ReplicaReport { volume: VOLUME, epoch, complete: Some(complete), is_map: false, snapshots: Vec::new() };
    Command::ReportReplicas { node: NodeId(node), reports: vec![report] }
}

pub(super) fn fail_over(to: u64, epoch: Epoch, root: Root) -> Command {
    Command::FailOver { volume: VOLUME, epoch, site: site(to), root, published: None }
}

pub(super) fn lapse(metadata: &mut Metadata, node: u64) {
    let command = Command::LapseSession { node: NodeId(node), number: SessionNumber(1), renewals: 0 };
    apply(metadata, command).unwrap();
}

/// Three nodes; the first one's volume is kept by the second and the third. Published is generation 4, complete are 2 and 3.
pub(super) fn with_replicas() -> Metadata {
    let mut metadata = with_nodes(3);
    apply(&mut metadata, create_volume("a")).unwrap();
    apply(&mut metadata, set(2)).unwrap();
    apply(&mut metadata, set(3)).unwrap();
    for (number, generation) in [(2, 2), (3, 3), (4, 4)] {
        apply(&mut metadata, Command::PublishRoots(vec![publication(VOLUME, 1, number, generation)])).unwrap();
    }
    apply(&mut metadata, report(2, Epoch::FIRST, published(2, 2))).unwrap();
    apply(&mut metadata, report(3, Epoch::FIRST, published(3, 3))).unwrap();
    metadata
}

#[test]
fn a_volume_is_taken_over_only_from_a_node_whose_session_has_ended_by_one_that_has_one() {
    let mut metadata = with_replicas();
    let first = Epoch::FIRST;
    let refused = |metadata: &mut Metadata, command| apply(metadata, command).unwrap_err();
    assert_eq!(
        refused(&mut metadata, fail_over(2, first, root(2))),
        Refusal::OwnerLives { volume: VOLUME, owner: OWNER }
    );
    lapse(&mut metadata, 1);
    lapse(&mut metadata, 3);
    assert_eq!(refused(&mut metadata, fail_over(3, first, root(3))), Refusal::NoSession { node: NodeId(3) });
    let moved = Refusal::ReplicaHasMoved { volume: VOLUME, site: site(2) };
    assert_eq!(refused(&mut metadata, fail_over(2, first, root(1))), moved, "something else would be lost");
    let nowhere = fail_over(9, first, root(2));
    assert_eq!(refused(&mut metadata, nowhere), Refusal::NoReplica { volume: VOLUME, site: site(9) });

    let next = first.next();
    assert_eq!(apply(&mut metadata, fail_over(2, first, root(2))), Ok(Outcome::TakenOver { epoch: next }));
    let again = Refusal::WrongEpoch { volume: VOLUME, given: first, current: next };
    assert_eq!(refused(&mut metadata, fail_over(2, first, root(2))), again);
    let stale = apply(&mut metadata, Command::PublishRoots(vec![publication(VOLUME, 1, 5, 5)]));
    assert_eq!(stale, Ok(Outcome::Published { refused: vec![(VOLUME, again.clone())] }));
    let late = apply(&mut metadata, report(3, first, published(4, 4)));
    assert_eq!(late, Ok(Outcome::Reported { refused: vec![(VOLUME, again)] }));

    let volume = metadata.volume(VOLUME).unwrap();
    assert_eq!((volume.owner, volume.epoch), (NodeId(2), next));
    assert_eq!(volume.published, Published { generation: Generation(5), ..published(2, 2) });
    let (published, resumed) = (published(4, 4), published(2, 2));
    let superseded = Superseded { epoch: first, owner: OWNER, published, resumed, reclaimed: None, is_settled: false };
    assert_eq!(volume.superseded, [superseded]);
    let follows = Replica { node: OWNER, mode: ReplicaMode::Async, complete: None, mapped: None };
    assert_eq!(volume.replicas.get(&"ams".parse().unwrap()), Some(&follows), "its site keeps a replica now");
    assert_eq!(volume.replicas.len(), 2);
    assert_eq!(metadata.check(), Ok(()));
}

#[test]
fn a_cache_promises_nothing_and_what_it_has_is_complete_only_once_it_is_said_to_be() {
    let first = Epoch::FIRST;
    let cache = |node: u64| Command::SetReplica { volume: VOLUME, node: NodeId(node), mode: ReplicaMode::Cache };
    let map_of = |node: u64, contents| {
        let (complete, snapshots) = (Some(contents), Vec::new());
        let report = ReplicaReport { volume: VOLUME, epoch: first, complete, is_map: true, snapshots };
        Command::ReportReplicas { node: NodeId(node), reports: vec![report] }
    };
    let kept = |metadata: &Metadata| {
        let replica = &metadata.volume(VOLUME).unwrap().replicas[&site(2)];
        let number = |complete: Option<Complete>| complete.map(|complete| complete.contents.generation.0);
        (number(replica.complete), number(replica.mapped))
    };
    let mut metadata = with_replicas();
    apply(&mut metadata, cache(2)).unwrap();
    assert_eq!(kept(&metadata), (None, Some(2)), "what it had it keeps, and promises no more");
    apply(&mut metadata, map_of(2, published(4, 4))).unwrap();
    assert_eq!(kept(&metadata), (None, Some(4)));
    lapse(&mut metadata, 1);
    let missing = Refusal::ReplicaIncomplete { volume: VOLUME, site: site(2) };
    assert_eq!(apply(&mut metadata, fail_over(2, first, root(4))), Err(missing));
    assert!(metadata.loss(metadata.volume(VOLUME).unwrap(), &site(2)).is_none());

    apply(&mut metadata, set(2)).unwrap();
    assert_eq!(kept(&metadata), (None, Some(4)), "it has to fetch what it lacks first, and keeps the rest until then");
    apply(&mut metadata, map_of(2, published(4, 4))).unwrap();
    assert_eq!(kept(&metadata), (None, Some(4)), "what was sent before that counts for no more than it says");
    apply(&mut metadata, report(2, first, published(4, 4))).unwrap();
    assert_eq!(kept(&metadata), (Some(4), None));
    assert_eq!(metadata.check(), Ok(()));
}

#[test]
fn what_is_lost_is_what_was_looked_at() {
    let mut metadata = with_replicas();
    lapse(&mut metadata, 1);
    let volume = metadata.volume(VOLUME).unwrap();
    let loss = metadata.loss(volume, &site(2)).unwrap();
    let (root, published) = (loss.complete.contents.root, Some(volume.published.generation));
    let command = Command::FailOver { volume: VOLUME, epoch: Epoch::FIRST, site: site(2), root, published };
    // Its owner has asked for it before its session ended.
    apply(&mut metadata, Command::PublishRoots(vec![publication(VOLUME, 1, 5, 5)])).unwrap();
    assert_eq!(apply(&mut metadata, command.clone()), Err(Refusal::PublishedHasMoved { volume: VOLUME }));
    let Command::FailOver { volume, epoch, site, root, .. } = command else { unreachable!() };
    let command = Command::FailOver { volume, epoch, site, root, published: Some(Generation(5)) };
    assert_eq!(apply(&mut metadata, command), Ok(Outcome::TakenOver { epoch: epoch.next() }));
}

#[test]
fn what_a_failover_has_given_up_is_not_gone_on_with_later() {
    let mut metadata = with_replicas();
    let next = Epoch::FIRST.next();
    lapse(&mut metadata, 1);
    // The third node has generation 3 of the first epoch, and the second goes on with generation 2.
    apply(&mut metadata, fail_over(2, Epoch::FIRST, root(2))).unwrap();
    lapse(&mut metadata, 2);
    let third = |metadata: &Metadata| metadata.loss(metadata.volume(VOLUME).unwrap(), &site(3)).unwrap();
    assert!(third(&metadata).is_given_up);
    let given_up = Refusal::ReplicaGivenUp { volume: VOLUME, site: site(3) };
    assert_eq!(apply(&mut metadata, fail_over(3, next, root(3))), Err(given_up));

    // What it pulls of the second epoch is of use again.
    apply(&mut metadata, report(3, next, Published { generation: Generation(5), ..published(2, 2) })).unwrap();
    assert!(!third(&metadata).is_given_up);
    assert_eq!(apply(&mut metadata, fail_over(3, next, root(2))), Ok(Outcome::TakenOver { epoch: next.next() }));
}

#[test]
fn what_was_gone_on_with_and_what_came_before_it_is_not_given_up() {
    let mut metadata = with_replicas();
    lapse(&mut metadata, 1);
    // The third node goes on with generation 3, and the second has generation 2, which came before it.
    apply(&mut metadata, fail_over(3, Epoch::FIRST, root(3))).unwrap();
    lapse(&mut metadata, 3);
    let volume = metadata.volume(VOLUME).unwrap();
    assert!(!metadata.loss(volume, &site(2)).unwrap().is_given_up);
    let next = Epoch::FIRST.next();
    assert_eq!(apply(&mut metadata, fail_over(2, next, root(2))), Ok(Outcome::TakenOver { epoch: next.next() }));
}

#[test]
fn a_node_that_has_had_no_session_yet_may_be_serving() {
    let mut metadata = with_replicas();
    metadata.change_node(OWNER, |node| node.session = None).unwrap();
    let refusal = apply(&mut metadata, fail_over(2, Epoch::FIRST, root(2)));
    assert_eq!(refusal, Err(Refusal::OwnerLives { volume: VOLUME, owner: OWNER }));
}

#[test]
fn what_no_replica_has_is_exposed() {
    let mut metadata = with_replicas();
    let exposed = |metadata: &Metadata| metadata.volume(VOLUME).unwrap().exposed_blocks();
    // Four have been published, with ten blocks each; the third site has three of them, and the second two.
    assert_eq!(exposed(&metadata), Some(10));
    apply(&mut metadata, report(2, Epoch::FIRST, published(4, 4))).unwrap();
    assert_eq!(exposed(&metadata), Some(0));
    let published = RootPublication { written_blocks: 47, ..publication(VOLUME, 1, 5, 5) };
    apply(&mut metadata, Command::PublishRoots(vec![published])).unwrap();
    assert_eq!(exposed(&metadata), Some(7));
    // What the third site has of the first epoch is no state of what the second one has gone on with from less.
    apply(&mut metadata, report(3, Epoch::FIRST, self::published(5, 5))).unwrap();
    lapse(&mut metadata, 1);
    apply(&mut metadata, fail_over(2, Epoch::FIRST, root(4))).unwrap();
    assert_eq!(exposed(&metadata), None, "all of it");
}

#[test]
fn what_a_failover_would_lose_is_what_was_published_and_is_not_there() {
    let mut metadata = with_replicas();
    let loss = |metadata: &Metadata, to: u64| metadata.loss(metadata.volume(VOLUME).unwrap(), &site(to)).unwrap();
    let expected = Loss {
        node: NodeId(2),
        complete: Complete { epoch: Epoch::FIRST, contents: published(2, 2) },
        published: published(4, 4),
        lost_blocks: 20,
        lost_ms: Some(2_000),
        all_is_published: false,
        is_given_up: false,
        is_in_sync: false,
        more_at: vec![site(3)],
    };
    assert_eq!(loss(&metadata, 2), expected);
    assert!(loss(&metadata, 3).more_at.is_empty());
    assert_eq!(metadata.loss(metadata.volume(VOLUME).unwrap(), &site(9)), None);
    // An owner that ended in good order has published everything.
    apply(&mut metadata, Command::CloseSession { node: OWNER, number: SessionNumber(1), all_is_published: true })
        .unwrap();
    assert!(loss(&metadata, 2).all_is_published);

    // The third site's copy goes further than what the second one went on with, and is no state of the volume from now on.
    apply(&mut metadata, fail_over(2, Epoch::FIRST, root(2))).unwrap();
    let next = Epoch::FIRST.next();
    let published = RootPublication { written_blocks: 27, ..publication(VOLUME, 2, 6, 6) };
    apply(&mut metadata, Command::PublishRoots(vec![published])).unwrap();
    assert!(loss(&metadata, 3).is_given_up);
    let caught_up = Published { written_blocks: 25, ..Published::of(root(5), Generation(5)) };
    apply(&mut metadata, report(3, next, caught_up)).unwrap();
    assert_eq!(loss(&metadata, 3).lost_blocks, 2);
}

#[test]
fn what_an_owner_still_had_is_kept_beside_what_was_gone_on_with() {
    let mut metadata = with_replicas();
    apply(&mut metadata, snapshot(VOLUME, "before", 3, 3)).unwrap();
    let name: SnapshotName = "before".parse().unwrap();
    let copied = ReplicaReport {
        volume: VOLUME,
        epoch: Epoch::FIRST,
        complete: None,
        is_map: false,
        snapshots: vec![name.clone()],
    };
    apply(&mut metadata, Command::ReportReplicas { node: NodeId(3), reports: vec![copied] }).unwrap();
    lapse(&mut metadata, 1);
    apply(&mut metadata, fail_over(2, Epoch::FIRST, root(2))).unwrap();

    let branch = Branch {
        name: "kept-e1".parse().unwrap(),
        root: root(9),
        generation: Generation(7),
        size: blocks(100),
        at: UnixTime { unix_ms: 9 },
    };
    let settle = |epoch, branch: &Branch| Command::SettleEpoch {
        volume: VOLUME,
        epoch,
        node: OWNER,
        branch: Some(branch.clone()),
    };
    let going_on = Epoch::FIRST.next();
    let refusal = apply(&mut metadata, settle(going_on, &branch));
    assert_eq!(refusal, Err(Refusal::EpochNotOver { volume: VOLUME, epoch: going_on }));
    apply(&mut metadata, settle(Epoch::FIRST, &branch)).unwrap();
    assert_eq!(apply(&mut metadata, settle(Epoch::FIRST, &branch)), Ok(Outcome::Done), "its answer was lost");
    let other = Branch { root: root(8), ..branch.clone() };
    let taken = Refusal::SnapshotNameTaken { volume: VOLUME, name: branch.name.clone() };
    assert_eq!(apply(&mut metadata, settle(Epoch::FIRST, &other)), Err(taken));

    let volume = metadata.volume(VOLUME).unwrap();
    assert!(volume.superseded[0].is_settled);
    let holders = |name: &SnapshotName| volume.holders(volume.snapshots.get(name).unwrap()).collect::<Vec<_>>();
    assert_eq!(holders(&branch.name), [OWNER]);
    assert_eq!(holders(&name), [OWNER, NodeId(3)], "the new owner has never had it");
    assert_eq!(metadata.check(), Ok(()));
}

#[test]
fn replicas_are_at_other_sites_than_the_owner_and_of_a_bounded_number() {
    let mut metadata = with_nodes(u64::try_from(MAX_REPLICAS).unwrap() + 2);
    apply(&mut metadata, create_volume("a")).unwrap();
    let at_owner = Refusal::ReplicaAtOwner { volume: VOLUME, site: "ams".parse().unwrap() };
    assert_eq!(apply(&mut metadata, set(1)), Err(at_owner));
    for node in 2..u64::try_from(MAX_REPLICAS).unwrap() + 2 {
        apply(&mut metadata, set(node)).unwrap();
    }
    let last = u64::try_from(MAX_REPLICAS).unwrap() + 2;
    assert_eq!(apply(&mut metadata, set(last)), Err(Refusal::TooManyReplicas { volume: VOLUME }));
    apply(&mut metadata, report(2, Epoch::FIRST, published(2, 2))).unwrap();
    apply(&mut metadata, set(2)).unwrap();
    let volume = metadata.volume(VOLUME).unwrap();
    assert!(volume.replicas[&site(2)].complete.is_some(), "one that is set again goes on with what it has");
    apply(&mut metadata, Command::UnsetReplica { volume: VOLUME, site: site(2) }).unwrap();
    let gone = Refusal::NoReplica { volume: VOLUME, site: site(2) };
    assert_eq!(apply(&mut metadata, Command::UnsetReplica { volume: VOLUME, site: site(2) }), Err(gone));
    let refused = vec![(VOLUME, Refusal::KeepsNoReplica { volume: VOLUME, node: NodeId(2) })];
    let late = apply(&mut metadata, report(2, Epoch::FIRST, published(2, 2)));
    assert_eq!(late, Ok(Outcome::Reported { refused }));
    assert_eq!(metadata.check(), Ok(()));
}

#[test]
fn a_node_that_keeps_copies_does_not_go_unseen() {
    let mut metadata = with_replicas();
    let stage = |metadata: &mut Metadata, change| apply(metadata, Command::StageChange(change));
    let keeps = Err(Refusal::KeepsReplicas { node: NodeId(2), count: 1 });
    assert_eq!(stage(&mut metadata, NodeChange::Remove(NodeId(2))), keeps);
    // The one that takes its place takes its replicas too.
    let third = NodeId(3);
    apply(&mut metadata, Command::UnsetReplica { volume: VOLUME, site: site(3) }).unwrap();
    let revision = layout_revision(stage(&mut metadata, NodeChange::Replace(NodeId(2), third)));
    apply(&mut metadata, Command::ApplyChanges { revision }).unwrap();
    let moved = Replica { node: third, mode: ReplicaMode::Async, complete: None, mapped: None };
    let volume = metadata.volume(VOLUME).unwrap();
    assert_eq!(volume.replicas.iter().collect::<Vec<_>>(), [(&site(3), &moved)]);
    assert_eq!(metadata.check(), Ok(()));

    // What only the old owner has would be gone with it.
    apply(&mut metadata, report(3, Epoch::FIRST, published(4, 4))).unwrap();
    apply(&mut metadata, snapshot(VOLUME, "only-here", 3, 3)).unwrap();
    lapse(&mut metadata, 1);
    apply(&mut metadata, fail_over(3, Epoch::FIRST, root(4))).unwrap();
    apply(&mut metadata, Command::UnsetReplica { volume: VOLUME, site: "ams".parse().unwrap() }).unwrap();
    apply(&mut metadata, Command::StageChange(NodeChange::Promote(third))).unwrap();
    let holds = Err(Refusal::HoldsSnapshots { node: OWNER, count: 1 });
    assert_eq!(stage(&mut metadata, NodeChange::Remove(OWNER)), holds);
}

#[test]
fn owners_that_never_return_are_forgotten_the_oldest_first() {
    let mut metadata = with_replicas();
    let mut epoch = Epoch::FIRST;
    let mut owner = 1;
    for round in 0..MAX_SUPERSEDED + 2 {
        let (heir, session) = (3 - owner, SessionNumber(u64::try_from(round / 2).unwrap() + 1));
        apply(&mut metadata, Command::CloseSession { node: NodeId(owner), number: session, all_is_published: false })
            .unwrap();
        let to = if heir == 1 { "ams".parse().unwrap() } else { site(heir) };
        let complete = metadata.volume(VOLUME).unwrap().published;
        apply(&mut metadata, report(heir, epoch, complete)).unwrap();
        let command = Command::FailOver { volume: VOLUME, epoch, site: to, root: complete.root, published: None };
        apply(&mut metadata, command).unwrap();
        open_session(&mut metadata, NodeId(owner));
        (epoch, owner) = (epoch.next(), heir);
    }
    let volume = metadata.volume(VOLUME).unwrap();
    assert_eq!(volume.superseded.len(), MAX_SUPERSEDED);
    assert_eq!(volume.superseded[0].epoch.number(), 3);
    assert_eq!(metadata.check(), Ok(()));
}
