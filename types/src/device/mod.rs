//! The contract between whoever serves a disk (`nbd-server`) and whoever keeps its bytes (`storage-node`, a file, memory).
//!
//! What a device promises, and what [`conformance`] checks of every one of them:
//! * a read returns what the last acknowledged write of each byte wrote, zeroes where none did;
//! * a write is seen by every read that begins after it was acknowledged; writes of which neither had been acknowledged
//!   when the other began may land in either order, but within one 4 KiB block never mixed;
//! * when [`BlockDevice::flush`] returns, every write, zeroing and trim acknowledged before it began is durable, whoever
//!   asked for it; what was asked for as [`Persistence::Durable`] is durable when it is acknowledged;
//! * a request outside the device changes nothing;
//! * a failed flush is never followed by a successful one: the device is poisoned until it is opened anew.
//!
//! Requests need no alignment: a device that keeps blocks reads, changes and writes the partial ones itself.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;

use bytes::Bytes;

use crate::units::{ByteOffset, ByteRange, ByteSize};

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod file;
mod memory;

pub use file::{FileAccess, FileDevice, OpenFileError};
pub use memory::MemoryDevice;

/// What a device answers when it cannot answer at once.
pub type DeviceFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, DeviceError>> + Send + 'a>>;

/// A disk, as the server of one sees it.
///
/// Each transfer comes in two forms. The `try_` form answers on the spot, and never blocks, or says [`Inline::Later`]
/// having done nothing; it is the path that makes a small request cheap. The other form may take as long as it takes.
///
/// # Cancel safety
/// A future that is dropped before it is ready leaves its request undecided: a write may or may not happen, whole blocks
/// at a time, until the next request of the same bytes is acknowledged. Reads and queries may be dropped freely.
pub trait BlockDevice: Send + Sync + 'static {
    /// Size and manner of the device. It may change between calls (a volume is resized while it is served).
    fn geometry(&self) -> Geometry;

    /// Reads into all of `into`, if that can be done at once.
    ///
    /// Where the answer is [`ReadOutcome::Zeroes`], `into` was not touched.
    fn try_read(&self, _at: ByteOffset, _into: &mut [u8]) -> Inline<ReadOutcome> {
        Inline::Later
    }

    /// Writes all of `data`, if that can be done at once.
    fn try_write(&self, _at: ByteOffset, _data: &[u8], _persistence: Persistence) -> Inline<()> {
        Inline::Later
    }

    /// Reads the bytes of `range`.
    ///
    /// # Errors
    /// [`DeviceError::OutOfRange`], or why the bytes cannot be had. Never made-up bytes.
    fn read(&self, range: ByteRange) -> DeviceFuture<'_, ReadData>;

    /// Writes `data` at `at`.
    ///
    /// # Errors
    /// [`DeviceError`]; then each block of the range holds its old or its new content.
    fn write(&self, at: ByteOffset, data: Bytes, persistence: Persistence) -> DeviceFuture<'_, ()>;

    /// Makes the bytes of a range read as zeroes.
    ///
    /// # Errors
    /// [`DeviceError::NotFaster`], and nothing changed, where [`ZeroRequest::only_if_fast`] cannot be met.
    fn write_zeroes(&self, request: ZeroRequest) -> DeviceFuture<'_, ()>;

    /// Gives the space of a range back; it reads as zeroes afterwards, edges included.
    ///
    /// # Errors
    /// [`DeviceError`]; then each byte of the range is what it was, or zero.
    fn trim(&self, range: ByteRange, persistence: Persistence) -> DeviceFuture<'_, ()>;

    /// Makes everything acknowledged before this call durable.
    ///
    /// # Errors
    /// Once it has failed, this device never reports a flush as done again.
    fn flush(&self) -> DeviceFuture<'_, ()>;

    /// [`BlockDevice::flush`] on this thread, if it takes no longer than handing it to another would, as far as can be told:
    /// a fraction of a millisecond. For callers that nobody else waits for.
    fn try_flush(&self) -> Inline<()> {
        Inline::Later
    }

    /// Hints that a range will be read soon. Returns when the hint is taken, which may be before anything has moved.
    ///
    /// # Errors
    /// [`DeviceError::OutOfRange`] and no other: a hint that cannot be followed is forgotten.
    fn prefetch(&self, range: ByteRange) -> DeviceFuture<'_, ()>;

    /// Which parts of a range hold data, as at most `max_runs` runs from its start on, together not longer than it.
    ///
    /// At least one run, none empty, neighbours different; the answer may end early, never late.
    ///
    /// # Errors
    /// [`DeviceError::OutOfRange`] for an empty range too.
    fn allocation(&self, range: ByteRange, max_runs: usize) -> DeviceFuture<'_, Vec<StatusRun<Allocation>>>;

    /// Which parts of a range can be read without another site, in the form of [`BlockDevice::allocation`].
    ///
    /// # Errors
    /// [`DeviceError::OutOfRange`] for an empty range too.
    fn residency(&self, range: ByteRange, _max_runs: usize) -> DeviceFuture<'_, Vec<StatusRun<Residency>>> {
        Box::pin(async move {
            check_range(range, self.geometry().size)?;
            match range.length() {
                0 => Err(DeviceError::OutOfRange { range, size: self.geometry().size }),
                length => Ok(vec![StatusRun { length, status: Residency::Here }]),
            }
        })
    }
}

