//! `sim`: plays seeds, and tells the story of each that breaks a promise (`docs/reliability.md`). `scripts/sim` builds and runs it.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use serde_json::{Value, json};
use sterna_sim::campaign::{self, Of, Report, Seeds};
use sterna_sim::cluster::{self, Cared, HandedOn, Played};
use sterna_sim::ended::Ended;
use sterna_sim::run;
use sterna_tests::faults::history::Record;

/// Plays seeds: requests and faults by chance, the same for the same seed.
#[derive(Debug, Parser)]
#[command(name = "sim")]
struct Args {
    /// What they are played of; sites and clusters if it is not said.
    #[arg(long)]
    of: Option<Of>,
    /// How many.
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// How many faults a soak has: one in some thirteen seconds.
    #[arg(long, default_value_t = 540)]
    faults: u32,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Begin no more after one that breaks a promise.
    #[arg(long, conflicts_with = "story")]
    first: bool,
    /// Show all that happens with the first of them, and play no other.
    #[arg(long, conflicts_with_all = ["seeds", "json"], requires = "of")]
    story: bool,
    /// With `--story`, write the history of a cluster to this file, as `scripts/faults check` reads it.
    #[arg(long, value_name = "FILE", requires = "story")]
    history: Option<PathBuf>,
    /// With `--story`, show what the nodes of a cluster have logged as well.
    #[arg(long, requires = "story")]
    logs: bool,
    /// Play the first of them, and print how it has ended, as JSON.
    #[arg(long, hide = true, conflicts_with = "story")]
    ended: bool,
    /// Write the seeds that break a promise to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    // What panics is told with its story.
    std::panic::set_hook(Box::new(|_| {}));
    let kept = if args.story || args.ended { one(&args) } else { many(&args) };
    match kept {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("sim: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Plays one seed; whether all promises were kept.
fn one(args: &Args) -> Result<bool> {
    if args.ended {
        // One of very many, for minutes: whatever else runs here may be about time, as no simulation is.
        rustix::process::setpriority_process(None, NICENESS).context("cannot give way to others")?;
    }
    let Played { ended, history } = match args.of {
        Some(Of::Clusters) => cluster::play(args.from),
        Some(Of::Soaks) => cluster::soak(args.from, args.faults),
        Some(Of::Sites) | None => Played { ended: run::play(args.from), history: Vec::new() },
    };
    if args.ended {
        serde_json::to_writer(std::io::stdout(), &ended)?;
        return Ok(true);
    }
    let Ended { story, violation, .. } = ended;
    story.lines().iter().for_each(|line| println!("{line}"));
    if args.logs {
        (0..cluster::MOST_SITES).for_each(|node| print!("{}", cluster::log_of(node)));
    }
    if let Some(path) = &args.history {
        write_history(path, &history).with_context(|| format!("cannot write {}", path.display()))?;
    }
    println!("digest {}", story.digest());
    violation.iter().for_each(|what| println!("violation: {what}"));
    Ok(violation.is_none())
}

fn write_history(path: &Path, history: &[Record]) -> Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    for record in history {
        serde_json::to_writer(&mut file, record)?;
        file.write_all(b"\n")?;
    }
    Ok(file.flush()?)
}

/// Plays many; whether all were played, and all promises were kept.
fn many(&Args { of, seeds: count, faults, from: first, first: until_violated, ref json, .. }: &Args) -> Result<bool> {
    let sim = std::env::current_exe().context("the program does not know where it is")?;
    let seeds = Seeds { first, count, until_violated };
    end_on_ctrl_c()?;
    let (mut violated, mut all_played) = (Vec::new(), true);
    for each in of.map_or(vec![Of::Sites, Of::Clusters], |of| vec![of]) {
        let (what, report) = match each {
            Of::Sites => ("site", campaign::play_sites(seeds)),
            Of::Clusters => ("cluster", campaign::play_clusters(&sim, seeds)),
            Of::Soaks => ("soak", campaign::play_soaks(&sim, seeds, faults)),
        };
        tell(what, first, &report);
        if report.seeds < count {
            println!("stopped: {} of {count} seeds were played", report.seeds);
            all_played = false;
        }
        violated.extend(report.violated.into_iter().map(|ended| (what, ended)));
    }
    if let Some(path) = json {
        let file = File::create(path).with_context(|| format!("cannot make {}", path.display()))?;
        serde_json::to_writer_pretty(file, &violated.iter().map(as_json).collect::<Vec<_>>())?;
    }
    Ok(violated.is_empty() && all_played)
}

/// Has Ctrl-C end a campaign with what it has, which may be hours of it; the second one ends the program.
fn end_on_ctrl_c() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    std::thread::Builder::new().name("ctrl-c".to_owned()).spawn(move || {
        runtime.block_on(async {
            if tokio::signal::ctrl_c().await.is_ok() {
                eprintln!("sim: ending with the seeds that are being played; Ctrl-C once more ends it at once");
                campaign::stop();
            }
            if tokio::signal::ctrl_c().await.is_ok() {
                std::process::exit(INTERRUPTED);
            }
        });
    })?;
    Ok(())
}

fn tell(what: &str, from: u64, report: &Report) {
    let Report { seeds, events, stops, takeovers, in_sync, handoffs, handed_on, cared, took, violated } = report;
    let HandedOn { all, back } = handed_on;
    let Cared { snapshots, deletions, collections } = cared;
    for Ended { seed, story, violation, .. } in violated.iter().take(SHOWN) {
        println!("seed {seed} of a {what}: {}\n{story}", violation.as_deref().unwrap_or_default());
    }
    let seconds = took.as_secs_f64();
    let per_minute = 60.0 * *seeds as f64 / seconds;
    println!(
        "{seeds} seeds of a {what} from {from} on in {seconds:.1} s ({per_minute:.0} a minute): {events} events, {stops} stops of a \
         machine, {takeovers} failovers, {in_sync} of them to who was in sync, {handoffs} handoffs, {all} of them of what had not \
         arrived, {back} of these back, {snapshots} snapshots, {deletions} deletions, {collections} collections, {} violations",
        violated.len()
    );
}

fn as_json((what, Ended { seed, story, violation, .. }): &(&str, Ended)) -> Value {
    let violation = violation.as_ref().map(|what| json!({ "property": what, "steps": story.lines() }));
    json!({ "name": format!("seed {seed} of a {what}"), "violation": violation })
}

const NICENESS: i32 = 10;
/// As a shell has it of a program that SIGINT has ended.
const INTERRUPTED: i32 = 130;
/// The first few say enough.
const SHOWN: usize = 3;
