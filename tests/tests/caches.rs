//! Sites that keep what they have of a volume, and fetch none of it: for the volume's return.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sterna_tests::client::{Request, Style};
use sterna_tests::cluster::Cluster;
use sterna_tests::disk_server::{Disk, DiskServer};
use sterna_tests::node::Node;
use sterna_tests::random::Random;
use sterna_tests::three_sites::{AMS, CHI, ICN, SITES};

const MIB: u64 = 1 << 20;
const SIZE_MIB: u64 = 48;
/// More than the map of the volume and all that nodes say to each other meanwhile take, and little beside the volume.
const LITTLE: u64 = 4 * MIB;

fn contents(mib: u64) -> Vec<u8> {
    let mut random = Random::new(mib + 1);
    (0..MIB / 8).flat_map(|_| random.bits().to_le_bytes()).collect()
}

fn write(disk: &Disk, first_mib: u64, contents_of: std::ops::Range<u64>) -> Result<()> {
    let (mut client, _) = disk.attach(Style::Structured)?;
    for (at, mib) in (first_mib..).zip(contents_of) {
        ensure!(client.call(Request::write(at * MIB, contents(mib)))?.error() == 0, "a write failed");
    }
    ensure!(client.call(Request::flush())?.error() == 0, "a flush failed");
    Ok(())
}

/// Bytes that a node has received from other sites since it runs.
fn received(node: &Node) -> Result<u64> {
    let links = node.json(["cluster", "link"])?;
    let lanes = links.iter().filter_map(|link| link["lanes"].as_array()).flatten();
    lanes.map(|lane| lane["received_bytes"].as_u64().context("a number")).sum()
}

fn replicas(cluster: &Cluster) -> Result<Value> {
    cluster.nodes[ICN].value(["volume", "replica", "disk", "status"])
}

/// So much of the volume is at a site, as its owner finds out.
fn bytes_at(owner: &Node, site: &str) -> Result<u64> {
    let ranges = owner.json(["volume", "map", "disk", "--sites"])?;
    let is_there = |range: &&Value| range["sites"].as_array().is_some_and(|sites| sites.iter().any(|at| at == site));
    ranges.iter().filter(is_there).map(|range| range["length_bytes"].as_u64().context("a number")).sum()
}

/// Waits until a site's cache has the map of all that is published, which is of at least so many bytes.
fn until_mapped(cluster: &Cluster, site: &str, written_bytes: u64) -> Result<()> {
    cluster.until(&format!("{site} has the map"), |cluster| {
        let status = replicas(cluster)?;
        let replica = &status["replicas"][0];
        ensure!(replica["complete"].is_null(), "a cache promises nothing: {replica}");
        let is_here = replica["site"] == site && replica["mapped"]["generation"] == status["published"]["generation"];
        Ok(is_here && status["published"]["written_bytes"].as_u64() >= Some(written_bytes))
    })
}

/// Moves the volume with all of it; how many bytes its new owner has received for that.
fn go(cluster: &Cluster, from: usize, to: usize) -> Result<u64> {
    let before = received(&cluster.nodes[to])?;
    let site = SITES[to];
    cluster.nodes[from].sterna(["volume", "move", "disk", "--to", site, "--require", "all"]).succeed()?;
    cluster.until(&format!("{site} has everything"), |cluster| {
        let shown = cluster.nodes[ICN].value(["volume", "show", "disk"])?["volume"].clone();
        Ok(shown["owner"] == format!("{site}-1") && shown["sources"] == Value::Array(Vec::new()))
    })?;
    Ok(received(&cluster.nodes[to])? - before)
}

