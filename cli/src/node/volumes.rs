//! The volumes that are open on this node.
//!
//! Each volume has a slot. Who opens or closes it, or has to know that nobody does, holds the slot; who reads, writes, or
//! seals does not. Invariants:
//! * a volume that is open here has one [`Volume`], one device, one sealer and one prefetcher;
//! * the device is shared by the slot and by clients' connections only, so it is in use exactly if the slot does not hold
//!   it alone. A client elsewhere, which reads by another node, has one of its own meanwhile, and counts as no use.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use sterna_consensus::Metadata;
use sterna_consensus::session::Lease;
use sterna_consensus::session::trace::TARGET;
use sterna_consensus::state::volume::Volume as VolumeEntry;
use sterna_runtime::BootTime;
use sterna_runtime::work::blocking_on;
use sterna_storage_node::volume::{
    Prefetcher, SealedState, Sealer, Storage, Supply, Volume, VolumeDevice, VolumeError, VolumeSpec,
};
use sterna_types::{Epoch, NodeId, VolumeId};
use tokio::runtime::Handle;
use tokio::sync::{OwnedMutexGuard, Semaphore};

use super::background::Background;
use super::handoff::Promises;
use super::mirrors::{Members, Mirrors, Roster};
use super::ownership::{OwnedDevice, Ownership};

/// The volumes that are open on this node.
#[derive(Debug)]
pub(super) struct Volumes {
    storage: Arc<Storage>,
    /// What this node has promised about their handoffs.
    promises: Promises,
    /// Who brings what they lack.
    supply: OnceLock<Arc<dyn Supply>>,
    /// Who has to have what they flush.
    roster: Roster,
    /// What this node keeps of those of other nodes.
    mirrors: Mirrors,
    /// Where volumes are opened and closed: connections live on other runtimes, which end before this one.
    runtime: Handle,
    /// Where sealers run.
    sealing: Handle,
    seals: Arc<Semaphore>,
    /// Under which they are served.
    lease: Arc<Lease>,
    slots: Mutex<HashMap<VolumeId, Slot>>,
    /// Those that are open, for who may not wait for a slot.
    open: Mutex<BTreeMap<VolumeId, OpenVolume>>,
    /// The right to answer for those that were open before, by which clients that are still there may go on.
    before: Mutex<BTreeMap<VolumeId, Weak<Ownership>>>,
    /// Those of which the metadata knows everything, and which were not opened since.
    at_rest: Mutex<HashSet<VolumeId>>,
}

/// A volume that is open, and the epoch that it was opened under.
#[derive(Clone, Debug)]
pub(super) struct OpenVolume {
    pub(super) volume: Arc<Volume>,
    pub(super) epoch: Epoch,
    /// The right to answer for it.
    pub(super) ownership: Arc<Ownership>,
    /// Who else has to have what is flushed.
    pub(super) members: Arc<Members>,
}

impl OpenVolume {
    /// Its device for a client, which is answered as long as this node owns the volume.
    pub(super) fn device(&self) -> OwnedDevice {
        OwnedDevice::new(Arc::new(VolumeDevice::new(Arc::clone(&self.volume))), Arc::clone(&self.ownership))
    }

    /// Acknowledges nothing from now on: it is about to be released.
    pub(super) fn pause(&self) {
        if self.ownership.pause() {
            tell(self.volume.id(), self.epoch, "ends");
        }
    }

    /// Has it take writes, and clients answered, again: it stays here.
    pub(super) fn resume(&self) {
        self.volume.resume();
        if self.ownership.resume() {
            tell(self.volume.id(), self.epoch, "serves");
        }
    }
}

/// What a volume held when it was closed for good: all that was ever acknowledged.
#[derive(Clone, Copy, Debug)]
pub(super) struct LastSeal {
    pub(super) volume: VolumeId,
    pub(super) epoch: Epoch,
    pub(super) sealed: SealedState,
}

type Slot = Arc<tokio::sync::Mutex<Option<InUse>>>;

#[derive(Debug)]
struct InUse {
    device: Arc<VolumeDevice>,
    epoch: Epoch,
    ownership: Arc<Ownership>,
    sealer: Sealer,
    prefetcher: Prefetcher,
}

