//! Writing past the page cache (`O_DIRECT`, open(2)).
//!
//! A device takes what it is to write from memory that is aligned as it is itself, so everything goes through a buffer that
//! is: a copy into memory that is in use all the time, in place of one into pages of the page cache that are new each time.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::{Mutex, PoisonError};

/// What places, lengths and memory are multiples of: the logical block of any device, and the page of most machines.
const ALIGNMENT: usize = 4096;

/// Bytes that are written with one call: more are hardly faster.
const STAGED_BYTES: usize = 4 << 20;

/// Whether the parts, one behind the other from `at` on, can be written so.
pub(super) fn takes(at: u64, parts: &[&[u8]]) -> bool {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    at.is_multiple_of(ALIGNMENT as u64) && length.is_multiple_of(ALIGNMENT)
}

/// The buffer through which all files of a disk are written, one at a time. It has no memory before it is used.
#[derive(Debug, Default)]
pub(super) struct Staging(Mutex<Vec<u8>>);

/// A file that is open a second time, past the page cache.
#[derive(Debug)]
pub(super) struct DirectFile(File);

impl DirectFile {
    /// The same file, whatever its name is by now; `None` where the system cannot do it.
    pub(super) fn of(file: &File) -> Option<Self> {
        let again = format!("/proc/self/fd/{}", file.as_raw_fd());
        let direct = i32::try_from(rustix::fs::OFlags::DIRECT.bits()).ok()?;
        OpenOptions::new().write(true).custom_flags(direct).open(again).ok().map(Self)
    }

    /// Writes the parts, for which [`takes`] holds.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] where the device asks for more than that, and what else the system says; then any part of
    /// it may have been written.
    pub(super) fn write_at(&self, staging: &Staging, mut at: u64, parts: &[&[u8]]) -> io::Result<()> {
        let mut memory = staging.0.lock().unwrap_or_else(PoisonError::into_inner);
        memory.resize(STAGED_BYTES + ALIGNMENT, 0);
        let skip = memory.as_ptr().align_offset(ALIGNMENT);
        let staged = &mut memory[skip..skip + STAGED_BYTES];
        let mut filled = 0;
        for mut part in parts.iter().copied() {
            while !part.is_empty() {
                let (now, later) = part.split_at(part.len().min(STAGED_BYTES - filled));
                staged[filled..filled + now.len()].copy_from_slice(now);
                (filled, part) = (filled + now.len(), later);
                if filled == STAGED_BYTES {
                    self.0.write_all_at(staged, at)?;
                    (filled, at) = (0, at + STAGED_BYTES as u64);
                }
            }
        }
        self.0.write_all_at(&staged[..filled], at)
    }
}
