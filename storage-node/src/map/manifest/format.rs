//! How a manifest is written down. There is one way only, so that equal manifests are one chunk:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | magic `SMfs` |
//! | 4 | 2 | version, 1 |
//! | 6 | 2 | c: number of distinct chunks, 1 to 1,024 |
//! | 8 | 2 | e: number of extents, c to 1,024 |
//! | 10 | 2 | 0 |
//! | 12 | 32 c | ids of the chunks, in the order of their first use by an extent, none twice |
//! | 12 + 32 c | 8 e | the extents, in the order of their blocks |
//!
//! An extent, without its chunk's id:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 2 | first block in the segment |
//! | 2 | 2 | number of blocks, 1 to 32 |
//! | 4 | 2 | index of the chunk in the table of ids |
//! | 6 | 2 | first block in the chunk |
//!
//! Integers are little-endian. An extent that continues the one before it in the same chunk is part of it.

use std::collections::HashSet;

use bytes::{BufMut, Bytes, BytesMut};
use sterna_types::ChunkId;

use super::super::extent::{Extent, InvalidExtent, SEGMENT_BLOCKS};
use super::Manifest;

/// Bytes that are no manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestFormatError {
    /// Not even a header.
    #[error("{length} bytes are too few for a manifest, whose header has {HEADER_BYTES}")]
    NoHeader {
        /// How many there are.
        length: usize,
    },
    /// Something else.
    #[error("a manifest begins with {MAGIC:02x?}, this with {found:02x?}")]
    Magic {
        /// How it begins.
        found: [u8; 4],
    },
    /// Written by a later program.
    #[error("a manifest of version {found}; this program reads version {VERSION}")]
    Version {
        /// Its version.
        found: u16,
    },
    /// A field that has to be 0.
    #[error("the bytes at offset 10 of a manifest are {found:#06x} and have to be 0")]
    Reserved {
        /// What is there.
        found: u16,
    },
    /// Counts that do not go together.
    #[error("a manifest cannot have {chunks} chunks and {extents} extents")]
    Counts {
        /// How many distinct chunks it says it has.
        chunks: u16,
        /// How many extents.
        extents: u16,
    },
    /// More or fewer bytes than the counts say.
    #[error("a manifest of {expected} bytes by its counts has {found}")]
    Length {
        /// How many it should have.
        expected: usize,
        /// How many it has.
        found: usize,
    },
    /// An id that is in the table twice.
    #[error("chunk {id} is twice in the table of a manifest")]
    DuplicateChunk {
        /// The id.
        id: ChunkId,
    },
    /// A table that is not in the order of first use.
    #[error("extent {extent} names chunk {found} of the table, where the next one to be used is {next}")]
    ChunkOrder {
        /// Which extent, from 0.
        extent: usize,
        /// The index that it has.
        found: u16,
        /// The lowest index that no extent before it has.
        next: u16,
    },
    /// Ids that no extent needs.
    #[error("the extents of a manifest use {used} of the {chunks} chunks in its table")]
    UnusedChunks {
        /// How many distinct chunks it has.
        chunks: u16,
        /// How many of them are used.
        used: u16,
    },
    /// An extent that cannot be.
    #[error("extent {extent} of a manifest: {source}")]
    Extent {
        /// Which extent, from 0.
        extent: usize,
        /// What is wrong with it.
        source: InvalidExtent,
    },
    /// Two extents that are one.
    #[error("extent {extent} of a manifest continues the one before it, and has to be a part of it")]
    NotMerged {
        /// The second of them, from 0.
        extent: usize,
    },
}

impl Manifest {
    /// The bytes of the manifest's chunk; `None` for an empty one, which has no chunk.
    pub fn encode(&self) -> Option<Bytes> {
        if self.is_empty() {
            return None;
        }
        let (chunks, indices) = self.table();
        let count = |number: usize| u16::try_from(number).expect("a segment has at most 1,024 extents");
        let mut bytes = BytesMut::with_capacity(encoded_length(chunks.len(), self.extents.len()));
        bytes.put_slice(&MAGIC);
        bytes.put_u16_le(VERSION);
        bytes.put_u16_le(count(chunks.len()));
        bytes.put_u16_le(count(self.extents.len()));
        bytes.put_u16_le(0);
        chunks.iter().for_each(|id| bytes.put_slice(id.as_bytes()));
        for (extent, index) in self.extents.iter().zip(indices) {
            bytes.put_u16_le(extent.first_block);
            bytes.put_u16_le(extent.block_count);
            bytes.put_u16_le(index);
            bytes.put_u16_le(extent.first_in_chunk);
        }
        Some(bytes.freeze())
    }