#[test]
fn heavy_a_site_that_was_left_keeps_what_it_has_and_fetches_the_rest_when_the_volume_returns() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let mut cluster = Cluster::start(directory.path(), &SITES)?;
    let [ams, chi] = [AMS, CHI].map(|node| &cluster.nodes[node]);
    let disk = ams.create("disk", SIZE_MIB * MIB)?;
    let before = received(chi)?;
    ams.sterna(["volume", "replica", "disk", "set", "chi", "cache"]).succeed()?;
    write(&disk, 0, 0..SIZE_MIB)?;
    until_mapped(&cluster, "chi", SIZE_MIB * MIB)?;
    let fetched = received(chi)? - before;
    ensure!(fetched < LITTLE, "a cache fetches no data, and has received {fetched} bytes");
    let refused = cluster.nodes[ICN].sterna(["volume", "failover", "disk", "--to", "chi", "--dry-run"]).run()?;
    ensure!(!refused.status.success() && refused.stderr.contains("chi"), "nothing goes on with a cache: {refused}");

    let fetched = go(&cluster, AMS, CHI)?;
    ensure!(fetched > (SIZE_MIB - 1) * MIB, "{fetched} bytes for a volume that was never there");
    // While it is away a MiB changes, and what nothing needs is collected where it was.
    write(&cluster.nodes[CHI].disk("disk"), 7, 100..101)?;
    until_mapped(&cluster, "ams", (SIZE_MIB + 1) * MIB)?;
    ams.sterna(["gc"]).succeed()?;
    let [at_ams, at_chi] = ["ams", "chi"].map(|site| bytes_at(&cluster.nodes[CHI], site));
    let (at_ams, at_chi) = (at_ams?, at_chi?);
    ensure!(at_chi == SIZE_MIB * MIB, "{at_chi} bytes at the owner's");
    let lacks = at_chi - at_ams;
    ensure!((MIB..MIB + (1 << 20)).contains(&lacks), "{lacks} bytes are not at the site that was left");
    let fetched = go(&cluster, CHI, AMS)?;
    ensure!(fetched < MIB + LITTLE, "{fetched} bytes for the return of a volume of which a MiB has changed");
    let (mut client, _) = ams.disk("disk").attach(Style::Structured)?;
    for mib in 0..SIZE_MIB {
        let expected = contents(if mib == 7 { 100 } else { mib });
        let answer = client.call(Request::read(mib * MIB, MIB))?;
        ensure!(answer.error() == 0 && answer.data() == expected, "MiB {mib} is another one");
    }
    drop(client);

    // Where nothing keeps it, it goes.
    ams.sterna(["volume", "replica", "disk", "unset", "chi"]).succeed()?;
    cluster.until("chi has heard of it", |cluster| {
        Ok(cluster.nodes[CHI].value(["volume", "replica", "disk", "status"])?["replicas"] == Value::Array(Vec::new()))
    })?;
    // What is being looked at is held: it is collected once nobody looks.
    cluster.until("nothing of it is at chi", |_| Ok(chi.value(["gc"])?["live_chunks"] == 0))?;
    let fetched = go(&cluster, AMS, CHI)?;
    ensure!(fetched > (SIZE_MIB - 1) * MIB, "{fetched} bytes for a volume that was not kept");

    // Of a site that does not answer nobody says that it has nothing.
    cluster.nodes[CHI].sterna(["volume", "replica", "disk", "set", "ams", "cache"]).succeed()?;
    until_mapped(&cluster, "ams", (SIZE_MIB + 1) * MIB)?;
    let shown = cluster.nodes[CHI].sterna(["volume", "map", "disk", "--sites"]).succeed()?.stdout;
    ensure!(shown.ends_with("48 MiB at ams, 48 MiB at chi\n"), "{shown}");
    cluster.nodes[AMS].kill()?;
    let ranges = cluster.nodes[CHI].json(["volume", "map", "disk", "--sites"])?;
    let is_doubted = |range: &Value| range["sites"] == json!(["chi"]) && range["unknown_sites"] == json!(["ams"]);
    ensure!(!ranges.is_empty() && ranges.iter().all(is_doubted), "{ranges:?}");
    Ok(())
}
