//! What is to be in the bucket: what the volumes of this node have published, and their snapshots that are here.

use std::sync::Arc;

use sterna_bucket::names::VolumeKey;
use sterna_bucket::{SnapshotRecord, VolumeRecord};
use sterna_consensus::state::volume::{Volume as VolumeEntry, VolumeState};
use sterna_types::{Root, VolumeId};

use crate::node::node::{HeldRoot, Node};

/// A volume, as it is to be there.
pub(super) struct Due {
    pub(super) record: VolumeRecord,
    /// Keeps its roots from being collected while they are sent.
    _held: Vec<HeldRoot>,
}

impl Due {
    pub(super) fn volume(&self) -> VolumeId {
        self.record.volume
    }

    pub(super) fn key(&self) -> VolumeKey {
        self.record.key().of
    }
}

/// All volumes of this node that can be sent, and all of which is here, but for those that `is_there` says of that they are.
pub(super) async fn due(node: &Arc<Node>, is_there: impl Fn(&VolumeRecord) -> bool) -> Vec<Due> {
    let _in_transit = node.in_transit.read().await;
    let (metadata, own) = (node.metadata.read(), node.metadata.id());
    let is_due = |entry: &&Arc<VolumeEntry>| {
        let is_whole = entry.state == VolumeState::Ready && entry.is_hydrated();
        entry.owner == own && is_whole && entry.moving_to.is_none()
    };
    let records = metadata.volumes().filter(is_due).map(|entry| record_of(node, entry));
    let due = records.filter(|record| !is_there(record)).map(|record| {
        let held = record.roots().filter(|root| *root != Root::EMPTY).map(|root| node.hold_root(root)).collect();
        Due { record, _held: held }
    });
    due.collect()
}

/// A volume of this node as its record has it.
pub(in crate::node) fn record_of(node: &Node, entry: &VolumeEntry) -> VolumeRecord {
    let own = node.metadata.id();
    let held = entry.snapshots.iter().filter(|(_, snapshot)| entry.is_held_by(snapshot, own));
    let snapshot = |snapshot: &sterna_consensus::state::volume::Snapshot| SnapshotRecord {
        root: snapshot.root,
        size: snapshot.size,
        generation: snapshot.generation.0,
        created_ms: snapshot.created.unix_ms,
    };
    VolumeRecord {
        cluster: node.identity.cluster,
        volume: entry.id,
        name: entry.name.clone(),
        size: entry.size,
        format: entry.format.0,
        durability: entry.durability.to_string(),
        attach: entry.attach.to_string(),
        epoch: entry.epoch,
        root: entry.published.root,
        generation: entry.published.generation.0,
        written_blocks: entry.published.written_blocks,
        published_ms: entry.published.at.map(|at| at.unix_ms),
        node: node.identity.node.clone(),
        site: node.identity.site.clone(),
        snapshots: held.map(|(name, kept)| (name.clone(), snapshot(kept))).collect(),
    }
}
