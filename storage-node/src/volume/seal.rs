//! Sealing: what is in the overlay becomes chunks, manifests and a new root, and the journal is freed.
//!
//! The steps, and what opening the volume does after a crash behind each of them:
//! 1. Freeze: later writes go to a new overlay and to new files of the journal. *Replays the journal, as if nothing had
//!    been.*
//! 2. Store the new chunks of data, then the manifests, the nodes and the checkpoint that need them; each append is durable
//!    before the next begins. *The same; the chunks are orphans, found again by the next seal or collected.*
//! 3. Put the record: new root, where the journal goes on behind it, and what is left of a tail that has not arrived. *Begins
//!    with the new root, and replays only what is newer.*
//! 4. Show the new root in place of the frozen overlay.
//! 5. Give the files of the journal back. *Removes those that still have their names.*
//!
//! A step that fails leaves the frozen overlay where it is: reads go on as before, and the next seal tries again. Where there
//! was no space, and blocks have been given back since, these go along with the next try: it needs less, and where more was
//! given back than written it may use what is kept free of the disk, since nothing is freed before it is done.
//!
//! Where a part of the map is not here that step 2 has to change, all that it lacks is named together, and the seal is tried
//! again once that has been brought: meanwhile it has not failed, and writers who find no room in the journal wait.
//!
//! Where step 3 itself fails, nobody knows which of the two records a crash will find. Both are right as long as nothing is
//! taken away that either of them stands on. The journal's files stay, since step 5 is not reached. Chunks stay, since the
//! index refuses every later change (and with it every removal), and shows records to nobody: no collection begins. One that
//! runs has begun before step 2, and spares the chunks of both roots. So the volume goes on from its journal until that is
//! full, and nothing is sealed until the node is started anew. A full disk is no such failure: step 2 finds it out, having
//! left the index alone.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use sterna_types::SegmentIndex;

use super::absence::Absence;
use super::error::VolumeError;
use super::overlay::BlockSet;
use super::record::VolumeRecord;
use super::rewrite::{rewrite, touched};
use super::storage::lock;
use super::tail::Tail;
use super::volume::{Cut, Frozen, SealFailure, SealedState, Volume};
use crate::chunk_store::{ChunkKind, NewChunk, Room, StoreError, StorePin};
use crate::chunk_writer::ChunkWriter;
use crate::map::{self, Change};

/// A new root whose chunks are durable and pinned.
pub(super) struct Built {
    record: VolumeRecord,
    /// What has not arrived, and is newer than the root.
    tail: BlockSet,
    /// The segments that differ from the old root's.
    changed: Vec<Change>,
    _pin: StorePin,
}

impl Volume {
    /// Seals everything that was acknowledged before this call. Durable on return. What has been released is not sealed, and
    /// neither is what has not arrived of a tail.
    ///
    /// # Errors
    /// [`VolumeError`]; nothing is lost by it, and a later call tries again.
    pub fn seal(&self) -> Result<SealedState, VolumeError> {
        let _only_one = self.sealing.lock().unwrap_or_else(PoisonError::into_inner);
        // What a failed seal has left frozen is sealed first, and then what was written since.
        let was_frozen = self.layers().frozen.is_some();
        let mut result = self.seal_once();
        if was_frozen && result.is_ok() {
            result = self.seal_once();
        }
        let failure = result.as_ref().err().filter(|error| error.absence().is_none());
        *self.seal_failure() = failure.map(|error| SealFailure { is_full: error.is_full(), what: error.to_string() });
        self.seal_ended.notify_waiters();
        result
    }

    fn seal_once(&self) -> Result<SealedState, VolumeError> {
        self.check_open()?;
        let frozen = if self.is_released() { None } else { self.freeze() };
        let Some(frozen) = frozen else {
            return Ok(self.sealed());
        };
        let built = match self.build(&frozen) {
            Err(error) if error.is_full() => {
                // Files of the journal that nobody uses may be all the space that is needed.
                self.storage.pool.shrink()?;
                self.build(&frozen)?
            }
            Err(error) if error.absence().is_some() => {
                self.absent_for(&frozen)?.into_result()?;
                // It has come meanwhile.
                self.build(&frozen)?
            }
            other => other?,
        };
        if !self.record_and_show(&built, Some(&frozen))? {
            return Ok(self.sealed());
        }
        drop(frozen);
        self.fragmented().sealed();
        self.journal.retire_before(built.record.replay_from);
        let VolumeRecord { root, generation, written_blocks, .. } = built.record;
        Ok(SealedState { root, generation, written_blocks })
    }

    /// Looks the maps up anew that seals have superseded of segments that guests read, so that these need not. What
    /// cannot be looked up is left to whoever reads it, and is told why.
    pub fn renew_maps(&self) {
        let superseded = std::mem::take(&mut *lock(&self.superseded));
        for segment in superseded {
            let _ = self.segment_map(segment);
        }
    }

