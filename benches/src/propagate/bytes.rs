//! How many bytes go over the way.

use std::collections::HashSet;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use sterna_tests::client::{Request, Style};
use sterna_tests::disk_server::DiskServer;
use sterna_tests::guest::image::{Image, Root};
use sterna_tests::random::Random;

use super::large;
use crate::facts::Facts;
use crate::goal::Goal;
use crate::stage::{B, Stage, fill, noise, number, write};

/// One block that has changed, in a volume of which the other site has all.
pub(super) fn block(stage: &Stage<'_>, rounds: u32, facts: &mut Facts) -> Result<()> {
    let mut random = Random::new(1);
    let disk = stage.follow("one", 1 << 30)?;
    fill(&disk, FILLED_BYTES, &mut random)?;
    stage.until_current("one")?;
    let single = "one changed block of 4 KiB, which does not compress: bytes on the way";
    for _ in 0..rounds {
        let before = stage.carried()?;
        let at = random.below(FILLED_BYTES / 4096) * 4096;
        write(&disk, at, noise(&mut random, 4096))?;
        stage.until_current("one")?;
        facts.add(single, "B", stage.since(before)?.0);
    }
    facts.aim(single, Goal::AtMost(5.0 * 1024.0));
    let little = "100 bytes changed in a block: bytes on the way";
    for _ in 0..rounds {
        let before = stage.carried()?;
        let at = random.below(FILLED_BYTES / 4096) * 4096;
        let (mut client, _) = disk.attach(Style::Structured)?;
        let mut data = client.call(Request::read(at, 4096))?.data().to_vec();
        data[1000..1096].copy_from_slice(&noise(&mut random, 96));
        drop(client);
        write(&disk, at, data)?;
        stage.until_current("one")?;
        facts.add(little, "B", stage.since(before)?.0);
    }
    let many = "1,000 changed blocks: bytes on the way, each";
    for _ in 0..rounds {
        let before = stage.carried()?;
        let (mut client, _) = disk.attach(Style::Structured)?;
        for _ in 0..1000 {
            let at = random.below(FILLED_BYTES / 4096) * 4096;
            let written = client.call(Request::write(at, noise(&mut random, 4096)))?;
            ensure!(written.error() == 0, "a write failed");
        }
        drop(client);
        stage.until_current("one")?;
        facts.add(many, "B", stage.since(before)?.0 / 1000.0);
    }
    facts.aim(many, Goal::AtMost(5.0 * 1024.0));
    Ok(())
}

/// A large image, of which the other site has nothing.
pub(super) fn large(stage: &Stage<'_>, used_mb: u64, facts: &mut Facts) -> Result<()> {
    if used_mb == 0 {
        return Ok(());
    }
    let image = large::make(stage.directory, used_mb)?;
    let imported = stage.owner().value(["volume", "import", "large", path(&image)?])?;
    let used = number(imported["data_bytes"].as_u64().context("how much was imported")?);
    std::fs::remove_file(&image)?;
    facts.add("large image: used", "GB", used / 1e9);
    stage.set("10G", 20)?;
    let before = stage.carried()?;
    stage.replicate("large")?;
    stage.until_current("large")?;
    let (sent, seconds) = stage.since(before)?;
    facts.add("large image: on the way", "GB", sent / 1e9);
    let share = "large image: on the way, of what is used";
    facts.add(share, "x", sent / used);
    facts.aim(share, Goal::AtMost(0.5));
    facts.add("large image: data per second, both sites on this machine", "MB/s", used / 1e6 / seconds);
    Ok(())
}

/// A second image like the first.
pub(super) fn similar(stage: &Stage<'_>, facts: &mut Facts) -> Result<()> {
    let [first, second] = [Image::of(Root::Debian)?.root(), Image::of(Root::DebianExtra)?.root()];
    for (name, image, what) in [("debian", &first, "a Debian disk"), ("extra", &second, "a second one, which is alike")]
    {
        let imported = stage.owner().value(["volume", "import", name, path(image)?])?;
        let data = number(imported["data_bytes"].as_u64().context("how much was imported")?);
        let before = stage.carried()?;
        stage.replicate(name)?;
        stage.until_current(name)?;
        let sent = stage.since(before)?.0;
        facts.add(&format!("{what}: data"), "MB", data / 1e6);
        facts.add(&format!("{what}: on the way"), "MB", sent / 1e6);
        facts.add(&format!("{what}: on the way, of its data"), "x", sent / data);
    }
    Ok(())
}

/// The way back after a day's work at the other site: what is different on the second disk is written to the first one there.
pub(super) fn way_back(stage: &Stage<'_>, facts: &mut Facts) -> Result<()> {
    let [first, second] = [Image::of(Root::Debian)?.root(), Image::of(Root::DebianExtra)?.root()];
    stage.owner().sterna(["volume", "import", "debian", path(&first)?]).succeed()?;
    stage.owner().sterna(["volume", "move", "debian", "--to", B, "--require", "all"]).succeed()?;
    let changed = work(stage, &first, &second)?;
    let compressed = number(zstd::encode_all(&*changed, ZSTD_LEVEL)?.len() as u64);
    stage.until_hydrated("debian")?;
    let before = stage.carried()?;
    stage.other().sterna(["volume", "move", "debian", "--to", crate::stage::A, "--require", "all"]).succeed()?;
    stage.until_hydrated("debian")?;
    let sent = stage.since(before)?.0;
    facts.add("return after work: unique changed blocks", "MB", number(changed.len() as u64) / 1e6);
    facts.add("return after work: the same, compressed", "MB", compressed / 1e6);
    facts.add("return after work: on the way", "MB", sent / 1e6);
    let ratio = "return after work: on the way, to unique changed blocks, compressed";
    facts.add(ratio, "x", sent / compressed);
    facts.aim(ratio, Goal::AtMost(1.1));
    Ok(())
}

/// Writes to the volume what is different on the second disk; those of its blocks that the first one has nowhere, each once.
fn work(stage: &Stage<'_>, first: &Path, second: &Path) -> Result<Vec<u8>> {
    let (old, new) = (File::open(first)?, File::open(second)?);
    let length = old.metadata()?.len().min(new.metadata()?.len());
    let mut known = HashSet::new();
    let read = |file: &File, at: u64| -> Result<Vec<u8>> {
        let mut block = vec![0; 4096];
        file.read_exact_at(&mut block, at)?;
        Ok(block)
    };
    for at in (0..length).step_by(4096) {
        known.insert(blake3::hash(&read(&old, at)?));
    }
    known.insert(blake3::hash(&[0; 4096]));
    let mut unique = Vec::new();
    let (mut client, _) = stage.other().disk("debian").attach(Style::Structured)?;
    for at in (0..length).step_by(4096) {
        let block = read(&new, at)?;
        if block == read(&old, at)? {
            continue;
        }
        if known.insert(blake3::hash(&block)) {
            unique.extend_from_slice(&block);
        }
        ensure!(client.call(Request::write(at, block))?.error() == 0, "a write failed");
    }
    ensure!(client.call(Request::flush())?.error() == 0, "a flush failed");
    Ok(unique)
}

fn path(path: &Path) -> Result<&str> {
    path.to_str().context("a path in UTF-8")
}

/// Of the volume of which single blocks change.
const FILLED_BYTES: u64 = 256 << 20;
/// As on the way.
const ZSTD_LEVEL: i32 = 3;
