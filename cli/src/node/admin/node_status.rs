//! Status: the node, its cluster, and what it holds.

use std::sync::Arc;

use sterna_consensus::ReadError;
use sterna_nbd_server::NbdServer;
use sterna_proto::admin;
use tonic::Status;

use super::bucket;
use super::status::IntoStatus;
use super::work::blocking;
use crate::node::node::Node;

/// What there is to say. It answers as well where the metadata has no leader.
pub(super) async fn status(node: &Arc<Node>, nbd: &NbdServer, uris: &[String]) -> Result<admin::StatusReply, Status> {
    let metadata = node.metadata.read();
    let leader = match node.metadata.linearizable().await {
        Ok(_) => node.metadata.leader(),
        Err(ReadError::NotLeader { leader }) => leader,
        Err(ReadError::CutOff { .. } | ReadError::Stopped { .. }) => None,
    };
    let leader = leader.and_then(|id| metadata.node(id)).map(|node| node.name.to_string());
    let engine = Arc::clone(node);
    let (stats, available_bytes) =
        blocking(move || (engine.engine.store.stats(), engine.engine.disk.available_bytes())).await?;
    let stats = stats.map_err(|error| error.about("the chunk store"))?;
    let available_bytes = available_bytes.map_err(|error| Status::internal(format!("the data directory: {error}")))?;
    Ok(admin::StatusReply {
        cluster: node.identity.cluster.to_string(),
        node: node.identity.node.to_string(),
        site: node.identity.site.to_string(),
        node_id: node.metadata.id().0,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        data_directory: node.directory.display().to_string(),
        leader: leader.unwrap_or_default(),
        volumes: metadata.volume_count() as u64,
        open_volumes: node.volumes.open_count() as u64,
        chunks: Some(admin::ChunkStoreStatus {
            chunks: stats.chunks,
            packs: stats.packs,
            chunk_bytes: stats.chunk_bytes,
            stored_bytes: stats.stored_bytes,
        }),
        available_bytes,
        nbd_addresses: uris.to_vec(),
        nbd_connections: nbd.connections() as u64,
        uptime_seconds: node.started.elapsed().as_secs_f64(),
        bucket: bucket::report(node),
    })
}