    /// The manifest that [`Manifest::encode`] has made these bytes of. No other bytes are accepted.
    ///
    /// # Errors
    /// [`ManifestFormatError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, ManifestFormatError> {
        let Some((header, body)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
            return Err(ManifestFormatError::NoHeader { length: bytes.len() });
        };
        let (chunks, extents) = check_header(header)?;
        let expected = encoded_length(usize::from(chunks), usize::from(extents));
        if bytes.len() != expected {
            return Err(ManifestFormatError::Length { expected, found: bytes.len() });
        }
        let (table, packed) = body.split_at(usize::from(chunks) * ID_BYTES);
        let table: Vec<ChunkId> = table.as_chunks().0.iter().map(|id| ChunkId::from_bytes(*id)).collect();
        check_distinct(&table)?;
        decode_extents(&table, packed.as_chunks().0)
    }
}

/// The numbers of chunks and extents.
fn check_header(header: &[u8; HEADER_BYTES]) -> Result<(u16, u16), ManifestFormatError> {
    let [m0, m1, m2, m3, fields @ ..] = *header;
    let [version, chunks, extents, reserved] = le_u16s(fields);
    if [m0, m1, m2, m3] != MAGIC {
        return Err(ManifestFormatError::Magic { found: [m0, m1, m2, m3] });
    }
    if version != VERSION {
        return Err(ManifestFormatError::Version { found: version });
    }
    if reserved != 0 {
        return Err(ManifestFormatError::Reserved { found: reserved });
    }
    if chunks == 0 || extents < chunks || extents > SEGMENT_BLOCKS {
        return Err(ManifestFormatError::Counts { chunks, extents });
    }
    Ok((chunks, extents))
}

fn check_distinct(table: &[ChunkId]) -> Result<(), ManifestFormatError> {
    let mut seen = HashSet::with_capacity(table.len());
    match table.iter().find(|id| !seen.insert(**id)) {
        Some(&id) => Err(ManifestFormatError::DuplicateChunk { id }),
        None => Ok(()),
    }
}

fn decode_extents(table: &[ChunkId], packed: &[[u8; EXTENT_BYTES]]) -> Result<Manifest, ManifestFormatError> {
    let mut extents: Vec<Extent> = Vec::with_capacity(packed.len());
    let mut next = 0;
    for (number, packed) in packed.iter().enumerate() {
        let [first_block, block_count, index, first_in_chunk] = le_u16s(*packed);
        let chunk = match table.get(usize::from(index)) {
            Some(&chunk) if index <= next => chunk,
            _ => return Err(ManifestFormatError::ChunkOrder { extent: number, found: index, next }),
        };
        next = next.max(index + 1);
        let extent = Extent { first_block, block_count, chunk, first_in_chunk };
        let invalid = |source| ManifestFormatError::Extent { extent: number, source };
        extent.check().map_err(invalid)?;
        if let Some(previous) = extents.last() {
            let previous_end = previous.end_block();
            if first_block < previous_end {
                return Err(invalid(InvalidExtent::Disorder { first_block, previous_end }));
            }
            if previous.is_continued_by(&extent) {
                return Err(ManifestFormatError::NotMerged { extent: number });
            }
        }
        extents.push(extent);
    }
    let chunks = u16::try_from(table.len()).unwrap_or(u16::MAX);
    if next != chunks {
        return Err(ManifestFormatError::UnusedChunks { chunks, used: next });
    }
    Ok(Manifest { extents })
}

fn le_u16s(bytes: [u8; 8]) -> [u16; 4] {
    let [a, b, c, d, e, f, g, h] = bytes;
    [[a, b], [c, d], [e, f], [g, h]].map(u16::from_le_bytes)
}

const fn encoded_length(chunks: usize, extents: usize) -> usize {
    HEADER_BYTES + chunks * ID_BYTES + extents * EXTENT_BYTES
}

/// "Sterna manifest".
const MAGIC: [u8; 4] = *b"SMfs";
const VERSION: u16 = 1;
const HEADER_BYTES: usize = 12;
const ID_BYTES: usize = 32;
const EXTENT_BYTES: usize = 8;

const _: () = assert!(size_of::<ChunkId>() == ID_BYTES);
const _: () = assert!(
    encoded_length(SEGMENT_BLOCKS as usize, SEGMENT_BLOCKS as usize) <= crate::chunk_store::MAX_CHUNK_BYTES,
    "a manifest in which every block is in a chunk of its own is a chunk"
);
