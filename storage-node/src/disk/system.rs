//! The data directory on the operating system.
//!
//! One process at a time: [`SystemDisk::open`] locks the file `LOCK` in the directory, and the lock lasts until the disk and
//! every file opened through it are gone. Those that only read, by [`SystemDisk::open_read_only`], share the lock. Files are
//! read with `preadv2(2)` and `RWF_NOWAIT` where nobody may wait, written with `pwritev2(2)`, or past the page cache
//! ([`direct`]), and synced with `fdatasync(2)`, directories with `fsync(2)`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{FallocateFlags, FlockOperation};
use rustix::io::{Errno, ReadWriteFlags};

use super::direct::{self, DirectFile, Staging};
use super::{Disk, DiskFile, check_path, parent_and_name};

/// A directory of the operating system. See the [module](super) for what it promises.
#[derive(Debug)]
pub struct SystemDisk {
    root: PathBuf,
    lock: Arc<File>,
    access: Access,
    staging: Arc<Staging>,
}

/// What may be done with the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    ReadWrite,
    Read,
}

/// Why a directory cannot serve as a data directory.
#[derive(Debug, thiserror::Error)]
pub enum OpenDiskError {
    /// The operating system refused.
    #[error("cannot open the data directory {path}", path = path.display())]
    Open {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process has it open.
    #[error("the data directory {path} is in use by another process: stop that one first", path = path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
}

impl SystemDisk {
    /// The name of the lock file in the data directory.
    pub const LOCK: &str = "LOCK";

    /// Takes the directory at `root`, which exists, for this process alone.
    ///
    /// # Errors
    /// [`OpenDiskError`].
    pub fn open(root: &Path) -> Result<Self, OpenDiskError> {
        let failed = |source| OpenDiskError::Open { path: root.to_owned(), source };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(FILE_MODE);
        let lock = options.open(root.join(Self::LOCK)).map_err(failed)?;
        Self::locked(root, lock, FlockOperation::NonBlockingLockExclusive, Access::ReadWrite)
    }

    /// Opens the directory at `root` for reading, together with others that only read. Nothing in it is altered, then or
    /// later: every call that would change something fails.
    ///
    /// # Errors
    /// [`OpenDiskError`]. Where there is no lock file, as in a copy of a data directory, nobody can have it in use.
    pub fn open_read_only(root: &Path) -> Result<Self, OpenDiskError> {
        let failed = |source| OpenDiskError::Open { path: root.to_owned(), source };
        let lock = match File::open(root.join(Self::LOCK)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => File::open(root),
            lock => lock,
        };
        let lock = lock.map_err(failed)?;
        // Else there would be nothing in it, whatever it is.
        fs::read_dir(root).map_err(failed)?;
        Self::locked(root, lock, FlockOperation::NonBlockingLockShared, Access::Read)
    }

    fn locked(root: &Path, lock: File, how: FlockOperation, access: Access) -> Result<Self, OpenDiskError> {
        rustix::fs::flock(&lock, how).map_err(|errno| match errno {
            Errno::WOULDBLOCK => OpenDiskError::InUse { path: root.to_owned() },
            errno => OpenDiskError::Open { path: root.to_owned(), source: errno.into() },
        })?;
        Ok(Self { root: root.to_owned(), lock: Arc::new(lock), access, staging: Arc::default() })
    }

    fn check_writable(&self) -> io::Result<()> {
        match self.access {
            Access::ReadWrite => Ok(()),
            Access::Read => Err(io::ErrorKind::ReadOnlyFilesystem.into()),
        }
    }

    /// The directory on the operating system, for what keeps files of its own there (the index).
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn resolve(&self, path: &str) -> io::Result<PathBuf> {
        check_path(path)?;
        Ok(if path.is_empty() { self.root.clone() } else { self.root.join(path) })
    }