/// Why a volume is not open.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    /// It could not be opened.
    #[error(transparent)]
    Volume(#[from] VolumeError),
    /// The node is shutting down.
    #[error("the node is shutting down")]
    ShuttingDown,
    /// A thread that opened it panicked.
    #[error("opening it ended in a panic")]
    Panicked,
}

impl Volumes {
    /// None is open yet. At most `seals_at_once` are sealed at the same time, in the
    /// `background`. Volumes are opened and closed on `runtime`, and clients are answered under `lease`.
    pub(super) fn new(
        storage: Arc<Storage>,
        promises: Promises,
        roster: Roster,
        runtime: Handle,
        background: &Background,
        seals_at_once: u8,
        lease: Arc<Lease>,
    ) -> Self {
        let seals = Arc::new(Semaphore::new(seals_at_once.max(1).into()));
        Self {
            lease,
            storage,
            promises,
            supply: OnceLock::new(),
            roster,
            mirrors: Mirrors::default(),
            runtime,
            sealing: background.seals().clone(),
            seals,
            slots: Mutex::default(),
            open: Mutex::default(),
            before: Mutex::default(),
            at_rest: Mutex::default(),
        }
    }

    /// Has what they lack brought by `supply`, from the next one on that is opened.
    pub(super) fn supply_by(&self, supply: Arc<dyn Supply>) {
        let is_first = self.supply.set(supply).is_ok();
        assert!(is_first, "a node has one supply");
    }

    /// What this node has promised about their handoffs.
    pub(super) fn promises(&self) -> &Promises {
        &self.promises
    }

    /// What this node keeps of the volumes of other nodes.
    pub(super) fn mirrors(&self) -> &Mirrors {
        &self.mirrors
    }

    /// Those that are open, by id.
    pub(super) fn open(&self) -> BTreeMap<VolumeId, OpenVolume> {
        lock(&self.open).clone()
    }

    /// The volume, if it is open.
    pub(super) fn get(&self, id: VolumeId) -> Option<OpenVolume> {
        lock(&self.open).get(&id).cloned()
    }

    /// Has nothing acknowledged any more for those that `metadata`, and what `node` has promised, do not give to it in the epoch
    /// in which they are open.
    pub(super) fn give_up(&self, metadata: &Metadata, node: NodeId) {
        for (id, open) in self.open() {
            // What it has released is paused, and may come back.
            let is_owner = |volume: &VolumeEntry| volume.owner == node && volume.epoch == open.epoch;
            let is_own =
                |volume: &Arc<VolumeEntry>| is_owner(volume) || self.promises.serves(volume) == Some(open.epoch);
            if !metadata.volume(id).is_some_and(is_own) && !open.ownership.is_over() {
                if open.volume.is_released() {
                    tracing::info!(volume = %id, epoch = %open.epoch, "the epoch in which the volume was released is over");
                } else {
                    tracing::warn!(volume = %id, epoch = %open.epoch, "this node does not own the volume any more");
                }
                if open.ownership.end() {
                    tell(id, open.epoch, "ends");
                }
            }
        }
    }

    /// Notes by which right a volume was open that is closed now, as long as clients have it.
    fn note_before(&self, id: VolumeId, ownership: &Arc<Ownership>) {
        let mut before = lock(&self.before);
        before.retain(|_, ownership| ownership.strong_count() > 0);
        before.insert(id, Arc::downgrade(ownership));
    }

    /// Whether the metadata knows everything of a volume that is closed.
    pub(super) fn is_at_rest(&self, id: VolumeId) -> bool {
        lock(&self.at_rest).contains(&id)
    }

    /// How many are open.
    pub(super) fn open_count(&self) -> usize {
        lock(&self.open).len()
    }

    /// The slot of a volume, once nobody else has it.
    pub(super) async fn hold(self: &Arc<Self>, id: VolumeId) -> HeldSlot {
        let slot = Arc::clone(lock(&self.slots).entry(id).or_default());
        HeldSlot { id, volumes: Arc::clone(self), slot: slot.lock_owned().await }
    }

