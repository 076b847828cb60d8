//! Telling the metadata what the volumes of this node contain: the roots of all that were sealed, in one command every few
//! seconds.

use std::sync::Arc;

use anyhow::{Context, Result};
use sterna_consensus::limits::{MAX_ROOTS_PER_COMMAND, PUBLISH_INTERVAL};
use sterna_consensus::state::cluster::MetadataVersion;
use sterna_consensus::state::command::{Command, RootPublication};
use sterna_consensus::state::outcome::Outcome;
use sterna_consensus::state::volume::{Generation, Volume, VolumeState};
use sterna_consensus::{Metadata, ProposeError};
use sterna_runtime::work::blocking;
use sterna_storage_node::volume::SealedState;
use sterna_types::{Epoch, VolumeId};
use tokio::time::MissedTickBehavior;

use super::clock::now;
use super::node::{Node, spec_of};
use super::volumes::{LastSeal, OpenVolume};

/// Publishes what has changed, again and again, until the node shuts down.
pub(super) async fn run(node: Arc<Node>) {
    let mut ticks = tokio::time::interval(PUBLISH_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut was_well = true;
    loop {
        tokio::select! {
            () = node.stopping.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let result = publish(&node).await;
        if let Err(error) = &result
            && was_well
        {
            tracing::warn!(%error, "roots could not be published; it is tried again");
        }
        was_well = result.is_ok();
    }
}

/// Publishes the roots of all open volumes that the metadata does not have yet.
///
/// # Errors
/// Why they were not; some of them may have been.
pub(super) async fn publish(node: &Node) -> Result<(), ProposeError> {
    let _in_transit = node.in_transit.read().await;
    let open = node.volumes.open();
    let metadata = node.metadata.read();
    let changed: Vec<_> = open.values().filter_map(|open| news_of(open, &metadata)).collect();
    for batch in changed.chunks(MAX_ROOTS_PER_COMMAND) {
        let outcome = node.metadata.propose_without_haste(Command::PublishRoots(batch.to_vec())).await?;
        if let Outcome::Published { refused } = outcome {
            for (volume, refusal) in refused {
                // Deleted meanwhile, or published by somebody who was faster.
                tracing::debug!(%volume, %refusal, "a root was not published");
            }
        }
    }
    Ok(())
}

/// Publishes what volumes held when they were closed for good; whether that is all that this node ever acknowledged.
///
/// # Errors
/// As [`publish`].
pub(super) async fn publish_last(node: &Node, last: &[LastSeal]) -> Result<bool, ProposeError> {
    let metadata = node.metadata.read();
    let is_news = |last: &&LastSeal| {
        metadata.volume(last.volume).is_some_and(|known| {
            known.state == VolumeState::Ready && last.sealed.generation > known.published.generation.0
        })
    };
    let of = |last: &LastSeal| publication(last.volume, last.epoch, last.sealed, &metadata);
    let changed: Vec<_> = last.iter().filter(is_news).map(of).collect();
    let mut none_refused = true;
    for batch in changed.chunks(MAX_ROOTS_PER_COMMAND) {
        let outcome = node.metadata.propose(Command::PublishRoots(batch.to_vec())).await?;
        none_refused &= matches!(outcome, Outcome::Published { refused } if refused.is_empty());
    }
    // A volume that was not open in this run may have more in its journal than anybody knows.
    let own = node.metadata.id();
    let is_known =
        |volume: &Volume| node.volumes.is_at_rest(volume.id) || last.iter().any(|last| last.volume == volume.id);
    Ok(none_refused && metadata.volumes().filter(|volume| volume.owner == own).all(|volume| is_known(volume)))
}

/// Seals and publishes what an earlier run of this node has left in the journals of its volumes: those who follow them need not
/// wait for a client to open them.
pub(super) async fn publish_left(node: &Arc<Node>) -> Result<()> {
    let storage = Arc::clone(&node.engine.storage);
    for id in blocking(move || storage.kept_volumes()).await?? {
        if node.stopping.is_cancelled() {
            return Ok(());
        }
        if let Err(error) = publish_one_left(node, id).await {
            tracing::warn!(volume = %id, "what an earlier run has left of it is not published: {error:#}");
        }
    }
    Ok(())
}

/// The same of one volume.
///
/// # Errors
/// Why it was not published.
pub(super) async fn publish_one_left(node: &Arc<Node>, id: VolumeId) -> Result<()> {
    let mut slot = node.volumes.hold(id).await;
    let _in_transit = node.in_transit.read().await;
    let metadata = node.metadata.read();
    let is_served = |entry: &Arc<Volume>| node.volumes.promises().serves(entry) == Some(entry.epoch);
    let is_own = |entry: &&Arc<Volume>| is_served(entry) && entry.state == VolumeState::Ready;
    let Some(entry) = metadata.volume(id).filter(is_own) else { return Ok(()) };
    if node.volumes.get(id).is_some() {
        // Its sealer does it.
        return Ok(());
    }
    let open = slot.volume(&spec_of(entry).context("its format is not known")?).await?;
    let volume = Arc::clone(&open.volume);
    let sealed = node.background.upkeep(move || volume.seal()).await??;
    if !open.members.have(&metadata, open.volume.sealed_through()) {
        // Once those in sync have it, too; it stays open until then, and is published like any other.
        return Ok(());
    }
    if sealed.generation > entry.published.generation.0 && open.volume.has_sealed_tail() {
        let publication = publication(id, open.epoch, sealed, &metadata);
        let outcome = node.metadata.propose(Command::PublishRoots(vec![publication])).await?;
        if let Outcome::Published { refused } = outcome
            && let Some((_, refusal)) = refused.into_iter().next()
        {
            return Err(refusal.into());
        }
    }
    slot.rest().await;
    Ok(())
}

/// What the metadata does not know yet of a volume.
fn news_of(open: &OpenVolume, metadata: &Metadata) -> Option<RootPublication> {
    let sealed = open.volume.sealed();
    let known = metadata.volume(open.volume.id())?;
    // What is on its way to another node is published by that one; what has come from another one, once that is committed.
    let is_own = known.epoch == open.epoch && !open.volume.is_released();
    // What lacks a part of the tail that it came with is no state that the volume ever had.
    let is_whole = open.volume.has_sealed_tail();
    let is_news = known.state == VolumeState::Ready && sealed.generation > known.published.generation.0;
    // Whoever goes on with the volume by being in sync goes on with all that was published.
    let is_everywhere = || open.members.have(metadata, open.volume.sealed_through());
    (is_own && is_whole && is_news && is_everywhere())
        .then(|| publication(open.volume.id(), open.epoch, sealed, metadata))
}

/// What is said of sealed contents to a cluster with this metadata.
pub(super) fn publication(volume: VolumeId, epoch: Epoch, sealed: SealedState, metadata: &Metadata) -> RootPublication {
    let SealedState { root, generation, written_blocks } = sealed;
    // Earlier versions know nothing of these.
    let (written_blocks, at) =
        if metadata.version() >= MetadataVersion::REPLICAS { (written_blocks, Some(now())) } else { (0, None) };
    RootPublication { volume, epoch, root, generation: Generation(generation), written_blocks, at }
}
