//! Many chunks as one object: frames one behind the other, an index of them behind these, and a trailer that says where that begins.
//!
//! | part | bytes | what |
//! |---|---|---|
//! | head | 16 | magic `STRNBPAK`, version (u32), 4 bytes of zero |
//! | frames | | one for each chunk |
//! | index | 48 each | one [`Entry`] for each frame, in their order |
//! | trailer | 32 | number of frames (u32), CRC-32C of the index (u32), where the index begins (u64), version (u32), CRC-32C of the 20 bytes before it (u32), magic `STRNBEND` |
//!
//! A frame is a header of 52 bytes, and what is kept of the chunk:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 32 | id of the chunk |
//! | 32 | 1 | kind: 1 data, 2 manifest, 3 node |
//! | 33 | 1 | encoding: 0 as it is, 1 zstd |
//! | 34 | 2 | 0 |
//! | 36 | 4 | bytes of the chunk |
//! | 40 | 4 | bytes that are kept of it |
//! | 44 | 4 | CRC-32C of these |
//! | 48 | 4 | CRC-32C of the 48 bytes before |
//!
//! An entry has the first 44 bytes of the frame's header, and then where the frame begins (u32). All numbers are little-endian.
//!
//! A chunk is found by one request for the end of the pack and one for the frame. The header in front of each frame makes the frame be
//! known for what it is wherever it is met. A pack is written by one request, so there is all of it or nothing; it is never altered.

mod reader;
#[cfg(test)]
mod tests;
mod writer;

use sterna_storage_node::chunk_store::{ChunkKind, MAX_CHUNK_BYTES};
use sterna_types::ChunkId;

pub(crate) use reader::{TAIL_BYTES, decode_frame, parse_tail, where_index_begins};
pub(crate) use writer::PackWriter;

/// What the index of a pack says of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The chunk.
    pub id: ChunkId,
    /// What it is.
    pub kind: ChunkKind,
    /// How it is kept.
    pub encoding: Encoding,
    /// Bytes of the chunk.
    pub length: u32,
    /// Bytes that are kept of it.
    pub stored_length: u32,
    /// Where the frame begins.
    pub offset: u32,
}

impl Entry {
    /// Bytes of the frame.
    pub fn frame_bytes(&self) -> u32 {
        HEADER_BYTES_U32 + self.stored_length
    }
}

/// How a chunk is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// As it is.
    Raw,
    /// Compressed with zstd.
    Zstd,
}

/// When a pack has so many bytes it is sent: enough that a request is not what it costs, little enough to be kept in memory.
pub const TARGET_BYTES: usize = 32 << 20;
/// The most chunks of one pack.
pub(crate) const MAX_FRAMES: usize = 1 << 16;

pub(crate) const VERSION: u32 = 1;
const MAGIC: &[u8; 8] = b"STRNBPAK";
const END_MAGIC: &[u8; 8] = b"STRNBEND";
const HEAD_BYTES: usize = 16;
pub(crate) const HEADER_BYTES: usize = 52;
const HEADER_BYTES_U32: u32 = 52;
const ENTRY_BYTES: usize = 48;
const TRAILER_BYTES: usize = 32;

/// The longest pack that is taken for one.
pub(crate) const MAX_PACK_BYTES: u64 =
    (HEAD_BYTES + TARGET_BYTES + 2 * (MAX_CHUNK_BYTES + HEADER_BYTES) + MAX_FRAMES * ENTRY_BYTES + TRAILER_BYTES)
        as u64;
const _: () = assert!(MAX_PACK_BYTES < u32::MAX as u64);

fn kind_number(kind: ChunkKind) -> Option<u8> {
    match kind {
        ChunkKind::Data => Some(1),
        ChunkKind::Manifest => Some(2),
        ChunkKind::Node => Some(3),
        // Of a node's own disk; roots are found by the records of volumes.
        ChunkKind::Checkpoint => None,
    }
}

fn kind_of(number: u8) -> Option<ChunkKind> {
    [ChunkKind::Data, ChunkKind::Manifest, ChunkKind::Node].into_iter().find(|kind| kind_number(*kind) == Some(number))
}

/// The first 44 bytes of a frame's header, and of an entry.
fn put_fields(entry: &Entry, into: &mut Vec<u8>) {
    into.extend_from_slice(entry.id.as_bytes());
    into.push(kind_number(entry.kind).unwrap_or_default());
    into.push(u8::from(entry.encoding == Encoding::Zstd));
    into.extend_from_slice(&[0; 2]);
    into.extend_from_slice(&entry.length.to_le_bytes());
    into.extend_from_slice(&entry.stored_length.to_le_bytes());
}

/// What these say, if it can be; `offset` is known otherwise.
fn take_fields(bytes: &[u8; 44], offset: u32) -> Option<Entry> {
    let id = ChunkId::from_bytes(*bytes.first_chunk()?);
    let encoding = match bytes[33] {
        0 => Encoding::Raw,
        1 => Encoding::Zstd,
        _ => return None,
    };
    let entry = Entry {
        id,
        kind: kind_of(bytes[32])?,
        encoding,
        length: u32_at(bytes, 36)?,
        stored_length: u32_at(bytes, 40)?,
        offset,
    };
    let fits = |length: u32| (1..=MAX_CHUNK_BYTES).contains(&(length as usize));
    let is_sound = fits(entry.length) && fits(entry.stored_length) && entry.stored_length <= entry.length;
    let is_whole = encoding == Encoding::Zstd || entry.stored_length == entry.length;
    (is_sound && is_whole && bytes[34..36] == [0; 2]).then_some(entry)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_le_bytes)
}
