//! An open volume.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};

use sterna_types::{ByteSize, Epoch, Root, SegmentIndex, VolumeId, VolumeSize};
use tokio::sync::Notify;

use super::absence::Supply;
use super::error::VolumeError;
use super::feed::{Copies, Feed};
use super::overlay::{BlockSet, Overlay};
use super::prefetcher::{Bringing, BringingStatus};
use super::read_ahead::Ahead;
use super::record::VolumeRecord;
use super::rewrite_cold::Fragmented;
use super::storage::Storage;
use super::used::Traced;
use crate::chunking::ChunkingParameters;
use crate::heat::Heat;
use crate::journal::record::Sequence;
use crate::journal::{FileNumber, Journal};
use crate::trace::Touches;

/// What the metadata says of a volume that is to be opened.
#[derive(Clone, Copy, Debug)]
pub struct VolumeSpec {
    /// Which one.
    pub id: VolumeId,
    /// How large it is.
    pub size: VolumeSize,
    /// Under which epoch this node owns it.
    pub epoch: Epoch,
    /// What it holds where this node has no newer state of it: what it was cloned from or imported as.
    pub root: Root,
    /// How often the root had changed by then.
    pub generation: u64,
    /// How many blocks of data writes were in it, where this node has no newer state: see [`VolumeRecord::written_blocks`].
    pub written_blocks: u64,
    /// How its data is cut into chunks.
    pub chunking: ChunkingParameters,
    /// Where this node has reclaimed it, or was in sync and has taken it over: the epoch in which it was left here, and with which this
    /// one goes on.
    pub reclaimed: Option<Epoch>,
}

impl VolumeSpec {
    /// What opens volume `id` as this node has left it, in the epoch of then: see [`Storage::kept`](super::Storage::kept). Its size
    /// is the one of the last seal; where the metadata knows a later one, that counts.
    ///
    /// # Errors
    /// [`VolumeError::DamagedRecord`] where no volume has such a size.
    pub fn of_kept(kept: &VolumeRecord, id: VolumeId, chunking: ChunkingParameters) -> Result<Self, VolumeError> {
        let damaged = |_| VolumeError::DamagedRecord { volume: id, what: "its size is that of no volume" };
        Ok(Self {
            id,
            size: VolumeSize::try_from(ByteSize(kept.size_bytes)).map_err(damaged)?,
            epoch: kept.epoch,
            root: kept.root,
            generation: kept.generation,
            written_blocks: kept.written_blocks,
            chunking,
            reclaimed: None,
        })
    }
}

/// A volume, open: read, written, sealed. All calls may block, unless they say otherwise.
#[derive(Debug)]
pub struct Volume {
    pub(super) id: VolumeId,
    pub(super) storage: Arc<Storage>,
    pub(super) journal: Journal,
    pub(super) epoch: Epoch,
    pub(super) chunking: ChunkingParameters,
    size_bytes: AtomicU64,
    pub(super) layers: RwLock<Layers>,
    /// Held from a record's append to its place in the overlay: one writer at a time.
    pub(super) writing: Mutex<()>,
    /// Held while sealing: one seal at a time.
    pub(super) sealing: Mutex<()>,
    /// Held while the record of a seal is put, and while the volume is released.
    pub(super) recording: Mutex<()>,
    /// Whether it has been released: then it takes no writes, and its sealed contents stay as they are.
    pub(super) released: AtomicBool,
    /// How many changes have come to the overlay, and can be read.
    pub(super) changes: AtomicU64,
    /// Bytes of records that are not sealed.
    pub(super) unsealed_bytes: AtomicU64,
    /// Told when there is something to seal, and when there is much.
    pub(super) seal_wanted: Notify,
    /// Told when a seal has ended, well or not.
    pub(super) seal_ended: Notify,
    /// Why the last seal failed, for what is shown; none once one has succeeded.
    pub(super) seal_failure: Mutex<Option<SealFailure>>,
    /// Segments that are read, and whose maps a seal has superseded.
    pub(super) superseded: Mutex<BTreeSet<SegmentIndex>>,
    /// Segments that a rewrite would do good.
    pub(super) fragmented: Mutex<Fragmented>,
    /// Who brings what is not here.
    pub(super) supply: Mutex<Option<Arc<dyn Supply>>>,
    /// Who reads on and on through what is not here.
    pub(super) ahead: Ahead,
    /// How often which part of it is read and written.
    pub(super) heat: Heat,
    /// Who is told of each change.
    pub(super) feeds: Mutex<Vec<Weak<Feed>>>,
    /// Whether anybody is.
    pub(super) is_fed: AtomicBool,
    /// Who has to have what is flushed.
    pub(super) copies: Mutex<Option<Arc<dyn Copies>>>,
    /// What is touched first after the attach of now, and the traces of those before.
    pub(super) touches: Touches,
    pub(super) traced: Mutex<Traced>,
    /// What is brought that is not here.
    pub(super) bringing: Bringing,
    closed: AtomicBool,
}

