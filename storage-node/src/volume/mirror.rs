//! A mirror: a volume that another node owns, kept here change by change, so that this node can go on with all of it (design section 4,
//! `sync:N`).
//!
//! It is a [`Volume`] like any other, in its owner's epoch, with a journal, seals and a record of its own; but what is written to it is
//! what its owner has written, in the same order. When the owner is gone and this node is made the owner, it opens it in the next epoch
//! as it was left here ([`VolumeSpec::reclaimed`]).
//!
//! A mirror that has lost the thread begins anew where its owner is. What it has may be all that is left of what was acknowledged, so it
//! is given up only for more. The steps, and what a crash behind each of them leaves:
//! 1. Everything of the owner's root is brought here, by whoever calls. *The mirror is as it was.*
//! 2. What is newer than that root is appended to new files of its journal, in records that do not count yet, and made durable.
//!    *The mirror is as it was.*
//! 3. The record is put: the owner's root, and the journal from those files on, up to which record they count, and how many writes they
//!    stand for. *Exactly what the owner had.*
//!
//! That it is a mirror, and no volume of its own that this node has to give account of, is a part of its record, from before the first
//! change is here.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use sterna_types::{BLOCK_SIZE, DeviceError, VolumeSize};

use super::error::VolumeError;
use super::overlay::{BlockSet, Overlay, Source};
use super::record::{Anew, VolumeRecord};
use super::recover::first_record;
use super::storage::{Storage, lock};
use super::tail::Tail;
use super::volume::{SealedState, Volume, VolumeSpec};
use crate::chunk_store::StoreError;
use crate::journal::record::{HEADER_BYTES, RecordKind, Sequence};
use crate::journal::{Appended, FileNumber};

/// A change, as it has come from the owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The first block.
    pub first_block: u64,
    /// What is changed.
    pub what: Changed,
}

/// What a [`Change`] makes of the blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    /// These hold data from then on: whole blocks, at most 1 MiB.
    Data(Bytes),
    /// So many are a hole.
    Hole(u64),
}

/// A mirror that begins anew: what was appended, and is in no layer yet.
#[derive(Debug)]
pub struct Rebase {
    overlay: Overlay,
    bytes: u64,
    through: Sequence,
    replay_from: FileNumber,
}

impl Volume {
    /// Makes changes in their order, as their owner has made them, the volume having `size` by then. They survive the end of the process
    /// on return; a loss of power, after the next [`Volume::flush`].
    ///
    /// # Errors
    /// [`VolumeError`], also where one is not within the volume; those before it have been made.
    pub fn mirror(&self, size: VolumeSize, changes: &[Change]) -> Result<(), VolumeError> {
        let turn = self.turn()?;
        self.note_size(size.bytes());
        for change in changes {
            let blocks = self.blocks_of_change(change)?;
            match &change.what {
                Changed::Data(data) => self.append_data(&turn, blocks.start, data, RecordKind::Data)?,
                Changed::Hole(_) => self.append_hole(&turn, blocks)?,
            }
        }
        Ok(())
    }

    /// Begins step 2. Until [`Volume::finish_rebase`] or [`Volume::abandon_rebase`] nobody else changes or seals the mirror.
    ///
    /// # Errors
    /// [`VolumeError`].
    pub fn begin_rebase(&self) -> Result<Rebase, VolumeError> {
        let _turn = self.turn()?;
        let (through, replay_from) = self.journal.cut();
        Ok(Rebase { overlay: Overlay::default(), bytes: 0, through, replay_from })
    }

    /// Goes on with step 2: some of what is newer than the owner's root.
    ///
    /// # Errors
    /// As [`Volume::mirror`].
    pub fn go_on_with_rebase(
        &self,
        rebase: &mut Rebase,
        size: VolumeSize,
        changes: &[Change],
    ) -> Result<(), VolumeError> {
        let _turn = self.turn()?;
        self.note_size(size.bytes());
        changes.iter().try_for_each(|change| self.append_to(rebase, change))
    }

    /// Gives up: the mirror is what it was. What was appended takes space until it is sealed, or begins anew.
    pub fn abandon_rebase(&self, rebase: Rebase) {
        self.unsealed_bytes.fetch_add(rebase.bytes, Ordering::AcqRel);
    }

