//! CreateSnapshot: the volume is sealed, and its root recorded under a name.

use std::sync::Arc;

use sterna_consensus::state::command::{Command, NewSnapshot};
use sterna_consensus::state::volume::Generation;
use sterna_proto::admin;
use sterna_storage_node::volume::SealedState;
use sterna_types::{SnapshotName, VolumeName, VolumeSize};
use tonic::Status;

use super::lookup::{metadata, open_volume, seal, subject, volume};
use super::reply;
use super::request::parsed;
use super::status::IntoStatus;
use crate::node::clock::now;
use crate::node::node::Node;

/// Keeps what was acknowledged so far under a name.
pub(super) async fn create(node: Arc<Node>, request: admin::CreateSnapshotRequest) -> Result<admin::Snapshot, Status> {
    let (of, name): (VolumeName, SnapshotName) = (parsed(&request.volume)?, parsed(&request.name)?);
    let _in_transit = node.in_transit.read().await;
    let (open, entry) = open_volume(&node, &of).await?;
    if entry.snapshots.contains(&name) {
        return Err(Status::already_exists(format!(
            "volume '{of}' has a snapshot '{name}' already: choose another name"
        )));
    }
    let SealedState { root, generation, .. } = seal(&open, &of).await?;
    // Read behind the seal: blocks beyond an older size may be in the root already, and are not to come back later.
    let size = VolumeSize::try_from(open.volume.size()).map_err(|error| Status::internal(error.to_string()))?;
    let new = NewSnapshot {
        volume: entry.id,
        epoch: open.epoch,
        name: name.clone(),
        root,
        generation: Generation(generation),
        size,
        at: now(),
    };
    let proposed = node.metadata.propose(Command::CreateSnapshot(new)).await;
    proposed.map_err(|error| error.about(&subject(&of)))?;
    let metadata = metadata(&node).await?;
    let entry = volume(&metadata, &of)?;
    let snapshot = entry.snapshots.get(&name);
    let snapshot = snapshot.ok_or_else(|| Status::aborted(format!("'{of}@{name}' was deleted at once")))?;
    Ok(reply::snapshot(&metadata, entry, &name, snapshot))
}