    /// What is to be sealed; `None` where there is nothing.
    pub(super) fn freeze(&self) -> Option<Frozen> {
        let _turn = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let was_full = self.seal_failure().as_ref().is_some_and(|failure| failure.is_full);
        let mut layers = self.layers_mut();
        let is_due = layers.frozen.is_none() || (was_full && layers.active.has_holes());
        if is_due && !layers.active.is_empty() {
            let (through, replay_from) = self.journal.cut();
            let mut overlay = layers.frozen.as_ref().map(|frozen| (*frozen.overlay).clone()).unwrap_or_default();
            overlay.put(&std::mem::take(&mut layers.active));
            let bytes = self.unsealed_bytes.load(Ordering::Acquire);
            let cut = Cut { through, replay_from, written_blocks: layers.written_blocks };
            layers.frozen = Some(Frozen { overlay: Arc::new(overlay), cut, bytes });
        }
        layers.frozen.clone()
    }

    pub(super) fn build(&self, frozen: &Frozen) -> Result<Built, VolumeError> {
        let old = self.layers().sealed;
        let room = if frozen.overlay.gives_back() { Room::OfReserve } else { Room::BesideReserve };
        let mut writer = ChunkWriter::new(Arc::clone(&self.storage.store)).with_room(room);
        let changed = rewrite(self, old.root, &frozen.overlay, &mut writer)?;
        let mut tail = self.layers().tail.clone();
        frozen.overlay.runs().for_each(|(blocks, _)| tail.clear(&blocks));
        self.build_root(&old, changed, writer, frozen.cut, tail)
    }

    /// What a seal of this needs of the map, and is not here: of each segment the first part on the way to it.
    fn absent_for(&self, frozen: &Frozen) -> Result<Absence, VolumeError> {
        let (root, mut absence) = (self.layers().sealed.root, Absence::default());
        for segment in touched(&frozen.overlay) {
            if let Err(error) = self.manifest(root, segment) {
                absence.add(error.absence().ok_or(error)?);
            }
        }
        Ok(absence)
    }

    /// The root that differs from `old` by the segments in `changed`, and holds what was written before `cut`, but for what is in
    /// `tail`.
    pub(super) fn build_root(
        &self,
        old: &VolumeRecord,
        changed: Vec<Change>,
        mut writer: ChunkWriter,
        cut: Cut,
        tail: BlockSet,
    ) -> Result<Built, VolumeError> {
        let root = map::update(&self.storage.nodes, &mut writer, old.root, &changed)?;
        let mut record = VolumeRecord {
            root,
            generation: old.generation + u64::from(root != old.root),
            written_blocks: cut.written_blocks,
            epoch: self.epoch,
            size_bytes: self.size().0,
            sealed_through: cut.through,
            replay_from: cut.replay_from,
            checkpoint: None,
            is_mirror: old.is_mirror,
            anew: old.anew.filter(|anew| anew.through > cut.through),
        };
        let checkpoint = Bytes::copy_from_slice(&record.encode_checkpoint(self.id));
        record.checkpoint = Some(writer.put(NewChunk::of(ChunkKind::Checkpoint, checkpoint))?);
        let (pin, _) = writer.finish()?;
        Ok(Built { record, tail, changed, _pin: pin })
    }

    /// Steps 3 and 4; whether they were done: not where the volume has been released meanwhile.
    pub(super) fn record_and_show(&self, built: &Built, frozen: Option<&Frozen>) -> Result<bool, VolumeError> {
        let _not_released = lock(&self.recording);
        if self.is_released() {
            return Ok(false);
        }
        let record = built.record.encode(&Tail::of_data(&built.tail));
        self.storage.records.put(self.id, record).map_err(StoreError::from)?;
        self.show(built, frozen);
        Ok(true)
    }

    /// Step 4: the new root, in place of the old one and of what was frozen.
    fn show(&self, built: &Built, frozen: Option<&Frozen>) {
        let mut layers = self.layers_mut();
        layers.sealed = built.record;
        layers.tail.clone_from(&built.tail);
        self.journal.set_note(built.record.encode_checkpoint(self.id));
        layers.frozen = None;
        for change in &built.changed {
            match change {
                Change::Set(segment, _) => {
                    if self.storage.segments.supersede(self.id, *segment) {
                        lock(&self.superseded).insert(*segment);
                    }
                }
                Change::Clear(range) if range.end.0 - range.start.0 <= FEW_SEGMENTS => {
                    for segment in range.start.0..range.end.0 {
                        self.storage.segments.remove(self.id, SegmentIndex(segment));
                    }
                }
                Change::Clear(_) => self.storage.segments.forget(self.id),
            }
        }
        self.unsealed_bytes.fetch_sub(frozen.map_or(0, |frozen| frozen.bytes), Ordering::AcqRel);
    }
}

/// Up to so many segments are dropped from the cache one by one, beyond it all of the volume's: 4 GiB.
const FEW_SEGMENTS: u64 = 1024;
