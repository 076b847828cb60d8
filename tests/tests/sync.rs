//! `sync:N`: a flush is on the disks of N nodes before it is acknowledged, and whichever of them goes on has it.

use std::thread;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use sterna_tests::client::{Client, Request, Style};
use sterna_tests::cluster::Cluster;
use sterna_tests::disk_server::DiskServer;
use sterna_tests::node::Node;
use sterna_tests::three_sites::{AMS, BLOCK, CHI, ICN, SITES, contents};

const SIZE: u64 = 64 << 20;

/// Writes these blocks, each by itself, and flushes behind every tenth.
fn write<S: std::io::Read + std::io::Write>(client: &mut Client<S>, numbers: std::ops::Range<u64>) -> Result<()> {
    for number in numbers {
        let answer = client.call(Request::write(number * BLOCK, contents(number)))?;
        ensure!(answer.error() == 0, "write {number} was answered with {}", answer.error());
        if number % 10 == 9 {
            ensure!(client.call(Request::flush())?.error() == 0, "a flush failed");
        }
    }
    Ok(())
}

/// Fails unless the blocks up to `count` are as they were written.
fn check<S: std::io::Read + std::io::Write>(client: &mut Client<S>, count: u64) -> Result<()> {
    let answer = client.call(Request::read(0, count * BLOCK))?;
    ensure!(answer.error() == 0, "a read was answered with {}", answer.error());
    for (number, block) in (0..count).zip(answer.data().chunks(4096)) {
        ensure!(block == contents(number), "block {number} of {count} is another one");
    }
    Ok(())
}

fn shown(node: &Node) -> Result<Value> {
    Ok(node.value(["volume", "show", "disk"])?["volume"].clone())
}

/// Waits until these nodes are in sync, and no others.
fn wait_for_sync(cluster: &Cluster, asked: usize, nodes: &[&str]) -> Result<()> {
    cluster.until(&format!("in sync are {nodes:?}"), |cluster| {
        let in_sync = shown(&cluster.nodes[asked]).map(|shown| shown["in_sync"].clone()).unwrap_or_default();
        Ok(in_sync == serde_json::json!(nodes))
    })
}

fn wait_for_end_of(cluster: &Cluster, asked: usize, node: usize) -> Result<()> {
    cluster.until("its session has ended", |cluster| {
        let Ok(status) = cluster.nodes[asked].value(["cluster", "status"]) else { return Ok(false) };
        Ok(status["nodes"][node]["session"] == "lapsed" || status["nodes"][node]["session"] == "closed")
    })
}

/// Goes on at a site without the owner, and without giving anything up.
fn take_over(cluster: &Cluster, asked: usize, owner: usize, to: usize) -> Result<Value> {
    wait_for_end_of(cluster, asked, owner)?;
    let done = cluster.nodes[asked].value(["volume", "failover", "disk", "--to", SITES[to]])?;
    ensure!(done["is_in_sync"] == true && done["lost_bytes"] == 0, "{done}");
    Ok(done)
}

#[test]
fn heavy_whoever_is_in_sync_goes_on_with_every_flush_that_was_acknowledged() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let mut cluster = Cluster::start(directory.path(), &SITES)?;
    let create = ["volume", "create", "disk", "--size", "64M", "--durability", "sync:3"];
    cluster.nodes[AMS].sterna(create).succeed()?;
    for site in ["chi", "icn"] {
        cluster.nodes[ICN].sterna(["volume", "replica", "disk", "set", site, "sync"]).succeed()?;
    }
    let (mut client, _) = cluster.nodes[AMS].disk("disk").attach(Style::Structured)?;
    write(&mut client, 0..200)?;
    wait_for_sync(&cluster, AMS, &["chi-1", "icn-1"])?;
    write(&mut client, 200..300)?;
    ensure!(shown(&cluster.nodes[CHI])?["exposed_bytes"] == 0, "what two others have is exposed");

    // The owner is gone from one moment to the next.
    cluster.nodes[AMS].kill()?;
    take_over(&cluster, ICN, AMS, CHI)?;
    let (mut client, _) = cluster.nodes[CHI].disk("disk").attach(Style::Structured)?;
    check(&mut client, 300)?;
    cluster.nodes[ICN].sterna(["volume", "set", "disk", "--durability", "sync:2"]).succeed()?;
    wait_for_sync(&cluster, ICN, &["icn-1"])?;
    write(&mut client, 300..400)?;

    // So is the next one; the first comes back, and follows.
    cluster.nodes[AMS].run()?;
    cluster.until("the first owner is back", |cluster| {
        let Ok(status) = cluster.nodes[ICN].value(["cluster", "status"]) else { return Ok(false) };
        Ok(status["nodes"][AMS]["session"] == "live")
    })?;
    cluster.nodes[CHI].kill()?;
    take_over(&cluster, ICN, CHI, ICN)?;
    let (mut client, _) = cluster.nodes[ICN].disk("disk").attach(Style::Structured)?;
    check(&mut client, 400)?;
    wait_for_sync(&cluster, ICN, &["ams-1"])?;
    write(&mut client, 400..500)?;
    cluster.nodes[ICN].sterna(["volume", "snapshot", "disk", "last"]).succeed()?;
    drop(client);

    // It moves to who is in sync, and what is there is whole.
    cluster.nodes[ICN].sterna(["volume", "move", "disk", "--to", "ams"]).succeed()?;
    let (mut client, _) = cluster.nodes[AMS].disk("disk").attach(Style::Structured)?;
    check(&mut client, 500)?;
    wait_for_sync(&cluster, AMS, &["icn-1"])?;
    write(&mut client, 500..510)?;
    cluster.nodes[AMS].sterna(["gc"]).succeed()?;
    cluster.nodes[AMS].sterna(["volume", "verify", "disk"]).succeed()?;
    Ok(())
}

