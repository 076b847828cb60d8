//! A raw file or a block device as a disk.
//!
//! Reads that the page cache holds are answered at once (`preadv2` with `RWF_NOWAIT`); all else goes to the runtime's
//! blocking pool. An advisory lock keeps a second Sterna process off a file that is written.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSliceMut, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use rustix::fs::{FallocateFlags, FlockOperation, SeekFrom as RawSeek};
use rustix::io::{Errno, ReadWriteFlags};

use super::{
    Allocation, BlockDevice, DeviceError, DeviceFuture, Geometry, Inline, Persistence, ReadData, ReadOutcome,
    StatusRun, ZeroRequest, check_range, checked_range, push_run,
};
use crate::units::{ByteOffset, ByteRange, ByteSize};

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileAccess {
    /// Reads only; any number of processes may do so at once.
    ReadOnly,
    /// Reads and writes; one process at a time.
    ReadWrite,
}

/// Why a file cannot serve as a disk.
#[derive(Debug, thiserror::Error)]
pub enum OpenFileError {
    /// The operating system refused.
    #[error("cannot open {path}", path = path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process has it open, one of the two for writing.
    #[error("{path} is in use by another process: stop that one, or open both read-only", path = path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// Neither a file nor a block device.
    #[error("{path} is neither a regular file nor a block device", path = path.display())]
    WrongKind {
        /// What it is not.
        path: PathBuf,
    },
}

/// A raw file or a block device as a disk. Its size is that of the file when it was opened.
#[derive(Debug)]
pub struct FileDevice {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    file: File,
    size: ByteSize,
    access: FileAccess,
    /// Held while syncing.
    syncing: Mutex<()>,
    /// Set for good by a failed sync: the kernel may have dropped the pages that it could not write.
    poisoned: AtomicBool,
}

impl FileDevice {
    /// Opens the file at `path` as a disk.
    ///
    /// # Errors
    /// [`OpenFileError`]; the file is as it was.
    pub fn open(path: &Path, access: FileAccess) -> Result<Self, OpenFileError> {
        let failed = |source| OpenFileError::Open { path: path.to_owned(), source };
        let writing = access == FileAccess::ReadWrite;
        let mut file = OpenOptions::new().read(true).write(writing).open(path).map_err(failed)?;
        let kind = file.metadata().map_err(failed)?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(OpenFileError::WrongKind { path: path.to_owned() });
        }
        let lock =
            if writing { FlockOperation::NonBlockingLockExclusive } else { FlockOperation::NonBlockingLockShared };
        rustix::fs::flock(&file, lock).map_err(|errno| match errno {
            Errno::WOULDBLOCK => OpenFileError::InUse { path: path.to_owned() },
            errno => failed(errno.into()),
        })?;
        let size = ByteSize(file.seek(SeekFrom::End(0)).map_err(failed)?);
        let (syncing, poisoned) = (Mutex::new(()), AtomicBool::new(false));
        Ok(Self { shared: Arc::new(Shared { file, size, access, syncing, poisoned }) })
    }

    fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> Result<T, DeviceError> + Send + 'static,
    ) -> DeviceFuture<'_, T> {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            match sterna_runtime::work::blocking(move || work(&shared)).await {
                Ok(result) => result,
                Err(join) => Err(DeviceError::Io(io::Error::other(join))),
            }
        })
    }
}

impl BlockDevice for FileDevice {
    fn geometry(&self) -> Geometry {
        Geometry {
            size: self.shared.size,
            minimum_io_bytes: 1,
            preferred_io_bytes: 4096,
            read_only: self.shared.access == FileAccess::ReadOnly,
            can_judge_fast_zeroes: true,
            rotational: false,
        }
    }

    fn try_read(&self, at: ByteOffset, into: &mut [u8]) -> Inline<ReadOutcome> {
        if let Err(error) = checked_range(at, into.len(), self.shared.size) {
            return Inline::Done(Err(error));
        }
        if let Err(error) = self.shared.check_sound() {
            return Inline::Done(Err(error));
        }
        let wanted = into.len();
        let cached = rustix::io::preadv2(&self.shared.file, &mut [IoSliceMut::new(into)], at.0, ReadWriteFlags::NOWAIT);
        // Fewer bytes, or none: the rest is not in the page cache, or the file has become shorter. The slow way tells.
        if cached == Ok(wanted) { Inline::Done(Ok(ReadOutcome::Filled)) } else { Inline::Later }
    }

