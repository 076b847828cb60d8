//! A batch of frames in a pack: a header that describes them, and the payload that has their bytes.
//!
//! The header, padded with zeroes to a multiple of 4 KiB:
//!
//! | at | bytes | what |
//! |---|---|---|
//! | 0 | 8 | magic `STRNBTCH` |
//! | 8 | 4 | version: 1 |
//! | 12 | 4 | CRC-32C of all of the header behind this field, padding included |
//! | 16 | 8 | id of the pack |
//! | 24 | 8 | where in the pack this header begins |
//! | 32 | 4 | bytes of the header |
//! | 36 | 4 | bytes of the payload area behind it, a multiple of 4 KiB |
//! | 40 | 4 | how many frames |
//! | 44 | 4 | the number of the first frame; the others count on |
//! | 48 | | the frames |
//!
//! Each frame:
//!
//! | at | bytes | what |
//! |---|---|---|
//! | 0 | 32 | chunk id |
//! | 32 | 1 | kind: 1 data, 2 manifest, 3 node, 4 checkpoint |
//! | 33 | 1 | encoding: 1 raw, 2 zstd |
//! | 34 | 2 | zero |
//! | 36 | 4 | bytes of the chunk |
//! | 40 | 4 | bytes that are stored |
//! | 44 | 4 | first byte in the payload area; a multiple of 4 KiB for raw data |
//! | 48 | 4 each | CRC-32C of each 4 KiB of what is stored |
//!
//! Since the header says which pack it is of and where, one that a guest has written into its own disk is taken for what it
//! is: bytes.

use sterna_types::ChunkId;

use super::{ALIGNMENT, Frame, PACK_VERSION, PackId, StoredChunk, u32_at, u64_at};
use crate::chunk_store::{MAX_CHUNK_BYTES, PIECE_BYTES};

/// The longest payload area: what one write puts into the kernel at once, and one compaction keeps in memory.
pub(in crate::chunk_store) const MAX_PAYLOAD_BYTES: usize = 32 << 20;
/// The most frames of a batch, so that its header stays short beside its payload.
pub(in crate::chunk_store) const MAX_FRAMES: usize = 8192;
/// The longest header: each frame with its fixed part, one checksum for each 4 KiB of payload and one for a piece begun.
pub(super) const MAX_HEADER_BYTES: usize =
    (FIXED_BYTES + MAX_FRAMES * FRAME_BYTES + 4 * (MAX_FRAMES + MAX_PAYLOAD_BYTES / PIECE_BYTES))
        .next_multiple_of(ALIGNMENT);
const _: () = assert!(MAX_CHUNK_BYTES <= MAX_PAYLOAD_BYTES && FIXED_BYTES < ALIGNMENT && FRAME_BYTES == 48);

const MAGIC: &[u8; 8] = b"STRNBTCH";
const FIXED_BYTES: usize = 48;
const FRAME_BYTES: usize = 48;
const CHECKED_FROM: usize = 16;

/// What a batch header says. Invariants: each frame lies in the payload area; raw data is aligned there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// The pack that it is in.
    pub pack: PackId,
    /// Where in the pack it begins.
    pub offset: u64,
    /// Its own length, in bytes.
    pub header_bytes: u32,
    /// The length of the payload area behind it, in bytes.
    pub payload_bytes: u32,
    /// The number of its first frame.
    pub first_frame: u32,
    /// The frames, their offsets counted from the start of the payload area.
    pub frames: Vec<Frame>,
}

/// Why bytes are not a batch header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBatch {
    /// Something else is there.
    #[error("no batch begins here")]
    NoMagic,
    /// Another version of Sterna wrote it.
    #[error("the batch has version {0}, and this program reads version {PACK_VERSION}")]
    Version(u32),
    /// More bytes are needed to tell.
    #[error("the batch header has {0} bytes, of which fewer are here")]
    Truncated(usize),
    /// The header is damaged.
    #[error("the checksum of the batch header differs")]
    Checksum,
    /// The header checks, and says what cannot be.
    #[error("the batch header contradicts itself")]
    Contradiction,
}

