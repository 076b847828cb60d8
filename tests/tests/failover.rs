//! Replicas at other sites, and going on there without the owner: what is lost is said before, and what the owner still had is
//! kept when it returns.

use std::fs;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use sterna_tests::client::{Client, Request, Style};
use sterna_tests::cluster::Cluster;
use sterna_tests::disk_server::DiskServer;
use sterna_tests::node::Node;
use sterna_tests::three_sites::{AMS, BLOCK, CHI, SITES, contents};

const SIZE: u64 = 64 << 20;
/// Of the NBD protocol.
const ESHUTDOWN: u32 = 108;

/// Writes these blocks, each by itself, and flushes.
fn write<S: std::io::Read + std::io::Write>(client: &mut Client<S>, numbers: std::ops::Range<u64>) -> Result<()> {
    for number in numbers {
        let answer = client.call(Request::write(number * BLOCK, contents(number)))?;
        ensure!(answer.error() == 0, "write {number} was answered with {}", answer.error());
    }
    ensure!(client.call(Request::flush())?.error() == 0, "a flush failed");
    Ok(())
}

/// Fails unless the blocks up to `count` are as they were written, and those behind them, up to `end`, zero.
fn check(found: &[u8], count: u64, end: u64) -> Result<()> {
    for (number, block) in (0..end).zip(found.chunks(4096)) {
        let expected = if number < count { contents(number) } else { vec![0; 4096] };
        ensure!(block == expected, "block {number} of {count} is another one");
    }
    Ok(())
}

fn read<S: std::io::Read + std::io::Write>(client: &mut Client<S>, blocks: u64) -> Result<Vec<u8>> {
    let answer = client.call(Request::read(0, blocks * BLOCK))?;
    ensure!(answer.error() == 0, "a read was answered with {}", answer.error());
    Ok(answer.data())
}

fn replicas(node: &Node, volume: &str) -> Result<Value> {
    node.value(["volume", "replica", volume, "status"])
}

fn replica_at<'a>(status: &'a Value, site: &str) -> Option<&'a Value> {
    status["replicas"].as_array()?.iter().find(|replica| replica["site"] == site)
}

/// Waits until the replica at a site has everything of so many writes.
fn wait_for_replica(cluster: &Cluster, asked: usize, volume: &str, site: &str, writes: u64) -> Result<()> {
    cluster.until(&format!("{site} has {writes} writes"), |cluster| {
        let status = replicas(&cluster.nodes[asked], volume)?;
        let complete = replica_at(&status, site).map(|replica| &replica["complete"]["written_bytes"]);
        Ok(complete.and_then(Value::as_u64) == Some(writes * BLOCK))
    })
}

/// Waits until a node's session has ended, as another one knows.
fn wait_for_end_of(cluster: &Cluster, asked: usize, node: usize) -> Result<()> {
    cluster.until("the owner's session has ended", |cluster| {
        let status = cluster.nodes[asked].value(["cluster", "status"])?;
        Ok(status["nodes"][node]["session"] == "lapsed" || status["nodes"][node]["session"] == "closed")
    })
}

fn signal(node: &Node, signal: Signal) -> Result<()> {
    let id = Pid::from_raw(node.id()?.try_into()?).context("a process")?;
    Ok(kill_process(id, signal)?)
}

