//! `faults`: campaigns of faults under clients that write, by hand. `docs/faults.md` has what they show, and the history's
//! fields; `scripts/faults` builds and runs it.
//!
//! It is *not* where the campaign is: that is `sterna_tests::faults`, which tests use without this program.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};
use rustix::process::geteuid;
use sterna_tests::faults::campaign::Campaign;
use sterna_tests::faults::report::Report;
use sterna_tests::faults::stage::history_in;
use sterna_tests::faults::{check, history};
use sterna_tests::migrations;

/// Faults by chance, under clients that write; and what was promised meanwhile.
#[derive(Debug, Parser)]
#[command(name = "faults", arg_required_else_help = true)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Cuts, slows, kills and pauses three nodes at three sites while clients write, and checks what they were told. Needs
    /// root.
    Metadata(Asked),
    /// The same, where the flushes of two of three volumes wait for one other node, or for both: and each of these in its turn falls
    /// behind, and goes on when the owner is struck. Needs root.
    Members(Asked),
    /// Moves a VM again and again, and each time strikes something in the middle of it: every process of both hosts, the link, and whole
    /// hosts, at every step. Of the two QEMUs one has to run in the end, and never both. Needs root.
    Migrate {
        /// How many strikes, by chance; every one at every step unless told.
        #[arg(long, value_name = "N")]
        strikes: Option<usize>,
        /// Decides which those are.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Write how each has ended to this file, as JSON.
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
        /// Keep everything in this directory, which is made.
        #[arg(long, value_name = "DIR")]
        keep: Option<PathBuf>,
    },
    /// Checks a history that a campaign has left.
    Check {
        /// The file, `history.jsonl`.
        history: PathBuf,
        /// Write the report to this file, as JSON.
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
}

#[derive(Debug, clap::Args)]
struct Asked {
    /// How many faults; 300 unless told.
    #[arg(long, conflicts_with = "long", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    faults: Option<u32>,
    /// The long form: 3,000.
    #[arg(long)]
    long: bool,
    /// Decides which faults there are; one by the clock unless told. It is printed.
    #[arg(long)]
    seed: Option<u64>,
    /// Write the report to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Keep everything in this directory, which is made: the nodes with their logs, and the history. Without it, it is kept
    /// where something was violated.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

fn main() -> ExitCode {
    let done = match Args::parse().command {
        Command::Metadata(asked) => run(&asked, false),
        Command::Members(asked) => run(&asked, true),
        Command::Migrate { strikes, seed, json, keep } => migrate(strikes, seed, json.as_deref(), keep.as_deref()),
        Command::Check { history, json } => judge(&history, json.as_deref()),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("faults: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all promises were kept.
fn run(asked: &Asked, with_members: bool) -> Result<bool> {
    ensure!(geteuid().is_root(), "a campaign needs root, for network namespaces: run this as root, or through sudo");
    let faults = asked.faults.unwrap_or(if asked.long { LONG } else { SHORT });
    let by_the_clock = || SystemTime::now().duration_since(UNIX_EPOCH).map(|since| since.as_secs());
    let seed = asked.seed.map_or_else(by_the_clock, Ok)?;
    let directory = directory(asked.keep.as_deref())?;
    println!("{faults} faults, seed {seed}, in {}", directory.display());
    let campaign = Campaign { seed, faults, with_members, directory: directory.clone() };
    let begun = Instant::now();
    let report = campaign.run(|planned| {
        let at_s = begun.elapsed().as_secs_f64();
        println!("{at_s:8.1} s  {:4} {}, {} ms", planned.number, planned.fault, planned.lasts_ms);
    });
    let report = report.with_context(|| format!("what there is is in {}", directory.display()))?;
    let is_well = tell(&report, asked.json.as_deref())?;
    if asked.keep.is_none() && is_well {
        fs::remove_dir_all(&directory)?;
    } else {
        println!("the history is {}", history_in(&directory).display());
    }
    Ok(is_well)
}

fn migrate(strikes: Option<usize>, seed: u64, json: Option<&Path>, keep: Option<&Path>) -> Result<bool> {
    ensure!(geteuid().is_root(), "a campaign needs root, for network namespaces: run this as root, or through sudo");
    let directory = directory(keep)?;
    let campaign = migrations::campaign::Campaign::plan(seed, strikes, directory.clone());
    println!("{} strikes, in {}", campaign.rounds.len(), directory.display());
    let struck = campaign.run(|struck| println!("{struck}"));
    let struck = struck.with_context(|| format!("what there is is in {}", directory.display()))?;
    let count = |place: &str| struck.iter().filter(|struck| struck.runs == place).count();
    let [moved, kept, lost] = ["destination", "source", "nowhere"].map(count);
    println!(
        "{} strikes: {moved} moved, {kept} stayed, {lost} run nowhere, as their QEMU was struck; nothing lost",
        struck.len()
    );
    if let Some(path) = json {
        fs::write(path, serde_json::to_string_pretty(&struck)?)?;
    }
    if keep.is_none() {
        fs::remove_dir_all(&directory)?;
    }
    Ok(true)
}

/// Where everything is: the directory that was asked for, which is made, or a new one.
fn directory(asked: Option<&Path>) -> Result<PathBuf> {
    let Some(directory) = asked else { return Ok(tempfile::Builder::new().prefix("sterna-faults-").tempdir()?.keep()) };
    fs::create_dir(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    Ok(directory.to_owned())
}

fn judge(path: &Path, json: Option<&Path>) -> Result<bool> {
    let begun = Instant::now();
    let records = history::read(path)?;
    let violations = check::check(&records)?;
    tell(&Report::of(&records, violations, begun.elapsed())?, json)
}

fn tell(report: &Report, json: Option<&Path>) -> Result<bool> {
    print!("{report}");
    if let Some(path) = json {
        let file = File::create(path).with_context(|| format!("cannot make {}", path.display()))?;
        serde_json::to_writer_pretty(file, report)?;
    }
    Ok(report.violations.is_empty())
}

const SHORT: u32 = 300;
const LONG: u32 = 3_000;
