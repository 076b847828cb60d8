//! A segment's manifest with the places of its chunks, as reading wants it.

use std::ops::Range;

use sterna_types::{BLOCK_SIZE, SegmentIndex};

use super::error::VolumeError;
use crate::chunk_store::{ChunkStore, Location, StoreError};
use crate::map::Manifest;

/// The extents of one segment, each with the place of its chunk.
#[derive(Debug, Default)]
pub(super) struct SegmentMap {
    extents: Box<[ResolvedExtent]>,
    locations: Box<[Location]>,
}

#[derive(Debug)]
struct ResolvedExtent {
    first_block: u16,
    block_count: u16,
    first_in_chunk: u16,
    /// Which of the locations.
    location: u16,
}

/// A run of blocks of a segment.
#[derive(Debug)]
pub(super) struct SegmentPiece<'a> {
    /// Counted from the segment's first.
    pub(super) blocks: Range<u64>,
    /// The chunk, and the byte of it at which the run begins; `None` for a hole.
    pub(super) chunk: Option<(&'a Location, u32)>,
}

impl SegmentMap {
    /// Looks up where the chunks of a manifest are.
    pub(super) fn resolve(
        store: &dyn ChunkStore,
        segment: SegmentIndex,
        manifest: &Manifest,
    ) -> Result<Self, VolumeError> {
        let mut locations: Vec<Location> = Vec::new();
        let mut extents = Vec::with_capacity(manifest.extents().len());
        let mut known = std::collections::HashMap::new();
        for extent in manifest.extents() {
            let index = match known.get(&extent.chunk) {
                Some(index) => *index,
                None => {
                    let location = store.locate(extent.chunk)?.ok_or(StoreError::Missing { id: extent.chunk })?;
                    let index = u16::try_from(locations.len()).map_err(|_| VolumeError::DamagedSegment { segment })?;
                    locations.push(location);
                    known.insert(extent.chunk, index);
                    index
                }
            };
            let end = (u64::from(extent.first_in_chunk) + u64::from(extent.block_count)) * BLOCK_SIZE;
            if end > u64::from(locations[usize::from(index)].length) {
                return Err(VolumeError::DamagedSegment { segment });
            }
            extents.push(ResolvedExtent {
                first_block: extent.first_block,
                block_count: extent.block_count,
                first_in_chunk: extent.first_in_chunk,
                location: index,
            });
        }
        Ok(Self { extents: extents.into(), locations: locations.into() })
    }

    /// All of `blocks`, counted from the segment's first, in order.
    pub(super) fn pieces(&self, blocks: Range<u64>) -> impl Iterator<Item = SegmentPiece<'_>> {
        let ends_before = |extent: &ResolvedExtent| extent.end() <= blocks.start;
        let mut next = self.extents.partition_point(ends_before);
        let (mut at, end) = (blocks.start, blocks.end);
        std::iter::from_fn(move || {
            if at >= end {
                return None;
            }
            let extent = self.extents.get(next).filter(|extent| u64::from(extent.first_block) < end);
            let piece = match extent {
                None => SegmentPiece { blocks: at..end, chunk: None },
                Some(extent) if u64::from(extent.first_block) > at => {
                    SegmentPiece { blocks: at..u64::from(extent.first_block), chunk: None }
                }
                Some(extent) => {
                    next += 1;
                    let skipped = at - u64::from(extent.first_block);
                    let from = (u64::from(extent.first_in_chunk) + skipped) * BLOCK_SIZE;
                    // Within a chunk's length, which is a `u32`, as `resolve` has checked.
                    let from = u32::try_from(from).unwrap_or(u32::MAX);
                    let location = &self.locations[usize::from(extent.location)];
                    SegmentPiece { blocks: at..extent.end().min(end), chunk: Some((location, from)) }
                }
            };
            at = piece.blocks.end;
            Some(piece)
        })
    }

    /// Bytes of memory that it takes, roughly.
    pub(super) fn weight_bytes(&self) -> u64 {
        let checksums: usize = self.locations.iter().map(|location| location.checksums.len() * 4).sum();
        let fixed = self.extents.len() * size_of::<ResolvedExtent>() + self.locations.len() * size_of::<Location>();
        (fixed + checksums + size_of::<Self>()) as u64
    }
}

impl ResolvedExtent {
    fn end(&self) -> u64 {
        u64::from(self.first_block) + u64::from(self.block_count)
    }
}