#[test]
fn heavy_a_volume_goes_on_at_another_site_and_what_its_owner_still_had_is_kept() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let mut cluster = Cluster::start(directory.path(), &SITES)?;
    cluster.nodes[AMS].create("disk", SIZE)?;
    let exposed = |cluster: &Cluster| -> Result<Value> {
        Ok(cluster.nodes[2].value(["volume", "show", "disk"])?["volume"]["exposed_bytes"].clone())
    };
    ensure!(exposed(&cluster)?.is_null(), "there is no replica, and something is not exposed");
    cluster.nodes[2].sterna(["volume", "replica", "disk", "set", "chi", "async"]).succeed()?;
    let (mut client, _) = cluster.nodes[AMS].disk("disk").attach(Style::Structured)?;
    write(&mut client, 0..100)?;
    cluster.nodes[AMS].sterna(["volume", "snapshot", "disk", "at-100"]).succeed()?;
    wait_for_replica(&cluster, 2, "disk", "chi", 100)?;
    ensure!(exposed(&cluster)? == 0, "{} bytes are exposed, and the replica has all", exposed(&cluster)?);
    cluster.until("the snapshot is there, too", |cluster| {
        let shown = cluster.nodes[2].value(["volume", "show", "disk"])?;
        Ok(shown["snapshots"][0]["holders"].as_array().map(Vec::len) == Some(2))
    })?;
    cluster.nodes[CHI].sterna(["volume", "verify", "disk@at-100"]).succeed()?;

    // The replica stays behind, and its owner publishes more, and acknowledges still more.
    cluster.nodes[CHI].kill()?;
    write(&mut client, 100..150)?;
    cluster.until("the owner has published more", |cluster| {
        Ok(replicas(&cluster.nodes[2], "disk")?["published"]["written_bytes"] == 150 * BLOCK)
    })?;
    ensure!(exposed(&cluster)? == 50 * BLOCK, "{} bytes are exposed, and not 50 blocks", exposed(&cluster)?);
    write(&mut client, 150..160)?;
    cluster.nodes[AMS].kill()?;
    cluster.nodes[CHI].run()?;

    let to_chi = ["volume", "failover", "disk", "--to", "chi"];
    cluster.until("the two agree again", |cluster| {
        Ok(cluster.nodes[2].sterna(["volume", "list"]).run()?.status.success())
    })?;
    wait_for_end_of(&cluster, 2, AMS)?;
    cluster.until("the keeper has a session", |cluster| {
        let status = replicas(&cluster.nodes[2], "disk")?;
        Ok(replica_at(&status, "chi").is_some_and(|replica| replica["is_live"] == true))
    })?;
    let published = replicas(&cluster.nodes[2], "disk")?["published"]["written_bytes"].as_u64().context("a number")?;
    ensure!(published >= 150 * BLOCK);
    let report = cluster.nodes[2].value(to_chi.iter().chain(&["--dry-run"]))?;
    ensure!(report["lost_bytes"] == published - 100 * BLOCK && report["all_is_published"] == false, "{report}");
    ensure!(report["epoch"].is_null() && report["obstacle"].is_null(), "{report}");
    let refused = cluster.nodes[2].sterna(to_chi).run()?;
    ensure!(refused.code()? == 1 && refused.stderr.contains("repeat it with --accept-loss"), "{refused}");
    ensure!(refused.stdout.contains("whatever ams-1 acknowledged after that"), "{refused}");
    let nowhere = ["volume", "failover", "disk", "--to", "icn", "--accept-loss"];
    cluster.nodes[2].refuses(nowhere, 1, &["has no complete replica", "there is one at 'chi'"])?;
    let done = cluster.nodes[2].value(to_chi.iter().chain(&["--accept-loss"]))?;
    ensure!(done["epoch"] == 2 && done["lost_bytes"] == report["lost_bytes"], "{done}");

    let (mut heir, _) = cluster.nodes[CHI].disk("disk").attach(Style::Structured)?;
    check(&read(&mut heir, 200)?, 100, 200)?;
    write(&mut heir, 100..110)?;

    // What the owner still had comes to light, and its site follows.
    cluster.nodes[AMS].run()?;
    cluster.until("what it had is kept", |cluster| {
        let shown = cluster.nodes[2].value(["volume", "show", "disk"])?;
        let kept = shown["snapshots"].as_array().and_then(|all| all.iter().find(|kept| kept["name"] == "kept-e1"));
        Ok(kept.is_some_and(|kept| kept["holders"] == serde_json::json!(["ams-1"])))
    })?;
    let image = directory.path().join("kept.raw");
    let export = ["volume", "export", "disk@kept-e1", image.to_str().context("a path")?];
    cluster.nodes[CHI].refuses(export, 1, &["'disk@kept-e1' is not here: give this command to ams-1 at ams"])?;
    cluster.nodes[AMS].sterna(export).succeed()?;
    check(&fs::read(&image)?, 160, 200)?;
    ensure!(cluster.nodes[AMS].log().contains("what this one had is kept as 'disk@kept-e1'"));
    wait_for_replica(&cluster, 2, "disk", "ams", 110)?;
    let past = &replicas(&cluster.nodes[2], "disk")?["superseded"][0];
    ensure!(past["epoch"] == 1 && past["owner"] == "ams-1" && past["is_settled"] == true, "{past}");

    drop(heir);
    goes_back_with_nothing_lost(&mut cluster)
}

