//! A journal's file.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic `STRNJRNL` |
//! | 8 | 4 | version, 1 |
//! | 12 | 4 | CRC-32C of the 120 bytes behind it |
//! | 16 | 8 | volume id |
//! | 24 | 8 | file number |
//! | 32 | 8 | salt of this use of the file |
//! | 40 | 96 | note of the volume: the checkpoint that the journal stood on when the file was begun, or zeroes |
//! | 136 | | zero |
//! | 2,048 | 136 | the header again, in a sector of its own |
//! | 2,184 | | zero up to 4,096, where the first record begins |
//!
//! A header lies within one sector, so a loss of power leaves each copy as it was or as it is to be. The first copy that
//! checks counts. A file in a volume's directory of which neither does is damaged: it got its name only when it had both.

use std::fmt;
use std::io;
use std::sync::Arc;

use sterna_types::VolumeId;

use crate::disk::DiskFile;

/// Where the first record begins: behind a page of its own, so that no append touches the header's sector.
pub(super) const FIRST_RECORD: u64 = 4096;

/// Bytes of the note in a file's header.
pub const NOTE_BYTES: usize = 96;

/// What a volume wants to be told when nothing but its journal is left: what the journal stands on. To the journal it is
/// bytes.
pub type JournalNote = [u8; NOTE_BYTES];

/// The place of a file among those of its volume; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct FileNumber(pub u64);

impl FileNumber {
    /// The one behind it.
    #[must_use]
    pub fn next(self) -> Self {
        // No history gets to the end of the numbers; what a damaged disk says might.
        Self(self.0.saturating_add(1))
    }

    /// The name of the file in the volume's journal directory.
    pub(super) fn file_name(self) -> String {
        format!("{:016x}.journal", self.0)
    }

    /// The file that a file of this name is.
    pub(super) fn of_file_name(name: &str) -> Option<Self> {
        let digits = name.strip_suffix(".journal")?;
        let number = u64::from_str_radix(digits, 16).ok().map(Self)?;
        (number.file_name() == name).then_some(number)
    }
}

impl fmt::Display for FileNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What the header of a file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileHeader {
    pub(super) volume: VolumeId,
    pub(super) number: FileNumber,
    pub(super) salt: u64,
    pub(super) note: JournalNote,
}

impl FileHeader {
    /// All that comes before the first record.
    pub(super) fn encode_page(&self) -> [u8; PAGE_BYTES] {
        let mut page = [0; PAGE_BYTES];
        page[..HEADER_BYTES].copy_from_slice(&self.encode());
        page[SECOND_COPY..SECOND_COPY + HEADER_BYTES].copy_from_slice(&self.encode());
        page
    }

    /// What the first copy in a page says that checks; `None` where neither does.
    pub(super) fn parse_page(page: &[u8; PAGE_BYTES]) -> Option<Self> {
        [0, SECOND_COPY].into_iter().find_map(|at| page[at..].first_chunk().and_then(Self::parse))
    }

    fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.volume.0.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.number.0.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.salt.to_le_bytes());
        bytes[40..].copy_from_slice(&self.note);
        let checksum = crc32c::crc32c(&bytes[16..]);
        bytes[12..16].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// What these bytes say; `None` where they are no header of a version that is known here.
    fn parse(bytes: &[u8; HEADER_BYTES]) -> Option<Self> {
        let number = |at: usize| {
            let mut field = [0; 8];
            field.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(field)
        };
        let sound = &bytes[..8] == MAGIC
            && bytes[8..12] == VERSION.to_le_bytes()
            && bytes[12..16] == crc32c::crc32c(&bytes[16..]).to_le_bytes();
        let mut note = [0; NOTE_BYTES];
        note.copy_from_slice(&bytes[40..]);
        let (volume, number, salt) = (VolumeId(number(16)), FileNumber(number(24)), number(32));
        sound.then_some(Self { volume, number, salt, note })
    }
}

