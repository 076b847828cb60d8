//! One node with very many volumes, one very large volume, and one with very many snapshots: how long the commands of an
//! administrator take, process and all, and how much memory the node needs.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use sterna_tests::client::{Request, Style};
use sterna_tests::disk_server::DiskServer;
use sterna_tests::node::Node;
use sterna_tests::tool::Tool;

use crate::facts::Facts;
use crate::goal::Goal;
use crate::usage::{CACHES_MIB, OPEN_TIB_MIB, Usage, disk_mib};

/// How much of everything there is.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Scale {
    /// Volumes of the node.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(10..=100_000))]
    volumes: u32,
    /// GiB of the large volume; every 4 MiB of it hold one block.
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    gib: u32,
    /// Snapshots of the large volume.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(10..=4000))]
    snapshots: u32,
}

/// How often what is short is measured.
const TIMES: u32 = 9;
/// No single step needs longer, on any machine that is worth measuring.
const STEP_LIMIT: Duration = Duration::from_secs(3600);

/// Measures all of it.
///
/// # Errors
/// A command fails, or a volume does not hold what was written.
pub(crate) fn measure(scale: Scale) -> Result<Facts> {
    let directory = tempfile::tempdir()?;
    let mut bench = Bench {
        node: Node::start(directory.path())?,
        facts: Facts::new(format!(
            "one node: {} volumes, one of {} GiB with a block in each segment, and {} snapshots of that",
            scale.volumes, scale.gib, scale.snapshots
        )),
    };
    bench.many_volumes(scale.volumes)?;
    bench.large_volume(scale.gib)?;
    bench.many_snapshots(scale.snapshots, scale.gib)?;
    bench.end(scale)?;
    Ok(bench.facts)
}

struct Bench {
    node: Node,
    facts: Facts,
}

impl Bench {
    fn many_volumes(&mut self, count: u32) -> Result<()> {
        self.memory("memory of a new node")?;
        for index in 0..count {
            let created = self.timed(["volume", "create", &volume(index), "--size", "10G"])?;
            if index < TIMES {
                self.facts.add("create a volume among few", "ms", created.0);
            } else if index >= count - TIMES {
                self.facts.add("create a volume among all", "ms", created.0);
            }
        }
        self.memory("memory with all volumes, none open")?;
        for _ in 0..TIMES {
            let (ms, listed) = self.timed(["volume", "list"])?;
            ensure!(listed.len() == usize::try_from(count)?, "{} volumes are listed", listed.len());
            self.facts.add("list all volumes", "ms", ms);
            let (ms, _) = self.timed(["volume", "show", &volume(count / 2)])?;
            self.facts.add("show one of them", "ms", ms);
            let (ms, _) = self.timed(["cluster", "status"])?;
            self.facts.add("status", "ms", ms);
        }
        self.restart("start with all volumes")?;

        let began = Instant::now();
        for index in 0..count {
            let (mut client, _) = self.node.disk(&volume(index)).attach(Style::Structured)?;
            ensure!(client.call(Request::read(0, 4096))?.error() == 0, "{} cannot be read", volume(index));
        }
        let each = began.elapsed().as_secs_f64() * 1e3 / f64::from(count);
        self.facts.add("attach, read a block, detach: each of all volumes", "ms", each);
        self.memory("memory with all volumes open")?;

        let written = count / 10;
        for index in 0..written {
            let (mut client, _) = self.node.disk(&volume(index)).attach(Style::Structured)?;
            let block = [index.to_le_bytes(); 1024].as_flattened().to_vec();
            ensure!(client.call(Request::write(0, block))?.error() == 0, "{} cannot be written", volume(index));
            ensure!(client.call(Request::flush())?.error() == 0, "{} cannot be flushed", volume(index));
        }
        self.memory("memory with a tenth of them written to")?;
        self.facts.add("disk with a tenth of them written to", "MiB", disk_mib(&self.node.data())?);
        self.restart("start after that")?;
        for index in 0..written {
            let (mut client, _) = self.node.disk(&volume(index)).attach(Style::Structured)?;
            let read = client.call(Request::read(0, 4096))?.data();
            ensure!(read == [index.to_le_bytes(); 1024].as_flattened(), "{} has lost its block", volume(index));
        }
        Ok(())
    }

