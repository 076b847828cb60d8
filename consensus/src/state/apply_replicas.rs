//! What the commands about replicas do, and taking over without the owner. Each one first finds every reason to refuse, and
//! only then changes anything.

use std::collections::BTreeSet;
use std::sync::Arc;

use sterna_types::{Epoch, NodeId, Root, SiteName, VolumeId};

use super::Metadata;
use super::apply_volumes::check_epoch;
use super::command::{Branch, ReplicaReport};
use super::in_sync::CannotSync;
use super::outcome::Outcome;
use super::ownership::Ownership;
use super::refusal::Refusal;
use super::replica::{Complete, Replica, ReplicaMode, Superseded};
use super::volume::{Generation, Published, Snapshot, Volume};
use crate::limits::{MAX_REPLICAS, MAX_ROOTS_PER_COMMAND, MAX_SUPERSEDED};

impl Metadata {
    pub(super) fn set_replica(&mut self, id: VolumeId, node: NodeId, mode: ReplicaMode) -> Result<Outcome, Refusal> {
        let volume = self.known_volume(id)?;
        let keeper = self.known_node(node)?;
        let site = keeper.site.clone();
        if self.known_node(volume.owner)?.site == site {
            return Err(Refusal::ReplicaAtOwner { volume: id, site });
        }
        if self.layout.draining.contains(&node) {
            return Err(Refusal::Draining { node });
        }
        let known = volume.replicas.get(&site);
        if known.is_none() && volume.replicas.len() >= MAX_REPLICAS {
            return Err(Refusal::TooManyReplicas { volume: id });
        }
        // The same node goes on with what it has, and if it is in sync, and is to be, it stays that.
        let same = known.filter(|known| known.node == node).cloned();
        let replica = same.map_or(Replica::new(node, mode, None), |same| same.in_mode(mode));
        let former = known.map(|known| known.node).filter(|former| *former != node);
        let former = former.or((mode == ReplicaMode::Cache).then_some(node));
        self.change_volume(id, |volume| {
            volume.replicas.insert(site, replica);
            volume.leave_in_sync();
            former.into_iter().for_each(|former| volume.forget_holder(former));
        })
    }

    pub(super) fn unset_replica(&mut self, id: VolumeId, site: &SiteName) -> Result<Outcome, Refusal> {
        let volume = self.known_volume(id)?;
        let node = replica(volume, site)?.node;
        self.change_volume(id, |volume| {
            volume.replicas.remove(site);
            volume.leave_in_sync();
            volume.forget_holder(node);
        })
    }

    pub(super) fn report_replicas(&mut self, node: NodeId, reports: &[ReplicaReport]) -> Result<Outcome, Refusal> {
        self.known_node(node)?;
        if reports.len() > MAX_ROOTS_PER_COMMAND {
            return Err(Refusal::TooManyRoots { given: reports.len() });
        }
        let mut refused = Vec::new();
        for report in reports {
            if let Err(refusal) = self.report_replica(node, report) {
                refused.push((report.volume, refusal));
            }
        }
        Ok(Outcome::Reported { refused })
    }

    fn report_replica(&mut self, node: NodeId, report: &ReplicaReport) -> Result<(), Refusal> {
        let ReplicaReport { volume: id, epoch, complete, is_map, ref snapshots } = *report;
        let volume = self.known_volume(id)?;
        check_epoch(volume, epoch)?;
        let found = volume.replicas.iter().find(|(_, replica)| replica.node == node);
        let (site, known) = found.ok_or(Refusal::KeepsNoReplica { volume: id, node })?;
        let newest = if is_map { known.mapped } else { known.newest() };
        let newest = newest.filter(|known| known.epoch == epoch).map(|known| known.contents.generation);
        if let Some((given, published)) = complete.map(|complete| complete.generation).zip(newest)
            && given < published
        {
            return Err(Refusal::OldGeneration { volume: id, given, published });
        }
        if let Some(name) = snapshots.iter().find(|name| !volume.snapshots.contains(name)) {
            return Err(Refusal::NoSuchSnapshot { volume: id, name: name.clone() });
        }
        let site = site.clone();
        self.change_volume(id, |volume| {
            if let (Some(contents), Some(replica)) = (complete, volume.replicas.get_mut(&site)) {
                replica.come_to(Complete { epoch, contents }, is_map);
            }
            let owner = volume.owner;
            for name in snapshots {
                volume.snapshots.update(name, |snapshot| {
                    let holders = &mut Arc::make_mut(snapshot).holders;
                    if holders.is_empty() {
                        holders.insert(owner);
                    }
                    holders.insert(node);
                });
            }
        })?;
        Ok(())
    }

