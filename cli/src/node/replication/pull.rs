//! Pulling all of one root: what is lacking of it is asked for, verified and stored, until nothing is lacking.
//!
//! 1. Walk the difference from contents that are complete here, and fetch what is lacking, group by group. *A crash leaves
//!    chunks that nobody names; the next pull finds those that are still there.*
//! 2. Walk it once more, with nothing fetched in between, so that no collection can come between: only now is all of it here.
//! 3. Hold the root, until the metadata names it.

use std::iter;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use sterna_proto::node::chunks_client::ChunksClient;
use sterna_proto::node::{Chunk, FetchRequest};
use sterna_storage_node::chunk_store::ChunkStore;
use sterna_storage_node::gaps::{self, FetchedError, Gaps, MAX_WANTED, Wanted};
use sterna_storage_node::map::MapError;
use sterna_transport::Lane;
use sterna_types::{ChunkId, NodeId, Root};
use tonic::Status;
use tonic::codec::CompressionEncoding;

use crate::node::node::{HeldRoot, Node};

/// The most chunks that one request asks for.
pub(super) const MAX_IDS: usize = MAX_WANTED;

/// What is to be pulled.
#[derive(Clone, Debug)]
pub(in crate::node) struct Target {
    /// Contents that are complete here, and that the metadata names.
    pub(in crate::node) old: Root,
    /// The contents that are wanted.
    pub(in crate::node) new: Root,
    /// The nodes that have them, the best one first.
    pub(in crate::node) sources: Vec<NodeId>,
}

