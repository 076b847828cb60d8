//! What campaigns are played on: three sites on an emulated network, a node and a volume at each, a client of each volume at
//! each node; and the history of it all.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::Value;

use super::failover::{Asked, Failovers};
use super::history::{Record, Recorder, Setting, VERSION, VolumeSetting};
use super::node_log;
use super::writer::Writer;
use crate::cluster::{Cluster, Options};
use crate::disk_server::DiskServer;
use crate::node::Node;
use crate::oracle::block::BLOCK_BYTES;
use crate::random::Random;
use crate::three_sites::SITES;
use crate::wan::{Change, Loss, Rate, Settings, Topology, Wan};

/// A cluster under clients that write.
pub(super) struct Stage {
    pub(super) setting: Setting,
    pub(super) wan: Arc<Wan>,
    /// One at each site.
    pub(super) nodes: Vec<Mutex<Node>>,
    pub(super) recorder: Recorder,
    pub(super) failovers: Failovers,
    /// How many flushes of each volume were acknowledged.
    flushes: Vec<AtomicU64>,
    /// The volumes' ids.
    ids: Vec<u64>,
}

impl Stage {
    /// Has it come to be in a directory. Sessions last for `session`; so many nodes each have what is flushed to the volumes.
    ///
    /// # Errors
    /// We are not root, or it does not come to be.
    pub(super) fn build(
        directory: &Path,
        seed: u64,
        settings: Vec<(&'static str, String)>,
        session: Duration,
        copies: [u8; 3],
    ) -> Result<Self> {
        let Change { delay, .. } = usual()?;
        let between = Settings { delay: delay.unwrap_or_default(), ..Settings::default() };
        let wan = Arc::new(Wan::start(Topology::of(&SITES, between)?)?);
        let log = Some("info,openraft=warn,sterna::lease=debug");
        let options = Options { settings, wan: Some(Arc::clone(&wan)), session: Some(session), migrators: false, log };
        let mut cluster = Cluster::start_as(directory, &SITES, options)?;
        let nodes = std::mem::take(&mut cluster.nodes);
        let (mut volumes, mut ids) = (Vec::new(), Vec::new());
        for (owner, ((node, site), copies)) in (0..).zip(nodes.iter().zip(SITES).zip(copies)) {
            let name = format!("disk-{site}");
            node.create(&name, BLOCKS * BLOCK_BYTES as u64)?;
            if copies > 1 {
                node.sterna(["volume", "set", &name, "--durability", &format!("sync:{copies}")]).succeed()?;
            }
            let shown: Value = node.value(["volume", "show", &name])?;
            ids.push(shown["volume"]["id"].as_u64().with_context(|| format!("a volume's id: {shown}"))?);
            volumes.push(VolumeSetting { name, blocks: BLOCKS, owner, copies });
        }
        let (sites, session_ms) = (SITES.map(str::to_owned).to_vec(), u64::try_from(session.as_millis())?);
        let setting = Setting { version: VERSION, seed, sites, session_ms, volumes };
        let recorder = Recorder::new(&history_in(directory))?;
        recorder.add(Record::Campaign(setting.clone()))?;
        let flushes = setting.volumes.iter().map(|_| AtomicU64::new(0)).collect();
        let failovers = Failovers::new(setting.clone(), nodes.iter().map(Node::data).collect());
        failovers.set_replicas()?;
        let nodes = nodes.into_iter().map(Mutex::new).collect();
        Ok(Self { setting, wan, nodes, recorder, failovers, flushes, ids })
    }

    /// Has clients write while `play` goes on, until it has ended and every volume is served again; then reads all volumes
    /// once more. `play` is told by a flag that a client has failed.
    ///
    /// # Errors
    /// That of `play` or of a client; or a volume is not served again.
    pub(super) fn under_clients(&self, play: impl FnOnce(&AtomicBool) -> Result<()>) -> Result<()> {
        let (stop, has_failed) = (AtomicBool::new(false), AtomicBool::new(false));
        let mut writers = self.writers();
        let work = |writer: &mut Writer<'_>| {
            let worked = writer.run(&stop);
            has_failed.fetch_or(worked.is_err(), Ordering::Relaxed);
            worked
        };
        thread::scope(|scope| {
            let (work, mut clients) = (&work, Vec::new());
            for writer in &mut writers {
                clients.push(scope.spawn(move || work(writer)));
            }
            let played = play(&has_failed).and_then(|()| self.wait_until_served());
            stop.store(true, Ordering::Relaxed);
            for client in clients {
                client.join().map_err(|_| anyhow!("a client has panicked"))??;
            }
            played
        })?;
        for (volume, asked) in (0..).zip(&self.failovers.volumes) {
            self.take_down(volume, &mut asked.lock().unwrap_or_else(PoisonError::into_inner))?;
            let owner = self.failovers.owner(volume, PATIENCE)?;
            let writer = writers.iter_mut().find(|writer| (writer.volume, writer.node) == (volume, owner));
            let writer = writer.context("each volume has a client at its owner")?;
            ensure!(writer.read_at_the_end(PATIENCE)?, "volume {volume} cannot be read at the end");
        }
        Ok(())
    }

