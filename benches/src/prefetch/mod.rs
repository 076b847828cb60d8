//! What real guests read, and what each way of bringing it early would save them: without a network, so that the ways are compared and
//! nothing else.
//!
//! 1. A real Debian guest does each of four things twice, in two lives of the same disk ([`workloads`]): nbdkit notes every request.
//! 2. The second time is replayed against a disk of which nothing is there ([`mod@replay`]), over a link that is computed ([`link`]): 100 ms there
//!    and back, 25 or 100 Mbit/s. What was asked together is asked together, what a guest did in between takes as long as it did, and a
//!    wait puts off all that follows. What is brought are chunks as volumes have them, compressed ([`disk`]).
//! 3. Meanwhile one of five policies says what is brought before anybody waits for it ([`policies`]). Ours is the node's own code, which has
//!    seen the first time.
//!
//! The goal: ours has the least waste among those that are about as good at sparing waits.

mod disk;
mod link;
mod policies;
mod replay;
mod workloads;

use std::collections::HashSet;
use std::path::PathBuf;

use anyhow::Result;

use crate::facts::Facts;
use crate::goal::Goal;
use crate::recording::read_set;
use crate::stage::number;
use disk::Disk;
use policies::Way;
use replay::replay;
use workloads::Work;

/// How much of it.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Measure {
    /// How often everything is recorded and replayed; the medians are reported.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Keep the recordings in this directory, and take those that are there already instead of running guests.
    #[arg(long, value_name = "DIRECTORY")]
    recordings: Option<PathBuf>,
}

/// Measures all of it.
///
/// # Errors
/// A guest does not come up, or cannot do what it is to do.
pub(crate) fn measure(measure: &Measure) -> Result<Facts> {
    let mut facts = Facts::new(format!(
        "what real guests wait for in their first {} s where nothing of their disk is; computed links, {ROUND_TRIP_MS} ms there and back",
        replay::WINDOW_S
    ));
    for _ in 0..measure.rounds {
        let directory = tempfile::tempdir()?;
        let recorded = workloads::record(measure.recordings.as_deref().unwrap_or(directory.path()))?;
        let disk = Disk::of(&recorded.file)?;
        for work in &recorded.works {
            describe(work, &mut facts);
            for mbit in RATES_MBIT {
                compare(&disk, work, mbit, &mut facts);
            }
        }
    }
    Ok(facts)
}

/// What was done, by itself.
fn describe(work: &Work, facts: &mut Facts) {
    let Work { name, before, again } = work;
    let needed = read_set(again);
    let known: HashSet<_> = read_set(before).into_iter().collect();
    let both = needed.iter().filter(|block| known.contains(block)).count() as u64;
    facts.add(&format!("{name}: took"), "s", again.last().map_or(0.0, |request| request.answered_s));
    facts.add(&format!("{name}: read set"), "MB", number(needed.len() as u64 * 4096) / 1e6);
    let share = number(both * 100) / number(needed.len().max(1) as u64);
    facts.add(&format!("{name}: of that was read the time before too"), "%", share);
}

/// All ways beside each other, over one link.
fn compare(disk: &Disk, work: &Work, mbit: u32, facts: &mut Facts) {
    let (bytes_per_s, round_trip_s) = (f64::from(mbit) * 125_000.0, f64::from(ROUND_TRIP_MS) / 1000.0);
    let case = format!("{}, {mbit} Mbit/s", work.name);
    let mut others = Vec::new();
    for way in Way::ALL {
        let shown = replay(disk, work, way, bytes_per_s, round_trip_s);
        let what = format!("{case}, {}", way.name());
        facts.add(&format!("{what}: waits"), "s", shown.waited_s);
        facts.add(&format!("{what}: brought"), "MB", shown.brought_bytes / 1e6);
        facts.add(&format!("{what}: brought and not read"), "MB", shown.wasted_bytes / 1e6);
        if way != Way::Ours {
            others.push(shown);
            continue;
        }
        let least = |figures: &mut dyn Iterator<Item = f64>| figures.min_by(f64::total_cmp);
        if let Some(best_s) = least(&mut others.iter().map(|other| other.waited_s)) {
            let what = format!("{case}: our waits, to the least of others");
            facts.add(&what, "x", shown.waited_s / best_s);
            facts.aim(&what, Goal::AtMost(1.0));
        }
        let alike = others.iter().filter(|other| other.waited_s <= shown.waited_s * ALIKE);
        if let Some(best_bytes) = least(&mut alike.map(|other| other.wasted_bytes)) {
            let what = format!("{case}: what we bring in vain, to the least of others whose waits are alike");
            facts.add(&what, "x", shown.wasted_bytes / best_bytes);
            facts.aim(&what, Goal::AtMost(1.0));
        }
    }
}

const RATES_MBIT: [u32; 2] = [25, 100];
const ROUND_TRIP_MS: u32 = 100;
/// Waits that are at most so many times ours are alike.
const ALIKE: f64 = 2.0;
