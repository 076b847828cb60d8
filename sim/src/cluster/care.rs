//! What administrators do in a long run, while whatever else happens: they have snapshots taken, look at them and give them up, delete
//! volumes and make new ones in their place, and have collected what nothing needs.
//!
//! A snapshot holds for ever what it held when it was taken, wherever it is looked at.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Result, ensure};
use futures_util::future::join_all;
use sterna_tests::faults::mark::Found;
use sterna_tests::random::Random;
use tokio::time::{Instant, sleep};

use super::build::make_volume;
use super::failover::Failovers;
use super::world::World;

/// Who sees to a run's volumes and sites.
pub(super) struct Care {
    world: Rc<World>,
    failovers: Rc<Failovers>,
    are_over: Cell<bool>,
}

impl Care {
    pub(super) fn new(world: &Rc<World>, failovers: &Rc<Failovers>) -> Self {
        Self { world: Rc::clone(world), failovers: Rc::clone(failovers), are_over: Cell::new(false) }
    }

    /// Sees to all of them until `others` have done what they do.
    pub(super) async fn until(&self, others: impl Future<Output = ()>) {
        let volumes = (0..self.world.shape.places).map(|place| self.see_to(place));
        let sites = (0..self.world.places.len()).map(|site| self.collect_now_and_then(site));
        let others = async {
            others.await;
            self.are_over.set(true);
        };
        tokio::join!(others, join_all(volumes), join_all(sites));
    }

    fn random(&self, of: u64) -> Random {
        Random::new(self.world.shape.seed ^ (0x6361_7265_0000 + of))
    }

    async fn see_to(&self, place: u8) {
        let mut random = self.random(place.into());
        for number in 0_u32.. {
            sleep(Duration::from_millis(random.below(BETWEEN_ACTS_MS))).await;
            if self.are_over.get() {
                return;
            }
            let volume = self.world.standing(place);
            let draw = random.bits();
            match random.below(100) {
                0..45 => self.world.with(volume, |standing| standing.wanted = Some(format!("s{number}"))),
                45..65 => self.look_at_one(volume, draw).await,
                65..85 => self.give_up_one(volume, draw).await,
                85..95 => self.give_up_kept(volume).await,
                _ => {
                    if let Err(error) = self.replace(place, volume).await {
                        return self.world.violated(format!("{error:#}"));
                    }
                }
            }
        }
    }

    /// Has it collected at a site what nothing needs. Where it cannot be now, it can later.
    async fn collect_now_and_then(&self, site: usize) {
        let mut random = self.random(1_000 + site as u64);
        loop {
            sleep(Duration::from_millis(random.below(BETWEEN_COLLECTIONS_MS))).await;
            if self.are_over.get() {
                return;
            }
            let collected = self.world.ask(site, |node| async move { node.collect().await }).await;
            if let Some(Ok(_)) = collected {
                self.world.count(|cared| cared.collections += 1);
            }
        }
    }

    fn any_snapshot(&self, volume: u8, draw: u64) -> Option<String> {
        self.world.with(volume, |standing| {
            let at = draw.checked_rem(standing.snapshots.len() as u64)?;
            standing.snapshots.keys().nth(usize::try_from(at).ok()?).cloned()
        })
    }

    async fn look_at_one(&self, volume: u8, draw: u64) {
        let Some(snapshot) = self.any_snapshot(volume, draw) else { return };
        let Some(metadata) = self.failovers.metadata().await else { return };
        let Some(entry) = self.failovers.entry(&metadata, volume) else { return };
        let Some(holders) = self.failovers.holders(entry, &snapshot) else {
            return self.world.violated(format!("snapshot '{snapshot}' of volume {volume} is gone"));
        };
        let Some(at) = draw.checked_rem(holders.len() as u64) else {
            return self.world.violated(format!("nobody holds snapshot '{snapshot}' of volume {volume}"));
        };
        self.look_at(volume, &snapshot, holders[usize::try_from(at).unwrap_or(0)]).await;
    }

