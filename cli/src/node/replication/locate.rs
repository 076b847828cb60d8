//! Which chunks are at which nodes: asked of them, and answered. Whoever answers looks at its index only.

use std::sync::Arc;
use std::time::Duration;

use sterna_proto::node::chunks_client::ChunksClient;
use sterna_proto::node::{LocateReply, LocateRequest};
use sterna_runtime::work::blocking;
use sterna_storage_node::chunk_store::ChunkStore;
use sterna_storage_node::gaps::MAX_WANTED;
use sterna_transport::Lane;
use sterna_types::{ChunkId, NodeId};
use tokio::time::timeout;
use tonic::Status;

use super::error::PullError;
use super::wire::chunk_id;
use crate::node::node::Node;

/// How long an answer may take: of a disk that looks for each, behind what else comes over the link.
const PATIENCE: Duration = Duration::from_secs(15);

/// Whether each of these chunks, at most [`MAX_WANTED`], is at a node, in their order.
///
/// # Errors
/// [`PullError`]: the node does not answer, or runs a version that knows no such question.
///
/// # Cancel safety
/// May be dropped at any time.
pub(in crate::node) async fn locate(node: &Node, at: NodeId, ids: &[ChunkId]) -> Result<Vec<bool>, PullError> {
    let failed = |status| PullError::Source { node: at, status: Box::new(status) };
    let request = LocateRequest { ids: ids.iter().map(|id| id.as_bytes().to_vec()).collect() };
    if at == node.metadata.id() {
        return answer(node, request).await.map(|reply| reply.is_here).map_err(failed);
    }
    let channels = node.metadata.channels().ok_or(PullError::Alone)?;
    let mut client = ChunksClient::new(channels.channel(at, Lane::Bulk));
    let asked = timeout(PATIENCE, client.locate(request)).await;
    let asked = asked.unwrap_or_else(|_| Err(Status::deadline_exceeded(format!("no answer within {PATIENCE:?}"))));
    let LocateReply { is_here } = asked.map_err(failed)?.into_inner();
    if is_here.len() == ids.len() {
        Ok(is_here)
    } else {
        Err(failed(Status::internal(format!("it answers for {} chunks of {}", is_here.len(), ids.len()))))
    }
}

/// What this node says to that.
///
/// # Errors
/// It was asked for what is no chunk, or for too many; or its index cannot be read.
pub(super) async fn answer(node: &Node, request: LocateRequest) -> Result<LocateReply, Status> {
    let given = request.ids.len();
    if given > MAX_WANTED {
        return Err(Status::invalid_argument(format!("{given} chunks in one request; {MAX_WANTED} are the most")));
    }
    let ids = request.ids.iter().map(|id| chunk_id(id)).collect::<Result<Vec<_>, _>>()?;
    let store = Arc::clone(&node.engine.store);
    let looking = blocking(move || {
        let is_here = |id| store.locate(id).map(|found| found.is_some());
        ids.into_iter().map(is_here).collect::<Result<Vec<_>, _>>()
    });
    let is_here = looking.await.map_err(|panic| Status::internal(panic.to_string()))?;
    Ok(LocateReply { is_here: is_here.map_err(|error| Status::unavailable(error.to_string()))? })
}
