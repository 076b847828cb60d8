//! Who is in sync: who comes in and goes, and taking over by one of them.

use std::collections::BTreeSet;

use super::handoffs::{B, C, E1, FIRST, abort, begin, cannot, commit, ended, reclaim, volume};
use super::nodes::{layout_revision, open_session, with_nodes};
use super::replicas::{OWNER, VOLUME, fail_over, lapse, published, report, set, site};
use super::*;
use crate::limits::MAX_SUPERSEDED;
use crate::state::in_sync::{CannotSync, InSyncRevision, MAX_IN_SYNC};
use crate::state::layout::NodeChange;
use crate::state::ownership::{CannotPass, Ownership};
use crate::state::replica::{Complete, Replica, ReplicaMode, Superseded};

mod rules;

/// Few ids, so that random commands meet each other.
pub(super) fn any_in_sync_command() -> impl Strategy<Value = Command> {
    let id = || (0u64..6).prop_map(VolumeId);
    let node = || (1u64..5).prop_map(NodeId);
    let epoch = || (1u64..4).prop_map(|number| Epoch::from_number(number).unwrap());
    let nodes = || collection::btree_set(node(), 0..3);
    let revision = (0u64..4).prop_map(InSyncRevision);
    let change =
        (id(), epoch(), node(), revision, nodes(), nodes()).prop_map(|(volume, epoch, node, revision, add, remove)| {
            Command::ChangeInSync { volume, epoch, node, revision, add, remove }
        });
    prop_oneof![
        3 => change,
        1 => (id(), epoch(), node()).prop_map(|(volume, epoch, node)| Command::TakeOver { volume, epoch, node }),
    ]
}

pub(super) fn longest_commands() -> Vec<Command> {
    let (volume, epoch, node) = (VolumeId(u64::MAX), Epoch::from_number(u64::MAX).unwrap(), NodeId(u64::MAX));
    let revision = InSyncRevision(u64::MAX);
    let nodes = |count| (0..count).map(|less| NodeId(u64::MAX - less)).collect::<BTreeSet<_>>();
    let change = |add, remove| Command::ChangeInSync { volume, epoch, node, revision, add, remove };
    vec![change(nodes(0), nodes(1)), change(nodes(1_000), nodes(1_000)), Command::TakeOver { volume, epoch, node }]
}

/// What never happens to those in sync from one moment to a later one.
pub(super) fn check_step(before: &Metadata, after: &Metadata) {
    for was in before.volumes() {
        let Some(now) = after.volume(was.id) else { continue };
        if was.epoch == now.epoch {
            let (old, new) = (was.in_sync_revision, now.in_sync_revision);
            assert!(old == new || old.next() == new, "revisions of volume {} are left out", now.id);
            assert!(old < new || was.in_sync == now.in_sync, "a change of those in sync is not counted");
            let joined = now.in_sync.difference(&was.in_sync);
            joined
                .for_each(|node| assert_eq!(before.check_lives(*node), Ok(()), "a node that is not there is in sync"));
            continue;
        }
        assert!(now.in_sync.is_empty() && now.in_sync_revision == InSyncRevision::default());
        if was.moving_to == Some(now.owner) || now.owner == was.owner {
            continue;
        }
        assert_eq!(was.in_sync.contains(&now.owner), now.reclaimed.is_some(), "who is in sync loses nothing");
        if now.reclaimed.is_some() {
            check_taken_over(was, now);
        }
    }
}

