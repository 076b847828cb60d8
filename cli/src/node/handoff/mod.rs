//! Volumes that pass from this node to another one, and to this one from others (design section 5).
//!
//! ```text
//! A, the owner            metadata                B, where they go        what a start makes of a crash behind it
//! ────────────            ────────                ────────────────        ───────────────────────────────────────
//! 1 seal what is new                                                      nothing has happened
//! 2 BeginHandoff ───────> Moving(A→B)                                     A: aborts
//! 3 Prepare ────────────────────────────────────> makes room              A: aborts
//! 4 acknowledges nothing more
//! 5 promises: released, and syncs                                         A: releases again, the same
//! 6 Release ────────────────────────────────────> 7 promises: accepted    A: releases again; B: serves, commits
//!                                                 8 serves
//!                         Owned(B) <───────────── 9 CommitHandoff         B: commits again; A: sees that it has ended
//! 10 answers for what B lacks <────────────────── fetches it              B: fetches what it lacks
//!                         all is here <────────── 11 FinishHydration      B: says so again
//! 12 forgets what it had                                                  A: forgets it
//! ```
//!
//! On the way from 4 to 8 lie two syncs and one message. A little of what is newer than the root goes along with it; the rest is fetched
//! first of all. When a node serves, and what it may promise, is decided by
//! `sterna_consensus::handoff`; that there is one promise about a handoff, and what it is on the disk, by [`promise`].
//!
//! * `pre_copy`: bringing what is hot there before all that.
//! * `give`: the steps of A, and `end`: how they end. `take`: those of B, and `service`: how it hears of them.
//! * `settle`: what is left to do of handoffs that nobody sees to any more, such as those of an earlier run.
//! * `standby`: what clients have of a volume where it is not served, and `ask`: giving it to where one of them writes.
//! * `supply`: bringing what a guest needs and is not here, each chunk once (`in_flight`). `hydrate`: bringing all the rest, 10 to 11.
//! * `wire`: what A and B tell each other.
//!
//! Whoever sees to a handoff of a volume, or fetches all of it, has it in hand ([`Handoffs::take_in_hand`]): nobody else does meanwhile, and
//! who fetches gives way to who gives it away (`in_hand`).
//!
//! # A volume that has not arrived
//!
//! A may give away a volume of which it lacks something itself, also to where it came from, as when a migration is given up in the middle.
//! Before step 1 it sees to it that all of the tail that it was given is in a root of its own (steps 1 and 2 of `hydrate`), so that what it
//! lacks are chunks only. Each of those is kept, under the root that it has released, by a node that the metadata names among the volume's
//! sources; with step 9 A is one of them. So:
//!
//! * blocks are asked of one node, the last to release the volume, and chunks of all the sources;
//! * what a node has kept of a volume that comes back to it, beside chunks, is not needed any more when step 3 removes it: who hands the
//!   volume over has sealed it;
//! * nobody forgets anything before step 11, by whoever owns the volume then, and a volume has so many sources at most
//!   (`sterna_consensus::limits::MAX_SOURCES`).

mod ask;
mod end;
mod give;
mod hydrate;
mod in_flight;
mod in_hand;
mod pre_copy;
mod promise;
mod service;
mod settle;
mod standby;
mod supply;
mod take;
mod wire;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use sterna_consensus::state::ownership::HandoffNumber;
use sterna_runtime::BootTime;
use sterna_types::{NodeId, VolumeId};
use tokio::sync::Notify;

use self::in_hand::{Hands, InHand};
pub(super) use give::{Given, prepare};
pub(super) use pre_copy::{PreCopied, pre_copy};
pub(super) use promise::Promises;
pub(super) use service::service;
pub(super) use settle::run;
pub(super) use standby::{StandbyDevice, until_served};
pub(super) use supply::Supplier;

/// The handoffs of a node that somebody sees to.
#[derive(Debug, Default)]
pub(super) struct Handoffs {
    hands: Arc<Hands>,
    /// Those that this node has released, and the other one has said that it has: the metadata is about to know it.
    delivered: Mutex<BTreeMap<VolumeId, HandoffNumber>>,
    news: Notify,
    /// Told when this node has accepted volumes.
    accepted: Notify,
}

impl Handoffs {
    /// The right to see to a volume's handoff; `None` where somebody has it.
    pub(super) fn take_in_hand(&self, volume: VolumeId) -> Option<InHand> {
        self.hands.take(volume)
    }

    /// The same for who wants to give the volume away, once who fetches it has given way; `None` where somebody has it for long.
    async fn ask_for(&self, volume: VolumeId) -> Option<InHand> {
        self.hands.ask_for(volume).await
    }

    /// Notes that the other node has said that it has a volume.
    fn note_delivered(&self, volume: VolumeId, handoff: HandoffNumber) {
        self.delivered.lock().unwrap_or_else(PoisonError::into_inner).insert(volume, handoff);
    }

    /// Whether the other node has said, since this one was started, that it has a volume.
    fn is_delivered(&self, volume: VolumeId, handoff: HandoffNumber) -> bool {
        self.delivered.lock().unwrap_or_else(PoisonError::into_inner).get(&volume) == Some(&handoff)
    }

    /// Notes that this node has accepted volumes.
    fn note_accepted(&self) {
        self.accepted.notify_waiters();
        self.wake();
    }

    /// Has what is left to do looked for at once.
    fn wake(&self) {
        self.news.notify_one();
    }

    /// Waits until that is asked for.
    async fn woken(&self) {
        self.news.notified().await;
    }
}

/// Says that a message about a handoff, or for its contents, is sent, for programs that count them (`docs/faults.md`).
fn tell(what: &'static str, to: NodeId) {
    let at_ns = BootTime::now().nanoseconds();
    tracing::debug!(target: "sterna::handoff", what, to = to.0, at_ns, "sends");
}
