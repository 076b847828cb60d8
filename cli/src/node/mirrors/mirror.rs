//! One mirror that this node keeps, for one call to its owner: it begins where the owner is, and then makes every change that comes.
//!
//! What it has it keeps, whatever becomes of the call: a later one begins anew over it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use sterna_consensus::state::volume::Volume as VolumeEntry;
use sterna_proto::node::mirrors_client::MirrorsClient;
use sterna_proto::node::{FollowReply, FollowRequest};
use sterna_runtime::work::blocking;
use sterna_storage_node::volume::{Change, Sealer, Volume, VolumeSpec};
use sterna_transport::Lane;
use sterna_types::{Epoch, NodeId, Root, VolumeId, VolumeSize};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::codec::CompressionEncoding;

use super::wire::{self, Begin};
use crate::node::node::{Node, spec_of};
use crate::node::replication::{Target, pull};

/// What a mirror is to be of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Task {
    pub(super) volume: VolumeId,
    pub(super) epoch: Epoch,
    pub(super) owner: NodeId,
}

/// Follows the owner until that or the mirror ends.
///
/// # Errors
/// Why it does not go on.
///
/// # Cancel safety
/// May be dropped at any time: the mirror stays as it is.
pub(super) async fn follow(node: &Arc<Node>, task: Task) -> Result<()> {
    let channels = node.metadata.channels().context("this node listens to no other, and asks none")?;
    let mut client = MirrorsClient::new(channels.channel(task.owner, Lane::Sync))
        .max_decoding_message_size(MAX_REPLY_BYTES)
        .accept_compressed(CompressionEncoding::Zstd);
    let (requests, stream) = mpsc::channel(REQUESTS_AHEAD);
    let first = FollowRequest { volume: task.volume.0, epoch: task.epoch.number(), durable: 0 };
    requests.send(first).await.context("the call has ended")?;
    let asked = timeout(PATIENCE, client.follow(ReceiverStream::new(stream))).await.context("no answer")?;
    let mut replies = asked.map_err(|status| anyhow::anyhow!("{}", status.message()))?.into_inner();
    let volume = begin(node, task, &mut replies, &requests).await?;
    // It ends with the call: nobody else seals the mirror while it begins anew.
    let _sealer = sealer(node, &volume);
    while let Some(reply) = next(&mut replies).await? {
        let FollowReply { changes, size, through, flush, .. } = reply;
        let (size, changes) = parse(size, changes)?;
        volume.wait_for_room().await?;
        let applying = Arc::clone(&volume);
        let made = blocking(move || {
            applying.mirror(size, &changes)?;
            if flush { applying.flush() } else { Ok(()) }
        });
        made.await??;
        if flush {
            requests
                .send(FollowRequest { durable: through, ..FollowRequest::default() })
                .await
                .context("it has ended")?;
        }
    }
    bail!("its owner has ended it");
}

