//! What the commands about who is in sync do, and taking over by one of them. Each one first finds every reason to refuse, and only
//! then changes anything.

use std::collections::BTreeSet;

use sterna_types::{Epoch, NodeId, VolumeId};

use super::Metadata;
use super::apply_volumes::check_epoch;
use super::in_sync::{CannotSync, InSyncRevision, MAX_IN_SYNC};
use super::outcome::Outcome;
use super::refusal::Refusal;

impl Metadata {
    pub(super) fn change_in_sync(
        &mut self,
        id: VolumeId,
        (epoch, revision): (Epoch, InSyncRevision),
        node: NodeId,
        add: &BTreeSet<NodeId>,
        remove: &BTreeSet<NodeId>,
    ) -> Result<Outcome, Refusal> {
        let volume = self.ready_volume(id)?;
        let refusal = |why| Refusal::CannotSync { volume: id, why };
        check_epoch(volume, epoch)?;
        volume.ownership().check_owner(node).map_err(|why| Refusal::passing(id, why))?;
        if let Some(&node) = add.intersection(remove).next() {
            return Err(refusal(CannotSync::AddedAndRemoved { node }));
        }
        // What is as it is to be may have been carried out before, and its answer lost. It counts as a change all the same: from then on
        // nothing is carried out any more that was asked for before.
        let is_done = add.is_subset(&volume.in_sync) && remove.is_disjoint(&volume.in_sync);
        let current = volume.in_sync_revision;
        if revision != current && !is_done {
            return Err(refusal(CannotSync::Outdated { given: revision, current }));
        }
        // Those who are in sync already can be, and whether they still live is for the owner to see.
        for &node in add.difference(&volume.in_sync) {
            if !volume.can_be_in_sync(node) {
                return Err(refusal(CannotSync::NoCandidate { node }));
            }
            self.check_lives(node)?;
        }
        let mut in_sync: BTreeSet<_> = volume.in_sync.union(add).copied().collect();
        in_sync.retain(|member| !remove.contains(member));
        if in_sync.len() > MAX_IN_SYNC {
            return Err(refusal(CannotSync::TooMany { given: in_sync.len() }));
        }
        self.change_volume(id, |volume| volume.set_in_sync(in_sync))
    }

    pub(super) fn take_over(&mut self, id: VolumeId, epoch: Epoch, node: NodeId) -> Result<Outcome, Refusal> {
        let volume = self.ready_volume(id)?;
        check_epoch(volume, epoch)?;
        let not_in_sync = Refusal::CannotSync { volume: id, why: CannotSync::NotInSync { node } };
        let kept = volume.replicas.iter().find(|(_, replica)| replica.node == node);
        let in_sync = kept.filter(|_| volume.in_sync.contains(&node));
        let (site, complete) =
            in_sync.and_then(|(site, replica)| Some((site.clone(), replica.complete?))).ok_or(not_in_sync)?;
        self.check_lives(node)?;
        let mut ownership = volume.ownership();
        ownership.take_over(epoch, node, |other| self.is_over(other)).map_err(|why| Refusal::passing(id, why))?;
        let former_site = self.known_node(volume.owner)?.site.clone();
        // What was published is a state of what the heir goes on with, as each root of this epoch is: so they all stay what a
        // failover may go on with later, and nothing of them counts as given up. What the owner publishes from now on begins at what
        // the heir has as chunks; the rest it has as a journal, and seals.
        let (contents, resumed) = (complete.contents, volume.published);
        self.change_volume(id, |volume| {
            volume.pass_to_heir(&site, former_site, ownership, contents, resumed);
            volume.reclaimed = Some(epoch);
        })?;
        Ok(Outcome::TakenOver { epoch: ownership.epoch })
    }
}