/// What a volume shows, the newest first.
#[derive(Debug)]
pub(super) struct Layers {
    /// What was written since the last freeze.
    pub(super) active: Overlay,
    /// What is being sealed.
    pub(super) frozen: Option<Frozen>,
    /// Data that is newer than what was sealed, and has not arrived.
    pub(super) tail: BlockSet,
    /// What has been sealed.
    pub(super) sealed: VolumeRecord,
    /// Blocks of data writes of the volume's whole life, those in `active` among them.
    pub(super) written_blocks: u64,
}

/// What was sealed last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealedState {
    /// The contents.
    pub root: Root,
    /// How often they have changed.
    pub generation: u64,
    /// How many blocks of data writes are in them: see [`VolumeRecord::written_blocks`].
    pub written_blocks: u64,
}

/// An overlay that takes no more writes, and where the journal goes on behind it.
#[derive(Clone, Debug)]
pub(super) struct Frozen {
    pub(super) overlay: Arc<Overlay>,
    /// What is in it.
    pub(super) cut: Cut,
    /// Bytes of its records.
    pub(super) bytes: u64,
}

/// A moment of a volume's history, between two records of its journal.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    /// The newest record before it.
    pub(super) through: Sequence,
    /// The journal file from which on later records are.
    pub(super) replay_from: FileNumber,
    /// Blocks of data writes before it.
    pub(super) written_blocks: u64,
}

/// Why a seal failed.
#[derive(Clone, Debug)]
pub(super) struct SealFailure {
    pub(super) is_full: bool,
    pub(super) what: String,
}

/// What an administrator wants to know of an open volume.
#[derive(Clone, Debug)]
pub struct VolumeStatus {
    /// Which one.
    pub id: VolumeId,
    /// How large it is.
    pub size: ByteSize,
    /// Its sealed contents.
    pub root: Root,
    /// How often they have changed.
    pub generation: u64,
    /// How many blocks of data writes are in them: see [`VolumeRecord::written_blocks`].
    pub written_blocks: u64,
    /// Bytes in the journal that are not sealed.
    pub unsealed_bytes: u64,
    /// Whether a sync has failed, so that it answers errors until it is opened anew.
    pub poisoned: bool,
    /// Why the last seal failed, if it did.
    pub seal_failure: Option<String>,
    /// Bytes that were written where the volume was handed over from, and have not arrived: those that no root has.
    pub tail_bytes: u64,
    /// How many traces are kept of attaches before the one of now.
    pub traces: usize,
    /// What was brought that was not here.
    pub bringing: BringingStatus,
}

