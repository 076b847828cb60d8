//! Volumes that change site on an emulated wide-area network: how long nobody answers.
//!
//! Measured is what a machine would feel that goes along: from the moment at which the owner acknowledges nothing more, by its own account
//! (the event `ends`, `docs/faults.md`), until the first write is acknowledged at the other site, to a client that waits there. Meanwhile
//! another client writes at the owner. Its floor is one message one way, and two syncs, one behind the other: that many of a small file
//! on the same disk, in the same minute.
//!
//! What the other site has not got is the whole of a clone: it is not fetched before, nor any of it on the way. A clone is moved once, and
//! then deleted.

use std::cell::Cell;
use std::fs::File;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use sterna_tests::client::{Client, Request, Style};
use sterna_tests::cluster::{Cluster, Options};
use sterna_tests::disk_server::{Disk, DiskServer};
use sterna_tests::faults::history::{NodeEvent, now_ns};
use sterna_tests::faults::node_log;
use sterna_tests::random::Random;
use sterna_tests::wan::{Change, Settings, Topology, Wan, Ways};

use crate::facts::Facts;
use crate::goal::Goal;
use crate::median::median;

/// How often, and with how much.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Measure {
    /// How often each is measured; the medians are reported.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// How many GiB the other site has not got, one figure for each.
    #[arg(long, value_delimiter = ',', default_values_t = [0, 1, 10], value_parser = clap::value_parser!(u64).range(..=64))]
    backlog_gib: Vec<u64>,
    /// How far the two sites are apart, there and back, in milliseconds.
    #[arg(long, value_delimiter = ',', default_values_t = [20, 100, 175], value_parser = clap::value_parser!(u32).range(2..=1000))]
    round_trip_ms: Vec<u32>,
}

/// Measures all of it. Needs root.
///
/// # Errors
/// The network or the cluster does not come to be, or a handoff fails.
pub(crate) fn measure(measure: &Measure) -> Result<Facts> {
    let Measure { rounds, backlog_gib, round_trip_ms } = measure;
    let mut facts =
        Facts::new(format!("handoffs between two of three sites, {RATE}bit/s between them, {rounds} rounds"));
    let wan = Arc::new(Wan::start(Topology::of(&SITES, Settings::default())?)?);
    let directory = tempfile::tempdir()?;
    let options = Options { wan: Some(Arc::clone(&wan)), log: Some(LOG), ..Options::default() };
    let cluster = Cluster::start_as(directory.path(), &SITES, options)?;
    let stage = Stage { cluster, directory: directory.path(), clones: Cell::new(0) };
    for gib in backlog_gib {
        stage.make_base(&format!("base-{gib}g"), DISK_BYTES, Filling::All(*gib))?;
    }
    for (name, size_bytes) in SPARSE {
        stage.make_base(name, size_bytes, Filling::Scattered)?;
    }
    for milliseconds in round_trip_ms {
        let delay = Some(format!("{}us", milliseconds * 500).parse()?);
        wan.set(A, B, Ways::Both, &Change { delay, rate: Some(RATE.parse()?), ..Change::default() })?;
        for _ in 0..*rounds {
            for gib in backlog_gib {
                let name = format!("{milliseconds} ms there and back, {gib} GiB not there");
                stage.hand_over(&mut facts, &name, &format!("base-{gib}g"), f64::from(*milliseconds) / 2.0)?;
            }
        }
    }
    // At the last distance, one size and then the other, so that both meet the same minute.
    let one_way_ms = f64::from(*round_trip_ms.last().context("no distance")?) / 2.0;
    let mut took: [Vec<f64>; 2] = Default::default();
    for _ in 0..*rounds * SPARSE_ROUNDS {
        for ((base, _), took) in SPARSE.iter().zip(&mut took) {
            took.push(stage.hand_over(
                &mut facts,
                &format!("a volume of {base}, sparsely written"),
                base,
                one_way_ms,
            )?);
        }
    }
    let ratio = "1 TiB, to 1 GiB";
    facts.add(ratio, "x", median(&took[1]) / median(&took[0]));
    facts.aim(ratio, Goal::AtMost(1.05));
    Ok(facts)
}