/// A file in use. Whoever holds it can read the payloads in it; it is written over only once nobody does.
#[derive(Debug)]
pub struct JournalFile {
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) header: FileHeader,
    /// How many bytes it may come to have.
    pub(super) length: u64,
    /// Where the file is, relative to the data directory.
    pub(super) path: String,
}

impl JournalFile {
    /// A file that holds nothing, for what only has to hold one.
    #[cfg(test)]
    pub(crate) fn for_tests() -> Self {
        let file = crate::disk::Disk::create(&crate::disk::SimulatedDisk::new(), "file").expect("a new file");
        let header = FileHeader { volume: VolumeId(1), number: FileNumber(1), salt: 1, note: [0; NOTE_BYTES] };
        Self { file, header, length: FIRST_RECORD, path: "file".to_owned() }
    }

    /// Its place among those of its volume.
    pub fn number(&self) -> FileNumber {
        self.header.number
    }

    /// Fills `into` with the bytes from `at` on: a payload, or a part of one.
    ///
    /// # Errors
    /// What the system says.
    pub fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        self.file.read_at(at, into)
    }

    /// The same if it can be done without waiting for a device.
    pub fn read_at_now(&self, at: u64, into: &mut [u8]) -> bool {
        self.file.read_at_now(at, into)
    }

    /// Bytes behind `at`.
    pub(super) fn room_from(&self, at: u64) -> u64 {
        self.length.saturating_sub(at)
    }
}

const HEADER_BYTES: usize = 40 + NOTE_BYTES;
/// Where the second copy of the header begins.
const SECOND_COPY: usize = 2048;
/// Bytes before the first record.
pub(super) const PAGE_BYTES: usize = 4096;
const _: () = assert!(PAGE_BYTES as u64 == FIRST_RECORD && HEADER_BYTES <= 512 && SECOND_COPY.is_multiple_of(512));
const MAGIC: &[u8; 8] = b"STRNJRNL";
const VERSION: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> FileHeader {
        let note = std::array::from_fn(|at| u8::try_from(at).expect("96 bytes"));
        FileHeader { volume: VolumeId(7), number: FileNumber(0x1f), salt: 0x0102_0304_0506_0708, note }
    }

    #[test]
    fn the_header_is_the_one_that_is_documented() {
        let header = example();
        let bytes = header.encode();
        assert_eq!(&bytes[..12], b"STRNJRNL\x01\0\0\0");
        assert_eq!(bytes[16..40], *b"\x07\0\0\0\0\0\0\0\x1f\0\0\0\0\0\0\0\x08\x07\x06\x05\x04\x03\x02\x01");
        assert_eq!(bytes[40..], header.note);
        assert_eq!(FileHeader::parse(&bytes), Some(header));
        for at in 0..HEADER_BYTES {
            let mut damaged = bytes;
            damaged[at] ^= 0x10;
            assert_eq!(FileHeader::parse(&damaged), None, "byte {at} is not looked at");
        }
    }

    #[test]
    fn a_page_is_read_while_one_of_its_headers_is_whole() {
        let page = example().encode_page();
        assert_eq!(page[SECOND_COPY..][..HEADER_BYTES], page[..HEADER_BYTES]);
        for (first, second, found) in [(0, 0, true), (1, 0, true), (0, 1, true), (1, 1, false)] {
            let mut damaged = page;
            damaged[20] ^= first;
            damaged[SECOND_COPY + 20] ^= second;
            assert_eq!(FileHeader::parse_page(&damaged), found.then(example), "{first} {second}");
        }
    }

    #[test]
    fn the_name_of_a_file_is_its_number() {
        assert_eq!(FileNumber(0x1f).file_name(), "000000000000001f.journal");
        assert_eq!(FileNumber::of_file_name("000000000000001f.journal"), Some(FileNumber(0x1f)));
        for name in ["1f.journal", "000000000000001F.journal", "000000000000001f", "+00000000000001f.journal", ""] {
            assert_eq!(FileNumber::of_file_name(name), None, "{name}");
        }
    }
}
