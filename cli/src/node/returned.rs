//! What this node still has of volumes that others own now, or that there are not any more.
//!
//! Of a volume that was deleted it forgets everything.
//!
//! What it has handed over it keeps for as long as the owner lacks something, and then forgets it: the owner has all of that.
//!
//! What others have taken over is kept as a snapshot, so that nothing vanishes, and only then forgotten (design section 5). Of an
//! epoch in which it never opened the volume that is what was published then. Of another, the steps, and what a start makes of a
//! crash behind each of them:
//! 1. What is open of it is closed: nobody was answered any more. *It is here as it was left.*
//! 2. It is opened in the epoch that it was written in, sealed, and closed. *The same, with less in the journal.*
//! 3. The metadata is told: as a snapshot where that is more than what was gone on with. *It is told again, and knows.*
//! 4. What is kept of it here beside chunks is removed. *The rest of it is removed, and not looked at.*

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use sterna_consensus::ProposeError;
use sterna_consensus::state::command::{Branch, Command};
use sterna_consensus::state::refusal::Refusal;
use sterna_consensus::state::volume::{Generation, Published, Volume as VolumeEntry};
use sterna_runtime::work::blocking;
use sterna_storage_node::chunking::ChunkingParameters;
use sterna_storage_node::gaps;
use sterna_storage_node::volume::{SealedState, Storage, Volume, VolumeSpec};
use sterna_types::{Epoch, NodeId, Root, SnapshotName, VolumeId};

use super::clock::now;
use super::mirrors;
use super::node::Node;

/// Settles what others have taken over, again and again, until the node shuts down.
pub(super) async fn run(node: Arc<Node>) {
    let mut view = node.metadata.watch();
    // What is here of epochs that nobody remembers is looked for once: later ones are all remembered for long enough. And again
    // where something has failed: what the metadata was told without an answer it may know, and then it asks for it no more.
    let mut look_everywhere = true;
    let (mut seen, mut deleted) = (node.metadata.read(), BTreeSet::new());
    loop {
        let metadata = node.metadata.read();
        // Only what was there is known to be gone: a view may be too old for what is new.
        deleted.extend(seen.volumes().map(|entry| entry.id).filter(|id| metadata.volume(*id).is_none()));
        seen = metadata;
        let are_forgotten = forget(&node, &mut deleted).await;
        let is_settled = settle_all(&node, look_everywhere).await;
        look_everywhere = !is_settled;
        let all_went_well = are_forgotten && is_settled;
        tokio::select! {
            () = node.stopping.cancelled() => return,
            changed = view.changed(), if all_went_well => if changed.is_err() { return },
            () = tokio::time::sleep(RETRY), if !all_went_well => {}
        }
        // The metadata changes all the time, and this many volumes are not looked through each time.
        tokio::time::sleep(PAUSE).await;
    }
}

/// Removes what is here of volumes that were deleted; whether nothing is left of them.
async fn forget(node: &Arc<Node>, deleted: &mut BTreeSet<VolumeId>) -> bool {
    if deleted.is_empty() {
        return true;
    }
    let storage = Arc::clone(&node.engine.storage);
    let known = match blocking(move || storage.known_volumes()).await.map_err(anyhow::Error::from) {
        Ok(Ok(known)) => known,
        Ok(Err(error)) => return not_listed(&error.into()),
        Err(panic) => return not_listed(&panic),
    };
    deleted.retain(|id| known.binary_search(id).is_ok());
    for id in deleted.clone() {
        let slot = node.volumes.hold(id).await;
        match node.remove_left(slot, id).await {
            Ok(()) => drop(deleted.remove(&id)),
            Err(error) => {
                tracing::warn!(volume = %id, "what is left of a volume that was deleted stays for now: {error:#}");
            }
        }
    }
    deleted.is_empty()
}

/// That it is not known what there is: nothing is done then.
fn not_listed(error: &anyhow::Error) -> bool {
    tracing::error!("what is kept here of volumes cannot be listed: {error:#}");
    false
}

