//! Where a run of blocks is cut into chunks: FastCDC, its cuts rounded up to whole blocks.
//!
//! [`runs`] parts data into blocks of zeroes, which become holes, and runs of blocks between them; [`cut`] cuts such a run
//! into chunks. Where the cuts fall is part of a volume's format ([`ChunkingParameters`]), pinned by golden vectors: the
//! same data written again has to become the same chunks.
//!
//! The rule, of version 1. A run is cut from its start on. Let `rest` be what is left of it. A rest of at most the minimum
//! is one chunk. Else FastCDC (2020, normalisation level 1, the gear table of crate `fastcdc` 5) looks for a cut behind at
//! least the minimum and at most the maximum, or the end of the rest where that comes first; its place is rounded up to the
//! next whole block, and the search goes on from there with a fresh hash. The minimum, the maximum and the rest are whole
//! blocks, so rounding never goes beyond any of them. Only the last chunk of a run can be shorter than the minimum.

mod parameters;
#[cfg(test)]
mod tests;

use std::iter;
use std::ops::Range;

use fastcdc::v2020::{FastCDC, Normalization};

pub use parameters::{ChunkingParameters, InvalidChunkingParameters};

/// Bytes in a block, the unit of all cuts.
pub const BLOCK_BYTES: usize = 4096;
/// The most blocks that a chunk of data has: 128 KiB. What is read to serve a single block is bounded by it.
pub const MAX_CHUNK_BLOCKS: u16 = 32;

/// Part of the data that was given to [`runs`], in bytes from its start; whole blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Run {
    /// Blocks of nothing but zeroes.
    Zero(Range<usize>),
    /// Blocks each of which has a byte that is not 0.
    Data(Range<usize>),
}

/// The runs of zero blocks and of other blocks that `data` consists of: all of it, in order, each as long as can be.
///
/// # Panics
/// Where `data` is not a whole number of blocks.
pub fn runs(data: &[u8]) -> impl Iterator<Item = Run> {
    let (blocks, rest) = data.as_chunks::<BLOCK_BYTES>();
    assert!(rest.is_empty(), "{} bytes are no whole number of blocks", data.len());
    let mut at = 0;
    iter::from_fn(move || {
        let is_zero = is_zero(blocks.get(at)?);
        let start = at * BLOCK_BYTES;
        at = blocks[at..].iter().position(|block| self::is_zero(block) != is_zero).map_or(blocks.len(), |n| at + n);
        let range = start..at * BLOCK_BYTES;
        Some(if is_zero { Run::Zero(range) } else { Run::Data(range) })
    })
}

/// The chunks that `data` is cut into: all of it, in order, each of one to
/// [`ChunkingParameters::maximum_bytes`] bytes and a whole number of blocks.
///
/// ```
/// use sterna_storage_node::chunking::{ChunkingParameters, cut};
///
/// let cuts: Vec<_> = cut(&ChunkingParameters::default(), &[7; 300 << 10]).collect();
/// assert_eq!(cuts, [0..128 << 10, 128 << 10..256 << 10, 256 << 10..300 << 10]);
/// ```
///
/// # Panics
/// Where `data` is not a whole number of blocks.
pub fn cut<'a>(parameters: &ChunkingParameters, data: &'a [u8]) -> impl Iterator<Item = Range<usize>> + use<'a> {
    assert!(data.len().is_multiple_of(BLOCK_BYTES), "{} bytes are no whole number of blocks", data.len());
    let chunker = FastCDC::with_level(
        data,
        parameters.minimum_bytes(),
        parameters.average_bytes(),
        parameters.maximum_bytes(),
        Normalization::Level1,
    );
    let mut at = 0;
    iter::from_fn(move || {
        let remaining = data.len() - at;
        if remaining == 0 {
            return None;
        }
        let start = at;
        at = chunker.cut(start, remaining).1.next_multiple_of(BLOCK_BYTES);
        Some(start..at)
    })
}

/// Whether there is nothing but zeroes in the block. The C library compares blocks with the widest registers there are,
/// and most blocks of data differ from zeroes in their first bytes.
pub fn is_zero(block: &[u8; BLOCK_BYTES]) -> bool {
    static ZEROES: [u8; BLOCK_BYTES] = [0; BLOCK_BYTES];
    block == &ZEROES
}

const _: () = assert!(BLOCK_BYTES as u64 == sterna_types::BLOCK_SIZE);