    fn read(&self, range: ByteRange) -> DeviceFuture<'_, ReadData> {
        self.blocking(move |shared| {
            shared.check_sound()?;
            check_range(range, shared.size)?;
            let length = usize::try_from(range.length()).map_err(|_| DeviceError::NoSpace)?;
            let mut bytes = vec![0; length];
            shared.file.read_exact_at(&mut bytes, range.start().0)?;
            Ok(ReadData::Bytes(bytes.into()))
        })
    }

    fn write(&self, at: ByteOffset, data: Bytes, persistence: Persistence) -> DeviceFuture<'_, ()> {
        self.blocking(move |shared| {
            shared.check_writable()?;
            checked_range(at, data.len(), shared.size)?;
            shared.write_all(at, &data, persistence)
        })
    }

    fn write_zeroes(&self, request: ZeroRequest) -> DeviceFuture<'_, ()> {
        self.blocking(move |shared| {
            shared.check_writable()?;
            check_range(request.range, shared.size)?;
            let how = if request.keep_allocated { FallocateFlags::ZERO_RANGE } else { FallocateFlags::PUNCH_HOLE };
            if !shared.fallocate(how, request.range)? {
                if request.only_if_fast {
                    return Err(DeviceError::NotFaster);
                }
                shared.write_zero_bytes(request.range)?;
            }
            shared.persist(request.persistence)
        })
    }

    fn trim(&self, range: ByteRange, persistence: Persistence) -> DeviceFuture<'_, ()> {
        self.blocking(move |shared| {
            shared.check_writable()?;
            check_range(range, shared.size)?;
            if !shared.fallocate(FallocateFlags::PUNCH_HOLE, range)? {
                shared.write_zero_bytes(range)?;
            }
            shared.persist(persistence)
        })
    }

    fn flush(&self) -> DeviceFuture<'_, ()> {
        self.blocking(|shared| shared.persist(Persistence::Durable))
    }

    fn prefetch(&self, range: ByteRange) -> DeviceFuture<'_, ()> {
        self.blocking(move |shared| {
            check_range(range, shared.size)?;
            let length = std::num::NonZeroU64::new(range.length());
            // A hint: where the kernel does not take it, the read will simply be slower.
            let _ = rustix::fs::fadvise(&shared.file, range.start().0, length, rustix::fs::Advice::WillNeed);
            Ok(())
        })
    }

    fn allocation(&self, range: ByteRange, max_runs: usize) -> DeviceFuture<'_, Vec<StatusRun<Allocation>>> {
        self.blocking(move |shared| {
            check_range(range, shared.size)?;
            let runs = shared.status(range, max_runs)?;
            if runs.is_empty() { Err(DeviceError::OutOfRange { range, size: shared.size }) } else { Ok(runs) }
        })
    }
}

impl Shared {
    fn check_writable(&self) -> Result<(), DeviceError> {
        match self.access {
            FileAccess::ReadOnly => Err(DeviceError::ReadOnly),
            FileAccess::ReadWrite => self.check_sound(),
        }
    }

    /// Reads stop too after a failed sync: the page cache may show what will not be there after the next eviction.
    fn check_sound(&self) -> Result<(), DeviceError> {
        if self.poisoned.load(Ordering::Acquire) { Err(DeviceError::Poisoned) } else { Ok(()) }
    }

    fn write_all(&self, at: ByteOffset, data: &[u8], persistence: Persistence) -> Result<(), DeviceError> {
        self.file.write_all_at(data, at.0)?;
        self.persist(persistence)
    }

    /// Syncs, where that is asked for: one caller at a time. The kernel reports a failure to write pages back once, to
    /// whoever syncs first (fsync(2)); a second caller at the same moment would be told that all is well.
    fn persist(&self, persistence: Persistence) -> Result<(), DeviceError> {
        if persistence == Persistence::AtNextFlush || self.access == FileAccess::ReadOnly {
            return Ok(());
        }
        let _turn = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        self.check_sound()?;
        rustix::fs::fdatasync(&self.file).map_err(|errno| {
            self.poisoned.store(true, Ordering::Release);
            io::Error::from(errno).into()
        })
    }

