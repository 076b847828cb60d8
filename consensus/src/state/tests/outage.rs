//! What would be left without a site.

use super::handoffs::{B, begin, commit, ended};
use super::in_sync::with_members;
use super::nodes::{layout_revision, open_session};
use super::replicas::{OWNER, VOLUME, lapse, published, site, with_replicas};
use super::*;
use crate::state::layout::NodeChange;
use crate::state::outage::{Affected, Effect};
use crate::state::policy::{DegradedPolicy, Durability, SyncCopies};

fn ams() -> SiteName {
    "ams".parse().unwrap()
}

fn effects(metadata: &Metadata, site: &SiteName) -> Vec<Effect> {
    metadata.outage(site).affected.into_iter().map(|affected| affected.effect).collect()
}

/// Where a volume goes on, and how many blocks are lost.
fn heir(effect: &Effect) -> Option<(SiteName, u64, bool)> {
    match effect {
        Effect::GoesOn { site, loss } => Some((site.clone(), loss.lost_blocks, loss.is_in_sync)),
        _ => None,
    }
}

#[test]
fn without_its_owner_a_volume_goes_on_where_the_least_is_lost() {
    let mut metadata = with_replicas();
    // Complete are generation 2 at one site and 3 at the other, of 4.
    let lost = |of: u8| published(4, 4).written_blocks - published(of, of.into()).written_blocks;
    let found = effects(&metadata, &ams());
    assert_eq!(found.iter().map(heir).collect::<Vec<_>>(), [Some((site(3), lost(3), false))]);
    // Whoever has no session cannot go on.
    lapse(&mut metadata, 3);
    let found = effects(&metadata, &ams());
    assert_eq!(found.iter().map(heir).collect::<Vec<_>>(), [Some((site(2), lost(2), false))]);
    lapse(&mut metadata, 2);
    assert_eq!(effects(&metadata, &ams()), [Effect::Lost]);
    open_session(&mut metadata, NodeId(2));
    open_session(&mut metadata, NodeId(3));
    // Nobody would miss another site, or one that there is not.
    for other in [site(2), site(3), site(9)] {
        assert_eq!(effects(&metadata, &other), []);
    }
}

#[test]
fn where_somebody_is_in_sync_nothing_is_lost_and_without_it_flushes_may_wait() {
    let mut metadata = with_members();
    let found = effects(&metadata, &ams());
    assert!(matches!(found.iter().map(heir).collect::<Vec<_>>()[..], [Some((_, 0, true))]), "{found:?}");
    let mut choose = |copies, policy| {
        let durability = Durability::Sync(SyncCopies::new(copies).unwrap());
        apply(&mut metadata, Command::SetDegraded { volume: VOLUME, policy }).unwrap();
        apply(&mut metadata, Command::SetDurability { volume: VOLUME, durability }).unwrap();
        effects(&metadata, &site(2))
    };
    assert_eq!(choose(2, DegradedPolicy::Wait), [], "the third takes its place");
    assert_eq!(choose(3, DegradedPolicy::Wait), [Effect::FlushesWait]);
    assert_eq!(choose(3, DegradedPolicy::Continue), []);
}

#[test]
fn what_was_handed_over_and_not_fetched_is_missed_and_so_are_snapshots() {
    let mut metadata = with_replicas();
    apply(&mut metadata, snapshot(VOLUME, "kept", 4, 4)).unwrap();
    let lost: Vec<_> = metadata.outage(&ams()).affected.into_iter().map(|affected| affected.lost_snapshots).collect();
    assert_eq!(lost, [["kept".parse().unwrap()]]);
    apply(&mut metadata, begin(OWNER, B, 1)).unwrap();
    ended(&mut metadata, commit(B, 1, published(6, 6))).unwrap();
    let outage = metadata.outage(&ams());
    let [Affected { effect, lost_snapshots, .. }] = &outage.affected[..] else { panic!("{outage:?}") };
    assert_eq!((effect, lost_snapshots.len()), (&Effect::Incomplete, 1));
}

#[test]
fn more_than_half_of_those_who_vote_have_to_be_left() {
    let mut metadata = with_replicas();
    let left = |metadata: &Metadata, site: &SiteName| {
        let outage = metadata.outage(site);
        (outage.voters, outage.voters_left, outage.is_decided())
    };
    assert_eq!(left(&metadata, &ams()), (1, 0, false), "the first decides alone");
    for node in [2, 3] {
        let change = Command::StageChange(NodeChange::Promote(NodeId(node)));
        let revision = layout_revision(apply(&mut metadata, change));
        apply(&mut metadata, Command::ApplyChanges { revision }).unwrap();
    }
    assert_eq!(left(&metadata, &site(2)), (3, 2, true));
    lapse(&mut metadata, 3);
    assert_eq!(left(&metadata, &site(2)), (3, 1, false));
    assert_eq!(left(&metadata, &site(9)), (3, 2, true));
}