    fn large_volume(&mut self, gib: u32) -> Result<()> {
        self.timed(["volume", "create", "large", "--size", &format!("{gib}G")])?;
        let began = Instant::now();
        let job = ["--name=fill", "--ioengine=nbd", "--rw=write:4092k", "--bs=4k", "--iodepth=32", "--end_fsync=1"];
        let segments = gib << 8;
        let (size, once) = (format!("--size={gib}G"), format!("--io_size={}k", segments * 4));
        let uri = format!("--uri={}", self.node.uri("large"));
        Tool::new("fio").args(job).args(["--refill_buffers=1", &size, &once, &uri]).time_limit(STEP_LIMIT).succeed()?;
        self.facts.add("write a block to each segment of the large volume", "s", began.elapsed().as_secs_f64());
        self.memory("memory with the large volume written to")?;
        let (ms, _) = self.timed(["volume", "snapshot", "large", "filled"])?;
        self.facts.add("first snapshot of the large volume, with what is left to seal", "ms", ms);
        self.restart("start with the large volume")?;
        for _ in 0..TIMES {
            self.node.restart()?;
            let began = Instant::now();
            let (mut client, _) = self.node.disk("large").attach(Style::Structured)?;
            self.facts.add(OPEN, "ms", ms_since(began));
            let began = Instant::now();
            ensure!(client.call(Request::read(u64::from(gib) << 29, 4096))?.error() == 0, "large cannot be read");
            self.facts.add("first read of it", "ms", ms_since(began));
        }
        let before = Usage::of(self.node.id()?)?.resident_mib;
        let job = ["--name=read", "--ioengine=nbd", "--rw=read:4092k", "--bs=4k", "--iodepth=32"];
        let began = Instant::now();
        let uri = format!("--uri={}", self.node.uri("large"));
        Tool::new("fio").args(job).args([&size, &once, &uri]).time_limit(STEP_LIMIT).succeed()?;
        self.facts.add("read a block of each of its segments", "s", began.elapsed().as_secs_f64());
        let grown = Usage::of(self.node.id()?)?.resident_mib - before;
        self.facts.add(MEMORY, "MiB", grown);
        self.facts.aim(MEMORY, Goal::AtMost(CACHES_MIB + OPEN_TIB_MIB * f64::from(gib.max(1024)) / 1024.0));
        for index in 0..TIMES {
            let (name, clone) = (format!("large-{index}"), format!("large@filled-{index}"));
            let (ms, _) = self.timed(["volume", "snapshot", "large", &format!("filled-{index}")])?;
            self.facts.add(SNAPSHOT, "ms", ms);
            let (ms, _) = self.timed(["volume", "clone", &clone, &name])?;
            self.facts.add(CLONE, "ms", ms);
            let (ms, _) = self.timed(["volume", "show", &name, "--map"])?;
            self.facts.add("show it, with what its map amounts to", "ms", ms);
            let (ms, differences) = self.timed(["volume", "diff", "large@filled", &name])?;
            ensure!(differences.is_empty(), "the clone differs: {differences:?}");
            self.facts.add("diff with a clone of it", "ms", ms);
        }
        for (what, most) in [(OPEN, 100.0), (SNAPSHOT, 50.0), (CLONE, 50.0)] {
            self.facts.aim(what, Goal::AtMost(most));
        }
        Ok(())
    }

