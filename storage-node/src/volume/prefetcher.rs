//! The task that brings what a guest is about to need and is not here, as [`Prefetch`] orders it.
//!
//! It sleeps until somebody has to wait for something: a volume that is all here costs nothing. From then on it looks at what the guest touches,
//! every few moments as long as anything is to be done, and carries orders out beside each other. A new attach begins from nothing.
//!
//! It is stopped with the volume, and what it has under way then ends. What does not come is told once, and shows in
//! [`super::VolumeStatus`] until something has come: whoever needs it asks for it, and waits.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sterna_types::{BLOCK_SIZE, DeviceError};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::absence::{Absence, Urgency};
use super::device::once_on_a_thread;
use super::error::VolumeError;
use super::filler::within;
use super::read::{Place, per_segment, unless_absent};
use super::storage::lock;
use super::volume::Volume;
use crate::prefetch::{Following, Order, Outcome, Prefetch};
use crate::trace::Seen;

/// What is brought to a volume that is not all here, and by whom.
#[derive(Debug, Default)]
pub(super) struct Bringing {
    /// Told when somebody waits for something.
    missed: Notify,
    /// How often somebody has, and how often something was brought before that.
    waited: AtomicU64,
    ahead: AtomicU64,
    /// Orders under way.
    ordered: AtomicUsize,
    /// How the guest is followed.
    following: Mutex<Option<Following>>,
    /// Why the last order has failed; nothing where it has not.
    failure: Mutex<Option<String>>,
}

/// What an administrator wants to know of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BringingStatus {
    /// How often, since the volume was opened, something was brought that somebody waited for.
    pub waited: u64,
    /// How often something was brought before anybody waited for it.
    pub ahead: u64,
    /// Orders that are being carried out.
    pub ordered: usize,
    /// How the guest keeps to a trace; nothing where it keeps to none.
    pub following: Option<Following>,
    /// Why what was to be brought ahead last has not come; nothing where it has.
    pub failure: Option<String>,
}

impl Bringing {
    /// Something that is not here is about to be brought.
    pub(super) fn note(&self, urgency: Urgency) {
        match urgency {
            Urgency::Waited => {
                self.waited.fetch_add(1, Ordering::Relaxed);
                self.missed.notify_one();
            }
            Urgency::Ahead => drop(self.ahead.fetch_add(1, Ordering::Relaxed)),
        }
    }

    pub(super) fn status(&self) -> BringingStatus {
        BringingStatus {
            waited: self.waited.load(Ordering::Relaxed),
            ahead: self.ahead.load(Ordering::Relaxed),
            ordered: self.ordered.load(Ordering::Relaxed),
            following: *lock(&self.following),
            failure: lock(&self.failure).clone(),
        }
    }
}

/// The task of one volume. It ends when it is stopped.
#[derive(Debug)]
pub struct Prefetcher {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Prefetcher {
    /// Starts it, on this runtime.
    pub fn start(volume: Arc<Volume>, runtime: &Handle) -> Self {
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let task = runtime.spawn(async move {
            tokio::select! {
                () = stopped.cancelled() => {}
                () = run(&volume) => {}
            }
        });
        Self { stop, task }
    }

