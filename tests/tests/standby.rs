//! Clients of a volume where it is not served: they read what it holds now, write where it comes to be, and, with `attach = auto`,
//! have it come there.

use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use sterna_nbd_server::wire::{command, transmission_flag};
use sterna_tests::client::{Client, Request, Style};
use sterna_tests::cluster::Cluster;
use sterna_tests::disk_server::DiskServer;
use sterna_tests::fsx::Fsx;

const SITES: [&str; 3] = ["ams", "chi", "icn"];
const BLOCK: u64 = 4096;
const SIZE: u64 = 8 << 20;
/// Of the NBD protocol.
const EPERM: u32 = 1;
const EIO: u32 = 5;
const ESHUTDOWN: u32 = 108;
const AMS: usize = 0;
const CHI: usize = 1;
const ICN: usize = 2;

/// A new client at a node, and whether that has the volume in standby.
fn attach(cluster: &Cluster, node: usize) -> Result<(Client<UnixStream>, bool)> {
    let (client, described) = cluster.nodes[node].disk("disk").attach_described(Style::Structured)?;
    let is_read_only = described.flags & transmission_flag::READ_ONLY != 0;
    ensure!(!is_read_only, "no hypervisor takes a read-only disk for a machine that is to arrive");
    ensure!(described.size_bytes == SIZE);
    Ok((client, described.is_standby))
}

fn block(byte: u8) -> Vec<u8> {
    vec![byte; 4096]
}

/// The error numbers of a write to a block, and of a flush behind it.
fn write(client: &mut Client<UnixStream>, number: u64, byte: u8) -> Result<[u32; 2]> {
    let written = client.call(Request::write(number * BLOCK, block(byte)))?.error();
    Ok([written, client.call(Request::flush())?.error()])
}

fn holds(client: &mut Client<UnixStream>, number: u64, byte: u8) -> Result<()> {
    let answer = client.call(Request::read(number * BLOCK, BLOCK))?;
    ensure!(answer.error() == 0, "a read was answered with {}", answer.error());
    ensure!(answer.data() == block(byte), "block {number} is {}, and not {byte}", answer.data()[0]);
    Ok(())
}

/// Has the volume go to a site as soon as it can.
fn moves(cluster: &Cluster, from: usize, to: usize) -> Result<()> {
    cluster.until(&format!("it is at {}", SITES[to]), |cluster| {
        let moved = cluster.nodes[from].sterna(["volume", "move", "disk", "--to", SITES[to]]).run()?;
        Ok(moved.status.success())
    })
}

#[test]
fn heavy_a_standby_shows_what_the_volume_holds_now_and_takes_writes_once_it_is_there() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let mut cluster = Cluster::start(directory.path(), &SITES)?;
    cluster.nodes[AMS].create("disk", SIZE)?;
    let (mut owner, is_standby) = attach(&cluster, AMS)?;
    ensure!(!is_standby);
    let (mut standby, is_standby) = attach(&cluster, CHI)?;
    ensure!(is_standby);
    holds(&mut standby, 3, 0)?;
    ensure!(write(&mut owner, 3, 1)? == [0, 0]);
    // In no root yet.
    holds(&mut standby, 3, 1)?;
    ensure!(write(&mut standby, 3, 2)? == [EPERM, 0], "a standby takes flushes, and no writes");
    for request in [Request::new(command::TRIM, 0, BLOCK), Request::new(command::WRITE_ZEROES, 0, BLOCK)] {
        ensure!(standby.call(request)?.error() == EPERM, "a standby changes something");
    }
    ensure!(standby.call(Request::read(SIZE, BLOCK))?.error() != 0, "it reads behind the end");
    holds(&mut owner, 3, 1)?;

    moves(&cluster, AMS, CHI)?;
    holds(&mut standby, 3, 1)?;
    ensure!(write(&mut standby, 3, 2)? == [0, 0]);
    ensure!(write(&mut owner, 3, 3)? == [ESHUTDOWN; 2], "its time is over");
    let (mut other, is_standby) = attach(&cluster, ICN)?;
    ensure!(is_standby);
    holds(&mut other, 3, 2)?;
    let (mut back, is_standby) = attach(&cluster, AMS)?;
    ensure!(is_standby);
    holds(&mut back, 3, 2)?;

    // What nobody serves nobody reads: an error, and nothing old.
    cluster.nodes[CHI].kill()?;
    let answer = other.call(Request::read(3 * BLOCK, BLOCK))?;
    ensure!(answer.error() == EIO, "without the owner it is answered with {}", answer.error());
    Ok(())
}