impl BatchHeader {
    /// How long the header is that begins with these bytes, of which 4 KiB are enough.
    ///
    /// # Errors
    /// [`InvalidBatch`]. The length is not verified, but it is at most 512 KiB.
    pub fn length(bytes: &[u8]) -> Result<usize, InvalidBatch> {
        if bytes.len() < FIXED_BYTES {
            return Err(InvalidBatch::Truncated(FIXED_BYTES));
        }
        if &bytes[..8] != MAGIC {
            return Err(InvalidBatch::NoMagic);
        }
        match u32_at(bytes, 8) {
            PACK_VERSION => (),
            other => return Err(InvalidBatch::Version(other)),
        }
        let length = u32_at(bytes, 32) as usize;
        let possible = length.is_multiple_of(ALIGNMENT) && (ALIGNMENT..=MAX_HEADER_BYTES).contains(&length);
        if possible { Ok(length) } else { Err(InvalidBatch::Checksum) }
    }

    /// Reads the header that begins with these bytes. It allocates no more than they are long.
    ///
    /// # Errors
    /// [`InvalidBatch`].
    pub fn parse(bytes: &[u8]) -> Result<Self, InvalidBatch> {
        let length = Self::length(bytes)?;
        let bytes = bytes.get(..length).ok_or(InvalidBatch::Truncated(length))?;
        if crc32c::crc32c(&bytes[CHECKED_FROM..]) != u32_at(bytes, 12) {
            return Err(InvalidBatch::Checksum);
        }
        let (payload_bytes, count) = (u32_at(bytes, 36), u32_at(bytes, 40) as usize);
        let payload_fits =
            payload_bytes as usize <= MAX_PAYLOAD_BYTES && (payload_bytes as usize).is_multiple_of(ALIGNMENT);
        let first_frame = u32_at(bytes, 44);
        let numbers_fit = u32::try_from(count).is_ok_and(|count| first_frame.checked_add(count).is_some());
        if !payload_fits || !numbers_fit || count > (length - FIXED_BYTES) / FRAME_BYTES {
            return Err(InvalidBatch::Contradiction);
        }
        let mut frames = Vec::with_capacity(count);
        let mut rest = &bytes[FIXED_BYTES..];
        for _ in 0..count {
            let (frame, behind) = parse_frame(rest, payload_bytes).ok_or(InvalidBatch::Contradiction)?;
            frames.push(frame);
            rest = behind;
        }
        let (pack, offset, header_bytes) = (PackId(u64_at(bytes, 16)), u64_at(bytes, 24), u32_at(bytes, 32));
        Ok(Self { pack, offset, header_bytes, payload_bytes, first_frame, frames })
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.header_bytes as usize);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&PACK_VERSION.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&self.pack.0.to_le_bytes());
        bytes.extend_from_slice(&self.offset.to_le_bytes());
        let count = u32::try_from(self.frames.len()).expect("at most MAX_FRAMES");
        for number in [self.header_bytes, self.payload_bytes, count, self.first_frame] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        for frame in &self.frames {
            bytes.extend_from_slice(frame.id.as_bytes());
            bytes.extend_from_slice(&[frame.kind_code(), frame.encoding_code(), 0, 0]);
            for number in [frame.length, frame.stored_length(), frame.offset] {
                bytes.extend_from_slice(&number.to_le_bytes());
            }
            frame.checksums.iter().for_each(|checksum| bytes.extend_from_slice(&checksum.to_le_bytes()));
        }
        bytes.resize(self.header_bytes as usize, 0);
        let checksum = crc32c::crc32c(&bytes[CHECKED_FROM..]);
        bytes[12..16].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }
}

