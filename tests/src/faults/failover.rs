//! Has volumes go on at other sites, and finds out afterwards what has become of it: a command whose answer was lost may have
//! been carried out.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::history::{Kept, Record, Recorder, Setting, Takeover, now_ns};
use super::mark::Found;
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
    /// What failovers said of themselves.
    reported: Vec<Reported>,
    /// How many epochs may have begun by handoffs, and are not counted among those that are taken down.
    handoffs: u64,
    /// The superseded epochs of which it is taken down what their owners still had.
    looked_at: BTreeSet<u64>,
}

/// What a failover said of itself.
#[derive(Clone, Copy, Debug)]
struct Reported {
    /// The epoch that it began.
    epoch: u64,
    lost_bytes: u64,
    is_in_sync: bool,
}

impl Failovers {
    pub(super) fn new(setting: Setting, data: Vec<PathBuf>) -> Self {
        let volumes = setting.volumes.iter().map(|_| Mutex::default()).collect();
        Self { setting, data, volumes }
    }

    /// Has every other site keep every volume, in the mode that its durability asks for.
    ///
    /// # Errors
    /// A node refuses it.
    pub(super) fn set_replicas(&self) -> Result<()> {
        for volume in &self.setting.volumes {
            let others = (0..).zip(&self.setting.sites).filter(|(node, _)| *node != volume.owner);
            for (_, site) in others {
                let mode = if volume.copies > 1 { "sync" } else { "async" };
                let args = ["volume", "replica", &volume.name, "set", site, mode];
                self.sterna(volume.owner, &args).succeed()?;
            }
        }
        Ok(())
    }

    /// The node that owns a volume, as whoever can say it first says. Nobody can while all are struck: that is waited for.
    ///
    /// # Errors
    /// An answer is not one, or there is none for long.
    pub(super) fn owner(&self, volume: u8, patience: Duration) -> Result<u8> {
        let begun = Instant::now();
        while begun.elapsed() < patience {
            for node in 0..u8::try_from(self.setting.sites.len())? {
                if let Some(shown) = self.ask(node, &["volume", "show", self.name(volume)])? {
                    return self.node_named(&shown["volume"]["owner"]);
                }
            }
            thread::sleep(PAUSE);
        }
        bail!("for {patience:?} nobody says who owns volume {volume}")
    }

    /// The node that owns a volume, and those that are in sync with it: all that are asked for, unless that takes long.
    ///
    /// # Errors
    /// As [`Failovers::owner`].
    pub(super) fn owner_and_members(&self, volume: u8, patience: Duration) -> Result<(u8, Vec<u8>)> {
        let (begun, count) = (Instant::now(), usize::from(self.setting.volumes[usize::from(volume)].copies - 1));
        loop {
            // Whoever can say it first: the owner itself may be struck.
            for node in 0..u8::try_from(self.setting.sites.len())? {
                let Some(shown) = self.ask(node, &["volume", "show", self.name(volume)])? else { continue };
                let in_sync = shown["volume"]["in_sync"].as_array().with_context(|| format!("no list in {shown}"))?;
                let members: Vec<_> = in_sync.iter().map(|node| self.node_named(node)).collect::<Result<_>>()?;
                if members.len() >= count || begun.elapsed() > MEMBERS_PATIENCE {
                    return Ok((self.node_named(&shown["volume"]["owner"])?, members));
                }
                break;
            }
            ensure!(begun.elapsed() < patience, "for {patience:?} nobody says who is in sync with volume {volume}");
            thread::sleep(PAUSE);
        }
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
        let is_in_sync = report["is_in_sync"].as_bool().with_context(|| format!("no 'is_in_sync' in {report}"))?;
        asked.reported.push(Reported { epoch: number("epoch")?, lost_bytes: number("lost_bytes")?, is_in_sync });
        Ok(true)
    }

    /// Asks a volume's owner to hand it over to a node's site: the epoch that began, where that is known.
    ///
    /// # Errors
    /// An answer is not one.
    pub(super) fn hand_over(&self, asked: &mut Asked, volume: u8, from: u8, to: u8) -> Result<Option<u64>> {
        asked.handoffs += 1;
        let args = ["volume", "move", self.name(volume), "--to", &self.setting.sites[usize::from(to)]];
        let Some(moved) = self.ask(from, &args)? else { return Ok(None) };
        let epoch = moved["volumes"][0]["epoch"].as_u64().with_context(|| format!("no epoch in {moved}"))?;
        Ok(Some(epoch))
    }

    /// Whether a volume's owner has all of it, and none of its handoffs is under way, as far as anybody says.
    ///
    /// # Errors
    /// An answer is not one.
    pub(super) fn is_at_rest(&self, volume: u8) -> Result<bool> {
        for node in 0..u8::try_from(self.setting.sites.len())? {
            if let Some(shown) = self.ask(node, &["volume", "show", self.name(volume)])? {
                let volume = &shown["volume"];
                return Ok(volume["moving_to"].is_null() && volume["sources"] == Value::Array(Vec::new()));
            }
        }
        Ok(false)
    }