    fn handle(&self, path: &str, options: &OpenOptions) -> io::Result<Arc<dyn DiskFile>> {
        let file = options.open(self.resolve(path)?)?;
        Ok(Arc::new(SystemFile {
            file,
            syncing: Mutex::new(()),
            sync_failed: AtomicBool::new(false),
            staging: Arc::clone(&self.staging),
            _lock: Arc::clone(&self.lock),
        }))
    }
}

impl Disk for SystemDisk {
    fn create_dir(&self, path: &str) -> io::Result<()> {
        self.check_writable()?;
        check_path(path)?;
        let mut directory = self.root.clone();
        for part in path.split('/').filter(|part| !part.is_empty()) {
            let parent = directory.clone();
            directory.push(part);
            match fs::create_dir(&directory) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && directory.is_dir() => (),
                made => made?,
            }
            // Also where it was there already: the process that made it may have been killed before it got this far.
            File::open(parent)?.sync_all()?;
        }
        Ok(())
    }

    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(self.resolve(path)?) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut names = Vec::new();
        for entry in entries {
            // A name that is not UTF-8 is none of ours.
            names.extend(entry?.file_name().into_string());
        }
        names.sort_unstable();
        Ok(names)
    }

    fn create(&self, path: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.check_writable()?;
        self.handle(path, OpenOptions::new().read(true).write(true).create_new(true).mode(FILE_MODE))
    }

    fn open(&self, path: &str) -> io::Result<Arc<dyn DiskFile>> {
        // What only reads may belong to somebody else, or be on a medium that cannot be written.
        self.handle(path, OpenOptions::new().read(true).write(self.access == Access::ReadWrite))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.check_writable()?;
        fs::rename(self.resolve(from)?, self.resolve(to)?)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.check_writable()?;
        parent_and_name(path)?;
        let path = self.resolve(path)?;
        match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::IsADirectory => fs::remove_dir(&path),
            removed => removed,
        }
    }

    fn sync_dir(&self, path: &str) -> io::Result<()> {
        self.check_writable()?;
        File::open(self.resolve(path)?)?.sync_all()
    }

    fn available_bytes(&self) -> io::Result<u64> {
        let space = rustix::fs::fstatvfs(&*self.lock)?;
        Ok(space.f_bavail.saturating_mul(space.f_frsize))
    }
}

#[derive(Debug)]
struct SystemFile {
    file: File,
    /// Held while syncing: the kernel reports a failure to write pages back once, to whoever syncs first (fsync(2)), and a
    /// second caller at the same moment would be told that all is well.
    syncing: Mutex<()>,
    /// Set for good by a failed sync: the kernel may have dropped the pages that it could not write.
    sync_failed: AtomicBool,
    staging: Arc<Staging>,
    /// The directory is ours for as long as one of its files is open.
    _lock: Arc<File>,
}

impl SystemFile {
    /// Makes something durable, one at a time, until that fails.
    fn syncing_with(&self, sync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let _turn = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.sync_failed.load(Ordering::Acquire) {
            return Err(io::Error::other("an earlier sync of this file failed"));
        }
        sync().inspect_err(|_| self.sync_failed.store(true, Ordering::Release))
    }

    fn write_with(&self, flags: ReadWriteFlags, mut at: u64, parts: &[&[u8]]) -> io::Result<()> {
        let mut slices: Vec<IoSlice<'_>> =
            parts.iter().filter(|part| !part.is_empty()).map(|part| IoSlice::new(part)).collect();
        let mut rest = slices.as_mut_slice();
        while !rest.is_empty() {
            let most = rest.len().min(MAX_SLICES_PER_CALL);
            match rustix::io::pwritev2(&self.file, &rest[..most], at, flags) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    IoSlice::advance_slices(&mut rest, written);
                    at += written as u64;
                }
                Err(Errno::INTR) => (),
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    fn write_zeroes(&self, mut at: u64, end: u64) -> io::Result<()> {
        let zeroes = [0; 64 << 10];
        while at < end {
            let length = usize::try_from(end - at).map_or(zeroes.len(), |left| left.min(zeroes.len()));
            self.file.write_all_at(&zeroes[..length], at)?;
            at += length as u64;
        }
        Ok(())
    }
}

impl DiskFile for SystemFile {
    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(into, at)
    }

    fn read_at_now(&self, at: u64, into: &mut [u8]) -> bool {
        let wanted = into.len();
        rustix::io::preadv2(&self.file, &mut [IoSliceMut::new(into)], at, ReadWriteFlags::NOWAIT) == Ok(wanted)
    }

