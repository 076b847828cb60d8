//! SetVolume: what was chosen for a volume when it was made, and can be chosen anew. Any node does it: it is the metadata's.

use std::fmt::Display;
use std::str::FromStr;
use std::sync::Arc;

use sterna_consensus::state::command::Command;
use sterna_consensus::state::policy::{AttachPolicy, DegradedPolicy, Durability};
use sterna_proto::admin;
use sterna_types::{ByteRate, VolumeName};
use tonic::Status;

use super::create::shown;
use super::lookup::{metadata, subject, volume};
use super::request::{can_keep, parsed};
use super::status::IntoStatus;
use crate::node::node::Node;

/// Chooses what a write does where the volume is not owned, what a flush waits for, and how much of it others fetch: what is given, and
/// nothing else.
pub(super) async fn set(node: Arc<Node>, request: admin::SetVolumeRequest) -> Result<admin::Volume, Status> {
    let name: VolumeName = parsed(&request.name)?;
    let attach: Option<AttachPolicy> = given(&request.attach)?;
    let limit: Option<Option<ByteRate>> = match request.limit.as_str() {
        "none" => Some(None),
        limit => given(limit)?.map(Some),
    };
    let durability: Option<Durability> = given(&request.durability)?;
    let degraded: Option<DegradedPolicy> = given(&request.degraded)?;
    let metadata = metadata(&node).await?;
    let volume = volume(&metadata, &name)?.id;
    if let Some(durability) = durability {
        can_keep(&metadata, durability)?;
    }
    let attach = attach.map(|attach| Command::SetAttach { volume, attach });
    let limit = limit.map(|limit| Command::SetVolumeLimit { volume, limit });
    let durability = durability.map(|durability| Command::SetDurability { volume, durability });
    let degraded = degraded.map(|policy| Command::SetDegraded { volume, policy });
    for command in [attach, limit, degraded, durability].into_iter().flatten() {
        node.metadata.propose(command).await.map_err(|error| error.about(&subject(&name)))?;
    }
    shown(&node, &name).await
}

/// A value, unless it is left as it is.
fn given<T: FromStr<Err: Display>>(text: &str) -> Result<Option<T>, Status> {
    if text.is_empty() { Ok(None) } else { parsed(text).map(Some) }
}
