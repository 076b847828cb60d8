//! Measurements of Sterna, each beside its peer in the same run on the same machine: what counts is the ratio.
//!
//! * [`nbd`]: the NBD server on a disk in memory, beside `nbdkit memory`.
//! * [`fio`] and [`lean`] make the load, [`server`] runs what is measured and counts what it costs, [`report`] holds the
//!   figures.
//!
//! `scripts/bench` builds and runs this. No figure here decides whether a test passes.

mod fio;
mod lean;
mod nbd;
mod report;
mod server;

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

/// Measures Sterna beside its peers.
#[derive(Debug, Parser)]
#[command(name = "bench", arg_required_else_help = true)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The NBD server on a disk in memory, beside `nbdkit memory`: fio's nbd engine, and a client that costs less.
    Nbd(Run),
}

/// How long to measure, and where to put the figures.
#[derive(Debug, clap::Args)]
struct Run {
    /// How often each work is measured; the medians are reported.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// How long each work runs, in seconds.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// Write all figures to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn main() -> Result<()> {
    let Args { command: Command::Nbd(run) } = Args::parse();
    let report = nbd::measure(run.rounds, run.seconds)?;
    print!("{report}");
    if let Some(path) = run.json {
        let json = serde_json::to_string_pretty(&report)?;
        std::fs::write(&path, json + "\n").with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}