    /// Whether the file system did it; `false` where it cannot, and then nothing has changed.
    fn fallocate(&self, how: FallocateFlags, range: ByteRange) -> Result<bool, DeviceError> {
        if range.is_empty() {
            return Ok(true);
        }
        let flags = how | FallocateFlags::KEEP_SIZE;
        match rustix::fs::fallocate(&self.file, flags, range.start().0, range.length()) {
            Ok(()) => Ok(true),
            // Block devices answer EINVAL to a range that is not whole sectors.
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(false),
            Err(errno) => Err(io::Error::from(errno).into()),
        }
    }

    fn write_zero_bytes(&self, range: ByteRange) -> Result<(), DeviceError> {
        let zeroes = [0; 64 << 10];
        let mut at = range.start().0;
        while at < range.end().0 {
            let length = (range.end().0 - at).min(zeroes.len() as u64);
            #[expect(clippy::cast_possible_truncation, reason = "at most the length of an array")]
            self.file.write_all_at(&zeroes[..length as usize], at)?;
            at += length;
        }
        Ok(())
    }

    fn status(&self, range: ByteRange, max_runs: usize) -> Result<Vec<StatusRun<Allocation>>, DeviceError> {
        let mut runs = Vec::new();
        let mut at = range.start().0;
        while at < range.end().0 && runs.len() < max_runs {
            let data = self.seek(RawSeek::Data(at))?.map_or(range.end().0, |data| data.min(range.end().0));
            if data > at {
                push_run(&mut runs, data - at, Allocation::Hole);
                at = data;
                continue;
            }
            let hole = self.seek(RawSeek::Hole(at))?.map_or(range.end().0, |hole| hole.min(range.end().0));
            push_run(&mut runs, hole.max(at + 1) - at, Allocation::Data);
            at = hole.max(at + 1);
        }
        Ok(runs)
    }

    /// Where the next data or hole begins; `None` where there is none up to the end of the file.
    fn seek(&self, to: RawSeek) -> Result<Option<u64>, DeviceError> {
        match rustix::fs::seek(&self.file, to) {
            Ok(offset) => Ok(Some(offset)),
            Err(Errno::NXIO) => Ok(None),
            // Block devices and some file systems know no holes: all of it is data.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(match to {
                RawSeek::Data(at) => Some(at),
                _ => None,
            }),
            Err(errno) => Err(io::Error::from(errno).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::conformance;

    fn scratch(size: ByteSize) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("disk");
        File::create(&path).and_then(|file| file.set_len(size.0)).expect("a sparse file");
        (directory, path)
    }

    #[tokio::test]
    async fn a_file_device_keeps_the_contract() {
        let mut kept = Vec::new();
        conformance::run(|size| {
            let (directory, path) = scratch(size);
            kept.push(directory);
            FileDevice::open(&path, FileAccess::ReadWrite).expect("a file to serve")
        })
        .await;
    }

    #[tokio::test]
    async fn a_read_only_file_refuses_every_change() {
        let (_directory, path) = scratch(ByteSize(1 << 20));
        let device = FileDevice::open(&path, FileAccess::ReadOnly).expect("a file to serve");
        conformance::refuses_changes(&device, |error| matches!(error, DeviceError::ReadOnly)).await;
        assert!(device.geometry().read_only);
    }

    #[test]
    fn a_file_is_served_for_writing_once() {
        let (directory, path) = scratch(ByteSize(1 << 20));
        let first = FileDevice::open(&path, FileAccess::ReadWrite).expect("a file to serve");
        let second = FileDevice::open(&path, FileAccess::ReadOnly);
        assert!(matches!(second, Err(OpenFileError::InUse { .. })), "{second:?}");
        drop(first);
        FileDevice::open(&path, FileAccess::ReadOnly).expect("a file that nobody writes");
        let not_a_disk = FileDevice::open(directory.path(), FileAccess::ReadOnly);
        assert!(matches!(not_a_disk, Err(OpenFileError::WrongKind { .. })), "{not_a_disk:?}");
        let missing = FileDevice::open(&directory.path().join("none"), FileAccess::ReadOnly);
        assert!(matches!(missing, Err(OpenFileError::Open { .. })), "{missing:?}");
    }
}
