//! Rewriting segments whose map has become fragmented, once they are cold.
//!
//! Random writes cost what they write, at the price of a map in ever smaller pieces and of chunks that are dead in part. A
//! segment that was left alone for [`COLD_SEALS`] seals is read once and cut anew, as if it had been written in one go. It
//! is a seal without an overlay: the same steps, and the same after a crash.
//!
//! Which segments may need it is noted by the seals, in memory and in bounded number: after a restart a segment is found
//! again when it is written again.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use bytes::Bytes;
use sterna_types::device::ReadOutcome;
use sterna_types::{SEGMENT_SIZE, SegmentIndex};

use super::draft::Draft;
use super::error::VolumeError;
use super::volume::{Cut, Volume};
use crate::chunk_writer::ChunkWriter;
use crate::map::Manifest;

/// The segments that a volume's seals have left fragmented, with the number of the seal that wrote to each last.
#[derive(Debug, Default)]
pub(super) struct Fragmented {
    /// Seals of this volume since it was opened.
    seals: u64,
    segments: BTreeMap<SegmentIndex, u64>,
}

impl Fragmented {
    /// Notes what a seal has made of a segment.
    pub(super) fn note(&mut self, segment: SegmentIndex, manifest: &Manifest, average_blocks: u16) {
        if manifest.excess_extents(average_blocks) < WORTHWHILE_EXTENTS {
            self.segments.remove(&segment);
        } else if self.segments.len() < MAX_NOTED || self.segments.contains_key(&segment) {
            self.segments.insert(segment, self.seals);
        }
    }

    /// Notes that a seal has ended.
    pub(super) fn sealed(&mut self) {
        self.seals += 1;
    }

    /// Takes the next segments that are cold, in order.
    fn take_cold(&mut self) -> Vec<SegmentIndex> {
        let is_cold = |last: &u64| last + COLD_SEALS <= self.seals;
        let cold: Vec<_> =
            self.segments.iter().filter(|(_, last)| is_cold(last)).map(|(segment, _)| *segment).take(AT_ONCE).collect();
        for segment in &cold {
            self.segments.remove(segment);
        }
        cold
    }
}

impl Volume {
    /// Rewrites some segments that are fragmented and cold; how many. Durable on return.
    ///
    /// # Errors
    /// [`VolumeError`]; the volume is as it was.
    pub fn rewrite_cold(&self) -> Result<usize, VolumeError> {
        let _only_one = self.sealing.lock().unwrap_or_else(PoisonError::into_inner);
        self.check_open()?;
        // What a failed seal has left frozen is sealed first.
        if self.layers().frozen.is_some() {
            return Ok(0);
        }
        let cold = self.fragmented().take_cold();
        if cold.is_empty() {
            return Ok(0);
        }
        let old = self.layers().sealed;
        let mut writer = ChunkWriter::new(std::sync::Arc::clone(&self.storage.store));
        let mut changed = Vec::with_capacity(cold.len());
        for &segment in &cold {
            let mut data = vec![0; usize::try_from(SEGMENT_SIZE).map_err(|_| VolumeError::DamagedSegment { segment })?];
            match self.read_sealed(segment, &mut data) {
                Ok(ReadOutcome::Filled) => {}
                Ok(ReadOutcome::Zeroes) => continue,
                // What is not here is not worth a journey.
                Err(error) if error.absence().is_some() => continue,
                Err(error) => return Err(error),
            }
            let mut draft = Draft::of(Manifest::default());
            draft.write(&self.chunking, 0, &Bytes::from(data))?;
            changed.push(draft.finish()?.store(segment, &mut writer)?);
        }
        let (through, replay_from, written_blocks) = (old.sealed_through, old.replay_from, old.written_blocks);
        let tail = self.layers().tail.clone();
        let built = self.build_root(&old, changed, writer, Cut { through, replay_from, written_blocks }, tail)?;
        let is_done = self.record_and_show(&built, None)?;
        Ok(if is_done { cold.len() } else { 0 })
    }

    pub(super) fn fragmented(&self) -> std::sync::MutexGuard<'_, Fragmented> {
        self.fragmented.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Seals that have to pass without a write to a segment before it counts as cold: 40 s of steady writing elsewhere.
const COLD_SEALS: u64 = 8;

/// Extents that a rewrite has to save, of at most 1,024: below it, reading and writing 4 MiB is not worth it.
const WORTHWHILE_EXTENTS: u16 = 64;

/// Segments that are rewritten under one root: 64 MiB.
const AT_ONCE: usize = 16;

/// Segments that are noted: 64 GiB of fragmented disk.
const MAX_NOTED: usize = 16_384;