fn parse_frame(bytes: &[u8], payload_bytes: u32) -> Option<(Frame, &[u8])> {
    let (fixed, behind) = bytes.split_at_checked(FRAME_BYTES)?;
    let id = ChunkId::from_bytes(fixed[..32].try_into().ok()?);
    let lengths = (u32_at(fixed, 36), u32_at(fixed, 40));
    let frame = Frame::from_parts(id, (fixed[32], fixed[33]), lengths, u32_at(fixed, 44), behind)?;
    let within = frame.offset.checked_add(frame.stored_length()).is_some_and(|end| end <= payload_bytes);
    let placed = !frame.is_aligned() || (frame.offset as usize).is_multiple_of(ALIGNMENT);
    let rest = &behind[4 * frame.checksums.len()..];
    (within && placed).then_some((frame, rest))
}

/// A batch that is ready to be written.
#[derive(Debug)]
pub(in crate::chunk_store) struct BatchLayout<'a> {
    header: Vec<u8>,
    header_bytes: u32,
    /// The frames in the order of their numbers, their offsets counted from the start of the pack.
    pub(in crate::chunk_store) frames: Vec<Frame>,
    payload: Vec<&'a [u8]>,
    padding: usize,
    /// Bytes of header and payload.
    pub(in crate::chunk_store) length: u64,
}

impl<'a> BatchLayout<'a> {
    /// How many of the first of these chunks make one batch: at least one, if there is any.
    pub(in crate::chunk_store) fn fitting(chunks: &[StoredChunk]) -> usize {
        let mut bytes = 0;
        let fits = |chunk: &&StoredChunk| {
            bytes += chunk.bytes.len();
            bytes <= MAX_PAYLOAD_BYTES
        };
        chunks.iter().take(MAX_FRAMES).take_while(fits).count()
    }

    /// Lays out as many chunks as [`BatchLayout::fitting`] says at `offset` of a pack: what has to be aligned first, since
    /// that is whole blocks, and the rest tightly behind it.
    pub(in crate::chunk_store) fn new(pack: PackId, offset: u64, first_frame: u32, chunks: &'a [StoredChunk]) -> Self {
        let (aligned, packed): (Vec<_>, Vec<_>) = chunks.iter().partition(|chunk| chunk.frame.is_aligned());
        let (mut frames, mut payload, mut at) = (Vec::with_capacity(chunks.len()), Vec::new(), 0u32);
        for chunk in aligned.into_iter().chain(packed) {
            frames.push(Frame { offset: at, ..chunk.frame.clone() });
            payload.push(&chunk.bytes[..]);
            at += chunk.frame.stored_length();
        }
        let payload_bytes = at.next_multiple_of(ALIGNMENT_U32);
        let checksums: usize = frames.iter().map(|frame| frame.checksums.len()).sum();
        let header_bytes = FIXED_BYTES + FRAME_BYTES * frames.len() + 4 * checksums;
        let header_bytes = u32::try_from(header_bytes.next_multiple_of(ALIGNMENT)).expect("at most MAX_HEADER_BYTES");
        let mut header = BatchHeader { pack, offset, header_bytes, payload_bytes, first_frame, frames };
        let encoded = header.encode();
        debug_assert_eq!(BatchHeader::parse(&encoded).as_ref(), Ok(&header), "a batch that cannot be read");
        let payload_at = u32::try_from(offset).expect("packs are short") + header_bytes;
        header.frames.iter_mut().for_each(|frame| frame.offset += payload_at);
        Self {
            header: encoded,
            header_bytes,
            frames: header.frames,
            payload,
            padding: (payload_bytes - at) as usize,
            length: u64::from(header_bytes) + u64::from(payload_bytes),
        }
    }

    /// What is to be written, in order.
    pub(in crate::chunk_store) fn parts(&self) -> Vec<&[u8]> {
        debug_assert_eq!(self.header.len(), self.header_bytes as usize);
        let mut parts = Vec::with_capacity(self.payload.len() + 2);
        parts.push(&self.header[..]);
        parts.extend_from_slice(&self.payload);
        parts.push(&ZEROES[..self.padding]);
        parts
    }
}

const ALIGNMENT_U32: u32 = 4096;
const _: () = assert!(ALIGNMENT_U32 as usize == ALIGNMENT);
static ZEROES: [u8; ALIGNMENT] = [0; ALIGNMENT];
