//! Making a pack, in memory.

use bytes::Bytes;
use sterna_storage_node::chunk_store::ChunkKind;
use sterna_types::ChunkId;

use super::{
    END_MAGIC, ENTRY_BYTES, Encoding, Entry, HEAD_BYTES, HEADER_BYTES, MAGIC, MAX_FRAMES, TRAILER_BYTES, VERSION,
    kind_number, put_fields,
};

/// A pack that is being made: at most its target and a chunk of memory.
#[derive(Debug)]
pub(crate) struct PackWriter {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    target_bytes: usize,
}

impl PackWriter {
    /// One that is full at so many bytes.
    pub(crate) fn new(target_bytes: usize) -> Self {
        let mut bytes = Vec::with_capacity(HEAD_BYTES);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        Self { bytes, entries: Vec::new(), target_bytes }
    }

    /// Adds a chunk, compressed where that makes it smaller. Takes a processor for some microseconds of each KiB.
    ///
    /// # Panics
    /// Where it is a checkpoint, or longer than a chunk can be.
    pub(crate) fn add(&mut self, id: ChunkId, kind: ChunkKind, contents: &[u8]) {
        assert!(kind_number(kind).is_some(), "checkpoints stay on the node whose disk they are about");
        let compressed = zstd::bulk::compress(contents, LEVEL).ok().filter(|bytes| bytes.len() < contents.len());
        let (encoding, stored) = match &compressed {
            Some(compressed) => (Encoding::Zstd, compressed.as_slice()),
            None => (Encoding::Raw, contents),
        };
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).expect("a chunk has at most 256 KiB");
        let offset = u32::try_from(self.bytes.len()).expect("a pack has less than 4 GiB");
        let entry = Entry { id, kind, encoding, length: length(contents), stored_length: length(stored), offset };
        let begin = self.bytes.len();
        put_fields(&entry, &mut self.bytes);
        self.bytes.extend_from_slice(&crc32c::crc32c(stored).to_le_bytes());
        let crc = crc32c::crc32c(&self.bytes[begin..]);
        self.bytes.extend_from_slice(&crc.to_le_bytes());
        debug_assert_eq!(self.bytes.len() - begin, HEADER_BYTES);
        self.bytes.extend_from_slice(stored);
        self.entries.push(entry);
    }

    /// Whether it has as much as a pack is to have.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes.len() >= self.target_bytes || self.entries.len() >= MAX_FRAMES
    }

    /// Whether frames of so many bytes make it no longer than a pack may be.
    pub(crate) fn has_room_for(&self, frames: u64, bytes: u64) -> bool {
        self.is_empty()
            || (self.bytes.len() as u64 + bytes <= self.target_bytes as u64
                && self.entries.len() as u64 + frames <= MAX_FRAMES as u64)
    }

    /// Whether nothing is in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// All of the pack, and its index.
    pub(crate) fn finish(self) -> (Bytes, Vec<Entry>) {
        let Self { mut bytes, entries, .. } = self;
        let begin = bytes.len();
        bytes.reserve_exact(entries.len() * ENTRY_BYTES + TRAILER_BYTES);
        for entry in &entries {
            put_fields(entry, &mut bytes);
            bytes.extend_from_slice(&entry.offset.to_le_bytes());
        }
        let crc = crc32c::crc32c(&bytes[begin..]);
        let trailer = bytes.len();
        let count = u32::try_from(entries.len()).expect("a pack has at most 65,536 frames");
        bytes.extend_from_slice(&count.to_le_bytes());
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes.extend_from_slice(&(begin as u64).to_le_bytes());
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[trailer..]);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes.extend_from_slice(END_MAGIC);
        (bytes.into(), entries)
    }
}

/// As the wire has it: the next ones take twice the time for a twentieth less.
const LEVEL: i32 = 3;
