//! Handoffs: how they begin, how they end, and what is refused.

use super::nodes::{admission, layout_revision, new_token, open_session, with_nodes};
use super::replicas::{OWNER, VOLUME, fail_over, lapse, published, report, set, site};
use super::*;
use crate::limits::MAX_VOLUMES_PER_HANDOFF;
use crate::state::command::ReplicaReport;
use crate::state::handoffs::{ReceivedVolume, VolumeHandoff};
use crate::state::hydration::Source;
use crate::state::layout::NodeChange;
use crate::state::ownership::{CannotPass, HandoffNumber, Ownership};
use crate::state::replica::{Complete, Replica, ReplicaMode};

pub(super) const B: NodeId = NodeId(2);
pub(super) const C: NodeId = NodeId(3);
pub(super) const FIRST: HandoffNumber = HandoffNumber(1);
pub(super) const E1: Epoch = Epoch::FIRST;

pub(super) fn begin(by: NodeId, to: NodeId, number: u64) -> Command {
    let handoff = VolumeHandoff { volume: VOLUME, handoff: HandoffNumber(number) };
    Command::BeginHandoff { by, to, volumes: vec![handoff] }
}

pub(super) fn commit(by: NodeId, number: u64, contents: Published) -> Command {
    let received = ReceivedVolume { volume: VOLUME, handoff: HandoffNumber(number), contents };
    Command::CommitHandoff { by, volumes: vec![received] }
}

pub(super) fn abort(by: NodeId, number: u64) -> Command {
    let handoff = VolumeHandoff { volume: VOLUME, handoff: HandoffNumber(number) };
    Command::AbortHandoff { by, volumes: vec![handoff] }
}

pub(super) fn decline(by: NodeId, number: u64) -> Command {
    let handoff = VolumeHandoff { volume: VOLUME, handoff: HandoffNumber(number) };
    Command::DeclineHandoff { by, volumes: vec![handoff] }
}

pub(super) fn reclaim(node: NodeId, epoch: Epoch) -> Command {
    Command::Reclaim { volume: VOLUME, epoch, node }
}

pub(super) fn finish(node: NodeId, epoch: Epoch, names: &[&str]) -> Command {
    let snapshots = names.iter().map(|name| name.parse().unwrap()).collect();
    Command::FinishHydration { volume: VOLUME, epoch, node, snapshots }
}

pub(super) fn cannot(why: CannotPass) -> Refusal {
    Refusal::CannotPass { volume: VOLUME, why }
}

/// What came of ending the handoff of one volume.
pub(super) fn ended(metadata: &mut Metadata, command: Command) -> Result<(), Refusal> {
    match apply(metadata, command) {
        Ok(Outcome::HandoffsEnded { refused }) => match refused.into_iter().next() {
            None => Ok(()),
            Some((volume, refusal)) => {
                assert_eq!(volume, VOLUME);
                Err(refusal)
            }
        },
        other => panic!("{other:?}"),
    }
}

/// Three nodes; the first one's volume has published generation 4, and the second and the third keep replicas of it.
fn owned() -> Metadata {
    let mut metadata = with_nodes(3);
    apply(&mut metadata, create_volume("a")).unwrap();
    apply(&mut metadata, set(2)).unwrap();
    apply(&mut metadata, set(3)).unwrap();
    apply(&mut metadata, Command::PublishRoots(vec![publication(VOLUME, 1, 4, 4)])).unwrap();
    apply(&mut metadata, report(2, E1, published(4, 4))).unwrap();
    apply(&mut metadata, report(3, E1, published(4, 4))).unwrap();
    metadata
}

/// As that, on its way to the second node.
pub(super) fn moving() -> Metadata {
    let mut metadata = owned();
    apply(&mut metadata, begin(OWNER, B, 1)).unwrap();
    metadata
}

/// As that, having arrived there with generation 5.
pub(super) fn moved() -> Metadata {
    let mut metadata = moving();
    ended(&mut metadata, commit(B, 1, published(5, 5))).unwrap();
    metadata
}

pub(super) fn volume(metadata: &Metadata) -> &Volume {
    metadata.volume(VOLUME).unwrap()
}