    /// Takes down the failovers of a volume that are not yet, and what those who owned it before still had, as far as they have
    /// returned; what there is yet to be seen, if there is something.
    ///
    /// # Errors
    /// An answer is not one, or a failover is not remembered, or nobody asked for it.
    pub(super) fn take_down(&self, asked: &mut Asked, volume: u8, recorder: &Recorder) -> Result<Option<String>> {
        let args = ["volume", "replica", self.name(volume), "status"];
        for node in 0..u8::try_from(self.setting.sites.len())? {
            let Some(status) = self.ask(node, &args)? else { continue };
            self.take_down_takeovers(asked, volume, &status, recorder)?;
            return self.take_down_kept(asked, volume, (node, &status), recorder);
        }
        Ok(Some("nobody says who owned it".to_owned()))
    }

    fn take_down_takeovers(&self, asked: &mut Asked, volume: u8, status: &Value, recorder: &Recorder) -> Result<()> {
        let superseded = superseded(status)?;
        let known_before = asked.known_epoch;
        let number = |value: &Value, what: &str| value.as_u64().with_context(|| format!("no {what} in {status}"));
        for (at, past) in superseded.iter().enumerate() {
            let ended = number(&past["epoch"], "epoch")?;
            if ended <= asked.known_epoch {
                continue;
            }
            let by_handoffs = ended - asked.known_epoch - 1;
            ensure!(by_handoffs <= asked.handoffs, "epoch {} is not remembered: {status}", asked.known_epoch + 1);
            asked.handoffs -= by_handoffs;
            let invoked_ns = asked.since_ns.with_context(|| format!("nobody asked for a failover: {status}"))?;
            let next = superseded.get(at + 1).map_or(&status["owner"], |next| &next["owner"]);
            let (from, to, epoch) = (self.node_named(&past["owner"])?, self.node_named(next)?, ended + 1);
            let complete_bytes = number(&past["resumed"]["written_bytes"], "bytes")?;
            // Who was in sync has all that is published before it, and begins to publish with less.
            let inherited = at.checked_sub(1).map(|before| &superseded[before]);
            let inherited = inherited.filter(|before| before["epoch"].as_u64() == Some(ended - 1));
            let inherited = inherited.and_then(|before| before["resumed"]["written_bytes"].as_u64()).unwrap_or(0);
            let published_bytes = inherited.max(number(&past["published"]["written_bytes"], "bytes")?);
            let reported = asked.reported.iter().find(|reported| reported.epoch == epoch);
            // With a volume that asks for one copy nobody is.
            let nobody_is = (self.setting.volumes[usize::from(volume)].copies == 1).then_some(false);
            let answered_ns = now_ns();
            recorder.add(Record::Takeover(Takeover {
                volume,
                from,
                to,
                epoch,
                published_bytes,
                complete_bytes,
                is_in_sync: reported.map(|reported| reported.is_in_sync).or(nobody_is),
                lost_bytes: reported.map(|reported| reported.lost_bytes),
                invoked_ns,
                answered_ns,
            }))?;
            asked.known_epoch = ended;
        }
        // What was asked for and has not come may come yet.
        if asked.known_epoch > known_before {
            asked.since_ns = None;
        }
        Ok(())
    }

    /// The metadata remembers the last few failovers of a volume only: so this is done from time to time.
    fn take_down_kept(
        &self,
        asked: &mut Asked,
        volume: u8,
        (node, status): (u8, &Value),
        recorder: &Recorder,
    ) -> Result<Option<String>> {
        // Asked after the status, of the same node: so it knows what was kept of an epoch that is settled there.
        let Some(shown) = self.ask(node, &["volume", "show", self.name(volume)])? else {
            return Ok(Some("nobody says which snapshots there are".to_owned()));
        };
        let snapshots = shown["snapshots"].as_array().context("a list of snapshots")?;
        let mut missing = None;
        for past in superseded(status)? {
            let epoch = past["epoch"].as_u64().context("an epoch")?;
            if asked.looked_at.contains(&epoch) {
                continue;
            }
            if past["is_settled"] != true {
                missing = Some(format!("the owner of epoch {epoch} has not settled its past: {past}"));
                continue;
            }
            let name = format!("kept-e{epoch}");
            let found = match snapshots.iter().find(|snapshot| snapshot["name"] == name.as_str()) {
                None => None,
                Some(snapshot) => match self.read_snapshot(volume, &name, self.node_named(&snapshot["holders"][0])?)? {
                    Ok(found) => Some(found),
                    Err(why) => {
                        missing = Some(why);
                        continue;
                    }
                },
            };
            recorder.add(Record::Kept(Kept { volume, epoch, found }))?;
            asked.looked_at.insert(epoch);
        }
        Ok(missing)
    }

    /// All blocks of a snapshot, or why its holder does not give it.
    fn read_snapshot(&self, volume: u8, name: &str, holder: u8) -> Result<Result<Vec<Found>, String>> {
        let directory = tempfile::tempdir()?;
        let image = directory.path().join("kept.raw");
        let path = image.to_str().context("a path in UTF-8")?;
        let snapshot = format!("{}@{name}", self.name(volume));
        let exported = self.sterna(holder, &["volume", "export", &snapshot, path]).run()?;
        if !exported.status.success() {
            return Ok(Err(exported.to_string()));
        }
        let bytes = fs::read(&image)?;
        Ok(Ok(Found::all_of(volume, &bytes)))
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

fn superseded(status: &Value) -> Result<&Vec<Value>> {
    status["superseded"].as_array().with_context(|| format!("no list of epochs in {status}"))
}

/// Longer than any node is patient; one that is stopped answers nobody until it goes on.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(100);
/// For a node that has started to follow, and to be taken in.
const MEMBERS_PATIENCE: Duration = Duration::from_secs(10);