/// Size and manner of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// How many bytes it has.
    pub size: ByteSize,
    /// The smallest request it takes, and the alignment of every one, in bytes: a power of two up to 64 KiB.
    pub minimum_io_bytes: u32,
    /// The request size it likes best, in bytes: a power of two, at least 512.
    pub preferred_io_bytes: u32,
    /// Whether writes are refused.
    pub read_only: bool,
    /// Whether it can tell, without having altered anything, that zeroing a range would be as slow as writing it.
    pub can_judge_fast_zeroes: bool,
    /// Whether distant requests cost more than near ones.
    pub rotational: bool,
}

/// The answer to a request that was to be answered at once, or not at all.
#[derive(Debug)]
pub enum Inline<T> {
    /// It is done, or has failed.
    Done(Result<T, DeviceError>),
    /// It would have to wait; nothing has happened.
    Later,
}

/// How a read into a buffer ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadOutcome {
    /// The buffer holds the bytes.
    Filled,
    /// The whole range reads as zeroes; the buffer was not touched.
    Zeroes,
}

/// The bytes of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadData {
    /// As many bytes as were asked for.
    Bytes(Bytes),
    /// The whole range reads as zeroes.
    Zeroes,
}

/// Whether a change has to be durable when it is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persistence {
    /// Durable after the next flush.
    AtNextFlush,
    /// Durable when it is acknowledged (NBD: FUA).
    Durable,
}

/// A request to make a range read as zeroes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ZeroRequest {
    /// What is to read as zeroes.
    pub range: ByteRange,
    /// Whether the space is to stay allocated, so that a later write cannot run out of it (NBD: NO_HOLE).
    pub keep_allocated: bool,
    /// Whether to refuse rather than be as slow as writing the zeroes would be (NBD: FAST_ZERO).
    pub only_if_fast: bool,
    /// When it has to be durable.
    pub persistence: Persistence,
}

/// A run of bytes that have one status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusRun<T> {
    /// How many bytes; not 0.
    pub length: u64,
    /// Their status.
    pub status: T,
}

/// Whether bytes take space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allocation {
    /// They do, and may be anything.
    Data,
    /// They take none, and read as zeroes.
    Hole,
}

/// Whether bytes are at this site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Residency {
    /// They can be read here.
    Here,
    /// Reading them needs another site.
    Elsewhere,
}

/// Why a device did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The request reaches beyond the device, or is empty where it must not be.
    #[error("{range} are not within the device of {size}")]
    OutOfRange {
        /// What was asked for.
        range: ByteRange,
        /// How large the device is.
        size: ByteSize,
    },
    /// The device does not take writes at all.
    #[error("the device is read-only")]
    ReadOnly,
    /// The device is here for reading until this node becomes its owner.
    #[error("the device is not owned by this node: it is in standby, and takes no writes")]
    Standby,
    /// This node may no longer answer for the device: its session has lapsed, or another node owns it now.
    #[error("this node no longer owns the device")]
    NotOwner,
    /// There is no space left for the change.
    #[error("no space left for the device")]
    NoSpace,
    /// Zeroing would be as slow as writing, and the request was to refuse that.
    #[error("zeroing this range is no faster than writing it")]
    NotFaster,
    /// A flush has failed before: what is durable is not known until the device is opened anew.
    #[error("an earlier flush failed: open the device anew to go on from what is durable")]
    Poisoned,
    /// The operating system refused.
    #[error("the operating system refused: {0}")]
    Io(#[source] io::Error),
}

impl From<io::Error> for DeviceError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => Self::NoSpace,
            _ => Self::Io(error),
        }
    }
}

impl fmt::Debug for dyn BlockDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockDevice").field("geometry", &self.geometry()).finish_non_exhaustive()
    }
}

/// Refuses a range that is not within a device of `size`.
///
/// # Errors
/// [`DeviceError::OutOfRange`].
pub fn check_range(range: ByteRange, size: ByteSize) -> Result<(), DeviceError> {
    if range.is_within(size) { Ok(()) } else { Err(DeviceError::OutOfRange { range, size }) }
}

/// The range that a buffer of `length` bytes at `at` covers, where it lies within a device of `size`.
///
/// # Errors
/// [`DeviceError::OutOfRange`].
pub fn checked_range(at: ByteOffset, length: usize, size: ByteSize) -> Result<ByteRange, DeviceError> {
    let beyond = || DeviceError::OutOfRange { range: ByteRange::between(at, ByteOffset(u64::MAX)), size };
    let length = u64::try_from(length).map_err(|_| beyond())?;
    let range = ByteRange::new(at, length).map_err(|_| beyond())?;
    check_range(range, size)?;
    Ok(range)
}

/// Appends a run, joining it to the last one where they agree.
pub fn push_run<T: PartialEq>(runs: &mut Vec<StatusRun<T>>, length: u64, status: T) {
    match runs.last_mut() {
        Some(last) if last.status == status => last.length += length,
        _ => runs.push(StatusRun { length, status }),
    }
}