/// Brings the mirror to where its owner is.
async fn begin(
    node: &Arc<Node>,
    task: Task,
    replies: &mut Streaming<FollowReply>,
    requests: &mpsc::Sender<FollowRequest>,
) -> Result<Arc<Volume>> {
    let first = next(replies).await?.context("its owner has said nothing")?;
    let begin = Begin::parse(&first.beginning.context("its owner did not begin")?)?;
    // All of the root, before anything is given up for it.
    let entry = entry(node, task)?;
    let kept = entry.replicas.values().find(|replica| replica.node == node.metadata.id());
    let old = kept.and_then(|replica| replica.complete).map_or(Root::EMPTY, |complete| complete.contents.root);
    let others = entry.sources.iter().rev().map(|source| source.node);
    let sources = std::iter::once(task.owner).chain(others).collect();
    let target = Target { volume: task.volume, old, new: begin.sealed.root, sources };
    let _held = pull(node, &target).await?;
    let volume = open(node, task).await?;
    let beginning = Arc::clone(&volume);
    let mut rebase = blocking(move || beginning.begin_rebase()).await??;
    loop {
        let more = async {
            let reply = next(replies).await?.context("its owner has ended it")?;
            let (size, changes) = parse(reply.size, reply.changes)?;
            anyhow::Ok((size, changes, reply.begun, reply.through))
        };
        let (size, changes, begun, through) = match more.await {
            Ok(more) => more,
            Err(error) => {
                volume.abandon_rebase(rebase);
                return Err(error);
            }
        };
        let going_on = Arc::clone(&volume);
        let (back, done) = blocking(move || {
            let done = going_on.go_on_with_rebase(&mut rebase, size, &changes);
            (rebase, done)
        })
        .await?;
        rebase = back;
        if let Err(error) = done {
            volume.abandon_rebase(rebase);
            return Err(error.into());
        }
        if begun {
            let (ending, Begin { sealed, written_blocks }) = (Arc::clone(&volume), begin);
            blocking(move || ending.finish_rebase(rebase, sealed, written_blocks)).await??;
            requests
                .send(FollowRequest { durable: through, ..FollowRequest::default() })
                .await
                .context("it has ended")?;
            tracing::info!(volume = %entry.name, epoch = %task.epoch, "a mirror has what its owner has");
            return Ok(volume);
        }
    }
}

/// The mirror, open, and with nobody sealing it.
async fn open(node: &Arc<Node>, task: Task) -> Result<Arc<Volume>> {
    let mut slot = node.volumes.hold(task.volume).await;
    let entry = entry(node, task)?;
    let storage = Arc::clone(&node.engine.storage);
    let reading = Arc::clone(&storage);
    let kept = blocking(move || reading.kept(task.volume)).await??;
    slot.close().await;
    if let Some(kept) = kept.filter(|kept| kept.epoch != task.epoch || !kept.is_mirror) {
        // What this node has to give account of goes first.
        ensure!(kept.is_mirror && kept.epoch < task.epoch, "what this node has of an earlier epoch is not settled yet");
        let removing = Arc::clone(&storage);
        blocking(move || removing.remove_volume(task.volume)).await??;
    }
    let spec = spec_of(&entry).context("its format is not known here")?;
    let spec = VolumeSpec { root: Root::EMPTY, generation: 0, written_blocks: 0, reclaimed: None, ..spec };
    let volume = blocking(move || storage.open_mirror(&spec)).await??;
    node.volumes.mirrors().register(&volume);
    Ok(volume)
}

/// What the metadata says of the volume, where this node is still to keep a mirror of it.
pub(super) fn entry(node: &Node, task: Task) -> Result<Arc<VolumeEntry>> {
    let metadata = node.metadata.read();
    let entry = metadata.volume(task.volume).filter(|entry| super::keep::task(entry, node.metadata.id()) == Some(task));
    entry.cloned().context("it is not to be kept here any more")
}

async fn next(replies: &mut Streaming<FollowReply>) -> Result<Option<FollowReply>> {
    replies.message().await.map_err(|status| anyhow::anyhow!("{}", status.message()))
}

fn parse(size: u64, changes: Vec<sterna_proto::node::BlockChange>) -> Result<(VolumeSize, Vec<Change>)> {
    let changes = changes.into_iter().map(wire::change).collect::<Result<Vec<_>, _>>()?;
    Ok((wire::size(size)?, changes))
}

/// The sealer of a mirror.
fn sealer(node: &Node, volume: &Arc<Volume>) -> Sealer {
    let _in_the_background = node.background.seals().enter();
    Sealer::start(Arc::clone(volume), node.volumes.mirrors().seals())
}

/// What one message holds: some records of the journal, the last of which may be a whole MiB.
const MAX_REPLY_BYTES: usize = 4 << 20;
/// Acknowledgements that wait for the network.
const REQUESTS_AHEAD: usize = 4;
/// A round trip around the world, and an opening of the volume.
const PATIENCE: Duration = Duration::from_secs(10);
