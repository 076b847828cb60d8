//! Has volumes go on at other sites, and finds out afterwards what has become of it: a command whose answer was lost may have
//! been carried out.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::history::{Kept, Record, Recorder, Setting, Takeover, now_ns};
use super::mark::Found;
use crate::oracle::block::BLOCK_BYTES;
use crate::server::sterna;
use crate::tool::Tool;

/// The volumes of a cluster, and the commands that are given about them.
#[derive(Debug)]
pub(super) struct Failovers {
    setting: Setting,
    /// The nodes' data directories.
    data: Vec<PathBuf>,
    /// Of each volume; held by whoever has it fail over.
    pub(super) volumes: Vec<Mutex<Asked>>,
}

/// What was asked for of a volume.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// Epochs up to this one have been taken down; 0 before the first.
    known_epoch: u64,
    /// Since when something is asked for that is not taken down.
    since_ns: Option<u64>,
    /// The epoch that a failover said it began, and what that said is lost.
    reported: Vec<(u64, u64)>,
}

/// The present owner of a volume, and the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) node: u8,
    pub(super) epoch: u64,
}

impl Failovers {
    pub(super) fn new(setting: Setting, data: Vec<PathBuf>) -> Self {
        let volumes = setting.volumes.iter().map(|_| Mutex::default()).collect();
        Self { setting, data, volumes }
    }

    /// Has every other site keep every volume.
    ///
    /// # Errors
    /// A node refuses it.
    pub(super) fn set_replicas(&self) -> Result<()> {
        for volume in &self.setting.volumes {
            let others = (0..).zip(&self.setting.sites).filter(|(node, _)| *node != volume.owner);
            for (_, site) in others {
                let args = ["volume", "replica", &volume.name, "set", site, "async"];
                self.sterna(volume.owner, &args).succeed()?;
            }
        }
        Ok(())
    }

    /// Who owns a volume, as whoever can say it first says; `None` where nobody can.
    ///
    /// # Errors
    /// An answer is not one.
    pub(super) fn owner(&self, volume: u8) -> Result<Option<Owner>> {
        for node in 0..self.setting.sites.len() {
            let Some(shown) = self.ask(u8::try_from(node)?, &["volume", "show", self.name(volume)])? else { continue };
            let (owner, epoch) = (&shown["volume"]["owner"], &shown["volume"]["epoch"]);
            let node = self.node_named(owner)?;
            return Ok(Some(Owner { node, epoch: epoch.as_u64().context("an epoch")? }));
        }
        Ok(None)
    }

    /// Asks for a failover to a node's site, at that node; whether it was carried out for certain.
    ///
    /// # Errors
    /// An answer is not one.
    pub(super) fn fail_over(&self, asked: &mut Asked, volume: u8, to: u8) -> Result<bool> {
        asked.since_ns.get_or_insert_with(now_ns);
        let site = &self.setting.sites[usize::from(to)];
        let args = ["volume", "failover", self.name(volume), "--to", site, "--accept-loss"];
        let Some(report) = self.ask(to, &args)? else { return Ok(false) };
        let number = |name: &str| report[name].as_u64().with_context(|| format!("no '{name}' in {report}"));
        asked.reported.push((number("epoch")?, number("lost_bytes")?));
        Ok(true)
    }

    /// Takes down the failovers of a volume that are not yet; whether somebody could say which there were.
    ///
    /// # Errors
    /// An answer is not one, or a failover is not remembered, or nobody asked for it.
    pub(super) fn take_down(&self, asked: &mut Asked, volume: u8, recorder: &Recorder) -> Result<bool> {
        let nodes = 0..u8::try_from(self.setting.sites.len())?;
        let args = ["volume", "replica", self.name(volume), "status"];
        let mut status = None;
        for node in nodes {
            status = self.ask(node, &args)?;
            if status.is_some() {
                break;
            }
        }
        let Some(status) = status else { return Ok(false) };
        let superseded = status["superseded"].as_array().context("a list of epochs")?;
        let known_before = asked.known_epoch;
        let number = |value: &Value, what: &str| value.as_u64().with_context(|| format!("no {what} in {status}"));
        for (at, past) in superseded.iter().enumerate() {
            let ended = number(&past["epoch"], "epoch")?;
            if ended <= asked.known_epoch {
                continue;
            }
            ensure!(ended == asked.known_epoch + 1, "epoch {} is not remembered: {status}", asked.known_epoch + 1);
            let invoked_ns = asked.since_ns.with_context(|| format!("nobody asked for a failover: {status}"))?;
            let next = superseded.get(at + 1).map_or(&status["owner"], |next| &next["owner"]);
            let (from, to, epoch) = (self.node_named(&past["owner"])?, self.node_named(next)?, ended + 1);
            let published_bytes = number(&past["published"]["written_bytes"], "bytes")?;
            let complete_bytes = number(&past["resumed"]["written_bytes"], "bytes")?;
            let reported = asked.reported.iter().find(|(reported, _)| *reported == epoch).map(|(_, lost)| *lost);
            let lost_bytes = reported.unwrap_or(published_bytes.saturating_sub(complete_bytes));
            let answered_ns = now_ns();
            recorder.add(Record::Takeover(Takeover {
                volume,
                from,
                to,
                epoch,
                published_bytes,
                complete_bytes,
                lost_bytes,
                invoked_ns,
                answered_ns,
            }))?;
            asked.known_epoch = ended;
        }
        // What was asked for and has not come may come yet.
        if asked.known_epoch > known_before {
            asked.since_ns = None;
        }
        Ok(true)
    }

