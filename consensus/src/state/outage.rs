//! What would be left if a site were switched off now, by what the metadata knows: which volumes would stop, where each would go on and
//! without what, and whether those who are left could decide anything.
//!
//! Only nodes that have a session count as left. What its owner has not published nobody else knows of; of a volume that stops and whose
//! heir is not in sync, that is lost besides.

use sterna_types::{NodeId, SiteName, SnapshotName};

use super::Metadata;
use super::policy::DegradedPolicy;
use super::replica::{Loss, ReplicaMode};
use super::volume::Volume;

/// What a site's end would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outage<'a> {
    /// How many nodes vote.
    pub voters: usize,
    /// How many of them have a session, and are elsewhere. More than half must be, or nothing is decided: no volume goes on elsewhere,
    /// and once their sessions lapse those that are left stop too.
    pub voters_left: usize,
    /// The volumes to which it would make a difference, by id.
    pub affected: Vec<Affected<'a>>,
}

/// A volume to which a site's end would make a difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Affected<'a> {
    /// Which.
    pub volume: &'a Volume,
    /// What would become of it.
    pub effect: Effect,
    /// Snapshots of which nobody else has all.
    pub lost_snapshots: Vec<SnapshotName>,
}

/// What would become of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It stops, and can go on at this other site, where the least is lost.
    GoesOn {
        /// Where.
        site: SiteName,
        /// What is lost then.
        loss: Box<Loss>,
    },
    /// It stops, and nobody else has it completely.
    Lost,
    /// Its owner is elsewhere, and has not fetched all that was handed over to it from there: reads of the rest would fail.
    Incomplete,
    /// Its owner is elsewhere, and its flushes would wait: there would be too few copies, and its policy is to wait.
    FlushesWait,
    /// It is served as before.
    Served,
}

impl Outage<'_> {
    /// Whether those who are left can decide.
    pub fn is_decided(&self) -> bool {
        2 * self.voters_left > self.voters
    }
}

impl Metadata {
    /// What would be left without a site. O(volumes × (replicas + snapshots)).
    pub fn outage(&self, site: &SiteName) -> Outage<'_> {
        let voters = &self.layout().voters;
        let affected = self.volumes().filter_map(|volume| {
            let effect = self.effect(volume, site);
            let lost_snapshots = self.lost_snapshots(volume, site);
            let is_affected = effect != Effect::Served || !lost_snapshots.is_empty();
            is_affected.then_some(Affected { volume, effect, lost_snapshots })
        });
        Outage {
            voters: voters.len(),
            voters_left: voters.iter().filter(|node| self.is_left(**node, site)).count(),
            affected: affected.collect(),
        }
    }

    fn effect(&self, volume: &Volume, site: &SiteName) -> Effect {
        if self.is_at(volume.owner, site) {
            return self.heir(volume, site);
        }
        let left = |node: &NodeId| self.is_left(*node, site);
        let members = volume.replicas.iter().filter(|(_, replica)| replica.mode == ReplicaMode::Sync);
        let is_one_there = members.clone().any(|(of, _)| of == site);
        let copies = members.filter(|(_, member)| left(&member.node)).count() + 1;
        let are_enough = copies >= usize::from(volume.durability.copies());
        if volume.sources.iter().any(|source| self.is_at(source.node, site)) {
            Effect::Incomplete
        } else if is_one_there && !are_enough && volume.degraded == DegradedPolicy::Wait {
            Effect::FlushesWait
        } else {
            Effect::Served
        }
    }

    /// Of the other sites the one at which the least of a volume would be lost.
    fn heir(&self, volume: &Volume, site: &SiteName) -> Effect {
        let heirs = volume.replicas.iter().filter(|(_, replica)| self.is_left(replica.node, site));
        let losses = heirs.filter_map(|(site, _)| Some((site, self.loss(volume, site)?)));
        let least = losses
            .filter(|(_, loss)| !loss.is_given_up)
            .min_by_key(|(_, loss)| (!loss.is_in_sync, loss.lost_blocks, loss.lost_ms));
        least.map_or(Effect::Lost, |(site, loss)| Effect::GoesOn { site: site.clone(), loss: Box::new(loss) })
    }

    fn lost_snapshots(&self, volume: &Volume, site: &SiteName) -> Vec<SnapshotName> {
        let is_lost = |holders: &mut dyn Iterator<Item = NodeId>| {
            let mut holders = holders.peekable();
            holders.peek().is_some() && holders.all(|holder| self.is_at(holder, site))
        };
        let snapshots = volume.snapshots.iter();
        let lost = snapshots.filter(|(_, snapshot)| is_lost(&mut volume.holders(snapshot)));
        lost.map(|(name, _)| name.clone()).collect()
    }

    fn is_at(&self, node: NodeId, site: &SiteName) -> bool {
        self.node(node).is_some_and(|node| node.site == *site)
    }

    /// Whether a node is elsewhere, and has a session.
    fn is_left(&self, node: NodeId, site: &SiteName) -> bool {
        self.node(node).is_some_and(|node| node.site != *site && node.session.is_some_and(|session| session.is_live()))
    }
}