    pub(super) fn fail_over(
        &mut self,
        id: VolumeId,
        epoch: Epoch,
        site: &SiteName,
        root: Root,
        published: Option<Generation>,
    ) -> Result<Outcome, Refusal> {
        let volume = self.ready_volume(id)?;
        check_epoch(volume, epoch)?;
        let Replica { node: heir, complete, .. } = *replica(volume, site)?;
        if volume.in_sync.contains(&heir) {
            let why = CannotSync::InSync { site: site.clone(), node: heir };
            return Err(Refusal::CannotSync { volume: id, why });
        }
        let missing = Refusal::ReplicaIncomplete { volume: id, site: site.clone() };
        let complete = complete.ok_or(missing)?;
        let contents = complete.contents;
        if contents.root != root {
            return Err(Refusal::ReplicaHasMoved { volume: id, site: site.clone() });
        }
        if published.is_some_and(|published| published != volume.published.generation) {
            return Err(Refusal::PublishedHasMoved { volume: id });
        }
        if !volume.descends_from(&complete) {
            return Err(Refusal::ReplicaGivenUp { volume: id, site: site.clone() });
        }
        self.check_lives(heir)?;
        let mut ownership = volume.ownership();
        ownership.take_over(epoch, heir, |other| self.is_over(other)).map_err(|why| Refusal::passing(id, why))?;
        let former_site = self.known_node(volume.owner)?.site.clone();
        self.change_volume(id, |volume| volume.pass_to_heir(site, former_site, ownership, contents, contents))?;
        Ok(Outcome::TakenOver { epoch: ownership.epoch })
    }

    pub(super) fn settle_epoch(
        &mut self,
        id: VolumeId,
        epoch: Epoch,
        node: NodeId,
        branch: Option<&Branch>,
    ) -> Result<Outcome, Refusal> {
        let volume = self.known_volume(id)?;
        self.known_node(node)?;
        if epoch >= volume.epoch {
            return Err(Refusal::EpochNotOver { volume: id, epoch });
        }
        if let Some(branch) = branch {
            let was_kept = volume.snapshots.get(&branch.name).is_some_and(|kept| {
                kept.root == branch.root && kept.holders.contains(&node) && kept.generation == branch.generation
            });
            // Its answer was lost, and it says so again.
            if !was_kept {
                self.check_snapshot(volume, &branch.name, branch.size)?;
                let Branch { ref name, root, generation, size, at } = *branch;
                let holders = BTreeSet::from([node]);
                self.insert_snapshot(id, name, Snapshot { root, size, generation, created: at, holders })?;
            }
        }
        self.change_volume(id, |volume| {
            let is_it = |superseded: &&mut Superseded| superseded.epoch == epoch && superseded.owner == node;
            volume.superseded.iter_mut().filter(is_it).for_each(|superseded| superseded.is_settled = true);
        })
    }

    /// Whether a node has a session.
    pub(super) fn check_lives(&self, node: NodeId) -> Result<(), Refusal> {
        let lives = self.known_node(node)?.session.is_some_and(|session| session.is_live());
        if lives { Ok(()) } else { Err(Refusal::NoSession { node }) }
    }

    /// Whether a node's session has ended. One that never had any may be serving.
    pub(super) fn is_over(&self, node: NodeId) -> bool {
        self.node(node).and_then(|node| node.session).is_some_and(|session| !session.is_live())
    }

    /// How many volumes a node keeps replicas of. O(volumes).
    pub(super) fn replica_count(&self, node: NodeId) -> usize {
        let keeps = |volume: &&Arc<Volume>| volume.replicas.values().any(|replica| replica.node == node);
        self.volumes.values().filter(keeps).count()
    }

    /// How many snapshots are at this node only. O(snapshots).
    pub(super) fn sole_copies(&self, node: NodeId) -> usize {
        let is_sole = |volume: &Volume, snapshot: &Snapshot| volume.holders(snapshot).all(|holder| holder == node);
        let sole =
            |volume: &Arc<Volume>| volume.snapshots.values().filter(|snapshot| is_sole(volume, snapshot)).count();
        self.volumes.values().map(sole).sum()
    }