/// Whether nothing is left to settle.
async fn settle_all(node: &Arc<Node>, look_everywhere: bool) -> bool {
    let metadata = node.metadata.read();
    let own = node.metadata.id();
    let mut volumes: Vec<_> = metadata.volumes().filter(|volume| is_unsettled(volume, own)).map(|v| v.id).collect();
    volumes.extend(node.volumes.promises().released());
    let mut all_went_well = true;
    if look_everywhere {
        let storage = Arc::clone(&node.engine.storage);
        let kept = blocking(move || storage.kept_volumes()).await;
        match kept.map_err(anyhow::Error::from).and_then(|kept| kept.map_err(anyhow::Error::from)) {
            Ok(kept) => volumes.extend(kept),
            Err(error) => all_went_well = not_listed(&error),
        }
    }
    for id in volumes {
        if let Err(error) = settle(node, id).await {
            all_went_well = false;
            tracing::warn!(volume = %id, "what is left of a volume that another node took over stays for now: {error:#}");
        }
    }
    all_went_well
}

fn is_unsettled(volume: &VolumeEntry, own: NodeId) -> bool {
    volume.superseded.iter().any(|superseded| superseded.owner == own && !superseded.is_settled)
}

async fn settle(node: &Arc<Node>, id: VolumeId) -> Result<()> {
    let mut slot = node.volumes.hold(id).await;
    let Some(entry) = node.metadata.read().volume(id).cloned() else { return Ok(()) };
    let storage = Arc::clone(&node.engine.storage);
    let reading = Arc::clone(&storage);
    let kept = blocking(move || reading.kept(id)).await??;
    let (own, promises) = (node.metadata.id(), node.volumes.promises());
    let released = promises.last(id)?.filter(|last| kept.is_some_and(|kept| last.releases(kept.epoch)));
    // It has come back, and nobody has had its clients answered again yet: whoever does looks for it among these.
    let is_stopped = node.volumes.get(id).is_some_and(|open| open.volume.is_released() && open.epoch == entry.epoch);
    match released {
        // It is looked at again until it is gone, or stays here: what this node knows now may be old.
        Some(last)
            if entry.moving_to.is_some() || entry.last_handoff < last.pledge.handoff || entry.epoch > last.epoch =>
        {
            promises.note_released(id);
        }
        _ if is_stopped => promises.note_released(id),
        _ => promises.forget_released(id),
    }
    if kept.is_some_and(|kept| kept.is_mirror) {
        // It is nothing of this node's own, which somebody could have superseded.
        mirrors::let_go(node, &mut slot, id).await?;
        return settle_unopened(node, &entry).await;
    }
    // Its own of now is nobody's past, nor is what it goes on with when it opens it the next time.
    let is_past = |kept: Epoch| kept < entry.epoch && !entry.goes_on_with(own, kept);
    let Some(kept) = kept.filter(|kept| is_past(kept.epoch)) else {
        return settle_unopened(node, &entry).await;
    };
    if entry.sources.iter().any(|source| source.node == own && source.epoch == kept.epoch) {
        // It is asked for it until then. The owner asks nobody else for what it has released itself: its chunks are named, and what
        // was in no root is in none that it goes on with.
        if entry.owner != own {
            return Ok(());
        }
    }
    slot.close().await;
    let superseded =
        entry.superseded.iter().rfind(|superseded| superseded.owner == own && superseded.is_of(kept.epoch));
    if superseded.is_none() && released.is_some() {
        blocking(move || storage.remove_volume(id)).await??;
        promises.forget_released(id);
        tracing::info!(volume = %entry.name, epoch = %kept.epoch, "the owner has all of a volume that was handed over");
        return Ok(());
    }
    if superseded.is_some_and(|superseded| superseded.is_settled) {
        // Step 4 was interrupted: what it has left may be a part of the journal, and of no use to anybody.
        blocking(move || storage.remove_volume(id)).await??;
        return Ok(());
    }
    let _in_transit = node.in_transit.read().await;
    let chunking = ChunkingParameters::decode(entry.format.0.to_le_bytes()).context("its format is not known")?;
    // What its size was then cannot be more than it is now.
    let (own, size) = (Arc::clone(&storage), entry.size);
    let spec = VolumeSpec { size, ..VolumeSpec::of_kept(&kept, id, chunking)? };
    // It may have come by a handoff, also where the last promise is about a later one: it can be handed on before it has arrived.
    let was_handed_over = promises.last(id)?.is_some();
    let sealing = node.background.upkeep(move || {
        let sealed = seal(&own, &spec)?;
        if was_handed_over {
            check_complete(&own, sealed.root)?;
        }
        anyhow::Ok(sealed)
    });
    let sealed = sealing.await??;
    let has_more = superseded.is_none_or(|superseded| superseded.resumed.root != sealed.root);
    let epoch = superseded.map_or(kept.epoch, |superseded| superseded.epoch);
    tell(node, &entry, epoch, has_more.then_some(sealed)).await?;
    blocking(move || storage.remove_volume(id)).await??;
    Ok(())
}

