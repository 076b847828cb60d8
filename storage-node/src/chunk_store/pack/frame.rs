//! One chunk as it is stored.

use std::sync::Arc;

use bytes::Bytes;
use sterna_types::{BLOCK_SIZE, ChunkId};

use crate::chunk_store::{ChunkKind, Encoding, MAX_CHUNK_BYTES, NewChunk, PIECE_BYTES, piece_checksums};

/// What is known about a chunk in a pack without its bytes.
///
/// Invariants: `1 <= length <= MAX_CHUNK_BYTES`; a compressed one is stored in at least one byte and in fewer than it has;
/// there is one checksum for each 4 KiB of what is stored; a data chunk is whole blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its name.
    pub id: ChunkId,
    /// What it is.
    pub kind: ChunkKind,
    /// How its bytes are kept.
    pub encoding: Encoding,
    /// Bytes of the chunk itself.
    pub length: u32,
    /// The first stored byte: in a batch header from the start of the payload, elsewhere from the start of the pack.
    pub offset: u32,
    /// CRC-32C of each 4 KiB of what is stored, the last piece possibly shorter.
    pub checksums: Arc<[u32]>,
}

impl Frame {
    /// How many bytes are stored.
    pub fn stored_length(&self) -> u32 {
        match self.encoding {
            Encoding::Raw => self.length,
            Encoding::Zstd { stored_length } => stored_length,
        }
    }

    /// Whether its first byte has to lie at a multiple of 4 KiB, so that one block is one aligned read.
    pub fn is_aligned(&self) -> bool {
        self.kind == ChunkKind::Data && self.encoding == Encoding::Raw
    }

    /// A frame from its fields as they are on a disk: codes of kind and encoding, lengths raw and stored, and the
    /// checksums, of which as many are taken as belong to it. `None` where they contradict an invariant.
    pub(in crate::chunk_store) fn from_parts(
        id: ChunkId,
        (kind, encoding): (u8, u8),
        (length, stored_length): (u32, u32),
        offset: u32,
        checksums: &[u8],
    ) -> Option<Self> {
        let kind = KINDS.iter().find(|(_, code)| *code == kind)?.0;
        let encoding = match encoding {
            RAW if stored_length == length => Encoding::Raw,
            ZSTD if (1..length).contains(&stored_length) => Encoding::Zstd { stored_length },
            _ => return None,
        };
        if length == 0 || length as usize > MAX_CHUNK_BYTES {
            return None;
        }
        if kind == ChunkKind::Data && !u64::from(length).is_multiple_of(BLOCK_SIZE) {
            return None;
        }
        let pieces = (stored_length as usize).div_ceil(PIECE_BYTES);
        let (checksums, _) = checksums.get(..4 * pieces)?.as_chunks::<4>();
        let checksums = checksums.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect();
        Some(Self { id, kind, encoding, length, offset, checksums })
    }

    pub(in crate::chunk_store) fn kind_code(&self) -> u8 {
        KINDS.iter().find(|(kind, _)| *kind == self.kind).map_or(0, |(_, code)| *code)
    }

    pub(in crate::chunk_store) fn encoding_code(&self) -> u8 {
        match self.encoding {
            Encoding::Raw => RAW,
            Encoding::Zstd { .. } => ZSTD,
        }
    }

    /// The chunk of these stored bytes, verified: `None` where they are not what was stored, or do not hash to the id.
    pub(in crate::chunk_store) fn open(&self, stored: &Bytes) -> Option<Bytes> {
        if stored.len() != self.stored_length() as usize || piece_checksums(stored) != *self.checksums {
            return None;
        }
        let bytes = match self.encoding {
            Encoding::Raw => stored.clone(),
            Encoding::Zstd { .. } => decompress(stored, self.length)?,
        };
        (crate::chunk_store::chunk_id(&bytes) == self.id).then_some(bytes)
    }
}

/// The `length` bytes that were compressed to `stored`; `None` where they were not.
pub(crate) fn decompress(stored: &[u8], length: u32) -> Option<Bytes> {
    // The bound holds for every frame that was parsed; a compressed text cannot ask for more.
    let length = usize::try_from(length).ok().filter(|length| *length <= MAX_CHUNK_BYTES)?;
    let bytes = zstd::bulk::decompress(stored, length).ok()?;
    (bytes.len() == length).then(|| bytes.into())
}

/// A chunk with its bytes as they are to be written.
#[derive(Clone, Debug)]
pub(in crate::chunk_store) struct StoredChunk {
    /// Its offset is not known yet, and 0.
    pub(in crate::chunk_store) frame: Frame,
    /// What is stored.
    pub(in crate::chunk_store) bytes: Bytes,
    /// See [`NewChunk::read_soon`].
    pub(in crate::chunk_store) read_soon: bool,
}

impl StoredChunk {
    /// A fresh chunk: data as it is, since a block of it must not cost more than a block; the others compressed if it saves.
    pub(in crate::chunk_store) fn fresh(chunk: &NewChunk) -> Self {
        let stored = match chunk.kind {
            ChunkKind::Data => Self::raw(chunk.id, chunk.kind, chunk.bytes.clone()),
            _ => Self::compressed(chunk.id, chunk.kind, chunk.bytes.clone()),
        };
        Self { read_soon: chunk.read_soon, ..stored }
    }

    pub(in crate::chunk_store) fn raw(id: ChunkId, kind: ChunkKind, bytes: Bytes) -> Self {
        Self::with(id, kind, (&bytes, Encoding::Raw), bytes.clone())
    }

    /// A cold chunk: compressed if that saves an eighth.
    pub(in crate::chunk_store) fn compressed(id: ChunkId, kind: ChunkKind, bytes: Bytes) -> Self {
        let limit = bytes.len() - bytes.len().div_ceil(8);
        match zstd::bulk::compress(&bytes, ZSTD_LEVEL) {
            Ok(stored) if (1..=limit).contains(&stored.len()) => {
                let stored_length = length_of(&stored);
                Self::with(id, kind, (&bytes, Encoding::Zstd { stored_length }), stored.into())
            }
            _ => Self::raw(id, kind, bytes),
        }
    }

    fn with(id: ChunkId, kind: ChunkKind, (contents, encoding): (&[u8], Encoding), bytes: Bytes) -> Self {
        let checksums = piece_checksums(&bytes).into();
        let frame = Frame { id, kind, encoding, length: length_of(contents), offset: 0, checksums };
        Self { frame, bytes, read_soon: false }
    }
}

fn length_of(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("a chunk is at most MAX_CHUNK_BYTES long")
}

/// Codes on disk. Zero is none of them.
const KINDS: [(ChunkKind, u8); 4] =
    [(ChunkKind::Data, 1), (ChunkKind::Manifest, 2), (ChunkKind::Node, 3), (ChunkKind::Checkpoint, 4)];
const RAW: u8 = 1;
const ZSTD: u8 = 2;
/// Compresses about as fast as a disk writes; higher levels save little on blocks of file systems.
const ZSTD_LEVEL: i32 = 3;
