//! CloneVolume: one more name for a root.

use std::sync::Arc;

use sterna_consensus::ProposeError;
use sterna_consensus::state::command::{Command, NewVolume, Origin};
use sterna_consensus::state::outcome::Outcome;
use sterna_consensus::state::refusal::Refusal;
use sterna_consensus::state::volume::Volume as VolumeEntry;
use sterna_proto::admin;
use sterna_types::{Root, VolumeName, VolumeSize};
use tonic::Status;

use super::create::{blank, make, shown};
use super::lookup::{held_snapshot, metadata, open_volume, seal, spec, subject, volume};
use super::request::parsed;
use super::status::IntoStatus;
use super::work;
use crate::args::values::Contents;
use crate::node::node::Node;
use crate::node::publish::publication;

/// Makes a volume that begins as a copy.
pub(super) async fn clone(node: Arc<Node>, request: admin::CloneVolumeRequest) -> Result<admin::Volume, Status> {
    let (source, name): (Contents, VolumeName) = (parsed(&request.source)?, parsed(&request.name)?);
    let _in_transit = node.in_transit.read().await;
    match source.snapshot {
        Some(snapshot) => {
            let metadata = metadata(&node).await?;
            let entry = volume(&metadata, &source.volume)?;
            spec(entry)?;
            let size = held_snapshot(&node, &metadata, entry, &snapshot)?.size;
            let origin = Origin::Snapshot { volume: entry.id, name: snapshot };
            make(&node, copy(&node, entry, name.clone(), size, origin)).await?;
        }
        None => clone_present(&node, &source.volume, &name).await?,
    }
    inherit_traces(&node, &source.volume, &name).await;
    shown(&node, &name).await
}

/// A clone boots first as its origin has: it begins with what this node knows of that. Of no account: what fails is told, and no more.
async fn inherit_traces(node: &Arc<Node>, source: &VolumeName, name: &VolumeName) {
    let metadata = node.metadata.read();
    let id = |name| metadata.volume_named(name).map(|entry| entry.id);
    let (Some(from), Some(to)) = (id(source), id(name)) else { return };
    let open = node.volumes.get(from);
    let storage = Arc::clone(&node.engine.storage);
    let inheriting = work::blocking(move || {
        let traces = match open {
            Some(open) => open.volume.traces(),
            None => storage.traces(from)?,
        };
        if traces.is_empty() {
            return Ok(());
        }
        storage.put_traces(to, &traces).map_err(|error| error.to_string())
    });
    let inherited = inheriting.await.unwrap_or_else(|status| Err(status.message().to_owned()));
    if let Err(error) = inherited {
        tracing::warn!(clone = %name, error, "what is touched first of a volume is not known of its clone");
    }
}

/// Clones what was acknowledged so far.
async fn clone_present(node: &Arc<Node>, source: &VolumeName, name: &VolumeName) -> Result<(), Status> {
    for _ in 0..ATTEMPTS {
        let root = publish(node, source).await?;
        let metadata = metadata(node).await?;
        let entry = volume(&metadata, source)?;
        let origin = Origin::Published { volume: entry.id, root };
        let new = copy(node, entry, name.clone(), entry.size, origin);
        match node.metadata.propose(Command::CreateVolume(new)).await {
            Ok(_) => return Ok(()),
            // It was sealed and published again in between, or has grown: once more.
            Err(ProposeError::Refused(Refusal::RootHasMoved { .. } | Refusal::SmallerThanOrigin { .. })) => {}
            Err(ProposeError::Refused(taken @ Refusal::VolumeNameTaken { .. })) => {
                return Err(Status::already_exists(taken.to_string()));
            }
            Err(error) => return Err(error.about(&subject(name))),
        }
    }
    Err(Status::aborted(format!("volume '{source}' changes too fast: take a snapshot, and clone that")))
}

/// Seals a volume, and has the metadata know its root, or one that was sealed later.
async fn publish(node: &Arc<Node>, name: &VolumeName) -> Result<Root, Status> {
    let (open, entry) = open_volume(node, name).await?;
    let sealed = seal(&open, name).await?;
    let root = sealed.root;
    if entry.published.root == root {
        return Ok(root);
    }
    let publication = publication(entry.id, open.epoch, sealed, &node.metadata.read());
    let outcome = node.metadata.propose(Command::PublishRoots(vec![publication])).await;
    let refused = match outcome.map_err(|error| error.about(&subject(name)))? {
        Outcome::Published { refused } => refused.into_iter().next(),
        _ => None,
    };
    match refused {
        None => Ok(root),
        Some((_, Refusal::OldGeneration { .. })) => Ok(volume(&*metadata(node).await?, name)?.published.root),
        Some((_, refusal)) => Err(ProposeError::Refused(refusal).about(&subject(name))),
    }
}

fn copy(node: &Node, of: &VolumeEntry, name: VolumeName, size: VolumeSize, origin: Origin) -> NewVolume {
    NewVolume { format: of.format, durability: of.durability, attach: of.attach, origin, ..blank(node, name, size) }
}

/// The publisher passes every few seconds: it comes between at most once or twice.
const ATTEMPTS: usize = 4;
