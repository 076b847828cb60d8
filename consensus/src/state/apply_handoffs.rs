//! What the commands about handoffs do. Each one first finds every reason to refuse, and only then changes anything.

use std::collections::{BTreeMap, BTreeSet};

use sterna_types::{Epoch, NodeId, SnapshotName, VolumeId};

use super::Metadata;
use super::apply_volumes::{check_epoch, check_generation};
use super::handoffs::{ReceivedVolume, VolumeHandoff};
use super::hydration::Source;
use super::outcome::Outcome;
use super::ownership::{CannotPass, HandoffNumber, Ownership};
use super::refusal::Refusal;
use super::replica::{Complete, Replica, Superseded};
use super::volume::Volume;
use crate::limits::{MAX_ROOTS_PER_COMMAND, MAX_VOLUMES_PER_HANDOFF};

impl Metadata {
    pub(super) fn begin_handoff(
        &mut self,
        by: NodeId,
        to: NodeId,
        volumes: &[VolumeHandoff],
    ) -> Result<Outcome, Refusal> {
        if volumes.is_empty() {
            return Err(Refusal::VolumesOfHandoff { given: 0 });
        }
        check_count(volumes.len())?;
        self.check_lives(by)?;
        self.check_lives(to)?;
        if self.layout.draining.contains(&to) {
            return Err(Refusal::Draining { node: to });
        }
        let mut begun = BTreeMap::new();
        for &VolumeHandoff { volume: id, handoff } in volumes {
            let volume = self.ready_volume(id)?;
            let mut ownership = volume.ownership();
            ownership.begin(by, handoff, to).map_err(|why| Refusal::passing(id, why))?;
            if !volume.has_room_for_source() {
                return Err(Refusal::TooManySources { volume: id });
            }
            if begun.insert(id, ownership).is_some() {
                return Err(Refusal::NamedTwice { volume: id });
            }
        }
        for (id, ownership) in begun {
            self.change_volume(id, |volume| {
                volume.set_ownership(ownership);
                volume.leave_in_sync();
            })?;
        }
        Ok(Outcome::Done)
    }

    pub(super) fn commit_handoff(&mut self, by: NodeId, volumes: &[ReceivedVolume]) -> Result<Outcome, Refusal> {
        self.known_node(by)?;
        check_count(volumes.len())?;
        let mut refused = Vec::new();
        for received in volumes {
            if let Err(refusal) = self.commit_one(by, received) {
                refused.push((received.volume, refusal));
            }
        }
        Ok(Outcome::HandoffsEnded { refused })
    }

    fn commit_one(&mut self, by: NodeId, received: &ReceivedVolume) -> Result<(), Refusal> {
        let ReceivedVolume { volume: id, handoff, contents } = *received;
        let volume = self.known_volume(id)?;
        // Its answer was lost.
        if was_committed(volume, by, handoff) {
            return Ok(());
        }
        let mut ownership = volume.ownership();
        ownership.commit(by, handoff).map_err(|why| Refusal::passing(id, why))?;
        check_generation(volume, contents.root, contents.generation)?;
        let (former, ended) = (volume.owner, volume.epoch);
        let (site, former_site) = (self.known_node(by)?.site.clone(), self.known_node(former)?.site.clone());
        // A former owner that has itself not fetched everything yet says later what it has.
        let complete = volume.is_hydrated().then_some(Complete { epoch: ended, contents });
        self.change_volume(id, |volume| {
            volume.keep_holders(former);
            volume.set_ownership(ownership);
            volume.sources.push(Source { node: former, epoch: ended, root: contents.root });
            volume.publish(contents);
            // Where it comes to a replica, it leaves one behind: so there are as many as before.
            if let Some(Replica { node: keeper, mode, .. }) = volume.replicas.remove(&site) {
                volume.replicas.insert(former_site, Replica::new(former, mode, complete));
                if keeper != by {
                    volume.forget_holder(keeper);
                }
            }
        })?;
        Ok(())
    }

    pub(super) fn abort_handoff(&mut self, by: NodeId, volumes: &[VolumeHandoff]) -> Result<Outcome, Refusal> {
        self.end_each(by, volumes, Ownership::abort)
    }

