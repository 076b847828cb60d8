//! What is always true of the metadata. Tests check it after every command, and whoever reads metadata from a disk or a wire
//! before it is used.

use std::collections::BTreeSet;

use sterna_types::{NodeId, NodeName, SiteName, SnapshotName, TokenId, VolumeId, VolumeName};

use super::Metadata;
use super::cluster::MetadataVersion;
use super::ownership::HandoffNumber;
use super::replica::ReplicaMode;
use super::volume::{Volume, VolumeState};
use crate::limits::{
    MAX_NODES, MAX_REPLICAS, MAX_SITES, MAX_SNAPSHOTS, MAX_SNAPSHOTS_PER_VOLUME, MAX_SOURCES, MAX_STAGED_CHANGES,
    MAX_SUPERSEDED, MAX_TOKENS, MAX_VOLUMES, MAX_VOTERS,
};

/// What is not true of the metadata, though it always should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BrokenInvariant {
    /// There is something, but no cluster that it could belong to.
    #[error("there are nodes or volumes, but no cluster")]
    NoCluster,
    /// The cluster needs nodes that understand more.
    #[error("the cluster uses version {version} of the metadata's commands; this program knows {known}", known = MetadataVersion::CURRENT.0)]
    UnknownVersion {
        /// What it uses.
        version: u32,
    },
    /// A limit is exceeded.
    #[error("there are more volumes or snapshots than there may be")]
    LimitExceeded,
    /// A site stands under a name that it does not have.
    #[error("site '{0}' stands under another name")]
    MisplacedSite(SiteName),
    /// A node stands under an id that it does not have, or that was never given out.
    #[error("node {0} stands under another id, or has one that was never given out")]
    MisplacedNode(NodeId),
    /// Two nodes have one name.
    #[error("two nodes are called '{0}'")]
    NodeNameTwice(NodeName),
    /// A node is at a site that there is not.
    #[error("node {0} is at a site that there is not")]
    NodeWithoutSite(NodeId),
    /// A volume stands under an id that it does not have, or that was never given out.
    #[error("volume {0} stands under another id, or has one that was never given out")]
    MisplacedVolume(VolumeId),
    /// Two volumes have one name, or the index of the names is not that of the volumes.
    #[error("the name '{0}' belongs to two volumes, or to none")]
    VolumeName(VolumeName),
    /// A volume is owned by a node that there is not.
    #[error("the owner of volume {0} is a node that there is not")]
    VolumeWithoutOwner(VolumeId),
    /// A replica is at no node of its site, or at the owner's.
    #[error("the replica of volume {0} at site '{1}' is kept by no node of that site, or is at the owner's")]
    MisplacedReplica(VolumeId, SiteName),
    /// A cache says that it has something completely.
    #[error("the cache of volume {0} at site '{1}' has something completely, and promises nothing")]
    CompleteCache(VolumeId, SiteName),
    /// Something is held by a node that there is not.
    #[error("snapshot '{1}' of volume {0} is held by a node that there is not")]
    SnapshotWithoutHolder(VolumeId, SnapshotName),
    /// The epochs that ended without their owners are not in order, or not over.
    #[error("volume {0} has had epochs that are not before its own, one after the other")]
    Superseded(VolumeId),
    /// A handoff goes to a node that there is not, or to its owner, or cannot have begun.
    #[error("volume {0} is being handed over to its owner or to a node that there is not, or cannot be handed over")]
    Handoff(VolumeId),
    /// Those who have handed a volume over are not in order, or not there.
    #[error("volume {0} was handed over by nodes that there are not, or not one after the other")]
    Sources(VolumeId),
    /// The owner of a volume goes on with what it has of an epoch that did not end so.
    #[error("volume {0} was reclaimed, or taken over by a node in sync, from an epoch that did not end that way")]
    Reclaimed(VolumeId),
    /// A node is in sync that cannot be, or there are too many.
    #[error(
        "a node is in sync with volume {0} that owns it, or keeps no complete replica of it in mode 'sync', or there are too many"
    )]
    InSync(VolumeId),
    /// A snapshot is larger than its volume.
    #[error("snapshot '{1}' is larger than its volume {0}")]
    SnapshotTooLarge(VolumeId, SnapshotName),
    /// The layout names a node that there is not, or leaves nobody to decide.
    #[error("the layout has no voter, or names node {0}, which there is not")]
    Layout(NodeId),
    /// A token stands under an id that it does not have.
    #[error("token {0} stands under another id")]
    MisplacedToken(TokenId),
    /// What is kept for speed contradicts what it is made from.
    #[error("an index contradicts what it is made from")]
    Index,
}

impl Metadata {
    /// Whether all that is always true of the metadata is true of it. O(all of it).
    ///
    /// # Errors
    /// What is not true.
    pub fn check(&self) -> Result<(), BrokenInvariant> {
        let empty = self.sites.is_empty() && self.nodes.is_empty() && self.volumes.is_empty();
        match self.cluster {
            None if empty && self.last_volume == 0 && self.last_node == 0 => {}
            None => return Err(BrokenInvariant::NoCluster),
            Some(_) if self.nodes.is_empty() => return Err(BrokenInvariant::NoCluster),
            Some(cluster) if cluster.version > MetadataVersion::CURRENT => {
                return Err(BrokenInvariant::UnknownVersion { version: cluster.version.0 });
            }
            Some(_) => {}
        }
        self.check_places()?;
        self.check_layout()?;
        let mut snapshots = 0;
        for (id, volume) in self.volumes.iter() {
            if *id != volume.id || id.0 == 0 || id.0 > self.last_volume {
                return Err(BrokenInvariant::MisplacedVolume(*id));
            }
            self.check_volume(volume)?;
            snapshots += volume.snapshots.len();
        }
        let maps = self.sites.check() && self.nodes.check() && self.tokens.check();
        let maps = maps && self.volumes.check() && self.names.check();
        if !maps || !self.answered.check() || self.names.len() != self.volumes.len() || snapshots != self.snapshots {
            return Err(BrokenInvariant::Index);
        }
        if self.volumes.len() > MAX_VOLUMES || snapshots > MAX_SNAPSHOTS {
            return Err(BrokenInvariant::LimitExceeded);
        }
        Ok(())
    }

