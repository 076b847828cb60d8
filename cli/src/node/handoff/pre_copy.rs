//! Bringing what is hot of volumes, or all, to the node that they are to go to before they do: their clients read and write as ever.
//!
//! ```text
//! A, the owner                                        B, where they go
//! ────────────                                        ────────────────
//! seals; which parts of the root? ── PreCopy ───────> holds the root: what of it is here is not collected
//!                                 <────────────────── fetches what it lacks, the hottest first; says how far it is
//!                                 <────────────────── all is here
//! again, until little was new
//! the handoff
//! drops the call ───────────────────────────────────> lets go of the root: now the volume names it
//! ```
//!
//! Nothing is promised by any of that, and nothing has to be undone: what was brought in vain is collected one day.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, bail};
use sterna_proto::node::{PreCopyReply, PreCopyRequest};
use sterna_storage_node::volume::Volume;
use sterna_types::{NodeId, Root, VolumeName};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tonic::{Status, Streaming};

use super::give::client;
use super::hydrate;
use super::supply::Sources;
use super::tell;
use super::wire::{MAX_PARTS, Parts};
use crate::node::node::{HeldRoot, Node};
use crate::node::replication::{Target, fill};

/// What was brought to another node, which keeps it as long as this lives.
#[derive(Debug)]
pub(in crate::node) struct PreCopied {
    _call: Streaming<PreCopyReply>,
    /// What the other node fetches.
    _held: Vec<HeldRoot>,
}

/// Brings what is hot of these volumes, which this node serves, to the node `to`, or `all` that they hold, what is hot first; `None` where there is nothing
/// to bring. `fetched` is told how many bytes have come there. What is written while the last little of it is brought is not there.
///
/// # Errors
/// Why it was not brought.
///
/// # Cancel safety
/// May be dropped at any time.
pub(in crate::node) async fn pre_copy(
    node: &Arc<Node>,
    volumes: &[(VolumeName, Arc<Volume>)],
    to: NodeId,
    all: bool,
    mut fetched: impl FnMut(u64),
) -> Result<Option<PreCopied>> {
    let most = MAX_PARTS / volumes.len().max(1);
    let classes = |volume: &Volume| match all {
        true => volume.in_order(most),
        false => volume.read_hot(most),
    };
    let wanted: Vec<_> = volumes.iter().map(|(_, volume)| classes(volume)).collect();
    if wanted.iter().all(Vec::is_empty) {
        return Ok(None);
    }
    let mut brought = None;
    let mut before = 0;
    for _ in 0..ROUNDS {
        for (name, volume) in volumes {
            seal(node, volume, name).await?;
        }
        // The last ones are held until these are.
        let (next, bytes) = round(node, volumes, &wanted, to, |bytes| fetched(before + bytes)).await?;
        brought = Some(next);
        before += bytes;
        if bytes <= LITTLE_BYTES {
            break;
        }
    }
    Ok(brought)
}

/// Brings what is lacking there of what the volumes hold now. How many bytes that was.
async fn round(
    node: &Arc<Node>,
    volumes: &[(VolumeName, Arc<Volume>)],
    wanted: &[Vec<Vec<Range<u64>>>],
    to: NodeId,
    mut fetched: impl FnMut(u64),
) -> Result<(PreCopied, u64)> {
    let (mut held, mut parts) = (Vec::new(), Vec::new());
    {
        let _in_transit = node.in_transit.read().await;
        for ((_, volume), classes) in volumes.iter().zip(wanted) {
            let root = volume.sealed().root;
            held.push(node.hold_root(root));
            parts.push(Parts { volume: volume.id(), root, classes: classes.clone() }.to_message());
        }
    }
    tell("pre-copy", to);
    let failed = |status: Status| anyhow::anyhow!("what has to be there cannot be brought there: {}", status.message());
    let call = client(node, to)?.pre_copy(PreCopyRequest { volumes: parts }).await.map_err(failed)?;
    let mut call = call.into_inner();
    while let Some(PreCopyReply { fetched_bytes, is_here }) = call.message().await.map_err(failed)? {
        fetched(fetched_bytes);
        if is_here {
            return Ok((PreCopied { _call: call, _held: held }, fetched_bytes));
        }
    }
    bail!("what has to be there cannot be brought there: the call has ended");
}

