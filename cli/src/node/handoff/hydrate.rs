//! Fetching all that a volume lacks which was handed to this node: until then others keep it.
//!
//! 1. The tail: it is at one node, and in no root. *What a crash takes of it is absent again, and fetched again.*
//! 2. A seal: the tail is in a root now, and in no record.
//! 3. All of that root: what is read-hot first, then what the volume's traces have, and last what is written more than it is read. What is
//!    written meanwhile is here already.
//! 4. All of the volume's snapshots, as far as anybody who is reached has them.
//! 5. The metadata is told. *It is told again.*

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use sterna_consensus::state::command::Command;
use sterna_consensus::state::volume::Volume as VolumeEntry;
use sterna_storage_node::volume::{SealedState, Volume};
use sterna_transport::Lane;
use sterna_types::{Root, VolumeId};

use super::supply::{Sources, fetch_tail};
use super::wire::MAX_PARTS;
use crate::node::node::{Node, spec_of};
use crate::node::replication::{Target, fetch, pull, pull_in_order};

/// Fetches all of a volume that this node owns, and says so.
///
/// # Errors
/// Why it has not come further; what has come is here, and not fetched again.
///
/// # Cancel safety
/// May be dropped at any time, as after an error.
pub(super) async fn hydrate(node: &Arc<Node>, id: VolumeId) -> Result<()> {
    let own = node.metadata.id();
    let (volume, entry) = {
        let mut slot = node.volumes.hold(id).await;
        let metadata = node.metadata.linearizable().await?;
        let is_due =
            |entry: &&Arc<VolumeEntry>| entry.owner == own && entry.moving_to.is_none() && !entry.is_hydrated();
        let Some(entry) = metadata.volume(id).filter(is_due).cloned() else { return Ok(()) };
        let open = slot.volume(&spec_of(&entry).context("its format is not known")?).await?;
        (open.volume, entry)
    };
    let sources = Sources::of(&node.metadata.read(), id, own);
    fetch_all_of_tail(node, &volume, &sources).await?;
    let sealed = seal(node, &volume, &sources).await?;
    let target = |old: Root, new: Root| Target { volume: id, old, new, sources: sources.nodes.clone() };
    let _held = pull_in_order(node, &target(Root::EMPTY, sealed.root), volume.in_order(MAX_PARTS)).await?;
    let (mut held, mut snapshots) = (Vec::new(), Vec::new());
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
    let _in_transit = node.in_transit.read().await;
    node.metadata.propose(Command::FinishHydration { volume: id, epoch: entry.epoch, node: own, snapshots }).await?;
    tracing::info!(volume = %entry.name, epoch = %entry.epoch, "all of a volume that was handed to this node is here");
    Ok(())
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

/// Step 2. A seal may need parts of the map that are not here.
async fn seal(node: &Arc<Node>, volume: &Arc<Volume>, sources: &Sources) -> Result<SealedState> {
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