/// The present owner, which has 110 writes, ends in good order; the node that it had the volume from has it back.
fn goes_back_with_nothing_lost(cluster: &mut Cluster) -> Result<()> {
    cluster.nodes[CHI].terminate()?;
    wait_for_end_of(cluster, 2, CHI)?;
    wait_for_replica(cluster, 2, "disk", "ams", 110)?;
    let back = cluster.nodes[2].value(["volume", "failover", "disk", "--to", "ams"])?;
    ensure!(back["epoch"] == 3 && back["lost_bytes"] == 0 && back["all_is_published"] == true, "{back}");
    let (mut client, _) = cluster.nodes[AMS].disk("disk").attach(Style::Structured)?;
    check(&read(&mut client, 200)?, 110, 200)?;
    write(&mut client, 110..120)?;
    for command in ["gc", "scrub"] {
        cluster.nodes[AMS].sterna([command]).succeed()?;
    }
    check(&read(&mut client, 200)?, 120, 200)?;
    cluster.nodes[CHI].run()?;
    wait_for_replica(cluster, 2, "disk", "chi", 120)?;
    let shown = cluster.nodes[2].value(["volume", "show", "disk"])?;
    let names: Vec<_> = shown["snapshots"].as_array().context("a list")?.iter().map(|kept| &kept["name"]).collect();
    ensure!(names == ["at-100", "kept-e1"], "nothing was lost, and something is kept: {names:?}");
    cluster.nodes[CHI].sterna(["gc"]).succeed()?;
    cluster.nodes[CHI].sterna(["volume", "verify", "disk@at-100"]).succeed()?;
    Ok(())
}

#[test]
fn heavy_an_owner_that_slept_through_its_successors_beginning_acknowledges_nothing() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let cluster = Cluster::start(directory.path(), &SITES)?;
    cluster.nodes[AMS].create("disk", SIZE)?;
    cluster.nodes[AMS].sterna(["volume", "replica", "disk", "set", "chi", "async"]).succeed()?;
    let (mut client, _) = cluster.nodes[AMS].disk("disk").attach(Style::Structured)?;
    write(&mut client, 0..10)?;
    wait_for_replica(&cluster, 2, "disk", "chi", 10)?;
    let to_chi = ["volume", "failover", "disk", "--to", "chi", "--accept-loss"];
    cluster.nodes[2].refuses(to_chi, 1, &["ams-1 at ams, may still be serving it: its session has not ended"])?;

    // A machine that is paused knows nothing of the time that goes by.
    signal(&cluster.nodes[AMS], Signal::STOP)?;
    let result = (|| {
        wait_for_end_of(&cluster, 2, AMS)?;
        cluster.nodes[2].sterna(to_chi).succeed()?;
        let (mut heir, _) = cluster.nodes[CHI].disk("disk").attach(Style::Structured)?;
        write(&mut heir, 10..20)?;
        anyhow::Ok(heir)
    })();
    signal(&cluster.nodes[AMS], Signal::CONT)?;
    let mut heir = result?;
    for request in [Request::write(0, vec![9; 4096]), Request::flush(), Request::read(0, BLOCK)] {
        let error = client.call(request)?.error();
        ensure!(error == ESHUTDOWN, "an owner of the past has answered with {error}");
    }
    cluster.until("it knows", |cluster| Ok(cluster.nodes[AMS].log().contains("another node took")))?;
    ensure!(client.call(Request::flush())?.error() != 0, "its session is back, and the volume is not");
    check(&read(&mut heir, 30)?, 20, 30)
}
