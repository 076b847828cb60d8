//! Where a run of blocks of a segment is found.

use sterna_types::{BLOCKS_PER_SEGMENT, ChunkId};

use crate::chunking::MAX_CHUNK_BLOCKS;

/// Blocks in a segment, as extents count them.
pub const SEGMENT_BLOCKS: u16 = 1024;

/// A run of blocks of a segment that lies in one chunk. Invariants, which [`Extent::check`] checks and every extent of a
/// [`Manifest`](super::Manifest) keeps:
/// * it has at least one block, and ends within the segment;
/// * it ends within the first [`MAX_CHUNK_BLOCKS`] of its chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Extent {
    /// Its first block, counted from the start of the segment.
    pub first_block: u16,
    /// How many blocks.
    pub block_count: u16,
    /// The chunk that they are in.
    pub chunk: ChunkId,
    /// Where the first of them is, in blocks from the start of the chunk.
    pub first_in_chunk: u16,
}

/// Part of a range of blocks that was looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Piece {
    /// Blocks that are in a chunk.
    Mapped(Extent),
    /// Blocks of zeroes, which are nowhere.
    Hole {
        /// The first of them, counted from the start of the segment.
        first_block: u16,
        /// How many.
        block_count: u16,
    },
}

/// An extent, or a range of blocks, that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidExtent {
    /// No blocks, or such as the segment does not have.
    #[error("{block_count} blocks from block {first_block} on are no run of blocks of a segment of {SEGMENT_BLOCKS}")]
    OutsideSegment {
        /// The first block of the range.
        first_block: u16,
        /// Its length in blocks.
        block_count: u16,
    },
    /// Blocks that no chunk has.
    #[error(
        "{block_count} blocks from block {first_in_chunk} of a chunk on end beyond the {MAX_CHUNK_BLOCKS} blocks that a \
         chunk has"
    )]
    OutsideChunk {
        /// The first block in the chunk.
        first_in_chunk: u16,
        /// How many blocks.
        block_count: u16,
    },
    /// An extent that begins before the previous one has ended.
    #[error("the extent at block {first_block} begins before block {previous_end}, where the one before it ends")]
    Disorder {
        /// The first block of the extent.
        first_block: u16,
        /// The block behind the last one of its predecessor.
        previous_end: u16,
    },
}

impl Extent {
    /// The block behind the last one, counted from the start of the segment.
    pub fn end_block(&self) -> u16 {
        self.first_block + self.block_count
    }

    /// Whether the invariants of the type hold.
    ///
    /// # Errors
    /// [`InvalidExtent`], never [`InvalidExtent::Disorder`].
    pub fn check(&self) -> Result<(), InvalidExtent> {
        check_blocks(self.first_block, self.block_count)?;
        match self.first_in_chunk.checked_add(self.block_count) {
            Some(end) if end <= MAX_CHUNK_BLOCKS => Ok(()),
            _ => {
                Err(InvalidExtent::OutsideChunk { first_in_chunk: self.first_in_chunk, block_count: self.block_count })
            }
        }
    }

    /// Whether `next` goes on where this one ends, in the segment and in the same chunk, so that both are one.
    pub fn is_continued_by(&self, next: &Self) -> bool {
        self.end_block() == next.first_block
            && self.chunk == next.chunk
            && self.first_in_chunk + self.block_count == next.first_in_chunk
    }

    /// The part of it in the blocks from `first` up to and without `end`, where there is any.
    pub(crate) fn part(&self, first: u16, end: u16) -> Option<Self> {
        let (from, to) = (first.max(self.first_block), end.min(self.end_block()));
        let first_in_chunk = self.first_in_chunk + from.checked_sub(self.first_block)?;
        (from < to).then(|| Self { first_block: from, block_count: to - from, chunk: self.chunk, first_in_chunk })
    }
}

impl Piece {
    /// Its first block, counted from the start of the segment.
    pub fn first_block(&self) -> u16 {
        match self {
            Self::Mapped(extent) => extent.first_block,
            Self::Hole { first_block, .. } => *first_block,
        }
    }

    /// How many blocks.
    pub fn block_count(&self) -> u16 {
        match self {
            Self::Mapped(extent) => extent.block_count,
            Self::Hole { block_count, .. } => *block_count,
        }
    }

    /// The block behind the last one, counted from the start of the segment.
    pub fn end_block(&self) -> u16 {
        self.first_block() + self.block_count()
    }
}

/// Whether these are blocks of a segment, at least one.
pub(crate) fn check_blocks(first_block: u16, block_count: u16) -> Result<(), InvalidExtent> {
    match first_block.checked_add(block_count) {
        Some(end) if block_count > 0 && end <= SEGMENT_BLOCKS => Ok(()),
        _ => Err(InvalidExtent::OutsideSegment { first_block, block_count }),
    }
}

const _: () = assert!(SEGMENT_BLOCKS as u64 == BLOCKS_PER_SEGMENT);