    fn read_parts_at(&self, mut at: u64, parts: &mut [&mut [u8]]) -> io::Result<()> {
        if let [part] = parts {
            return self.read_at(at, part);
        }
        let mut slices: Vec<IoSliceMut<'_>> = parts.iter_mut().map(|part| IoSliceMut::new(part)).collect();
        let mut rest = slices.as_mut_slice();
        while rest.iter().any(|slice| !slice.is_empty()) {
            let most = rest.len().min(MAX_SLICES_PER_CALL);
            match rustix::io::preadv(&self.file, &mut rest[..most], at) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => {
                    IoSliceMut::advance_slices(&mut rest, read);
                    at += read as u64;
                }
                Err(Errno::INTR) => (),
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    fn read_parts_at_now(&self, mut at: u64, parts: &mut [&mut [u8]]) -> bool {
        if let [part] = parts {
            return self.read_at_now(at, part);
        }
        parts.chunks_mut(MAX_SLICES_PER_CALL).all(|parts| {
            let wanted: usize = parts.iter().map(|part| part.len()).sum();
            let mut slices: Vec<IoSliceMut<'_>> = parts.iter_mut().map(|part| IoSliceMut::new(part)).collect();
            let read = rustix::io::preadv2(&self.file, &mut slices, at, ReadWriteFlags::NOWAIT);
            at += wanted as u64;
            read == Ok(wanted)
        })
    }

    fn write_at(&self, at: u64, parts: &[&[u8]]) -> io::Result<()> {
        self.write_with(ReadWriteFlags::empty(), at, parts)
    }

    fn write_unkept_at(&self, at: u64, parts: &[&[u8]]) -> io::Result<()> {
        // Opened for this call alone: packs stay open for long, and a process can have only so many files open.
        let direct = if direct::takes(at, parts) { DirectFile::of(&self.file) } else { None };
        match direct.map(|direct| direct.write_at(&self.staging, at, parts)) {
            // A device that asks for more than it was given: then as any file is written.
            Some(Err(error)) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => self.write_at(at, parts),
            Some(written) => written,
            None => self.write_at(at, parts),
        }
    }

    fn write_durably_at(&self, at: u64, parts: &[&[u8]]) -> io::Result<()> {
        self.syncing_with(|| self.write_with(ReadWriteFlags::DSYNC, at, parts))
    }

    fn sync(&self) -> io::Result<()> {
        self.syncing_with(|| Ok(rustix::fs::fdatasync(&self.file)?))
    }

    fn drop_cached(&self) {
        // A hint: where the system does not take it, nothing is worse than before.
        let _ = rustix::fs::fadvise(&self.file, 0, None, rustix::fs::Advice::DontNeed);
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        let size = self.size()?;
        if size >= length {
            return Ok(());
        }
        match rustix::fs::fallocate(&self.file, FallocateFlags::empty(), size, length - size) {
            // A file system that cannot reserve space gets zeroes written.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.write_zeroes(size, length),
            allocated => allocated.map_err(io::Error::from),
        }
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }
}

/// What is on the disks of virtual machines concerns their owner alone.
const FILE_MODE: u32 = 0o600;
/// The kernel takes no more in one call (`UIO_MAXIOV`).
const MAX_SLICES_PER_CALL: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::conformance;

    #[test]
    fn a_system_disk_keeps_the_contract() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        conformance::run(&SystemDisk::open(directory.path()).expect("a data directory"));
    }

    #[test]
    fn a_data_directory_has_one_process_until_its_last_file_is_closed() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let first = SystemDisk::open(directory.path()).expect("a data directory");
        let file = first.create("file").expect("a file");
        let in_use = || {
            let second = SystemDisk::open(directory.path()).expect_err("a lock that is taken");
            assert!(second.to_string().contains(&directory.path().display().to_string()), "{second}");
            matches!(second, OpenDiskError::InUse { .. })
        };
        assert!(in_use());
        drop(first);
        assert!(in_use());
        drop(file);
        SystemDisk::open(directory.path()).expect("a data directory that nobody uses");
    }

    #[test]
    fn a_reader_changes_nothing_and_keeps_writers_out() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let writer = SystemDisk::open(directory.path()).expect("a data directory");
        writer.create("file").expect("a file").write_at(0, &[b"kept"]).expect("a write");
        let in_use = SystemDisk::open_read_only(directory.path());
        assert!(matches!(in_use, Err(OpenDiskError::InUse { .. })), "{in_use:?}");
        drop(writer);
        let reader = SystemDisk::open_read_only(directory.path()).expect("a data directory");
        SystemDisk::open_read_only(directory.path()).expect("a second reader");
        let in_use = SystemDisk::open(directory.path());
        assert!(matches!(in_use, Err(OpenDiskError::InUse { .. })), "{in_use:?}");
        let file = reader.open("file").expect("a file");
        file.write_at(0, &[b"lost"]).expect_err("a write");
        file.allocate(100).expect_err("an allocation");
        reader.create("other").expect_err("a new file");
        reader.create_dir("directory").expect_err("a new directory");
        reader.rename("file", "other").expect_err("another name");
        reader.remove("file").expect_err("a removal");
        assert_eq!(fs::read(directory.path().join("file")).expect("a file"), b"kept");
        assert_eq!(reader.list("").expect("names"), ["LOCK", "file"]);
    }

    #[test]
    fn a_copy_without_a_lock_file_can_be_read_and_gets_none() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let reader = SystemDisk::open_read_only(directory.path()).expect("a data directory");
        assert_eq!(reader.list("").expect("names"), [""; 0]);
    }

    #[test]
    fn a_data_directory_has_to_exist() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let missing = SystemDisk::open(&directory.path().join("none"));
        assert!(matches!(missing, Err(OpenDiskError::Open { .. })), "{missing:?}");
    }
}