/// What an heir that was in sync leaves: nothing of the epoch that has ended is given up, its contents or those of before, whoever has
/// them, and its former owner is known to have had no more than that.
fn check_taken_over(was: &Volume, now: &Volume) {
    let kept = was.replicas.values().find(|replica| replica.node == now.owner).expect("the heir's replica");
    let contents = kept.complete.expect("its contents").contents;
    let generation = Generation(was.published.generation.0 + 1);
    assert_eq!((now.published, now.reclaimed), (Published { generation, ..contents }, Some(was.epoch)));
    let mut ended = now.superseded.iter().filter(|past| past.epoch >= was.epoch);
    let (owner, reclaimed) = (was.owner, was.reclaimed);
    let of_owner = Superseded {
        epoch: was.epoch,
        owner,
        published: was.published,
        resumed: was.published,
        reclaimed,
        is_settled: false,
    };
    assert_eq!(ended.next(), Some(&of_owner));
    let of_recipient =
        was.moving_to.map(|owner| Superseded { epoch: was.epoch.next(), owner, reclaimed: None, ..of_owner });
    assert_eq!(ended.next(), of_recipient.as_ref());
    assert!(now.goes_on_with(now.owner, was.epoch) && !now.goes_on_with(was.owner, was.epoch));
    let left = now.replicas.values().find(|replica| replica.node == was.owner).expect("a replica where it was");
    assert_eq!((left.mode, left.complete), (kept.mode, None));
    assert!(now.is_hydrated());
    let is_remembered = was.superseded.len() + 2 < MAX_SUPERSEDED;
    for complete in was.replicas.values().filter_map(|replica| replica.complete).filter(|_| is_remembered) {
        let is_published = complete.contents.generation <= was.published.generation;
        if was.descends_from(&complete) && is_published {
            assert!(now.descends_from(&complete), "what the heir has all of counts as given up");
        }
    }
}

pub(super) fn set_sync(node: NodeId) -> Command {
    Command::SetReplica { volume: VOLUME, node, mode: ReplicaMode::Sync }
}

/// As the owner of now asks for it, who knows all that was decided.
pub(super) fn change(metadata: &Metadata, add: &[NodeId], remove: &[NodeId]) -> Command {
    let now = volume(metadata);
    let (epoch, node, revision) = (now.epoch, now.owner, now.in_sync_revision);
    let (add, remove) = (add.iter().copied().collect(), remove.iter().copied().collect());
    Command::ChangeInSync { volume: VOLUME, epoch, node, revision, add, remove }
}

pub(super) fn take_over(node: NodeId, epoch: Epoch) -> Command {
    Command::TakeOver { volume: VOLUME, epoch, node }
}

fn cannot_sync(why: CannotSync) -> Refusal {
    Refusal::CannotSync { volume: VOLUME, why }
}

fn in_sync(metadata: &Metadata) -> Vec<NodeId> {
    volume(metadata).in_sync.iter().copied().collect()
}

/// Three nodes; the second and the third keep replicas in mode sync of the first one's volume. Published is generation 4, complete are 2
/// and 4.
pub(super) fn with_candidates() -> Metadata {
    let mut metadata = with_nodes(4);
    apply(&mut metadata, create_volume("a")).unwrap();
    for node in [B, C] {
        apply(&mut metadata, set_sync(node)).unwrap();
    }
    for (number, generation) in [(2, 2), (4, 4)] {
        apply(&mut metadata, Command::PublishRoots(vec![publication(VOLUME, 1, number, generation)])).unwrap();
    }
    apply(&mut metadata, report(2, E1, published(2, 2))).unwrap();
    apply(&mut metadata, report(3, E1, published(4, 4))).unwrap();
    metadata
}

/// As that, and both are in sync.
pub(super) fn with_members() -> Metadata {
    let mut metadata = with_candidates();
    let both = change(&metadata, &[B, C], &[]);
    apply(&mut metadata, both).unwrap();
    metadata
}

