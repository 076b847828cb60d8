//! What this node answers to those who pull chunks from it.

use std::sync::Arc;

use sterna_proto::node::chunks_server::{Chunks, ChunksServer};
use sterna_proto::node::{Chunk, FetchReply, FetchRequest};
use sterna_storage_node::chunk_store::{ChunkStore, StoreError};
use sterna_types::ChunkId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::codec::CompressionEncoding;
use tonic::{Request, Response, Status};

use super::pull::MAX_IDS;
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
        .accept_compressed(CompressionEncoding::Zstd)
        .send_compressed(CompressionEncoding::Zstd)
}

#[tonic::async_trait]
impl Chunks for ChunkService {
    type FetchStream = ReceiverStream<Result<FetchReply, Status>>;

    async fn fetch(&self, request: Request<FetchRequest>) -> Result<Response<Self::FetchStream>, Status> {
        self.node.metadata.caller(&request)?;
        let ids = ids_of(&request.into_inner())?;
        let busy =
            |_| Status::resource_exhausted("this node gives chunks to as many others as it can: try again later");
        let turn = Arc::clone(&self.streams).try_acquire_owned().map_err(busy)?;
        let (replies, stream) = mpsc::channel(MESSAGES_AHEAD);
        let store: Arc<dyn ChunkStore> = Arc::clone(&self.node.engine.store) as _;
        drop(tokio::spawn(send_all(self.node.background.clone(), store, ids, replies, turn)));
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

/// Sends the chunks, each message as soon as it is read and there is room for it, until the caller has gone away. No thread waits
/// for the network.
async fn send_all(
    background: Background,
    store: Arc<dyn ChunkStore>,
    ids: Vec<ChunkId>,
    replies: mpsc::Sender<Result<FetchReply, Status>>,
    _turn: OwnedSemaphorePermit,
) {
    let mut left = ids.into_iter();
    loop {
        // Before it is read: what waits to be sent is bounded.
        let Ok(room) = replies.reserve().await else { return };
        let store = Arc::clone(&store);
        let reading = background.upkeep(move || {
            let reply = next_reply(&*store, &mut left);
            (left, reply)
        });
        let (rest, reply) = match reading.await {
            Ok(read) => read,
            Err(panic) => {
                tracing::error!(error = %panic, "reading chunks for another node failed");
                return room.send(Err(Status::internal("reading the chunks failed")));
            }
        };
        left = rest;
        match reply {
            Ok(reply) if reply.chunks.is_empty() => return,
            Ok(reply) => room.send(Ok(reply)),
            Err(status) => return room.send(Err(status)),
        }
    }
}

/// The next of the chunks, as many as a message has; none when there are no more.
fn next_reply(store: &dyn ChunkStore, left: &mut impl Iterator<Item = ChunkId>) -> Result<FetchReply, Status> {
    let (mut reply, mut bytes) = (FetchReply::default(), 0);
    while bytes < MESSAGE_BYTES
        && let Some(id) = left.next()
    {
        let contents = match store.get(id) {
            Ok(contents) => contents.unwrap_or_default(),
            // To who asks for it, it is not here; to this node, it is a matter for scrub.
            Err(error @ StoreError::Corrupt { .. }) => {
                tracing::error!(%error, "a chunk that another node asks for is damaged: run 'sterna scrub'");
                bytes::Bytes::new()
            }
            Err(error) => return Err(Status::unavailable(error.to_string())),
        };
        bytes += contents.len();
        reply.chunks.push(Chunk { id: id.as_bytes().to_vec(), contents: contents.into() });
    }
    Ok(reply)
}

fn ids_of(request: &FetchRequest) -> Result<Vec<ChunkId>, Status> {
    if request.ids.len() > MAX_IDS {
        let given = request.ids.len();
        return Err(Status::invalid_argument(format!("{given} chunks in one request; {MAX_IDS} are the most")));
    }
    let id = |bytes: &Vec<u8>| <[u8; 32]>::try_from(bytes.as_slice()).map(ChunkId::from_bytes);
    let ids: Result<Vec<_>, _> = request.ids.iter().map(id).collect();
    ids.map_err(|_| Status::invalid_argument("the id of a chunk has 32 bytes"))
}

/// How many pull from this node at a time: each holds some messages.
const MAX_STREAMS: usize = 32;
/// Bytes of chunks after which a message is sent: enough for them to compress together, and less than a message may have.
const MESSAGE_BYTES: usize = 1 << 20;
/// Messages that wait for the network, of each stream.
const MESSAGES_AHEAD: usize = 4;
