//! Nodes that are killed: what a volume has acknowledged is there afterwards, again and again, and the volume is whole.

use std::time::Duration;

use anyhow::{Result, ensure};
use sterna_nbd_server::wire::command_flag;
use sterna_tests::client::{Request, Style};
use sterna_tests::disk_server::DiskServer;
use sterna_tests::fio_loop::FioLoop;
use sterna_tests::flush;
use sterna_tests::node::Node;
use sterna_tests::oracle::kill_loop::KillLoop;
use sterna_tests::oracle::load::Load;

const MIB: u64 = 1 << 20;

/// Has volumes sealed as often as it can be set, so that a kill hits every step of a seal.
fn seal_often(node: &Node) -> Result<()> {
    Ok(std::fs::write(
        node.data().join("sterna.toml"),
        "[journal]\nseal_after = \"1M\"\nseal_age = \"100ms\"\nlimit = \"64M\"\n",
    )?)
}

/// What kills have left of seals is no damage, before a collection and after it.
fn nothing_is_damaged(node: &Node) -> Result<()> {
    let scrubbed = node.value(["scrub"])?;
    ensure!(scrubbed["damaged_chunks"] == 0 && scrubbed["leavings_bytes"].is_u64(), "{scrubbed}");
    node.sterna(["gc"]).succeed()?;
    node.sterna(["scrub"]).succeed()?;
    Ok(())
}

#[test]
fn a_volume_under_load_keeps_all_that_it_has_acknowledged_through_twenty_kills() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let mut node = Node::init(directory.path())?;
    seal_often(&node)?;
    node.run()?;
    node.create("disk", 8 * MIB)?;
    let load = Load { connections: 2, depth: 16, ..Load::default() };
    let loaded = KillLoop::new(11).cycles(20).longest_load(Duration::from_millis(700)).load(load);
    let answered = loaded.run(&mut node, "disk")?;
    ensure!(answered.reads > 0, "nothing was read under load: {answered:?}");
    node.sterna(["volume", "snapshot", "disk", "after"]).succeed()?;
    nothing_is_damaged(&node)
}

#[test]
fn fio_finds_what_it_wrote_through_twenty_kills() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let mut node = Node::init(directory.path())?;
    seal_often(&node)?;
    node.run()?;
    node.create("disk", 32 * MIB)?;
    FioLoop::new(3, 20, Duration::from_millis(300)).run(&mut node, "disk", |_| ())?;
    nothing_is_damaged(&node)
}

#[test]
fn a_flush_on_one_connection_keeps_what_another_has_written() -> Result<()> {
    /// Within a block, behind one that was flushed.
    const AFTER: u64 = 4096 + 100;
    let directory = tempfile::tempdir()?;
    let mut node = Node::start(directory.path())?;
    let disk = node.create("disk", 16 * MIB)?;
    flush::write_on_one_and_flush_on_another(&disk)?;
    let fua = Request::write(AFTER, vec![0x77; 5000]).flags(command_flag::FUA);
    assert_eq!(disk.attach(Style::Extended)?.0.call(fua)?.error(), 0);
    node.restart()?;
    let (mut client, _) = disk.attach(Style::Structured)?;
    flush::check(|at| Ok(client.call(Request::read(at, 4096))?.data()))?;
    assert_eq!(client.call(Request::read(AFTER, 5000))?.data(), vec![0x77; 5000]);
    Ok(())
}

#[test]
fn a_change_that_was_answered_is_there_after_a_kill() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let mut node = Node::start(directory.path())?;
    let restarted = |node: &mut Node| node.restart();
    node.create("disk", MIB)?;
    restarted(&mut node)?;
    node.sterna(["volume", "resize", "disk", "--size", "2M"]).succeed()?;
    restarted(&mut node)?;
    assert_eq!(node.disk("disk").attach(Style::Simple)?.1, 2 * MIB);
    let (mut client, _) = node.disk("disk").attach(Style::Simple)?;
    assert_eq!(client.call(Request::write(0, vec![4; 4096]))?.error(), 0);
    node.sterna(["volume", "snapshot", "disk", "kept"]).succeed()?;
    restarted(&mut node)?;
    node.sterna(["volume", "clone", "disk@kept", "clone"]).succeed()?;
    restarted(&mut node)?;
    let (mut client, _) = node.disk("clone").attach(Style::Simple)?;
    assert_eq!(client.call(Request::read(0, 4096))?.data(), vec![4; 4096]);
    node.sterna(["volume", "delete", "disk", "--with-snapshots"]).succeed()?;
    restarted(&mut node)?;
    assert_eq!(node.volumes()?, ["clone"]);
    Ok(())
}