#[test]
fn an_owner_takes_nodes_in_and_out_and_what_was_carried_out_is_carried_out_again() {
    let mut metadata = with_candidates();
    assert_eq!((volume(&metadata).copies_in_force(), in_sync(&metadata)), (1, vec![]));
    assert!(volume(&metadata).candidates().eq([B, C]));
    let add_b = change(&metadata, &[B], &[]);
    apply(&mut metadata, add_b.clone()).unwrap();
    apply(&mut metadata, add_b.clone()).unwrap();
    assert_eq!((volume(&metadata).copies_in_force(), in_sync(&metadata)), (2, vec![B]));
    let swap = change(&metadata, &[C], &[B]);
    apply(&mut metadata, swap.clone()).unwrap();
    assert_eq!(in_sync(&metadata), [C]);
    // What is late does not count: its owner waits for that node no more.
    let current = volume(&metadata).in_sync_revision;
    let outdated = cannot_sync(CannotSync::Outdated { given: InSyncRevision(0), current });
    assert_eq!(apply(&mut metadata, add_b), Err(outdated));
    apply(&mut metadata, swap).unwrap();
    let nothing = change(&metadata, &[C], &[B, NodeId(99)]);
    apply(&mut metadata, nothing).unwrap();
    assert_eq!((in_sync(&metadata), current.next().next()), (vec![C], volume(&metadata).in_sync_revision));
    assert_eq!(metadata.check(), Ok(()));
}

#[test]
fn whatever_was_asked_for_before_a_change_is_not_carried_out_after_it() {
    let mut metadata = with_candidates();
    let late = change(&metadata, &[B], &[]);
    let empty = change(&metadata, &[], &[]);
    apply(&mut metadata, empty).unwrap();
    let outdated = CannotSync::Outdated { given: InSyncRevision(0), current: InSyncRevision(1) };
    assert_eq!(apply(&mut metadata, late), Err(cannot_sync(outdated)));
    // Nor where somebody has left because of its replica, and is back.
    let mut metadata = with_members();
    let known = change(&metadata, &[], &[C]);
    apply(&mut metadata, Command::UnsetReplica { volume: VOLUME, site: site(2) }).unwrap();
    assert!(matches!(apply(&mut metadata, known), Err(Refusal::CannotSync { .. })));
    assert_eq!(in_sync(&metadata), [C]);
}

#[test]
fn only_the_owner_says_who_is_in_sync_and_only_who_can_be_is() {
    let mut metadata = with_candidates();
    let refused = |metadata: &mut Metadata, command| apply(metadata, command).unwrap_err();
    let (no_nodes, of_b) = (BTreeSet::new(), BTreeSet::from([B]));
    let revision = InSyncRevision::default();
    let ask = |epoch, node| Command::ChangeInSync {
        volume: VOLUME,
        epoch,
        node,
        revision,
        add: of_b.clone(),
        remove: no_nodes.clone(),
    };
    assert_eq!(refused(&mut metadata, ask(E1, B)), cannot(CannotPass::NotOwner { given: B, owner: OWNER }));
    let wrong = Refusal::WrongEpoch { volume: VOLUME, given: E1.next(), current: E1 };
    assert_eq!(refused(&mut metadata, ask(E1.next(), OWNER)), wrong);
    let both = change(&metadata, &[B, C], &[C]);
    assert_eq!(refused(&mut metadata, both), cannot_sync(CannotSync::AddedAndRemoved { node: C }));
    let fourth = NodeId(4);
    let no_candidate = |node| cannot_sync(CannotSync::NoCandidate { node });
    for node in [OWNER, fourth, NodeId(99)] {
        let add = change(&metadata, &[node], &[]);
        assert_eq!(refused(&mut metadata, add), no_candidate(node), "it keeps no replica");
    }
    let add_fourth = change(&metadata, &[fourth], &[]);
    apply(&mut metadata, set_sync(fourth)).unwrap();
    assert_eq!(refused(&mut metadata, add_fourth.clone()), no_candidate(fourth), "it has nothing complete");
    apply(&mut metadata, report(4, E1, published(2, 2))).unwrap();
    apply(&mut metadata, set(4)).unwrap();
    assert_eq!(refused(&mut metadata, add_fourth.clone()), no_candidate(fourth), "nobody waits for one in mode async");
    apply(&mut metadata, set_sync(fourth)).unwrap();
    lapse(&mut metadata, 4);
    assert_eq!(refused(&mut metadata, add_fourth.clone()), Refusal::NoSession { node: fourth });
    open_session(&mut metadata, fourth);
    apply(&mut metadata, add_fourth).unwrap();
    // Who is in sync already is not looked at anew.
    apply(&mut metadata, Command::CloseSession { node: fourth, number: SessionNumber(2), all_is_published: true })
        .unwrap();
    let with_others = change(&metadata, &[B, fourth], &[]);
    apply(&mut metadata, with_others).unwrap();
    assert_eq!(in_sync(&metadata), [B, fourth]);
    assert_eq!(metadata.check(), Ok(()));
}

