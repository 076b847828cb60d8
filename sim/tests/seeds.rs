//! The seeds that every run of the tests plays, and that a seed is played the same each time.

use sterna_sim::run::Ended;
use sterna_sim::{campaign, run};

/// Those of the short form of `scripts/sim`.
const SEEDS: u64 = 1_000;

#[test]
fn heavy_no_seed_breaks_a_promise() {
    let report = campaign::play(1, SEEDS);
    if let Some(Ended { seed, story, violation, .. }) = report.violated.first() {
        let what = violation.as_deref().unwrap_or_default();
        panic!("{} of {SEEDS} seeds; seed {seed}: {what}\n{story}", report.violated.len());
    }
    assert_eq!(report.seeds, SEEDS);
    // Runs in which nothing stops show little.
    assert!(report.stops > 5 * SEEDS, "{} stops", report.stops);
}

#[test]
fn a_seed_is_played_the_same_each_time() {
    for seed in 1..20 {
        let digest = || run::play(seed).story.digest();
        assert_eq!(digest(), digest(), "seed {seed}");
    }
    assert_ne!(run::play(1).story.digest(), run::play(2).story.digest());
}
