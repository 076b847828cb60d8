//! What goes bad at one site, and is whole at another.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use sterna_tests::client::{Request, Style};
use sterna_tests::cluster::Cluster;
use sterna_tests::disk_server::{Disk, DiskServer};
use sterna_tests::node::Node;
use sterna_tests::random::Random;

const AMS: usize = 0;
const CHI: usize = 1;
const ICN: usize = 2;
/// Who came in the place of the first.
const BACK: usize = 3;
const MIB: u64 = 1 << 20;
const SIZE_MIB: u64 = 112;
const DAMAGED: u64 = 100;

/// What is in a MiB of the volume.
fn contents(mib: u64) -> Vec<u8> {
    let mut random = Random::new(mib + 1);
    (0..MIB / 8).flat_map(|_| random.bits().to_le_bytes()).collect()
}

fn fill(disk: &Disk) -> Result<()> {
    fill_with(disk, 0)
}

/// Fills a volume with the contents of those of a disk from here on.
fn fill_with(disk: &Disk, first_mib: u64) -> Result<()> {
    let (mut client, _) = disk.attach(Style::Structured)?;
    for mib in 0..SIZE_MIB {
        ensure!(client.call(Request::write(mib * MIB, contents(first_mib + mib)))?.error() == 0, "a write failed");
    }
    ensure!(client.call(Request::flush())?.error() == 0, "a flush failed");
    Ok(())
}

/// Reads all of it, a little at a time; how many reads were answered with an error. What is answered is right.
fn errors_of_reads(disk: &Disk) -> Result<usize> {
    let (mut client, _) = disk.attach(Style::Structured)?;
    let mut errors = 0;
    for mib in 0..SIZE_MIB {
        for (at, expected) in (0..).step_by(64 << 10).zip(contents(mib).chunks(64 << 10)) {
            let answer = client.call(Request::read(mib * MIB + at, 64 << 10))?;
            if answer.error() == 0 {
                ensure!(answer.data() == expected, "a client was given something else, {at} bytes into MiB {mib}");
            }
            errors += usize::from(answer.error() != 0);
        }
    }
    Ok(errors)
}

/// Changes a bit in so many places of the node's packs, each in another chunk.
fn damage(node: &Node, places: u64) -> Result<()> {
    let mut packs = Vec::<(PathBuf, u64)>::new();
    for file in fs::read_dir(node.data().join("packs"))? {
        let file = file?;
        packs.push((file.path(), file.metadata()?.len()));
    }
    packs.sort();
    let total: u64 = packs.iter().map(|(_, length)| length).sum();
    let step = total / (places + 1);
    // No chunk has more than 256 KiB.
    ensure!(step > 512 << 10, "{total} bytes are too few for {places} chunks");
    for number in 1..=places {
        let mut at = number * step;
        let found = packs.iter().find(|(_, length)| {
            let is_in = at < *length;
            at -= if is_in { 0 } else { *length };
            is_in
        });
        let (path, _) = found.context("a place in a pack")?;
        let file = File::options().read(true).write(true).open(path)?;
        let mut byte = [0];
        file.read_exact_at(&mut byte, at)?;
        file.write_all_at(&[byte[0] ^ 4], at)?;
        file.sync_all()?;
    }
    Ok(())
}

/// What a scrub says at its end, and how it ends.
fn scrub(node: &Node) -> Result<(Value, i32)> {
    let ended = node.sterna(["--json", "scrub"]).run()?;
    let last = ended.stdout.lines().last().with_context(|| format!("a scrub says something: {ended}"))?;
    Ok((serde_json::from_str(last)?, ended.code()?))
}

fn is_complete(node: &Node, volume: &str) -> Result<bool> {
    let status = node.value(["volume", "replica", volume, "status"])?;
    let complete = &status["replicas"][0]["complete"];
    let written = status["published"]["written_bytes"].as_u64() == Some(SIZE_MIB * MIB);
    Ok(written && complete["generation"] == status["published"]["generation"])
}