#[test]
fn nodes_in_sync_are_of_a_bounded_number() {
    let most = u64::try_from(MAX_IN_SYNC).unwrap();
    let mut metadata = with_nodes(most + 2);
    apply(&mut metadata, create_volume("a")).unwrap();
    let nodes: Vec<_> = (2..=most + 2).map(NodeId).collect();
    for node in &nodes {
        apply(&mut metadata, set_sync(*node)).unwrap();
        apply(&mut metadata, report(node.0, E1, published(0, 0))).unwrap();
    }
    let all = change(&metadata, &nodes, &[]);
    let too_many = CannotSync::TooMany { given: MAX_IN_SYNC + 1 };
    assert_eq!(apply(&mut metadata, all), Err(cannot_sync(too_many)));
    let first = change(&metadata, &nodes[..MAX_IN_SYNC], &[]);
    apply(&mut metadata, first).unwrap();
    assert_eq!(usize::from(volume(&metadata).copies_in_force()), MAX_IN_SYNC + 1);
    // One for another one.
    let swap = change(&metadata, &nodes[MAX_IN_SYNC..], &nodes[..1]);
    apply(&mut metadata, swap).unwrap();
    assert_eq!(metadata.check(), Ok(()));
}

#[test]
fn who_keeps_no_such_replica_any_more_is_not_in_sync() {
    let unset = Command::UnsetReplica { volume: VOLUME, site: site(2) };
    let admit = {
        let mut admission = nodes::admission(5, "s2-b", "s2");
        admission.token = new_token().id;
        Command::AdmitNode(admission)
    };
    for change in [unset, set(2)] {
        let mut metadata = with_members();
        apply(&mut metadata, change).unwrap();
        assert_eq!(in_sync(&metadata), [C]);
        assert_eq!(metadata.check(), Ok(()));
    }
    // Set again as it was, it stays.
    let mut metadata = with_members();
    apply(&mut metadata, set_sync(B)).unwrap();
    assert_eq!(in_sync(&metadata), [B, C]);

    // Another node of its site takes its place.
    apply(&mut metadata, Command::CreateToken(new_token())).unwrap();
    apply(&mut metadata, admit).unwrap();
    let fifth = NodeId(5);
    let mut replaced = metadata.clone();
    apply(&mut metadata, set_sync(fifth)).unwrap();
    assert_eq!(in_sync(&metadata), [C]);
    assert_eq!(metadata.check(), Ok(()));

    // So does one that it is replaced by.
    let revision = layout_revision(apply(&mut replaced, Command::StageChange(NodeChange::Replace(B, fifth))));
    apply(&mut replaced, Command::ApplyChanges { revision }).unwrap();
    assert_eq!((in_sync(&replaced), replaced.node(B).is_none()), (vec![C], true));
    assert_eq!(
        volume(&replaced).replicas[&site(2)],
        Replica { node: fifth, mode: ReplicaMode::Sync, complete: None, mapped: None }
    );
    assert_eq!(replaced.check(), Ok(()));
}

fn new_token() -> crate::state::command::NewToken {
    nodes::new_token(5)
}

