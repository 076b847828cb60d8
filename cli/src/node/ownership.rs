//! What a node needs to answer clients of a volume: its session, and that the volume is its own.
//!
//! [`Ownership`] is one volume's, as it was opened: in one epoch, under the node's [`Lease`]. [`OwnedDevice`] asks it behind
//! every operation, and so before every acknowledgement: what was done while the right to do it ran out is answered with
//! `NotOwner` (ESHUTDOWN), never with success.
//!
//! ```text
//! held ──lease runs out──> silent ──lease is prolonged──> held
//!   └──────another epoch is seen (before the lease is prolonged on that)──────> over, for good
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use sterna_consensus::session::Lease;
use sterna_storage_node::volume::VolumeDevice;
use sterna_types::device::{
    Allocation, DeviceFuture, Geometry, Inline, Persistence, ReadData, ReadOutcome, Residency, StatusRun, ZeroRequest,
};
use sterna_types::{BlockDevice, ByteOffset, ByteRange, DeviceError};

/// The right to answer for one open volume.
#[derive(Debug)]
pub(super) struct Ownership {
    lease: Arc<Lease>,
    /// Set for good once the volume has had another epoch.
    is_over: AtomicBool,
}

impl Ownership {
    /// Under this lease, and not over.
    pub(super) fn new(lease: Arc<Lease>) -> Self {
        Self { lease, is_over: AtomicBool::new(false) }
    }

    /// Another node owns the volume, or none does: nothing is acknowledged for it any more.
    pub(super) fn end(&self) {
        self.is_over.store(true, Ordering::Release);
    }

    /// Whether it has ended for good.
    pub(super) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }

    #[inline]
    fn check<T>(&self, outcome: Result<T, DeviceError>) -> Result<T, DeviceError> {
        if self.lease.is_valid() && !self.is_over() { outcome } else { Err(DeviceError::NotOwner) }
    }

    #[inline]
    fn check_inline<T>(&self, outcome: Inline<T>) -> Inline<T> {
        match outcome {
            Inline::Done(outcome) => Inline::Done(self.check(outcome)),
            Inline::Later => Inline::Later,
        }
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

    /// Has an operation carried out, and says so only if it may.
    fn checked<'a, T: 'a>(&'a self, operation: DeviceFuture<'a, T>) -> DeviceFuture<'a, T> {
        Box::pin(async move { self.ownership.check(operation.await) })
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
        self.checked(self.device.read(range))
    }

    fn write(&self, at: ByteOffset, data: Bytes, persistence: Persistence) -> DeviceFuture<'_, ()> {
        self.checked(self.device.write(at, data, persistence))
    }

    fn write_zeroes(&self, request: ZeroRequest) -> DeviceFuture<'_, ()> {
        self.checked(self.device.write_zeroes(request))
    }

    fn trim(&self, range: ByteRange, persistence: Persistence) -> DeviceFuture<'_, ()> {
        self.checked(self.device.trim(range, persistence))
    }

    fn flush(&self) -> DeviceFuture<'_, ()> {
        self.checked(self.device.flush())
    }

    fn try_flush(&self) -> Inline<()> {
        self.ownership.check_inline(self.device.try_flush())
    }

    fn prefetch(&self, range: ByteRange) -> DeviceFuture<'_, ()> {
        self.checked(self.device.prefetch(range))
    }

    fn allocation(&self, range: ByteRange, max_runs: usize) -> DeviceFuture<'_, Vec<StatusRun<Allocation>>> {
        self.checked(self.device.allocation(range, max_runs))
    }

    fn residency(&self, range: ByteRange, max_runs: usize) -> DeviceFuture<'_, Vec<StatusRun<Residency>>> {
        self.checked(self.device.residency(range, max_runs))
    }
}
