//! What is fetched before anybody waits for it: a guest that does again at another site what it did at the first.

use std::ops::Range;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use sterna_tests::client::{Client, Request, Style};
use sterna_tests::cluster::Cluster;
use sterna_tests::disk_server::DiskServer;
use sterna_tests::random::Random;
use sterna_tests::wan::{Change, Rate, Settings, Topology, Wan, Ways};

const SITES: [&str; 3] = ["ams", "chi", "icn"];
const AMS: usize = 0;
const CHI: usize = 1;
const BLOCK: u64 = 4096;
const MIB: u64 = 1 << 20;
const SIZE: u64 = 64 * MIB;
/// Reads of a boot.
const READS: u64 = 100;
/// Those after which it is certainly recognised.
const FIRST: u64 = 8;

/// A volume full of what does not compress, and is nowhere twice.
fn create(cluster: &Cluster, name: &str, seed: u64) -> Result<()> {
    cluster.nodes[AMS].create(name, SIZE)?;
    let (mut client, _) = cluster.nodes[AMS].disk(name).attach(Style::Structured)?;
    let mut random = Random::new(seed);
    for number in 0..SIZE / MIB {
        let data = (0..MIB / 8).flat_map(|_| random.bits().to_le_bytes()).collect::<Vec<_>>();
        ensure!(client.call(Request::write(number * MIB, data))?.error() == 0, "a write failed");
    }
    ensure!(client.call(Request::flush())?.error() == 0, "a flush failed");
    Ok(())
}

/// Reads all over the volume, in an order of its own: these of its reads.
fn boot(client: &mut Client<UnixStream>, reads: Range<u64>) -> Result<()> {
    for number in reads {
        let at = number * 7919 % (SIZE / BLOCK - 4) * BLOCK;
        ensure!(client.call(Request::read(at, 4 * BLOCK))?.error() == 0, "a read failed");
    }
    Ok(())
}

fn open(cluster: &Cluster, node: usize, name: &str) -> Result<Value> {
    Ok(cluster.nodes[node].value(["volume", "show", name])?["open"].clone())
}

fn waited(cluster: &Cluster, name: &str) -> Result<u64> {
    open(cluster, CHI, name)?["fetched_for_clients"].as_u64().context("a count")
}

#[test]
fn heavy_a_guest_that_boots_again_elsewhere_has_fetched_ahead_what_it_read_at_home() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let wan = Arc::new(Wan::start(Topology::of(&SITES, Settings { delay: "5ms".parse()?, ..Settings::default() })?)?);
    let cluster = Cluster::start_on(Arc::clone(&wan), directory.path(), &SITES)?;
    create(&cluster, "known", 1)?;
    create(&cluster, "unknown", 2)?;
    // A client that has gone away may be noticed only when the next one is there, which is then no new attach.
    cluster.until("a boot was noted, and the next attach has begun", |cluster| {
        let (mut client, _) = cluster.nodes[AMS].disk("known").attach(Style::Structured)?;
        let noted = open(cluster, AMS, "known")?["traces"].as_u64();
        boot(&mut client, 0..READS)?;
        Ok(noted >= Some(1))
    })?;
    // So slow that little comes by itself meanwhile.
    wan.set(SITES[AMS], SITES[CHI], Ways::Both, &Change { rate: Some("20M".parse()?), ..Change::default() })?;

    cluster.nodes[AMS].sterna(["volume", "move", "unknown", "--to", "chi", "--require", "none"]).succeed()?;
    let (mut client, _) = cluster.nodes[CHI].disk("unknown").attach(Style::Structured)?;
    boot(&mut client, 0..FIRST)?;
    let before = waited(&cluster, "unknown")?;
    boot(&mut client, FIRST..READS)?;
    let without = waited(&cluster, "unknown")? - before;

    cluster.nodes[AMS].sterna(["volume", "move", "known", "--to", "chi", "--require", "none"]).succeed()?;
    let (mut client, _) = cluster.nodes[CHI].disk("known").attach(Style::Structured)?;
    ensure!(open(&cluster, CHI, "known")?["traces"] == 1, "it came with what it was booted by");
    boot(&mut client, 0..FIRST)?;
    cluster.until("what it reads next is there", |cluster| {
        let open = open(cluster, CHI, "known")?;
        Ok(open["fetched_ahead"].as_u64() > Some(0) && open["prefetching"] == 0)
    })?;
    let before = waited(&cluster, "known")?;
    boot(&mut client, FIRST..READS)?;
    let with = waited(&cluster, "known")? - before;
    ensure!(with == 0 && without >= READS / 2, "it has waited {with} times, and {without} times without a trace");

    // A clone boots first as its origin has. Only what is all there is cloned.
    wan.set(SITES[AMS], SITES[CHI], Ways::Both, &Change { rate: Some(Rate::UNLIMITED), ..Change::default() })?;
    cluster.until("all of it is there", |cluster| {
        Ok(cluster.nodes[CHI].value(["volume", "show", "known"])?["volume"]["sources"] == Value::Array(Vec::new()))
    })?;
    cluster.nodes[CHI].sterna(["volume", "clone", "known", "copy"]).succeed()?;
    let (_client, _) = cluster.nodes[CHI].disk("copy").attach(Style::Structured)?;
    ensure!(open(&cluster, CHI, "copy")?["traces"].as_u64() >= Some(1), "a clone knows of no boot");
    Ok(())
}
