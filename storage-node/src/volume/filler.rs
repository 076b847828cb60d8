//! The buffer of a read, filled piece by piece from wherever each of them is.

use std::ops::Range;

use sterna_types::device::ReadOutcome;
use sterna_types::{BLOCK_SIZE, BLOCKS_PER_SEGMENT, ByteRange, SegmentIndex};

use super::error::VolumeError;
use super::overlay::Source;
use super::segment_map::{Contents, SegmentMap};
use crate::chunk_store::ChunkPart;

/// A buffer that is filled from its start to its end. Zeroes are written only once something else was.
pub(super) struct Filler<'a> {
    range: ByteRange,
    into: &'a mut [u8],
    has_data: bool,
}

impl<'a> Filler<'a> {
    pub(super) fn new(range: ByteRange, into: &'a mut [u8]) -> Self {
        Self { range, into, has_data: false }
    }

    fn take(&mut self, blocks: &Range<u64>) -> (u32, &mut [u8]) {
        let (skip, part) = part_of(&self.range, blocks);
        if !self.has_data {
            // Nothing but holes so far.
            self.into[..part.start].fill(0);
            self.has_data = true;
        }
        (skip, &mut self.into[part])
    }

    /// Fills the holes among `blocks` of a segment, all of which are here. What is in chunks is left to the caller, to be read to
    /// where it belongs.
    pub(super) fn segment<'m>(
        &'m mut self,
        segment: SegmentIndex,
        map: &'m SegmentMap,
        blocks: Range<u64>,
    ) -> Vec<ChunkPart<'m>> {
        let first = segment.0 * BLOCKS_PER_SEGMENT;
        let within = within(segment, &blocks);
        let mut parts = Vec::new();
        if !self.has_data && map.pieces(within.clone()).all(|piece| matches!(piece.contents, Contents::Hole)) {
            return parts;
        }
        let range = self.range;
        let (_, mut rest) = self.take(&blocks);
        for piece in map.pieces(within) {
            let (skip, part) = part_of(&range, &(first + piece.blocks.start..first + piece.blocks.end));
            let (into, behind) = rest.split_at_mut(part.len());
            rest = behind;
            match piece.contents {
                Contents::Hole => into.fill(0),
                Contents::Chunk(location, from) => parts.push(ChunkPart { location, from: from + skip, into }),
                Contents::Absent(id) => panic!("chunk {id} is absent, and a map in which it is here was asked for"),
            }
        }
        parts
    }

    fn zeroes(&mut self, blocks: &Range<u64>) {
        if self.has_data {
            let (_, part) = part_of(&self.range, blocks);
            self.into[part].fill(0);
        }
    }

    pub(super) fn journal(&mut self, blocks: &Range<u64>, source: &Source) -> Result<(), VolumeError> {
        match source {
            Source::Hole => self.zeroes(blocks),
            Source::Journal { file, at } => {
                let (skip, into) = self.take(blocks);
                file.read_at(at + u64::from(skip), into).map_err(VolumeError::ReadBack)?;
            }
        }
        Ok(())
    }

    pub(super) fn journal_now(&mut self, blocks: &Range<u64>, source: &Source) -> Option<()> {
        match source {
            Source::Hole => self.zeroes(blocks),
            Source::Journal { file, at } => {
                let (skip, into) = self.take(blocks);
                return file.read_at_now(at + u64::from(skip), into).then_some(());
            }
        }
        Some(())
    }

    pub(super) fn outcome(&self) -> ReadOutcome {
        if self.has_data || self.into.is_empty() { ReadOutcome::Filled } else { ReadOutcome::Zeroes }
    }
}

/// The part of a buffer for `range` that `blocks` fill, and how many bytes of the first of them lie before it.
fn part_of(range: &ByteRange, blocks: &Range<u64>) -> (u32, Range<usize>) {
    let start = (blocks.start * BLOCK_SIZE).max(range.start().0);
    let end = (blocks.end * BLOCK_SIZE).min(range.end().0);
    let place = |at: u64| usize::try_from(at - range.start().0).unwrap_or(usize::MAX);
    // Less than a block.
    let skip = u32::try_from(start - blocks.start * BLOCK_SIZE).unwrap_or_default();
    (skip, place(start)..place(end))
}

/// These blocks of a segment, counted from its first.
pub(super) fn within(segment: SegmentIndex, blocks: &Range<u64>) -> Range<u64> {
    let first = segment.0 * BLOCKS_PER_SEGMENT;
    blocks.start - first..blocks.end - first
}
