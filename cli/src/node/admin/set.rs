//! SetVolume: what was chosen for a volume when it was made, and can be chosen anew. Any node does it: it is the metadata's.

use std::sync::Arc;

use sterna_consensus::state::command::Command;
use sterna_consensus::state::policy::AttachPolicy;
use sterna_proto::admin;
use sterna_types::VolumeName;
use tonic::Status;

use super::create::shown;
use super::lookup::{metadata, subject, volume};
use super::request::parsed;
use super::status::IntoStatus;
use crate::node::node::Node;

/// Chooses what a write does where the volume is not owned.
pub(super) async fn set(node: Arc<Node>, request: admin::SetVolumeRequest) -> Result<admin::Volume, Status> {
    let (name, attach): (VolumeName, AttachPolicy) = (parsed(&request.name)?, parsed(&request.attach)?);
    let id = volume(&*metadata(&node).await?, &name)?.id;
    let proposed = node.metadata.propose(Command::SetAttach { volume: id, attach }).await;
    proposed.map_err(|error| error.about(&subject(&name)))?;
    shown(&node, &name).await
}
