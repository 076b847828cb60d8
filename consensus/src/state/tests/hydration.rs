//! What the new owner of a volume fetches after a handoff, and who keeps it until then.

use super::handoffs::{B, C, E1, begin, cannot, commit, decline, ended, finish, moved, volume};
use super::nodes::{layout_revision, with_nodes};
use super::replicas::{OWNER, VOLUME, lapse, published, report, site};
use super::*;
use crate::limits::{MAX_ROOTS_PER_COMMAND, MAX_SOURCES};
use crate::state::hydration::Source;
use crate::state::layout::NodeChange;
use crate::state::ownership::CannotPass;

#[test]
fn a_volume_without_replicas_leaves_nothing_behind() {
    let mut metadata = with_nodes(2);
    apply(&mut metadata, create_volume("a")).unwrap();
    for name in ["first", "second"] {
        apply(&mut metadata, snapshot(VOLUME, name, 1, 1)).unwrap();
    }
    apply(&mut metadata, begin(OWNER, B, 1)).unwrap();
    ended(&mut metadata, commit(B, 1, published(2, 2))).unwrap();
    apply(&mut metadata, snapshot(VOLUME, "late", 2, 2)).unwrap_err();
    apply(&mut metadata, finish(B, E1.next(), &["first"])).unwrap();
    let volume = volume(&metadata);
    assert!(volume.replicas.is_empty() && volume.is_hydrated());
    let holders = |name: &str| &volume.snapshots.get(&name.parse().unwrap()).unwrap().holders;
    assert_eq!((holders("first"), holders("second")), (&[B].into(), &[OWNER].into()));
}

#[test]
fn who_has_handed_a_volume_over_that_it_never_had_all_of_is_no_complete_replica() {
    let mut metadata = moved();
    let e2 = E1.next();
    apply(&mut metadata, begin(B, C, 2)).unwrap();
    ended(&mut metadata, commit(C, 2, published(6, 6))).unwrap();
    let now = volume(&metadata);
    let sources = [Source { node: OWNER, epoch: E1, root: root(5) }, Source { node: B, epoch: e2, root: root(6) }];
    assert_eq!(now.sources, sources);
    let replicas: Vec<_> = now.replicas.iter().map(|(site, kept)| (site.as_str(), kept.complete.is_some())).collect();
    assert_eq!(replicas, [("ams", true), ("s2", false)]);
    // It says itself when it has.
    apply(&mut metadata, report(2, e2.next(), published(6, 6))).unwrap();
    assert!(volume(&metadata).replicas[&site(2)].complete.is_some());
}

#[test]
fn a_volume_that_comes_back_before_it_has_arrived_needs_all_who_had_it_until_its_owner_has_everything() {
    let mut metadata = moved();
    let (e2, e3) = (E1.next(), E1.next().next());
    apply(&mut metadata, begin(B, OWNER, 2)).unwrap();
    ended(&mut metadata, commit(OWNER, 2, published(6, 6))).unwrap();
    let now = volume(&metadata);
    let sources = [Source { node: OWNER, epoch: E1, root: root(5) }, Source { node: B, epoch: e2, root: root(6) }];
    assert_eq!((now.owner, now.epoch, &now.sources[..]), (OWNER, e3, &sources[..]));
    let replicas: Vec<_> = now.replicas.iter().map(|(site, kept)| (site.as_str(), kept.complete.is_some())).collect();
    assert_eq!(replicas, [("s2", false), ("s3", true)], "who it has come back from never had all of it");
    assert_eq!(metadata.volumes_handed_over(), [(OWNER, 1), (B, 1)].into());

    // On to a third one: what it lacks may be at either of the two.
    apply(&mut metadata, begin(OWNER, C, 3)).unwrap();
    // Who had it before has not more to say of it than who has it now.
    let late = Refusal::WrongEpoch { volume: VOLUME, given: e2, current: e3 };
    assert_eq!(apply(&mut metadata, finish(B, e2, &[])), Err(late));
    ended(&mut metadata, commit(C, 3, published(7, 7))).unwrap();
    let nodes: Vec<_> = volume(&metadata).sources.iter().map(|source| (source.node, source.epoch)).collect();
    assert_eq!(nodes, [(OWNER, E1), (B, e2), (OWNER, e3)]);
    assert_eq!(metadata.check(), Ok(()));
    apply(&mut metadata, finish(C, e3.next(), &[])).unwrap();
    assert!(volume(&metadata).is_hydrated() && metadata.volumes_handed_over().is_empty());
}