    /// Seals, and closes, all that are open; nothing is opened any more. What was acknowledged is in the roots that are
    /// returned or, where a seal fails, in the journals.
    pub(super) async fn close_all(self: &Arc<Self>) -> Vec<LastSeal> {
        self.seals.close();
        let ids: Vec<_> = lock(&self.open).keys().copied().collect();
        let mut last = Vec::new();
        for batch in ids.chunks(CLOSED_AT_ONCE) {
            let closing: Vec<_> = batch.iter().map(|id| tokio::spawn(Arc::clone(self).close_one(*id))).collect();
            for closing in closing {
                // A panic has been reported by the runtime.
                last.extend(closing.await.ok().flatten());
            }
        }
        last
    }

    async fn close_one(self: Arc<Self>, id: VolumeId) -> Option<LastSeal> {
        let mut held = self.hold(id).await;
        let mut last = None;
        if let Some(OpenVolume { volume, epoch, members, .. }) = self.get(id) {
            let sealing = Arc::clone(&volume);
            match blocking_on(&self.runtime, move || sealing.seal()).await {
                // What lacks a part of the tail that it came with is published by nobody.
                Ok(Ok(_)) if !volume.has_sealed_tail() => {}
                Ok(Ok(sealed)) => {
                    let everywhere = members.until_have(volume.sealed_through());
                    match tokio::time::timeout(COPIES_TIMEOUT, everywhere).await {
                        Ok(()) => last = Some(LastSeal { volume: id, epoch, sealed }),
                        Err(_) => {
                            tracing::warn!(volume = %id, "not published at the end; who is in sync may not have it all");
                        }
                    }
                }
                Ok(Err(error)) => tracing::warn!(volume = %id, %error, "not sealed at the end; the journal has it all"),
                Err(panic) => tracing::error!(volume = %id, error = %panic, "the last seal panicked"),
            }
        }
        held.close().await;
        last
    }
}

/// The slot of a volume: as long as it is held, nobody else opens or closes the volume.
#[derive(Debug)]
pub(super) struct HeldSlot {
    id: VolumeId,
    volumes: Arc<Volumes>,
    slot: OwnedMutexGuard<Option<InUse>>,
}

impl HeldSlot {
    /// The device of the volume; it is opened where it is not open. One that was poisoned and that nobody uses any more is
    /// opened anew, from what is durable.
    ///
    /// # Errors
    /// [`OpenError`].
    pub(super) async fn device(&mut self, spec: &VolumeSpec) -> Result<Arc<VolumeDevice>, OpenError> {
        assert_eq!(spec.id, self.id, "a volume in the slot of another");
        let is_spent = self.slot.as_ref().is_some_and(|open| open.device.volume().status().poisoned);
        // Whoever attached under an earlier epoch is answered with errors for good, and needs nothing of it.
        let is_other = self.slot.as_ref().is_some_and(|open| open.epoch != spec.epoch);
        if is_other || is_spent && !self.is_in_use() {
            self.close().await;
        }
        if let Some(open) = &*self.slot {
            return Ok(Arc::clone(&open.device));
        }
        if self.volumes.seals.is_closed() {
            return Err(OpenError::ShuttingDown);
        }
        lock(&self.volumes.at_rest).remove(&self.id);
        self.volumes.mirrors.close(self.id).await;
        let (storage, spec) = (Arc::clone(&self.volumes.storage), *spec);
        let opening = blocking_on(&self.volumes.runtime, move || Volume::open(&storage, &spec));
        let volume = opening.await.map_err(|_| OpenError::Panicked)??;
        volume.set_supply(self.volumes.supply.get().cloned());
        let members = self.volumes.roster.members(self.id, spec.epoch);
        volume.set_copies(Some(Arc::<Members>::clone(&members)));
        let sealer = {
            let _in_the_background = self.volumes.sealing.enter();
            Sealer::start(Arc::clone(&volume), Arc::clone(&self.volumes.seals))
        };
        let prefetcher = Prefetcher::start(Arc::clone(&volume), &self.volumes.runtime);
        let device = Arc::new(VolumeDevice::new(Arc::clone(&volume)));
        let (epoch, ownership) = (spec.epoch, Arc::new(Ownership::new(Arc::clone(&self.volumes.lease))));
        tell(self.id, epoch, "serves");
        *self.slot =
            Some(InUse { device: Arc::clone(&device), epoch, ownership: Arc::clone(&ownership), sealer, prefetcher });
        lock(&self.volumes.open).insert(self.id, OpenVolume { volume, epoch, ownership, members });
        Ok(device)
    }

