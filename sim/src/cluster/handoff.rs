//! Has volumes handed over by their owners, while whatever else happens.
//!
//! A volume that is on its way is not failed over: what is lost is told by counts of writes, and an epoch that nobody ever owned has
//! none. So each handoff has its volume's turn until it has ended, and the new owner has everything.
//!
//! Not every owner is waited for: half of the volumes are handed on before they have arrived, back to where they came from or further, some
//! so often that they are refused. Meanwhile it is collected what nothing needs.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::join_all;
use sterna_tests::faults::history::{Handoff, Record};
use sterna_tests::random::Random;
use tokio::time::{Instant, sleep};

use super::failover::Failovers;
use super::world::World;
use crate::surroundings::now_ns;

/// The handoffs of a run.
pub(super) struct Handoffs {
    world: Rc<World>,
    failovers: Rc<Failovers>,
}

impl Handoffs {
    pub(super) fn new(world: &Rc<World>, failovers: &Rc<Failovers>) -> Self {
        Self { world: Rc::clone(world), failovers: Rc::clone(failovers) }
    }

    /// Has one volume after the other handed over, all volumes at the same time, until `faults` are over.
    pub(super) async fn until(&self, faults: impl Future<Output = ()>) {
        let are_over = Cell::new(false);
        let volumes = (0..self.world.shape.places).map(|place| self.move_about(place, &are_over));
        let faults = async {
            faults.await;
            are_over.set(true);
        };
        tokio::join!(faults, join_all(volumes));
    }

    async fn move_about(&self, place: u8, are_over: &Cell<bool>) {
        let mut random = Random::new(self.world.shape.seed ^ (0x0068_616e_646f + u64::from(place)));
        let between_ms = u64::try_from(self.world.shape.between_moves.as_millis()).unwrap_or(u64::MAX);
        loop {
            sleep(Duration::from_millis(random.below(between_ms))).await;
            let ahead = 1 + usize::try_from(random.below(self.world.places.len() as u64 - 1)).unwrap_or(0);
            if are_over.get() {
                return;
            }
            self.hand_about(self.world.standing(place), ahead, &mut random).await;
        }
    }

    /// Has a volume handed over, maybe on and on before it has arrived, and waits until that has ended.
    async fn hand_about(&self, volume: u8, ahead: usize, random: &mut Random) {
        let _turn = self.failovers.turn(volume).await;
        if self.world.is_closed(volume) {
            return;
        }
        self.failovers.take_down(volume).await;
        let Some(mut from) = self.failovers.owner(volume).await else { return };
        let sites = self.world.places.len();
        let mut to = (from + ahead) % sites;
        let times = TIMES[usize::try_from(random.below(TIMES.len() as u64)).unwrap_or(0)];
        for left in (0..times).rev() {
            let require = REQUIREMENTS[usize::try_from(random.below(REQUIREMENTS.len() as u64)).unwrap_or(0)];
            let is_handed = self.hand_over(volume, from, to, require).await;
            if left == 0 || !is_handed || !self.is_owned(volume, to).await {
                break;
            }
            let pause_ms = PAUSES_MS[usize::try_from(random.below(PAUSES_MS.len() as u64)).unwrap_or(0)];
            sleep(Duration::from_millis(pause_ms)).await;
            if random.below(3) == 0 {
                self.collect(usize::try_from(random.below(sites as u64)).unwrap_or(0)).await;
            }
            let ahead = 1 + usize::try_from(random.below(sites as u64 - 1)).unwrap_or(0);
            (from, to) = (to, if random.below(2) == 0 { from } else { (to + ahead) % sites });
        }
        self.until_at_rest(volume).await;
    }

    /// Has it collected at a site what nothing needs: what others have not fetched yet is needed.
    async fn collect(&self, site: usize) {
        let collected = self.world.ask(site, |node| async move { node.collect().await }).await;
        if let Some(Ok(_)) = collected {
            self.world.count(|cared| cared.collections += 1);
        }
    }

    /// Waits until a node owns a volume that was handed to it, though not for long; whether it does. It is counted how many of its sources
    /// have not had all of it themselves.
    async fn is_owned(&self, volume: u8, by: usize) -> bool {
        for _ in 0..LOOKS {
            // As that node has it: no time is lost.
            let metadata = self.world.ask(by, |node| async move { node.metadata() }).await;
            let entry = metadata.as_ref().and_then(|metadata| self.failovers.entry(metadata, volume));
            if let Some(entry) = entry
                && entry.moving_to.is_none()
                && self.failovers.place_of(entry.owner) == Some(by)
            {
                if entry.sources.len() > 1 {
                    let has_come_back = entry.sources.iter().any(|source| source.node == entry.owner);
                    self.world.count_handed_on(has_come_back);
                    self.world.tell(&format!(
                        "volume {volume} was handed on to {by} before it had arrived: parts of it are at {} nodes",
                        entry.sources.len()
                    ));
                }
                return true;
            }
            sleep(LOOK).await;
        }
        false
    }

    /// Asks the owner of a volume to hand it over; whether it has.
    async fn hand_over(&self, volume: u8, from: usize, to: usize, require: &'static str) -> bool {
        let (name, site) = (self.failovers.name(volume).to_owned(), self.world.setting.sites[to].clone());
        self.failovers.expect_handoff(volume);
        let invoked_ns = now_ns();
        self.world.tell(&format!("volume {volume} is to move from {from} to {to}, where {require} of it has to be"));
        let asked =
            self.world.ask(from, move |node| async move { node.move_volume(&name, &site, require).await }).await;
        let epoch = match &asked {
            Some(Ok(epoch)) => Some(*epoch),
            Some(Err(_)) | None => None,
        };
        self.world.tell(&match asked {
            Some(Ok(epoch)) => format!("volume {volume} goes on at {to}, in epoch {epoch}"),
            Some(Err(error)) => format!("volume {volume} does not move: {error:#}"),
            None => format!("nobody says whether volume {volume} moves"),
        });
        let is_handed = epoch.is_some();
        let [from, to] = [from, to].map(|node| u8::try_from(node).unwrap_or(u8::MAX));
        self.world.record(Record::Handoff(Handoff { volume, from, to, epoch, invoked_ns, answered_ns: now_ns() }));
        is_handed
    }

    /// Waits until all of a volume is at its owner.
    async fn until_at_rest(&self, volume: u8) {
        let until = Instant::now() + PATIENCE;
        while !self.failovers.is_at_rest(volume).await {
            if Instant::now() > until {
                self.world.violated(format!("for {PATIENCE:?} the handoff of volume {volume} has not ended"));
                return;
            }
            sleep(PAUSE).await;
        }
    }
}

/// What has to be there before.
const REQUIREMENTS: [&str; 4] = ["none", "none", "hot", "all"];
/// How often in a row.
const TIMES: [u32; 16] = [1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 4, 12];
/// Before fetching what is lacking begins, and while it is under way.
const PAUSES_MS: [u64; 6] = [0, 0, 0, 100, 300, 1_000];
const PAUSE: Duration = Duration::from_millis(200);
/// For the new owner to tell the metadata.
const LOOK: Duration = Duration::from_millis(20);
const LOOKS: u32 = 250;
/// For all that holds it up to be over.
const PATIENCE: Duration = Duration::from_secs(300);
