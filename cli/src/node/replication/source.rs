//! What this node answers to those who pull from it.

use std::sync::Arc;

use sterna_proto::node::chunks_server::{Chunks, ChunksServer};
use sterna_proto::node::{Chunk, FetchReply, FetchRequest, LocateReply, LocateRequest};
use sterna_runtime::work::blocking;
use sterna_storage_node::bundle::Packer;
use sterna_storage_node::chunk_store::{ChunkStore, StoreError};
use sterna_storage_node::gaps::Gap;
use sterna_transport::{ConnectInfo, Lane};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::codec::CompressionEncoding;
use tonic::{Request, Response, Status};

use super::locate;
use super::wire::{Asked, bundle_message, parse_request};
use crate::node::background::Background;
use crate::node::node::Node;

/// Gives chunks to other nodes of the cluster.
pub(in crate::node) struct ChunkService {
    node: Arc<Node>,
    streams: Arc<Semaphore>,
}

/// The service of `node`, for the server that listens to other nodes.
pub(in crate::node) fn service(node: Arc<Node>) -> ChunksServer<ChunkService> {
    ChunksServer::new(ChunkService { node, streams: Arc::new(Semaphore::new(MAX_STREAMS)) })
        .max_decoding_message_size(MAX_REQUEST_BYTES)
        .accept_compressed(CompressionEncoding::Zstd)
        .send_compressed(CompressionEncoding::Zstd)
}

#[tonic::async_trait]
impl Chunks for ChunkService {
    type FetchStream = ReceiverStream<Result<FetchReply, Status>>;

    async fn fetch(&self, request: Request<FetchRequest>) -> Result<Response<Self::FetchStream>, Status> {
        self.node.metadata.caller(&request)?;
        let lane = request.extensions().get::<ConnectInfo>().map_or(Lane::Bulk, |info| info.lane);
        let Asked { gaps, bundled, with_below } = parse_request(request.into_inner())?;
        let busy =
            |_| Status::resource_exhausted("this node gives chunks to as many others as it can: try again later");
        let turn = Arc::clone(&self.streams).try_acquire_owned().map_err(busy)?;
        let (replies, stream) = mpsc::channel(MESSAGES_AHEAD);
        let store: Arc<dyn ChunkStore> = Arc::clone(&self.node.engine.store) as _;
        let parcels = match bundled {
            true => Parcels::Bundles(Packer::new(store, gaps, with_below)),
            false => Parcels::Chunks { store, left: gaps.into_iter() },
        };
        drop(tokio::spawn(send_all(self.node.background.clone(), lane, parcels, replies, turn)));
        let mut response = Response::new(ReceiverStream::new(stream));
        if bundled {
            // They are as small as they get.
            response.disable_compression();
        }
        Ok(response)
    }

    async fn locate(&self, request: Request<LocateRequest>) -> Result<Response<LocateReply>, Status> {
        self.node.metadata.caller(&request)?;
        locate::answer(&self.node, request.into_inner()).await.map(Response::new)
    }
}

/// What is sent, message by message.
enum Parcels {
    Bundles(Packer),
    /// For a node of an earlier version.
    Chunks {
        store: Arc<dyn ChunkStore>,
        left: std::vec::IntoIter<Gap>,
    },
}

impl Parcels {
    /// The next message; `None` when there are no more. Blocks.
    fn next(&mut self) -> Result<Option<FetchReply>, Status> {
        let unavailable = |error: StoreError| Status::unavailable(error.to_string());
        match self {
            Self::Bundles(packer) => {
                let bundle = packer.next_bundle().map_err(unavailable)?;
                let reply = |bundle| FetchReply { chunks: Vec::new(), bundle: Some(bundle_message(&bundle)) };
                Ok(bundle.map(reply))
            }
            Self::Chunks { store, left } => {
                let (mut reply, mut bytes) = (FetchReply::default(), 0);
                while bytes < MESSAGE_BYTES
                    && let Some(gap) = left.next()
                {
                    let id = gap.wanted.id;
                    let contents = match store.get(id) {
                        Ok(contents) => contents.unwrap_or_default(),
                        Err(error @ StoreError::Corrupt { .. }) => {
                            tracing::error!(%error, "a chunk that another node asks for is damaged: run 'sterna scrub'");
                            bytes::Bytes::new()
                        }
                        Err(error) => return Err(unavailable(error)),
                    };
                    bytes += contents.len();
                    reply.chunks.push(Chunk { id: id.as_bytes().to_vec(), contents: contents.into() });
                }
                Ok((!reply.chunks.is_empty()).then_some(reply))
            }
        }
    }
}

/// Sends the messages, each as soon as it is made and there is room for it, until the caller has gone away. No thread waits for the
/// network.
async fn send_all(
    background: Background,
    lane: Lane,
    mut parcels: Parcels,
    replies: mpsc::Sender<Result<FetchReply, Status>>,
    _turn: OwnedSemaphorePermit,
) {
    loop {
        // Before it is read: what waits to be sent is bounded.
        let Ok(room) = replies.reserve().await else { return };
        let read = move || {
            let reply = parcels.next();
            (parcels, reply)
        };
        // Somebody waits for it, there.
        let reading = if lane == Lane::Bulk { background.upkeep(read) } else { blocking(read) };
        let (rest, reply) = match reading.await {
            Ok(read) => read,
            Err(panic) => {
                tracing::error!(error = %panic, "reading chunks for another node failed");
                return room.send(Err(Status::internal("reading the chunks failed")));
            }
        };
        parcels = rest;
        match reply {
            Ok(None) => return,
            Ok(Some(reply)) => room.send(Ok(reply)),
            Err(status) => return room.send(Err(status)),
        }
    }
}

/// How many requests this node answers at a time: each holds some messages.
const MAX_STREAMS: usize = 64;
/// The ids of 4,096 chunks, with four excerpts for each, take 800 KiB; with the most, 5.5 MiB.
const MAX_REQUEST_BYTES: usize = 8 << 20;
/// Bytes of chunks after which a message is sent: enough for them to compress together, and less than a message may have.
const MESSAGE_BYTES: usize = 1 << 20;
/// Messages that wait for the network, of each stream.
const MESSAGES_AHEAD: usize = 2;
