//! What a node needs to answer clients of a volume: its session, and that the volume is its own.
//!
//! [`Ownership`] is one volume's, as it was opened: in one epoch, under the node's [`Lease`]. [`OwnedDevice`] asks it behind
//! every operation, and so before every acknowledgement: what was done while the right to do it ran out is answered with
//! `NotOwner` (ESHUTDOWN), never with success.
//!
//! ```text
//!   ┌────────handed back──────── paused, for a handoff ──┐
//!   v                               ^                    │
//! held ──the volume is released────┘                     │
//!   │ ^                                                  │
//!   │ └─lease is prolonged── silent <──lease runs out─┐  │
//!   │                                                 │  │
//!   ├─────────────────────────────────────────────────┘  │
//!   └──another epoch is seen (before the lease is prolonged on that)──> over, for good
//! ```
//!
//! While it is paused clients wait: they are answered once it is known who goes on with the volume.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use bytes::Bytes;
use sterna_consensus::session::Lease;
use sterna_storage_node::volume::VolumeDevice;
use sterna_types::device::{
    Allocation, DeviceFuture, Geometry, Inline, Persistence, ReadData, ReadOutcome, Residency, StatusRun, ZeroRequest,
};
use sterna_types::{BlockDevice, ByteOffset, ByteRange, DeviceError};
use tokio::sync::Notify;
use tokio::time::timeout;

/// The right to answer for one open volume.
#[derive(Debug)]
pub(super) struct Ownership {
    lease: Arc<Lease>,
    /// One of the three below.
    standing: AtomicU8,
    /// Told when it is no longer paused.
    decided: Notify,
}

const HELD: u8 = 0;
const PAUSED: u8 = 1;
const OVER: u8 = 2;

impl Ownership {
    /// Under this lease, and held.
    pub(super) fn new(lease: Arc<Lease>) -> Self {
        Self { lease, standing: AtomicU8::new(HELD), decided: Notify::new() }
    }

    /// Another node owns the volume, or none does: nothing is acknowledged for it any more. Whether it was held until now.
    pub(super) fn end(&self) -> bool {
        let was = self.standing.swap(OVER, Ordering::AcqRel);
        self.decided.notify_waiters();
        was == HELD
    }

    /// Whether it has ended for good.
    pub(super) fn is_over(&self) -> bool {
        self.standing.load(Ordering::Acquire) == OVER
    }

    /// Nothing is acknowledged from now on: the volume is about to be released. Whether it was held until now.
    pub(super) fn pause(&self) -> bool {
        self.standing.compare_exchange(HELD, PAUSED, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// It was not released, or has come back: clients are answered again, unless it is over. Whether it was paused until now.
    pub(super) fn resume(&self) -> bool {
        let was_paused = self.standing.compare_exchange(PAUSED, HELD, Ordering::AcqRel, Ordering::Acquire).is_ok();
        self.decided.notify_waiters();
        was_paused
    }

    #[inline]
    fn check<T>(&self, outcome: Result<T, DeviceError>) -> Result<T, DeviceError> {
        if self.lease.is_valid() && !self.is_over() { outcome } else { Err(DeviceError::NotOwner) }
    }

    #[inline]
    fn check_inline<T>(&self, outcome: Inline<T>) -> Inline<T> {
        match outcome {
            // It is done once more, when it is known who does it.
            Inline::Done(_) if self.is_paused() => Inline::Later,
            Inline::Done(outcome) => Inline::Done(self.check(outcome)),
            Inline::Later => Inline::Later,
        }
    }

    #[inline]
    fn is_paused(&self) -> bool {
        self.standing.load(Ordering::Acquire) == PAUSED
    }

    /// Waits while it is paused, though not for ever.
    async fn until_decided(&self) -> Result<(), DeviceError> {
        let decided = async {
            loop {
                let told = self.decided.notified();
                if !self.is_paused() {
                    return;
                }
                told.await;
            }
        };
        timeout(PAUSE_PATIENCE, decided).await.map_err(|_| DeviceError::NotOwner)
    }
}

/// A volume's device as clients have it.
#[derive(Debug)]
pub(super) struct OwnedDevice {
    device: Arc<VolumeDevice>,
    ownership: Arc<Ownership>,
}

impl OwnedDevice {
    /// The device, as long as `ownership` holds.
    pub(super) fn new(device: Arc<VolumeDevice>, ownership: Arc<Ownership>) -> Self {
        Self { device, ownership }
    }

    /// Has an operation carried out, and says so only if it may. One that a pause comes into is carried out again behind it: nobody
    /// was told of it, and until somebody is, it is under way.
    fn checked<'a, T, F>(&'a self, operation: impl Fn() -> F + Send + 'a) -> DeviceFuture<'a, T>
    where
        T: Send + 'a,
        F: Future<Output = Result<T, DeviceError>> + Send + 'a,
    {
        Box::pin(async move {
            loop {
                if self.ownership.is_paused() {
                    self.ownership.until_decided().await?;
                }
                let outcome = operation().await;
                if !self.ownership.is_paused() {
                    return self.ownership.check(outcome);
                }
            }
        })
    }
}

impl BlockDevice for OwnedDevice {
    fn geometry(&self) -> Geometry {
        self.device.geometry()
    }

    fn try_read(&self, at: ByteOffset, into: &mut [u8]) -> Inline<ReadOutcome> {
        self.ownership.check_inline(self.device.try_read(at, into))
    }

    fn try_write(&self, at: ByteOffset, data: &[u8], persistence: Persistence) -> Inline<()> {
        self.ownership.check_inline(self.device.try_write(at, data, persistence))
    }

    fn read(&self, range: ByteRange) -> DeviceFuture<'_, ReadData> {
        self.checked(move || self.device.read(range))
    }

    fn write(&self, at: ByteOffset, data: Bytes, persistence: Persistence) -> DeviceFuture<'_, ()> {
        self.checked(move || self.device.write(at, data.clone(), persistence))
    }

    fn write_zeroes(&self, request: ZeroRequest) -> DeviceFuture<'_, ()> {
        self.checked(move || self.device.write_zeroes(request))
    }

    fn trim(&self, range: ByteRange, persistence: Persistence) -> DeviceFuture<'_, ()> {
        self.checked(move || self.device.trim(range, persistence))
    }

    fn flush(&self) -> DeviceFuture<'_, ()> {
        self.checked(move || self.device.flush())
    }

    fn try_flush(&self) -> Inline<()> {
        self.ownership.check_inline(self.device.try_flush())
    }

    fn prefetch(&self, range: ByteRange) -> DeviceFuture<'_, ()> {
        self.checked(move || self.device.prefetch(range))
    }

    fn allocation(&self, range: ByteRange, max_runs: usize) -> DeviceFuture<'_, Vec<StatusRun<Allocation>>> {
        self.checked(move || self.device.allocation(range, max_runs))
    }

    fn residency(&self, range: ByteRange, max_runs: usize) -> DeviceFuture<'_, Vec<StatusRun<Residency>>> {
        self.checked(move || self.device.residency(range, max_runs))
    }
}

/// What a client waits at most to be told who goes on with its volume: until another node has had time to answer, or this one to
/// see that it does not. Whoever serves disks to machines gives up later than this.
const PAUSE_PATIENCE: Duration = Duration::from_secs(20);
