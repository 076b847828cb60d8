//! What this node has promised about handoffs, in memory as on the disk.
//!
//! A promise is a pledge (`sterna_consensus::handoff`) with what its node has to know when it starts again. It is JSON in the
//! storage engine's index (`docs/on-disk-format.md`).
//!
//! Invariants:
//! * nothing follows from a promise that is not durable;
//! * there is one about a handoff, and never another one;
//! * after an error nobody knows which promise is durable, and nothing is promised, or rests on one, until the node has been started
//!   anew.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use sterna_consensus::handoff::{Choice, Holder, Pledge};
use sterna_consensus::state::ownership::Ownership;
use sterna_consensus::state::volume::{Published, Volume as VolumeEntry};
use sterna_storage_node::volume::{Inheritance, Storage, VolumeError};
use sterna_types::{Epoch, NodeId, VolumeId};

use super::wire::Passing;
use crate::node::node::Node;

/// What this node has promised last about a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::node) struct Promise {
    /// The promise.
    pub(in crate::node) pledge: Pledge,
    /// The epoch that the handoff ends, if it succeeds.
    pub(in crate::node) epoch: Epoch,
    /// Of a volume that was accepted: what it was when it was released, in its root. The commit says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::node) received: Option<Published>,
}

/// Why this node cannot say what it has promised, or cannot promise anything.
#[derive(Debug, thiserror::Error)]
pub(in crate::node) enum PromiseError {
    /// The index failed.
    #[error(transparent)]
    Volume(#[from] VolumeError),
    /// What is in the index is no promise.
    #[error("what this node has promised about volume {volume} cannot be read: {what}")]
    Damaged {
        /// The volume.
        volume: VolumeId,
        /// What is wrong with it.
        what: String,
    },
    /// It would be the second about one handoff.
    #[error("this node has promised something else about this handoff of volume {volume}")]
    Bound {
        /// The volume.
        volume: VolumeId,
    },
    /// It failed before.
    #[error("a promise about volume {volume} may be on the disk or not: restart the node")]
    Unknown {
        /// The volume.
        volume: VolumeId,
    },
}

/// All promises of a node.
#[derive(Debug)]
pub(in crate::node) struct Promises {
    node: NodeId,
    storage: Arc<Storage>,
    /// Those that were looked at or made since the start: one for each volume that was handed over.
    known: Mutex<HashMap<VolumeId, Known>>,
    /// Those that this node has released, and of which it may keep something still.
    released: Mutex<BTreeSet<VolumeId>>,
}

#[derive(Clone, Copy, Debug)]
enum Known {
    Is(Option<Promise>),
    Unknown,
}

impl Promise {
    /// Whether this node has released the volume, which ends this epoch.
    pub(in crate::node) fn releases(&self, epoch: Epoch) -> bool {
        self.pledge.choice == Choice::Released && self.epoch == epoch
    }
}

impl Promises {
    /// Those of `node`, whose index is in `storage`.
    pub(in crate::node) fn new(node: NodeId, storage: Arc<Storage>) -> Self {
        Self { node, storage, known: Mutex::default(), released: Mutex::default() }
    }

    /// What was promised last about a volume. Blocks for a read of the index, the first time.
    ///
    /// # Errors
    /// [`PromiseError`].
    pub(in crate::node) fn last(&self, volume: VolumeId) -> Result<Option<Promise>, PromiseError> {
        let mut known = self.known();
        match known.get(&volume) {
            Some(Known::Is(promise)) => Ok(*promise),
            Some(Known::Unknown) => Err(PromiseError::Unknown { volume }),
            None => {
                let bytes = self.storage.pledge(volume)?;
                let damaged = |error: serde_json::Error| PromiseError::Damaged { volume, what: error.to_string() };
                let promise = bytes.map(|bytes| serde_json::from_slice(&bytes).map_err(damaged)).transpose()?;
                known.insert(volume, Known::Is(promise));
                Ok(promise)
            }
        }
    }

    /// This node's part in the ownership of a volume. Blocks as [`Promises::last`] does.
    ///
    /// # Errors
    /// As [`Promises::last`].
    pub(in crate::node) fn holder(&self, volume: VolumeId) -> Result<Holder, PromiseError> {
        Ok(Holder { node: self.node, pledge: self.last(volume)?.map(|promise| promise.pledge) })
    }

