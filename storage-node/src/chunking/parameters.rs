//! The sizes that chunks are cut to: part of a volume's format.

use super::{BLOCK_BYTES, MAX_CHUNK_BLOCKS};

/// How a volume's data is cut into chunks. Two volumes share chunks only if they have equal parameters. Invariants, with
/// all sizes in blocks:
/// * `1 <= minimum <= average <= maximum <= 32`, the most that an extent can refer to;
/// * the average is a power of two, so that which masks belong to it is beyond doubt.
///
/// Written down in four bytes:
///
/// | offset | bytes | field |
/// |---|---|---|
/// | 0 | 1 | algorithm: 1, which is FastCDC as [the module](super) describes it |
/// | 1 | 1 | minimum, in blocks |
/// | 2 | 1 | average, in blocks |
/// | 3 | 1 | maximum, in blocks |
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ChunkingParameters {
    minimum_blocks: u8,
    average_blocks: u8,
    maximum_blocks: u8,
}

/// Parameters that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidChunkingParameters {
    /// Made by a later program.
    #[error("chunks are cut by algorithm {found}; this program knows algorithm {ALGORITHM} only")]
    Algorithm {
        /// Its number.
        found: u8,
    },
    /// Sizes that do not go together.
    #[error(
        "chunks of {minimum_blocks} to {maximum_blocks} blocks, {average_blocks} on average, cannot be: it takes 1 <= \
         minimum <= average <= maximum <= {MAX_CHUNK_BLOCKS}, and an average that is a power of two"
    )]
    Sizes {
        /// The smallest chunk, in blocks.
        minimum_blocks: u8,
        /// The usual chunk, in blocks.
        average_blocks: u8,
        /// The largest chunk, in blocks.
        maximum_blocks: u8,
    },
}

impl ChunkingParameters {
    /// Chunks of these sizes, in blocks of 4 KiB.
    ///
    /// # Errors
    /// [`InvalidChunkingParameters::Sizes`].
    pub fn new(minimum_blocks: u8, average_blocks: u8, maximum_blocks: u8) -> Result<Self, InvalidChunkingParameters> {
        let is_ordered = 1 <= minimum_blocks && minimum_blocks <= average_blocks && average_blocks <= maximum_blocks;
        if is_ordered && average_blocks.is_power_of_two() && u16::from(maximum_blocks) <= MAX_CHUNK_BLOCKS {
            Ok(Self { minimum_blocks, average_blocks, maximum_blocks })
        } else {
            Err(InvalidChunkingParameters::Sizes { minimum_blocks, average_blocks, maximum_blocks })
        }
    }

    /// No chunk but the last of a run is shorter, in bytes.
    pub fn minimum_bytes(&self) -> usize {
        usize::from(self.minimum_blocks) * BLOCK_BYTES
    }

    /// What cuts are steered towards, in bytes.
    pub fn average_bytes(&self) -> usize {
        usize::from(self.average_blocks) * BLOCK_BYTES
    }

    /// What cuts are steered towards, in blocks.
    pub fn average_blocks(&self) -> u16 {
        self.average_blocks.into()
    }

    /// No chunk is longer, in bytes.
    pub fn maximum_bytes(&self) -> usize {
        usize::from(self.maximum_blocks) * BLOCK_BYTES
    }

    /// The parameters as they stand in a volume's record.
    pub fn encode(&self) -> [u8; 4] {
        [ALGORITHM, self.minimum_blocks, self.average_blocks, self.maximum_blocks]
    }

    /// The parameters that [`ChunkingParameters::encode`] has made these bytes of.
    ///
    /// # Errors
    /// [`InvalidChunkingParameters`].
    pub fn decode(bytes: [u8; 4]) -> Result<Self, InvalidChunkingParameters> {
        let [algorithm, minimum_blocks, average_blocks, maximum_blocks] = bytes;
        if algorithm != ALGORITHM {
            return Err(InvalidChunkingParameters::Algorithm { found: algorithm });
        }
        Self::new(minimum_blocks, average_blocks, maximum_blocks)
    }
}

impl Default for ChunkingParameters {
    /// 8 KiB at least, 32 KiB on average, 128 KiB at most.
    fn default() -> Self {
        Self { minimum_blocks: 2, average_blocks: 8, maximum_blocks: 32 }
    }
}

/// FastCDC of 2020, its cuts rounded up to whole blocks.
const ALGORITHM: u8 = 1;
