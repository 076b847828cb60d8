//! A volume that is handed over, at both of its nodes (design section 5).
//!
//! ```text
//! node A, which has the volume                     node B, where it goes
//! ────────────────────────────                     ─────────────────────
//! release: takes no more writes, seals no more
//!   root, and the tail that is newer ────────────> inherit: pledge and record, with the tail, in one
//! contents of the tail, block by block ──────────> take_in: each into the journal, as if it were written
//! ```
//!
//! What is released stays as it is: A answers for the contents of its tail until B has them, also after a crash. What B has been
//! told survives one too: its record says what has not arrived, from the moment on at which it says that the volume is here.
//! A write at B covers what it writes, arrived or not; a seal at B takes from the record what it has sealed.
//!
//! A pledge is what a node has promised about a handoff. It is bytes here: what it means is for those who make it.

use std::ops::Range;
use std::sync::atomic::Ordering;

use sterna_types::{BLOCK_SIZE, VolumeId};

use super::absence::Absence;
use super::error::VolumeError;
use super::overlay::BlockSet;
use super::recover::first_record;
use super::storage::{Storage, lock};
use super::tail::Tail;
use super::volume::{Layers, SealedState, Volume, VolumeSpec};
use crate::chunk_store::StoreError;
use crate::journal::record::RecordKind;

/// What a volume was when it was released: all that was ever acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Released {
    /// Its sealed contents.
    pub sealed: SealedState,
    /// How many blocks of data writes are in them and in the tail: see [`super::VolumeRecord::written_blocks`].
    pub written_blocks: u64,
    /// What is newer.
    pub tail: Tail,
}

/// What a node is told of a volume that is handed to it.
#[derive(Clone, Debug)]
pub struct Inheritance {
    /// The volume, in the epoch that begins with it, as it was sealed where it comes from. The blocks written are those in the tail too:
    /// they are not counted again when they arrive.
    pub spec: VolumeSpec,
    /// What is newer.
    pub tail: Tail,
}

impl Volume {
    /// Has the volume take no more writes, and seal nothing more; what it is then. A seal that runs goes on, and changes nothing.
    /// The same again is answered the same. Blocks, for a sync of the index at most.
    ///
    /// What is in the tail is durable after the next [`Volume::flush`].
    ///
    /// # Errors
    /// [`VolumeError`]; [`VolumeError::Absent`] where something of an earlier tail has not arrived. Then it is not released.
    pub fn release(&self) -> Result<Released, VolumeError> {
        self.check_open()?;
        let (_no_writer, _no_record) = (lock(&self.writing), lock(&self.recording));
        let layers = self.layers();
        let absent = not_arrived(&layers);
        if !absent.is_empty() {
            let blocks = absent.runs().map(|(blocks, ())| blocks).collect();
            return Err(VolumeError::Absent(Box::new(Absence { blocks, ..Absence::default() })));
        }
        self.released.store(true, Ordering::Release);
        self.seal_ended.notify_waiters();
        let frozen = layers.frozen.as_ref().map(|frozen| &*frozen.overlay);
        let tail = Tail::of(frozen.into_iter().chain([&layers.active]));
        Ok(Released { sealed: layers.sealed.state(), written_blocks: layers.written_blocks, tail })
    }

    /// Whether it has been released.
    pub fn is_released(&self) -> bool {
        self.released.load(Ordering::Acquire)
    }

    /// Has it take writes again: the handoff has ended, and it stays here.
    pub fn resume(&self) {
        self.released.store(false, Ordering::Release);
        self.seal_wanted.notify_one();
    }

    /// What has not arrived of the tail that the volume came with, and was not overwritten.
    pub fn tail(&self) -> Tail {
        Tail::of_data(&not_arrived(&self.layers()))
    }

    /// Whether the sealed contents lack nothing of the tail that the volume came with. Where they do they are no state that it ever
    /// had.
    pub fn has_sealed_tail(&self) -> bool {
        self.layers().tail.is_empty()
    }

    /// Takes the contents of blocks of the tail in, which begin at `first_block`, but for those that have arrived or were
    /// overwritten meanwhile. They are in the journal on return; what is lost of it by a loss of power is absent again.
    ///
    /// # Errors
    /// [`VolumeError`]; some may have been taken in.
    ///
    /// # Panics
    /// Where `data` is no whole number of blocks.
    pub fn take_in(&self, first_block: u64, data: &[u8]) -> Result<(), VolumeError> {
        assert!((data.len() as u64).is_multiple_of(BLOCK_SIZE), "a part of a block was fetched");
        let blocks = first_block..first_block + data.len() as u64 / BLOCK_SIZE;
        let turn = self.turn()?;
        // Nobody else takes in or writes meanwhile, and what is absent is in no seal.
        for absent in self.absent_blocks(blocks) {
            let bytes = bytes_of(&absent, first_block);
            self.append_data(&turn, absent.start, &data[bytes], RecordKind::Arrived)?;
        }
        Ok(())
    }
}

impl Storage {
    /// Takes over a volume, and makes the promise that it is here. Durable on return, both or neither. The volume can be opened
    /// then, in its new epoch. Done again it changes nothing.
    ///
    /// # Errors
    /// [`VolumeError::OtherEpoch`] where something of an earlier epoch is kept here: it has to be forgotten first.
    pub fn inherit(&self, inheritance: &Inheritance, pledge: Vec<u8>) -> Result<(), VolumeError> {
        let Inheritance { spec, tail } = inheritance;
        let record = match self.kept(spec.id)? {
            None => Some(first_record(spec).encode(tail)),
            Some(kept) if kept.epoch == spec.epoch => None,
            Some(kept) => {
                return Err(VolumeError::OtherEpoch { volume: spec.id, kept: kept.epoch, asked: spec.epoch });
            }
        };
        Ok(self.records.make_pledge(spec.id, pledge, record).map_err(StoreError::from)?)
    }

    /// Makes a promise about a volume, in place of the last one. Durable on return.
    ///
    /// # Errors
    /// [`VolumeError`]; whether it was made is then unknown until the node has been started anew.
    pub fn make_pledge(&self, volume: VolumeId, pledge: Vec<u8>) -> Result<(), VolumeError> {
        Ok(self.records.make_pledge(volume, pledge, None).map_err(StoreError::from)?)
    }

    /// What this node has promised last about a volume.
    ///
    /// # Errors
    /// [`VolumeError`].
    pub fn pledge(&self, volume: VolumeId) -> Result<Option<Vec<u8>>, VolumeError> {
        Ok(self.records.pledge(volume).map_err(StoreError::from)?)
    }
}

/// What has not arrived of a tail, and was not overwritten. What has is in the layer of the tail too, until it is sealed.
fn not_arrived(layers: &Layers) -> BlockSet {
    let mut absent = layers.tail.clone();
    let newer = layers.frozen.as_ref().map(|frozen| &*frozen.overlay).into_iter().chain([&layers.active]);
    newer.flat_map(|overlay| overlay.runs()).for_each(|(blocks, _)| absent.clear(&blocks));
    absent
}

/// Where blocks are in the bytes of blocks from `first_block` on.
fn bytes_of(blocks: &Range<u64>, first_block: u64) -> Range<usize> {
    let at = |block: u64| usize::try_from((block - first_block) * BLOCK_SIZE).expect("it is in memory");
    at(blocks.start)..at(blocks.end)
}