    /// The epoch in which this node may serve a volume of which the metadata says this; `None` where it may not, or where its
    /// promise cannot be read, which is told. Blocks as [`Promises::last`] does, for a volume that is being handed over.
    pub(in crate::node) fn serves(&self, entry: &VolumeEntry) -> Option<Epoch> {
        let view = entry.ownership();
        if view.under_way().is_none() {
            return (view.owner == self.node).then_some(view.epoch);
        }
        match self.holder(entry.id) {
            Ok(holder) => holder.serves(&view),
            Err(error) => {
                tracing::error!(volume = %entry.name, "it is not served: {error}");
                None
            }
        }
    }

    /// The volumes that this node has released since its start, or was seen to have, and of which it may keep something still.
    pub(in crate::node) fn released(&self) -> BTreeSet<VolumeId> {
        self.all_released().clone()
    }

    /// Notes that this node has released a volume, and keeps something of it.
    pub(in crate::node) fn note_released(&self, volume: VolumeId) {
        self.all_released().insert(volume);
    }

    /// Notes that this node keeps nothing of a volume that it had released, or has it again.
    pub(in crate::node) fn forget_released(&self, volume: VolumeId) {
        self.all_released().remove(&volume);
    }

    /// Forgets a volume that there is not any more, as far as it is in memory.
    pub(in crate::node) fn forget(&self, volume: VolumeId) {
        self.forget_released(volume);
        self.known().remove(&volume);
    }

    fn all_released(&self) -> MutexGuard<'_, BTreeSet<VolumeId>> {
        self.released.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a promise. Durable on return. Blocks for a sync of the index.
    ///
    /// # Errors
    /// [`PromiseError`]; what was promised is then unknown.
    pub(in crate::node) fn make(&self, volume: VolumeId, promise: Promise) -> Result<(), PromiseError> {
        self.note(volume, promise, |bytes| self.storage.make_pledge(volume, bytes))?;
        if promise.pledge.choice == Choice::Released {
            self.note_released(volume);
        }
        Ok(())
    }

    /// Makes the promise that a volume is here, and takes it over. Durable on return, both or neither. Blocks for a sync of the
    /// index.
    ///
    /// # Errors
    /// [`PromiseError`]; what was promised is then unknown.
    pub(in crate::node) fn accept(&self, inherited: &Inheritance, promise: Promise) -> Result<(), PromiseError> {
        self.note(inherited.spec.id, promise, |bytes| self.storage.inherit(inherited, bytes))
    }

    fn note(
        &self,
        volume: VolumeId,
        promise: Promise,
        write: impl FnOnce(Vec<u8>) -> Result<(), VolumeError>,
    ) -> Result<(), PromiseError> {
        match self.last(volume)? {
            Some(last) if last == promise => return Ok(()),
            Some(last) if last.pledge.handoff == promise.pledge.handoff => return Err(PromiseError::Bound { volume }),
            _ => {}
        }
        let damaged = |error: serde_json::Error| PromiseError::Damaged { volume, what: error.to_string() };
        let bytes = serde_json::to_vec(&promise).map_err(damaged)?;
        let written = write(bytes);
        let known = match &written {
            Ok(()) => Known::Is(Some(promise)),
            // Refused before anything was written.
            Err(VolumeError::OtherEpoch { .. }) => return Ok(written?),
            Err(_) => Known::Unknown,
        };
        self.known().insert(volume, known);
        Ok(written?)
    }

