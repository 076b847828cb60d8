//! Taking volumes over: the steps of node B in [`super`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sterna_consensus::Metadata;
use sterna_consensus::handoff::Pledge;
use sterna_consensus::state::volume::{Published, Volume as VolumeEntry};
use sterna_runtime::work::blocking;
use sterna_storage_node::volume::{Inheritance, Volume, VolumeSpec};
use sterna_types::{NodeId, VolumeId};
use tokio::time::timeout;
use tonic::Status;

use super::promise::{Promise, PromiseError};
use super::wire::{Passing, Release, TailPart, Used};
use crate::node::node::{Node, spec_of};
use crate::node::volumes::HeldSlot;

/// Step 3: makes room for volumes, or says why this node does not take them. `used` says of some of them how.
pub(super) async fn prepare(
    node: &Arc<Node>,
    from: NodeId,
    passings: &[Passing],
    mut used: BTreeMap<VolumeId, Used>,
) -> Result<(), Status> {
    for passing in passings {
        let mut slot = node.volumes.hold(passing.volume).await;
        let entry = under_way(node, from, *passing).await?;
        if spec_of(&entry).is_none() {
            return Err(Status::failed_precondition("its format is unknown to this program: a later one made it"));
        }
        if !node.lease.is_valid() {
            return Err(Status::unavailable("it has no session: it is cut off"));
        }
        let holder = node.volumes.promises().holder(passing.volume).map_err(failed)?;
        if holder.receive(&entry.ownership(), passing.handoff).is_none() {
            return Err(Status::failed_precondition("it has declined"));
        }
        make_room(node, &mut slot, &entry).await?;
        let (storage, volume) = (Arc::clone(&node.engine.storage), passing.volume);
        let used = used.remove(&volume);
        let making = move || {
            storage.make_ready(volume)?;
            let Some(Used { heat, traces }) = used else { return Ok(()) };
            storage.put_heat(volume, heat)?;
            storage.put_traces(volume, &traces)
        };
        blocking(making).await.map_err(failed)?.map_err(failed)?;
    }
    Ok(())
}

/// Removes what this node still has of the volume from an epoch in which it owned it, beside chunks: the owner has all of that in a root,
/// or would not give the volume away. Chunks that the owner lacks stay, as what was under the root that this node has released.
///
/// # Errors
/// What it has was taken over, and is not settled yet; or it cannot be removed.
pub(super) async fn make_room(node: &Arc<Node>, slot: &mut HeldSlot, entry: &VolumeEntry) -> Result<(), Status> {
    let (storage, id) = (Arc::clone(&node.engine.storage), entry.id);
    let reading = Arc::clone(&storage);
    let kept = blocking(move || reading.kept(id)).await.map_err(failed)?.map_err(failed)?;
    let Some(kept) = kept else { return Ok(()) };
    // Accepted already.
    if kept.epoch > entry.epoch {
        return Ok(());
    }
    let own = node.metadata.id();
    if !kept.is_mirror
        && entry.superseded.iter().any(|past| past.owner == own && past.is_of(kept.epoch) && !past.is_settled)
    {
        let what = "what it still has of it, from an epoch that was taken over, is not kept as a snapshot yet: move it a little later";
        return Err(Status::unavailable(what));
    }
    slot.close().await;
    blocking(move || storage.remove_volume(id)).await.map_err(failed)?.map_err(failed)
}

/// Steps 7 and 8: whether this node has taken the volumes; else it has declined one of them.
pub(super) async fn accept(node: &Arc<Node>, from: NodeId, mut releases: Vec<Release>) -> Result<bool, Status> {
    // Whoever holds several slots takes them in this order.
    releases.sort_unstable_by_key(|release| release.passing.volume);
    let mut accepting = Vec::new();
    for release in releases {
        let passing = release.passing;
        let slot = node.volumes.hold(passing.volume).await;
        if has_taken(&node.metadata.read(), node.metadata.id(), passing) {
            continue;
        }
        let entry = under_way(node, from, passing).await?;
        let promises = node.volumes.promises();
        match promises.holder(passing.volume).map_err(failed)?.receive(&entry.ownership(), passing.handoff) {
            None => return Ok(false),
            Some(pledge) => accepting.push((slot, entry, release, pledge)),
        }
    }
    // Who has no session may serve nothing, and may lose the volume before it does.
    if !node.lease.is_valid() {
        return Err(Status::unavailable("this node has no session: it is cut off"));
    }
    for taken in
        accepting.iter().map(|(_, entry, release, pledge)| take_over(node, entry, release, *pledge)).collect::<Vec<_>>()
    {
        taken.await?;
    }
    for (mut slot, entry, release, _) in accepting {
        if node.volumes.get(entry.id).is_some_and(|open| open.epoch == release.passing.epoch.next()) {
            // It was sent again.
            continue;
        }
        let Some(spec) = spec_of(&entry) else { continue };
        match slot.volume(&VolumeSpec { epoch: release.passing.epoch.next(), ..spec }).await {
            Ok(open) => take_in(open.volume, release.tail_data).await,
            // It is opened again for the next client.
            Err(error) => {
                tracing::warn!(volume = %entry.name, %error, "a volume that was handed to this node cannot be opened");
            }
        }
        tracing::info!(
            volume = %entry.name, epoch = %release.passing.epoch.next(), tail_blocks = release.tail.data_blocks(),
            "a volume was handed to this node"
        );
    }
    node.handoffs.note_accepted();
    Ok(true)
}

