//! What guests wait for while something is propagated.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use sterna_tests::client::{Request, Style};
use sterna_tests::disk_server::{Disk, DiskServer};
use sterna_tests::random::Random;

use crate::facts::Facts;
use crate::goal::Goal;
use crate::stage::{B, Stage, fill, number};

/// Writes at the owner while all of the same volume goes to the other site, beside the same before.
pub(super) fn write(stage: &Stage<'_>, rounds: u32, facts: &mut Facts) -> Result<()> {
    for (rate, bytes) in [("100M", 256 << 20), ("1G", 1 << 30)] {
        stage.set(rate, 20)?;
        for round in 0..rounds {
            let name = format!("busy-{rate}-{round}").to_lowercase();
            let disk = stage.owner().create(&name, 2 << 30)?;
            fill(&disk, bytes, &mut Random::new(u64::from(round) * 7 + bytes))?;
            let alone = writes(&disk)?;
            stage.replicate(&name)?;
            let before = stage.carried()?;
            let meanwhile = writes(&disk)?;
            let (sent, seconds) = stage.since(before)?;
            facts.add(
                &format!("a write and its flush meanwhile, {rate}bit/s: on the way"),
                "Mbit/s",
                sent * 8e-6 / seconds,
            );
            for (percentile, at) in [("median", 0.5), ("p99", 0.99)] {
                let [alone, meanwhile] = [&alone, &meanwhile].map(|took| quantile(took, at));
                facts.add(&format!("a write and its flush alone, {percentile}"), "µs", alone);
                let name = format!("a write and its flush meanwhile, {rate}bit/s, to alone, {percentile}");
                facts.add(&name, "x", meanwhile / alone);
                facts.aim(&name, Goal::AtMost(1.1));
            }
            stage.owner().sterna(["volume", "delete", &name]).succeed()?;
        }
    }
    Ok(())
}

/// Reads of what is missing while the rest is fetched.
pub(super) fn read(stage: &Stage<'_>, rounds: u32, facts: &mut Facts) -> Result<()> {
    let mut seed = 1_000_000;
    for (rate, round_trip_ms) in [("100M", 100_u32), ("25M", 100), ("1G", 20)] {
        stage.set(rate, round_trip_ms)?;
        for round in 0..rounds.min(3) {
            // What one of them has, the other site has already when the next one comes.
            seed += 1;
            let name = format!("far-{rate}-{round}").to_lowercase();
            let disk = stage.owner().create(&name, 2 << 30)?;
            fill(&disk, FAR_BYTES, &mut Random::new(seed))?;
            drop(disk);
            let before = stage.carried()?;
            stage.owner().sterna(["volume", "move", &name, "--to", B, "--require", "none"]).succeed()?;
            // The rest is on its way by then.
            std::thread::sleep(Duration::from_secs(3));
            let took = reads(&stage.other().disk(&name), round)?;
            let (sent, seconds) = stage.since(before)?;
            let what = format!("a read of what is missing, {rate}bit/s, {round_trip_ms} ms");
            facts.add(&format!("{what}: all that is on the way meanwhile"), "Mbit/s", sent * 8e-6 / seconds);
            facts.add(&format!("{what}: median"), "ms", quantile(&took, 0.5) / 1e3);
            let late = format!("{what}: p90");
            facts.add(&late, "ms", quantile(&took, 0.9) / 1e3);
            facts.aim(&late, Goal::AtMost(f64::from(round_trip_ms) + 20.0));
            facts.add(&format!("{what}: longest"), "ms", quantile(&took, 1.0) / 1e3);
            stage.until_hydrated(&name)?;
            stage.other().sterna(["volume", "delete", &name]).succeed()?;
        }
    }
    Ok(())
}

/// What goes over the way where that is limited: the link, and then the volume.
pub(super) fn limit(stage: &Stage<'_>, facts: &mut Facts) -> Result<()> {
    stage.set("1G", 50)?;
    for mbit in [10_u32, 50, 200] {
        let link = format!("{mbit}Mbit");
        for (what, is_link) in [("a link", true), ("a volume", false)] {
            let name = format!("limited-{mbit}-{is_link}");
            let disk = stage.owner().create(&name, 2 << 30)?;
            let second = u64::from(mbit) * 125_000;
            let seed = u64::from(mbit) * 2 + u64::from(is_link);
            fill(&disk, second * (LIMITED_S + 5), &mut Random::new(seed))?;
            match is_link {
                true => stage.limit(&link)?,
                false => stage.owner().sterna(["volume", "set", &name, "--limit", &link]).succeed().map(drop)?,
            }
            // Else a little of it would go alone, and nothing until the rest is sealed too.
            stage.until_sealed(&name)?;
            let before = stage.carried()?;
            stage.replicate(&name)?;
            stage.until_carried(before, second)?;
            let before = stage.carried()?;
            std::thread::sleep(Duration::from_secs(LIMITED_S));
            let (sent, seconds) = stage.since(before)?;
            let fact = format!("{what} limited to {mbit} Mbit/s: on the way, of that");
            let share = sent * 8e-6 / seconds / f64::from(mbit);
            facts.add(&fact, "x", share);
            facts.aim(&fact, Goal::AtMost(1.1));
            let off = format!("{what} limited to {mbit} Mbit/s: off by");
            facts.add(&off, "%", (share - 1.0).abs() * 100.0);
            facts.aim(&off, Goal::AtMost(10.0));
            stage.limit("none")?;
            stage.owner().sterna(["volume", "delete", &name]).succeed()?;
        }
    }
    Ok(())
}

/// How long writes of single blocks take, each with a flush behind it, one after the other, in µs.
fn writes(disk: &Disk) -> Result<Vec<f64>> {
    let (mut client, _) = disk.attach(Style::Structured)?;
    let mut random = Random::new(7);
    let (mut took, begun) = (Vec::new(), Instant::now());
    while begun.elapsed() < WRITING {
        let at = random.below(FAR_BYTES / 4096) * 4096;
        let data = random.bits().to_le_bytes().repeat(512);
        let one = Instant::now();
        ensure!(client.call(Request::write(at, data))?.error() == 0, "a write failed");
        ensure!(client.call(Request::flush())?.error() == 0, "a flush failed");
        took.push(one.elapsed().as_secs_f64() * 1e6);
    }
    Ok(took)
}

/// How long reads of blocks in the last half take, one after the other, in µs.
fn reads(disk: &Disk, seed: u32) -> Result<Vec<f64>> {
    let (mut client, _) = disk.attach(Style::Structured)?;
    let mut random = Random::new(u64::from(seed) + 99);
    let mut took = Vec::new();
    for _ in 0..READS {
        let at = FAR_BYTES / 2 + random.below(FAR_BYTES / 2 / 4096) * 4096;
        let one = Instant::now();
        ensure!(client.call(Request::read(at, 4096))?.error() == 0, "a read failed");
        took.push(one.elapsed().as_secs_f64() * 1e6);
    }
    Ok(took)
}

/// The value below which this share of all is.
fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index")]
    let place = (share * number(sorted.len() as u64)) as usize;
    sorted.get(place.min(sorted.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}

const LIMITED_S: u64 = 10;
const FAR_BYTES: u64 = 256 << 20;
const WRITING: Duration = Duration::from_secs(8);
const READS: u32 = 40;
