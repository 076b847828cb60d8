//! From names to volumes, and to the roots that hold their contents.

use std::sync::Arc;

use sterna_consensus::Metadata;
use sterna_consensus::state::volume::{Snapshot as SnapshotEntry, Volume as VolumeEntry, VolumeState};
use sterna_storage_node::volume::{SealedState, VolumeSpec};
use sterna_types::{NodeId, Root, SnapshotName, VolumeName, VolumeSize};
use tonic::Status;

use super::request::parsed;
use super::status::IntoStatus;
use super::work::blocking;
use crate::args::values::Contents;
use crate::node::node::{HeldRoot, Node, spec_of};
use crate::node::volumes::{HeldSlot, OpenVolume};

/// The metadata, with all that was decided before.
pub(super) async fn metadata(node: &Node) -> Result<Arc<Metadata>, Status> {
    node.metadata.linearizable().await.map_err(|error| error.about("the metadata"))
}

/// The volume of this name.
pub(super) fn volume<'a>(metadata: &'a Metadata, name: &VolumeName) -> Result<&'a Arc<VolumeEntry>, Status> {
    metadata.volume_named(name).ok_or_else(|| Status::not_found(format!("there is no volume '{name}'")))
}

/// The volume of this name, which this node has to own: the data of others is not here.
pub(super) fn own_volume<'a>(
    node: &Node,
    metadata: &'a Metadata,
    name: &VolumeName,
) -> Result<&'a Arc<VolumeEntry>, Status> {
    let entry = volume(metadata, name)?;
    if entry.owner == node.metadata.id() {
        // What is released may be another node's by now.
        if node.volumes.promises().serves(entry) == Some(entry.epoch) {
            return Ok(entry);
        }
        let to = entry.moving_to.map(|to| name_of(metadata, to)).unwrap_or_default();
        return Err(Status::failed_precondition(format!("volume '{name}' is being handed over to {to}")));
    }
    let owner = name_of(metadata, entry.owner);
    let what = format!("volume '{name}' is owned by node {owner}: give this command to that node");
    Err(Status::failed_precondition(what))
}

/// The snapshot `name` of a volume, which has to be here.
pub(super) fn held_snapshot<'a>(
    node: &Node,
    metadata: &Metadata,
    entry: &'a VolumeEntry,
    name: &SnapshotName,
) -> Result<&'a SnapshotEntry, Status> {
    let volume = &entry.name;
    let missing = || Status::not_found(format!("volume '{volume}' has no snapshot '{name}'"));
    let snapshot = entry.snapshots.get(name).ok_or_else(missing)?;
    if entry.is_held_by(snapshot, node.metadata.id()) {
        return Ok(snapshot);
    }
    let holders: Vec<_> = entry.holders(snapshot).map(|holder| name_of(metadata, holder)).collect();
    let what = format!("snapshot '{volume}@{name}' is not here: give this command to {}", holders.join(", or to "));
    Err(Status::failed_precondition(what))
}

/// What a node is called, and where it is.
pub(super) fn name_of(metadata: &Metadata, node: NodeId) -> String {
    metadata.node(node).map_or_else(|| node.to_string(), |node| format!("{} at {}", node.name, node.site))
}

/// The volume of this name, with its slot held, so that nobody opens, closes or deletes it meanwhile.
pub(super) async fn held_volume(node: &Node, name: &VolumeName) -> Result<(HeldSlot, Arc<VolumeEntry>), Status> {
    let id = volume(&*metadata(node).await?, name)?.id;
    let slot = node.volumes.hold(id).await;
    // It may have gone while the slot was waited for.
    let entry = Arc::clone(own_volume(node, &*metadata(node).await?, name)?);
    if entry.id == id { Ok((slot, entry)) } else { Err(Status::aborted(format!("'{name}' is another volume now"))) }
}

