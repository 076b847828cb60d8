//! Pulling all of one root: what is lacking of it is asked for, verified and stored, until nothing is lacking.
//!
//! 1. Walk the difference from contents that are complete here, and fetch what is lacking. *A crash leaves
//!    chunks that nobody names; the next pull finds those that are still there.*
//! 2. Walk it once more, with nothing fetched in between, so that no collection can come between: only now is all of it here.
//! 3. Hold the root, until the metadata names it.

use std::iter;
use std::ops::Range;
use std::sync::Arc;

use sterna_storage_node::chunk_store::{ChunkKind, ChunkStore, StorePin};
use sterna_storage_node::gaps::{self, Gaps};
use sterna_storage_node::map::MapError;
use sterna_transport::Lane;
use sterna_types::{NodeId, Root, VolumeId};
use tokio::try_join;

use super::error::PullError;
use super::fetch::{Stored, fetch_group};
use super::transfer::Transfer;
use crate::node::node::{HeldRoot, Node};

/// What is to be pulled.
#[derive(Clone, Debug)]
pub(in crate::node) struct Target {
    /// Of which volume it is.
    pub(in crate::node) volume: VolumeId,
    /// Contents that are complete here, and that the metadata names.
    pub(in crate::node) old: Root,
    /// The contents that are wanted.
    pub(in crate::node) new: Root,
    /// The nodes that have them.
    pub(in crate::node) sources: Vec<NodeId>,
}

/// Pulls all of a root. On return it is complete and durable here, and held as long as what is returned lives.
///
/// # Errors
/// [`PullError`]; what has come by then is found by the next attempt, unless it is collected before.
///
/// # Cancel safety
/// May be dropped at any time, as after an error.
pub(in crate::node) async fn pull(node: &Arc<Node>, target: &Target) -> Result<HeldRoot, PullError> {
    pull_in_order(node, target, vec![iter::once(0..u64::MAX).collect()]).await
}

/// The same, class by class of these blocks, which are in order in each class, and together about all there are.
///
/// # Errors
/// [`PullError`], as with [`pull`].
///
/// # Cancel safety
/// As with [`pull`].
pub(in crate::node) async fn pull_in_order(
    node: &Arc<Node>,
    target: &Target,
    mut classes: Vec<Vec<Range<u64>>>,
) -> Result<HeldRoot, PullError> {
    // It may all be here under other names.
    if let Some(held) = hold(node, target, gaps::complete).await? {
        return Ok(held);
    }
    for _ in 0..WALKS {
        for blocks in std::mem::replace(&mut classes, vec![iter::once(0..u64::MAX).collect()]) {
            fill(node, target, blocks, &|_, _| {}).await?;
        }
        if let Some(held) = hold(node, target, gaps::complete).await? {
            return Ok(held);
        }
    }
    Err(PullError::Collected)
}

/// Pulls the map of a root, where that of `target.old` is here. On return it is complete and durable here, and held with what of its
/// data is here, as long as what is returned lives.
///
/// # Errors
/// [`PullError`], as with [`pull`].
///
/// # Cancel safety
/// As with [`pull`].
pub(in crate::node) async fn pull_map(node: &Arc<Node>, target: &Target) -> Result<HeldRoot, PullError> {
    for _ in 0..WALKS {
        if let Some(held) = hold(node, target, gaps::complete_map).await? {
            return Ok(held);
        }
        let store: Arc<dyn ChunkStore> = Arc::clone(&node.engine.store) as _;
        follow(node, target, Gaps::of_map(store, target.old, target.new), &|_, _| {}).await?;
    }
    hold(node, target, gaps::complete_map).await?.ok_or(PullError::Collected)
}

/// Step 1, for these blocks, which are in order, and none of which overlaps another; `stored` is told of each chunk, with its length in
/// bytes. Where the root is held, what of it is here is not collected on return.
///
/// # Errors
/// [`PullError`], as with [`pull`].
///
/// # Cancel safety
/// As with [`pull`].
pub(in crate::node) async fn fill(
    node: &Arc<Node>,
    target: &Target,
    blocks: impl IntoIterator<Item = Range<u64>>,
    stored: Stored<'_>,
) -> Result<(), PullError> {
    let store: Arc<dyn ChunkStore> = Arc::clone(&node.engine.store) as _;
    follow(node, target, Gaps::within(store, target.old, target.new, blocks), stored).await
}

/// Fetches what a walk finds lacking.
async fn follow(node: &Arc<Node>, target: &Target, gaps: Gaps, stored: Stored<'_>) -> Result<(), PullError> {
    let transfer = Transfer::new(node, target.volume, &target.sources, stored);
    try_join!(walk(node, &target.sources, gaps, &transfer, stored), transfer.run()).map(|_| ())
}

/// Walks to the end of the difference. Parts of the map are fetched on the way, since it leads through them; what they name is left to the
/// transfer, so that the walk is ahead of the data.
async fn walk(
    node: &Arc<Node>,
    sources: &[NodeId],
    mut gaps: Gaps,
    transfer: &Transfer<'_>,
    stored: Stored<'_>,
) -> Result<(), PullError> {
    loop {
        let walked: Arc<dyn ChunkStore> = Arc::clone(&node.engine.store) as _;
        let walking = node.background.upkeep(move || {
            let group = gaps.next(&walked.pin());
            (gaps, group)
        });
        let (back, group) = walking.await.map_err(|_| PullError::Panicked)?;
        gaps = back;
        let Some(group) = group? else { break };
        match group.first().map(|gap| gap.wanted.kind) {
            Some(ChunkKind::Data) => {
                gaps.leave();
                transfer.add(group).await;
            }
            kind => {
                // What is below nodes without predecessors is all of a map: it comes when it is its turn.
                let with_below = kind == Some(ChunkKind::Node) && group.iter().all(|gap| !gap.predecessors.is_empty());
                fetch_group(node, sources, Lane::Bulk, group, with_below, stored).await?;
            }
        }
    }
    transfer.close();
    Ok(())
}

/// Steps 2 and 3, where `complete` says what that is; `None` where a collection has come between.
async fn hold(node: &Arc<Node>, target: &Target, complete: Complete) -> Result<Option<HeldRoot>, PullError> {
    let _in_transit = node.in_transit.read().await;
    let store: Arc<dyn ChunkStore> = Arc::clone(&node.engine.store) as _;
    let Target { old, new, .. } = *target;
    let walking = node.background.upkeep(move || complete(&store, old, new));
    let pin = walking.await.map_err(|_| PullError::Panicked)??;
    Ok(pin.map(|_pin| node.hold_root(new)))
}

/// Whether all that is wanted of a root is here: [`gaps::complete`], or [`gaps::complete_map`].
type Complete = fn(&Arc<dyn ChunkStore>, Root, Root) -> Result<Option<StorePin>, MapError>;

/// How often it is begun again where a collection has come between.
const WALKS: usize = 3;
