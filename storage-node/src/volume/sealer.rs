//! The background task of an open volume: seals it in time, has the journal's next file ready, and keeps how it is used.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sterna_types::DeviceError;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::absence::Urgency;
use super::error::VolumeError;
use super::volume::{SealFailure, Volume};

/// The task that seals one volume. It ends when it is stopped, and when the volume is closed.
///
/// A failed seal shows in [`super::VolumeStatus::seal_failure`], and is tried again.
#[derive(Debug)]
pub struct Sealer {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Sealer {
    /// Starts it. `slots` bounds how many volumes of the node are sealed at once.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(volume: Arc<Volume>, slots: Arc<Semaphore>) -> Self {
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            tokio::select! {
                () = stopped.cancelled() => {}
                () = seal_in_time(&volume, &slots) => {}
                () = keep_journal_ready(&volume) => {}
                () = keep_use(&volume) => {}
            }
        });
        Self { stop, task }
    }

    /// Ends it; a seal that runs is finished first, by the thread that it is on.
    ///
    /// # Cancel safety
    /// It ends also when this is dropped.
    pub async fn stop(self) {
        self.stop.cancel();
        // A panic of the task has been reported by the runtime.
        let _ = self.task.await;
    }
}

async fn seal_in_time(volume: &Arc<Volume>, slots: &Semaphore) {
    // What a seal has met with is brought: it goes on without waiting for more to seal.
    let mut is_under_way = false;
    while !volume.is_closed() {
        if !volume.has_unsealed() || volume.is_released() {
            volume.seal_wanted.notified().await;
            continue;
        }
        if !volume.has_much_unsealed() && !is_under_way {
            // Woken early when much has come together.
            let _ = tokio::time::timeout(volume.storage.options.seal_age, volume.seal_wanted.notified()).await;
        }
        let Ok(slot) = slots.acquire().await else {
            return;
        };
        let sealing = Arc::clone(volume);
        let sealed = sterna_runtime::work::blocking(move || seal_and_tidy(&sealing)).await;
        drop(slot);
        is_under_way = false;
        match sealed {
            Ok(Ok(())) => {}
            Ok(Err(VolumeError::Closed)) => return,
            Ok(Err(error)) => match volume.bring(error, Urgency::Waited).await {
                Ok(()) => is_under_way = true,
                Err(error) => {
                    tracing::warn!(volume = %volume.id(), %error, "a seal has failed; it is tried again");
                    // One that has met with nothing absent has noted why itself.
                    if volume.seal_failure().is_none() {
                        volume.note_failed_seal(&error.to_string());
                    }
                    tokio::time::sleep(RETRY_AFTER).await;
                }
            },
            Err(panic) => {
                tracing::error!(volume = %volume.id(), error = %panic, "sealing has ended for good");
                volume.note_failed_seal(&panic.to_string());
                return;
            }
        }
    }
}

fn seal_and_tidy(volume: &Volume) -> Result<(), VolumeError> {
    volume.seal()?;
    volume.renew_maps();
    volume.rewrite_cold()?;
    Ok(())
}

async fn keep_journal_ready(volume: &Arc<Volume>) {
    while !volume.is_closed() {
        volume.journal.next_wanted().await;
        let preparing = Arc::clone(volume);
        // An error shows to the write that needs the file.
        let _ = sterna_runtime::work::blocking(move || preparing.prepare_journal()).await;
    }
}

async fn keep_use(volume: &Arc<Volume>) {
    while !volume.is_closed() {
        tokio::time::sleep(KEEP_USE_EVERY).await;
        let keeping = Arc::clone(volume);
        // A panic of it has been reported by the runtime.
        let _ = sterna_runtime::work::blocking(move || keeping.keep_use()).await;
    }
}

impl Volume {
    /// Waits until the journal is below its limit; for a moment also where it is more than three quarters full, so that
    /// writers slow down to what seals keep up with, rather than run up against the limit and stop until a seal has ended.
    ///
    /// # Errors
    /// [`DeviceError::NoSpace`], or why else nothing can be sealed, so that nobody waits in vain.
    ///
    /// # Cancel safety
    /// May be dropped at any time.
    pub async fn wait_for_room(&self) -> Result<(), DeviceError> {
        let pace = self.pace();
        if !pace.is_zero() {
            tokio::time::sleep(pace).await;
        }
        loop {
            let ended = self.seal_ended.notified();
            // Who writes what is closed or released is refused by the write itself.
            if self.has_room() || self.is_closed() || self.is_released() {
                return Ok(());
            }
            if let Some(failure) = self.seal_failure().clone() {
                return Err(match failure.is_full {
                    true => DeviceError::NoSpace,
                    false => DeviceError::Io(std::io::Error::other(failure.what)),
                });
            }
            ended.await;
        }
    }

    /// How long a write is held back: not at all while a quarter of the journal is free, and from there on the longer the
    /// fuller it is.
    pub(super) fn pace(&self) -> Duration {
        let (bytes, limit) = (self.unsealed_bytes(), self.storage.options.journal_limit_bytes);
        let range = (limit / 4).max(1);
        let over = bytes.saturating_sub(limit - range);
        // Less than 2^32 even where both are as large as can be.
        let parts = u32::try_from(u128::from(over.min(range)) * 1000 / u128::from(range)).unwrap_or(1000);
        SLOWEST_PACE * parts / 1000
    }

    /// Has it shown that nothing is sealed.
    fn note_failed_seal(&self, what: &str) {
        *self.seal_failure() = Some(SealFailure { is_full: false, what: what.to_owned() });
        self.seal_ended.notify_waiters();
    }

    fn has_unsealed(&self) -> bool {
        self.unsealed_bytes() > 0
    }

    fn has_much_unsealed(&self) -> bool {
        self.unsealed_bytes() >= self.storage.options.seal_after_bytes
    }

    fn unsealed_bytes(&self) -> u64 {
        self.unsealed_bytes.load(Ordering::Acquire)
    }
}

/// Of what changes with a half-life of ten minutes a crash may cost so much.
const KEEP_USE_EVERY: Duration = Duration::from_secs(5 * 60);

/// How long after a failed seal it is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How long a write is held back at the limit. 16 of 128 KiB at a time come to 100 MiB/s then, and 32 of 4 KiB to 6, which most
/// disks seal faster; where one does not, the limit itself holds.
const SLOWEST_PACE: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use sterna_types::{ByteOffset, Root};

    use super::*;
    use crate::volume::tests::Machine;

    #[test]
    fn writers_are_slowed_down_by_and_by() {
        let machine = Machine::new();
        let volume = machine.volume(1, 1 << 20, Root::EMPTY);
        let limit = volume.storage.options.journal_limit_bytes;
        let pace_at = |bytes| {
            volume.unsealed_bytes.store(bytes, Ordering::Release);
            (volume.pace(), volume.write_now(ByteOffset(0), &[1; 4096]).is_some())
        };
        assert!(!pace_at(limit * 4 / 5).1, "it is not done at once");
        let paces =
            [0, limit / 2, limit * 3 / 4, limit * 7 / 8, limit, limit * 2, u64::MAX].map(|bytes| pace_at(bytes).0);
        assert_eq!(paces, [0, 0, 0, 10, 20, 20, 20].map(Duration::from_millis));
        volume.unsealed_bytes.store(0, Ordering::Release);
    }
}
