//! Who sees to a volume's handoff, or fetches all of it: one at a time.
//!
//! Who fetches gives way to who wants to give the volume away: fetching goes on at the next owner, or here if nothing comes of it. All
//! others bring to its end what they have begun, since only then it is known whose the volume is.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sterna_types::VolumeId;
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// The volumes of a node that are in somebody's hand.
#[derive(Debug, Default)]
pub(super) struct Hands {
    /// With what tells who has it that somebody else asks for it.
    taken: Mutex<BTreeMap<VolumeId, CancellationToken>>,
    /// Told when one is free again.
    freed: Notify,
}

/// The right to see to a volume's handoff, for as long as it lives.
#[derive(Debug)]
pub(in crate::node) struct InHand {
    volume: VolumeId,
    asked_for: CancellationToken,
    all: Arc<Hands>,
}

impl Hands {
    /// The right to see to a volume's handoff; `None` where somebody has it.
    pub(super) fn take(self: &Arc<Self>, volume: VolumeId) -> Option<InHand> {
        let mut taken = self.taken();
        if taken.contains_key(&volume) {
            return None;
        }
        let asked_for = CancellationToken::new();
        taken.insert(volume, asked_for.clone());
        Some(InHand { volume, asked_for, all: Arc::clone(self) })
    }

    /// The same, once who has it has been told that somebody asks for it, and has let go of it; `None` where that takes long.
    ///
    /// # Cancel safety
    /// May be dropped at any time; who has been told lets go all the same.
    pub(super) async fn ask_for(self: &Arc<Self>, volume: VolumeId) -> Option<InHand> {
        let asking = async {
            loop {
                let freed = self.freed.notified();
                if let Some(in_hand) = self.take(volume) {
                    return in_hand;
                }
                // Somebody else may have been faster, and is asked in turn.
                if let Some(asked_for) = self.taken().get(&volume) {
                    asked_for.cancel();
                }
                freed.await;
            }
        };
        timeout(PATIENCE, asking).await.ok()
    }

    fn taken(&self) -> MutexGuard<'_, BTreeMap<VolumeId, CancellationToken>> {
        // An entry is put in whole or not at all.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl InHand {
    /// Waits until somebody asks for the volume, who wants to give it away.
    ///
    /// # Cancel safety
    /// May be dropped at any time.
    pub(super) async fn asked_for(&self) {
        self.asked_for.cancelled().await;
    }
}

impl Drop for InHand {
    fn drop(&mut self) {
        self.all.taken().remove(&self.volume);
        self.all.freed.notify_waiters();
    }
}

/// For the metadata to answer who is just telling it something.
const PATIENCE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, sleep};

    use super::*;

    const ONE: VolumeId = VolumeId(1);

    #[tokio::test(start_paused = true)]
    async fn who_has_it_is_told_that_it_is_asked_for_and_lets_go() {
        let hands = Arc::new(Hands::default());
        let in_hand = hands.take(ONE).expect("it is free");
        assert!(hands.take(ONE).is_none() && hands.take(VolumeId(2)).is_some());
        let fetching = tokio::spawn(async move {
            in_hand.asked_for().await;
            // What it cannot leave as it is.
            sleep(Duration::from_secs(1)).await;
        });
        let begun = Instant::now();
        let asked = hands.ask_for(ONE).await.expect("it gives way");
        assert_eq!(begun.elapsed(), Duration::from_secs(1));
        fetching.await.expect("no panic");
        assert!(hands.take(ONE).is_none(), "it is in the hand of who has asked");
        drop(asked);
        assert!(hands.take(ONE).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_does_not_wait_for_ever_and_asks_all_who_were_faster() {
        let hands = Arc::new(Hands::default());
        let keeper = hands.take(ONE).expect("it is free");
        let begun = Instant::now();
        assert!(hands.ask_for(ONE).await.is_none());
        assert_eq!(begun.elapsed(), PATIENCE);
        drop(keeper);

        let first = hands.take(ONE).expect("it is free");
        let own = Arc::clone(&hands);
        let in_turn = tokio::spawn(async move {
            first.asked_for().await;
            drop(first);
            // Before anybody else is awake.
            if let Some(second) = own.take(ONE) {
                second.asked_for().await;
            }
        });
        assert!(hands.ask_for(ONE).await.is_some());
        in_turn.await.expect("no panic");
    }
}