#[test]
fn heavy_what_is_damaged_at_one_site_is_mended_from_another_and_no_client_is_given_a_wrong_byte() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let mut cluster = Cluster::start(directory.path(), &["ams", "chi", "icn"])?;
    let disk = cluster.nodes[AMS].create("disk", SIZE_MIB * MIB)?;
    fill(&disk)?;
    cluster.nodes[AMS].sterna(["volume", "replica", "disk", "set", "chi", "async"]).succeed()?;
    cluster.until("chi has all of it", |cluster| is_complete(&cluster.nodes[AMS], "disk"))?;

    damage(&cluster.nodes[AMS], DAMAGED)?;
    errors_of_reads(&disk)?;
    let (result, code) = scrub(&cluster.nodes[AMS])?;
    let found = result["damaged_chunks"].as_u64().context("a number")?;
    ensure!(found >= DAMAGED, "a scrub has found {found} of {DAMAGED}");
    ensure!(result["repaired_chunks"] == found && code == 0, "not all is mended: {result}, {code}");
    let errors = errors_of_reads(&disk)?;
    ensure!(errors == 0, "of what was mended {errors} reads fail: {}", cluster.nodes[AMS].log());
    let (result, code) = scrub(&cluster.nodes[AMS])?;
    ensure!(result["damaged_chunks"] == 0 && code == 0, "it does not last: {result}");
    cluster.nodes[AMS].sterna(["volume", "verify", "disk"]).succeed()?;

    // The replica's site is mended from the owner's, and where nobody has it, that is told.
    damage(&cluster.nodes[CHI], DAMAGED)?;
    cluster.nodes[AMS].kill()?;
    let (result, code) = scrub(&cluster.nodes[CHI])?;
    // What only the head of a batch has lost is written anew from the index.
    let [found, repaired] = ["damaged_chunks", "repaired_chunks"].map(|key| result[key].as_u64());
    let lost = found.zip(repaired).map(|(found, repaired)| found - repaired).context("numbers")?;
    ensure!((DAMAGED - 10..=DAMAGED).contains(&lost) && code == 1, "nobody has it: {result}, {code}");
    cluster.nodes[AMS].run()?;
    cluster.until("ams has a session", |cluster| {
        let status = cluster.nodes[CHI].value(["cluster", "status"])?;
        let nodes = status["nodes"].as_array().context("a list of nodes")?;
        Ok(nodes.iter().any(|node| node["site"] == "ams" && node["silence"].is_null() && node["session"] == "live"))
    })?;
    cluster.until("all is mended", |cluster| {
        let (result, code) = scrub(&cluster.nodes[CHI])?;
        Ok(code == 0 && result["damaged_chunks"] == result["repaired_chunks"])
    })
}

/// Whether a site has all that is published of a volume.
fn has_all(status: &Value, site: &str) -> Result<bool> {
    let replicas = status["replicas"].as_array().context("a list of replicas")?;
    let complete = replicas.iter().find(|replica| replica["site"] == site).map(|replica| &replica["complete"]);
    let written = status["published"]["written_bytes"].as_u64() == Some(SIZE_MIB * MIB);
    Ok(written && complete.is_some_and(|complete| complete["generation"] == status["published"]["generation"]))
}

/// Fails unless it is what a volume was [filled with](fill_with).
fn is_filled_with(disk: &Disk, first_mib: u64) -> Result<()> {
    let (mut client, _) = disk.attach(Style::Structured)?;
    for mib in 0..SIZE_MIB {
        let answer = client.call(Request::read(mib * MIB, MIB))?;
        ensure!(answer.error() == 0 && answer.data() == contents(first_mib + mib), "MiB {mib} is another one");
    }
    Ok(())
}

