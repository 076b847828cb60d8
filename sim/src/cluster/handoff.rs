//! Has volumes handed over by their owners, while whatever else happens.
//!
//! A volume that is on its way is not failed over: what is lost is told by counts of writes, and an epoch that nobody ever owned has
//! none. So each handoff has its volume's turn until it has ended, and the new owner has everything.

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
            let require = REQUIREMENTS[usize::try_from(random.below(REQUIREMENTS.len() as u64)).unwrap_or(0)];
            self.hand_over(self.world.standing(place), ahead, require).await;
        }
    }

    /// Asks the owner of a volume to hand it over, and waits until that has ended.
    async fn hand_over(&self, volume: u8, ahead: usize, require: &'static str) {
        let _turn = self.failovers.turn(volume).await;
        if self.world.is_closed(volume) {
            return;
        }
        self.failovers.take_down(volume).await;
        let Some(from) = self.failovers.owner(volume).await else { return };
        let to = (from + ahead) % self.world.places.len();
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
        let [from, to] = [from, to].map(|node| u8::try_from(node).unwrap_or(u8::MAX));
        self.world.record(Record::Handoff(Handoff { volume, from, to, epoch, invoked_ns, answered_ns: now_ns() }));
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
const REQUIREMENTS: [&str; 4] = ["none", "hot", "hot", "all"];
const PAUSE: Duration = Duration::from_millis(200);
/// For all that holds it up to be over.
const PATIENCE: Duration = Duration::from_secs(300);
