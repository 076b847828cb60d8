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
//! Clients of one that is over are answered with errors for good: the volume may have been changed elsewhere, and what they know of it is old.
//! Where somebody knows that it was not, and that they are who they were, as the migrator of a VM does that was to move and did not,
//! they go on with the volume as it has come back ([`Ownership::succeed`]).
//!
//! While it is paused clients wait: they are answered once it is known who goes on with the volume. It is noted when one of them has changed
//! something last: a volume that is changed goes to nobody who asks for it.

use std::future::Future;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use sterna_consensus::session::Lease;
use sterna_runtime::BootTime;
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
    /// How many changes that clients have asked for are under way.
    changing: AtomicU32,
    /// When the last one was answered: nanoseconds of [`BootTime`], which has begun long before any.
    changed_at: AtomicU64,
    /// Once it is over: what its clients go on with.
    successor: OnceLock<OwnedDevice>,
}

const HELD: u8 = 0;
const PAUSED: u8 = 1;
const OVER: u8 = 2;

impl Ownership {
    /// Under this lease, and held.
    pub(super) fn new(lease: Arc<Lease>) -> Self {
        let (standing, decided) = (AtomicU8::new(HELD), Notify::new());
        let (changing, changed_at) = (AtomicU32::new(0), AtomicU64::new(0));
        Self { lease, standing, decided, changing, changed_at, successor: OnceLock::new() }
    }

    /// How long ago a client has changed something last; nothing while it does.
    pub(super) fn quiet_for(&self) -> Duration {
        let is_changing = self.changing.load(Ordering::Acquire) > 0;
        let changed_at = BootTime::from_nanoseconds(self.changed_at.load(Ordering::Acquire));
        if is_changing { Duration::ZERO } else { changed_at.until(BootTime::now()) }
    }

    /// Notes that a client changes something, for as long as what is returned lives.
    fn change(&self) -> Change<'_> {
        self.changing.fetch_add(1, Ordering::AcqRel);
        Change(self)
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

    /// Has the clients of this one, which is over, go on with another device of the volume. Whoever calls it knows that they have missed
    /// nothing.
    pub(super) fn succeed(&self, device: OwnedDevice) {
        if self.is_over() {
            // A second one would be the same volume in the same epoch.
            let _ = self.successor.set(device);
        }
    }