/// Where it happens.
struct Stage<'a> {
    cluster: Cluster,
    directory: &'a Path,
    /// How many there have been.
    clones: Cell<u32>,
}

/// What is in a volume.
#[derive(Clone, Copy)]
enum Filling {
    /// So many GiB that do not compress, from its beginning on.
    All(u64),
    /// Single blocks, everywhere.
    Scattered,
}

impl Stage<'_> {
    /// A volume at the first site, kept as a snapshot.
    fn make_base(&self, name: &str, size_bytes: u64, filling: Filling) -> Result<()> {
        let owner = &self.cluster.nodes[0];
        let disk = owner.create(name, size_bytes)?;
        let (mut client, _) = disk.attach(Style::Structured)?;
        let mut random = Random::new(size_bytes);
        let mut write = |at: u64, length: u64| -> Result<()> {
            let data: Vec<u8> = (0..length / 8).flat_map(|_| random.bits().to_le_bytes()).collect();
            ensure!(client.call(Request::write(at, data))?.error() == 0, "a write failed");
            Ok(())
        };
        match filling {
            Filling::All(gib) => (0..gib << 10).try_for_each(|mib| write(mib << 20, 1 << 20))?,
            Filling::Scattered => {
                (0..SCATTERED).try_for_each(|number| write(size_bytes / SCATTERED * number, BLOCK))?;
            }
        }
        owner.sterna(["volume", "snapshot", name, "full"]).succeed()?;
        Ok(())
    }

    /// Moves a clone of a base, and adds what that took: how many milliseconds nobody answered.
    fn hand_over(&self, facts: &mut Facts, name: &str, base: &str, one_way_ms: f64) -> Result<f64> {
        let (owner, heir) = (&self.cluster.nodes[0], &self.cluster.nodes[1]);
        let clone = format!("{base}-{}", self.clones.replace(self.clones.get() + 1));
        let made = owner.value(["volume", "clone", &format!("{base}@full"), &clone])?;
        let id = made["id"].as_u64().context("a volume has an id")?;
        self.cluster.until("the other site knows it", |_| Ok(heir.volumes()?.contains(&clone)))?;
        let sync_ms = self.sync_ms()?;
        let stop = AtomicBool::new(false);
        let first_ns = thread::scope(|scope| {
            let writing = scope.spawn(|| write_until_refused(&owner.disk(&clone), &stop));
            let waiting = scope.spawn(|| first_write(&heir.disk(&clone), &stop));
            thread::sleep(WRITES_BEFORE);
            let moved = owner.sterna(["volume", "move", &clone, "--to", B, "--require", "none"]).succeed();
            if moved.is_err() {
                stop.store(true, Ordering::Relaxed);
            }
            let first = waiting.join().expect("a thread");
            stop.store(true, Ordering::Relaxed);
            writing.join().expect("a thread")?;
            moved?;
            first
        })?;
        let told = |node: usize, is_it: fn(&NodeEvent) -> bool| -> Result<u64> {
            let events = node_log::read(0, &self.cluster.nodes[node].log(), &[id])?;
            let times = events.into_iter().filter(|record| is_it(&record.event)).map(|record| record.at_ns);
            times.max().with_context(|| format!("node {node} does not tell what it does with the volume"))
        };
        let ended_ns = told(0, |event| matches!(event, NodeEvent::Ends { .. }))?;
        let serves_ns = told(1, |event| matches!(event, NodeEvent::Serves { .. }))?;
        let sent = self.messages(ended_ns, first_ns)?;
        let ms = |ns: u64| Duration::from_nanos(ns).as_secs_f64() * 1e3;
        let pause_ms = ms(first_ns.checked_sub(ended_ns).context("both have acknowledged at once")?);
        let floor_ms = one_way_ms + 2.0 * sync_ms;
        facts.add(&format!("{name}: nobody answers for"), "ms", pause_ms);
        let ratio = format!("{name}: the same without 5 ms, to its floor");
        facts.add(&ratio, "x", (pause_ms - 5.0) / floor_ms);
        facts.aim(&ratio, Goal::AtMost(1.1));
        let messages = format!("{name}: messages meanwhile");
        facts.add(&messages, "", f64::from(u32::try_from(sent.len())?));
        facts.aim(&messages, Goal::AtMost(1.0));
        if let [sent_ns] = *sent {
            facts.add("of that: until the message is sent, less a sync", "ms", ms(sent_ns - ended_ns) - sync_ms);
            let taken_ms = ms(serves_ns.saturating_sub(sent_ns)) - one_way_ms - sync_ms;
            facts.add("of that: until the other node serves, less the way and a sync", "ms", taken_ms);
            facts.add("of that: until the client knows", "ms", ms(first_ns.saturating_sub(serves_ns)));
        }
        facts.add("a sync", "ms", sync_ms);
        self.cluster
            .until("it is deleted", |_| Ok(heir.sterna(["volume", "delete", &clone]).run()?.status.success()))?;
        Ok(pause_ms)
    }

    /// When the nodes have sent messages about handoffs and contents to each other in this time, by their own account.
    fn messages(&self, from_ns: u64, until_ns: u64) -> Result<Vec<u64>> {
        let mut sent = Vec::new();
        for node in &self.cluster.nodes {
            for line in node.log().lines().filter(|line| line.contains(MESSAGE)) {
                let at_ns: u64 = line.rsplit_once("at_ns=").context("a message has a time")?.1.trim().parse()?;
                sent.extend((from_ns..=until_ns).contains(&at_ns).then_some(at_ns));
            }
        }
        Ok(sent)
    }

    /// What it takes to append a block to a file and to sync that, here and now.
    fn sync_ms(&self) -> Result<f64> {
        let mut file = File::create(self.directory.join("sync"))?;
        let mut took = Vec::new();
        for _ in 0..SYNCS {
            let begun = Instant::now();
            file.write_all(&[7; 4096])?;
            file.sync_data()?;
            took.push(begun.elapsed().as_secs_f64() * 1e3);
        }
        Ok(median(&took))
    }
}