    /// The device for a client, which is answered as long as this node owns the volume.
    ///
    /// # Errors
    /// [`OpenError`].
    pub(super) async fn attach(&mut self, spec: &VolumeSpec) -> Result<OwnedDevice, OpenError> {
        let device = self.device(spec).await?;
        // The device is held here and by the slot, and by nobody else.
        if Arc::strong_count(&device) == 2 {
            device.volume().begin_attach();
        }
        let ownership = self.slot.as_ref().map(|open| Arc::clone(&open.ownership));
        Ok(OwnedDevice::new(device, ownership.ok_or(OpenError::ShuttingDown)?))
    }

    /// Has clients that were attached before the volume was handed over go on with it, now that it has come back. Whoever asks for it knows
    /// that they have missed nothing. Whether there are any.
    ///
    /// # Errors
    /// [`OpenError`].
    pub(super) async fn resume_clients(&mut self, spec: &VolumeSpec) -> Result<bool, OpenError> {
        let device = self.attach(spec).await?;
        let before = lock(&self.volumes.before).remove(&self.id).and_then(|before| before.upgrade());
        let are_there = before.is_some();
        if let Some(before) = before {
            before.succeed(device);
        }
        Ok(are_there)
    }

    /// The volume; it is opened where it is not open.
    ///
    /// # Errors
    /// [`OpenError`].
    pub(super) async fn volume(&mut self, spec: &VolumeSpec) -> Result<OpenVolume, OpenError> {
        self.device(spec).await?;
        lock(&self.volumes.open).get(&self.id).cloned().ok_or(OpenError::ShuttingDown)
    }

    /// Whether a client is attached to the volume.
    pub(super) fn is_in_use(&self) -> bool {
        self.slot.as_ref().is_some_and(|open| Arc::strong_count(&open.device) > 1)
    }

    /// Closes the volume, or the mirror of it, if one is open, without sealing it. Those who use it still get errors.
    pub(super) async fn close(&mut self) {
        self.volumes.mirrors.close(self.id).await;
        let Some(InUse { device, sealer, prefetcher, ownership, .. }) = self.slot.take() else { return };
        lock(&self.volumes.open).remove(&self.id);
        self.volumes.note_before(self.id, &ownership);
        drop(ownership);
        prefetcher.stop().await;
        sealer.stop().await;
        let volume = Arc::clone(device.volume());
        if let Err(panic) = blocking_on(&self.volumes.runtime, move || volume.close()).await {
            tracing::error!(volume = %self.id, error = %panic, "closing a volume panicked");
        }
    }

    /// Closes the volume, of which the metadata knows everything, unless somebody uses it by now.
    pub(super) async fn rest(&mut self) {
        if !self.is_in_use() {
            self.close().await;
            lock(&self.volumes.at_rest).insert(self.id);
        }
    }

    /// Forgets the slot of a volume that is no more. Who waits for it finds the volume gone.
    pub(super) fn forget(self) {
        lock(&self.volumes.slots).remove(&self.id);
    }
}