/// Settles epochs of which nothing is kept here: this node never opened the volume in them. So all that it has of it is what was
/// published when it became the owner, which it had as a replica.
async fn settle_unopened(node: &Node, entry: &VolumeEntry) -> Result<()> {
    let own = node.metadata.id();
    for superseded in entry.superseded.iter().filter(|s| s.owner == own && !s.is_settled) {
        let Published { root, generation, written_blocks, .. } = superseded.published;
        let had = SealedState { root, generation: generation.0, written_blocks };
        let has_more = root != superseded.resumed.root;
        tell(node, entry, superseded.epoch, has_more.then_some(had)).await?;
    }
    Ok(())
}

/// Step 2.
fn seal(storage: &Arc<Storage>, spec: &VolumeSpec) -> Result<SealedState> {
    let volume = Volume::open(storage, spec)?;
    let (sealed, has_tail) = (volume.seal(), volume.has_sealed_tail());
    volume.close();
    let sealed = sealed?;
    ensure!(has_tail, "what was handed to this node had not all arrived when it was taken over");
    Ok(sealed)
}

/// Fails where a part of a root is not here: a volume that was handed to this node, and taken over before all of it had arrived. What is
/// kept under a name has to be whole.
fn check_complete(storage: &Arc<Storage>, root: Root) -> Result<()> {
    let is_complete = gaps::complete(storage.store(), Root::EMPTY, root)?.is_some();
    ensure!(is_complete, "what was handed to this node had not all arrived when it was taken over");
    Ok(())
}

/// Step 3.
async fn tell(node: &Node, entry: &VolumeEntry, epoch: Epoch, more: Option<SealedState>) -> Result<()> {
    let (volume, own) = (entry.id, node.metadata.id());
    for attempt in 0..NAMES {
        let branch = more.map(|sealed| Branch {
            name: branch_name(epoch, attempt),
            root: sealed.root,
            generation: Generation(sealed.generation),
            size: entry.size,
            at: now(),
        });
        let told = Command::SettleEpoch { volume, epoch, node: own, branch: branch.clone() };
        match node.metadata.propose(told).await {
            // Somebody has called something else so.
            Err(ProposeError::Refused(Refusal::SnapshotNameTaken { .. })) => {}
            Err(error) => return Err(error.into()),
            Ok(_) => {
                match branch {
                    Some(Branch { name, .. }) => tracing::warn!(
                        "another node took volume '{volume}' over: what this one had is kept as '{volume}@{name}'",
                        volume = entry.name
                    ),
                    None => {
                        tracing::info!(volume = %entry.name, %epoch, "another node took over all that this one had");
                    }
                }
                return Ok(());
            }
        }
    }
    anyhow::bail!("{NAMES} snapshots are called as what is to be kept would be: delete one of them")
}

/// How what an owner still had of an epoch is called: `kept-e1`, and if that is taken `kept-e1-2`.
fn branch_name(epoch: Epoch, attempt: u32) -> SnapshotName {
    let name = match attempt {
        0 => format!("kept-e{epoch}"),
        _ => format!("kept-e{epoch}-{}", attempt + 1),
    };
    name.parse().expect("letters, digits and hyphens, and few of them, are a name")
}

const NAMES: u32 = 16;
const RETRY: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_called_after_its_epoch() {
        let epoch = Epoch::FIRST.next();
        assert_eq!(branch_name(epoch, 0).as_str(), "kept-e2");
        assert_eq!(branch_name(epoch, 1).as_str(), "kept-e2-2");
        let last = Epoch::from_number(u64::MAX).expect("an epoch");
        assert_eq!(branch_name(last, NAMES - 1).as_str(), "kept-e18446744073709551615-16");
    }
}
