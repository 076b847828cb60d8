//! Bringing what a volume lacks that somebody waits for: a guest's read, or a seal.
//!
//! Of each chunk there is one fetch at a time, whoever asks: who comes later waits for the same, until that chunk has come, and not for
//! what is fetched along with it ([`InFlight`]). What somebody waits for and does not come is asked for again, until it comes, or it is
//! sure that it does not: a guest waits for a link that is cut, as it would for a disk. What nobody waits for yet is tried once.

use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures_util::future::try_join_all;
use sterna_consensus::Metadata;
use sterna_consensus::state::volume::Volume as VolumeEntry;
use sterna_proto::node::handoff_client::HandoffClient;
use sterna_proto::node::{BlockRange, FetchTailReply, FetchTailRequest};
use sterna_runtime::work::blocking;
use sterna_storage_node::chunk_store::{ChunkStore, StoreError};
use sterna_storage_node::map::MapError;
use sterna_storage_node::volume::{Absence, Supplied, Supply, Urgency, Volume};
use sterna_transport::Lane;
use sterna_types::{BLOCK_SIZE, DeviceError, Epoch, NodeId, VolumeId};
use tokio::runtime::Handle;
use tonic::codec::CompressionEncoding;

use super::in_flight::InFlight;
use super::service::MAX_RANGES;
use super::tell;
use crate::node::node::Node;
use crate::node::replication::{PullError, fetch};

/// Brings what the volumes of a node lack.
#[derive(Debug)]
pub(in crate::node) struct Supplier {
    node: Weak<Node>,
    /// Where fetches run, to their end, whether somebody still waits for them or not: what they have asked for takes room on the way
    /// until it is read. Clients' connections live elsewhere.
    runtime: Handle,
    in_flight: Arc<InFlight>,
    /// One fetch of blocks of a tail at a time, for each volume: they are few, and fetched first.
    tails: Mutex<HashMap<VolumeId, Arc<tokio::sync::Mutex<()>>>>,
}

/// Why something did not come.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    /// Chunks.
    #[error(transparent)]
    Pull(#[from] PullError),
    /// Blocks of a tail: why, for people.
    #[error("blocks that were written before it was handed over: {what}")]
    Tail {
        /// What happened.
        what: String,
        /// Whether it is of no use to ask again.
        is_final: bool,
    },
    /// The node is going away, or the volume is not its own.
    #[error("this node does not serve the volume any more")]
    Ended,
}

/// Who has what a volume lacks here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sources {
    /// Of chunks, the best one first.
    pub(super) nodes: Vec<NodeId>,
    /// Of its tail: the node that has released it last, and the epoch that ended with that.
    pub(super) tail: Option<(NodeId, Epoch)>,
}

impl Sources {
    /// Those of a volume that this node serves.
    pub(super) fn of(metadata: &Metadata, volume: VolumeId, own: NodeId) -> Self {
        let Some(entry) = metadata.volume(volume) else { return Self { nodes: Vec::new(), tail: None } };
        let handed_over = entry.sources.iter().rev().map(|source| (source.node, source.epoch));
        // It has been accepted, and not committed yet.
        let giver = (entry.owner != own).then_some((entry.owner, entry.epoch));
        let all: Vec<_> = giver.into_iter().chain(handed_over).collect();
        let keepers = entry.replicas.values().filter(|replica| replica.complete.is_some()).map(|replica| replica.node);
        let mut nodes = Vec::new();
        for node in all.iter().map(|(node, _)| *node).chain(keepers) {
            if node != own && !nodes.contains(&node) {
                nodes.push(node);
            }
        }
        Self { nodes, tail: all.first().copied() }
    }
}

impl Supplier {
    /// Brings what the volumes of `node` lack. Fetches run on the runtime that this is called on.
    pub(in crate::node) fn new(node: Weak<Node>) -> Self {
        Self { node, runtime: Handle::current(), in_flight: Arc::default(), tails: Mutex::default() }
    }

    async fn try_bring(&self, volume: &Arc<Volume>, absence: &Absence, lane: Lane) -> Result<(), Arc<FetchError>> {
        let node = self.node.upgrade().ok_or(FetchError::Ended)?;
        let is_served = |entry: &Arc<VolumeEntry>| node.volumes.promises().serves(entry) == Some(volume.epoch());
        let metadata = node.metadata.read();
        if node.stopping.is_cancelled() || volume.is_closed() || !metadata.volume(volume.id()).is_some_and(is_served) {
            return Err(Arc::new(FetchError::Ended));
        }
        let sources = Sources::of(&metadata, volume.id(), node.metadata.id());
        let _preceding = (lane == Lane::Prefetch).then(|| node.precedence.precede());
        // Others may have brought it by now, all of it, and then nobody keeps it for this node any more.
        let absence = still_absent(&node, volume, absence).await?;
        if !absence.blocks.is_empty() {
            let turn = Arc::clone(lock(&self.tails).entry(volume.id()).or_default());
            let _turn = turn.lock().await;
            fetch_tail(&node, volume, sources.tail, lane, &absence.blocks).await?;
        }
        let fetching = self.in_flight.all_of(&self.runtime, &absence.chunks, |new, fetching| {
            if let Some(source) = sources.nodes.first() {
                tell("fetch", *source);
            }
            let node = Arc::clone(&node);
            async move {
                let stored = |id, _| fetching.has_come(id);
                tokio::select! {
                    fetched = fetch(&node, &sources.nodes, lane, new, &stored) => Ok(fetched?),
                    () = node.stopping.cancelled() => Err(FetchError::Ended),
                }
            }
        });
        let waiting = fetching.into_iter().map(|fetching| self.in_flight.until_here(&absence.chunks, fetching));
        try_join_all(waiting).await?;
        Ok(())
    }
}