#[test]
fn who_is_in_sync_takes_over_with_everything_once_the_owner_is_gone() {
    let mut metadata = with_members();
    let refused = |metadata: &mut Metadata, command| apply(metadata, command).unwrap_err();
    let lives = Refusal::OwnerLives { volume: VOLUME, owner: OWNER };
    assert_eq!(refused(&mut metadata, take_over(B, E1)), lives);
    apply(&mut metadata, set_sync(NodeId(4))).unwrap();
    apply(&mut metadata, report(4, E1, published(4, 4))).unwrap();
    lapse(&mut metadata, 1);
    for node in [OWNER, NodeId(4), NodeId(99)] {
        assert_eq!(refused(&mut metadata, take_over(node, E1)), cannot_sync(CannotSync::NotInSync { node }));
    }
    let wrong = Refusal::WrongEpoch { volume: VOLUME, given: E1.next(), current: E1 };
    assert_eq!(refused(&mut metadata, take_over(B, E1.next())), wrong);
    let nothing_has_to_be_lost = cannot_sync(CannotSync::InSync { site: site(2), node: B });
    assert_eq!(refused(&mut metadata, fail_over(2, E1, root(2))), nothing_has_to_be_lost);
    lapse(&mut metadata, 2);
    assert_eq!(refused(&mut metadata, take_over(B, E1)), Refusal::NoSession { node: B });
    open_session(&mut metadata, B);

    let before = metadata.clone();
    let e2 = E1.next();
    assert_eq!(apply(&mut metadata, take_over(B, E1)), Ok(Outcome::TakenOver { epoch: e2 }));
    let again = Refusal::WrongEpoch { volume: VOLUME, given: E1, current: e2 };
    assert_eq!(refused(&mut metadata, take_over(B, E1)), again);
    let now = volume(&metadata);
    assert_eq!(now.ownership(), Ownership::of(B, e2));
    // It begins to publish with what it has as chunks, and goes on with all of the epoch before.
    assert_eq!(now.published, Published { generation: Generation(5), ..published(2, 2) });
    assert_eq!((now.reclaimed, now.in_sync.is_empty()), (Some(E1), true));
    let follows = Replica { node: OWNER, mode: ReplicaMode::Sync, complete: None, mapped: None };
    assert_eq!(now.replicas[&"ams".parse().unwrap()], follows);
    assert!(!now.replicas.contains_key(&site(2)));
    check_step(&before, &metadata);
    assert_eq!(metadata.check(), Ok(()));
}

#[test]
fn an_heir_that_was_in_sync_counts_for_all_that_it_has() {
    let mut metadata = with_members();
    let loss = |metadata: &Metadata, to: u64| metadata.loss(volume(metadata), &site(to)).unwrap();
    let of_b = loss(&metadata, 2);
    assert!(of_b.is_in_sync && of_b.more_at.is_empty());
    assert_eq!((of_b.lost_blocks, of_b.lost_ms), (0, Some(0)));
    assert_eq!(volume(&metadata).exposed_blocks(), Some(0));
    let out = change(&metadata, &[], &[C]);
    apply(&mut metadata, out).unwrap();
    assert_eq!(loss(&metadata, 3).more_at, [site(2)], "what was acknowledged, and is not published");

    lapse(&mut metadata, 1);
    apply(&mut metadata, take_over(B, E1)).unwrap();
    // The third site has all that was published, which is more than the heir has published by now.
    let of_c = loss(&metadata, 3);
    assert_eq!((of_c.lost_blocks, of_c.is_given_up), (0, false));
    assert_eq!(volume(&metadata).exposed_blocks(), Some(0));
    apply(&mut metadata, Command::UnsetReplica { volume: VOLUME, site: site(3) }).unwrap();
    apply(&mut metadata, set_sync(NodeId(4))).unwrap();
    let e2 = E1.next();
    let published_by_heir = volume(&metadata).published;
    apply(&mut metadata, report(4, e2, published_by_heir)).unwrap();
    assert_eq!(loss(&metadata, 4).lost_blocks, 20, "the heir has what was published before it");
    assert_eq!(volume(&metadata).exposed_blocks(), Some(20));

    // It is gone before it has opened the volume: then it has it as it was left.
    lapse(&mut metadata, 2);
    apply(&mut metadata, fail_over(4, e2, root(2))).unwrap();
    let [of_owner, of_heir] = volume(&metadata).superseded[..] else { panic!("two epochs have ended") };
    assert_eq!([E1, e2].map(|kept| of_heir.is_of(kept)), [true, true]);
    assert_eq!((of_owner.owner, of_owner.is_of(e2)), (OWNER, false));
    assert_eq!(volume(&metadata).reclaimed, None);
    assert_eq!(metadata.check(), Ok(()));
}