/// Seals a volume until little of it is not: under a client that writes as without one. What it lacks for that is fetched.
///
/// # Errors
/// It cannot be sealed, or what is lacking for that does not come.
///
/// # Cancel safety
/// May be dropped at any time; a seal that runs goes on.
pub(super) async fn seal(node: &Arc<Node>, volume: &Arc<Volume>, name: &VolumeName) -> Result<()> {
    for _ in 0..SEALS {
        if volume.status().unsealed_bytes <= LITTLE_BYTES {
            break;
        }
        let sources = Sources::of(&node.metadata.read(), volume.id(), node.metadata.id());
        let sealed = hydrate::seal(node, volume, &sources).await;
        sealed.with_context(|| format!("volume '{name}' cannot be sealed"))?;
    }
    Ok(())
}

/// Node B's part, until the caller goes away or this node shuts down.
pub(super) async fn answer(
    node: Arc<Node>,
    from: NodeId,
    volumes: Vec<Parts>,
    replies: mpsc::Sender<Result<PreCopyReply, Status>>,
    _turn: OwnedSemaphorePermit,
) {
    let bringing = async {
        match bring(&node, from, volumes, &replies).await {
            Ok((_held, fetched_bytes)) => {
                // Who has gone away does not hear it, and is noticed.
                let _ = replies.send(Ok(PreCopyReply { fetched_bytes, is_here: true })).await;
                replies.closed().await;
            }
            Err(status) => drop(replies.send(Err(status)).await),
        }
    };
    tokio::select! {
        () = bringing => {}
        () = replies.closed() => {}
        () = node.stopping.cancelled() => drop(replies.try_send(Err(Status::unavailable("this node is shutting down")))),
    }
}

/// Fetches what is lacking here of parts of volumes that `from` owns. How many bytes that was; what of them is here stays as long as what
/// is returned lives.
async fn bring(
    node: &Arc<Node>,
    from: NodeId,
    volumes: Vec<Parts>,
    replies: &mpsc::Sender<Result<PreCopyReply, Status>>,
) -> Result<(Vec<HeldRoot>, u64), Status> {
    let own = node.metadata.id();
    let known = node.metadata.linearizable().await.map_err(|error| Status::unavailable(error.to_string()))?;
    if let Some(parts) = volumes.iter().find(|parts| known.volume(parts.volume).is_none_or(|entry| entry.owner != from))
    {
        return Err(Status::failed_precondition(format!("volume {} is not that of the node that asks", parts.volume)));
    }
    let fetched = AtomicU64::new(0);
    let stored = |_, bytes| {
        let fetched_bytes = fetched.fetch_add(bytes, Ordering::Relaxed) + bytes;
        // A caller who does not keep up misses some.
        let _ = replies.try_send(Ok(PreCopyReply { fetched_bytes, is_here: false }));
    };
    let mut held = Vec::new();
    for Parts { volume, root, classes } in volumes {
        let (old, _old) = {
            let _in_transit = node.in_transit.read().await;
            held.push(node.hold_root(root));
            let metadata = node.metadata.read();
            let replicas = metadata.volume(volume).map(|entry| &entry.replicas);
            let replica = replicas.and_then(|replicas| replicas.values().find(|replica| replica.node == own));
            let old =
                replica.and_then(|replica| replica.complete).map_or(Root::EMPTY, |complete| complete.contents.root);
            (old, node.hold_root(old))
        };
        let sources = Sources::of(&node.metadata.read(), volume, own).nodes;
        for blocks in classes {
            let target = Target { volume, old, new: root, sources: sources.clone() };
            let filled = fill(node, &target, blocks, &stored).await;
            filled.map_err(|error| Status::unavailable(error.to_string()))?;
        }
    }
    Ok((held, fetched.into_inner()))
}

/// Bytes that are not worth another round, nor in a journal a seal: they are fetched within a round trip or two.
const LITTLE_BYTES: u64 = 1 << 20;
/// Each takes as long as what was written in the one before takes to be brought; after so many a client that writes faster than the link
/// is as far ahead as it ever will be.
const ROUNDS: usize = 4;
/// After so many seals a client that writes as fast as it can has left as little as it ever will.
const SEALS: usize = 8;
