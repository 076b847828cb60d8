//! Telling the metadata what the volumes of this node contain: the roots of all that were sealed, in one command every few
//! seconds.

use std::sync::Arc;

use sterna_consensus::limits::{MAX_ROOTS_PER_COMMAND, PUBLISH_INTERVAL};
use sterna_consensus::state::command::{Command, RootPublication};
use sterna_consensus::state::outcome::Outcome;
use sterna_consensus::state::volume::{Generation, VolumeState};
use sterna_consensus::{Metadata, ProposeError};
use sterna_storage_node::volume::SealedState;
use tokio::time::MissedTickBehavior;

use super::node::Node;
use super::volumes::OpenVolume;

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

/// What the metadata does not know yet of a volume.
fn news_of(open: &OpenVolume, metadata: &Metadata) -> Option<RootPublication> {
    let volume = open.volume.id();
    let SealedState { root, generation, .. } = open.volume.sealed();
    let known = metadata.volume(volume)?;
    let is_news = known.state == VolumeState::Ready && generation > known.published.generation.0;
    is_news.then_some(RootPublication { volume, epoch: open.epoch, root, generation: Generation(generation) })
}
