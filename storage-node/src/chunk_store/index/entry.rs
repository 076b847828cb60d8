//! Where a chunk is, as the index says it.
//!
//! The value under the id of a chunk, integers little-endian:
//!
//! | at | bytes | what |
//! |---|---|---|
//! | 0 | 8 | pack |
//! | 8 | 4 | number of the frame in the pack |
//! | 12 | 4 | first byte in the pack |
//! | 16 | 4 | bytes of the chunk |
//! | 20 | 4 | bytes that are stored |
//! | 24 | 1 | kind: 1 data, 2 manifest, 3 node, 4 checkpoint |
//! | 25 | 1 | encoding: 1 raw, 2 zstd |
//! | 26 | 4 each | CRC-32C of each 4 KiB of what is stored |

use sterna_types::ChunkId;

use super::IndexError;
use crate::chunk_store::pack::{Frame, FramePlace, PackId};

/// Where a chunk is, and how it is stored there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::chunk_store) struct IndexEntry {
    /// Which frame of which pack.
    pub(in crate::chunk_store) place: FramePlace,
    /// What is in it. Its offset counts from the start of the pack.
    pub(in crate::chunk_store) frame: Frame,
}

impl IndexEntry {
    pub(in crate::chunk_store) fn encode(&self) -> Vec<u8> {
        let mut value = Vec::with_capacity(FIXED_BYTES + 4 * self.frame.checksums.len());
        value.extend_from_slice(&self.place.pack.0.to_le_bytes());
        value.extend_from_slice(&self.place.number.to_le_bytes());
        for number in [self.frame.offset, self.frame.length, self.frame.stored_length()] {
            value.extend_from_slice(&number.to_le_bytes());
        }
        value.extend_from_slice(&[self.frame.kind_code(), self.frame.encoding_code()]);
        for checksum in &*self.frame.checksums {
            value.extend_from_slice(&checksum.to_le_bytes());
        }
        value
    }

    pub(in crate::chunk_store) fn decode(id: ChunkId, value: &[u8]) -> Result<Self, IndexError> {
        let damaged = || IndexError::Damaged { what: format!("the entry of chunk {id} cannot be read") };
        let (fixed, checksums) = value.split_at_checked(FIXED_BYTES).ok_or_else(damaged)?;
        let number = |at: usize| u32::from_le_bytes(fixed[at..at + 4].try_into().expect("four bytes"));
        let pack = PackId(u64::from_le_bytes(fixed[..8].try_into().expect("eight bytes")));
        let lengths = (number(16), number(20));
        let frame = Frame::from_parts(id, (fixed[24], fixed[25]), lengths, number(12), checksums);
        let frame = frame.filter(|frame| 4 * frame.checksums.len() == checksums.len()).ok_or_else(damaged)?;
        Ok(Self { place: FramePlace { pack, number: number(8) }, frame })
    }

    /// The entry of a chunk from a key and a value of the index.
    pub(in crate::chunk_store) fn of_pair(key: &[u8], value: &[u8]) -> Result<Self, IndexError> {
        let id: [u8; 32] = key
            .try_into()
            .map_err(|_| IndexError::Damaged { what: format!("a key of {} bytes is no chunk id", key.len()) })?;
        Self::decode(ChunkId::from_bytes(id), value)
    }
}

const FIXED_BYTES: usize = 26;
