//! What the metadata of a node calls its volumes and snapshots.

use std::path::Path;

use anyhow::Result;
use sterna_consensus::state::volume::Volume;
use sterna_storage_node::salvage::{NamedSnapshot, NamedVolume};

/// The names in the metadata in `directory`, which is read and not altered.
///
/// # Errors
/// Where there is none, or none of it can be read.
pub(super) fn read(directory: &Path) -> Result<Vec<NamedVolume>> {
    let found = sterna_consensus::read_only(directory)?;
    if let Some(damage) = &found.damage {
        tracing::warn!(damage, "the names may not be the newest");
    }
    Ok(found.metadata.volumes().map(|volume| named(volume)).collect())
}

fn named(volume: &Volume) -> NamedVolume {
    let snapshots = volume.snapshots.iter();
    let snapshots = snapshots.map(|(name, snapshot)| NamedSnapshot {
        name: name.clone(),
        root: snapshot.root,
        size: snapshot.size,
    });
    NamedVolume {
        id: volume.id,
        name: volume.name.clone(),
        size: volume.size,
        root: volume.published.root,
        generation: volume.published.generation.0,
        epoch: volume.epoch,
        snapshots: snapshots.collect(),
    }
}
