//! Measurements of Sterna, each beside its peer in the same run on the same machine: what counts is the ratio.
//!
//! * [`nbd`]: the NBD server on a disk in memory, beside `nbdkit memory`. * [`serve`]: a volume, beside `nbdkit file` and
//!   `qemu-nbd`. [`work`] is what is asked of a server; [`fio`] and [`lean`] ask it; [`server`] and [`program`] run what is
//!   measured, [`data`] fills its disk, [`measure`] takes the figures, [`report`] holds those of several side by side.
//! * [`images`]: two Debian root disks, what they share, import and export. * [`scale`]: very many volumes and snapshots.
//! * [`state`]: the metadata of very many nodes and volumes.
//! * [`soak`]: random writes for an hour. * [`crash`]: `kill -9` under load.
//! * [`wan`]: the emulated network that tests run on. [`metadata`]: a cluster on it. [`handoff`]: volumes that change site.
//!   [`propagate`]: what a volume's other site costs. [`boot`]: a real guest that starts where nothing of its disk is. [`stage`]: where the
//!   last two happen, and [`mod@migrate`]: a guest that moves. [`prefetch`]: what real guests do with their disks, and what each way of bringing it early would save; [`recording`]:
//!   how that is noted.
//! * [`facts`] holds the figures of these eleven.
//! * [`goal`]: what a figure is to reach.
//!
//! `scripts/bench` builds and runs this. No figure here decides whether a test passes.

mod boot;
mod crash;
mod data;
mod facts;
mod fio;
mod goal;
mod handoff;
mod images;
mod lean;
mod measure;
mod median;
mod metadata;
mod migrate;
mod nbd;
mod prefetch;
mod program;
mod propagate;
mod recording;
mod report;
mod scale;
mod serve;
mod server;
mod soak;
mod stage;
mod state;
mod usage;
mod wan;
mod work;

use std::fmt::Display;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use serde::Serialize;

/// Measures Sterna beside its peers.
#[derive(Debug, Parser)]
#[command(name = "bench", arg_required_else_help = true)]
struct Args {
    #[command(subcommand)]
    command: Command,
    /// Write all figures to this file, as JSON.
    #[arg(long, value_name = "FILE", global = true)]
    json: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The NBD server on a disk in memory, beside `nbdkit memory`: fio's nbd engine, and a client that costs less.
    Nbd {
        /// How often each work is measured; the medians are reported.
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
        rounds: u32,
        /// How long each work runs, in seconds.
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=600))]
        seconds: u32,
    },
    /// A volume of a node, beside `nbdkit file` and `qemu-nbd` with raw files on the same file system.
    Serve(serve::Serve),
    /// Two Debian root disks: what they share in a node, and how fast they are imported and exported.
    Images {
        /// How often the speed is measured; the medians are reported.
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
        rounds: u32,
    },
    /// One node with very many volumes, a very large one, and very many snapshots.
    Scale(scale::Scale),
    /// The metadata of a very large cluster: its size, how fast it changes, and what the node that leads sends.
    State(state::State),
    /// Random writes for a long time, with garbage collected all the while: memory, disk, and whether the rate holds.
    Soak(soak::Soak),
    /// Kills a node again and again, under fio and under an oracle's load.
    Crash {
        /// How often, under each.
        #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        cycles: u32,
        /// Decides what is written, and when the node is killed.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// A cluster of three sites on an emulated network: what a decision costs, and when others see it. Needs root.
    Metadata(metadata::Measure),
    /// Volumes that change site on an emulated network: how long nobody answers, whatever the other site has not got. Needs root.
    Handoff(handoff::Measure),
    /// Volumes that another site follows or takes over, on an emulated network: bytes on the way, and what guests wait for. Needs root.
    Propagate(propagate::Measure),
    /// A real guest that boots at a site where nothing of its disk is, beside plain NBD over the same link. Needs root.
    Boot(boot::Measure),
    /// A real guest that moves with its disk, beside QEMU's own migration of both over the same link. Needs root.
    Migrate(migrate::Measure),
    /// What real guests read, replayed over computed links with several ways of bringing it before they wait for it.
    Prefetch(prefetch::Measure),
    /// The emulated network that tests run on, beside what is asked of it: delays, rates, loss. Needs root.
    Wan(wan::Measure),
}

fn main() -> Result<()> {
    let Args { command, json } = Args::parse();
    match command {
        Command::Nbd { rounds, seconds } => publish(&nbd::measure(rounds, seconds)?, json),
        Command::Serve(serve) => publish(&serve::measure(&serve)?, json),
        Command::Images { rounds } => publish(&images::measure(rounds)?, json),
        Command::Scale(scale) => publish(&scale::measure(scale)?, json),
        Command::State(state) => publish(&state::measure(state)?, json),
        Command::Soak(soak) => publish(&soak::measure(soak)?, json),
        Command::Crash { cycles, seed } => publish(&crash::measure(cycles, seed)?, json),
        Command::Metadata(metadata) => publish(&metadata::measure(metadata)?, json),
        Command::Handoff(handoff) => publish(&handoff::measure(&handoff)?, json),
        Command::Propagate(propagate) => publish(&propagate::measure(&propagate)?, json),
        Command::Boot(boot) => publish(&boot::measure(&boot)?, json),
        Command::Migrate(migrate) => publish(&migrate::measure(&migrate)?, json),
        Command::Prefetch(prefetch) => publish(&prefetch::measure(&prefetch)?, json),
        Command::Wan(wan) => publish(&wan::measure(wan)?, json),
    }
}

/// Prints the figures, and writes them to the file where they are wanted there too.
fn publish(figures: &(impl Display + Serialize), json: Option<PathBuf>) -> Result<()> {
    print!("{figures}");
    if let Some(path) = json {
        let json = serde_json::to_string_pretty(figures)?;
        std::fs::write(&path, json + "\n").with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}
