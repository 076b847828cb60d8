//! `model`: explores the model of sessions, ownership and handoff (`docs/reliability.md`). `scripts/model` builds and runs it.
//!
//! It is *not* where the model is: that is `sterna_tests::model`.

use std::fs::File;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use sterna_tests::model::explore::{self, Explored};
use sterna_tests::model::volume::Bounds;

/// Looks for an order of events in which two nodes write one volume, something acknowledged is lost, or nobody ends up serving it.
#[derive(Debug, Parser)]
#[command(name = "model")]
struct Args {
    /// The long look: more things happen more often. Takes gigabytes of memory.
    #[arg(long, conflicts_with = "bounds")]
    long: bool,
    /// A look of one's own: how often things may happen, as `handoffs=1,crashes=1`, of crashes, opens (sessions that each node
    /// asks for), lapses, handoffs, takeovers, writes and publications.
    #[arg(long, value_name = "BOUNDS")]
    bounds: Vec<Bounds>,
    /// Write what was found to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("model: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all properties hold.
fn run(args: &Args) -> Result<bool> {
    let mut all = vec![told(explore::explore_clocks()), told(explore::explore_in_sync())];
    let bounds = match args.bounds.as_slice() {
        [] if args.long => explore::long(),
        [] => explore::short(),
        own => own.to_vec(),
    };
    for bounds in bounds {
        // One violation says enough.
        if all.iter().all(|explored| explored.violation.is_none()) {
            all.push(told(explore::explore(bounds)));
        }
    }
    if let Some(path) = &args.json {
        let file = File::create(path).with_context(|| format!("cannot make {}", path.display()))?;
        serde_json::to_writer_pretty(file, &all)?;
    }
    Ok(all.iter().all(|explored| explored.violation.is_none()))
}

fn told(explored: Explored) -> Explored {
    print!("{explored}");
    explored
}
