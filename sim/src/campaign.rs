//! Many seeds, on all processors. Each plays a site on a thread, or a cluster in a process of its own.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;

use crate::cluster::{Cared, HandedOn};
use crate::ended::Ended;
use crate::run;

/// What seeds are played of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Of {
    /// The storage of one site.
    Sites,
    /// Several sites, and all that is between them.
    Clusters,
    /// The same for hours, with many volumes, and somebody who sees to them.
    Soaks,
}

/// What many runs amount to.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// How many seeds were played.
    pub seeds: u64,
    /// What has happened in all of them.
    pub events: usize,
    /// How often machines have stopped.
    pub stops: u64,
    /// How often a volume was given to another node without its owner.
    pub takeovers: u64,
    /// How many of them went to a node that was in sync.
    pub in_sync: u64,
    /// How often its owner has handed a volume over, as that was answered.
    pub handoffs: u64,
    /// How many of those volumes had not all arrived there.
    pub handed_on: HandedOn,
    /// What administrators have done.
    pub cared: Cared,
    /// How long it took.
    pub took: Duration,
    /// The runs in which a promise was not kept, by seed.
    pub violated: Vec<Ended>,
}

impl Report {
    fn add(&mut self, ended: Ended) {
        self.seeds += 1;
        self.events += ended.story.lines().len();
        self.stops += u64::from(ended.stops);
        self.takeovers += u64::from(ended.takeovers);
        self.in_sync += u64::from(ended.in_sync);
        self.handoffs += u64::from(ended.handoffs);
        self.handed_on += ended.handed_on;
        self.cared += ended.cared;
        if ended.violation.is_some() {
            self.violated.push(ended);
        }
    }
}

/// Which seeds are played.
#[derive(Clone, Copy, Debug)]
pub struct Seeds {
    /// The first of them.
    pub first: u64,
    /// How many.
    pub count: u64,
    /// Whether none is begun after one that has broken a promise.
    pub until_violated: bool,
}

/// Has no more seeds begun in this process: a campaign ends with those that are being played.
pub fn stop() {
    STOPPED.store(true, Ordering::Relaxed);
}

/// Plays sites.
pub fn play_sites(seeds: Seeds) -> Report {
    on_all_processors(seeds, run::play)
}

/// Plays clusters, each by `sim`, the program that this crate makes. One whose process ends otherwise than it should is a violation.
pub fn play_clusters(sim: &Path, seeds: Seeds) -> Report {
    by_processes(sim, &["--of", "clusters"], seeds)
}

/// Plays clusters for hours, with so many faults, in the same way.
pub fn play_soaks(sim: &Path, seeds: Seeds, faults: u32) -> Report {
    by_processes(sim, &["--of", "soaks", "--faults", &faults.to_string()], seeds)
}

fn by_processes(sim: &Path, of: &[&str], seeds: Seeds) -> Report {
    on_all_processors(seeds, |seed| {
        by_process(sim, of, seed)
            .unwrap_or_else(|error| Ended::before_it_began(seed, format!("its process: {error:#}")))
    })
}

fn by_process(sim: &Path, of: &[&str], seed: u64) -> Result<Ended> {
    let mut command = Command::new(sim);
    command.args(of).args(["--ended", "--from", &seed.to_string()]).stdin(Stdio::null());
    // Ctrl-C is for the campaign, and not for what it plays.
    command.process_group(0);
    let output = command.output().with_context(|| format!("cannot run {}", sim.display()))?;
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let ended: Ended = serde_json::from_str(&stdout).with_context(|| format!("{}: {stderr}", output.status))?;
    ensure!(ended.seed == seed, "it has played seed {}", ended.seed);
    Ok(ended)
}

fn on_all_processors(seeds: Seeds, play: impl Fn(u64) -> Ended + Sync) -> Report {
    let Seeds { first, count, until_violated } = seeds;
    let begun = Instant::now();
    let (next, report) = (AtomicU64::new(0), Mutex::new(Report::default()));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= count || STOPPED.load(Ordering::Relaxed) {
                        break;
                    }
                    let ended = play(first + at);
                    if until_violated && ended.violation.is_some() {
                        next.store(count, Ordering::Relaxed);
                    }
                    report.lock().unwrap_or_else(PoisonError::into_inner).add(ended);
                }
            });
        }
    });
    let mut report = report.into_inner().unwrap_or_else(PoisonError::into_inner);
    report.violated.sort_by_key(|ended| ended.seed);
    report.took = begun.elapsed();
    report
}

static STOPPED: AtomicBool = AtomicBool::new(false);