#[test]
fn heavy_a_volume_goes_to_where_it_is_written_to_unless_its_owner_writes() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let cluster = Cluster::start(directory.path(), &SITES)?;
    cluster.nodes[AMS].create("disk", SIZE)?;
    cluster.nodes[ICN].refuses(["volume", "set", "disk", "--attach", "always"], 2, &["'manual' or 'auto'"])?;
    cluster.nodes[ICN].refuses(["volume", "set", "other", "--attach", "auto"], 1, &["no volume 'other'"])?;
    let set = cluster.nodes[ICN].value(["volume", "set", "disk", "--attach", "auto"])?;
    ensure!(set["attach"] == "auto", "{set}");
    let (mut at_ams, _) = attach(&cluster, AMS)?;
    let (mut at_chi, is_standby) = attach(&cluster, CHI)?;
    ensure!(is_standby);
    ensure!(write(&mut at_ams, 1, 1)? == [0, 0]);
    // As of a machine that is paused, and goes on elsewhere at once.
    ensure!(write(&mut at_chi, 2, 2)? == [0, 0]);
    holds(&mut at_chi, 1, 1)?;
    ensure!(write(&mut at_ams, 1, 3)? == [ESHUTDOWN; 2], "two have one disk");
    thread::sleep(QUIET);
    ensure!(write(&mut at_ams, 1, 3)? == [ESHUTDOWN; 2], "it has asked for it once more");

    // A machine that runs keeps its disk.
    let (mut again, is_standby) = attach(&cluster, AMS)?;
    ensure!(is_standby);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let runs = scope.spawn(|| -> Result<()> {
            while !stop.load(Ordering::Relaxed) {
                ensure!(write(&mut at_chi, 4, 4)? == [0, 0]);
                thread::sleep(Duration::from_millis(50));
            }
            Ok(())
        });
        let refused = write(&mut again, 1, 3);
        stop.store(true, Ordering::Relaxed);
        runs.join().expect("a thread")?;
        ensure!(refused? == [EPERM, 0], "it was taken from a machine that writes");
        anyhow::Ok(())
    })?;
    holds(&mut at_chi, 1, 1)?;
    holds(&mut again, 1, 1)?;
    // And one that has stopped does not need it.
    ensure!(write(&mut again, 1, 3)? == [0, 0]);
    ensure!(write(&mut at_chi, 1, 5)? == [ESHUTDOWN; 2]);
    holds(&mut again, 1, 3)
}

#[test]
fn heavy_a_client_goes_through_ten_moves_and_finds_every_byte() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let cluster = Cluster::start(directory.path(), &SITES)?;
    cluster.nodes[AMS].create("disk", SIZE)?;
    let mut fsx = Fsx::new(10, SIZE);
    let (mut client, _) = attach(&cluster, AMS)?;
    for round in 0..10 {
        let (from, to) = (round % 3, (round + 1) % 3);
        let standby = attach(&cluster, to)?.0;
        thread::scope(|scope| {
            let moving = scope.spawn(|| moves(&cluster, from, to));
            let mut steps = 0;
            // It goes on all the time; what is answered with an error is asked for again where the volume is now.
            loop {
                steps += 1;
                match fsx.step(&mut client)? {
                    None => {}
                    Some(ESHUTDOWN) => break,
                    Some(error) => anyhow::bail!("a request was answered with {error}"),
                }
            }
            moving.join().expect("a thread")?;
            ensure!(steps > 1, "it was not served at {} in round {round}", SITES[from]);
            anyhow::Ok(())
        })?;
        // Every other time as one that comes later.
        client = if round % 2 == 0 { standby } else { attach(&cluster, to)?.0 };
        fsx.check_all(&mut client)?;
        for _ in 0..STEPS {
            let error = fsx.step(&mut client)?;
            ensure!(error.is_none(), "a request at {} was answered with {error:?}", SITES[to]);
        }
    }
    fsx.check_all(&mut client)
}

#[test]
fn heavy_a_client_that_takes_its_volume_along_finds_every_byte() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let cluster = Cluster::start(directory.path(), &SITES)?;
    let create = ["volume", "create", "disk", "--size", &SIZE.to_string(), "--attach", "auto"];
    cluster.nodes[AMS].sterna(create).succeed()?;
    let mut fsx = Fsx::new(11, SIZE);
    let mut client = attach(&cluster, AMS)?.0;
    for round in 0..10 {
        for _ in 0..STEPS {
            let error = fsx.step(&mut client)?;
            ensure!(error.is_none(), "a request in round {round} was answered with {error:?}");
        }
        let left = std::mem::replace(&mut client, attach(&cluster, (round + 1) % 3)?.0);
        // It reads before it writes: nothing old.
        fsx.check_all(&mut client)?;
        drop(left);
    }
    fsx.check_all(&mut client)
}

/// So long after its last change a client is not taken for one that runs.
const QUIET: Duration = Duration::from_millis(1_200);
/// What a client does at each site.
const STEPS: usize = 150;