/// Why a root is not complete here.
#[derive(Debug, thiserror::Error)]
pub(in crate::node) enum PullError {
    /// This node has no network.
    #[error("this node listens to no other node, and asks none: set 'listen' in sterna.toml")]
    Alone,
    /// There is nobody to ask.
    #[error("no node that holds it has a session")]
    NoSource,
    /// The source did not answer.
    #[error("node {node}: {}", status.message())]
    Source {
        /// Which.
        node: NodeId,
        /// What it said.
        status: Box<Status>,
    },
    /// None of the sources has it, such as the last one that was asked: there are newer contents.
    #[error("node {node} does not have chunk {id} any more")]
    Gone {
        /// Which.
        node: NodeId,
        /// What it does not have.
        id: ChunkId,
    },
    /// The source has sent something else.
    #[error("node {node} has sent what was not asked for")]
    Unasked {
        /// Which.
        node: NodeId,
    },
    /// What is here of it cannot be walked.
    #[error(transparent)]
    Map(#[from] MapError),
    /// What came could not be stored.
    #[error(transparent)]
    Fetched(#[from] FetchedError),
    /// Collections have taken parts of it again and again.
    #[error("it was collected while it was pulled")]
    Collected,
    /// A thread that walked it panicked.
    #[error("walking it ended in a panic")]
    Panicked,
}

/// Pulls all of a root. On return it is complete and durable here, and held as long as what is returned lives.
///
/// # Errors
/// [`PullError`]; what has come by then is found by the next attempt, unless it is collected before.
///
/// # Cancel safety
/// May be dropped at any time, as after an error.
pub(in crate::node) async fn pull(node: &Arc<Node>, target: &Target) -> Result<HeldRoot, PullError> {
    // It may all be here under other names.
    if let Some(held) = hold_complete(node, target).await? {
        return Ok(held);
    }
    for _ in 0..WALKS {
        fill(node, target, iter::once(0..u64::MAX), &|_, _| {}).await?;
        if let Some(held) = hold_complete(node, target).await? {
            return Ok(held);
        }
    }
    Err(PullError::Collected)
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
    stored: &(dyn Fn(ChunkId, u64) + Send + Sync),
) -> Result<(), PullError> {
    let store: Arc<dyn ChunkStore> = Arc::clone(&node.engine.store) as _;
    let mut gaps = Gaps::within(Arc::clone(&store), target.old, target.new, blocks);
    loop {
        let walked = Arc::clone(&store);
        let (back, wanted) = node
            .background
            .upkeep(move || {
                let wanted = gaps.next(&walked.pin());
                (gaps, wanted)
            })
            .await
            .map_err(|_| PullError::Panicked)?;
        gaps = back;
        match wanted? {
            None => return Ok(()),
            Some(wanted) => fetch(node, &target.sources, Lane::Bulk, wanted, stored).await?,
        }
    }
}

/// Fetches one group of chunks, each from the first of the `sources` that has it, and stores them; `stored` is told of each one then,
/// and of its length in bytes.
/// In all lanes but that for bulk they are stored as they come, in the order in which they are asked for.
///
/// # Errors
/// [`PullError`]: [`PullError::Gone`] where all of the sources have answered, and none has it.
///
/// # Cancel safety
/// May be dropped at any time; what was stored by then stays.
pub(in crate::node) async fn fetch(
    node: &Arc<Node>,
    sources: &[NodeId],
    lane: Lane,
    mut wanted: Vec<Wanted>,
    stored: &(dyn Fn(ChunkId, u64) + Send + Sync),
) -> Result<(), PullError> {
    let (mut silent, mut asked) = (None, None);
    for source in sources {
        if wanted.is_empty() {
            break;
        }
        match fetch_from(node, *source, lane, &mut wanted, stored).await {
            Ok(()) => asked = Some(*source),
            Err(error @ PullError::Source { .. }) => silent = Some(error),
            Err(error) => return Err(error),
        }
    }
    match (wanted.first(), silent, asked) {
        (None, ..) => Ok(()),
        (Some(_), Some(silent), _) => Err(silent),
        (Some(&Wanted { id, .. }), None, Some(node)) => Err(PullError::Gone { node, id }),
        (Some(_), None, None) => Err(PullError::NoSource),
    }
}

/// Fetches from one node what it has of a group, and stores it; what it does not have stays in `wanted`.
async fn fetch_from(
    node: &Arc<Node>,
    source: NodeId,
    lane: Lane,
    wanted: &mut Vec<Wanted>,
    stored: &(dyn Fn(ChunkId, u64) + Send + Sync),
) -> Result<(), PullError> {
    let failed = |status| PullError::Source { node: source, status: Box::new(status) };
    let channels = node.metadata.channels().ok_or(PullError::Alone)?;
    let mut client = ChunksClient::new(channels.channel(source, lane))
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .accept_compressed(CompressionEncoding::Zstd);
    let ids = wanted.iter().map(|wanted| wanted.id.as_bytes().to_vec()).collect();
    let mut replies = client.fetch(FetchRequest { ids }).await.map_err(failed)?.into_inner();
    // Somebody may wait for the first of them.
    let batch_bytes = if lane == Lane::Bulk { BATCH_BYTES } else { 0 };
    let (mut batch, mut bytes) = (Vec::new(), 0);
    loop {
        if lane == Lane::Bulk {
            node.precedence.until_clear().await;
        }
        let Some(reply) = replies.message().await.map_err(failed)? else { break };
        for chunk in reply.chunks {
            let Some((wanted, contents)) = take(wanted, chunk, source)? else { continue };
            bytes += contents.len();
            batch.push((wanted, contents));
        }
        if bytes >= batch_bytes {
            bytes = 0;
            store(node, std::mem::take(&mut batch), stored).await?;
        }
    }
    store(node, batch, stored).await
}

/// What a chunk that came was wanted as; `None` where it was not there. Chunks come in the order in which they were asked for,
/// but need not.
fn take(wanted: &mut Vec<Wanted>, chunk: Chunk, source: NodeId) -> Result<Option<(Wanted, Bytes)>, PullError> {
    let unasked = PullError::Unasked { node: source };
    let Ok(id) = <[u8; 32]>::try_from(chunk.id.as_slice()).map(ChunkId::from_bytes) else { return Err(unasked) };
    let Some(place) = wanted.iter().position(|wanted| wanted.id == id) else { return Err(unasked) };
    if chunk.contents.is_empty() {
        return Ok(None);
    }
    Ok(Some((wanted.remove(place), chunk.contents.into())))
}

async fn store(
    node: &Arc<Node>,
    chunks: Vec<(Wanted, Bytes)>,
    stored: &(dyn Fn(ChunkId, u64) + Send + Sync),
) -> Result<(), PullError> {
    if chunks.is_empty() {
        return Ok(());
    }
    let ids: Vec<_> = chunks.iter().map(|(wanted, contents)| (wanted.id, contents.len() as u64)).collect();
    let store: Arc<dyn ChunkStore> = Arc::clone(&node.engine.store) as _;
    let storing = node.background.upkeep(move || gaps::store_fetched(&store, &store.pin(), chunks));
    storing.await.map_err(|_| PullError::Panicked)??;
    ids.into_iter().for_each(|(id, bytes)| stored(id, bytes));
    Ok(())
}

/// Steps 2 and 3; `None` where a collection has come between.
async fn hold_complete(node: &Arc<Node>, target: &Target) -> Result<Option<HeldRoot>, PullError> {
    let _in_transit = node.in_transit.read().await;
    let store: Arc<dyn ChunkStore> = Arc::clone(&node.engine.store) as _;
    let Target { old, new, .. } = *target;
    let walking = node.background.upkeep(move || gaps::complete(&store, old, new));
    let pin = walking.await.map_err(|_| PullError::Panicked)??;
    Ok(pin.map(|_pin| node.hold_root(new)))
}

/// How often it is begun again where a collection has come between.
const WALKS: usize = 3;
/// Bytes of chunks that are stored together: each time costs a sync.
const BATCH_BYTES: usize = 16 << 20;
/// A message has a little over a MiB of chunks, the last of which may have 256 KiB.
const MAX_MESSAGE_BYTES: usize = 4 << 20;
