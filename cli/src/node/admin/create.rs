//! CreateVolume.

use std::sync::Arc;

use sterna_consensus::ProposeError;
use sterna_consensus::state::command::{Command, NewVolume, Origin};
use sterna_consensus::state::refusal::Refusal;
use sterna_proto::admin;
use sterna_storage_node::chunking::ChunkingParameters;
use sterna_types::{VolumeName, VolumeSize};
use tonic::Status;

use super::lookup::{metadata, subject, volume};
use super::reply;
use super::request::{attach, can_keep, durability, parsed, volume_size};
use super::status::IntoStatus;
use crate::node::node::{Node, format_of};

/// Makes a volume of zeroes.
pub(super) async fn create(node: Arc<Node>, request: admin::CreateVolumeRequest) -> Result<admin::Volume, Status> {
    let (name, size): (VolumeName, _) = (parsed(&request.name)?, volume_size(request.size_bytes)?);
    let new = NewVolume {
        durability: durability(&request.durability)?,
        attach: attach(&request.attach)?,
        ..blank(&node, name.clone(), size)
    };
    make(&node, new).await?;
    shown(&node, &name).await
}

/// A new volume of this node, with the defaults for everything else.
pub(super) fn blank(node: &Node, name: VolumeName, size: VolumeSize) -> NewVolume {
    NewVolume {
        name,
        size,
        format: format_of(&ChunkingParameters::default()),
        durability: Default::default(),
        attach: Default::default(),
        origin: Origin::Blank,
        owner: node.metadata.id(),
    }
}

/// Has a new volume made.
pub(super) async fn make(node: &Node, new: NewVolume) -> Result<(), Status> {
    let subject = subject(&new.name);
    can_keep(&node.metadata.read(), new.durability)?;
    match node.metadata.propose(Command::CreateVolume(new)).await {
        Ok(_) => Ok(()),
        Err(ProposeError::Refused(taken @ Refusal::VolumeNameTaken { .. })) => {
            Err(Status::already_exists(taken.to_string()))
        }
        Err(error) => Err(error.about(&subject)),
    }
}

/// A volume as it is now.
pub(super) async fn shown(node: &Node, name: &VolumeName) -> Result<admin::Volume, Status> {
    let metadata = metadata(node).await?;
    Ok(reply::volume(node, &metadata, volume(&metadata, name)?))
}
