//! Blocks that say what they are: whoever reads one can tell whether it is whole, and who wrote it, when, and where to.
//!
//! Each of the eight sectors of a block says it for itself, because half a block is what a torn write leaves:
//!
//! | bytes | what |
//! |---|---|
//! | 0..8 | `STERNAOR` |
//! | 8..16 | the seed of the oracle that wrote it |
//! | 16..24 | the index of the block on its disk |
//! | 24..32 | its sequence number |
//! | 32..40 | the number of the sector in its block |
//! | 40..504 | random bytes, from all of the above |
//! | 504..512 | checksum of all of the above |

use crate::random::Random;

/// What is written at once, and has to be there as a whole or not at all.
pub const BLOCK_BYTES: usize = 4096;

const SECTOR_BYTES: usize = 512;
const SECTORS: u64 = (BLOCK_BYTES / SECTOR_BYTES) as u64;
const MAGIC: u64 = u64::from_le_bytes(*b"STERNAOR");
const CHECKSUM_AT: usize = 504;

/// Which write a block is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The seed of the oracle.
    pub seed: u64,
    /// The block's index on the disk.
    pub block: u64,
    /// The write's number; later ones have greater numbers.
    pub sequence: u64,
}

/// What a block turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// All zeros.
    Zeros,
    /// One write, all of it.
    Written(Stamp),
    /// Each sector is good, but they are not from one write; `None` is a sector of zeros.
    Torn(Vec<Option<Stamp>>),
    /// This sector is nothing that an oracle writes.
    Garbage {
        /// The sector's number in the block.
        sector: usize,
    },
}

impl Stamp {
    /// The block's bytes.
    pub fn to_bytes(self) -> Vec<u8> {
        (0..SECTORS).flat_map(|sector| self.sector(sector)).collect()
    }

    fn sector(self, sector: u64) -> Vec<u8> {
        let words = [MAGIC, self.seed, self.block, self.sequence, sector];
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let mut random = Random::new(checksum(&bytes));
        while bytes.len() < CHECKSUM_AT {
            bytes.extend(random.bits().to_le_bytes());
        }
        bytes.extend(checksum(&bytes).to_le_bytes());
        bytes
    }
}

impl Content {
    /// What these bytes are.
    ///
    /// # Panics
    /// They are not one block.
    pub fn of(bytes: &[u8]) -> Self {
        assert_eq!(bytes.len(), BLOCK_BYTES, "not one block");
        let mut stamps = Vec::new();
        for (index, sector) in bytes.chunks_exact(SECTOR_BYTES).enumerate() {
            match stamp_of(sector, index as u64) {
                _ if sector.iter().all(|&byte| byte == 0) => stamps.push(None),
                Some(stamp) => stamps.push(Some(stamp)),
                None => return Self::Garbage { sector: index },
            }
        }
        match stamps[0] {
            first if stamps.iter().any(|&stamp| stamp != first) => Self::Torn(stamps),
            Some(stamp) => Self::Written(stamp),
            None => Self::Zeros,
        }
    }
}

/// Whose sector this is, if it is one, as it was written.
fn stamp_of(sector: &[u8], index: u64) -> Option<Stamp> {
    let word = |at: usize| Some(u64::from_le_bytes(sector.get(at..at + 8)?.try_into().ok()?));
    let is_whole = word(CHECKSUM_AT)? == checksum(&sector[..CHECKSUM_AT]);
    let is_here = word(0)? == MAGIC && word(32)? == index;
    (is_whole && is_here).then_some(Stamp { seed: word(8)?, block: word(16)?, sequence: word(24)? })
}

/// FNV-1a, 64 bits.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, &byte| (sum ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp { seed: 7, block: 8, sequence: 9 };

    #[test]
    fn a_block_is_told_from_any_that_differs_in_one_bit() {
        let bytes = STAMP.to_bytes();
        assert_eq!(Content::of(&bytes), Content::Written(STAMP));
        for at in 0..BLOCK_BYTES {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << (at % 8);
            assert_eq!(Content::of(&damaged), Content::Garbage { sector: at / SECTOR_BYTES }, "byte {at}");
        }
    }

    #[test]
    fn halves_of_two_blocks_are_torn() {
        let other = Stamp { sequence: 10, ..STAMP };
        let halves = [&other.to_bytes()[..2048], &STAMP.to_bytes()[2048..]].concat();
        assert_eq!(Content::of(&halves), Content::Torn([[Some(other); 4], [Some(STAMP); 4]].concat()));
        let halves = [&STAMP.to_bytes()[..2048], &[0; 2048]].concat();
        assert_eq!(Content::of(&halves), Content::Torn([[Some(STAMP); 4], [None; 4]].concat()));
    }

    #[test]
    fn sectors_in_a_wrong_place_are_garbage() {
        let mut bytes = STAMP.to_bytes();
        bytes.rotate_left(SECTOR_BYTES);
        assert_eq!(Content::of(&bytes), Content::Garbage { sector: 0 });
        assert_eq!(Content::of(&[0; BLOCK_BYTES]), Content::Zeros);
        assert_eq!(Content::of(&[1; BLOCK_BYTES]), Content::Garbage { sector: 0 });
    }
}
