//! Giving a volume to a node where a client writes to it: at its owner (`attach = auto`, design section 5).
//!
//! The owner keeps it while a client of its own changes anything, or has done so a moment ago: a machine that is paused, because it
//! moves, is quiet, and one that runs keeps its disk. That is looked at before anything begins, and again once nothing more is acknowledged.

use std::sync::Arc;
use std::time::Duration;

use sterna_consensus::state::policy::AttachPolicy;
use sterna_consensus::state::volume::{Volume as VolumeEntry, VolumeState};
use sterna_types::{NodeId, VolumeId};
use tokio::time::Instant;

use super::give::{Given, give};
use crate::node::node::{Node, spec_of};

/// Why a volume was not given away.
#[derive(Debug)]
pub(super) struct Obstacle {
    /// For people.
    pub(super) what: String,
    /// Whether it may be asked for again a little later.
    pub(super) passes: bool,
}

impl Obstacle {
    fn lasting(what: impl Into<String>) -> Self {
        Self { what: what.into(), passes: false }
    }

    fn passing(what: impl Into<String>) -> Self {
        Self { what: what.into(), passes: true }
    }
}

/// Gives a volume of this node to `to`. On return that node serves it.
///
/// # Errors
/// Why not; or that it is not known yet whether it does, which passes.
///
/// # Cancel safety
/// Not cancel safe: run it in a task of its own.
pub(super) async fn ask(node: Arc<Node>, id: VolumeId, to: NodeId) -> Result<(), Obstacle> {
    let mut entry = owned(&node, id)?;
    until_quiet(&node, &entry).await?;
    let mut slot = node.volumes.hold(id).await;
    // Now nobody changes it.
    entry = owned(&node, id)?;
    let spec = spec_of(&entry).ok_or_else(|| Obstacle::lasting("its format is not known to its owner"))?;
    let open = slot.volume(&spec).await.map_err(|error| Obstacle::passing(error.to_string()))?;
    let name = entry.name.clone();
    let given = Given::new(entry, open, slot).if_quiet_for(QUIET);
    let handed = give(node, vec![given], to).await.map_err(|error| Obstacle::passing(format!("{error:#}")))?;
    tracing::info!(volume = %name, %to, paused = ?handed.paused, "a volume went to where it is written to");
    Ok(())
}

/// The volume, if it is this node's to give to whoever asks.
fn owned(node: &Node, id: VolumeId) -> Result<Arc<VolumeEntry>, Obstacle> {
    let metadata = node.metadata.read();
    let entry = metadata.volume(id).filter(|entry| entry.owner == node.metadata.id());
    let entry = entry.ok_or_else(|| Obstacle::passing("the node that was asked does not own it"))?;
    if entry.state != VolumeState::Ready {
        return Err(Obstacle::lasting("its import is not complete"));
    }
    if entry.attach != AttachPolicy::Auto {
        return Err(Obstacle::lasting("it is attached where it is moved to, and nowhere else ('attach' is 'manual')"));
    }
    if entry.moving_to.is_some() {
        return Err(Obstacle::passing("it is being handed over"));
    }
    Ok(Arc::clone(entry))
}

/// Waits until no client has changed it for [`QUIET`], though not for long.
async fn until_quiet(node: &Node, entry: &VolumeEntry) -> Result<(), Obstacle> {
    let begun = Instant::now();
    loop {
        // Whoever would change it has it open.
        let Some(open) = node.volumes.get(entry.id) else { return Ok(()) };
        let left = QUIET.saturating_sub(open.ownership.quiet_for());
        if left.is_zero() {
            return Ok(());
        }
        if begun.elapsed() > QUIET_PATIENCE {
            return Err(Obstacle::lasting("a client of its owner writes to it"));
        }
        tokio::time::sleep(left).await;
    }
}

/// A machine that runs writes more often than that.
const QUIET: Duration = Duration::from_secs(1);
/// One that has been paused is quiet within a second; one that is not yet is not about to be.
const QUIET_PATIENCE: Duration = Duration::from_secs(2);