    fn known(&self) -> MutexGuard<'_, HashMap<VolumeId, Known>> {
        // Whatever panicked while it was held has put in all of a promise or nothing.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What this node promises about a handoff, where by the protocol it `may`; `None` where the handoff has ended, or it has promised
/// something else. Blocks as [`Promises::last`].
pub(super) fn may(
    node: &Node,
    passing: Passing,
    may: impl FnOnce(&Holder, &Ownership) -> Option<Pledge>,
) -> Result<Option<Promise>, PromiseError> {
    let metadata = node.metadata.read();
    let entry = metadata.volume(passing.volume).filter(|entry| entry.epoch == passing.epoch);
    let Some(view) = entry.map(|entry| entry.ownership()) else { return Ok(None) };
    let pledge = may(&node.volumes.promises().holder(passing.volume)?, &view);
    let pledge = pledge.filter(|pledge| pledge.handoff == passing.handoff);
    Ok(pledge.map(|pledge| Promise { pledge, epoch: passing.epoch, received: None }))
}

/// Makes the promise that this node [`may`] make; whether it has. Durable on return. Blocks for a sync.
pub(super) fn promise(
    node: &Node,
    passing: Passing,
    by: impl FnOnce(&Holder, &Ownership) -> Option<Pledge>,
) -> Result<bool, PromiseError> {
    match may(node, passing, by)? {
        Some(promise) => node.volumes.promises().make(passing.volume, promise).map(|()| true),
        None => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sterna_consensus::state::ownership::HandoffNumber;
    use sterna_consensus::state::volume::Generation;
    use sterna_storage_node::chunk_store::MemoryChunkStore;
    use sterna_storage_node::chunk_store::index::{MemoryIndex, VolumeRecords};
    use sterna_storage_node::disk::SimulatedDisk;
    use sterna_storage_node::journal::SaltSource;
    use sterna_storage_node::volume::StorageOptions;
    use sterna_types::Root;

    #[test]
    fn a_promise_is_written_down_as_it_ever_was() {
        let pledge = |choice| Pledge { handoff: HandoffNumber(3), choice };
        let released = Promise { pledge: pledge(Choice::Released), epoch: Epoch::FIRST, received: None };
        let text = r#"{"pledge":{"handoff":3,"choice":"released"},"epoch":1}"#;
        assert_eq!(serde_json::to_string(&released).expect("JSON"), text);
        assert!(released.releases(Epoch::FIRST) && !released.releases(Epoch::FIRST.next()));
        for (choice, name) in
            [(Choice::Aborting, "aborting"), (Choice::Activated, "activated"), (Choice::Declined, "declined")]
        {
            let text = format!(r#"{{"pledge":{{"handoff":3,"choice":"{name}"}},"epoch":1}}"#);
            let read: Promise = serde_json::from_str(&text).expect("a promise");
            assert_eq!(read, Promise { pledge: pledge(choice), ..released });
        }
        let received = Some(Published::of(Root::EMPTY, Generation(5)));
        let accepted = Promise { pledge: pledge(Choice::Activated), epoch: Epoch::FIRST, received };
        let text = serde_json::to_string(&accepted).expect("JSON");
        assert_eq!(serde_json::from_str::<Promise>(&text).expect("a promise"), accepted);
        assert!(!accepted.releases(Epoch::FIRST));
    }

    #[test]
    fn there_is_one_promise_about_a_handoff_and_a_start_knows_it() {
        let disk = Arc::new(SimulatedDisk::new());
        let records = VolumeRecords::new(Arc::new(MemoryIndex::new()));
        let (salts, options) = (SaltSource::new([7; 32]), StorageOptions::default());
        let storage = Storage::new(disk, Arc::new(MemoryChunkStore::new()), records, salts, options).expect("storage");
        let volume = VolumeId(1);
        let promise = |number, choice| Promise {
            pledge: Pledge { handoff: HandoffNumber(number), choice },
            epoch: Epoch::FIRST,
            received: None,
        };
        let promises = Promises::new(NodeId::FIRST, Arc::clone(&storage));
        assert_eq!(promises.last(volume).expect("an answer"), None);
        promises.make(volume, promise(1, Choice::Released)).expect("a promise");
        promises.make(volume, promise(1, Choice::Released)).expect("the same");
        for promises in [promises, Promises::new(NodeId::FIRST, Arc::clone(&storage))] {
            let bound = promises.make(volume, promise(1, Choice::Aborting));
            assert!(matches!(bound, Err(PromiseError::Bound { .. })), "{bound:?}");
            assert_eq!(promises.last(volume).expect("an answer"), Some(promise(1, Choice::Released)));
        }
        let again = Promises::new(NodeId::FIRST, storage);
        again.make(volume, promise(2, Choice::Aborting)).expect("of the next handoff");
    }
}