    fn check_places(&self) -> Result<(), BrokenInvariant> {
        if let Some((name, _)) = self.sites.iter().find(|(name, site)| **name != site.name) {
            return Err(BrokenInvariant::MisplacedSite(name.clone()));
        }
        let mut names = BTreeSet::new();
        for (id, node) in self.nodes.iter() {
            if *id != node.id || id.0 == 0 || id.0 > self.last_node {
                return Err(BrokenInvariant::MisplacedNode(*id));
            }
            if !self.sites.contains(&node.site) {
                return Err(BrokenInvariant::NodeWithoutSite(*id));
            }
            if !names.insert(&node.name) {
                return Err(BrokenInvariant::NodeNameTwice(node.name.clone()));
            }
        }
        Ok(())
    }

    fn check_layout(&self) -> Result<(), BrokenInvariant> {
        let layout = &self.layout;
        let is_unknown = |id: &&NodeId| self.cluster.is_some() && !self.nodes.contains(id);
        let named = layout.voters.iter().chain(&layout.draining).find(is_unknown).copied();
        if let Some(id) = named.or(layout.voters.is_empty().then_some(NodeId::FIRST)) {
            return Err(BrokenInvariant::Layout(id));
        }
        let is_full = layout.voters.len() > MAX_VOTERS || layout.staged.len() > MAX_STAGED_CHANGES;
        if is_full || self.tokens.len() > MAX_TOKENS || self.nodes.len() > MAX_NODES || self.sites.len() > MAX_SITES {
            return Err(BrokenInvariant::LimitExceeded);
        }
        match self.tokens.iter().find(|(id, token)| **id != token.id) {
            Some((id, _)) => Err(BrokenInvariant::MisplacedToken(*id)),
            None => Ok(()),
        }
    }

    fn check_volume(&self, volume: &Volume) -> Result<(), BrokenInvariant> {
        if self.names.get(&volume.name) != Some(&volume.id) {
            return Err(BrokenInvariant::VolumeName(volume.name.clone()));
        }
        if !self.nodes.contains(&volume.owner) {
            return Err(BrokenInvariant::VolumeWithoutOwner(volume.id));
        }
        if volume.snapshots.len() > MAX_SNAPSHOTS_PER_VOLUME
            || volume.replicas.len() > MAX_REPLICAS
            || volume.superseded.len() > MAX_SUPERSEDED
            || volume.sources.len() > MAX_SOURCES
        {
            return Err(BrokenInvariant::LimitExceeded);
        }
        self.check_copies(volume)?;
        self.check_handoffs(volume)?;
        if !volume.snapshots.check() {
            return Err(BrokenInvariant::Index);
        }
        match volume.snapshots.iter().find(|(_, snapshot)| snapshot.size > volume.size) {
            Some((name, _)) => Err(BrokenInvariant::SnapshotTooLarge(volume.id, name.clone())),
            None => Ok(()),
        }
    }

    fn check_handoffs(&self, volume: &Volume) -> Result<(), BrokenInvariant> {
        if let Some((handoff, to)) = volume.ownership().under_way() {
            let can_begin = volume.state == VolumeState::Ready && volume.has_room_for_source();
            let is_another = self.nodes.contains(&to) && to != volume.owner;
            if !can_begin || !is_another || handoff == HandoffNumber::NONE {
                return Err(BrokenInvariant::Handoff(volume.id));
            }
        }
        if !volume.reclaimed_is_right() {
            return Err(BrokenInvariant::Reclaimed(volume.id));
        }
        let are_there = volume.sources.iter().all(|source| self.nodes.contains(&source.node));
        if are_there && volume.sources_are_in_order() { Ok(()) } else { Err(BrokenInvariant::Sources(volume.id)) }
    }

    fn check_copies(&self, volume: &Volume) -> Result<(), BrokenInvariant> {
        let site_of = |node: NodeId| self.node(node).map(|node| &node.site);
        let owner = site_of(volume.owner);
        for (site, replica) in &volume.replicas {
            if site_of(replica.node) != Some(site) || owner == Some(site) {
                return Err(BrokenInvariant::MisplacedReplica(volume.id, site.clone()));
            }
            if replica.mode == ReplicaMode::Cache && replica.complete.is_some() {
                return Err(BrokenInvariant::CompleteCache(volume.id, site.clone()));
            }
        }
        for (name, snapshot) in volume.snapshots.iter() {
            if snapshot.holders.iter().any(|holder| !self.nodes.contains(holder)) {
                return Err(BrokenInvariant::SnapshotWithoutHolder(volume.id, name.clone()));
            }
        }
        if !volume.in_sync_is_right() {
            return Err(BrokenInvariant::InSync(volume.id));
        }
        let epochs = volume.superseded.iter().map(|superseded| superseded.epoch).chain([volume.epoch]);
        if epochs.is_sorted_by(|earlier, later| earlier < later) {
            Ok(())
        } else {
            Err(BrokenInvariant::Superseded(volume.id))
        }
    }
}
