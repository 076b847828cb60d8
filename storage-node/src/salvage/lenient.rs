//! A file read as far as it can be: what the device does not give is zeroes, which no checksum takes for data.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::disk::DiskFile;

/// Reads on where the device fails, and counts how much it did not give. Refuses to be written.
pub(super) struct LenientFile {
    file: Arc<dyn DiskFile>,
    unreadable_bytes: AtomicU64,
}

impl LenientFile {
    pub(super) fn new(file: Arc<dyn DiskFile>) -> Self {
        Self { file, unreadable_bytes: AtomicU64::new(0) }
    }

    /// How many bytes were asked for that the device did not give.
    pub(super) fn unreadable_bytes(&self) -> u64 {
        self.unreadable_bytes.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for LenientFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LenientFile").field("file", &self.file).finish_non_exhaustive()
    }
}

impl DiskFile for LenientFile {
    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        match self.file.read_at(at, into) {
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => {}
            read => return read,
        }
        for (number, piece) in (0..).zip(into.chunks_mut(PIECE_BYTES)) {
            if self.file.read_at(at + number * PIECE_BYTES as u64, piece).is_err() {
                piece.fill(0);
                self.unreadable_bytes.fetch_add(piece.len() as u64, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    fn read_at_now(&self, at: u64, into: &mut [u8]) -> bool {
        self.file.read_at_now(at, into)
    }

    fn write_at(&self, _at: u64, _parts: &[&[u8]]) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn drop_cached(&self) {
        self.file.drop_cached();
    }

    fn sync(&self) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn allocate(&self, _length: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }
}

/// What a device fails to read at once, at most: a physical sector.
const PIECE_BYTES: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Disk, SimulatedDisk};

    #[test]
    fn what_cannot_be_read_is_zero_and_counted() {
        let disk = SimulatedDisk::new();
        let file = disk.create("file").expect("a file");
        file.write_at(0, &[&[7; 10_000]]).expect("a write");
        let lenient = LenientFile::new(file);
        let mut bytes = [1; 10_000];
        disk.fail_next_read();
        lenient.read_at(0, &mut bytes).expect("what there is");
        assert_eq!((bytes, lenient.unreadable_bytes()), ([7; 10_000], 0), "read again, it was there");
        disk.crash_after(0);
        disk.create("other").expect_err("the machine stops");
        lenient.read_at(0, &mut bytes).expect("what there is");
        assert_eq!((bytes, lenient.unreadable_bytes()), ([0; 10_000], 10_000));
        lenient.write_at(0, &[b"x"]).expect_err("a write");
    }
}