    /// Step 3. All of the root is here, and stays until this returns. Durable on return.
    ///
    /// # Errors
    /// [`VolumeError`]; then the mirror is as after [`Volume::abandon_rebase`], or has begun anew.
    pub fn finish_rebase(&self, rebase: Rebase, sealed: SealedState, written_blocks: u64) -> Result<(), VolumeError> {
        let _only_one = lock(&self.sealing);
        let _turn = self.turn()?;
        if let Err(error) = self.journal.sync() {
            self.abandon_rebase(rebase);
            return Err(error.into());
        }
        let Rebase { overlay, bytes, through, replay_from } = rebase;
        let SealedState { root, generation, written_blocks: sealed_blocks } = sealed;
        let last = self.layers().sealed;
        let anew =
            Anew { written_blocks: written_blocks.saturating_sub(sealed_blocks), through: self.journal.appended() };
        let record = VolumeRecord {
            root,
            generation,
            written_blocks: sealed_blocks,
            size_bytes: self.size().0,
            sealed_through: through,
            replay_from,
            anew: Some(anew),
            ..last
        };
        {
            let _no_other_record = lock(&self.recording);
            self.storage.records.put(self.id, record.encode(&Tail::EMPTY)).map_err(StoreError::from)?;
            let mut layers = self.layers_mut();
            (layers.sealed, layers.frozen, layers.active) = (record, None, overlay);
            (layers.tail, layers.written_blocks) = (BlockSet::default(), written_blocks);
            self.journal.set_note(record.encode_checkpoint(self.id));
            self.storage.segments.forget(self.id);
            self.unsealed_bytes.store(bytes, Ordering::Release);
        }
        self.changes.fetch_add(1, Ordering::Release);
        self.journal.retire_before(replay_from);
        self.seal_wanted.notify_one();
        Ok(())
    }

    /// Appends a change, which nobody reads yet.
    fn append_to(&self, rebase: &mut Rebase, change: &Change) -> Result<(), VolumeError> {
        let blocks = self.blocks_of_change(change)?;
        let (kind, payload) = match &change.what {
            Changed::Data(data) => (RecordKind::AnewData, &data[..]),
            Changed::Hole(_) => (RecordKind::AnewHole, &[][..]),
        };
        let Appended { file, payload_at, .. } =
            self.journal.append(kind, blocks.start, blocks.end - blocks.start, payload)?;
        let source = if kind.has_data() { Source::Journal { file, at: payload_at } } else { Source::Hole };
        rebase.overlay.insert(blocks, source);
        rebase.bytes += (HEADER_BYTES + payload.len()) as u64;
        Ok(())
    }

    /// The blocks that are changed, all within the volume.
    fn blocks_of_change(&self, change: &Change) -> Result<Range<u64>, VolumeError> {
        let (first, size) = (change.first_block, self.size());
        let count = match &change.what {
            Changed::Data(data) if (data.len() as u64).is_multiple_of(BLOCK_SIZE) => data.len() as u64 / BLOCK_SIZE,
            Changed::Data(data) => return Err(no_change(format!("{} bytes are no whole blocks", data.len()))),
            Changed::Hole(count) => *count,
        };
        match first.checked_add(count) {
            Some(end) if count > 0 && end <= size.0 / BLOCK_SIZE => Ok(first..end),
            _ => Err(no_change(format!("{count} blocks from {first} on are not in a volume of {} bytes", size.0))),
        }
    }
}

impl Storage {
    /// Opens a mirror of a volume in its owner's epoch: as this node has left it in that epoch, else with what the volume is said to
    /// hold, all of which is here. That it is a mirror is durable on return.
    ///
    /// # Errors
    /// [`VolumeError`]; [`VolumeError::OtherEpoch`] where something of another epoch is kept here: it has to be forgotten first.
    pub fn open_mirror(self: &Arc<Self>, spec: &VolumeSpec) -> Result<Arc<Volume>, VolumeError> {
        if self.kept(spec.id)?.is_none() {
            let record = VolumeRecord { is_mirror: true, ..first_record(spec) };
            self.records.put(spec.id, record.encode(&Tail::EMPTY)).map_err(StoreError::from)?;
        }
        Volume::open(self, spec)
    }
}

fn no_change(what: String) -> VolumeError {
    DeviceError::Io(io::Error::other(format!("what the owner has sent is no change of this volume: {what}"))).into()
}