    /// Waits until it has ended for good.
    ///
    /// # Cancel safety
    /// May be dropped at any time.
    pub(super) async fn until_over(&self) {
        loop {
            let told = self.decided.notified();
            if self.is_over() {
                return;
            }
            told.await;
        }
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

    /// Notes that a client has changed something. Seldom a store: many connections share its cache line.
    #[inline]
    fn note_changed(&self, now: BootTime) {
        let noted = BootTime::from_nanoseconds(self.changed_at.load(Ordering::Relaxed));
        if noted.until(now) > CHANGE_RESOLUTION {
            self.changed_at.store(now.nanoseconds(), Ordering::Release);
        }
    }

    #[inline]
    fn check<T>(&self, outcome: Result<T, DeviceError>, now: BootTime) -> Result<T, DeviceError> {
        if self.lease.is_valid_at(now) && !self.is_over() { outcome } else { Err(DeviceError::NotOwner) }
    }

    #[inline]
    fn check_inline<T>(&self, outcome: Inline<T>, now: BootTime) -> Inline<T> {
        match outcome {
            // It is done once more, when it is known who does it.
            Inline::Done(_) if self.is_paused() => Inline::Later,
            Inline::Done(outcome) => Inline::Done(self.check(outcome, now)),
            Inline::Later => Inline::Later,
        }
    }

    /// Whether it is not known now who answers for the volume.
    #[inline]
    pub(super) fn is_paused(&self) -> bool {
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

/// A change that a client has asked for.
#[derive(Debug)]
struct Change<'a>(&'a Ownership);

impl Drop for Change<'_> {
    fn drop(&mut self) {
        self.0.changed_at.store(BootTime::now().nanoseconds(), Ordering::Release);
        self.0.changing.fetch_sub(1, Ordering::AcqRel);
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

    /// The device that its clients have now.
    #[inline]
    fn current(&self) -> &Self {
        let mut device = self;
        while device.ownership.is_over()
            && let Some(successor) = device.ownership.successor.get()
        {
            device = successor;
        }
        device
    }

    /// Has an operation carried out, and says so only if it may. One that a pause comes into is carried out again behind it: nobody
    /// was told of it, and until somebody is, it is under way.
    async fn carry_out<T, F>(&self, operation: impl Fn() -> F) -> Result<T, DeviceError>
    where
        F: Future<Output = Result<T, DeviceError>>,
    {
        loop {
            if self.ownership.is_paused() {
                self.ownership.until_decided().await?;
            }
            let outcome = operation().await;
            if !self.ownership.is_paused() {
                return self.ownership.check(outcome, BootTime::now());
            }
        }
    }

    fn checked<'a, T, F>(&'a self, operation: impl Fn() -> F + Send + 'a) -> DeviceFuture<'a, T>
    where
        T: Send + 'a,
        F: Future<Output = Result<T, DeviceError>> + Send + 'a,
    {
        Box::pin(self.carry_out(operation))
    }

    /// The same, of a change.
    fn changing<'a, F>(&'a self, operation: impl Fn() -> F + Send + 'a) -> DeviceFuture<'a, ()>
    where
        F: Future<Output = Result<(), DeviceError>> + Send + 'a,
    {
        Box::pin(async move {
            let _change = self.ownership.change();
            self.carry_out(operation).await
        })
    }
}

impl BlockDevice for OwnedDevice {
    fn geometry(&self) -> Geometry {
        self.device.geometry()
    }

    fn try_read(&self, at: ByteOffset, into: &mut [u8]) -> Inline<ReadOutcome> {
        let own = self.current();
        own.ownership.check_inline(own.device.try_read(at, into), BootTime::now())
    }

    fn try_write(&self, at: ByteOffset, data: &[u8], persistence: Persistence) -> Inline<()> {
        let own = self.current();
        let written = own.device.try_write(at, data, persistence);
        let now = BootTime::now();
        if matches!(written, Inline::Done(_)) {
            own.ownership.note_changed(now);
        }
        own.ownership.check_inline(written, now)
    }

    fn read(&self, range: ByteRange) -> DeviceFuture<'_, ReadData> {
        let own = self.current();
        own.checked(move || own.device.read(range))
    }

    fn write(&self, at: ByteOffset, data: Bytes, persistence: Persistence) -> DeviceFuture<'_, ()> {
        let own = self.current();
        own.changing(move || own.device.write(at, data.clone(), persistence))
    }

    fn write_zeroes(&self, request: ZeroRequest) -> DeviceFuture<'_, ()> {
        let own = self.current();
        own.changing(move || own.device.write_zeroes(request))
    }

    fn trim(&self, range: ByteRange, persistence: Persistence) -> DeviceFuture<'_, ()> {
        let own = self.current();
        own.changing(move || own.device.trim(range, persistence))
    }

    fn flush(&self) -> DeviceFuture<'_, ()> {
        let own = self.current();
        own.checked(move || own.device.flush())
    }

    fn try_flush(&self) -> Inline<()> {
        let own = self.current();
        own.ownership.check_inline(own.device.try_flush(), BootTime::now())
    }

    fn prefetch(&self, range: ByteRange) -> DeviceFuture<'_, ()> {
        let own = self.current();
        own.checked(move || own.device.prefetch(range))
    }

    fn allocation(&self, range: ByteRange, max_runs: usize) -> DeviceFuture<'_, Vec<StatusRun<Allocation>>> {
        let own = self.current();
        own.checked(move || own.device.allocation(range, max_runs))
    }

    fn residency(&self, range: ByteRange, max_runs: usize) -> DeviceFuture<'_, Vec<StatusRun<Residency>>> {
        let own = self.current();
        own.checked(move || own.device.residency(range, max_runs))
    }
}

/// How exactly it is known when a client has changed something last.
const CHANGE_RESOLUTION: Duration = Duration::from_millis(10);
/// What a client waits at most to be told who goes on with its volume: until another node has had time to answer, or this one to
/// see that it does not. Whoever serves disks to machines gives up later than this.
pub(super) const PAUSE_PATIENCE: Duration = Duration::from_secs(20);
