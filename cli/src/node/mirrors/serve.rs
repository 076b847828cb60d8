//! What the owner of a volume answers to those who keep mirrors of it.

use std::sync::Arc;

use sterna_consensus::state::replica::ReplicaMode;
use sterna_proto::node::mirrors_server::{Mirrors, MirrorsServer};
use sterna_proto::node::{FollowReply, FollowRequest};
use sterna_runtime::work::blocking;
use sterna_storage_node::journal::record::Sequence;
use sterna_storage_node::volume::{Beginning, Feed, FeedRecord, Volume};
use sterna_types::{Epoch, NodeId, VolumeId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::codec::CompressionEncoding;
use tonic::{Request, Response, Status, Streaming};

use super::members::Members;
use super::wire::{Begin, to_message};
use crate::node::node::{HeldRoot, Node, spec_of};
use crate::node::volumes::OpenVolume;

/// Answers other nodes of the cluster.
pub(in crate::node) struct MirrorsService {
    node: Arc<Node>,
    streams: Arc<Semaphore>,
}

/// The service of `node`, for the server that listens to other nodes.
pub(in crate::node) fn service(node: Arc<Node>) -> MirrorsServer<MirrorsService> {
    MirrorsServer::new(MirrorsService { node, streams: Arc::new(Semaphore::new(MAX_STREAMS)) })
        .max_decoding_message_size(MAX_REQUEST_BYTES)
        .send_compressed(CompressionEncoding::Zstd)
}

type Replies = mpsc::Sender<Result<FollowReply, Status>>;

#[tonic::async_trait]
impl Mirrors for MirrorsService {
    type FollowStream = ReceiverStream<Result<FollowReply, Status>>;

    async fn follow(&self, request: Request<Streaming<FollowRequest>>) -> Result<Response<Self::FollowStream>, Status> {
        let from = self.node.metadata.caller(&request)?;
        let mut requests = request.into_inner();
        let first = requests.message().await?.ok_or_else(|| Status::invalid_argument("nothing was asked for"))?;
        let epoch = Epoch::from_number(first.epoch).ok_or_else(|| Status::invalid_argument("no volume has epoch 0"))?;
        let busy = |_| Status::resource_exhausted("as many follow this node as it can serve: try again later");
        let turn = Arc::clone(&self.streams).try_acquire_owned().map_err(busy)?;
        let open = followed(&self.node, from, VolumeId(first.volume), epoch).await?;
        let (replies, stream) = mpsc::channel(MESSAGES_AHEAD);
        drop(tokio::spawn(serve(Arc::clone(&self.node), from, open, requests, replies, turn)));
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

/// The volume, where this node owns it in that epoch and the caller is to keep a mirror of it; it is opened where it rests.
async fn followed(node: &Arc<Node>, from: NodeId, id: VolumeId, epoch: Epoch) -> Result<OpenVolume, Status> {
    let elsewhere = || Status::failed_precondition("this node does not own the volume in that epoch");
    let metadata = node.metadata.read();
    let entry = metadata.volume(id).filter(|entry| entry.epoch == epoch && entry.owner == node.metadata.id());
    let entry = entry.cloned().ok_or_else(elsewhere)?;
    let is_kept = entry.replicas.values().any(|replica| replica.node == from && replica.mode == ReplicaMode::Sync);
    if !is_kept {
        return Err(Status::failed_precondition("this node knows of no replica in mode sync at yours"));
    }
    let mut slot = node.volumes.hold(id).await;
    if node.volumes.promises().serves(&entry) != Some(epoch) {
        return Err(elsewhere());
    }
    let spec = spec_of(&entry).ok_or_else(elsewhere)?;
    slot.volume(&spec).await.map_err(|error| Status::unavailable(error.to_string()))
}

/// Serves one that follows until it goes away, is too slow, or the volume is not this node's any more.
async fn serve(
    node: Arc<Node>,
    from: NodeId,
    open: OpenVolume,
    mut requests: Streaming<FollowRequest>,
    replies: Replies,
    _turn: OwnedSemaphorePermit,
) {
    let members = &open.members;
    let call = members.begin(from);
    let sending = async {
        if let Err(status) = send(&node, from, &open.volume, members, &replies).await {
            tracing::debug!(volume = %open.volume.id(), node = %from, error = status.message(), "it follows no longer");
            // It may have gone away.
            let _ = replies.send(Err(status)).await;
        }
    };
    let hearing = async {
        while let Ok(Some(FollowRequest { durable, .. })) = requests.message().await {
            members.came_to(from, call, Sequence(durable));
            if !members.is_current(from, call) {
                return;
            }
        }
    };
    tokio::select! {
        () = sending => {}
        () = hearing => {}
        // Clients that are being told to go may wait for it.
        () = node.peers_stopping.cancelled() => {}
        () = open.ownership.until_over() => {}
    }
    members.end(from, call);
}

/// Where it begins, and every change from then on.
async fn send(
    node: &Arc<Node>,
    to: NodeId,
    volume: &Arc<Volume>,
    members: &Members,
    replies: &Replies,
) -> Result<(), Status> {
    let (beginning, feed, held) = begin(node, volume).await?;
    let mut held = Some(held);
    let begin = FollowReply { beginning: Some(Begin::of(&beginning).to_message()), ..reply(volume) };
    pass(replies, begin).await?;
    let Beginning { newer, through, .. } = beginning;
    let mut newer = newer.into_iter().peekable();
    while newer.peek().is_some() {
        let mut bytes = 0;
        let batch: Vec<_> = std::iter::from_fn(|| {
            let next = newer.next_if(|_| bytes < MESSAGE_BYTES)?;
            bytes += next.bytes();
            Some(next)
        })
        .collect();
        pass(replies, message(volume, batch).await?).await?;
    }
    pass(replies, FollowReply { through: through.0, flush: true, begun: true, ..reply(volume) }).await?;
    let (mut sent, mut flushed) = (through, through);
    loop {
        let news = tokio::select! {
            biased;
            taken = feed.take(MESSAGE_BYTES) => Some(taken.map_err(|cut| Status::unavailable(cut.to_string()))?),
            () = members.more_wanted(flushed), if members.wanted() <= sent => None,
            () = members.has_begun(to), if held.is_some() => {
                // It fetches nothing of the root any more, and may follow for as long as the volume is here.
                held = None;
                continue;
            }
        };
        let mut next = match news {
            Some(records) => {
                sent = records.last().map_or(sent, |last| last.sequence);
                message(volume, records).await?
            }
            None => reply(volume),
        };
        let wanted = members.wanted();
        next.through = sent.0;
        next.flush = wanted > flushed && sent >= wanted;
        if next.flush {
            flushed = sent;
        }
        if next.flush || !next.changes.is_empty() {
            pass(replies, next).await?;
        }
    }
}

/// Where it begins. The root is held for those who fetch it.
async fn begin(node: &Arc<Node>, volume: &Arc<Volume>) -> Result<(Beginning, Arc<Feed>, HeldRoot), Status> {
    let _in_transit = node.in_transit.read().await;
    let following = Arc::clone(volume);
    let begun = blocking(move || following.follow()).await.map_err(|panic| Status::internal(panic.to_string()))?;
    let (beginning, feed) = begun.map_err(|error| Status::unavailable(error.to_string()))?;
    let held = node.hold_root(beginning.sealed.root);
    Ok((beginning, feed, held))
}

/// A message without changes.
fn reply(volume: &Volume) -> FollowReply {
    FollowReply { size: volume.size().0, ..FollowReply::default() }
}

/// A message with these.
async fn message(volume: &Volume, records: Vec<FeedRecord>) -> Result<FollowReply, Status> {
    let reading = blocking(move || records.iter().map(to_message).collect::<Result<Vec<_>, _>>());
    let changes = reading.await.map_err(|panic| Status::internal(panic.to_string()))?;
    let changes = changes.map_err(|error| Status::unavailable(error.to_string()))?;
    Ok(FollowReply { changes, ..reply(volume) })
}

async fn pass(replies: &Replies, reply: FollowReply) -> Result<(), Status> {
    replies.send(Ok(reply)).await.map_err(|_| Status::cancelled("it has gone away"))
}

/// How many follow at a time, all volumes together; each holds some messages here.
const MAX_STREAMS: usize = 1024;
/// Two numbers, or one.
const MAX_REQUEST_BYTES: usize = 1 << 10;
/// Data in one message: so much is read from the journal at a time.
const MESSAGE_BYTES: u64 = 256 << 10;
/// Messages that wait for the network.
const MESSAGES_AHEAD: usize = 4;