    /// Looks at a snapshot at a site; whether it could be read there. What it has never held violates the run.
    pub(super) async fn look_at(&self, volume: u8, snapshot: &str, site: usize) -> bool {
        let source = format!("{}@{snapshot}", self.failovers.name(volume));
        let read = self.world.ask(site, |node| async move { node.export(&source).await }).await;
        let Some(Ok(bytes)) = read else { return false };
        let found = Found::all_of(volume, &bytes);
        let held = self.world.with(volume, |standing| standing.snapshots.get(snapshot).cloned());
        if let Some(held) = held
            && held != found
        {
            let differs = (0..).zip(held.iter().zip(&found)).find(|(_, (held, found))| held != found);
            let what = format!("snapshot '{snapshot}' of volume {volume} is not what it was, at {site}: {differs:?}");
            self.world.violated(what);
        }
        true
    }

    async fn give_up_one(&self, volume: u8, draw: u64) {
        let Some(snapshot) = self.any_snapshot(volume, draw) else { return };
        // Whether that is answered or not, nothing is known of it any more.
        self.world.with(volume, |standing| standing.snapshots.remove(&snapshot));
        self.give_up(volume, snapshot).await;
    }

    /// Gives up what failovers have kept of a volume's earlier epochs, as far as it was looked at.
    async fn give_up_kept(&self, volume: u8) {
        let Some(metadata) = self.failovers.metadata().await else { return };
        let Some(entry) = self.failovers.entry(&metadata, volume) else { return };
        let kept = entry.snapshots.iter().map(|(name, _)| name).filter(|name| {
            let epoch = name.as_str().strip_prefix("kept-e").and_then(|epoch| epoch.parse().ok());
            epoch.is_some_and(|epoch| self.failovers.has_looked_at(volume, epoch))
        });
        for name in kept {
            self.give_up(volume, name.as_str().to_owned()).await;
        }
    }

    async fn give_up(&self, volume: u8, snapshot: String) {
        let name = self.failovers.name(volume).to_owned();
        let site = usize::from(volume) % self.world.places.len();
        // Where nobody answers, it stays until the volume goes.
        self.world.ask(site, |node| async move { node.delete_snapshot(&name, &snapshot).await }).await;
    }

    /// Deletes the volume of a place, and makes the next one there, as long as there is one.
    async fn replace(&self, place: u8, volume: u8) -> Result<()> {
        let next = usize::from(volume) + usize::from(self.world.shape.places);
        if next >= self.world.setting.volumes.len() {
            return Ok(());
        }
        let _turn = self.failovers.turn(volume).await;
        if self.failovers.take_down(volume).await.is_some() {
            // What there is yet to be seen of it would go with it.
            return Ok(());
        }
        self.delete(volume).await?;
        make_volume(&self.world, u8::try_from(next)?).await?;
        self.world.tell(&format!("place {place} has volume {next}"));
        Ok(())
    }

    /// Deletes a volume with its snapshots. Nobody comes to it any more.
    pub(super) async fn delete(&self, volume: u8) -> Result<()> {
        self.world.with(volume, |standing| standing.is_closed = true);
        let began = Instant::now();
        loop {
            if let Some(metadata) = self.failovers.metadata().await {
                let Some(entry) = self.failovers.entry(&metadata, volume) else { break };
                let name = self.failovers.name(volume).to_owned();
                if let Some(owner) = self.failovers.place_of(entry.owner) {
                    // Clients that are there yet, and a node that is down, are waited for.
                    self.world.ask(owner, |node| async move { node.delete_volume(&name).await }).await;
                }
            }
            ensure!(began.elapsed() < PATIENCE, "for {PATIENCE:?} volume {volume} was not deleted");
            sleep(PAUSE).await;
        }
        self.world.count(|cared| cared.deletions += 1);
        self.world.tell(&format!("volume {volume} is deleted"));
        Ok(())
    }
}

/// The longest between two things that are done with one place's volumes.
const BETWEEN_ACTS_MS: u64 = 120_000;
/// The longest between two collections at one site.
const BETWEEN_COLLECTIONS_MS: u64 = 120_000;
const PAUSE: Duration = Duration::from_millis(500);
/// For all that holds it up to be over.
const PATIENCE: Duration = Duration::from_secs(300);
