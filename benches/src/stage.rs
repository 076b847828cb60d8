//! Three sites on an emulated network, and what goes over the way between two of them.
//!
//! The metadata is led from the third, so that between the two that are measured there is nothing but what volumes are made of, and what is
//! counted is every byte of every IP packet between them, in both directions.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use sterna_tests::client::{Request, Style};
use sterna_tests::cluster::{Cluster, Options};
use sterna_tests::disk_server::Disk;
use sterna_tests::node::Node;
use sterna_tests::random::Random;
use sterna_tests::wan::{Change, Settings, Topology, Wan, Ways};

/// Three sites.
pub(crate) struct Stage<'a> {
    pub(crate) cluster: Cluster,
    pub(crate) wan: Arc<Wan>,
    pub(crate) directory: &'a Path,
    /// Bytes between the two sites in a second in which nothing is propagated.
    idle_rate: f64,
}

/// Bytes from the first site to the second, and back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Carried {
    there: u64,
    back: u64,
    at: Instant,
}

impl<'a> Stage<'a> {
    pub(crate) fn start(directory: &'a Path) -> Result<Self> {
        Self::start_as(directory, Options::default())
    }

    /// The same, with an address for a migrator at each.
    pub(crate) fn start_with_migrators(directory: &'a Path) -> Result<Self> {
        Self::start_as(directory, Options { migrators: true, ..Options::default() })
    }

    fn start_as(directory: &'a Path, options: Options) -> Result<Self> {
        let wan = Arc::new(Wan::start(Topology::of(&[LEADER, A, B], Settings::default())?)?);
        let options = Options { wan: Some(Arc::clone(&wan)), ..options };
        let cluster = Cluster::start_as(directory, &[LEADER, A, B], options)?;
        let mut stage = Self { cluster, wan, directory, idle_rate: 0.0 };
        stage.set("1G", 100)?;
        stage.until_led_from_outside()?;
        // Once something has been fetched, connections are kept alive.
        let disk = stage.follow("first", 1 << 20)?;
        write(&disk, 0, vec![1; 4096])?;
        stage.until_current("first")?;
        let before = stage.carried()?;
        thread::sleep(IDLE);
        let (bytes, seconds) = stage.since(before)?;
        stage.idle_rate = bytes / seconds;
        Ok(stage)
    }

    /// The owner.
    pub(crate) fn owner(&self) -> &Node {
        &self.cluster.nodes[1]
    }

    /// The node at the other site.
    pub(crate) fn other(&self) -> &Node {
        &self.cluster.nodes[2]
    }

    /// How far the two sites are apart, there and back, and how much goes over it in a second.
    pub(crate) fn set(&self, rate: &str, round_trip_ms: u32) -> Result<()> {
        let delay = Some(format!("{}us", round_trip_ms * 500).parse()?);
        self.wan.set(A, B, Ways::Both, &Change { delay, rate: Some(rate.parse()?), ..Change::default() })
    }

    /// An empty volume that the other site follows.
    pub(crate) fn follow(&self, name: &str, size_bytes: u64) -> Result<Disk> {
        let disk = self.owner().create(name, size_bytes)?;
        self.replicate(name)?;
        Ok(disk)
    }

    /// Limits what is sent from the first of the two sites to the second; 'none' lifts that.
    pub(crate) fn limit(&self, rate: &str) -> Result<()> {
        self.owner().sterna(["cluster", "link", A, B, "--limit", rate]).succeed()?;
        Ok(())
    }

    /// Has the other site follow a volume.
    pub(crate) fn replicate(&self, name: &str) -> Result<()> {
        self.owner().sterna(["volume", "replica", name, "set", B, "async"]).succeed()?;
        Ok(())
    }

    /// Waits until the other site has all that its owner has, sealed as it is now.
    pub(crate) fn until_current(&self, name: &str) -> Result<()> {
        let begun = Instant::now();
        loop {
            let shown = self.owner().value(["volume", "show", name])?;
            let status = self.cluster.nodes[0].value(["volume", "replica", name, "status"])?;
            if is_current(&shown, &status) {
                return Ok(());
            }
            ensure!(begun.elapsed() < PATIENCE, "the other site does not come to have it: {shown} {status}");
            thread::sleep(LOOK);
        }
    }

    /// Waits until all that was written is sealed.
    pub(crate) fn until_sealed(&self, name: &str) -> Result<()> {
        let begun = Instant::now();
        loop {
            let shown = self.owner().value(["volume", "show", name])?;
            if is_sealed(&shown) {
                return Ok(());
            }
            ensure!(begun.elapsed() < PATIENCE, "it is not sealed: {shown}");
            thread::sleep(LOOK);
        }
    }

