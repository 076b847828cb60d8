//! The node's own types, as messages.

use std::ops::ControlFlow;

use sterna_consensus::Metadata;
use sterna_consensus::state::volume::{ClonedFrom, Snapshot as SnapshotEntry, Volume as VolumeEntry, VolumeState};
use sterna_proto::admin;
use sterna_storage_node::progress::Progress;
use sterna_types::{BLOCK_SIZE, NodeId, SnapshotName};

use super::work::Reporter;
use crate::node::node::Node;

/// A volume as the metadata knows it, and whether it is open here.
pub(super) fn volume(node: &Node, metadata: &Metadata, entry: &VolumeEntry) -> admin::Volume {
    let state = match entry.state {
        VolumeState::Ready => "ready",
        VolumeState::Importing => "importing",
    };
    admin::Volume {
        id: entry.id.0,
        name: entry.name.to_string(),
        size_bytes: entry.size.bytes().0,
        durability: entry.durability.to_string(),
        attach: entry.attach.to_string(),
        state: state.to_owned(),
        owner: node_name(metadata, entry.owner),
        epoch: entry.epoch.number(),
        published_root: entry.published.root.to_string(),
        published_generation: entry.published.generation.0,
        cloned_from: entry.origin.as_ref().map(cloned_from).unwrap_or_default(),
        snapshots: entry.snapshots.len() as u64,
        open: node.volumes.get(entry.id).is_some(),
        moving_to: entry.moving_to.map(|to| node_name(metadata, to)).unwrap_or_default(),
        sources: entry.sources.iter().map(|source| node_name(metadata, source.node)).collect(),
        exposed_bytes: entry.exposed_blocks().map(|blocks| blocks * BLOCK_SIZE),
        limit: entry.limit.map(|limit| limit.to_string()).unwrap_or_default(),
        degraded: entry.degraded.to_string(),
        in_sync: entry.in_sync.iter().map(|member| node_name(metadata, *member)).collect(),
    }
}

/// What a node is called; its number where it has left.
pub(super) fn node_name(metadata: &Metadata, node: NodeId) -> String {
    metadata.node(node).map_or_else(|| node.to_string(), |node| node.name.to_string())
}

fn cloned_from(origin: &ClonedFrom) -> String {
    match &origin.snapshot {
        Some(snapshot) => format!("{}@{snapshot}", origin.name),
        None => origin.name.to_string(),
    }
}

/// A snapshot of the volume `entry`.
pub(super) fn snapshot(
    metadata: &Metadata,
    entry: &VolumeEntry,
    name: &SnapshotName,
    snapshot: &SnapshotEntry,
) -> admin::Snapshot {
    admin::Snapshot {
        volume: entry.name.to_string(),
        name: name.to_string(),
        size_bytes: snapshot.size.bytes().0,
        root: snapshot.root.to_string(),
        generation: snapshot.generation.0,
        created_at_ms: snapshot.created.unix_ms,
        holders: entry.holders(snapshot).map(|holder| node_name(metadata, holder)).collect(),
    }
}

/// How far long work has come.
pub(super) fn progress(progress: Progress) -> admin::Progress {
    admin::Progress { done_bytes: progress.done_bytes, total_bytes: progress.total_bytes }
}

/// A watcher of the engine's that reports to the caller.
pub(super) fn watcher<T>(
    reporter: &mut Reporter<T>,
    step: impl Fn(admin::Progress) -> T,
) -> impl FnMut(Progress) -> ControlFlow<()> {
    move |now| reporter.progress(|| step(progress(now)))
}