#[test]
fn heavy_a_flush_waits_for_who_is_missing_or_goes_on_without_as_the_volume_says() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let mut cluster = Cluster::start(directory.path(), &SITES)?;
    cluster.nodes[AMS].create("disk", SIZE)?;
    cluster.nodes[AMS].sterna(["volume", "replica", "disk", "set", "chi", "sync"]).succeed()?;
    let (mut client, _) = cluster.nodes[AMS].disk("disk").attach(Style::Structured)?;
    write(&mut client, 0..20)?;
    ensure!(shown(&cluster.nodes[AMS])?["in_sync"] == serde_json::json!([]), "nobody asked for that");
    cluster.nodes[AMS].sterna(["volume", "set", "disk", "--durability", "sync:2"]).succeed()?;
    wait_for_sync(&cluster, AMS, &["chi-1"])?;
    write(&mut client, 20..40)?;

    // One flush waits until the member is back, however long it is away.
    cluster.nodes[CHI].kill()?;
    let waiting = thread::spawn(move || -> Result<Client<_>> {
        write(&mut client, 40..50)?;
        Ok(client)
    });
    wait_for_end_of(&cluster, ICN, CHI)?;
    ensure!(!waiting.is_finished(), "a flush was acknowledged without the member");
    let text = cluster.nodes[AMS].sterna(["volume", "show", "disk"]).succeed()?.stdout;
    ensure!(text.contains("sync:2, in sync with chi-1"), "it stays in the set, as it may be needed: {text}");
    cluster.nodes[CHI].run()?;
    let mut client = waiting.join().ok().context("it panicked")??;
    wait_for_sync(&cluster, AMS, &["chi-1"])?;
    write(&mut client, 50..60)?;

    // The other goes on: first without, and with it again once it has caught up.
    cluster.nodes[AMS].sterna(["volume", "set", "disk", "--degraded", "continue"]).succeed()?;
    cluster.nodes[CHI].kill()?;
    write(&mut client, 60..100)?;
    wait_for_sync(&cluster, AMS, &[])?;
    let text = cluster.nodes[AMS].sterna(["volume", "show", "disk"]).succeed()?.stdout;
    ensure!(text.contains("sync:2, nobody else is in sync: flushes go on with these"), "{text}");
    cluster.nodes[CHI].run()?;
    wait_for_sync(&cluster, AMS, &["chi-1"])?;
    write(&mut client, 100..120)?;

    // Another takes its place.
    cluster.nodes[AMS].sterna(["volume", "set", "disk", "--degraded", "wait"]).succeed()?;
    cluster.nodes[AMS].sterna(["volume", "replica", "disk", "set", "icn", "sync"]).succeed()?;
    cluster.nodes[CHI].kill()?;
    write(&mut client, 120..140)?;
    wait_for_sync(&cluster, AMS, &["icn-1"])?;
    cluster.nodes[CHI].run()?;

    // And none is waited for where the volume asks for none.
    cluster.nodes[AMS].sterna(["volume", "set", "disk", "--durability", "local"]).succeed()?;
    wait_for_sync(&cluster, AMS, &[])?;
    write(&mut client, 140..160)?;
    check(&mut client, 160)
}
