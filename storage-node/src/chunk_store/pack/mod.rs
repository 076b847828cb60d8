//! Pack files: where the bytes of chunks are.
//!
//! A pack is `packs/<its id, 16 hexadecimal digits>.pack`: a header block, then batches, each behind the other. Everything
//! begins at a multiple of 4 KiB. Integers are little-endian. A pack can be read without the index ([`PackScanner`]).
//!
//! The header block, 4 KiB, the rest of it zeroes:
//!
//! | at | bytes | what |
//! |---|---|---|
//! | 0 | 8 | magic `STRNPACK` |
//! | 8 | 4 | version: 1 |
//! | 12 | 4 | CRC-32C of the 8 bytes that follow |
//! | 16 | 8 | id of the pack |
//!
//! What follows are batches: [`BatchHeader`] is what their headers say. Invariants:
//! * a pack is written by one process, from its beginning to its end, and never again;
//! * a batch whose header checks says of each byte behind it what it is, up to the next batch;
//! * no two frames of a pack have the same number, and the numbers of a pack's frames rise.

mod batch;
mod frame;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

use std::fmt;

pub use batch::{BatchHeader, InvalidBatch};
pub(super) use batch::{BatchLayout, MAX_PAYLOAD_BYTES};
pub use frame::Frame;
pub(super) use frame::StoredChunk;
pub(crate) use frame::decompress;
pub(super) use reader::read_stored;
pub use reader::{PackScanner, ScannedFrame, Verdict};
pub(super) use writer::PackWriter;

/// The directory of the packs.
pub(crate) const PACK_DIRECTORY: &str = "packs";
/// The unit that everything in a pack is aligned to: a block, so that one is one aligned read.
pub(super) const ALIGNMENT: usize = 4096;
/// The version of what is written.
pub const PACK_VERSION: u32 = 1;
/// A pack that has reached this length is full, unless the store is told a shorter one. It bounds what one compaction has to hold in the file system twice, the
/// time to read a pack, and the number of files: 65,536 of them hold the largest volume.
pub(super) const FULL_PACK_BYTES: u64 = 1 << 30;
// Offsets in a pack are kept in 32 bits.
const _: () = assert!(FULL_PACK_BYTES + 2 * (MAX_PAYLOAD_BYTES as u64) < u32::MAX as u64);

/// A pack. Ids rise in the order in which packs are made; the one of a pack that was removed may be given out again after
/// a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackId(pub u64);

impl fmt::Display for PackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl PackId {
    /// The path of the file, relative to the data directory.
    pub fn path(self) -> String {
        format!("{PACK_DIRECTORY}/{}", self.file_name())
    }

    fn file_name(self) -> String {
        format!("{self}.pack")
    }

    /// The pack that a file with this name is; `None` where it is none.
    pub fn of_file_name(name: &str) -> Option<Self> {
        let digits = name.strip_suffix(".pack")?;
        let id = Self(u64::from_str_radix(digits, 16).ok()?);
        (id.file_name() == name).then_some(id)
    }
}

/// A frame of a pack: the number is unique within it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FramePlace {
    pub(super) pack: PackId,
    pub(super) number: u32,
}

/// The header block of a pack.
fn pack_header(id: PackId) -> [u8; ALIGNMENT] {
    let mut block = [0; ALIGNMENT];
    block[..8].copy_from_slice(PACK_MAGIC);
    block[8..12].copy_from_slice(&PACK_VERSION.to_le_bytes());
    block[16..24].copy_from_slice(&id.0.to_le_bytes());
    let checksum = crc32c::crc32c(&block[16..24]);
    block[12..16].copy_from_slice(&checksum.to_le_bytes());
    block
}

const PACK_MAGIC: &[u8; 8] = b"STRNPACK";

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