/// Says that a volume is served from now on, or is not any more, for programs that judge it (`docs/faults.md`).
fn tell(volume: VolumeId, epoch: Epoch, does: &'static str) {
    let at_ns = BootTime::now().nanoseconds();
    tracing::debug!(target: TARGET, volume = volume.0, epoch = %epoch, at_ns, "{does}");
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A round trip around the world, and a slow disk's sync.
const COPIES_TIMEOUT: Duration = Duration::from_secs(5);
/// At the end seals are no longer rationed: no client waits, but whoever has asked for the end does.
const CLOSED_AT_ONCE: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use sterna_storage_node::chunk_store::MemoryChunkStore;
    use sterna_storage_node::chunk_store::index::{MemoryIndex, VolumeRecords};
    use sterna_storage_node::chunking::ChunkingParameters;
    use sterna_storage_node::disk::SimulatedDisk;
    use sterna_storage_node::journal::SaltSource;
    use sterna_storage_node::volume::StorageOptions;
    use sterna_types::{BlockDevice, ByteOffset, ByteSize, Root, VolumeSize};

    fn volumes() -> Arc<Volumes> {
        let disk = Arc::new(SimulatedDisk::new());
        let records = VolumeRecords::new(Arc::new(MemoryIndex::new()));
        let (salts, options) = (SaltSource::new([7; 32]), StorageOptions::default());
        let storage = Storage::new(disk, Arc::new(MemoryChunkStore::new()), records, salts, options).expect("storage");
        let promises = Promises::new(NodeId::FIRST, Arc::clone(&storage));
        let background = Background::on(&Handle::current());
        Arc::new(Volumes::new(storage, promises, Roster::default(), Handle::current(), &background, 2, Arc::default()))
    }

    fn spec(id: u64) -> VolumeSpec {
        VolumeSpec {
            id: VolumeId(id),
            size: VolumeSize::try_from(ByteSize(1 << 20)).expect("a size"),
            epoch: Epoch::FIRST,
            root: Root::EMPTY,
            generation: 0,
            written_blocks: 0,
            chunking: ChunkingParameters::default(),
            reclaimed: None,
        }
    }

    #[tokio::test]
    async fn all_who_open_a_volume_get_the_same_device() {
        let volumes = volumes();
        let one = volumes.hold(VolumeId(1)).await.device(&spec(1)).await.expect("a device");
        let other = volumes.hold(VolumeId(1)).await.device(&spec(1)).await.expect("a device");
        assert!(Arc::ptr_eq(&one, &other));
        assert_eq!(volumes.open_count(), 1);
    }

    #[tokio::test]
    async fn a_volume_is_in_use_as_long_as_somebody_has_its_device() {
        let volumes = volumes();
        let mut slot = volumes.hold(VolumeId(1)).await;
        assert!(!slot.is_in_use());
        let device = slot.device(&spec(1)).await.expect("a device");
        assert!(slot.is_in_use());
        drop(device);
        assert!(!slot.is_in_use());
        let open = slot.volume(&spec(1)).await.expect("a volume");
        assert!(!slot.is_in_use(), "whoever seals it does not use it");
        drop(open);
    }

    #[tokio::test]
    async fn a_closed_volume_answers_errors_and_opens_anew_with_what_was_written() {
        let volumes = volumes();
        let mut slot = volumes.hold(VolumeId(1)).await;
        let device = slot.device(&spec(1)).await.expect("a device");
        let write = |data: u8| (ByteOffset(0), vec![data; 4096].into(), sterna_types::device::Persistence::Durable);
        let (at, data, persistence) = write(1);
        device.write(at, data, persistence).await.expect("a write");
        slot.close().await;
        let (at, data, persistence) = write(2);
        device.write(at, data, persistence).await.expect_err("the volume is closed");
        assert_eq!(volumes.open_count(), 0);
        let volume = slot.volume(&spec(1)).await.expect("the volume").volume;
        let mut block = [0; 4096];
        let range = sterna_types::ByteRange::new(ByteOffset(0), 4096).expect("a range");
        volume.read(range, &mut block).expect("a read");
        assert_eq!(block, [1; 4096]);
    }

    #[tokio::test]
    async fn at_the_end_all_is_sealed_and_nothing_opens() {
        let volumes = volumes();
        let device = volumes.hold(VolumeId(1)).await.device(&spec(1)).await.expect("a device");
        let persistence = sterna_types::device::Persistence::AtNextFlush;
        device.write(ByteOffset(0), vec![1; 4096].into(), persistence).await.expect("a write");
        let volume = Arc::clone(device.volume());
        let last = volumes.close_all().await;
        assert_eq!(volumes.open_count(), 0);
        assert!(volume.is_closed());
        let [LastSeal { sealed, .. }] = last[..] else { panic!("{last:?}") };
        assert_eq!((sealed.generation, sealed.written_blocks), (1, 1), "the write is in a root");
        let refused = volumes.hold(VolumeId(2)).await.device(&spec(2)).await;
        assert!(matches!(refused, Err(OpenError::ShuttingDown)));
    }
}
