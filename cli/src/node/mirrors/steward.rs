//! Who is in sync with the volumes that this node owns: who has caught up is taken in, who has fallen behind is taken out, as far as
//! their durability asks for it (the order, and why: [`super`]).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use sterna_consensus::ProposeError;
use sterna_consensus::state::command::Command;
use sterna_consensus::state::in_sync::InSyncRevision;
use sterna_consensus::state::policy::{DegradedPolicy, Durability};
use sterna_consensus::state::volume::Volume as VolumeEntry;
use sterna_types::NodeId;
use tokio::time::timeout;

use super::members::{Standing, is_for_many};
use crate::node::node::Node;
use crate::node::volumes::OpenVolume;

/// Sees to the in-sync sets of this node's open volumes, until it shuts down.
pub(in crate::node) async fn run(node: Arc<Node>) {
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = node.stopping.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let metadata = node.metadata.read();
        for open in node.volumes.open().into_values() {
            let entry = metadata.volume(open.volume.id()).filter(|entry| is_own(&node, entry, &open));
            let Some(entry) = entry.filter(|entry| is_for_many(entry) || !entry.in_sync.is_empty()) else { continue };
            let change = due_of(entry, |node| open.members.standing(node));
            if change == Due::default() && open.members.is_settled() {
                continue;
            }
            tokio::select! {
                () = node.stopping.cancelled() => return,
                () = carry_out(&node, &open, entry.in_sync_revision, change) => {}
            }
        }
    }
}

fn is_own(node: &Node, entry: &VolumeEntry, open: &OpenVolume) -> bool {
    entry.owner == node.metadata.id() && entry.epoch == open.epoch && !open.ownership.is_over()
}

/// A change of an in-sync set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Due {
    add: BTreeSet<NodeId>,
    remove: BTreeSet<NodeId>,
}

/// What is to be changed, if anything.
fn due_of(entry: &VolumeEntry, standing: impl Fn(NodeId) -> Standing) -> Due {
    let asked_for = usize::from(entry.durability.copies()) - 1;
    let goes_on = entry.degraded == DegradedPolicy::Continue || entry.durability == Durability::Local;
    let is_well = |node: &NodeId| matches!(standing(*node), Standing::Follows { behind } if behind < PATIENCE);
    due(asked_for, goes_on, &entry.in_sync, entry.candidates(), is_well)
}

/// What is to be changed where so many are asked for, and flushes go on with fewer or do not.
///
/// Who is in and is well stays as long as it is needed. Who has fallen behind goes where others can take its place, or where flushes go
/// on with fewer: otherwise it stays, since it may be the only one that has everything.
fn due(
    asked_for: usize,
    goes_on: bool,
    in_sync: &BTreeSet<NodeId>,
    candidates: impl Iterator<Item = NodeId>,
    is_well: impl Fn(&NodeId) -> bool,
) -> Due {
    let (well, ill): (BTreeSet<_>, BTreeSet<_>) = in_sync.iter().copied().partition(&is_well);
    let spare = candidates.filter(|node| !in_sync.contains(node) && is_well(node));
    let add: BTreeSet<_> = spare.take(asked_for.saturating_sub(well.len())).collect();
    let mut remove: BTreeSet<_> = well.iter().rev().take(well.len().saturating_sub(asked_for)).copied().collect();
    if goes_on || well.len() + add.len() >= asked_for {
        remove.extend(ill);
    }
    Due { add, remove }
}

/// Steps 1 to 3, and taking out. Once it has been carried out nothing is that was asked for before.
async fn carry_out(node: &Node, open: &OpenVolume, revision: InSyncRevision, Due { mut add, remove }: Due) {
    let (members, volume) = (&open.members, open.volume.id());
    add.iter().for_each(|node| members.wait_for(*node));
    let before = open.volume.appended();
    for node in add.clone() {
        if timeout(PATIENCE, members.has_come_to(node, before)).await.is_err() {
            add.remove(&node);
            members.leave_to_metadata(node);
        }
    }
    if add.is_empty() && remove.is_empty() && members.is_settled() {
        return;
    }
    let (epoch, own) = (open.epoch, node.metadata.id());
    let change = |add, remove| Command::ChangeInSync { volume, epoch, node: own, revision, add, remove };
    let nothing = change(BTreeSet::new(), BTreeSet::new());
    let mut command = change(add.clone(), remove);
    loop {
        match node.metadata.propose(command.clone()).await {
            Ok(_) => {
                tracing::info!(%volume, "who is in sync: {command:?}");
                break;
            }
            // The epoch is over.
            Err(ProposeError::Refused(refusal)) if command == nothing => {
                tracing::info!(%volume, %refusal, "who is in sync stays as it was");
                return;
            }
            // A copy of it may be on its way still, and is carried out unless something else has been before.
            Err(ProposeError::Refused(refusal)) => {
                tracing::info!(%volume, %refusal, "who is in sync stays as it was");
                command = nothing.clone();
            }
            // Whether it was carried out is not known: it is waited for whoever may be in.
            Err(error) => {
                tracing::debug!(%volume, %error, "who is in sync could not be changed; it is tried again");
                tokio::time::sleep(LOOK).await;
                if open.ownership.is_over() || open.volume.is_closed() {
                    return;
                }
            }
        }
    }
    // From here on the metadata says who is waited for, once this node knows all of it.
    while node.metadata.linearizable().await.is_err() {
        tokio::time::sleep(LOOK).await;
        if open.ownership.is_over() || open.volume.is_closed() {
            return;
        }
    }
    add.into_iter().for_each(|node| members.leave_to_metadata(node));
    members.settle();
}

/// Small beside what it takes to catch up.
const LOOK: Duration = Duration::from_millis(200);
/// Who has lacked something for so long that somebody waits for has fallen behind: several round trips around the world, and a slow
/// disk's sync.
const PATIENCE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(ids: &[u64]) -> BTreeSet<NodeId> {
        ids.iter().copied().map(NodeId).collect()
    }

    #[test]
    fn as_many_are_in_as_are_asked_for_and_who_may_be_needed_stays() {
        type Case<'a> = (usize, bool, &'a [u64], &'a [u64], &'a [u64], &'a [u64]);
        // Asked for, goes on, in sync, well; added, removed. All of 1 to 3 keep replicas.
        let cases: [Case<'_>; 10] = [
            (1, false, &[], &[2, 3], &[2], &[]),
            (2, false, &[], &[1, 2, 3], &[1, 2], &[]),
            (2, false, &[1, 2], &[1, 2, 3], &[], &[]),
            (1, false, &[1, 2], &[1, 2], &[], &[2]),
            (1, false, &[1], &[], &[], &[]),
            (1, true, &[1], &[], &[], &[1]),
            (1, false, &[1], &[3], &[3], &[1]),
            (2, false, &[1, 2], &[2], &[], &[]),
            (2, false, &[1, 2], &[2, 3], &[3], &[1]),
            (0, true, &[1, 2], &[1], &[], &[1, 2]),
        ];
        for (asked_for, goes_on, in_sync, well, add, remove) in cases {
            let all = nodes(&[1, 2, 3]).into_iter();
            let due = due(asked_for, goes_on, &nodes(in_sync), all, |node| well.contains(&node.0));
            let expected = Due { add: nodes(add), remove: nodes(remove) };
            assert_eq!(due, expected, "{asked_for} asked for, {in_sync:?} in sync, {well:?} well");
        }
    }
}
