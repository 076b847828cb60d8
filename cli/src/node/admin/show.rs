//! ListVolumes and ShowVolume.

use std::sync::Arc;

use sterna_proto::admin;
use sterna_storage_node::map;
use sterna_types::{BLOCK_SIZE, VolumeName};
use tonic::Status;

use super::bucket;
use super::lookup::{Freshness, contents, metadata, subject, volume};
use super::reply;
use super::request::parsed;
use super::status::IntoStatus;
use super::work::blocking;
use crate::node::node::Node;
use sterna_consensus::state::volume::VolumeState;

/// All volumes, by name.
pub(super) async fn list(node: Arc<Node>) -> Result<admin::ListVolumesReply, Status> {
    let metadata = metadata(&node).await?;
    let mut volumes: Vec<_> = metadata.volumes().map(|entry| reply::volume(&node, &metadata, entry)).collect();
    volumes.sort_unstable_by(|one, other| one.name.cmp(&other.name));
    Ok(admin::ListVolumesReply { volumes })
}

/// One volume: what the metadata knows, and what is here of it.
pub(super) async fn show(node: Arc<Node>, request: admin::ShowVolumeRequest) -> Result<admin::ShowVolumeReply, Status> {
    let name: VolumeName = parsed(&request.name)?;
    let metadata = metadata(&node).await?;
    let entry = volume(&metadata, &name)?;
    let open = node.volumes.get(entry.id).map(|open| {
        let status = open.volume.status();
        let (hot_bytes, warm_bytes) = open.volume.read_bytes();
        admin::OpenVolume {
            root: status.root.to_string(),
            generation: status.generation,
            unsealed_bytes: status.unsealed_bytes,
            poisoned: status.poisoned,
            seal_failure: status.seal_failure.unwrap_or_default(),
            traces: status.traces as u64,
            fetched_for_clients: status.bringing.waited,
            fetched_ahead: status.bringing.ahead,
            prefetching: status.bringing.ordered as u64,
            hot_bytes,
            warm_bytes,
            prefetch_failure: status.bringing.failure.unwrap_or_default(),
        }
    });
    let counts = request.count_map && entry.state == VolumeState::Ready;
    let map = if counts { Some(statistics(&node, &name).await?) } else { None };
    Ok(admin::ShowVolumeReply {
        volume: Some(reply::volume(&node, &metadata, entry)),
        snapshots: entry
            .snapshots
            .iter()
            .map(|(name, snapshot)| reply::snapshot(&metadata, entry, name, snapshot))
            .collect(),
        open,
        map,
        bucket: bucket::lag(&node, entry),
    })
}

async fn statistics(node: &Arc<Node>, name: &VolumeName) -> Result<admin::MapStatistics, Status> {
    let contents = contents(node, name.as_str(), Freshness::Sealed).await?;
    let storage = Arc::clone(&node.engine.storage);
    let counted = blocking(move || map::statistics(&**storage.store(), storage.nodes(), contents.root)).await?;
    let counted = counted.map_err(|error| error.about(&subject(name)))?;
    Ok(admin::MapStatistics {
        mapped_bytes: counted.mapped_blocks * BLOCK_SIZE,
        segments: counted.segments,
        extents: counted.extents,
        chunks: counted.distinct_chunks,
    })
}
