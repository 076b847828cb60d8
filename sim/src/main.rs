//! `sim`: plays seeds, and tells the story of each that breaks a promise (`docs/reliability.md`). `scripts/sim` builds and runs it.

use std::fs::File;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use serde_json::{Value, json};
use sterna_sim::campaign::{self, Report};
use sterna_sim::run::{Ended, play};

/// Plays seeds: requests and faults by chance, the same for the same seed.
#[derive(Debug, Parser)]
#[command(name = "sim")]
struct Args {
    /// How many.
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Show all that happens with the first of them, and play no other.
    #[arg(long, conflicts_with_all = ["seeds", "json"])]
    story: bool,
    /// Write the seeds that break a promise to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("sim: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all promises were kept.
fn run(&Args { seeds, from, story, ref json }: &Args) -> Result<bool> {
    // What panics is told with its story.
    std::panic::set_hook(Box::new(|_| {}));
    if story {
        let Ended { story, violation, .. } = play(from);
        story.lines().iter().for_each(|line| println!("{line}"));
        println!("digest {}", story.digest());
        violation.iter().for_each(|what| println!("violation: {what}"));
        return Ok(violation.is_none());
    }
    let Report { seeds, events, stops, took, violated } = campaign::play(from, seeds);
    for Ended { seed, story, violation, .. } in violated.iter().take(SHOWN) {
        println!("seed {seed}: {}\n{story}", violation.as_deref().unwrap_or_default());
    }
    let seconds = took.as_secs_f64();
    let per_minute = 60.0 * seeds as f64 / seconds;
    println!(
        "{seeds} seeds from {from} on in {seconds:.1} s ({per_minute:.0} a minute): {events} events, {stops} stops of a machine"
    );
    println!("violations: {}", violated.len());
    if let Some(path) = json {
        let file = File::create(path).with_context(|| format!("cannot make {}", path.display()))?;
        serde_json::to_writer_pretty(file, &violated.iter().map(as_json).collect::<Vec<_>>())?;
    }
    Ok(violated.is_empty())
}

fn as_json(Ended { seed, story, violation, .. }: &Ended) -> Value {
    let violation = violation.as_ref().map(|what| json!({ "property": what, "steps": story.lines() }));
    json!({ "name": format!("seed {seed}"), "violation": violation })
}

/// The first few say enough.
const SHOWN: usize = 3;
