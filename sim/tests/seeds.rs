//! The seeds that every run of the tests plays, and that a seed is played the same each time.

use std::path::Path;
use std::process::Command;

use sterna_sim::campaign::{self, Report, Seeds};
use sterna_sim::cluster::Cared;
use sterna_sim::ended::Ended;
use sterna_sim::run;
use sterna_tests::faults::check::{Promise, check};
use sterna_tests::faults::history::{self, Does, Record};
use sterna_tests::faults::mark::Found;

/// How many the short form of `scripts/sim` plays.
const SEEDS: u64 = 1_000;
const FAULTS_OF_AN_HOUR: u32 = 270;
const ALL: Seeds = Seeds { first: 1, count: SEEDS, until_violated: false };

/// That all promises were kept, in so many runs.
fn kept(report: &Report) {
    if let Some(Ended { seed, story, violation, .. }) = report.violated.first() {
        let what = violation.as_deref().unwrap_or_default();
        panic!("{} of {SEEDS} seeds; seed {seed}: {what}\n{story}", report.violated.len());
    }
    assert_eq!(report.seeds, SEEDS);
    // Runs in which nothing stops show little.
    assert!(report.stops > 5 * SEEDS, "{} stops", report.stops);
}

#[test]
fn heavy_no_seed_of_a_site_breaks_a_promise() {
    kept(&campaign::play_sites(ALL));
}

#[test]
fn heavy_no_seed_of_a_cluster_breaks_a_promise() {
    let report = campaign::play_clusters(Path::new(env!("CARGO_BIN_EXE_sim")), ALL);
    kept(&report);
    assert!(report.takeovers > SEEDS / 2, "{} failovers", report.takeovers);
    assert!(report.in_sync > SEEDS / 2, "{} of them to who was in sync", report.in_sync);
    assert!(report.handoffs > SEEDS, "{} handoffs", report.handoffs);
}

/// Two hours of twenty volumes, after each of which nothing may be left.
#[test]
fn heavy_nothing_is_lost_in_hours_and_nothing_stays_behind() {
    let hours = Seeds { count: 2, ..ALL };
    let report = campaign::play_soaks(Path::new(env!("CARGO_BIN_EXE_sim")), hours, FAULTS_OF_AN_HOUR);
    let violated: Vec<_> = report.violated.iter().map(|ended| (ended.seed, &ended.violation)).collect();
    assert!(violated.is_empty(), "{violated:?}\n{}", report.violated[0].story);
    let Report { seeds, stops, takeovers, handoffs, cared, .. } = report;
    assert_eq!(seeds, hours.count);
    let Cared { snapshots, deletions, collections } = cared;
    // Hours in which nothing happens show little.
    assert!(
        takeovers > 40 && handoffs > 200 && stops > 100,
        "{takeovers} failovers, {handoffs} handoffs, {stops} stops"
    );
    assert!(snapshots > 200 && deletions > 60 && collections > 100, "{cared:?}");
}

#[test]
fn a_seed_of_a_site_is_played_the_same_each_time() {
    for seed in 1..20 {
        let digest = || run::play(seed).story.digest();
        assert_eq!(digest(), digest(), "seed {seed}");
    }
    assert_ne!(run::play(1).story.digest(), run::play(2).story.digest());
}

/// All that it tells, what its nodes log and the digest of its history included.
#[test]
fn a_seed_of_a_cluster_is_played_the_same_each_time() {
    let told = |seed: u64| {
        let mut sim = Command::new(env!("CARGO_BIN_EXE_sim"));
        let played = sim.args(["--of", "clusters", "--story", "--logs", "--from", &seed.to_string()]).output();
        let played = played.expect("the program sim");
        assert!(played.status.success(), "{}", String::from_utf8_lossy(&played.stdout));
        String::from_utf8(played.stdout).expect("text")
    };
    for seed in 1..6 {
        let (one, other) = (told(seed), told(seed));
        let differ = one.lines().zip(other.lines()).find(|(one, other)| one != other);
        assert_eq!((differ, one.len()), (None, other.len()), "seed {seed}");
        assert!(one.contains("\ndigest "), "{one}");
    }
    assert_ne!(told(1), told(2));
}

/// What a simulation leaves is judged as what real processes leave (`scripts/faults check`).
#[test]
fn the_history_of_a_cluster_is_read_and_judged_as_that_of_a_campaign() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("history.jsonl");
    let mut sim = Command::new(env!("CARGO_BIN_EXE_sim"));
    sim.args(["--of", "clusters", "--story", "--from", "1", "--history"]).arg(&path);
    assert!(sim.output().expect("the program sim").status.success());
    let mut records = history::read(&path).expect("a history");
    assert_eq!(check(&records).expect("a history"), []);
    // Zeroes where something was written before.
    let is_read = |found: &Found| matches!(found, Found::Mark(_));
    let found = records.iter_mut().rev().find_map(|record| match record {
        Record::Operation(operation) if operation.is_done() => match &mut operation.does {
            Does::Read { found, .. } => found.iter_mut().find(|found| is_read(found)),
            _ => None,
        },
        _ => None,
    });
    *found.expect("a read of what was written") = Found::Zeroes;
    let violations = check(&records).expect("a history");
    assert!(violations.iter().any(|violation| violation.promise == Promise::Contents), "{violations:?}");
}
