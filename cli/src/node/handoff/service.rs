//! What this node answers to others about handoffs.

use std::sync::Arc;

use sterna_migrator::token::Stage;
use sterna_proto::node::handoff_server::{Handoff, HandoffServer};
use sterna_proto::node::{
    AskReply, AskRequest, BlockRange, FetchTailReply, FetchTailRequest, FindMigratorReply, FindMigratorRequest,
    PreCopyReply, PreCopyRequest, PrepareReply, PrepareRequest, ReadReply, ReadRequest, ReleaseReply, ReleaseRequest,
};
use sterna_runtime::work::blocking;
use sterna_storage_node::chunking::ChunkingParameters;
use sterna_storage_node::volume::{Volume, VolumeSpec};
use sterna_types::device::ReadData;
use sterna_types::{BLOCK_SIZE, BlockDevice, ByteOffset, ByteRange, Epoch, NodeId, VolumeId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::codec::CompressionEncoding;
use tonic::{Request, Response, Status};

use super::ask::ask;
use super::wire::{Parts, Passing, Release, parse_use};
use super::{pre_copy, take};
use crate::node::migration;
use crate::node::node::{Node, spec_of};
use crate::node::ownership::OwnedDevice;

/// Answers other nodes of the cluster.
pub(in crate::node) struct HandoffService {
    node: Arc<Node>,
    pre_copies: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    reads: Arc<Semaphore>,
}

/// The service of `node`, for the server that listens to other nodes.
pub(in crate::node) fn service(node: Arc<Node>) -> HandoffServer<HandoffService> {
    let [pre_copies, streams, reads] =
        [MAX_PRE_COPIES, MAX_STREAMS, MAX_READS].map(|most| Arc::new(Semaphore::new(most)));
    HandoffServer::new(HandoffService { node, pre_copies, streams, reads })
        .max_decoding_message_size(MAX_RELEASE_BYTES)
        .accept_compressed(CompressionEncoding::Zstd)
        .send_compressed(CompressionEncoding::Zstd)
}

#[tonic::async_trait]
impl Handoff for HandoffService {
    type PreCopyStream = ReceiverStream<Result<PreCopyReply, Status>>;
    type FetchTailStream = ReceiverStream<Result<FetchTailReply, Status>>;
    type ReadStream = ReceiverStream<Result<ReadReply, Status>>;

    async fn pre_copy(&self, request: Request<PreCopyRequest>) -> Result<Response<Self::PreCopyStream>, Status> {
        let from = self.node.metadata.caller(&request)?;
        let volumes = Parts::parse_all(request.into_inner().volumes)?;
        let busy = |_| {
            Status::resource_exhausted("volumes are on their way here from as many nodes as it can: try again later")
        };
        let turn = Arc::clone(&self.pre_copies).try_acquire_owned().map_err(busy)?;
        let (replies, stream) = mpsc::channel(MESSAGES_AHEAD);
        drop(tokio::spawn(pre_copy::answer(Arc::clone(&self.node), from, volumes, replies, turn)));
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn prepare(&self, request: Request<PrepareRequest>) -> Result<Response<PrepareReply>, Status> {
        let from = self.node.metadata.caller(&request)?;
        let PrepareRequest { volumes, heat, token } = request.into_inner();
        let passings = Passing::parse_all(volumes)?;
        let used = parse_use(heat, &passings)?;
        let prepared = match token.map_or(Ok(()), |token| allowed(&self.node, from, &passings, &token)) {
            Ok(()) => take::prepare(&self.node, from, &passings, used).await,
            Err(status) => Err(status),
        };
        let obstacle = prepared.err().map(|status| status.message().to_owned()).unwrap_or_default();
        Ok(Response::new(PrepareReply { obstacle }))
    }

    async fn release(&self, request: Request<ReleaseRequest>) -> Result<Response<ReleaseReply>, Status> {
        let from = self.node.metadata.caller(&request)?;
        let releases = Release::parse_all(request.into_inner().volumes)?;
        // Who has sent it may go away; what has begun is carried out.
        let node = Arc::clone(&self.node);
        let accepting = tokio::spawn(async move { take::accept(&node, from, releases).await });
        let accepted = accepting.await.map_err(|panic| Status::internal(panic.to_string()))??;
        Ok(Response::new(ReleaseReply { accepted }))
    }

    async fn fetch_tail(&self, request: Request<FetchTailRequest>) -> Result<Response<Self::FetchTailStream>, Status> {
        self.node.metadata.caller(&request)?;
        let FetchTailRequest { volume, epoch, blocks } = request.into_inner();
        let epoch = Epoch::from_number(epoch).ok_or_else(|| Status::invalid_argument("no volume has epoch 0"))?;
        let ranges = ranges_of(&blocks)?;
        let busy = |_| Status::resource_exhausted("this node gives tails to as many others as it can: try again later");
        let turn = Arc::clone(&self.streams).try_acquire_owned().map_err(busy)?;
        let volume = released(&self.node, VolumeId(volume), epoch).await?;
        let (replies, stream) = mpsc::channel(MESSAGES_AHEAD);
        drop(tokio::spawn(send_all(volume, ranges, replies, turn)));
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn read(&self, request: Request<ReadRequest>) -> Result<Response<Self::ReadStream>, Status> {
        self.node.metadata.caller(&request)?;
        let ReadRequest { volume, offset, length } = request.into_inner();
        if length > MAX_READ_BYTES {
            return Err(Status::invalid_argument(format!("{length} bytes in one read; {MAX_READ_BYTES} are the most")));
        }
        let range =
            ByteRange::new(ByteOffset(offset), length).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let device = served(&self.node, VolumeId(volume)).await?;
        let stopping = |_| Status::unavailable("this node is shutting down");
        let turn = Arc::clone(&self.reads).acquire_owned().await.map_err(stopping)?;
        let (replies, stream) = mpsc::channel(MESSAGES_AHEAD);
        drop(tokio::spawn(send_contents(device, range, replies, turn)));
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn ask(&self, request: Request<AskRequest>) -> Result<Response<AskReply>, Status> {
        let from = self.node.metadata.caller(&request)?;
        let volume = VolumeId(request.into_inner().volume);
        // Who has asked may go away; what has begun is carried out.
        let asking = tokio::spawn(ask(Arc::clone(&self.node), volume, from));
        let answer = asking.await.map_err(|panic| Status::internal(panic.to_string()))?;
        let (obstacle, passes) =
            answer.err().map_or((String::new(), false), |obstacle| (obstacle.what, obstacle.passes));
        Ok(Response::new(AskReply { obstacle, passes }))
    }

    async fn find_migrator(
        &self,
        request: Request<FindMigratorRequest>,
    ) -> Result<Response<FindMigratorReply>, Status> {
        self.node.metadata.caller(&request)?;
        let address = self.node.migrator.map(|address| address.to_string()).unwrap_or_default();
        Ok(Response::new(FindMigratorReply { address }))
    }
}

/// Whether volumes may come here with a VM whose token this is.
fn allowed(node: &Node, from: NodeId, passings: &[Passing], token: &[u8]) -> Result<(), Status> {
    let volumes = passings.iter().map(|passing| (passing.volume, passing.epoch)).collect();
    let metadata = node.metadata.read();
    let from = metadata.node(from).ok_or_else(|| Status::failed_precondition("this node does not know the caller"))?;
    migration::check(node, token, &volumes, &from.site, &node.identity.site, Stage::UnderWay)
}

/// The device of a volume that this node serves, as its clients have it; it is opened where it rests.
async fn served(node: &Arc<Node>, id: VolumeId) -> Result<OwnedDevice, Status> {
    let elsewhere = || Status::failed_precondition("this node does not serve the volume");
    if let Some(open) = node.volumes.get(id) {
        // Whoever waits there finds out where it is.
        let is_here = !open.ownership.is_paused() && !open.ownership.is_over();
        return is_here.then(|| open.device()).ok_or_else(elsewhere);
    }
    let mut slot = node.volumes.hold(id).await;
    let entry = node.metadata.read().volume(id).cloned().ok_or_else(elsewhere)?;
    let epoch = node.volumes.promises().serves(&entry).ok_or_else(elsewhere)?;
    let spec = spec_of(&entry).ok_or_else(elsewhere)?;
    let open = slot.volume(&VolumeSpec { epoch, ..spec }).await;
    open.map(|open| open.device()).map_err(|error| Status::unavailable(error.to_string()))
}

/// Reads a range, and sends it in order, until the caller has gone away.
async fn send_contents(
    device: OwnedDevice,
    range: ByteRange,
    replies: mpsc::Sender<Result<ReadReply, Status>>,
    _turn: OwnedSemaphorePermit,
) {
    let (mut at, end) = (range.start(), range.end());
    while at < end {
        let Ok(room) = replies.reserve().await else { return };
        let next = ByteOffset(end.0.min(at.0 + MESSAGE_BYTES));
        let part = ByteRange::between(at, next);
        match device.read(part).await {
            Ok(ReadData::Bytes(data)) => room.send(Ok(ReadReply { data: data.to_vec() })),
            Ok(ReadData::Zeroes) => {
                let zeroes = usize::try_from(part.length()).map(|length| vec![0; length]);
                room.send(zeroes.map(|data| ReadReply { data }).map_err(|error| Status::internal(error.to_string())));
            }
            Err(error) => return room.send(Err(Status::unavailable(error.to_string()))),
        }
        at = next;
    }
}

/// The volume as it was released in this epoch, which is over here.
async fn released(node: &Arc<Node>, id: VolumeId, epoch: Epoch) -> Result<Arc<Volume>, Status> {
    let failed = |error: &dyn std::fmt::Display| Status::unavailable(error.to_string());
    let gone = || Status::not_found("this node has nothing of it any more");
    if let Some(open) = node.volumes.get(id).filter(|open| open.epoch == epoch && open.volume.is_released()) {
        return Ok(open.volume);
    }
    let mut slot = node.volumes.hold(id).await;
    let promise = node.volumes.promises().last(id).map_err(|error| failed(&error))?;
    let entry = node.metadata.read().volume(id).cloned().ok_or_else(gone)?;
    let storage = Arc::clone(&node.engine.storage);
    let kept = blocking(move || storage.kept(id)).await.map_err(|error| failed(&error))?;
    let kept = kept.map_err(|error| failed(&error))?.filter(|kept| kept.epoch == epoch).ok_or_else(gone)?;
    if !promise.is_some_and(|promise| promise.releases(epoch)) {
        return Err(Status::failed_precondition("this node has not released it"));
    }
    let unknown = |_| Status::failed_precondition("its format is unknown to this program");
    let chunking = ChunkingParameters::decode(entry.format.0.to_le_bytes()).map_err(unknown)?;
    let spec = VolumeSpec::of_kept(&kept, id, chunking).map_err(|error| failed(&error))?;
    let open = slot.volume(&VolumeSpec { size: entry.size, ..spec }).await.map_err(|error| failed(&error))?;
    open.pause();
    let volume = Arc::clone(&open.volume);
    blocking(move || open.volume.release()).await.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
    Ok(volume)
}

/// Reads the ranges, and sends each message as soon as there is room for it, until the caller has gone away.
async fn send_all(
    volume: Arc<Volume>,
    ranges: Vec<ByteRange>,
    replies: mpsc::Sender<Result<FetchTailReply, Status>>,
    _turn: OwnedSemaphorePermit,
) {
    for range in ranges {
        let (mut at, end) = (range.start().0, range.end().0);
        while at < end {
            let Ok(room) = replies.reserve().await else { return };
            let length = (end - at).min(MESSAGE_BYTES);
            let volume = Arc::clone(&volume);
            let reading = blocking(move || read(&volume, at, length));
            match reading.await.map_err(|panic| Status::internal(panic.to_string())) {
                Ok(Ok(data)) => room.send(Ok(FetchTailReply { first_block: at / BLOCK_SIZE, data })),
                Ok(Err(status)) | Err(status) => return room.send(Err(status)),
            }
            at += length;
        }
    }
}

fn read(volume: &Volume, at: u64, length: u64) -> Result<Vec<u8>, Status> {
    let failed = |error: &dyn std::fmt::Display| Status::unavailable(error.to_string());
    let range = ByteRange::new(ByteOffset(at), length).map_err(|error| failed(&error))?;
    let mut data = vec![0; usize::try_from(length).map_err(|error| failed(&error))?];
    volume.read(range, &mut data).map_err(|error| failed(&error))?;
    Ok(data)
}

fn ranges_of(blocks: &[BlockRange]) -> Result<Vec<ByteRange>, Status> {
    if blocks.len() > MAX_RANGES {
        let given = blocks.len();
        return Err(Status::invalid_argument(format!("{given} ranges in one request; {MAX_RANGES} are the most")));
    }
    let range = |blocks: &BlockRange| {
        let (first, length) = (blocks.first.checked_mul(BLOCK_SIZE)?, blocks.count.checked_mul(BLOCK_SIZE)?);
        ByteRange::new(ByteOffset(first), length).ok()
    };
    let ranges: Option<Vec<_>> = blocks.iter().map(range).collect();
    ranges.ok_or_else(|| Status::invalid_argument("a range of blocks that no volume has"))
}

/// The most ranges of blocks that one request asks for.
pub(super) const MAX_RANGES: usize = 4096;
/// What a release may take: the tails of as many volumes as one has, each with a full journal of single blocks.
pub(super) const MAX_RELEASE_BYTES: usize = 320 << 20;
/// How many pre-copies to this node go on at a time, those that wait for their handoff among them.
const MAX_PRE_COPIES: usize = 16;
/// How many fetch from this node at a time: each holds some messages.
const MAX_STREAMS: usize = 32;
/// How many others read from volumes of this node at a time; more wait. Each holds some messages.
const MAX_READS: usize = 64;
/// What a client of a disk reads at most in one request.
const MAX_READ_BYTES: u64 = 32 << 20;
/// Bytes of data in one message.
const MESSAGE_BYTES: u64 = 1 << 20;
/// Messages that wait for the network, of each stream.
const MESSAGES_AHEAD: usize = 4;
