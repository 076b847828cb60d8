//! Taking a volume over while it is handed over: by a third node, and by its owner.

use super::handoffs::{B, C, E1, FIRST, begin, cannot, commit, ended, moving, reclaim, volume};
use super::nodes::open_session;
use super::replicas::{OWNER, VOLUME, fail_over, lapse, published, site};
use super::*;
use crate::state::command::Branch;
use crate::state::ownership::{CannotPass, Ownership};
use crate::state::replica::Superseded;

#[test]
fn a_failover_in_a_handoff_waits_for_both_nodes_and_leaves_the_epoch_between_out() {
    let mut metadata = moving();
    let refused = |metadata: &mut Metadata, to| apply(metadata, fail_over(to, E1, root(4))).unwrap_err();
    let lives = |owner| Refusal::OwnerLives { volume: VOLUME, owner };
    assert_eq!(refused(&mut metadata, 3), lives(OWNER));
    lapse(&mut metadata, 1);
    assert_eq!(refused(&mut metadata, 3), lives(B));
    let decline_first = cannot(CannotPass::HandoffUnderWay { to: B });
    assert_eq!(refused(&mut metadata, 2), decline_first, "it alone knows whether it has accepted");
    lapse(&mut metadata, 2);
    apply(&mut metadata, Command::PublishRoots(vec![publication(VOLUME, 1, 6, 6)])).unwrap();
    let (e2, e3) = (E1.next(), E1.next().next());
    assert_eq!(apply(&mut metadata, fail_over(3, E1, root(4))), Ok(Outcome::TakenOver { epoch: e3 }));

    let now = volume(&metadata);
    assert_eq!(now.ownership(), Ownership { last_handoff: FIRST, ..Ownership::of(C, e3) });
    let resumed = published(4, 4);
    let of_owner =
        Superseded { epoch: E1, owner: OWNER, published: published(6, 6), resumed, reclaimed: None, is_settled: false };
    let of_other = Superseded { epoch: e2, owner: B, published: resumed, resumed, reclaimed: None, is_settled: false };
    assert_eq!(now.superseded, [of_owner, of_other]);
    assert_eq!(now.published, Published { generation: Generation(7), ..resumed });
    // What was written in the epoch between counts no more, and is kept when its owner returns.
    let over = cannot(CannotPass::NotUnderWay { given: FIRST });
    assert_eq!(ended(&mut metadata, commit(B, 1, published(9, 9))), Err(over));
    let stale = apply(&mut metadata, Command::PublishRoots(vec![publication(VOLUME, 2, 9, 9)]));
    let wrong = Refusal::WrongEpoch { volume: VOLUME, given: e2, current: e3 };
    assert_eq!(stale, Ok(Outcome::Published { refused: vec![(VOLUME, wrong)] }));
    let branch = Branch {
        name: "kept-e2".parse().unwrap(),
        root: root(9),
        generation: Generation(9),
        size: blocks(100),
        at: UnixTime { unix_ms: 9 },
    };
    let settle = Command::SettleEpoch { volume: VOLUME, epoch: e2, node: B, branch: Some(branch) };
    apply(&mut metadata, settle).unwrap();
    let settled: Vec<_> = volume(&metadata).superseded.iter().map(|past| past.is_settled).collect();
    assert_eq!(settled, [false, true]);
    assert_eq!(metadata.check(), Ok(()));
}

#[test]
fn nothing_is_lost_only_where_both_nodes_of_a_handoff_have_ended_in_good_order() {
    let mut metadata = moving();
    let all_is_published = |metadata: &Metadata| metadata.loss(volume(metadata), &site(3)).unwrap().all_is_published;
    let close = |node| Command::CloseSession { node, number: SessionNumber(1), all_is_published: true };
    apply(&mut metadata, close(OWNER)).unwrap();
    assert!(!all_is_published(&metadata), "the other node may have acknowledged something");
    apply(&mut metadata, close(B)).unwrap();
    assert!(all_is_published(&metadata));
}

#[test]
fn an_owner_takes_back_what_it_has_released_to_a_node_that_is_gone() {
    let mut metadata = moving();
    let refused = |metadata: &mut Metadata, command| apply(metadata, command).unwrap_err();
    let lives = Refusal::OwnerLives { volume: VOLUME, owner: B };
    assert_eq!(refused(&mut metadata, reclaim(OWNER, E1)), lives);
    lapse(&mut metadata, 2);
    let not_owner = cannot(CannotPass::NotOwner { given: C, owner: OWNER });
    assert_eq!(refused(&mut metadata, reclaim(C, E1)), not_owner);
    lapse(&mut metadata, 1);
    assert_eq!(refused(&mut metadata, reclaim(OWNER, E1)), Refusal::NoSession { node: OWNER });
    open_session(&mut metadata, OWNER);
    let (e2, e3) = (E1.next(), E1.next().next());
    assert_eq!(apply(&mut metadata, reclaim(OWNER, E1)), Ok(Outcome::TakenOver { epoch: e3 }));
    let again = Refusal::WrongEpoch { volume: VOLUME, given: E1, current: e3 };
    assert_eq!(refused(&mut metadata, reclaim(OWNER, E1)), again);
    let no_handoff = cannot(CannotPass::ToItself { node: OWNER });
    assert_eq!(refused(&mut metadata, reclaim(OWNER, e3)), no_handoff);

    let now = volume(&metadata);
    assert_eq!(now.ownership(), Ownership { last_handoff: FIRST, ..Ownership::of(OWNER, e3) });
    assert_eq!((now.published, now.sources.is_empty(), now.reclaimed), (published(4, 4), true, Some(E1)));
    let contents = published(4, 4);
    let superseded =
        Superseded { epoch: e2, owner: B, published: contents, resumed: contents, reclaimed: None, is_settled: false };
    assert_eq!(now.superseded, [superseded]);
    assert!(!metadata.loss(now, &site(3)).unwrap().is_given_up, "its replicas are of the same history");
    let over = cannot(CannotPass::NotUnderWay { given: FIRST });
    assert_eq!(ended(&mut metadata, commit(B, 1, published(9, 9))), Err(over));
    apply(&mut metadata, Command::PublishRoots(vec![publication(VOLUME, 3, 5, 5)])).unwrap();
    open_session(&mut metadata, B);
    apply(&mut metadata, begin(OWNER, B, 2)).unwrap();
    assert_eq!(volume(&metadata).reclaimed, Some(E1), "the owner may not have opened it yet");
    assert_eq!(metadata.check(), Ok(()));
    assert_eq!(ended(&mut metadata, commit(B, 2, published(9, 9))), Ok(()));
    assert_eq!((volume(&metadata).owner, volume(&metadata).reclaimed), (B, None));
}

#[test]
fn what_an_owner_had_taken_back_is_known_to_be_its_own_when_it_is_taken_over() {
    let mut metadata = moving();
    lapse(&mut metadata, 2);
    apply(&mut metadata, reclaim(OWNER, E1)).unwrap();
    lapse(&mut metadata, 1);
    let e3 = E1.next().next();
    apply(&mut metadata, fail_over(3, e3, root(4))).unwrap();
    let [_, of_owner] = volume(&metadata).superseded[..] else { panic!("two epochs have ended") };
    assert_eq!((of_owner.epoch, of_owner.owner, of_owner.reclaimed), (e3, OWNER, Some(E1)));
    assert_eq!([E1, E1.next(), e3].map(|kept| of_owner.is_of(kept)), [true, false, true]);
    assert_eq!(volume(&metadata).reclaimed, None);
    assert_eq!(metadata.check(), Ok(()));
}
