//! Mending what is damaged here with what other nodes have of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use sterna_storage_node::gaps::{Gap, Wanted};
use sterna_transport::Lane;
use sterna_types::{ChunkId, NodeId};

use super::bucket::fetch_from_bucket;
use super::error::PullError;
use super::fetch::{Storing, fetch_from};
use crate::node::node::Node;

/// Where what was damaged has come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::node) enum Origin {
    /// A node; this one where only its index had been wrong.
    Node(NodeId),
    /// The bucket.
    Bucket,
}

/// Fetches chunks that are damaged here from whatever other node with a session has them, the nearest first, or from the bucket, and stores them in place of
/// what is here: durable on return. Which came from where; the others nobody has who was reached.
///
/// # Errors
/// [`PullError`]: what came could not be stored. That a node does not answer is none.
///
/// # Cancel safety
/// May be dropped at any time; what was stored by then stays.
pub(in crate::node) async fn mend(
    node: &Arc<Node>,
    damaged: Vec<Wanted>,
) -> Result<BTreeMap<ChunkId, Origin>, PullError> {
    let mut left: Vec<_> = damaged.into_iter().map(Gap::from).collect();
    let mut mended = BTreeMap::new();
    let others: Vec<_> = {
        let (metadata, own) = (node.metadata.read(), node.metadata.id());
        let is_live = |session: sterna_consensus::state::session::Session| session.is_live();
        let live = metadata.nodes().filter(|other| other.id != own && other.session.is_some_and(is_live));
        live.map(|other| other.id).collect()
    };
    for source in node.reach.nearest_first(&others) {
        let before: Vec<_> = left.iter().map(|gap| gap.wanted.id).collect();
        if before.is_empty() {
            break;
        }
        let store = Storing::repairing(node, &|_, _| {});
        match fetch_from(node, source, Lane::Bulk, &mut left, false, &store, &|_| {}).await {
            Ok(()) => {}
            Err(error) if error.is_of_source() => {
                tracing::info!(node = %source, "what is damaged here is not to be had from there: {error}");
            }
            Err(error) => return Err(error),
        }
        store.finish().await?;
        let is_left = |id: &ChunkId| left.iter().any(|gap| gap.wanted.id == *id);
        mended.extend(before.into_iter().filter(|id| !is_left(id)).map(|id| (id, Origin::Node(source))));
    }
    let before: Vec<_> = left.iter().map(|gap| gap.wanted.id).collect();
    let store = Storing::repairing(node, &|_, _| {});
    match fetch_from_bucket(node, &mut left, &store).await {
        Err(error @ PullError::Bucket(_)) => tracing::info!("what is damaged here is not to be had besides: {error}"),
        result => result?,
    }
    store.finish().await?;
    let is_left = |id: &ChunkId| left.iter().any(|gap| gap.wanted.id == *id);
    mended.extend(before.into_iter().filter(|id| !is_left(id)).map(|id| (id, Origin::Bucket)));
    Ok(mended)
}