    /// Waits until all owners that were superseded have returned, and takes down what they had.
    ///
    /// # Errors
    /// That takes too long, or what is kept cannot be read.
    pub(super) fn take_down_kept(&self, directory: &Path, recorder: &Recorder, patience: Duration) -> Result<()> {
        for volume in 0..u8::try_from(self.setting.volumes.len())? {
            let status = self.settled(volume, patience)?;
            let shown = self.ask(0, &["volume", "show", self.name(volume)])?.context("a volume cannot be shown")?;
            let mut kept = Vec::new();
            for snapshot in shown["snapshots"].as_array().context("a list of snapshots")? {
                let name = snapshot["name"].as_str().context("a name")?;
                let Some(epoch) = name.strip_prefix("kept-e").and_then(|epoch| epoch.parse().ok()) else { continue };
                let holder = self.node_named(&snapshot["holders"][0])?;
                let found = Some(self.read_snapshot(directory, volume, name, holder)?);
                recorder.add(Record::Kept(Kept { volume, epoch, found }))?;
                kept.push(epoch);
            }
            for past in status["superseded"].as_array().context("a list of epochs")? {
                let epoch = past["epoch"].as_u64().context("an epoch")?;
                if !kept.contains(&epoch) {
                    recorder.add(Record::Kept(Kept { volume, epoch, found: None }))?;
                }
            }
        }
        Ok(())
    }

    fn settled(&self, volume: u8, patience: Duration) -> Result<Value> {
        let begun = Instant::now();
        loop {
            let status = self.ask(0, &["volume", "replica", self.name(volume), "status"])?;
            let superseded = status.as_ref().and_then(|status| status["superseded"].as_array());
            let is_settled = superseded.is_some_and(|all| all.iter().all(|past| past["is_settled"] == true));
            match status {
                Some(status) if is_settled => return Ok(status),
                status if begun.elapsed() > patience => bail!("an owner has not settled its past: {status:?}"),
                _ => thread::sleep(PAUSE),
            }
        }
    }

    fn read_snapshot(&self, directory: &Path, volume: u8, name: &str, holder: u8) -> Result<Vec<Found>> {
        let image = directory.join("kept.raw");
        let path = image.to_str().context("a path in UTF-8")?;
        let snapshot = format!("{}@{name}", self.name(volume));
        self.sterna(holder, &["volume", "export", &snapshot, path]).succeed()?;
        let bytes = fs::read(&image)?;
        fs::remove_file(&image)?;
        Ok((0..).zip(bytes.chunks(BLOCK_BYTES)).map(|(block, bytes)| Found::of(volume, block, bytes)).collect())
    }

    /// Gives a node a command; what it prints, or `None` where it does not carry it out.
    fn ask(&self, node: u8, args: &[&str]) -> Result<Option<Value>> {
        let ended = self.sterna(node, args).run()?;
        if !ended.status.success() {
            return Ok(None);
        }
        Ok(Some(serde_json::from_str(&ended.stdout).with_context(|| format!("not JSON: {ended}"))?))
    }

    fn sterna(&self, node: u8, args: &[&str]) -> Tool {
        let tool = Tool::new(sterna()).env("STERNA_DIR", &self.data[usize::from(node)]);
        tool.args(["--json"]).args(args).time_limit(COMMAND_LIMIT)
    }

    fn name(&self, volume: u8) -> &str {
        &self.setting.volumes[usize::from(volume)].name
    }

    /// The number of the node of this name, which is that of its site with a `-1` behind it.
    fn node_named(&self, name: &Value) -> Result<u8> {
        let site = name.as_str().and_then(|name| name.strip_suffix("-1"));
        let found = self.setting.sites.iter().position(|known| Some(known.as_str()) == site);
        Ok(u8::try_from(found.with_context(|| format!("there is no node {name}"))?)?)
    }
}

/// Longer than any node is patient; one that is stopped answers nobody until it goes on.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(100);