impl Volume {
    pub(super) fn assemble(
        spec: &VolumeSpec,
        storage: Arc<Storage>,
        journal: Journal,
        layers: Layers,
        unsealed_bytes: u64,
    ) -> Arc<Self> {
        Arc::new(Self {
            id: spec.id,
            storage,
            journal,
            epoch: spec.epoch,
            chunking: spec.chunking,
            size_bytes: AtomicU64::new(spec.size.bytes().0),
            layers: RwLock::new(layers),
            writing: Mutex::new(()),
            sealing: Mutex::new(()),
            recording: Mutex::new(()),
            released: AtomicBool::new(false),
            changes: AtomicU64::new(0),
            unsealed_bytes: AtomicU64::new(unsealed_bytes),
            seal_wanted: Notify::new(),
            seal_ended: Notify::new(),
            seal_failure: Mutex::new(None),
            superseded: Mutex::default(),
            fragmented: Mutex::default(),
            supply: Mutex::default(),
            ahead: Ahead::default(),
            heat: Heat::new(spec.size.bytes()),
            feeds: Mutex::default(),
            is_fed: AtomicBool::new(false),
            copies: Mutex::default(),
            touches: Touches::default(),
            traced: Mutex::default(),
            bringing: Bringing::default(),
            closed: AtomicBool::new(false),
        })
    }

    /// Which volume it is.
    pub fn id(&self) -> VolumeId {
        self.id
    }

    /// How large it is.
    pub fn size(&self) -> ByteSize {
        ByteSize(self.size_bytes.load(Ordering::Acquire))
    }

    /// Under which epoch this node owns it.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Notes what its size is where it is a mirror: its owner has changed it.
    pub(super) fn note_size(&self, size: ByteSize) {
        self.size_bytes.store(size.0, Ordering::Release);
    }

    /// What was sealed last.
    pub fn sealed(&self) -> SealedState {
        self.layers().sealed.state()
    }

    /// What an administrator wants to know.
    pub fn status(&self) -> VolumeStatus {
        let SealedState { root, generation, written_blocks } = self.sealed();
        VolumeStatus {
            id: self.id,
            size: self.size(),
            root,
            generation,
            written_blocks,
            unsealed_bytes: self.unsealed_bytes.load(Ordering::Acquire),
            poisoned: self.journal.check_sound().is_err(),
            seal_failure: self.seal_failure().as_ref().map(|failure| failure.what.clone()),
            tail_bytes: self.tail().data_blocks() * sterna_types::BLOCK_SIZE,
            traces: self.traces_before().len(),
            bringing: self.bringing.status(),
        }
    }

    /// Gives the volume another size. What a smaller one cut off is gone; what a larger one adds reads as zeroes.
    ///
    /// # Errors
    /// [`VolumeError`]; then the size is what it was.
    pub fn resize(&self, size: VolumeSize) -> Result<(), VolumeError> {
        let new = size.bytes().0;
        let turn = self.turn()?;
        let old = self.size().0;
        if new > old {
            // An earlier and larger size may have left something there.
            self.append_hole(&turn, old / sterna_types::BLOCK_SIZE..new / sterna_types::BLOCK_SIZE)?;
        }
        self.size_bytes.store(new, Ordering::Release);
        drop(turn);
        self.journal.sync()?;
        Ok(())
    }

    /// Ends it: later requests are refused, so that nobody holds on to a volume that was deleted or opened anew.
    pub fn close(&self) {
        let no_seal = self.sealing.lock().unwrap_or_else(PoisonError::into_inner);
        let _turn = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.closed.store(true, Ordering::Release);
        self.cut_feeds();
        self.journal.rest();
        self.keep_use_at(&no_seal);
        self.storage.segments.forget(self.id);
        self.storage.vacate(self);
        self.seal_wanted.notify_one();
        self.seal_ended.notify_waiters();
    }

    /// Whether it has been closed.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Refuses where the volume answers nothing any more.
    pub(super) fn check_open(&self) -> Result<(), VolumeError> {
        self.journal.check_sound()?;
        if self.is_closed() { Err(VolumeError::Closed) } else { Ok(()) }
    }

    pub(super) fn layers(&self) -> RwLockReadGuard<'_, Layers> {
        self.layers.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn layers_mut(&self) -> RwLockWriteGuard<'_, Layers> {
        self.layers.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn seal_failure(&self) -> std::sync::MutexGuard<'_, Option<SealFailure>> {
        self.seal_failure.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
