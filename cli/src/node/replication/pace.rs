//! How fast a volume is fetched that has a limit: what has come is paid for with time before more is asked for.
//!
//! This is GCRA's virtual scheduling (ITU-T I.371, annex A) with debts of any length: a request brings what it was made for, and the next
//! one waits.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sterna_types::{ByteRate, VolumeId};
use tokio::time::{Instant, sleep_until};

/// What the volumes of a node that have limits still have to pay for.
#[derive(Debug, Default)]
pub(in crate::node) struct Pace(Mutex<BTreeMap<VolumeId, Instant>>);

impl Pace {
    /// Waits until all that has come of a volume is paid for.
    ///
    /// # Cancel safety
    /// May be dropped at any time.
    pub(super) async fn until_paid(&self, volume: VolumeId) {
        loop {
            let Some(paid_at) = self.debts().get(&volume).copied() else { return };
            if paid_at <= Instant::now() {
                return;
            }
            sleep_until(paid_at).await;
        }
    }

    /// So many bytes of a volume have come that may come at this rate.
    pub(super) fn came(&self, volume: VolumeId, bytes: u64, rate: ByteRate) {
        let now = Instant::now();
        let mut debts = self.debts();
        // Who owes nothing is forgotten.
        debts.retain(|_, paid_at| *paid_at + SAVED > now);
        let begun = debts.get(&volume).copied().unwrap_or(now).max(now.checked_sub(SAVED).unwrap_or(now));
        let nanos = u128::from(bytes) * NANOS_PER_SECOND / u128::from(rate.0.max(1));
        debts.insert(volume, begun + Duration::from_nanos_u128(nanos));
    }

    fn debts(&self) -> MutexGuard<'_, BTreeMap<VolumeId, Instant>> {
        // An entry is put in whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was not used is good for so long: a round trip of a long way, in which nothing comes.
const SAVED: Duration = Duration::from_millis(300);
const NANOS_PER_SECOND: u128 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_comes_is_paid_for_with_time() {
        let (pace, volume, other) = (Pace::default(), VolumeId(1), VolumeId(2));
        let begun = Instant::now();
        for _ in 0..20 {
            pace.until_paid(volume).await;
            // A round trip, in which it comes.
            tokio::time::sleep(Duration::from_millis(200)).await;
            pace.came(volume, 1_000_000, ByteRate(2_000_000));
        }
        pace.until_paid(volume).await;
        let took = begun.elapsed();
        assert!((Duration::from_millis(9_700)..=Duration::from_millis(10_300)).contains(&took), "{took:?}");
        let before = Instant::now();
        pace.until_paid(other).await;
        assert_eq!(before, Instant::now(), "it is another volume's debt");
    }
}
