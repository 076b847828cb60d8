//! A journal's file.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic `STRNJRNL` |
//! | 8 | 4 | version, 1 |
//! | 12 | 4 | CRC-32C of the 24 bytes behind it |
//! | 16 | 8 | volume id |
//! | 24 | 8 | file number |
//! | 32 | 8 | salt of this use of the file |
//! | 40 | | zero up to 4,096, where the first record begins |

use std::fmt;
use std::io;
use std::sync::Arc;

use sterna_types::VolumeId;

use crate::disk::DiskFile;

/// Where the first record begins: behind a page of its own, so that no append touches the header's sector.
pub(super) const FIRST_RECORD: u64 = 4096;

/// The place of a file among those of its volume; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct FileNumber(pub u64);

impl FileNumber {
    /// The one behind it.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
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
}

impl FileHeader {
    pub(super) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.volume.0.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.number.0.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.salt.to_le_bytes());
        let checksum = crc32c::crc32c(&bytes[16..]);
        bytes[12..16].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// What these bytes say; `None` where they are no header of a version that is known here.
    pub(super) fn parse(bytes: &[u8; HEADER_BYTES]) -> Option<Self> {
        let number = |at: usize| {
            let mut field = [0; 8];
            field.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(field)
        };
        let sound = &bytes[..8] == MAGIC
            && bytes[8..12] == VERSION.to_le_bytes()
            && bytes[12..16] == crc32c::crc32c(&bytes[16..]).to_le_bytes();
        sound.then(|| Self { volume: VolumeId(number(16)), number: FileNumber(number(24)), salt: number(32) })
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
        let header = FileHeader { volume: VolumeId(1), number: FileNumber(1), salt: 1 };
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

pub(super) const HEADER_BYTES: usize = 40;
const MAGIC: &[u8; 8] = b"STRNJRNL";
const VERSION: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_the_one_that_is_documented() {
        let header = FileHeader { volume: VolumeId(7), number: FileNumber(0x1f), salt: 0x0102_0304_0506_0708 };
        let bytes = header.encode();
        assert_eq!(&bytes[..12], b"STRNJRNL\x01\0\0\0");
        assert_eq!(bytes[16..], *b"\x07\0\0\0\0\0\0\0\x1f\0\0\0\0\0\0\0\x08\x07\x06\x05\x04\x03\x02\x01");
        assert_eq!(FileHeader::parse(&bytes), Some(header));
        for at in 0..HEADER_BYTES {
            let mut damaged = bytes;
            damaged[at] ^= 0x10;
            assert_eq!(FileHeader::parse(&damaged), None, "byte {at} is not looked at");
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