#[test]
fn who_is_in_sync_takes_over_while_the_volume_is_handed_over_once_both_nodes_are_gone() {
    let mut metadata = with_members();
    let fourth = NodeId(4);
    apply(&mut metadata, begin(OWNER, fourth, 1)).unwrap();
    // The owner acknowledges until it releases.
    let out_and_in = change(&metadata, &[], &[C]);
    apply(&mut metadata, out_and_in).unwrap();
    lapse(&mut metadata, 1);
    let lives = Refusal::OwnerLives { volume: VOLUME, owner: fourth };
    assert_eq!(apply(&mut metadata, take_over(B, E1)), Err(lives));
    lapse(&mut metadata, 4);
    let before = metadata.clone();
    let e3 = E1.next().next();
    assert_eq!(apply(&mut metadata, take_over(B, E1)), Ok(Outcome::TakenOver { epoch: e3 }));
    assert_eq!(volume(&metadata).ownership(), Ownership { last_handoff: FIRST, ..Ownership::of(B, e3) });
    assert_eq!((volume(&metadata).reclaimed, volume(&metadata).superseded.len()), (Some(E1), 2));
    check_step(&before, &metadata);
    assert_eq!(metadata.check(), Ok(()));

    // The one that the handoff goes to is not in sync meanwhile.
    let mut metadata = with_members();
    let known = change(&metadata, &[B], &[]);
    apply(&mut metadata, begin(OWNER, B, 1)).unwrap();
    assert_eq!((in_sync(&metadata), volume(&metadata).in_sync_revision), (vec![C], InSyncRevision(2)));
    assert!(matches!(apply(&mut metadata, known), Err(Refusal::CannotSync { why: CannotSync::Outdated { .. }, .. })));
    let add = change(&metadata, &[B], &[]);
    assert_eq!(apply(&mut metadata, add.clone()), Err(cannot_sync(CannotSync::NoCandidate { node: B })));
    ended(&mut metadata, abort(OWNER, 1)).unwrap();
    apply(&mut metadata, add).unwrap();
    assert_eq!(in_sync(&metadata), [B, C]);
    assert_eq!(metadata.check(), Ok(()));
}

#[test]
fn nobody_is_in_sync_in_an_epoch_that_has_just_begun() {
    let mut handed_over = with_members();
    apply(&mut handed_over, begin(OWNER, B, 1)).unwrap();
    let mut reclaimed = handed_over.clone();
    ended(&mut handed_over, commit(B, 1, published(5, 5))).unwrap();
    let mode = volume(&handed_over).replicas[&"ams".parse().unwrap()].mode;
    assert_eq!(mode, ReplicaMode::Sync, "the former owner may be in sync next");
    lapse(&mut reclaimed, 2);
    apply(&mut reclaimed, reclaim(OWNER, E1)).unwrap();
    let mut failed_over = with_members();
    let out = change(&failed_over, &[], &[C]);
    apply(&mut failed_over, out).unwrap();
    lapse(&mut failed_over, 1);
    apply(&mut failed_over, fail_over(3, E1, root(4))).unwrap();
    for metadata in [handed_over, reclaimed, failed_over] {
        assert!(volume(&metadata).epoch > E1 && in_sync(&metadata).is_empty());
        assert_eq!(volume(&metadata).in_sync_revision, InSyncRevision::default());
        assert_eq!(metadata.check(), Ok(()));
    }
}