    fn many_snapshots(&mut self, count: u32, gib: u32) -> Result<()> {
        let segments = u64::from(gib) << 8;
        for index in 0..count {
            let (mut client, _) = self.node.disk("large").attach(Style::Structured)?;
            // Somewhere else each time.
            let segment = u64::from(index) * 7919 % segments;
            let block = [index.to_le_bytes(); 1024].as_flattened().to_vec();
            ensure!(
                client.call(Request::write((segment << 22) + 8192, block))?.error() == 0,
                "large cannot be written"
            );
            drop(client);
            let (ms, _) = self.timed(["volume", "snapshot", "large", &format!("s{index}")])?;
            if index < TIMES {
                self.facts.add("snapshot of it after a write, with few others", "ms", ms);
            } else if index >= count - TIMES {
                self.facts.add("snapshot of it after a write, with all others", "ms", ms);
            }
        }
        for _ in 0..TIMES {
            let (ms, shown) = self.timed(["volume", "show", "large"])?;
            let listed =
                shown.first().and_then(|shown| shown["snapshots"].as_array()).context("there are snapshots")?;
            ensure!(listed.len() > usize::try_from(count)?, "{} snapshots are listed", listed.len());
            self.facts.add("list its snapshots", "ms", ms);
        }
        self.collect("gc with everything alive")?;
        Ok(())
    }

    fn end(&mut self, scale: Scale) -> Result<()> {
        self.memory("memory after all this")?;
        let began = Instant::now();
        for index in 0..scale.snapshots {
            self.timed(["volume", "delete", &format!("large@s{index}")])?;
        }
        let each = ms_since(began) / f64::from(scale.snapshots);
        self.facts.add("delete a snapshot, mean of all", "ms", each);
        self.collect("gc after the snapshots were deleted")?;
        for index in 0..TIMES {
            self.timed(["volume", "delete", &format!("large-{index}")])?;
        }
        let (ms, _) = self.timed(["volume", "delete", "large", "--with-snapshots"])?;
        self.facts.add("delete the large volume", "ms", ms);
        self.collect("gc after it was deleted")?;
        let began = Instant::now();
        for index in 0..scale.volumes {
            self.timed(["volume", "delete", &volume(index)])?;
        }
        self.facts.add("delete a volume, mean of all", "ms", ms_since(began) / f64::from(scale.volumes));
        self.collect("gc with nothing left")?;
        ensure!(self.node.volumes()?.is_empty(), "volumes are left");
        let status = self.node.value(["cluster", "status"])?;
        ensure!(status["chunks"] == 0, "chunks are left: {status}");
        self.node.terminate()
    }

    fn collect(&mut self, what: &str) -> Result<()> {
        let (ms, reported) = self.timed(["gc"])?;
        self.facts.add(what, "s", ms / 1e3);
        let count = |key: &str| reported.first().and_then(|report| report[key].as_f64()).context("gc counts");
        self.facts.add(&format!("{what}: chunks that live"), "chunks", count("live_chunks")?);
        self.facts.add(&format!("{what}: chunks that were dead"), "chunks", count("dead_chunks")?);
        let peak = Usage::of(self.node.id()?)?.peak_mib;
        self.facts.add(&format!("{what}: most memory since the start"), "MiB", peak);
        Ok(())
    }

    /// Runs a command; how long it took in milliseconds, and what it printed.
    fn timed<const N: usize>(&self, args: [&str; N]) -> Result<(f64, Vec<Value>)> {
        let began = Instant::now();
        let ended = self.node.sterna(["--json"]).args(args).time_limit(STEP_LIMIT).succeed()?;
        let took = ms_since(began);
        let values: Result<_, _> = ended.stdout.lines().map(serde_json::from_str).collect();
        Ok((took, values.with_context(|| format!("not JSON: {ended}"))?))
    }

    /// By kill, so that it has to find out by itself what there is.
    fn restart(&mut self, what: &str) -> Result<()> {
        let began = Instant::now();
        self.node.restart()?;
        self.facts.add(what, "s", began.elapsed().as_secs_f64());
        Ok(())
    }

    fn memory(&mut self, what: &str) -> Result<()> {
        self.facts.add(what, "MiB", Usage::of(self.node.id()?)?.resident_mib);
        Ok(())
    }
}

const OPEN: &str = "open the large volume, from the connection to what it is";
const SNAPSHOT: &str = "snapshot of the large volume, nothing to seal";
const CLONE: &str = "clone of it";
const MEMORY: &str = "memory that reading all of it has added, caches included";

fn volume(index: u32) -> String {
    format!("v{index}")
}

fn ms_since(began: Instant) -> f64 {
    began.elapsed().as_secs_f64() * 1e3
}
