//! ResizeVolume: the metadata first, which is where a volume's size comes from when it is opened, then the open volume.
//! A node that dies between the two opens it with the new size.

use std::sync::Arc;

use sterna_consensus::state::command::Command;
use sterna_proto::admin;
use sterna_types::VolumeName;
use tonic::Status;

use super::create::shown;
use super::lookup::{held_volume, spec, subject};
use super::request::{parsed, volume_size};
use super::status::IntoStatus;
use super::work::blocking;
use crate::node::node::Node;

/// Makes a volume larger.
pub(super) async fn resize(node: Arc<Node>, request: admin::ResizeVolumeRequest) -> Result<admin::Volume, Status> {
    let (name, size): (VolumeName, _) = (parsed(&request.name)?, volume_size(request.size_bytes)?);
    let (slot, entry) = held_volume(&node, &name).await?;
    spec(&entry)?;
    if size < entry.size {
        return Err(Status::invalid_argument(format!(
            "volume '{name}' has {}, and cannot be made smaller, as {} would: a file system in it would lose its end; \
             make a new volume and copy",
            entry.size.bytes(),
            size.bytes()
        )));
    }
    let proposed = node.metadata.propose(Command::ResizeVolume { volume: entry.id, size }).await;
    proposed.map_err(|error| error.about(&subject(&name)))?;
    if let Some(open) = node.volumes.get(entry.id) {
        let resized = blocking(move || open.volume.resize(size)).await?;
        resized
            .map_err(|error| error.about(&format!("volume '{name}' is larger from its next opening on, but now")))?;
    }
    drop(slot);
    shown(&node, &name).await
}