#[test]
fn what_an_earlier_failover_gave_up_is_nothing_to_be_in_sync_with() {
    let mut metadata = with_candidates();
    lapse(&mut metadata, 1);
    // The second node goes on with generation 2, and the third has generation 4 of the epoch before.
    apply(&mut metadata, fail_over(2, E1, root(2))).unwrap();
    let add = change(&metadata, &[C], &[]);
    assert_eq!(apply(&mut metadata, add.clone()), Err(cannot_sync(CannotSync::NoCandidate { node: C })));
    let published_by_heir = volume(&metadata).published;
    apply(&mut metadata, report(3, E1.next(), published_by_heir)).unwrap();
    apply(&mut metadata, add).unwrap();
    assert_eq!(in_sync(&metadata), [C]);
}

#[test]
fn who_is_in_sync_is_known_only_from_the_version_on_that_knows_it() {
    let mut metadata = begun();
    apply(&mut metadata, Command::RaiseVersion { version: MetadataVersion::HANDOFFS }).unwrap();
    apply(&mut metadata, create_volume("a")).unwrap();
    let (required, current) = (MetadataVersion::PROPAGATION, MetadataVersion::HANDOFFS);
    let sync = Durability::Sync(SyncCopies::new(2).unwrap());
    let set = |durability| Command::SetDurability { volume: VOLUME, durability };
    let degraded = Command::SetDegraded { volume: VOLUME, policy: DegradedPolicy::Continue };
    let change = change(&metadata, &[], &[]);
    for command in [set(sync), degraded.clone(), set_sync(B), change, take_over(B, E1)] {
        assert_eq!(apply(&mut metadata, command), Err(Refusal::NeedsVersion { required, current }));
    }
    apply(&mut metadata, set(Durability::Local)).unwrap();
    let json = serde_json::to_string(&metadata).unwrap();
    for field in ["in_sync", "degraded"] {
        assert!(!json.contains(field), "a program of that version would not read {json}");
    }
    apply(&mut metadata, Command::RaiseVersion { version: required }).unwrap();
    for command in [set(sync), degraded] {
        apply(&mut metadata, command).unwrap();
    }
    assert_eq!((volume(&metadata).durability, volume(&metadata).degraded), (sync, DegradedPolicy::Continue));
}

#[test]
fn those_in_sync_that_cannot_be_are_not_read() {
    let metadata = with_members();
    let json = serde_json::to_string(&metadata).unwrap();
    assert_eq!(serde_json::from_str::<Metadata>(&json).unwrap(), metadata);
    let mut taken_over = metadata;
    lapse(&mut taken_over, 1);
    apply(&mut taken_over, take_over(B, E1)).unwrap();
    let after = serde_json::to_string(&taken_over).unwrap();
    assert_eq!(serde_json::from_str::<Metadata>(&after).unwrap(), taken_over);
    for (json, good, bad) in [
        (&json, "\"in_sync\":[2,3]", "\"in_sync\":[1,2]"),
        (&json, "\"in_sync\":[2,3]", "\"in_sync\":[2,4]"),
        (&json, "\"node\":2,\"mode\":\"sync\"", "\"node\":2,\"mode\":\"async\""),
        (&after, "\"reclaimed\":1", "\"reclaimed\":2"),
        (&after, "\"superseded\":[{\"epoch\":1", "\"superseded\":[{\"epoch\":2"),
    ] {
        assert!(json.contains(good), "{json} has no {good}");
        let read = serde_json::from_str::<Metadata>(&json.replacen(good, bad, 1));
        assert!(read.is_err(), "{bad} was read");
    }
    let complete = Complete { epoch: E1, contents: published(2, 2) };
    let complete = format!(",\"complete\":{}", serde_json::to_string(&complete).unwrap());
    assert!(json.contains(&complete), "{json} has no {complete}");
    assert!(serde_json::from_str::<Metadata>(&json.replacen(&complete, "", 1)).is_err());
}
