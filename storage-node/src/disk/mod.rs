//! The files of a data directory, as the engine uses them.
//!
//! Everything durable goes through this seam, so that one engine runs on the operating system ([`SystemDisk`]) and in a
//! simulation that counts, refuses, reorders and tears what was not synced ([`simulated`]). Paths are relative to the data
//! directory, with `/` between their parts; the empty path is the data directory itself.
//!
//! What may be relied on, and all that may be relied on, after power is lost:
//! * what was written to a file before a [`DiskFile::sync`] of it that succeeded;
//! * that a file has its name (or no longer has it) where [`Disk::sync_dir`] of its directory has succeeded since;
//! * of everything else any part may be there, down to single sectors of 512 bytes. After `kill -9` all of it is.

use std::fmt::Debug;
use std::io;
use std::sync::Arc;

#[cfg(test)]
mod conformance;
mod direct;
pub mod simulated;
mod system;

pub use simulated::SimulatedDisk;
pub use system::{OpenDiskError, SystemDisk};

/// One data directory. All calls may block.
pub trait Disk: Debug + Send + Sync + 'static {
    /// Makes the directory `path` and its parents; one that is there already is no error. Its name is durable on return.
    ///
    /// # Errors
    /// What the system says.
    fn create_dir(&self, path: &str) -> io::Result<()>;

    /// The names in the directory `path`, sorted; none where there is no such directory.
    ///
    /// # Errors
    /// What the system says.
    fn list(&self, path: &str) -> io::Result<Vec<String>>;

    /// Makes a new, empty file for reading and writing.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`], [`io::ErrorKind::StorageFull`], and what else the system says.
    fn create(&self, path: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// Opens the file at `path` for reading and writing.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`], and what else the system says.
    fn open(&self, path: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// Gives a file another name, in one step, in place of any file that has it. Durable once both directories are synced.
    ///
    /// # Errors
    /// What the system says; then nothing has changed.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file, or an empty directory. Those who have the file open can read it still.
    ///
    /// # Errors
    /// What the system says; then nothing has changed.
    fn remove(&self, path: &str) -> io::Result<()>;

    /// Makes the names in the directory `path` durable as they are now.
    ///
    /// # Errors
    /// What the system says; then what is durable is unknown.
    fn sync_dir(&self, path: &str) -> io::Result<()>;

    /// How many bytes may still be written, by the system's account.
    ///
    /// # Errors
    /// What the system says.
    fn available_bytes(&self) -> io::Result<u64>;
}

/// A file of a data directory. All calls may block, unless they say otherwise.
pub trait DiskFile: Debug + Send + Sync + 'static {
    /// Fills all of `into` with the bytes from `at` on.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] where the file ends before, and what else the system says.
    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<()>;

    /// The same if it can be done without waiting for a device; `false` where it cannot, and then `into` holds anything.
    fn read_at_now(&self, at: u64, into: &mut [u8]) -> bool;

    /// Fills all of `parts`, one behind the other, with the bytes from `at` on.
    ///
    /// # Errors
    /// As [`DiskFile::read_at`].
    fn read_parts_at(&self, mut at: u64, parts: &mut [&mut [u8]]) -> io::Result<()> {
        for part in parts {
            self.read_at(at, part)?;
            at += part.len() as u64;
        }
        Ok(())
    }

    /// The same if it can be done without waiting for a device; `false` where it cannot, and then they hold anything.
    fn read_parts_at_now(&self, mut at: u64, parts: &mut [&mut [u8]]) -> bool {
        parts.iter_mut().all(|part| {
            let read = self.read_at_now(at, part);
            at += part.len() as u64;
            read
        })
    }

    /// Writes the parts, one behind the other, from `at` on; the file grows where it has to.
    ///
    /// # Errors
    /// [`io::ErrorKind::StorageFull`], and what else the system says; then any part of it may have been written.
    fn write_at(&self, at: u64, parts: &[&[u8]]) -> io::Result<()>;

    /// The same for what will not be read soon: where the system can do it, it is not kept in memory once it is on the disk,
    /// and what is there of other use stays.
    ///
    /// # Errors
    /// As [`DiskFile::write_at`].
    fn write_unkept_at(&self, at: u64, parts: &[&[u8]]) -> io::Result<()> {
        self.write_at(at, parts)
    }

    /// Writes the parts as [`DiskFile::write_at`] does, and makes them durable, with the size of the file. What was written
    /// before is as durable as it was, or durable too.
    ///
    /// # Errors
    /// As [`DiskFile::write_at`] and [`DiskFile::sync`].
    fn write_durably_at(&self, at: u64, parts: &[&[u8]]) -> io::Result<()> {
        self.write_at(at, parts)?;
        self.sync()
    }

    /// Makes what was written before, and the size of the file, durable (fdatasync(2)).
    ///
    /// # Errors
    /// What the system says. Then what is durable is unknown, and a later sync that succeeds proves nothing: whoever sees
    /// this error gives up on the file until it has been opened anew and checked.
    fn sync(&self) -> io::Result<()>;

    /// Forgets what memory holds of the file and is not waiting to be written, so that the next read shows what is durable:
    /// after a sync that failed, the cache may hold what the disk never got. Best effort.
    fn drop_cached(&self);

    /// Gives the file `length` bytes, those that it did not have as zeroes with space of their own, so that writing them
    /// later finds room.
    ///
    /// # Errors
    /// [`io::ErrorKind::StorageFull`], and what else the system says.
    fn allocate(&self, length: u64) -> io::Result<()>;

    /// How many bytes the file has.
    ///
    /// # Errors
    /// What the system says.
    fn size(&self) -> io::Result<u64>;
}

/// Checks a path.
///
/// # Errors
/// [`io::ErrorKind::InvalidInput`] where it might lead out of the data directory, or has a part that names nothing.
fn check_path(path: &str) -> io::Result<()> {
    let foreign = |part: &str| matches!(part, "" | "." | "..") || part.contains('\0');
    if !path.is_empty() && path.split('/').any(foreign) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("'{path}' is no path in a data directory")));
    }
    Ok(())
}

/// A path as the directory and the name in it.
///
/// # Errors
/// [`io::ErrorKind::InvalidInput`] for the data directory itself, and as [`check_path`].
fn parent_and_name(path: &str) -> io::Result<(&str, &str)> {
    check_path(path)?;
    match path.rsplit_once('/') {
        Some(both) => Ok(both),
        None if path.is_empty() => Err(io::Error::new(io::ErrorKind::InvalidInput, "the data directory itself")),
        None => Ok(("", path)),
    }
}
