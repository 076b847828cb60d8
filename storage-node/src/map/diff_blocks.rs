//! The blocks in which two roots differ.

use std::collections::VecDeque;
use std::sync::Arc;

use sterna_types::{BLOCKS_PER_SEGMENT, BlockIndex, ChunkId, Root, SegmentIndex};

use super::cache::NodeCache;
use super::diff::{Diff, SegmentChange, diff};
use super::error::MapError;
use super::extent::{Piece, SEGMENT_BLOCKS};
use super::manifest::Manifest;
use super::tree::manifest;
use crate::chunk_store::{ChunkStore, StoreError};
use crate::chunking::BLOCK_BYTES;

/// Consecutive blocks, all in one segment, that differ in the same way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChangedBlocks {
    /// The first of them.
    pub first: BlockIndex,
    /// How many.
    pub count: u64,
    /// What became of them.
    pub change: BlockChange,
}

/// What became of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockChange {
    /// A hole before, data now.
    Written,
    /// Data before, and elsewhere now.
    Replaced,
    /// Data before, a hole now.
    Cleared,
}

/// When two blocks count as different.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// When they are in different chunks, or in different places of one, or one of them is a hole. Reads no data. Equal
    /// contents can be in different chunks: what is reported holds every block that differs, and perhaps others.
    Places,
    /// When their contents differ; a hole is equal to zeroes. Reads the data of all blocks whose places differ.
    Contents,
}

/// The blocks in which two roots differ, in order. The cost is that of the difference. An error is the last that it yields.
pub fn diff_blocks<'a>(
    store: &'a dyn ChunkStore,
    cache: &'a NodeCache,
    old: Root,
    new: Root,
    comparison: Comparison,
) -> DiffBlocks<'a> {
    DiffBlocks { store, cache, comparison, segments: diff(store, cache, old, new), found: VecDeque::new() }
}

/// What [`diff_blocks`] returns.
#[derive(Debug)]
pub struct DiffBlocks<'a> {
    store: &'a dyn ChunkStore,
    cache: &'a NodeCache,
    comparison: Comparison,
    segments: Diff<'a>,
    /// What was found in the segment that was looked at last and has not been yielded; at most one run for each block.
    found: VecDeque<ChangedBlocks>,
}

/// Where a block is: in which chunk, and which block of it; `None` for a hole.
type Place = Option<(ChunkId, u16)>;

/// Blocks whose places differ, from `first` of the segment on; the first of them is there.
#[derive(Clone, Copy)]
struct Moved {
    first: u16,
    count: u16,
    old: Place,
    new: Place,
}

impl DiffBlocks<'_> {
    fn look_at(&mut self, change: SegmentChange) -> Result<(), MapError> {
        let read = |id: Option<ChunkId>| match id {
            Some(id) => manifest(self.store, self.cache, id, change.segment),
            None => Ok(Arc::new(Manifest::default())),
        };
        for moved in moved(&*read(change.old)?, &*read(change.new)?) {
            match self.comparison {
                Comparison::Places => self.found(change.segment, moved, moved.first, moved.count),
                Comparison::Contents => self.compare(change.segment, moved)?,
            }
        }
        Ok(())
    }

    /// Finds those blocks of `moved` whose contents differ.
    fn compare(&mut self, segment: SegmentIndex, moved: Moved) -> Result<(), MapError> {
        let old = self.read(segment, moved.old, moved.count)?;
        let new = self.read(segment, moved.new, moved.count)?;
        let blocks = old.as_chunks::<BLOCK_BYTES>().0.iter().zip(new.as_chunks::<BLOCK_BYTES>().0);
        for (block, (old, new)) in (moved.first..).zip(blocks) {
            if old != new {
                self.found(segment, moved, block, 1);
            }
        }
        Ok(())
    }

    /// The contents of `count` blocks from `place` on, at most those of a chunk.
    fn read(&self, segment: SegmentIndex, place: Place, count: u16) -> Result<Vec<u8>, MapError> {
        let mut bytes = vec![0; usize::from(count) * BLOCK_BYTES];
        if let Some((chunk, first)) = place {
            let location = self.store.locate(chunk)?.ok_or(StoreError::Missing { id: chunk })?;
            let from = usize::from(first) * BLOCK_BYTES;
            if usize::try_from(location.length).is_ok_and(|length| length < from + bytes.len()) {
                let (block, length) = (first + count - 1, location.length);
                return Err(MapError::BeyondChunk { segment, chunk, block, length });
            }
            let from = u32::try_from(from).expect("a chunk has at most 128 KiB");
            self.store.read(&location, from, &mut bytes)?;
        }
        Ok(bytes)
    }

    /// Notes that `count` blocks of `moved` differ, from `first` of the segment on.
    fn found(&mut self, segment: SegmentIndex, moved: Moved, first: u16, count: u16) {
        let change = match (moved.old, moved.new) {
            (None, _) => BlockChange::Written,
            (Some(_), Some(_)) => BlockChange::Replaced,
            (Some(_), None) => BlockChange::Cleared,
        };
        let first = segment.0 * BLOCKS_PER_SEGMENT + u64::from(first);
        match self.found.back_mut() {
            Some(last) if last.change == change && last.first.0 + last.count == first => last.count += u64::from(count),
            _ => self.found.push_back(ChangedBlocks { first: BlockIndex(first), count: count.into(), change }),
        }
    }
}

impl Iterator for DiffBlocks<'_> {
    type Item = Result<ChangedBlocks, MapError>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.found.is_empty() {
            let looked = self.segments.next()?.and_then(|change| self.look_at(change));
            if let Err(error) = looked {
                self.found.clear();
                self.segments.stop();
                return Some(Err(error));
            }
        }
        self.found.pop_front().map(Ok)
    }
}

/// The runs of blocks whose places differ between two manifests, each in at most one chunk of either.
fn moved(old: &Manifest, new: &Manifest) -> Vec<Moved> {
    let (mut olds, mut news) = (old.lookup(0, SEGMENT_BLOCKS), new.lookup(0, SEGMENT_BLOCKS));
    let (mut old, mut new) = (olds.next(), news.next());
    let mut moved = Vec::new();
    let mut at = 0;
    while let (Some(in_old), Some(in_new)) = (old, new) {
        let end = in_old.end_block().min(in_new.end_block());
        let (old_place, new_place) = (place_in(&in_old, at), place_in(&in_new, at));
        if old_place != new_place {
            moved.push(Moved { first: at, count: end - at, old: old_place, new: new_place });
        }
        at = end;
        if in_old.end_block() == end {
            old = olds.next();
        }
        if in_new.end_block() == end {
            new = news.next();
        }
    }
    moved
}

/// Where a block is that lies in `piece`.
fn place_in(piece: &Piece, block: u16) -> Place {
    match piece {
        Piece::Mapped(extent) => Some((extent.chunk, extent.first_in_chunk + (block - extent.first_block))),
        Piece::Hole { .. } => None,
    }
}