#[test]
fn heavy_a_site_whose_disk_is_wiped_is_rebuilt_from_its_peers() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let mut cluster = Cluster::start(directory.path(), &["ams", "chi", "icn"])?;
    // One that the site owns, with a snapshot, and one that it follows.
    for (owner, other, volume, first_mib) in [(AMS, "chi", "own", 0), (CHI, "ams", "followed", SIZE_MIB)] {
        let disk = cluster.nodes[owner].create(volume, SIZE_MIB * MIB)?;
        cluster.nodes[owner].sterna(["volume", "replica", volume, "set", other, "async"]).succeed()?;
        fill_with(&disk, first_mib)?;
        let status = |cluster: &Cluster| cluster.nodes[ICN].value(["volume", "replica", volume, "status"]);
        cluster.until("all of it is at the other site", |cluster| has_all(&status(cluster)?, other))?;
    }
    cluster.nodes[AMS].sterna(["volume", "snapshot", "own", "kept"]).succeed()?;
    cluster.until("the snapshot is at the other site", |cluster| {
        Ok(cluster.nodes[CHI].sterna(["volume", "verify", "own@kept"]).run()?.status.success())
    })?;

    // What that will be is known before.
    let without = |site| cluster.nodes[ICN].value(["cluster", "without", site]);
    let (ams, icn) = (without("ams")?, without("icn")?);
    ensure!(ams["is_decided"] == true && ams["voters_left"] == 2, "{ams}");
    let [own] = &ams["volumes"].as_array().context("a list of volumes")?[..] else {
        bail!("one is of that site: {ams}")
    };
    ensure!(own["volume"] == "own" && own["effect"] == "goes_on" && own["to_node"] == "chi-1", "{own}");
    ensure!(own["lost_bytes"] == 0 && own["is_in_sync"] == false && own["lost_snapshots"] == json!([]), "{own}");
    ensure!(icn["volumes"] == json!([]), "it has none: {icn}");
    let told = cluster.nodes[ICN].sterna(["cluster", "without", "ams"]).succeed()?.stdout;
    ensure!(told.contains("own     stops until a failover to chi (chi-1)  what is not published"), "{told}");
    cluster.nodes[ICN].refuses(["cluster", "without", "nowhere"], 1, &["there is no site 'nowhere'"])?;

    cluster.nodes[AMS].kill()?;
    fs::remove_dir_all(cluster.nodes[AMS].data())?;

    cluster.until("what it owned goes on elsewhere", |cluster| {
        Ok(cluster.nodes[ICN]
            .sterna(["volume", "failover", "own", "--to", "chi", "--accept-loss"])
            .run()?
            .status
            .success())
    })?;
    is_filled_with(&cluster.nodes[CHI].disk("own"), 0)?;
    cluster.join_as(CHI, "ams", "ams-2")?;
    let staged = cluster.nodes[CHI].value(["cluster", "node", "replace", "ams-1", "ams-2"])?;
    cluster.nodes[CHI].sterna(["cluster", "apply", &staged["revision"].to_string()]).succeed()?;
    for volume in ["own", "followed"] {
        cluster.nodes[CHI].sterna(["volume", "replica", volume, "set", "ams", "async"]).succeed()?;
        let status = |cluster: &Cluster| cluster.nodes[ICN].value(["volume", "replica", volume, "status"]);
        cluster.until("all of it is at the site again", |cluster| has_all(&status(cluster)?, "ams"))?;
    }

    // What was brought is all that is needed.
    for (volume, first_mib) in [("own", 0), ("followed", SIZE_MIB)] {
        cluster.nodes[CHI].sterna(["volume", "move", volume, "--to", "ams", "--require", "all"]).succeed()?;
        is_filled_with(&cluster.nodes[BACK].disk(volume), first_mib)?;
        cluster.nodes[BACK].sterna(["volume", "verify", volume]).succeed()?;
    }
    cluster.nodes[CHI].kill()?;
    for (volume, first_mib) in [("own", 0), ("followed", SIZE_MIB)] {
        cluster.until("it is served without the other site", |cluster| {
            Ok(is_filled_with(&cluster.nodes[BACK].disk(volume), first_mib).is_ok())
        })?;
    }
    cluster.nodes[BACK].sterna(["volume", "clone", "own@kept", "looked-at"]).succeed()?;
    is_filled_with(&cluster.nodes[BACK].disk("looked-at"), 0)
}