/// Writes, a block each time, until this is not answered with success any more.
fn write_until_refused(disk: &Disk, stop: &AtomicBool) -> Result<()> {
    let (mut client, _) = disk.attach(Style::Structured)?;
    for number in 0.. {
        let at = number % SCATTERED * BLOCK;
        if stop.load(Ordering::Relaxed) || client.call(Request::write(at, vec![9; 4096]))?.error() != 0 {
            return Ok(());
        }
        thread::sleep(BETWEEN_WRITES);
    }
    Ok(())
}

/// When a write was acknowledged first where the volume goes.
fn first_write(disk: &Disk, stop: &AtomicBool) -> Result<u64> {
    let (mut client, described): (Client<UnixStream>, _) = disk.attach_described(Style::Structured)?;
    ensure!(described.is_standby, "it is there already");
    loop {
        match client.call(Request::write(0, vec![8; 4096]))?.error() {
            0 => return Ok(now_ns()),
            // It is not on its way yet.
            EPERM if !stop.load(Ordering::Relaxed) => thread::sleep(AGAIN),
            error => bail!("the first write there was answered with {error}"),
        }
    }
}

const SITES: [&str; 3] = [A, B, "par"];
const A: &str = "ams";
const B: &str = "chi";
const RATE: &str = "1G";
const LOG: &str = "info,sterna::lease=debug,sterna::handoff=debug";
/// What a node tells of each message of a handoff.
const MESSAGE: &str = " sterna::handoff: sends ";
const BLOCK: u64 = 4096;
const DISK_BYTES: u64 = 16 << 30;
const SPARSE: [(&str, u64); 2] = [("1g", 1 << 30), ("1t", 1 << 40)];
/// 5 % of such a time is little.
const SPARSE_ROUNDS: u32 = 3;
/// Blocks of a volume that is sparsely written.
const SCATTERED: u64 = 4096;
const SYNCS: usize = 15;
const WRITES_BEFORE: Duration = Duration::from_millis(200);
const BETWEEN_WRITES: Duration = Duration::from_micros(500);
const AGAIN: Duration = Duration::from_millis(1);
const EPERM: u32 = 1;
