//! Fetching all that a volume lacks which was handed to this node: until then others keep it.
//!
//! 1. The tail: it is at one node, and in no root. *What a crash takes of it is absent again, and fetched again.*
//! 2. A seal: the tail is in a root now, and in no record.
//! 3. All of that root: what is read-hot first, then what the volume's traces have, and last what is written more than it is read. What is
//!    written meanwhile is here already.
//! 4. All of the volume's snapshots, as far as anybody who is reached has them.
//! 5. The metadata is told. *It is told again.*
//!
//! Up to step 4 it gives way to who wants to give the volume away: what has come stays. Steps 1 and 2 are then done by who does
//! ([`bring_tail`]).

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use sterna_consensus::state::command::Command;
use sterna_consensus::state::volume::Volume as VolumeEntry;
use sterna_storage_node::volume::{SealedState, Volume};
use sterna_transport::Lane;
use sterna_types::{Root, SnapshotName, VolumeId};

use super::in_hand::InHand;
use super::supply::{Sources, fetch_tail};
use super::wire::MAX_PARTS;
use crate::node::node::{HeldRoot, Node, spec_of};
use crate::node::replication::{Target, fetch, pull, pull_in_order};

/// All of a volume is here.
struct Arrived {
    entry: Arc<VolumeEntry>,
    /// Those of its snapshots that are, too.
    snapshots: Vec<SnapshotName>,
    /// Until the metadata says so.
    _held: Vec<HeldRoot>,
}

/// Fetches all of a volume that this node owns, and says so, unless somebody asks for it who wants to give it away.
///
/// # Errors
/// Why it has not come further; what has come is here, and not fetched again.
///
/// # Cancel safety
/// May be dropped at any time, as after an error.
pub(super) async fn hydrate(node: &Arc<Node>, id: VolumeId, in_hand: &InHand) -> Result<()> {
    let arrived = tokio::select! {
        arrived = fetch_all(node, id) => arrived?,
        () = in_hand.asked_for() => {
            tracing::debug!(volume = %id, "it is to be handed over, and is not fetched any more");
            return Ok(());
        }
    };
    let Some(Arrived { entry, snapshots, _held }) = arrived else { return Ok(()) };
    // From here on it is not known whether the metadata is told, and what it is told of is held until it is.
    let own = node.metadata.id();
    let _in_transit = node.in_transit.read().await;
    node.metadata.propose(Command::FinishHydration { volume: id, epoch: entry.epoch, node: own, snapshots }).await?;
    tracing::info!(volume = %entry.name, epoch = %entry.epoch, "all of a volume that was handed to this node is here");
    Ok(())
}

/// Steps 1 to 4; `None` where nothing is lacking, or it is not this node's.
async fn fetch_all(node: &Arc<Node>, id: VolumeId) -> Result<Option<Arrived>> {
    let own = node.metadata.id();
    let (volume, entry) = {
        let mut slot = node.volumes.hold(id).await;
        let metadata = node.metadata.linearizable().await?;
        let is_due =
            |entry: &&Arc<VolumeEntry>| entry.owner == own && entry.moving_to.is_none() && !entry.is_hydrated();
        let Some(entry) = metadata.volume(id).filter(is_due).cloned() else { return Ok(None) };
        let open = slot.volume(&spec_of(&entry).context("its format is not known")?).await?;
        (open.volume, entry)
    };
    let sealed = bring_tail(node, &volume).await?;
    let sources = Sources::of(&node.metadata.read(), id, own);
    let target = |old: Root, new: Root| Target { volume: id, old, new, sources: sources.nodes.clone() };
    let mut held = vec![pull_in_order(node, &target(Root::EMPTY, sealed.root), volume.in_order(MAX_PARTS)).await?];
    let mut snapshots = Vec::new();
    for (name, snapshot) in entry.snapshots.iter() {
        match pull(node, &target(sealed.root, snapshot.root)).await {
            Ok(root) => {
                held.push(root);
                snapshots.push(name.clone());
            }
            // Whoever has it keeps it.
            Err(error) => {
                tracing::info!(volume = %entry.name, snapshot = %name, "a snapshot stays where it is: {error}");
            }
        }
    }
    Ok(Some(Arrived { entry, snapshots, _held: held }))
}

/// Steps 1 and 2: on return all of the tail that the volume came with is in a root of this node's, which is durable, and so it stays. What
/// is lacking then are chunks only.
///
/// # Errors
/// Why it has not come; some of it may have.
///
/// # Cancel safety
/// May be dropped at any time, as after an error; a seal that runs goes on.
pub(super) async fn bring_tail(node: &Arc<Node>, volume: &Arc<Volume>) -> Result<SealedState> {
    let sources = Sources::of(&node.metadata.read(), volume.id(), node.metadata.id());
    fetch_all_of_tail(node, volume, &sources).await?;
    let sealed = seal(node, volume, &sources).await?;
    ensure!(volume.has_sealed_tail(), "what has come of its tail is not sealed");
    Ok(sealed)
}

/// Step 1.
async fn fetch_all_of_tail(node: &Arc<Node>, volume: &Arc<Volume>, sources: &Sources) -> Result<()> {
    loop {
        let tail = volume.tail();
        if tail.is_empty() {
            return Ok(());
        }
        let blocks: Vec<_> = tail.data().collect();
        fetch_tail(node, volume, sources.tail, Lane::Tail, &blocks).await?;
        ensure!(volume.tail() != tail, "what was asked for of its tail has not come");
    }
}

/// Seals a volume, as step 2 does. A seal may need parts of the map that are not here.
///
/// # Errors
/// Why it was not sealed, or what it needs has not come.
///
/// # Cancel safety
/// May be dropped at any time; a seal that runs goes on.
pub(super) async fn seal(node: &Arc<Node>, volume: &Arc<Volume>, sources: &Sources) -> Result<SealedState> {
    loop {
        let sealing = Arc::clone(volume);
        let sealed = node.background.upkeep(move || sealing.seal()).await.context("a seal panicked")?;
        let absence = match sealed {
            Ok(sealed) => return Ok(sealed),
            Err(error) => match error.absence() {
                Some(absence) => absence,
                None => return Err(error.into()),
            },
        };
        if !absence.blocks.is_empty() {
            fetch_tail(node, volume, sources.tail, Lane::Tail, &absence.blocks).await?;
        }
        fetch(node, &sources.nodes, Lane::Bulk, absence.chunks, &|_, _| {}).await?;
    }
}
