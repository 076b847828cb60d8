//! DeleteVolume and DeleteSnapshot.
//!
//! How a volume goes, and what the start of a node does after a crash behind each step:
//! 1. It is closed, so that nobody writes to it. *It is there, with all that was acknowledged.*
//! 2. The metadata forgets it. *What is left of it here is removed (`node::remove_deleted`).*
//! 3. What is kept of it here is removed; its chunks go with the next collection. *The same.* Other nodes do so when they hear of it
//!    (`node::returned`).

use std::sync::Arc;

use sterna_consensus::state::command::Command;
use sterna_proto::admin;
use sterna_types::{SnapshotName, VolumeName};
use tonic::Status;

use super::lookup::{held_volume, metadata, subject, volume};
use super::request::parsed;
use super::status::IntoStatus;
use crate::node::node::Node;

/// Deletes a volume that nobody uses.
pub(super) async fn delete_volume(
    node: Arc<Node>,
    request: admin::DeleteVolumeRequest,
) -> Result<admin::DeleteVolumeReply, Status> {
    let name: VolumeName = parsed(&request.name)?;
    let (mut slot, entry) = held_volume(&node, &name).await?;
    if slot.is_in_use() {
        return Err(Status::failed_precondition(format!("a client is attached to volume '{name}': detach it first")));
    }
    if node.imports.is_running(&name) {
        return Err(Status::failed_precondition(format!("volume '{name}' is being imported: stop that first")));
    }
    let count = entry.snapshots.len();
    if count > 0 && !request.with_snapshots {
        return Err(Status::failed_precondition(format!(
            "volume '{name}' has snapshots, {count} of them: delete those first, or with it (--with-snapshots)"
        )));
    }
    slot.close().await;
    let delete = Command::DeleteVolume { volume: entry.id, with_snapshots: request.with_snapshots };
    node.metadata.propose(delete).await.map_err(|error| error.about(&subject(&name)))?;
    // It is deleted, whatever happens to its remains: `node::returned` looks for them again.
    if let Err(error) = node.remove_left(slot, entry.id).await {
        tracing::warn!(volume = %entry.id, "what is left of a deleted volume stays for now: {error:#}");
    }
    Ok(admin::DeleteVolumeReply {})
}

/// Gives a snapshot up.
pub(super) async fn delete_snapshot(
    node: Arc<Node>,
    request: admin::DeleteSnapshotRequest,
) -> Result<admin::DeleteSnapshotReply, Status> {
    let (of, name): (VolumeName, SnapshotName) = (parsed(&request.volume)?, parsed(&request.name)?);
    let metadata = metadata(&node).await?;
    let entry = volume(&metadata, &of)?;
    if !entry.snapshots.contains(&name) {
        return Err(Status::not_found(format!("volume '{of}' has no snapshot '{name}'")));
    }
    let delete = Command::DeleteSnapshot { volume: entry.id, name };
    node.metadata.propose(delete).await.map_err(|error| error.about(&subject(&of)))?;
    Ok(admin::DeleteSnapshotReply {})
}