    /// Ends it, and what it has under way.
    ///
    /// # Cancel safety
    /// May be dropped at any time; it ends all the same.
    pub async fn stop(self) {
        self.stop.cancel();
        // A panic of the task has been reported by the runtime.
        let _ = self.task.await;
    }
}

impl Volume {
    /// Makes sure that what these runs of blocks hold is here. What is overwritten by now, or lies behind the end, is not looked
    /// for.
    fn find(&self, runs: &[Range<u64>]) -> Result<(), VolumeError> {
        self.check_open()?;
        let size = self.size().0 / BLOCK_SIZE;
        let mut absence = Absence::default();
        for run in runs {
            for (blocks, place) in self.places(run.start.min(size)..run.end.min(size)) {
                match place {
                    Place::Journal(_) => {}
                    Place::Elsewhere => absence.blocks.push(blocks),
                    Place::Map => {
                        for (segment, blocks) in per_segment(blocks) {
                            unless_absent(self.map_with(segment, within(segment, &blocks)), &mut absence)?;
                        }
                    }
                }
            }
        }
        absence.into_result()
    }
}

/// The policy for one attach, and what is under way for it.
struct Attach {
    number: u64,
    begun: Instant,
    prefetch: Prefetch,
    /// When the guest has touched something last, or something has come.
    stirred: Instant,
}

impl Attach {
    fn new(volume: &Volume, number: u64) -> Self {
        let hot = volume.read_hot(MAX_HOT_RUNS).concat();
        let (prefetch, begun) = (Prefetch::new(volume.traces_before(), hot), Instant::now());
        Self { number, begun, prefetch, stirred: begun }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Whether it is to be looked at again, though nobody waits for anything.
    fn is_astir(&self) -> bool {
        !self.prefetch.is_at_rest() && self.stirred.elapsed() < STIRRED_FOR
    }
}

async fn run(volume: &Arc<Volume>) {
    let mut under_way = JoinSet::new();
    let mut seen = Seen::default();
    let mut current: Option<Attach> = None;
    loop {
        let is_astir = current.as_ref().is_some_and(Attach::is_astir);
        tokio::select! {
            () = volume.bringing.missed.notified() => {}
            () = tokio::time::sleep(LOOK_EVERY), if is_astir => {}
            Some(done) = under_way.join_next() => {
                // What has panicked was reported by the runtime, and stays under way: no more than a few can be.
                if let (Ok((attach, number, outcome)), Some(current)) = (done, &mut current)
                    && attach == current.number
                {
                    let now_ms = current.now_ms();
                    current.stirred = Instant::now();
                    current.prefetch.done(number, outcome, now_ms);
                }
            }
        }
        let number = volume.touches.progress().0;
        // Nobody is attached: whoever reads does so from elsewhere, and no guest is to be followed.
        if number == 0 || volume.is_closed() {
            continue;
        }
        let attach = match current.take().filter(|current| current.number == number) {
            Some(attach) => current.insert(attach),
            None => {
                under_way.abort_all();
                current.insert(Attach::new(volume, number))
            }
        };
        let touched = volume.new_touches(&mut seen);
        if !touched.is_empty() {
            attach.stirred = Instant::now();
        }
        touched.iter().for_each(|run| attach.prefetch.touched(&run.blocks));
        let now_ms = attach.now_ms();
        while let Some(order) = attach.prefetch.order(now_ms) {
            under_way.spawn(carry_out(Arc::clone(volume), number, order));
        }
        *lock(&volume.bringing.following) = attach.prefetch.following();
        volume.bringing.ordered.store(under_way.len(), Ordering::Relaxed);
    }
}

/// Has what is ordered brought. Of which attach it was, which order, and what has become of it.
async fn carry_out(volume: Arc<Volume>, attach: u64, order: Order) -> (u64, u64, Outcome) {
    let was_absent = Arc::new(AtomicBool::new(false));
    let runs: Arc<[Range<u64>]> = order.runs.into();
    let brought = volume.with_all_it_needs(Urgency::Ahead, || {
        let (volume, runs, was_absent) = (&volume, Arc::clone(&runs), Arc::clone(&was_absent));
        async move {
            let found = once_on_a_thread(volume, move |volume| volume.find(&runs)).await;
            if found.as_ref().is_err_and(VolumeError::is_absence) {
                was_absent.store(true, Ordering::Relaxed);
            }
            found
        }
    });
    let outcome = match brought.await {
        Ok(()) if was_absent.load(Ordering::Relaxed) => {
            *lock(&volume.bringing.failure) = None;
            Outcome::Arrived
        }
        Ok(()) => Outcome::WasHere,
        Err(error) => {
            note_failure(&volume, &error);
            Outcome::Failed
        }
    };
    (attach, order.number, outcome)
}

fn note_failure(volume: &Volume, error: &DeviceError) {
    if volume.is_closed() {
        return;
    }
    let before = lock(&volume.bringing.failure).replace(error.to_string());
    if before.is_none() {
        tracing::info!(volume = %volume.id(), %error, "what its guest may need next is not here yet; it is tried again");
    }
}

/// How soon what a guest has touched is seen that has to wait for nothing.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// For how long after the last touch it is looked for more.
const STIRRED_FOR: Duration = Duration::from_secs(30);
/// Runs of what is hot.
const MAX_HOT_RUNS: usize = 16_384;
