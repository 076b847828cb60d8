//! Random writes for a long time, with garbage collected all the while: whether memory and disk stay within bounds, and the
//! rate what it was.
//!
//! The node has the settings that it has by itself. At the end everything is sealed, and the volume is verified.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use sterna_tests::node::Node;

use crate::facts::Facts;
use crate::goal::Goal;
use crate::lean;
use crate::usage::{CACHES_MIB, OPEN_TIB_MIB, Usage, disk_mib};
use crate::work::{Pattern, Work};

/// How long, and on how much.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Soak {
    /// How long it writes.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=1440))]
    minutes: u32,
    /// MiB of the disk.
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(64..=65_536))]
    size_mib: u32,
}

/// Writes for as long as is wanted.
///
/// # Errors
/// The node does not answer, or with an error; a command fails, or the volume is not sound at the end.
pub(crate) fn measure(soak: Soak) -> Result<Facts> {
    let directory = tempfile::tempdir()?;
    let node = Node::start(directory.path())?;
    let disk = node.create(VOLUME, u64::from(soak.size_mib) << 20)?;
    let mut facts = Facts::new(format!("{} minutes of {WRITES} on {} MiB, lean client", soak.minutes, soak.size_mib));
    let seconds = soak.minutes * 60;
    let is_over = AtomicBool::new(false);
    let (seen, collections) = thread::scope(|scope| {
        let writer = scope.spawn(|| lean::run(&disk, WRITES, seconds, 0));
        let collector = scope.spawn(|| collect(&node, &is_over));
        let time = Duration::from_secs(seconds.into());
        let watched = watch(&node, time, || writer.is_finished() || collector.is_finished(), &mut facts);
        is_over.store(true, Ordering::Relaxed);
        let seen = writer.join().map_err(|_| anyhow!("the writer has panicked"))?;
        let collections = collector.join().map_err(|_| anyhow!("the collector has panicked"))?;
        watched?;
        anyhow::Ok((seen?, collections?))
    })?;
    facts.add("writes", "per s", seen.per_second);
    facts.add(LAST_QUARTER, "x", seen.last_quarter.context("too little was written")?);
    facts.add("written", "GiB", seen.written_bytes / f64::from(1 << 30));
    facts.add("collections", "times", f64::from(collections));
    facts.add(PEAK, "MiB", Usage::of(node.id()?)?.peak_mib);
    facts.aim(PEAK, Goal::AtMost(CACHES_MIB + OPEN_TIB_MIB));
    node.sterna(["volume", "snapshot", VOLUME, "end"]).succeed()?;
    node.sterna(["volume", "verify", &format!("{VOLUME}@end")]).time_limit(STEP_LIMIT).succeed()?;
    Ok(facts)
}

/// Notes what the node has in memory and on the disk, until it is over.
fn watch(node: &Node, time: Duration, is_over: impl Fn() -> bool, facts: &mut Facts) -> Result<()> {
    let began = Instant::now();
    let mut next = INTERVAL;
    while !is_over() {
        thread::sleep(TICK);
        if began.elapsed() < next {
            continue;
        }
        next += INTERVAL;
        let quarter = (began.elapsed().as_secs_f64() / time.as_secs_f64() * 4.0).floor().clamp(0.0, 3.0) + 1.0;
        facts.add(&format!("memory, quarter {quarter}"), "MiB", Usage::of(node.id()?)?.resident_mib);
        facts.add(&format!("disk, quarter {quarter}"), "MiB", disk_mib(&node.data())?);
    }
    Ok(())
}

/// Collects garbage again and again; how often.
fn collect(node: &Node, is_over: &AtomicBool) -> Result<u32> {
    let mut collections = 0;
    while !is_over.load(Ordering::Relaxed) {
        node.sterna(["gc"]).time_limit(STEP_LIMIT).succeed()?;
        collections += 1;
    }
    Ok(collections)
}

const VOLUME: &str = "disk";
const WRITES: Work = Work::new(Pattern::RandomWrite, 4, 32);
const PEAK: &str = "most memory";
const LAST_QUARTER: &str = "rate of the last quarter of the time, to that of the first";

/// How often it is noted what the node needs.
const INTERVAL: Duration = Duration::from_secs(10);
/// How late it is noticed that it is over.
const TICK: Duration = Duration::from_millis(200);
/// No single command needs longer, on any machine that is worth measuring.
const STEP_LIMIT: Duration = Duration::from_secs(3600);