#[test]
fn a_volume_passes_to_another_node_which_in_the_end_needs_the_former_one_no_more() {
    let mut metadata = owned();
    apply(&mut metadata, snapshot(VOLUME, "before", 4, 4)).unwrap();
    apply(&mut metadata, begin(OWNER, B, 1)).unwrap();
    let moving = Ownership { owner: OWNER, epoch: E1, moving_to: Some(B), last_handoff: FIRST };
    assert_eq!(volume(&metadata).ownership(), moving);
    // Its owner goes on in its epoch, and publishes.
    apply(&mut metadata, Command::PublishRoots(vec![publication(VOLUME, 1, 5, 5)])).unwrap();
    ended(&mut metadata, commit(B, 1, published(6, 6))).unwrap();

    let now = volume(&metadata);
    let e2 = E1.next();
    assert_eq!(now.ownership(), Ownership { owner: B, epoch: e2, moving_to: None, last_handoff: FIRST });
    assert_eq!((now.published, now.superseded.is_empty()), (published(6, 6), true));
    assert_eq!(now.sources, [Source { node: OWNER, epoch: E1, root: root(6) }]);
    let holders = |metadata: &Metadata| {
        let volume = volume(metadata);
        volume.holders(volume.snapshots.get(&"before".parse().unwrap()).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(holders(&metadata), [OWNER], "the new owner has not fetched it yet");
    // The replica has gone where the volume came from, and has what that had.
    let complete = Some(Complete { epoch: E1, contents: published(6, 6) });
    let left = Replica { node: OWNER, mode: ReplicaMode::Async, complete, mapped: None };
    let sites: Vec<_> = now.replicas.keys().map(SiteName::as_str).collect();
    assert_eq!((sites, now.replicas.values().next()), (vec!["ams", "s3"], Some(&left)));
    assert!(now.replicas[&site(3)].complete.is_some(), "what others have is as it was");

    // Late publications of the former owner are refused, those of the new one are not.
    let late = apply(&mut metadata, Command::PublishRoots(vec![publication(VOLUME, 1, 7, 7)]));
    let refusal = Refusal::WrongEpoch { volume: VOLUME, given: E1, current: e2 };
    assert_eq!(late, Ok(Outcome::Published { refused: vec![(VOLUME, refusal)] }));
    apply(&mut metadata, Command::PublishRoots(vec![publication(VOLUME, 2, 7, 7)])).unwrap();

    apply(&mut metadata, finish(B, e2, &["before", "gone"])).unwrap();
    assert!(volume(&metadata).is_hydrated());
    assert_eq!(holders(&metadata), [OWNER, B], "the former owner keeps a replica");
    apply(&mut metadata, finish(B, e2, &["before", "gone"])).unwrap();
    assert_eq!(metadata.check(), Ok(()));
}

#[test]
fn several_volumes_are_handed_over_together_or_not_at_all() {
    let mut metadata = owned();
    apply(&mut metadata, create_volume("b")).unwrap();
    let second = VolumeId(2);
    let both = |number: u64, second_number: u64| Command::BeginHandoff {
        by: OWNER,
        to: B,
        volumes: vec![
            VolumeHandoff { volume: VOLUME, handoff: HandoffNumber(number) },
            VolumeHandoff { volume: second, handoff: HandoffNumber(second_number) },
        ],
    };
    let before = metadata.clone();
    let wrong = CannotPass::NotUnderWay { given: HandoffNumber(2) };
    let refusal = Refusal::CannotPass { volume: second, why: wrong };
    assert_eq!(apply(&mut metadata, both(1, 2)), Err(refusal));
    assert_eq!(metadata, before);
    assert_eq!(apply(&mut metadata, both(1, 1)), Ok(Outcome::Done));
    assert!(metadata.volumes().all(|volume| volume.moving_to == Some(B)));

    // Each ends by itself.
    let given = |volume, contents| ReceivedVolume { volume, handoff: FIRST, contents };
    let volumes =
        vec![given(VOLUME, published(3, 3)), given(second, published(1, 1)), given(VolumeId(9), published(1, 1))];
    let outcome = apply(&mut metadata, Command::CommitHandoff { by: B, volumes });
    let old = Refusal::OldGeneration { volume: VOLUME, given: Generation(3), published: Generation(4) };
    let missing = Refusal::NoSuchVolume { volume: VolumeId(9) };
    assert_eq!(outcome, Ok(Outcome::HandoffsEnded { refused: vec![(VOLUME, old), (VolumeId(9), missing)] }));
    let owners: Vec<_> = metadata.volumes().map(|volume| volume.owner).collect();
    assert_eq!(owners, [OWNER, B]);
}

#[test]
fn a_handoff_names_volumes_of_a_bounded_number_and_none_of_them_twice() {
    let mut metadata = owned();
    let refused = |metadata: &mut Metadata, count| {
        let volumes = vec![VolumeHandoff { volume: VOLUME, handoff: FIRST }; count];
        apply(metadata, Command::BeginHandoff { by: OWNER, to: B, volumes }).unwrap_err()
    };
    assert_eq!(refused(&mut metadata, 0), Refusal::VolumesOfHandoff { given: 0 });
    assert_eq!(refused(&mut metadata, 2), Refusal::NamedTwice { volume: VOLUME });
    let given = MAX_VOLUMES_PER_HANDOFF + 1;
    assert_eq!(refused(&mut metadata, given), Refusal::VolumesOfHandoff { given });
    let volumes = vec![VolumeHandoff { volume: VOLUME, handoff: FIRST }; given];
    let refusal = apply(&mut metadata, Command::AbortHandoff { by: OWNER, volumes });
    assert_eq!(refusal, Err(Refusal::VolumesOfHandoff { given }));
    let received = ReceivedVolume { volume: VOLUME, handoff: FIRST, contents: published(4, 4) };
    let refusal = apply(&mut metadata, Command::CommitHandoff { by: B, volumes: vec![received; given] });
    assert_eq!(refusal, Err(Refusal::VolumesOfHandoff { given }));
}

#[test]
fn a_handoff_is_between_two_nodes_that_are_there() {
    let mut metadata = owned();
    let refused = |metadata: &mut Metadata, command| apply(metadata, command).unwrap_err();
    let not_owner = cannot(CannotPass::NotOwner { given: B, owner: OWNER });
    assert_eq!(refused(&mut metadata, begin(B, C, 1)), not_owner);
    assert_eq!(refused(&mut metadata, begin(OWNER, OWNER, 1)), cannot(CannotPass::ToItself { node: OWNER }));
    assert_eq!(refused(&mut metadata, begin(OWNER, NodeId(9), 1)), Refusal::NoSuchNode { node: NodeId(9) });
    let wrong = cannot(CannotPass::NotUnderWay { given: HandoffNumber(2) });
    assert_eq!(refused(&mut metadata, begin(OWNER, B, 2)), wrong);
    lapse(&mut metadata, 2);
    assert_eq!(refused(&mut metadata, begin(OWNER, B, 1)), Refusal::NoSession { node: B });
    open_session(&mut metadata, B);
    let revision = layout_revision(apply(&mut metadata, Command::StageChange(NodeChange::Drain(B))));
    apply(&mut metadata, Command::ApplyChanges { revision }).unwrap();
    assert_eq!(refused(&mut metadata, begin(OWNER, B, 1)), Refusal::Draining { node: B });
    apply(&mut metadata, begin(OWNER, C, 1)).unwrap();
    let under_way = cannot(CannotPass::HandoffUnderWay { to: C });
    assert_eq!(refused(&mut metadata, begin(OWNER, C, 1)), under_way, "the same request once more");

    lapse(&mut metadata, 1);
    assert_eq!(refused(&mut metadata, begin(OWNER, C, 2)), Refusal::NoSession { node: OWNER });
    let mut metadata = with_nodes(2);
    apply(&mut metadata, Command::CreateVolume(new_volume("a", Origin::Import))).unwrap();
    assert_eq!(refused(&mut metadata, begin(OWNER, B, 1)), Refusal::StillImporting { volume: VOLUME });
}

#[test]
fn a_volume_moves_within_a_site_too() {
    let mut metadata = owned();
    apply(&mut metadata, Command::CreateToken(new_token(4))).unwrap();
    apply(&mut metadata, Command::AdmitNode(admission(4, "ams-2", "ams"))).unwrap();
    let neighbour = NodeId(4);
    open_session(&mut metadata, neighbour);
    let replicas = volume(&metadata).replicas.clone();
    apply(&mut metadata, begin(OWNER, neighbour, 1)).unwrap();
    ended(&mut metadata, commit(neighbour, 1, published(5, 5))).unwrap();
    assert_eq!((volume(&metadata).owner, &volume(&metadata).replicas), (neighbour, &replicas));
    assert_eq!(metadata.check(), Ok(()));
}

#[test]
fn a_node_that_kept_the_replica_where_another_one_is_given_the_volume_keeps_it_no_more() {
    let mut metadata = owned();
    apply(&mut metadata, Command::CreateToken(new_token(4))).unwrap();
    apply(&mut metadata, Command::AdmitNode(admission(4, "n4", "s2"))).unwrap();
    open_session(&mut metadata, NodeId(4));
    apply(&mut metadata, snapshot(VOLUME, "s", 4, 4)).unwrap();
    let name: SnapshotName = "s".parse().unwrap();
    let copied =
        ReplicaReport { volume: VOLUME, epoch: E1, complete: None, is_map: false, snapshots: vec![name.clone()] };
    apply(&mut metadata, Command::ReportReplicas { node: B, reports: vec![copied] }).unwrap();
    apply(&mut metadata, begin(OWNER, NodeId(4), 1)).unwrap();
    ended(&mut metadata, commit(NodeId(4), 1, published(5, 5))).unwrap();
    let volume = volume(&metadata);
    assert!(volume.replicas.values().all(|replica| replica.node != B));
    assert_eq!(volume.snapshots.get(&name).unwrap().holders, [OWNER].into());
    assert_eq!(metadata.check(), Ok(()));
}

#[test]
fn a_handoff_ends_once() {
    for end in [abort(OWNER, 1), decline(B, 1)] {
        let mut metadata = moving();
        ended(&mut metadata, end.clone()).unwrap();
        assert_eq!(volume(&metadata).ownership(), Ownership { last_handoff: FIRST, ..Ownership::of(OWNER, E1) });
        let over = cannot(CannotPass::NotUnderWay { given: FIRST });
        for late in [end, commit(B, 1, published(5, 5)), abort(OWNER, 1), decline(B, 1)] {
            assert_eq!(ended(&mut metadata, late), Err(over.clone()));
        }
        assert_eq!(apply(&mut metadata, begin(OWNER, B, 1)), Err(over), "it is not begun again");
        apply(&mut metadata, begin(OWNER, B, 2)).unwrap();
        assert!(volume(&metadata).sources.is_empty());
    }
    let mut metadata = moved();
    let over = cannot(CannotPass::NotUnderWay { given: FIRST });
    for late in [abort(OWNER, 1), decline(B, 1)] {
        assert_eq!(ended(&mut metadata, late), Err(over.clone()));
    }
    let not_owner = cannot(CannotPass::NotOwner { given: OWNER, owner: B });
    assert_eq!(apply(&mut metadata, begin(OWNER, B, 1)), Err(not_owner));

    let mut metadata = moving();
    let not_owner = cannot(CannotPass::NotOwner { given: B, owner: OWNER });
    assert_eq!(ended(&mut metadata, abort(B, 1)), Err(not_owner));
    let not_recipient = cannot(CannotPass::NotRecipient { given: C });
    assert_eq!(ended(&mut metadata, decline(C, 1)), Err(not_recipient.clone()));
    assert_eq!(ended(&mut metadata, commit(C, 1, published(5, 5))), Err(not_recipient));
    let nobody = apply(&mut metadata, decline(NodeId(9), 1));
    assert_eq!(nobody, Err(Refusal::NoSuchNode { node: NodeId(9) }));
}

#[test]
fn what_was_published_never_falls_by_a_commit() {
    let mut metadata = moving();
    let old = Refusal::OldGeneration { volume: VOLUME, given: Generation(3), published: Generation(4) };
    assert_eq!(ended(&mut metadata, commit(B, 1, published(3, 3))), Err(old));
    let other = Refusal::OtherRoot { volume: VOLUME, generation: Generation(4) };
    assert_eq!(ended(&mut metadata, commit(B, 1, published(5, 4))), Err(other));
    assert_eq!(volume(&metadata).moving_to, Some(B));
    // The former owner had nothing newer.
    ended(&mut metadata, commit(B, 1, published(4, 4))).unwrap();
    assert_eq!(volume(&metadata).published, published(4, 4));
}

#[test]
fn a_commit_that_arrives_again_is_accepted_and_changes_nothing() {
    let mut metadata = moved();
    apply(&mut metadata, Command::PublishRoots(vec![publication(VOLUME, 2, 7, 7)])).unwrap();
    apply(&mut metadata, finish(B, E1.next(), &[])).unwrap();
    let before = metadata.clone();
    ended(&mut metadata, commit(B, 1, published(5, 5))).unwrap();
    assert_eq!(metadata, before);
    let over = cannot(CannotPass::NotUnderWay { given: FIRST });
    assert_eq!(ended(&mut metadata, commit(C, 1, published(5, 5))), Err(over.clone()), "it is another node's");
    let none = cannot(CannotPass::NotUnderWay { given: HandoffNumber::NONE });
    assert_eq!(ended(&mut owned(), commit(OWNER, 0, published(5, 5))), Err(none), "there was none");

    // It owns the volume again, but not by that handoff.
    apply(&mut metadata, report(3, E1.next(), published(7, 7))).unwrap();
    lapse(&mut metadata, 2);
    apply(&mut metadata, fail_over(3, E1.next(), root(7))).unwrap();
    apply(&mut metadata, report(2, E1.next().next(), Published { generation: Generation(8), ..published(7, 7) }))
        .unwrap();
    open_session(&mut metadata, B);
    lapse(&mut metadata, 3);
    apply(&mut metadata, fail_over(2, E1.next().next(), root(7))).unwrap();
    assert_eq!(volume(&metadata).owner, B);
    assert_eq!(ended(&mut metadata, commit(B, 1, published(5, 5))), Err(over));
}

#[test]
fn a_volume_stays_as_it_is_while_it_is_handed_over() {
    let mut metadata = moving();
    let under_way = cannot(CannotPass::HandoffUnderWay { to: B });
    let grow = Command::ResizeVolume { volume: VOLUME, size: blocks(200) };
    assert_eq!(apply(&mut metadata, grow.clone()), Err(under_way.clone()));
    let delete = Command::DeleteVolume { volume: VOLUME, with_snapshots: true };
    assert_eq!(apply(&mut metadata, delete.clone()), Err(under_way));
    apply(&mut metadata, Command::RenameVolume { volume: VOLUME, name: "b".parse().unwrap() }).unwrap();
    ended(&mut metadata, commit(B, 1, published(5, 5))).unwrap();
    apply(&mut metadata, grow).unwrap();
    apply(&mut metadata, delete).unwrap();
    assert_eq!(metadata.check(), Ok(()));
}

#[test]
fn volumes_are_handed_over_only_from_the_version_on_that_knows_it() {
    let mut metadata = begun();
    apply(&mut metadata, Command::RaiseVersion { version: MetadataVersion::REPLICAS }).unwrap();
    apply(&mut metadata, create_volume("a")).unwrap();
    let (required, current) = (MetadataVersion::HANDOFFS, MetadataVersion::REPLICAS);
    let commands = [
        begin(OWNER, B, 1),
        commit(B, 1, published(1, 1)),
        abort(OWNER, 1),
        decline(B, 1),
        reclaim(OWNER, E1),
        finish(OWNER, E1, &[]),
    ];
    for command in commands {
        assert_eq!(apply(&mut metadata, command), Err(Refusal::NeedsVersion { required, current }));
    }
    let json = serde_json::to_string(&metadata).unwrap();
    for field in ["last_handoff", "moving_to", "sources"] {
        assert!(!json.contains(field), "a program of that version would not read {json}");
    }
}

#[test]
fn handoffs_that_contradict_themselves_are_not_read() {
    let mut metadata = moved();
    apply(&mut metadata, begin(B, C, 2)).unwrap();
    let json = serde_json::to_string(&metadata).unwrap();
    assert_eq!(serde_json::from_str::<Metadata>(&json).unwrap(), metadata);
    for (good, bad) in [
        ("\"moving_to\":3", "\"moving_to\":2"),
        ("\"moving_to\":3", "\"moving_to\":9"),
        ("\"last_handoff\":2,", ""),
        ("\"state\":\"ready\"", "\"state\":\"importing\""),
        ("\"sources\":[{\"node\":1,\"epoch\":1", "\"sources\":[{\"node\":1,\"epoch\":2"),
        ("\"sources\":[{\"node\":1,\"epoch\":1", "\"sources\":[{\"node\":9,\"epoch\":1"),
    ] {
        assert!(json.contains(good), "{json} has no {good}");
        let read = serde_json::from_str::<Metadata>(&json.replacen(good, bad, 1));
        assert!(read.is_err(), "{bad} was read");
    }
}