/// The volume of this name, open, for whatever needs all of it and is not about its being open.
pub(super) async fn open_volume(node: &Node, name: &VolumeName) -> Result<(OpenVolume, Arc<VolumeEntry>), Status> {
    let (mut slot, entry) = held_volume(node, name).await?;
    let spec = spec(&entry)?;
    if !entry.is_hydrated() {
        let metadata = node.metadata.read();
        let others: Vec<_> = entry.sources.iter().map(|source| name_of(&metadata, source.node)).collect();
        let what =
            format!("parts of volume '{name}' are still at {}: try again when they have arrived", others.join(", "));
        return Err(Status::failed_precondition(what));
    }
    let open = slot.volume(&spec).await.map_err(|error| error.about(&subject(name)))?;
    Ok((open, entry))
}

/// What the engine has to know of a volume that can be used.
pub(super) fn spec(entry: &VolumeEntry) -> Result<VolumeSpec, Status> {
    if entry.state == VolumeState::Importing {
        return Err(Status::failed_precondition(format!(
            "the import of volume '{name}' is not complete: repeat it, or delete the volume",
            name = entry.name
        )));
    }
    spec_of(entry).ok_or_else(|| {
        let (name, format) = (&entry.name, entry.format);
        Status::failed_precondition(format!(
            "volume '{name}' has format {format}, which this program does not know: use the one that made it, or a later one"
        ))
    })
}

/// How a volume is called in messages.
pub(super) fn subject(name: &VolumeName) -> String {
    format!("volume '{name}'")
}

/// Whether what was written but not sealed yet has to be in a root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Freshness {
    /// All that was acknowledged is in it: the volume is sealed for it.
    Now,
    /// It is what was sealed last.
    Sealed,
}

/// Contents with a name, held so that they are not collected.
#[derive(Debug)]
pub(super) struct HeldContents {
    pub(super) root: Root,
    pub(super) size: VolumeSize,
    _held: HeldRoot,
}

/// The contents that `text`, NAME or NAME@SNAPSHOT, names.
pub(super) async fn contents(node: &Arc<Node>, text: &str, freshness: Freshness) -> Result<HeldContents, Status> {
    let Contents { volume: name, snapshot } = parsed(text)?;
    let _in_transit = node.in_transit.read().await;
    let (root, size) = match snapshot {
        Some(snapshot) => {
            let metadata = metadata(node).await?;
            let snapshot = held_snapshot(node, &metadata, volume(&metadata, &name)?, &snapshot)?;
            (snapshot.root, snapshot.size)
        }
        None => {
            let (open, entry) = open_volume(node, &name).await?;
            match freshness {
                Freshness::Now => (seal(&open, &name).await?.root, entry.size),
                Freshness::Sealed => (open.volume.sealed().root, entry.size),
            }
        }
    };
    Ok(HeldContents { root, size, _held: node.hold_root(root) })
}

/// All contents that have a name and are here: those of each volume of this node, as they were sealed last, and snapshots; by
/// name.
pub(super) async fn all_contents(node: &Arc<Node>) -> Result<Vec<(String, HeldContents)>, Status> {
    let _in_transit = node.in_transit.read().await;
    let metadata = metadata(node).await?;
    let storage = Arc::clone(&node.engine.storage);
    let sealed = blocking(move || storage.sealed()).await?.map_err(|error| error.about("the volumes"))?;
    let held = |root, size| HeldContents { root, size, _held: node.hold_root(root) };
    let mut all = Vec::new();
    let own = node.metadata.id();
    for entry in metadata.volumes() {
        // Of what has not all arrived, what is not here is at others.
        if entry.owner == own && entry.is_hydrated() {
            let record = sealed.get(&entry.id).filter(|record| record.epoch == entry.epoch);
            let root = record.map_or(entry.published.root, |record| record.root);
            all.push((entry.name.to_string(), held(root, entry.size)));
        }
        let snapshots = entry.snapshots.iter().filter(|(_, kept)| entry.is_held_by(kept, own));
        all.extend(snapshots.map(|(name, kept)| (format!("{}@{name}", entry.name), held(kept.root, kept.size))));
    }
    all.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
    Ok(all)
}

/// Seals a volume; the root holds all that was acknowledged before. The caller has roots in transit.
pub(super) async fn seal(open: &OpenVolume, name: &VolumeName) -> Result<SealedState, Status> {
    let volume = Arc::clone(&open.volume);
    blocking(move || volume.seal()).await?.map_err(|error| error.about(&subject(name)))
}
