//! The end of a long run: nothing was lost, and nothing stays behind.
//!
//! 1. At rest, each volume is kept under a name, and each site comes to hold that: everywhere it reads the same, and so do all
//!    snapshots of before, wherever they are held.
//! 2. What nothing needs is collected. A site holds exactly the chunks that what is left refers to.
//! 3. All volumes are deleted, and what nothing needs is collected: no chunk is left, and nothing of any volume.

use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use sterna_cli::node::simulated::Holding;
use sterna_tests::faults::mark::Found;
use tokio::time::{Instant, sleep};

use super::care::Care;
use super::failover::Failovers;
use super::world::World;

/// Who looks at what is left.
pub(super) struct Emptied {
    pub(super) world: Rc<World>,
    pub(super) failovers: Rc<Failovers>,
    pub(super) care: Care,
}

impl Emptied {
    /// Looks at everything, and deletes it.
    ///
    /// # Errors
    /// What was lost, or stays behind.
    pub(super) async fn run(&self) -> Result<()> {
        let volumes: Vec<_> = (0..self.world.shape.places).map(|place| self.world.standing(place)).collect();
        for volume in &volumes {
            self.is_everywhere(*volume).await?;
        }
        self.world.tell("all sites hold the same");
        for site in 0..self.world.places.len() {
            self.holds_little(site).await?;
        }
        for volume in &volumes {
            self.care.delete(*volume).await?;
        }
        for site in 0..self.world.places.len() {
            self.holds_nothing(site).await?;
        }
        self.world.tell("all sites are empty");
        Ok(())
    }

    async fn is_everywhere(&self, volume: u8) -> Result<()> {
        let began = Instant::now();
        let patient = |what: &str| {
            ensure!(began.elapsed() < PATIENCE, "for {PATIENCE:?}, of volume {volume}: {what}");
            Ok(())
        };
        let (mut found, mut sites) = (None, Vec::new());
        while sites.len() < self.world.places.len() {
            patient("not all sites hold all of it")?;
            sleep(PAUSE).await;
            let Some(metadata) = self.failovers.metadata().await else { continue };
            let Some(entry) = self.failovers.entry(&metadata, volume) else { continue };
            let Some(holders) = self.failovers.holders(entry, LAST) else {
                let name = self.failovers.name(volume).to_owned();
                if let Some(owner) = self.failovers.place_of(entry.owner) {
                    self.world.ask(owner, |node| async move { node.snapshot(&name, LAST).await }).await;
                }
                continue;
            };
            sites = holders;
        }
        for site in sites {
            loop {
                let source = format!("{}@{LAST}", self.failovers.name(volume));
                if let Some(Ok(bytes)) = self.world.ask(site, |node| async move { node.export(&source).await }).await {
                    let here = Found::all_of(volume, &bytes);
                    let first = found.get_or_insert_with(|| here.clone());
                    ensure!(*first == here, "volume {volume} is not at {site} what it is elsewhere");
                    break;
                }
                patient(&format!("it cannot be read at {site}"))?;
                sleep(PAUSE).await;
            }
        }
        self.snapshots_are_whole(volume, patient).await
    }

    async fn snapshots_are_whole(&self, volume: u8, patient: impl Fn(&str) -> Result<()>) -> Result<()> {
        let snapshots: Vec<_> = self.world.with(volume, |standing| standing.snapshots.keys().cloned().collect());
        for snapshot in snapshots {
            loop {
                patient(&format!("snapshot '{snapshot}' cannot be read"))?;
                let Some(metadata) = self.failovers.metadata().await else {
                    sleep(PAUSE).await;
                    continue;
                };
                let entry = self.failovers.entry(&metadata, volume);
                let holders = entry.and_then(|entry| self.failovers.holders(entry, &snapshot));
                let holders = holders.with_context(|| format!("snapshot '{snapshot}' of volume {volume} is gone"))?;
                let mut are_read = !holders.is_empty();
                for site in holders {
                    are_read &= self.care.look_at(volume, &snapshot, site).await;
                }
                if are_read {
                    break;
                }
                sleep(PAUSE).await;
            }
        }
        Ok(())
    }

    /// What a site holds once all that nothing needs is collected there.
    async fn collected(&self, site: usize) -> Option<Holding> {
        let asked = self.world.ask(site, |node| async move {
            node.collect().await?;
            node.holding()
        });
        let holding = asked.await?;
        if let Err(error) = &holding {
            self.world.tell(&format!("nothing is collected at {site}: {error:#}"));
        }
        holding.ok()
    }

    async fn holds_little(&self, site: usize) -> Result<()> {
        let began = Instant::now();
        loop {
            let holding = self.collected(site).await;
            if let Some(Holding { chunks, needed_chunks, .. }) = holding
                && chunks == needed_chunks
            {
                self.world.tell(&format!("{site} holds {chunks} chunks, and needs each of them"));
                return Ok(());
            }
            ensure!(began.elapsed() < PATIENCE, "for {PATIENCE:?} there is more at {site} than needed: {holding:?}");
            sleep(PAUSE).await;
        }
    }

    async fn holds_nothing(&self, site: usize) -> Result<()> {
        let began = Instant::now();
        loop {
            let holding = self.collected(site).await;
            if let Some(Holding { chunks: 0, volumes: 0, .. }) = holding {
                return Ok(());
            }
            ensure!(
                began.elapsed() < PATIENCE,
                "for {PATIENCE:?} something of what was deleted is at {site}: {holding:?}"
            );
            sleep(PAUSE).await;
        }
    }
}

const LAST: &str = "last";
const PAUSE: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(300);