    /// Gives the replicas of one node to another one, at whichever site that is. Where that is the owner's, or has one already,
    /// they go. O(volumes).
    pub(super) fn move_replicas(&mut self, from: NodeId, to: NodeId) {
        let Some(to_site) = self.node(to).map(|node| node.site.clone()) else { return };
        let keeps = |volume: &&Arc<Volume>| volume.replicas.values().any(|replica| replica.node == from);
        let ids: Vec<_> = self.volumes.values().filter(keeps).map(|volume| volume.id).collect();
        for id in ids {
            let owner = self.volume(id).and_then(|volume| self.node(volume.owner)).map(|owner| owner.site.clone());
            self.volumes.update(&id, |volume| {
                let volume = Arc::make_mut(volume);
                let replicas = &mut volume.replicas;
                let mode = replicas.values().find(|replica| replica.node == from).map(|replica| replica.mode);
                replicas.retain(|_, replica| replica.node != from);
                if let Some(mode) = mode.filter(|_| owner.as_ref() != Some(&to_site)) {
                    replicas.entry(to_site.clone()).or_insert(Replica::new(to, mode, None));
                }
                volume.leave_in_sync();
            });
        }
    }

    /// Forgets what a node holds that is gone. O(snapshots).
    pub(super) fn forget_copies(&mut self, node: NodeId) {
        let holds = |volume: &&Arc<Volume>| volume.snapshots.values().any(|snapshot| snapshot.holders.contains(&node));
        let ids: Vec<_> = self.volumes.values().filter(holds).map(|volume| volume.id).collect();
        for id in ids {
            self.volumes.update(&id, |volume| Arc::make_mut(volume).forget_holder(node));
        }
    }
}

impl Volume {
    /// Gives it to the node that keeps its replica at `site`, in an epoch that begins without its owner. That one's site, `former_site`,
    /// keeps a replica instead. `contents` are complete at the heir: with them it begins to publish. `resumed` is what it goes on with
    /// of what was published.
    pub(super) fn pass_to_heir(
        &mut self,
        site: &SiteName,
        former_site: SiteName,
        ownership: Ownership,
        contents: Published,
        resumed: Published,
    ) {
        let Self { owner: former, epoch, published, moving_to, reclaimed, .. } = *self;
        self.keep_holders(former);
        if let Some(Replica { mode, .. }) = self.replicas.remove(site) {
            self.replicas.insert(former_site, Replica::new(former, mode, None));
        }
        self.set_ownership(ownership);
        self.published = Published { generation: Generation(published.generation.0 + 1), ..contents };
        self.supersede(Superseded { epoch, owner: former, published, resumed, reclaimed, is_settled: false });
        // Where it was being handed over, that node may have begun the epoch in between. It has published nothing of it, and if it
        // has not begun it there is nothing to keep.
        if let Some(owner) = moving_to {
            let epoch = epoch.next();
            let (published, reclaimed) = (resumed, None);
            self.supersede(Superseded { epoch, owner, published, resumed, reclaimed, is_settled: false });
        }
        // The heir has all that it goes on with: there is nothing for it to fetch from those who had more.
        self.sources.clear();
    }

    /// Remembers an epoch that has ended without its owner, and forgets the oldest where that is one too many.
    pub(super) fn supersede(&mut self, superseded: Superseded) {
        self.superseded.push(superseded);
        let too_many = self.superseded.len().saturating_sub(MAX_SUPERSEDED);
        self.superseded.drain(..too_many);
    }

    /// Notes of snapshots that only the owner holds who that is, before another one is.
    pub(super) fn keep_holders(&mut self, owner: NodeId) {
        self.change_snapshots(
            |snapshot| snapshot.holders.is_empty(),
            |snapshot| {
                snapshot.holders.insert(owner);
            },
        );
    }

    /// Notes that a node gives its copies up, except of what is nowhere else.
    pub(super) fn forget_holder(&mut self, node: NodeId) {
        self.change_snapshots(
            |snapshot| snapshot.holders.contains(&node) && snapshot.holders.len() > 1,
            |snapshot| {
                snapshot.holders.remove(&node);
            },
        );
    }

    fn change_snapshots(&mut self, which: impl Fn(&Snapshot) -> bool, change: impl Fn(&mut Snapshot)) {
        let names = self.snapshots.iter().filter(|(_, snapshot)| which(snapshot)).map(|(name, _)| name.clone());
        for name in names.collect::<Vec<_>>() {
            self.snapshots.update(&name, |snapshot| change(Arc::make_mut(snapshot)));
        }
    }
}

fn replica<'a>(volume: &'a Volume, site: &SiteName) -> Result<&'a Replica, Refusal> {
    let missing = || Refusal::NoReplica { volume: volume.id, site: site.clone() };
    volume.replicas.get(site).ok_or_else(missing)
}