    /// Waits until the owner of a volume that was handed over has all of it.
    pub(crate) fn until_hydrated(&self, name: &str) -> Result<()> {
        let begun = Instant::now();
        loop {
            let shown = self.cluster.nodes[0].value(["volume", "show", name])?;
            if shown["volume"]["sources"].as_array().is_some_and(Vec::is_empty) {
                return Ok(());
            }
            ensure!(begun.elapsed() < PATIENCE, "not all of it arrives: {shown}");
            thread::sleep(LOOK);
        }
    }

    /// What has gone over the way so far.
    pub(crate) fn carried(&self) -> Result<Carried> {
        let report = self.wan.report()?;
        let carried = |from, to| Ok::<_, anyhow::Error>(report.direction(from, to)?.carried_bytes);
        Ok(Carried { there: carried(A, B)?, back: carried(B, A)?, at: Instant::now() })
    }

    /// The bytes since then in both directions, less what is sent when nothing is propagated; and how many seconds that were.
    pub(crate) fn since(&self, before: Carried) -> Result<(f64, f64)> {
        let now = self.carried()?;
        let bytes = number(now.there - before.there + now.back - before.back);
        let seconds = (now.at - before.at).as_secs_f64();
        Ok((bytes - self.idle_rate * seconds, seconds))
    }

    /// Waits until so many bytes have gone to the other site since then.
    pub(crate) fn until_carried(&self, before: Carried, bytes: u64) -> Result<()> {
        let begun = Instant::now();
        while self.carried()?.there - before.there < bytes {
            ensure!(begun.elapsed() < PATIENCE, "nothing goes to the other site");
            thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Bytes that the other site's node has received from its owner's so far, by the name of the lane: as its sockets gave them, TLS
    /// included.
    pub(crate) fn received(&self) -> Result<BTreeMap<String, u64>> {
        let links = self.other().json(["cluster", "link"])?;
        let link = links.iter().find(|link| link["from"] == B && link["to"] == A).context("no such link")?;
        let lane = |lane: &Value| Some((lane["lane"].as_str()?.to_owned(), lane["received_bytes"].as_u64()?));
        Ok(link["lanes"].as_array().context("a list of lanes")?.iter().filter_map(lane).collect())
    }

    fn until_led_from_outside(&self) -> Result<()> {
        let status = self.cluster.nodes[0].value(["cluster", "status"])?;
        let nodes = status["nodes"].as_array().context("a list of nodes")?;
        let is_led = nodes.iter().any(|node| node["leads"] == true && node["site"] == LEADER);
        ensure!(is_led, "the metadata is led from one of the sites that are measured: try again");
        Ok(())
    }
}

fn is_current(shown: &Value, status: &Value) -> bool {
    let complete = &status["replicas"][0]["complete"];
    let open = &shown["open"];
    let has_last = open.is_null() || open["generation"] == complete["generation"];
    is_sealed(shown) && has_last && !complete.is_null() && complete["generation"] == status["published"]["generation"]
}

fn is_sealed(shown: &Value) -> bool {
    shown["open"].is_null() || shown["open"]["unsealed_bytes"] == 0
}

/// Writes to a volume through a client of its own, and flushes.
pub(crate) fn write(disk: &Disk, at: u64, data: Vec<u8>) -> Result<()> {
    let (mut client, _) = disk.attach(Style::Structured)?;
    ensure!(client.call(Request::write(at, data))?.error() == 0, "a write failed");
    ensure!(client.call(Request::flush())?.error() == 0, "a flush failed");
    Ok(())
}

/// Bytes that do not compress.
pub(crate) fn noise(random: &mut Random, length: u64) -> Vec<u8> {
    (0..length / 8).flat_map(|_| random.bits().to_le_bytes()).collect()
}

/// Fills a volume with these from its beginning on.
pub(crate) fn fill(disk: &Disk, bytes: u64, random: &mut Random) -> Result<()> {
    let (mut client, _) = disk.attach(Style::Structured)?;
    for at in (0..bytes).step_by(1 << 20) {
        let data = noise(random, (1 << 20).min(bytes - at));
        ensure!(client.call(Request::write(at, data))?.error() == 0, "a write failed");
    }
    ensure!(client.call(Request::flush())?.error() == 0, "a flush failed");
    Ok(())
}

/// A count as a figure.
#[expect(clippy::cast_precision_loss, reason = "far fewer than 2^53 bytes")]
pub(crate) fn number(count: u64) -> f64 {
    count as f64
}

const LEADER: &str = "par";
pub(crate) const A: &str = "ams";
pub(crate) const B: &str = "chi";
const IDLE: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(200);
/// 10 GB over a slow machine.
const PATIENCE: Duration = Duration::from_secs(1800);
