//! The mirrors that this node keeps: of each volume that it is to keep one of, a task that follows the owner, again and again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Result;
use sterna_consensus::Metadata;
use sterna_consensus::state::replica::ReplicaMode;
use sterna_consensus::state::volume::{Volume as VolumeEntry, VolumeState};
use sterna_runtime::work::blocking;
use sterna_storage_node::volume::Volume;
use sterna_types::{NodeId, VolumeId};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::mirror::{self, Task};
use crate::node::node::Node;
use crate::node::publish::publish_one_left;
use crate::node::volumes::HeldSlot;

/// The mirrors that are open on this node. One is opened and closed by who holds its volume's slot.
#[derive(Debug)]
pub(in crate::node) struct Mirrors {
    open: Mutex<HashMap<VolumeId, Arc<Volume>>>,
    /// How many are sealed at a time.
    seals: Arc<Semaphore>,
}

impl Default for Mirrors {
    fn default() -> Self {
        Self { open: Mutex::default(), seals: Arc::new(Semaphore::new(SEALS_AT_ONCE)) }
    }
}

impl Mirrors {
    /// Closes the mirror of a volume, if one is open: it takes no more changes, and stays as it is.
    pub(in crate::node) async fn close(&self, id: VolumeId) {
        let Some(volume) = self.lock().remove(&id) else { return };
        if let Err(panic) = blocking(move || volume.close()).await {
            tracing::error!(volume = %id, error = %panic, "closing a mirror panicked");
        }
    }

    pub(super) fn register(&self, volume: &Arc<Volume>) {
        self.lock().insert(volume.id(), Arc::clone(volume));
    }

    pub(super) fn seals(&self) -> Arc<Semaphore> {
        Arc::clone(&self.seals)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<VolumeId, Arc<Volume>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps what mirrors this node is to keep, until it shuts down.
pub(in crate::node) async fn run(node: Arc<Node>) {
    let mut view = node.metadata.watch();
    let mut followers: JoinSet<Task> = JoinSet::new();
    let mut running: HashMap<VolumeId, (Task, tokio::task::AbortHandle)> = HashMap::new();
    loop {
        let metadata = Arc::clone(&view.borrow_and_update());
        let is_due = |task: &Task| {
            metadata.volume(task.volume).and_then(|entry| self::task(entry, node.metadata.id())) == Some(*task)
        };
        for (_, (task, handle)) in running.extract_if(|_, (task, _)| !is_due(task)) {
            handle.abort();
            followers.spawn(clear(Arc::clone(&node), task));
        }
        for task in due(&metadata, node.metadata.id()) {
            running.entry(task.volume).or_insert_with(|| (task, followers.spawn(keep(Arc::clone(&node), task))));
        }
        publish_taken_over(&node, &metadata).await;
        tokio::select! {
            () = node.stopping.cancelled() => break,
            changed = view.changed() => if changed.is_err() { break },
            Some(ended) = followers.join_next() => {
                // Each goes on until it is aborted; one that has panicked is begun anew with the next change.
                if let Err(error) = ended && error.is_panic() {
                    tracing::error!(%error, "keeping a mirror has failed");
                    running.retain(|_, (_, handle)| !handle.is_finished());
                }
            }
        }
        // The metadata changes all the time, and all volumes are looked through for each look.
        tokio::time::sleep(PAUSE).await;
    }
    followers.shutdown().await;
}

/// What this node is to keep mirrors of.
fn due(metadata: &Metadata, own: NodeId) -> impl Iterator<Item = Task> + '_ {
    metadata.volumes().filter_map(move |entry| task(entry, own))
}

/// What this node is to keep a mirror of; `None` where it is to keep none, or the volume is about to come here.
pub(super) fn task(entry: &VolumeEntry, own: NodeId) -> Option<Task> {
    let is_kept = entry.replicas.values().any(|replica| replica.node == own && replica.mode == ReplicaMode::Sync);
    let is_due = is_kept && entry.state == VolumeState::Ready && entry.owner != own && entry.moving_to != Some(own);
    is_due.then_some(Task { volume: entry.id, epoch: entry.epoch, owner: entry.owner })
}

/// Follows the owner, again and again.
async fn keep(node: Arc<Node>, task: Task) -> Task {
    let mut last_failure = String::new();
    loop {
        if let Err(error) = mirror::follow(&node, task).await {
            let what = format!("{error:#}");
            // It is tried again and again: what has not changed is not told again.
            if what != last_failure {
                tracing::info!(volume = %task.volume, owner = %task.owner, "a mirror does not follow for now: {what}");
                last_failure = what;
            }
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Removes what is left of a mirror, where it is to be kept no more.
async fn clear(node: Arc<Node>, task: Task) -> Task {
    let mut slot = node.volumes.hold(task.volume).await;
    if let Err(error) = let_go(&node, &mut slot, task.volume).await {
        tracing::warn!(volume = %task.volume, "what is left of a mirror stays until the next start: {error:#}");
    }
    task
}

/// Removes what this node keeps of a mirror, unless that may still be needed. Its volume's slot is held.
///
/// # Errors
/// What cannot be read or removed.
pub(in crate::node) async fn let_go(node: &Arc<Node>, slot: &mut HeldSlot, id: VolumeId) -> Result<()> {
    let (own, storage) = (node.metadata.id(), Arc::clone(&node.engine.storage));
    let reading = Arc::clone(&storage);
    let Some(kept) = blocking(move || reading.kept(id)).await??.filter(|kept| kept.is_mirror) else { return Ok(()) };
    let entry = node.metadata.read().volume(id).cloned();
    let is_needed = |entry: Arc<VolumeEntry>| {
        let is_of_now = entry.epoch == kept.epoch;
        let is_kept = is_of_now && (entry.in_sync.contains(&own) || task(&entry, own).is_some());
        is_kept || entry.goes_on_with(own, kept.epoch) || entry.epoch < kept.epoch
    };
    if entry.is_none_or(|entry| !is_needed(entry)) {
        slot.close().await;
        blocking(move || storage.remove_volume(id)).await??;
    }
    Ok(())
}

/// Has what this node has just taken over named by the metadata: until then that names contents that are older.
async fn publish_taken_over(node: &Arc<Node>, metadata: &Metadata) {
    let own = node.metadata.id();
    let is_new = |entry: &&Arc<VolumeEntry>| {
        entry.owner == own
            && entry.was_taken_over()
            && entry.reclaimed.is_some()
            && node.volumes.get(entry.id).is_none()
    };
    for entry in metadata.volumes().filter(is_new) {
        if node.volumes.is_at_rest(entry.id) {
            continue;
        }
        if let Err(error) = publish_one_left(node, entry.id).await {
            tracing::warn!(volume = %entry.name, "what was taken over is not published yet: {error:#}");
        }
    }
}

/// Those of guests' volumes come first.
const SEALS_AT_ONCE: usize = 2;
/// Small beside the seconds after which somebody who is gone is given up.
const PAUSE: Duration = Duration::from_millis(50);
/// An owner that has just begun an epoch knows of it within a round trip or two.
const RETRY: Duration = Duration::from_millis(500);