    /// Takes down all failovers of a volume, and what its owners of before still had: waits until all have returned.
    fn take_down(&self, volume: u8, asked: &mut Asked) -> Result<()> {
        let begun = Instant::now();
        while let Some(missing) = self.failovers.take_down(asked, volume, &self.recorder)? {
            ensure!(begun.elapsed() < PATIENCE, "for {PATIENCE:?}, of the failovers of volume {volume}: {missing}");
            thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// Waits until a client of each volume has had two more flushes acknowledged: one of them it has asked for now.
    ///
    /// # Errors
    /// That takes too long.
    pub(super) fn wait_until_served(&self) -> Result<()> {
        let count = || self.flushes.iter().map(|flushes| flushes.load(Ordering::Relaxed)).collect::<Vec<_>>();
        let (begun, before) = (Instant::now(), count());
        while count().iter().zip(&before).any(|(now, before)| *now < before + 2) {
            if begun.elapsed() > PATIENCE {
                bail!(
                    "for {PATIENCE:?} nothing disturbs it, and the volumes' flushes went from {before:?} to {:?}",
                    count()
                );
            }
            thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// Ends the nodes, and takes down what they tell; all that has happened. Where what was `played` has failed, that is the
    /// error, and the history has what the nodes told until then.
    ///
    /// # Errors
    /// That of `played`; or a node does not end in good order, or tells what is not known.
    pub(super) fn end(self, played: Result<()>) -> Result<Vec<Record>> {
        let mut done = played;
        for (number, node) in (0..).zip(self.nodes) {
            let mut node = node.into_inner().unwrap_or_else(PoisonError::into_inner);
            done = done.and(node.terminate());
            let events = node_log::read(number, &node.log(), &self.ids)?;
            events.into_iter().try_for_each(|event| self.recorder.add(Record::Node(event)))?;
        }
        let records = self.recorder.finish()?;
        done.map(|()| records)
    }

    /// A client of each volume at each node.
    fn writers(&self) -> Vec<Writer<'_>> {
        let mut random = Random::new(!self.setting.seed);
        let mut writers = Vec::new();
        for (volume, (VolumeSetting { name, blocks, .. }, flushes)) in
            (0..).zip(self.setting.volumes.iter().zip(&self.flushes))
        {
            for (number, node) in (0..).zip(&self.nodes) {
                let disk = node.lock().unwrap_or_else(PoisonError::into_inner).disk(name);
                let random = Random::new(random.bits());
                writers.push(Writer::new((volume, number), disk, *blocks, random, &self.recorder, flushes));
            }
        }
        writers
    }
}

/// Where the history of a campaign in this directory is.
pub fn history_in(directory: &Path) -> PathBuf {
    directory.join("history.jsonl")
}

/// What lies between any two sites without a fault.
pub(super) fn usual() -> Result<Change> {
    Ok(Change { delay: Some("15ms".parse()?), rate: Some(Rate::UNLIMITED), loss: Some(Loss::NONE), queue: None })
}

/// So few that each is often written, and all are often read.
const BLOCKS: u64 = 256;
/// For all to be well again: some elections, of which several may fail on a machine that is busy.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(20);