    pub(super) fn decline_handoff(&mut self, by: NodeId, volumes: &[VolumeHandoff]) -> Result<Outcome, Refusal> {
        self.end_each(by, volumes, Ownership::decline)
    }

    /// Ends handoffs after which the owner is the same.
    fn end_each(
        &mut self,
        by: NodeId,
        volumes: &[VolumeHandoff],
        end: impl Fn(&mut Ownership, NodeId, HandoffNumber) -> Result<(), CannotPass>,
    ) -> Result<Outcome, Refusal> {
        self.known_node(by)?;
        check_count(volumes.len())?;
        let mut refused = Vec::new();
        for &VolumeHandoff { volume: id, handoff } in volumes {
            let ended = self.known_volume(id).and_then(|volume| {
                let mut ownership = volume.ownership();
                end(&mut ownership, by, handoff).map_err(|why| Refusal::passing(id, why))?;
                Ok(ownership)
            });
            match ended {
                Ok(ownership) => drop(self.change_volume(id, |volume| volume.set_ownership(ownership))?),
                Err(refusal) => refused.push((id, refusal)),
            }
        }
        Ok(Outcome::HandoffsEnded { refused })
    }

    pub(super) fn reclaim(&mut self, id: VolumeId, epoch: Epoch, node: NodeId) -> Result<Outcome, Refusal> {
        let volume = self.known_volume(id)?;
        let refusal = |why| Refusal::passing(id, why);
        check_epoch(volume, epoch)?;
        let mut ownership = volume.ownership();
        ownership.check_owner(node).map_err(refusal)?;
        self.check_lives(node)?;
        let to = volume.moving_to.ok_or_else(|| refusal(CannotPass::ToItself { node }))?;
        ownership.take_over(epoch, node, |other| self.is_over(other)).map_err(refusal)?;
        let published = volume.published;
        self.change_volume(id, |volume| {
            volume.set_ownership(ownership);
            volume.reclaimed = Some(epoch);
            // That node has published nothing of its epoch, and if it has not begun it there is nothing to keep.
            volume.supersede(Superseded {
                epoch: epoch.next(),
                owner: to,
                published,
                resumed: published,
                reclaimed: None,
                is_settled: false,
            });
        })?;
        Ok(Outcome::TakenOver { epoch: ownership.epoch })
    }

    pub(super) fn finish_hydration(
        &mut self,
        id: VolumeId,
        epoch: Epoch,
        node: NodeId,
        snapshots: &[SnapshotName],
    ) -> Result<Outcome, Refusal> {
        if snapshots.len() > MAX_ROOTS_PER_COMMAND {
            return Err(Refusal::TooManyRoots { given: snapshots.len() });
        }
        let volume = self.known_volume(id)?;
        check_epoch(volume, epoch)?;
        volume.ownership().check_owner(node).map_err(|why| Refusal::passing(id, why))?;
        self.change_volume(id, |volume| volume.finish_hydration(snapshots))
    }

    /// How many volumes each node is being given, or keeps something of for their owners. O(volumes).
    pub(super) fn volumes_handed_over(&self) -> BTreeMap<NodeId, usize> {
        let mut counts = BTreeMap::new();
        for volume in self.volumes.values() {
            let sources = volume.sources.iter().map(|source| source.node);
            for node in sources.chain(volume.moving_to).collect::<BTreeSet<_>>() {
                *counts.entry(node).or_default() += 1;
            }
        }
        counts
    }
}

/// Whether this handoff has made `by` the owner that it is. Its epoch began with the last handoff unless it was taken over since.
fn was_committed(volume: &Volume, by: NodeId, handoff: HandoffNumber) -> bool {
    let ownership = volume.ownership();
    let is_last = ownership.under_way().is_none() && ownership.last_handoff == handoff && handoff > HandoffNumber::NONE;
    is_last && ownership.owner == by && !volume.was_taken_over()
}

/// Whether one request may name so many volumes.
fn check_count(given: usize) -> Result<(), Refusal> {
    if given <= MAX_VOLUMES_PER_HANDOFF { Ok(()) } else { Err(Refusal::VolumesOfHandoff { given }) }
}