/// Takes data of a tail in that came along. What cannot be is fetched, as if it had not come.
async fn take_in(volume: Arc<Volume>, parts: Vec<TailPart>) {
    if parts.is_empty() {
        return;
    }
    let id = volume.id();
    let take = move || parts.iter().try_for_each(|part| volume.take_in(part.first_block, &part.data));
    if let Err(error) = blocking(take).await.map_err(failed).and_then(|taken| taken.map_err(failed)) {
        tracing::warn!(volume = %id, error = error.message(), "what came along with a volume is fetched once more");
    }
}

/// Step 7 for one of them, in a task of its own: they share the disk's syncs.
fn take_over(
    node: &Arc<Node>,
    entry: &VolumeEntry,
    release: &Release,
    pledge: Pledge,
) -> impl Future<Output = Result<(), Status>> + use<> {
    let (node, spec, release) = (Arc::clone(node), spec_of(entry), release.clone());
    let taking = tokio::spawn(async move {
        let spec = spec.ok_or_else(|| Status::failed_precondition("its format is unknown to this program"))?;
        let Release { passing, contents, written_blocks, tail, .. } = release;
        let Published { root, generation, .. } = contents;
        let epoch = passing.epoch.next();
        let spec = VolumeSpec { epoch, root, generation: generation.0, written_blocks, ..spec };
        let promise = Promise { pledge, epoch: passing.epoch, received: Some(contents) };
        let accepting = blocking(move || {
            let promises = node.volumes.promises();
            match promises.last(passing.volume)? {
                // It is sent again.
                Some(last) if last.pledge == pledge => Ok(()),
                _ => promises.accept(&Inheritance { spec, tail }, promise),
            }
        });
        accepting.await.map_err(failed)?.map_err(failed::<PromiseError>)
    });
    async move { taking.await.map_err(failed)? }
}

/// The volume, once this node knows that it is being handed to it.
async fn under_way(node: &Node, from: NodeId, passing: Passing) -> Result<Arc<VolumeEntry>, Status> {
    let mut view = node.metadata.watch();
    let own = node.metadata.id();
    let is_it = |entry: &Arc<VolumeEntry>| {
        let is_theirs = entry.owner == from && entry.epoch == passing.epoch;
        is_theirs && entry.ownership().under_way() == Some((passing.handoff, own))
    };
    let has_passed = |metadata: &Metadata| {
        metadata.volume(passing.volume).is_some_and(|entry| {
            entry.epoch > passing.epoch
                || entry.last_handoff > passing.handoff
                || entry.last_handoff == passing.handoff && entry.moving_to.is_none()
        })
    };
    let known = view.wait_for(|metadata| metadata.volume(passing.volume).is_some_and(is_it) || has_passed(metadata));
    let metadata = match timeout(METADATA_PATIENCE, known).await {
        Ok(Ok(metadata)) => Arc::clone(&metadata),
        Ok(Err(_)) => return Err(Status::unavailable("its metadata has ended")),
        Err(_) => return Err(Status::unavailable("it does not know of this handoff yet")),
    };
    let entry = metadata.volume(passing.volume).filter(|entry| is_it(entry)).cloned();
    entry.ok_or_else(|| Status::failed_precondition("this handoff has ended"))
}

/// Whether the metadata says already that this handoff has made the node the owner.
fn has_taken(metadata: &Metadata, own: NodeId, passing: Passing) -> bool {
    metadata.volume(passing.volume).is_some_and(|entry| {
        let is_it = entry.owner == own && entry.epoch == passing.epoch.next() && entry.last_handoff == passing.handoff;
        is_it && !entry.was_taken_over()
    })
}

fn failed<E: std::fmt::Display>(error: E) -> Status {
    Status::internal(error.to_string())
}

/// What was decided at one node is known at another one within a round trip around the world.
const METADATA_PATIENCE: Duration = Duration::from_secs(5);
