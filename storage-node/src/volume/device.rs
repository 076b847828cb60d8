//! A volume as a `BlockDevice`: requests that memory can answer are answered on the spot, all others on a thread that may
//! wait.

use std::future::{Future, ready};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use sterna_types::device::{
    Allocation, DeviceFuture, Geometry, Inline, Persistence, ReadData, ReadOutcome, StatusRun, ZeroRequest,
    checked_range,
};
use sterna_types::{BlockDevice, ByteOffset, ByteRange, ByteSize, DeviceError};
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::absence::Urgency;
use super::error::VolumeError;
use super::volume::Volume;
use crate::journal::record::Sequence;

/// A volume as a `BlockDevice`.
#[derive(Debug)]
pub struct VolumeDevice {
    volume: Arc<Volume>,
    /// Whether the last flush has taken no longer than [`QUICK`].
    is_quick: Arc<AtomicBool>,
}

impl VolumeDevice {
    /// The device in front of `volume`.
    pub fn new(volume: Arc<Volume>) -> Self {
        Self { volume, is_quick: Arc::default() }
    }

    /// Size and manner of the device of a volume of this size.
    pub fn geometry_of(size: ByteSize) -> Geometry {
        Geometry {
            size,
            minimum_io_bytes: 1,
            preferred_io_bytes: 4096,
            read_only: false,
            can_judge_fast_zeroes: true,
            rotational: false,
        }
    }

    /// The volume behind the device.
    pub fn volume(&self) -> &Arc<Volume> {
        &self.volume
    }

    fn blocking<T: Send + 'static>(
        &self,
        work: impl Fn(&Volume) -> Result<T, VolumeError> + Clone + Send + Sync + 'static,
    ) -> DeviceFuture<'_, T> {
        let volume = Arc::clone(&self.volume);
        Box::pin(async move { on_a_thread(volume, Urgency::Waited, work).await })
    }

    /// As [`change`], once the journal has room.
    fn changing(
        &self,
        persistence: Persistence,
        change: impl Fn(&Volume) -> Result<(), VolumeError> + Clone + Send + Sync + 'static,
    ) -> DeviceFuture<'_, ()> {
        let volume = Arc::clone(&self.volume);
        Box::pin(async move {
            volume.wait_for_room().await?;
            self::change(volume, persistence, change).await
        })
    }
}

/// Makes a change, durable where that is asked for.
async fn change(
    volume: Arc<Volume>,
    persistence: Persistence,
    change: impl Fn(&Volume) -> Result<(), VolumeError> + Clone + Send + Sync + 'static,
) -> Result<(), DeviceError> {
    let changed = on_a_thread(Arc::clone(&volume), Urgency::Waited, move |volume| {
        change(volume)?;
        match persistence {
            Persistence::AtNextFlush => Ok(()),
            Persistence::Durable => volume.flush(),
        }
    });
    changed.await?;
    match persistence {
        Persistence::AtNextFlush => Ok(()),
        // The change is among what was appended by now.
        Persistence::Durable => copied(&volume, volume.appended(), ready(Ok(()))).await,
    }
}

/// Has everything through `through` made durable, by `here` on this node's disk and at the same time by those who keep copies.
async fn copied(
    volume: &Volume,
    through: Sequence,
    here: impl Future<Output = Result<(), DeviceError>>,
) -> Result<(), DeviceError> {
    let Some(copies) = volume.copies().filter(|copies| copies.are_needed()) else { return here.await };
    let copied = copies.durable(through);
    here.await?;
    copied.await
}

/// Does it; again where something was not here, once that has been brought.
async fn on_a_thread<T: Send + 'static>(
    volume: Arc<Volume>,
    urgency: Urgency,
    work: impl Fn(&Volume) -> Result<T, VolumeError> + Clone + Send + Sync + 'static,
) -> Result<T, DeviceError> {
    volume.with_all_it_needs(urgency, || once_on_a_thread(&volume, work.clone())).await
}

pub(super) async fn once_on_a_thread<T: Send + 'static>(
    volume: &Arc<Volume>,
    work: impl Fn(&Volume) -> Result<T, VolumeError> + Send + 'static,
) -> Result<T, VolumeError> {
    let volume = Arc::clone(volume);
    match sterna_runtime::work::blocking(move || work(&volume)).await {
        Ok(result) => result,
        Err(join) => Err(DeviceError::Io(io::Error::other(join)).into()),
    }
}

fn read(volume: &Volume, range: ByteRange) -> Result<ReadData, VolumeError> {
    let size = volume.size();
    if !range.is_within(size) {
        return Err(DeviceError::OutOfRange { range, size }.into());
    }
    let length = usize::try_from(range.length()).map_err(|_| DeviceError::NoSpace)?;
    let mut bytes = vec![0; length];
    Ok(match volume.read(range, &mut bytes)? {
        ReadOutcome::Filled => ReadData::Bytes(bytes.into()),
        ReadOutcome::Zeroes => ReadData::Zeroes,
    })
}

/// Has what comes behind a range, some of which is not here or which comes to the mark, brought in tasks of their own, where a reader
/// seems to come to it. Each ends when it has come, or does not come at once, or the volume is closed; who then reads it asks for it
/// again, and is told what is wrong.
#[cold]
fn read_ahead(volume: &Arc<Volume>, range: ByteRange, is_missed: bool) {
    let Ok(runtime) = Handle::try_current() else { return };
    for (turn, ahead) in volume.reads_ahead(range, is_missed) {
        let volume = Arc::clone(volume);
        drop(runtime.spawn(async move {
            let _turn = turn;
            if let Err(error) = prefetch(&volume, ahead).await {
                tracing::debug!(volume = %volume.id(), %error, "what a reader may come to is not here yet");
            }
        }));
    }
}