#[test]
fn a_volume_that_is_nowhere_complete_stays_after_a_number_of_handoffs() {
    let mut metadata = with_nodes(2);
    apply(&mut metadata, create_volume("a")).unwrap();
    let most = u64::try_from(MAX_SOURCES).unwrap();
    let owner = |handoffs: u64| if handoffs.is_multiple_of(2) { OWNER } else { B };
    for number in 1..=most {
        apply(&mut metadata, begin(owner(number - 1), owner(number), number)).unwrap();
        ended(&mut metadata, commit(owner(number), number, published(1, 1))).unwrap();
        assert_eq!(metadata.check(), Ok(()));
    }
    let sources: Vec<_> = volume(&metadata).sources.iter().map(|source| source.node).collect();
    assert_eq!(sources, [OWNER, B].repeat(MAX_SOURCES / 2), "each may have what nobody else has");
    let next = begin(owner(most), owner(most + 1), most + 1);
    assert_eq!(apply(&mut metadata, next.clone()), Err(Refusal::TooManySources { volume: VOLUME }));
    let epoch = volume(&metadata).epoch;
    apply(&mut metadata, finish(owner(most), epoch, &[])).unwrap();
    apply(&mut metadata, next).unwrap();
    assert_eq!(metadata.check(), Ok(()));
}

#[test]
fn only_the_owner_says_that_it_has_everything_and_only_in_its_epoch() {
    let mut metadata = moved();
    let e2 = E1.next();
    let not_owner = cannot(CannotPass::NotOwner { given: OWNER, owner: B });
    assert_eq!(apply(&mut metadata, finish(OWNER, e2, &[])), Err(not_owner));
    let old = Refusal::WrongEpoch { volume: VOLUME, given: E1, current: e2 };
    assert_eq!(apply(&mut metadata, finish(OWNER, E1, &[])), Err(old));
    let names = vec!["s"; MAX_ROOTS_PER_COMMAND + 1];
    let too_many = Refusal::TooManyRoots { given: names.len() };
    assert_eq!(apply(&mut metadata, finish(B, e2, &names)), Err(too_many));
    assert!(!volume(&metadata).is_hydrated());
    // Also while the volume is on its way elsewhere.
    apply(&mut metadata, begin(B, C, 2)).unwrap();
    apply(&mut metadata, finish(B, e2, &[])).unwrap();
    assert!(volume(&metadata).is_hydrated());
    ended(&mut metadata, commit(C, 2, published(6, 6))).unwrap();
    let late = Refusal::WrongEpoch { volume: VOLUME, given: e2, current: e2.next() };
    assert_eq!(apply(&mut metadata, finish(B, e2, &[])), Err(late));
    assert_eq!(volume(&metadata).sources.len(), 1);
}

#[test]
fn a_failover_needs_no_sources() {
    let mut metadata = moved();
    lapse(&mut metadata, 2);
    // The former owner has what it handed over.
    let loss = metadata.loss(volume(&metadata), &"ams".parse().unwrap()).unwrap();
    assert_eq!((loss.lost_blocks, loss.is_given_up), (0, false));
    let home = Command::FailOver {
        volume: VOLUME,
        epoch: E1.next(),
        site: "ams".parse().unwrap(),
        root: root(5),
        published: Some(Generation(5)),
    };
    assert_eq!(apply(&mut metadata, home), Ok(Outcome::TakenOver { epoch: E1.next().next() }));
    assert!(volume(&metadata).owner == OWNER && volume(&metadata).is_hydrated());
    assert_eq!(metadata.check(), Ok(()));
}

#[test]
fn a_node_that_a_volume_is_handed_over_to_or_fetched_from_does_not_go() {
    let mut metadata = with_nodes(3);
    apply(&mut metadata, create_volume("a")).unwrap();
    apply(&mut metadata, begin(OWNER, B, 1)).unwrap();
    let stage = |metadata: &mut Metadata, change| apply(metadata, Command::StageChange(change));
    let needed = |node| Err(Refusal::HandsVolumesOver { node, count: 1 });
    assert_eq!(stage(&mut metadata, NodeChange::Remove(B)), needed(B));
    assert_eq!(stage(&mut metadata, NodeChange::Replace(B, C)), needed(B));
    ended(&mut metadata, commit(B, 1, published(1, 1))).unwrap();
    apply(&mut metadata, Command::StageChange(NodeChange::Promote(C))).unwrap();
    assert_eq!(stage(&mut metadata, NodeChange::Remove(OWNER)), needed(OWNER));
    apply(&mut metadata, finish(B, E1.next(), &[])).unwrap();
    let revision = layout_revision(stage(&mut metadata, NodeChange::Remove(OWNER)));

    // What was staged is looked at once more when it is applied.
    apply(&mut metadata, begin(B, OWNER, 2)).unwrap();
    assert_eq!(apply(&mut metadata, Command::ApplyChanges { revision }), needed(OWNER));
    ended(&mut metadata, decline(OWNER, 2)).unwrap();
    apply(&mut metadata, Command::ApplyChanges { revision }).unwrap();
    assert!(metadata.node(OWNER).is_none());
    assert_eq!(metadata.check(), Ok(()));
}
