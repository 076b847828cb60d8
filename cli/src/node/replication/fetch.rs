//! Fetching chunks: one request to one source after the other. What comes is verified, and stored.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use sterna_proto::node::Chunk;
use sterna_proto::node::chunks_client::ChunksClient;
use sterna_runtime::work::blocking;
use sterna_storage_node::bundle::Unpacker;
use sterna_storage_node::chunk_store::ChunkStore;
use sterna_storage_node::gaps::{self, Gap, Wanted};
use sterna_transport::Lane;
use sterna_types::{ChunkId, NodeId};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tonic::codec::CompressionEncoding;

use super::bucket::fetch_from_bucket;
use super::error::PullError;
use super::wire::{bundle, chunk_id, request};
use crate::node::node::Node;

/// Told of each chunk that was stored, with its length in bytes.
pub(in crate::node) type Stored<'a> = &'a (dyn Fn(ChunkId, u64) + Send + Sync);

/// Fetches one group of chunks, each from the first of the `sources` that has it, the nearest first, and from the bucket what none of
/// them has; and stores them.
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
    gaps: impl IntoIterator<Item = impl Into<Gap>>,
    stored: Stored<'_>,
) -> Result<(), PullError> {
    fetch_group(node, sources, lane, gaps.into_iter().map(Into::into).collect(), false, stored).await
}

/// The same, and where `with_below`, of what is below these nodes too as much as a source sends.
pub(super) async fn fetch_group(
    node: &Arc<Node>,
    sources: &[NodeId],
    lane: Lane,
    mut gaps: Vec<Gap>,
    with_below: bool,
    stored: Stored<'_>,
) -> Result<(), PullError> {
    let store = Storing::new(node, lane, stored);
    let (mut silent, mut asked) = (None, None);
    for source in node.reach.nearest_first(sources) {
        if gaps.is_empty() {
            break;
        }
        match fetch_from(node, source, lane, &mut gaps, with_below, &store, &|_| {}).await {
            Ok(()) => asked = Some(source),
            Err(error) if error.is_of_source() => silent = Some(error),
            Err(error) => return Err(error),
        }
    }
    let asked_besides = fetch_from_bucket(node, &mut gaps, &store).await;
    store.finish().await?;
    if silent.is_none() {
        asked_besides?;
    }
    match (gaps.first(), silent, asked) {
        (None, ..) => Ok(()),
        (Some(_), Some(silent), _) => Err(silent),
        (Some(Gap { wanted, .. }), None, Some(node)) => Err(PullError::Gone { node, id: wanted.id }),
        (Some(_), None, None) => Err(PullError::NoSource),
    }
}

/// Fetches from one node what it has of some chunks; what it does not have stays in `gaps`, also after an error. `received` is told of bytes
/// as they come.
pub(super) async fn fetch_from(
    node: &Arc<Node>,
    source: NodeId,
    lane: Lane,
    gaps: &mut Vec<Gap>,
    with_below: bool,
    store: &Storing<'_>,
    received: &(dyn Fn(u64) + Send + Sync),
) -> Result<(), PullError> {
    let mut come = Come { ids: HashSet::new(), received };
    let mut fetched = fetch_once(node, source, lane, gaps, with_below, store, &mut come).await;
    gaps.retain(|gap| !come.ids.contains(&gap.wanted.id));
    if matches!(fetched, Err(PullError::Unpack { .. })) {
        // What was in their place may have been collected since, or be damaged.
        let plain: Vec<_> = gaps.iter().map(|gap| Gap::from(gap.wanted)).collect();
        fetched = fetch_once(node, source, lane, &plain, false, store, &mut come).await;
        gaps.retain(|gap| !come.ids.contains(&gap.wanted.id));
    }
    if matches!(&fetched, Err(error) if error.is_of_source() && !error.is_busy()) {
        node.reach.failed(source);
    }
    fetched
}

/// What has come.
struct Come<'a> {
    ids: HashSet<ChunkId>,
    /// Told of the bytes that it took on the way.
    received: &'a (dyn Fn(u64) + Send + Sync),
}