async fn prefetch(volume: &Arc<Volume>, range: ByteRange) -> Result<(), DeviceError> {
    on_a_thread(Arc::clone(volume), Urgency::Ahead, move |volume| volume.prefetch(range)).await
}

/// Does it, and notes whether it was quick.
fn timed<T>(is_quick: &AtomicBool, work: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let done = work();
    is_quick.store(begun.elapsed() <= QUICK, Ordering::Relaxed);
    done
}

fn inline<T>(answer: Option<Result<T, VolumeError>>) -> Inline<T> {
    answer.map_or(Inline::Later, |result| Inline::Done(result.map_err(DeviceError::from)))
}

impl BlockDevice for VolumeDevice {
    fn geometry(&self) -> Geometry {
        Self::geometry_of(self.volume.size())
    }

    fn try_read(&self, at: ByteOffset, into: &mut [u8]) -> Inline<ReadOutcome> {
        match checked_range(at, into.len(), self.volume.size()) {
            Ok(range) => {
                let found = inline(self.volume.read_now(range, into));
                if matches!(found, Inline::Done(_)) {
                    self.volume.note_read(range);
                }
                if self.volume.comes_to_mark(range) && matches!(found, Inline::Done(Ok(_))) {
                    read_ahead(&self.volume, range, false);
                }
                found
            }
            Err(error) => Inline::Done(Err(error)),
        }
    }

    fn try_write(&self, at: ByteOffset, data: &[u8], persistence: Persistence) -> Inline<()> {
        match persistence {
            Persistence::AtNextFlush => {
                let written = inline(self.volume.write_now(at, data));
                if matches!(written, Inline::Done(_)) {
                    self.volume.note_write(at, data.len());
                }
                written
            }
            Persistence::Durable => Inline::Later,
        }
    }

    fn read(&self, range: ByteRange) -> DeviceFuture<'_, ReadData> {
        let volume = &self.volume;
        volume.note_read(range);
        Box::pin(volume.with_all_it_needs(Urgency::Waited, move || async move {
            let found = once_on_a_thread(volume, move |volume| read(volume, range)).await;
            let is_missed = found.as_ref().is_err_and(VolumeError::is_absence);
            if is_missed || volume.comes_to_mark(range) {
                read_ahead(volume, range, is_missed);
            }
            found
        }))
    }

    fn write(&self, at: ByteOffset, data: Bytes, persistence: Persistence) -> DeviceFuture<'_, ()> {
        let volume = Arc::clone(&self.volume);
        volume.note_write(at, data.len());
        Box::pin(async move {
            volume.wait_for_room().await?;
            if persistence == Persistence::AtNextFlush
                && let Some(written) = volume.write_paced(at, &data)
            {
                return written.map_err(DeviceError::from);
            }
            change(volume, persistence, move |volume| volume.write(at, &data)).await
        })
    }

    fn write_zeroes(&self, request: ZeroRequest) -> DeviceFuture<'_, ()> {
        // A hole is always as fast. What is to stay allocated is too: space is found in the journal, whose bound is kept,
        // and not in the place that a block had before.
        self.changing(request.persistence, move |volume| volume.zero(request.range))
    }

    fn trim(&self, range: ByteRange, persistence: Persistence) -> DeviceFuture<'_, ()> {
        let volume = Arc::clone(&self.volume);
        Box::pin(async move {
            match volume.wait_for_room().await {
                // It is what makes room: a record without blocks finds its place where data is refused.
                Ok(()) | Err(DeviceError::NoSpace) => {
                    change(volume, persistence, move |volume| volume.zero(range)).await
                }
                Err(error) => Err(error),
            }
        })
    }

    fn flush(&self) -> DeviceFuture<'_, ()> {
        let is_quick = Arc::clone(&self.is_quick);
        // Before it is asked who has to have it: whoever comes to count later has been brought up to here before.
        let through = self.volume.appended();
        let here = self.blocking(move |volume| timed(&is_quick, || volume.flush()));
        Box::pin(copied(&self.volume, through, here))
    }

    fn try_flush(&self) -> Inline<()> {
        if !self.is_quick.load(Ordering::Relaxed) || self.volume.copies().is_some_and(|copies| copies.are_needed()) {
            return Inline::Later;
        }
        inline(timed(&self.is_quick, || self.volume.flush_little()))
    }

    fn prefetch(&self, range: ByteRange) -> DeviceFuture<'_, ()> {
        Box::pin(async move {
            match prefetch(&self.volume, range).await {
                Err(error @ DeviceError::OutOfRange { .. }) => Err(error),
                // A hint: what cannot be read now is reported to whoever reads it.
                _ => Ok(()),
            }
        })
    }

    fn allocation(&self, range: ByteRange, max_runs: usize) -> DeviceFuture<'_, Vec<StatusRun<Allocation>>> {
        self.blocking(move |volume| volume.allocation(range, max_runs))
    }
}

/// A flush that is done at once may take so long: a few times what a solid-state disk needs, and of what it takes to wake a
/// thread and be woken by it. One that has taken longer sends the next to a thread, and that one says how it is now.
const QUICK: Duration = Duration::from_micros(500);
