//! What a volume and a snapshot look like: JSON with keys that stay, and texts. `docs/command-line.md` lists the keys.

use serde::Serialize;
use sterna_proto::admin;
use sterna_types::ByteSize;

pub(super) use crate::call::if_any;
use crate::console::text::utc;

/// A volume, as the metadata knows it.
#[derive(Serialize)]
pub(crate) struct VolumeView {
    id: u64,
    pub(crate) name: String,
    pub(crate) size_bytes: u64,
    pub(crate) state: String,
    pub(crate) durability: String,
    pub(crate) attach: String,
    pub(crate) owner: String,
    pub(crate) epoch: u64,
    root: String,
    generation: u64,
    pub(crate) cloned_from: Option<String>,
    pub(crate) snapshots: u64,
    pub(crate) open: bool,
    pub(crate) moving_to: Option<String>,
    pub(crate) sources: Vec<String>,
    pub(crate) exposed_bytes: Option<u64>,
    /// In bits in a second.
    pub(crate) limit: Option<String>,
    pub(crate) degraded: String,
    /// Beside the owner.
    pub(crate) in_sync: Vec<String>,
}

impl From<admin::Volume> for VolumeView {
    fn from(volume: admin::Volume) -> Self {
        Self {
            id: volume.id,
            name: volume.name,
            size_bytes: volume.size_bytes,
            state: volume.state,
            durability: volume.durability,
            attach: volume.attach,
            owner: volume.owner,
            epoch: volume.epoch,
            root: volume.published_root,
            generation: volume.published_generation,
            cloned_from: if_any(volume.cloned_from),
            snapshots: volume.snapshots,
            open: volume.open,
            moving_to: if_any(volume.moving_to),
            sources: volume.sources,
            exposed_bytes: volume.exposed_bytes,
            limit: if_any(volume.limit),
            degraded: volume.degraded,
            in_sync: volume.in_sync,
        }
    }
}

impl VolumeView {
    /// Its size, for people.
    pub(crate) fn size(&self) -> String {
        ByteSize(self.size_bytes).to_string()
    }
}

/// A snapshot.
#[derive(Serialize)]
pub(crate) struct SnapshotView {
    pub(crate) volume: String,
    pub(crate) name: String,
    pub(crate) size_bytes: u64,
    root: String,
    pub(crate) generation: u64,
    created_at_ms: u64,
    pub(crate) holders: Vec<String>,
}

impl From<admin::Snapshot> for SnapshotView {
    fn from(snapshot: admin::Snapshot) -> Self {
        Self {
            volume: snapshot.volume,
            name: snapshot.name,
            size_bytes: snapshot.size_bytes,
            root: snapshot.root,
            generation: snapshot.generation,
            created_at_ms: snapshot.created_at_ms,
            holders: snapshot.holders,
        }
    }
}

impl SnapshotView {
    /// When it was made, for people.
    pub(crate) fn created(&self) -> String {
        utc(self.created_at_ms)
    }
}

/// What a node has of a volume that is open there.
#[derive(Serialize)]
pub(crate) struct OpenView {
    root: String,
    generation: u64,
    pub(crate) unsealed_bytes: u64,
    pub(crate) poisoned: bool,
    pub(crate) seal_failure: Option<String>,
    traces: u64,
    pub(crate) fetched_for_clients: u64,
    pub(crate) fetched_ahead: u64,
    prefetching: u64,
    pub(crate) prefetch_failure: Option<String>,
}

impl From<admin::OpenVolume> for OpenView {
    fn from(open: admin::OpenVolume) -> Self {
        Self {
            root: open.root,
            generation: open.generation,
            unsealed_bytes: open.unsealed_bytes,
            poisoned: open.poisoned,
            seal_failure: if_any(open.seal_failure),
            traces: open.traces,
            fetched_for_clients: open.fetched_for_clients,
            fetched_ahead: open.fetched_ahead,
            prefetching: open.prefetching,
            prefetch_failure: if_any(open.prefetch_failure),
        }
    }
}

/// What a volume's map says about its data.
#[derive(Serialize)]
pub(crate) struct MapView {
    pub(crate) mapped_bytes: u64,
    pub(crate) segments: u64,
    pub(crate) extents: u64,
    pub(crate) chunks: u64,
}

impl From<admin::MapStatistics> for MapView {
    fn from(map: admin::MapStatistics) -> Self {
        Self { mapped_bytes: map.mapped_bytes, segments: map.segments, extents: map.extents, chunks: map.chunks }
    }
}

/// A part of a volume that cannot be read as it was written.
#[derive(Serialize)]
pub(crate) struct DamageView {
    pub(crate) volume: String,
    pub(crate) start_bytes: u64,
    pub(crate) length_bytes: u64,
    pub(crate) chunk: String,
    pub(crate) what: String,
}

impl From<admin::DamagedRange> for DamageView {
    fn from(damage: admin::DamagedRange) -> Self {
        Self {
            volume: damage.volume,
            start_bytes: damage.start_bytes,
            length_bytes: damage.length_bytes,
            chunk: damage.chunk,
            what: damage.what,
        }
    }
}

impl DamageView {
    /// Where it is, for people.
    pub(crate) fn place(&self) -> String {
        format!("{}: {} at {:#x}", self.volume, ByteSize(self.length_bytes), self.start_bytes)
    }
}