/// One request. `come` is told what has.
async fn fetch_once(
    node: &Arc<Node>,
    source: NodeId,
    lane: Lane,
    gaps: &[Gap],
    with_below: bool,
    store: &Storing<'_>,
    come: &mut Come<'_>,
) -> Result<(), PullError> {
    let failed = |status| PullError::Source { node: source, status: Box::new(status) };
    let channels = node.metadata.channels().ok_or(PullError::Alone)?;
    let mut client = ChunksClient::new(channels.channel(source, lane))
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .accept_compressed(CompressionEncoding::Zstd);
    let mut unpacker = Unpacker::new(Arc::clone(&node.engine.store) as _, gaps, with_below);
    let begun = Instant::now();
    let mut replies = client.fetch(request(gaps, with_below)).await.map_err(failed)?.into_inner();
    let (mut first, mut received) = (None, 0);
    loop {
        if lane == Lane::Bulk {
            node.precedence.until_clear().await;
        }
        let Some(reply) = replies.message().await.map_err(failed)? else { break };
        first.get_or_insert_with(|| begun.elapsed());
        for chunk in reply.chunks {
            let Some(chunk) = take(gaps, chunk, source)? else { continue };
            come.ids.insert(chunk.0.id);
            (come.received)(chunk.1.len() as u64);
            store.put(vec![chunk]).await?;
        }
        if let Some(message) = reply.bundle {
            let bundle = bundle(message).map_err(failed)?;
            received += bundle.frame.len() as u64;
            (come.received)(bundle.frame.len() as u64);
            let unpacking = work(node, lane, move || {
                let chunks = unpacker.unpack(&bundle);
                (unpacker, chunks)
            });
            let (back, chunks) = unpacking.await.map_err(|_| PullError::Panicked)?;
            unpacker = back;
            let chunks = chunks.map_err(|error| PullError::Unpack { node: source, source: error })?;
            come.ids.extend(chunks.iter().map(|(wanted, _)| wanted.id));
            store.put(chunks).await?;
        }
    }
    node.reach.answered(source, first, received, begun.elapsed());
    Ok(())
}

/// What a chunk that came was wanted as; `None` where it was not there. Chunks come in the order in which they were asked for,
/// but need not.
fn take(gaps: &[Gap], chunk: Chunk, source: NodeId) -> Result<Option<(Wanted, Bytes)>, PullError> {
    let unasked = PullError::Unasked { node: source };
    let Ok(id) = chunk_id(&chunk.id) else { return Err(unasked) };
    let Some(gap) = gaps.iter().find(|gap| gap.wanted.id == id) else { return Err(unasked) };
    Ok((!chunk.contents.is_empty()).then(|| (gap.wanted, chunk.contents.into())))
}

/// What has come and is to be stored, from however many requests at once.
pub(super) struct Storing<'a> {
    node: &'a Arc<Node>,
    lane: Lane,
    /// Whether what comes takes the place of what is here.
    repairs: bool,
    stored: Stored<'a>,
    batch: Mutex<Batch>,
}

#[derive(Default)]
struct Batch {
    chunks: Vec<(Wanted, Bytes)>,
    bytes: usize,
}

impl<'a> Storing<'a> {
    pub(super) fn new(node: &'a Arc<Node>, lane: Lane, stored: Stored<'a>) -> Self {
        Self { node, lane, repairs: false, stored, batch: Mutex::default() }
    }

    /// What comes is stored in place of what is here, and damaged.
    pub(super) fn repairing(node: &'a Arc<Node>, stored: Stored<'a>) -> Self {
        Self { repairs: true, ..Self::new(node, Lane::Bulk, stored) }
    }

    /// Stores these, now or with others.
    pub(super) async fn put(&self, chunks: Vec<(Wanted, Bytes)>) -> Result<(), PullError> {
        // Somebody may wait for the first of them.
        let most_bytes = if self.lane == Lane::Bulk { BATCH_BYTES } else { 0 };
        let full = {
            let mut batch = self.batch();
            batch.bytes += chunks.iter().map(|(_, contents)| contents.len()).sum::<usize>();
            batch.chunks.extend(chunks);
            (batch.bytes >= most_bytes).then(|| std::mem::take(&mut *batch))
        };
        match full {
            Some(batch) => self.store(batch).await,
            None => Ok(()),
        }
    }

    /// Stores what is left.
    pub(super) async fn finish(&self) -> Result<(), PullError> {
        let batch = std::mem::take(&mut *self.batch());
        self.store(batch).await
    }

    async fn store(&self, Batch { chunks, .. }: Batch) -> Result<(), PullError> {
        if chunks.is_empty() {
            return Ok(());
        }
        let ids: Vec<_> = chunks.iter().map(|(wanted, contents)| (wanted.id, contents.len() as u64)).collect();
        let (packs, repairs) = (Arc::clone(&self.node.engine.store), self.repairs);
        let storing = work(self.node, self.lane, move || {
            if repairs {
                return gaps::repair_fetched(&packs, &packs.pin(), chunks);
            }
            let store: Arc<dyn ChunkStore> = packs;
            gaps::store_fetched(&store, &store.pin(), chunks)
        });
        storing.await.map_err(|_| PullError::Panicked)??;
        ids.into_iter().for_each(|(id, bytes)| (self.stored)(id, bytes));
        Ok(())
    }

    fn batch(&self) -> MutexGuard<'_, Batch> {
        // Chunks are put in whole, or were not put in yet.
        self.batch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Does something that may block: at once where somebody waits for it.
fn work<T: Send + 'static>(node: &Node, lane: Lane, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    if lane == Lane::Bulk { node.background.upkeep(work) } else { blocking(work) }
}

/// Bytes of chunks that are stored together: each time costs a sync.
const BATCH_BYTES: usize = 16 << 20;
/// A message has a little over a MiB of chunks, the last of which may have 256 KiB.
const MAX_MESSAGE_BYTES: usize = 4 << 20;