impl Supply for Supplier {
    fn bring<'a>(&'a self, volume: &'a Arc<Volume>, absence: Absence, urgency: Urgency) -> Supplied<'a> {
        Box::pin(async move {
            let lane = match urgency {
                Urgency::Waited => Lane::Demand,
                Urgency::Ahead => Lane::Prefetch,
            };
            let mut told = false;
            let mut pause = SHORTEST_PAUSE;
            loop {
                match self.try_bring(volume, &absence, lane).await {
                    Ok(()) => return Ok(()),
                    Err(error) if urgency == Urgency::Ahead => return Err(DeviceError::Io(io::Error::other(error))),
                    Err(error) if error.is_final() => return Err(error.answer()),
                    Err(error) => {
                        if !std::mem::replace(&mut told, true) {
                            tracing::warn!(volume = %volume.id(), "{absence} not here, and cannot be had; clients wait: {error}");
                        }
                        tokio::time::sleep(pause).await;
                        pause = (pause * 2).min(LONGEST_PAUSE);
                    }
                }
            }
        })
    }
}

impl FetchError {
    /// Whether it is of no use to ask again.
    fn is_final(&self) -> bool {
        match self {
            Self::Ended => true,
            Self::Tail { is_final, .. } => *is_final,
            Self::Pull(error) => matches!(error, PullError::Alone | PullError::Gone { .. }),
        }
    }

    /// What a client is told.
    fn answer(&self) -> DeviceError {
        match self {
            Self::Ended => DeviceError::NotOwner,
            error => {
                tracing::error!("a part of a volume is nowhere: {error}");
                DeviceError::Io(io::Error::other(error.to_string()))
            }
        }
    }
}

/// What of an absence is still absent.
async fn still_absent(node: &Arc<Node>, volume: &Arc<Volume>, absence: &Absence) -> Result<Absence, FetchError> {
    let (store, volume, absence) = (Arc::clone(&node.engine.store), Arc::clone(volume), absence.clone());
    let looking = blocking(move || {
        let pin = store.pin();
        let mut chunks = Vec::new();
        for chunk in absence.chunks {
            if !store.keep(chunk.id, &pin)? {
                chunks.push(chunk);
            }
        }
        let tail = volume.tail();
        let mut blocks = Vec::new();
        for absent in tail.data() {
            let shared = |asked: &Range<u64>| asked.start.max(absent.start)..asked.end.min(absent.end);
            blocks.extend(absence.blocks.iter().map(shared).filter(|shared| !shared.is_empty()));
        }
        Ok::<_, StoreError>(Absence { chunks, blocks })
    });
    let looked = looking.await.map_err(|_| FetchError::Pull(PullError::Panicked))?;
    looked.map_err(|error| FetchError::Pull(PullError::Map(MapError::Store(error))))
}

/// Fetches data of a volume's tail into it.
pub(super) async fn fetch_tail(
    node: &Arc<Node>,
    volume: &Arc<Volume>,
    source: Option<(NodeId, Epoch)>,
    lane: Lane,
    blocks: &[Range<u64>],
) -> Result<(), FetchError> {
    let failed = |what: String| FetchError::Tail { what, is_final: false };
    let (source, epoch) = source
        .ok_or_else(|| FetchError::Tail { what: "no node is known to have released it".to_owned(), is_final: true })?;
    let channels = node.metadata.channels().ok_or(FetchError::Pull(PullError::Alone))?;
    let mut client = HandoffClient::new(channels.channel(source, lane))
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .accept_compressed(CompressionEncoding::Zstd);
    for blocks in blocks.chunks(MAX_RANGES) {
        let asked = |blocks: &Range<u64>| BlockRange { first: blocks.start, count: blocks.end - blocks.start };
        let blocks_asked = blocks.iter().map(asked).collect();
        let request = FetchTailRequest { volume: volume.id().0, epoch: epoch.number(), blocks: blocks_asked };
        let of_source = |status: tonic::Status| failed(format!("node {source}: {}", status.message()));
        tell("fetch-tail", source);
        let mut replies = client.fetch_tail(request).await.map_err(of_source)?.into_inner();
        while let Some(FetchTailReply { first_block, data }) = replies.message().await.map_err(of_source)? {
            let end = first_block.saturating_add(data.len() as u64 / BLOCK_SIZE);
            let is_whole = !data.is_empty() && (data.len() as u64).is_multiple_of(BLOCK_SIZE);
            let is_asked = blocks.iter().any(|blocks| blocks.start <= first_block && end <= blocks.end);
            if !is_whole || !is_asked {
                return Err(failed(format!("node {source} has sent what was not asked for")));
            }
            let volume = Arc::clone(volume);
            let taking = blocking(move || volume.take_in(first_block, &data));
            taking.await.map_err(|panic| failed(panic.to_string()))?.map_err(|error| failed(error.to_string()))?;
        }
    }
    Ok(())
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    // An entry is put in whole or not at all.
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A message has a MiB of data.
const MAX_MESSAGE_BYTES: usize = 4 << 20;
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
/// How long a link that is back may go unnoticed.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
