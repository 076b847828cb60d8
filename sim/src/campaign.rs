//! Many seeds, on all processors.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::run::{self, Ended};

/// What many runs amount to.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// How many seeds were played.
    pub seeds: u64,
    /// What has happened in all of them.
    pub events: usize,
    /// How often machines have stopped.
    pub stops: u64,
    /// How long it took.
    pub took: Duration,
    /// The runs in which a promise was not kept, by seed.
    pub violated: Vec<Ended>,
}

/// Plays `count` seeds beginning with `first`.
pub fn play(first: u64, count: u64) -> Report {
    let begun = Instant::now();
    let (next, report) = (AtomicU64::new(0), Mutex::new(Report::default()));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= count {
                        break;
                    }
                    let ended = run::play(first + at);
                    let mut report = report.lock().unwrap_or_else(PoisonError::into_inner);
                    report.seeds += 1;
                    report.events += ended.story.lines().len();
                    report.stops += u64::from(ended.stops);
                    if ended.violation.is_some() {
                        report.violated.push(ended);
                    }
                }
            });
        }
    });
    let mut report = report.into_inner().unwrap_or_else(PoisonError::into_inner);
    report.violated.sort_by_key(|ended| ended.seed);
    report.took = begun.elapsed();
    report
}
