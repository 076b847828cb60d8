//! Volumes that move from site to site: what was written a moment before is there, what has not arrived is fetched, and who could not
//! give a volume away keeps it.

use std::io::{Read, Write};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::Value;
use sterna_tests::client::{Client, Request, Style};
use sterna_tests::cluster::{Cluster, Options};
use sterna_tests::disk_server::DiskServer;
use sterna_tests::random::Random;
use sterna_tests::wan::{Change, Rate, Settings, Topology, Wan, Ways};

const SITES: [&str; 3] = ["ams", "chi", "icn"];
const BLOCK: u64 = 4096;
const SIZE: u64 = 64 << 20;
/// Of the NBD protocol.
const ESHUTDOWN: u32 = 108;
const AMS: usize = 0;
const CHI: usize = 1;
const ICN: usize = 2;

/// What write `number` of `round` writes.
fn contents(round: u64, number: u64) -> Vec<u8> {
    let mut block = vec![0; 4096];
    for (at, place) in block.chunks_mut(8).enumerate() {
        place.copy_from_slice(&((round << 40) + (number << 16) + at as u64 + 1).to_le_bytes());
    }
    block
}

/// Writes these blocks, each by itself.
fn write<S: Read + Write>(client: &mut Client<S>, round: u64, numbers: std::ops::Range<u64>) -> Result<()> {
    for number in numbers {
        let answer = client.call(Request::write(number * BLOCK, contents(round, number)))?;
        ensure!(answer.error() == 0, "write {number} was answered with {}", answer.error());
    }
    Ok(())
}

fn flush<S: Read + Write>(client: &mut Client<S>) -> Result<()> {
    ensure!(client.call(Request::flush())?.error() == 0, "a flush failed");
    Ok(())
}

/// Fails unless each of these blocks holds what the round that `of` names has written; 0 for nothing.
fn check<S: Read + Write>(client: &mut Client<S>, blocks: u64, of: impl Fn(u64) -> u64) -> Result<()> {
    for first in (0..blocks).step_by(64) {
        let count = (blocks - first).min(64);
        let answer = client.call(Request::read(first * BLOCK, count * BLOCK))?;
        ensure!(answer.error() == 0, "a read at block {first} was answered with {}", answer.error());
        for (number, found) in (first..).zip(answer.data().chunks(4096)) {
            let expected = match of(number) {
                0 => vec![0; 4096],
                round => contents(round, number),
            };
            ensure!(found == expected, "block {number} is not that of round {}", of(number));
        }
    }
    Ok(())
}

fn volume(cluster: &Cluster, asked: usize) -> Result<Value> {
    Ok(cluster.nodes[asked].value(["volume", "show", "disk"])?["volume"].clone())
}

/// Waits until the owner of the volume has all of it, and nobody keeps anything for it.
fn wait_until_all_is_there(cluster: &Cluster, asked: usize, owner: &str) -> Result<()> {
    cluster.until(&format!("{owner} has everything"), |cluster| {
        let shown = volume(cluster, asked)?;
        Ok(shown["owner"] == owner && shown["sources"] == Value::Array(Vec::new()))
    })
}

#[test]
fn heavy_a_volume_moves_with_what_was_written_a_moment_before_and_its_old_site_can_be_switched_off() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let mut cluster = Cluster::start(directory.path(), &SITES)?;
    cluster.nodes[AMS].create("disk", SIZE)?;
    let (mut old, _) = cluster.nodes[AMS].disk("disk").attach(Style::Structured)?;
    write(&mut old, 1, 0..2000)?;
    flush(&mut old)?;
    cluster.nodes[AMS].sterna(["volume", "snapshot", "disk", "before"]).succeed()?;
    // In no root, and some of it not even flushed.
    write(&mut old, 2, 100..110)?;
    flush(&mut old)?;
    write(&mut old, 3, 105..107)?;
    let newest = |number| match number {
        105..107 => 3,
        100..110 => 2,
        0..2000 => 1,
        _ => 0,
    };

    let moved = cluster.nodes[AMS].value(["volume", "move", "disk", "--to", "chi"])?;
    ensure!(moved["node"] == "chi-1" && moved["volumes"][0]["epoch"] == 2, "{moved}");
    ensure!(moved["volumes"][0]["tail_bytes"].as_u64() <= Some(10 * BLOCK), "{moved}");
    let answers = [old.call(Request::read(0, BLOCK))?.error(), old.call(Request::flush())?.error()];
    ensure!(answers == [ESHUTDOWN; 2], "the old site answers {answers:?}");
    let (mut client, _) = cluster.nodes[CHI].disk("disk").attach(Style::Structured)?;
    check(&mut client, 2100, newest)?;
    write(&mut client, 4, 50..60)?;
    flush(&mut client)?;
    let newest = |number| if (50..60).contains(&number) { 4 } else { newest(number) };

    wait_until_all_is_there(&cluster, ICN, "chi-1")?;
    cluster.nodes[AMS].kill()?;
    cluster.until("chi answers without ams", |cluster| {
        Ok(cluster.nodes[CHI].sterna(["volume", "verify", "disk"]).run()?.status.success())
    })?;
    cluster.nodes[CHI].sterna(["volume", "verify", "disk@before"]).succeed()?;
    check(&mut client, 2100, newest)?;

    // Where it has been before, it goes back to.
    cluster.nodes[AMS].run()?;
    cluster.until("it is at ams again", |cluster| {
        Ok(cluster.nodes[CHI].sterna(["volume", "move", "disk", "--to", "ams"]).run()?.status.success())
    })?;
    let (mut again, _) = cluster.nodes[AMS].disk("disk").attach(Style::Structured)?;
    check(&mut again, 2100, newest)?;
    ensure!(
        client.call(Request::read(0, BLOCK))?.error() == ESHUTDOWN,
        "a connection to an epoch that is over is served"
    );
    wait_until_all_is_there(&cluster, ICN, "ams-1")
}

#[test]
fn heavy_who_cannot_give_a_volume_away_keeps_it() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let mut cluster = Cluster::start(directory.path(), &SITES)?;
    cluster.nodes[AMS].create("disk", SIZE)?;
    let (mut client, _) = cluster.nodes[AMS].disk("disk").attach(Style::Structured)?;
    write(&mut client, 1, 0..10)?;

    let node = &cluster.nodes[AMS];
    node.refuses(["volume", "move", "disk", "--to", "ams"], 1, &["where this node is"])?;
    node.refuses(["volume", "move", "disk", "--to", "nowhere"], 1, &["there is no site 'nowhere'"])?;
    node.refuses(["volume", "move", "other", "--to", "chi"], 1, &["there is no volume 'other'"])?;
    node.refuses(["volume", "move", "disk", "disk", "--to", "chi"], 1, &["'disk' is named twice"])?;
    node.refuses(["volume", "move", "disk", "--to", "chi", "--require", "warm"], 2, &["'hot', 'all' and 'none'"])?;
    cluster.nodes[CHI].refuses(["volume", "move", "disk", "--to", "chi"], 1, &["owned by node ams-1"])?;

    // It is gone, and its session lasts still.
    cluster.nodes[CHI].kill()?;
    cluster.nodes[AMS].refuses(["volume", "move", "disk", "--to", "chi"], 1, &["does not take it"])?;
    let all = ["volume", "move", "disk", "--to", "chi", "--require", "all"];
    cluster.nodes[AMS].refuses(all, 1, &["cannot be brought there", "--require none"])?;
    write(&mut client, 2, 5..15)?;
    flush(&mut client)?;
    check(&mut client, 20, |number| match number {
        5..15 => 2,
        0..5 => 1,
        _ => 0,
    })?;
    cluster.until("the handoff has ended", |cluster| Ok(volume(cluster, ICN)?["moving_to"].is_null()))?;
    ensure!(volume(&cluster, ICN)?["owner"] == "ams-1" && volume(&cluster, ICN)?["epoch"] == 1);
    Ok(())
}

#[test]
fn heavy_several_volumes_move_in_one_cut() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let cluster = Cluster::start(directory.path(), &SITES)?;
    let names = ["data", "log", "swap"];
    for (round, name) in (1..).zip(names) {
        cluster.nodes[AMS].create(name, SIZE)?;
        let (mut client, _) = cluster.nodes[AMS].disk(name).attach(Style::Structured)?;
        write(&mut client, round, 0..30)?;
        flush(&mut client)?;
    }
    let moved = cluster.nodes[AMS].value(["volume", "move", "swap", "data", "log", "--to", "icn"])?;
    let mut epochs = moved["volumes"].as_array().into_iter().flatten().map(|volume| &volume["epoch"]);
    ensure!(epochs.clone().count() == 3 && epochs.all(|epoch| *epoch == 2), "{moved}");
    for (round, name) in (1..).zip(names) {
        let (mut client, _) = cluster.nodes[ICN].disk(name).attach(Style::Structured)?;
        check(&mut client, 40, |number| if number < 30 { round } else { 0 })?;
    }
    Ok(())
}

/// What a MiB of the disk holds: nothing that compresses, or is there twice.
fn mebibyte(number: u64) -> Vec<u8> {
    let mut random = Random::new(number);
    (0..MIB / 8).flat_map(|_| random.bits().to_le_bytes()).collect()
}

fn check_mebibyte<S: Read + Write>(client: &mut Client<S>, number: u64) -> Result<()> {
    let answer = client.call(Request::read(number * MIB, MIB))?;
    ensure!(answer.error() == 0, "a read of MiB {number} was answered with {}", answer.error());
    ensure!(answer.data() == mebibyte(number), "MiB {number} is another one");
    Ok(())
}

#[test]
fn heavy_a_link_that_is_cut_holds_up_what_has_not_arrived_and_nothing_else() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let wan = Arc::new(Wan::start(Topology::of(&SITES, Settings { delay: "5ms".parse()?, ..Settings::default() })?)?);
    let mut cluster = Cluster::start_on(Arc::clone(&wan), directory.path(), &SITES)?;
    cluster.nodes[AMS].create("disk", SIZE)?;
    let (mut old, _) = cluster.nodes[AMS].disk("disk").attach(Style::Structured)?;
    for number in 0..MEBIBYTES {
        ensure!(old.call(Request::write(number * MIB, mebibyte(number)))?.error() == 0);
    }
    flush(&mut old)?;
    // So slow that most of it is still on its way when the link is cut.
    let slow = Change { rate: Some("20M".parse()?), ..Change::default() };
    wan.set(SITES[AMS], SITES[CHI], Ways::Both, &slow)?;
    cluster.nodes[AMS].sterna(["volume", "move", "disk", "--to", "chi"]).succeed()?;
    let (mut client, _) = cluster.nodes[CHI].disk("disk").attach(Style::Structured)?;
    let (mut other, _) = cluster.nodes[CHI].disk("disk").attach(Style::Structured)?;
    // A read does not wait behind what nobody has asked for.
    check_mebibyte(&mut client, MEBIBYTES - 1)?;

    wan.cut(SITES[AMS], SITES[CHI], Ways::Both)?;
    check_mebibyte(&mut client, MEBIBYTES - 1)?;
    write(&mut client, 7, 0..10)?;
    flush(&mut client)?;
    thread::scope(|scope| {
        // Whatever the order in which it arrives, not all of it has.
        let reading = scope.spawn(move || -> Result<Instant> {
            (1..MEBIBYTES).try_for_each(|number| check_mebibyte(&mut other, number))?;
            Ok(Instant::now())
        });
        thread::sleep(CUT_FOR);
        // It is served meanwhile.
        check_mebibyte(&mut client, MEBIBYTES - 1)?;
        let healed = Instant::now();
        wan.heal(SITES[AMS], SITES[CHI], Ways::Both)?;
        let quick = Change { rate: Some(Rate::UNLIMITED), ..Change::default() };
        wan.set(SITES[AMS], SITES[CHI], Ways::Both, &quick)?;
        let read = reading.join().expect("a thread")?;
        ensure!(read > healed, "all of it was there before the link was");
        anyhow::Ok(())
    })?;
    wait_until_all_is_there(&cluster, ICN, "chi-1")?;
    cluster.nodes[AMS].kill()?;
    (1..MEBIBYTES).try_for_each(|number| check_mebibyte(&mut client, number))?;
    write(&mut client, 8, 5..15)?;
    flush(&mut client)?;
    check(&mut client, 15, |number| if number < 5 { 7 } else { 8 })
}

#[test]
fn heavy_what_has_to_be_there_is_there_before_a_volume_moves() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let wan = Arc::new(Wan::start(Topology::of(&SITES, Settings { delay: "5ms".parse()?, ..Settings::default() })?)?);
    let cluster = Cluster::start_on(Arc::clone(&wan), directory.path(), &SITES)?;
    cluster.nodes[AMS].create("disk", SIZE)?;
    let (mut old, _) = cluster.nodes[AMS].disk("disk").attach(Style::Structured)?;
    for number in 0..MEBIBYTES {
        ensure!(old.call(Request::write(number * MIB, mebibyte(number)))?.error() == 0);
    }
    // Some of it is read more than it is written.
    for number in HOT.chain(HOT).chain(HOT) {
        check_mebibyte(&mut old, number)?;
    }
    // So slow that little else is there when the link is cut.
    let slow = Change { rate: Some("20M".parse()?), ..Change::default() };
    let quick = Change { rate: Some(Rate::UNLIMITED), ..Change::default() };
    wan.set(SITES[AMS], SITES[CHI], Ways::Both, &slow)?;
    let moved = cluster.nodes[AMS].value(["volume", "move", "disk", "--to", "chi"])?;
    let (mut client, _) = cluster.nodes[CHI].disk("disk").attach(Style::Structured)?;
    wan.cut(SITES[AMS], SITES[CHI], Ways::Both)?;
    let brought = moved["pre_copied_bytes"].as_u64().unwrap_or_default();
    let hot = (HOT.end - HOT.start) * MIB;
    ensure!((hot..hot + 4 * MIB).contains(&brought), "{brought} bytes were brought: {moved}");
    for number in HOT {
        check_mebibyte(&mut client, number)?;
    }
    wan.heal(SITES[AMS], SITES[CHI], Ways::Both)?;
    wan.set(SITES[AMS], SITES[CHI], Ways::Both, &quick)?;
    wait_until_all_is_there(&cluster, ICN, "chi-1")?;

    let all = ["volume", "move", "disk", "--to", "icn", "--require", "all"];
    let moved = cluster.nodes[CHI].value(all)?;
    ensure!(moved["pre_copied_bytes"].as_u64() >= Some(SIZE), "{moved}");
    let (mut client, _) = cluster.nodes[ICN].disk("disk").attach(Style::Structured)?;
    wan.cut(SITES[CHI], SITES[ICN], Ways::Both)?;
    wan.cut(SITES[AMS], SITES[ICN], Ways::Both)?;
    (0..MEBIBYTES).try_for_each(|number| check_mebibyte(&mut client, number))
}

#[test]
fn heavy_an_owner_takes_back_what_it_has_released_to_a_node_that_is_gone() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let wan = Arc::new(Wan::start(Topology::of(&SITES, Settings { delay: "5ms".parse()?, ..Settings::default() })?)?);
    let options = Options {
        wan: Some(Arc::clone(&wan)),
        session: Some(Duration::from_secs(4)),
        log: Some("info,sterna::handoff=debug"),
        ..Options::default()
    };
    let mut cluster = Cluster::start_as(directory.path(), &SITES, options)?;
    cluster.nodes[AMS].create("disk", SIZE)?;
    let (mut old, _) = cluster.nodes[AMS].disk("disk").attach(Style::Structured)?;
    write(&mut old, 1, 0..500)?;
    flush(&mut old)?;
    write(&mut old, 2, 10..20)?;
    flush(&mut old)?;
    cluster.nodes[AMS].refuses(["volume", "failover", "disk", "--to", "ams"], 1, &["at site 'ams' already"])?;

    // A release is on its way for so long that the other node is gone before it comes.
    wan.set(SITES[AMS], SITES[CHI], Ways::Both, &Change { delay: Some("500ms".parse()?), ..Change::default() })?;
    let moving = cluster.nodes[AMS].sterna(["volume", "move", "disk", "--to", "chi"]);
    let moving = thread::spawn(move || moving.run());
    cluster.until("it is released", |cluster| Ok(cluster.nodes[AMS].log().contains("what=\"release\"")))?;
    cluster.nodes[CHI].kill()?;
    let back = ["volume", "failover", "disk", "--to", "ams", "--accept-loss"];
    cluster.nodes[ICN].refuses(back, 1, &["chi-1", "its session has not ended"])?;
    cluster.nodes[AMS].refuses(["volume", "failover", "disk", "--to", "icn"], 1, &["no complete replica"])?;
    cluster.until("the session of chi-1 has ended", |cluster| {
        let shown = cluster.nodes[ICN].value(["volume", "failover", "disk", "--to", "ams", "--dry-run"])?;
        Ok(shown["obstacle"].is_null())
    })?;
    // What chi-1 has acknowledged, if anything, nobody knows.
    let unsure = cluster.nodes[ICN].sterna(["volume", "failover", "disk", "--to", "ams"]).run()?;
    ensure!(unsure.status.code() == Some(1) && unsure.stdout.contains("if it has taken the volume"), "{unsure}");
    let taken = cluster.nodes[ICN].value(back)?;
    ensure!(taken["is_reclaimed"] == true && taken["epoch"] == 3 && taken["to_node"] == "ams-1", "{taken}");
    let moved = moving.join().expect("a thread")?;
    ensure!(!moved.status.success(), "it says that it has moved: {moved:?}");
    let newest = |number| match number {
        10..20 => 2,
        0..500 => 1,
        _ => 0,
    };
    ensure!(old.call(Request::flush())?.error() == ESHUTDOWN, "a client of the epoch that is over goes on");
    let (mut client, _) = cluster.nodes[AMS].disk("disk").attach(Style::Structured)?;
    check(&mut client, 600, newest)?;
    write(&mut client, 3, 15..30)?;
    flush(&mut client)?;
    let newest = |number| if (15..30).contains(&number) { 3 } else { newest(number) };
    drop(client);
    cluster.nodes[AMS].kill()?;
    cluster.nodes[AMS].run()?;
    cluster.until("it is served", |cluster| Ok(cluster.nodes[AMS].disk("disk").attach(Style::Structured).is_ok()))?;
    let (mut client, _) = cluster.nodes[AMS].disk("disk").attach(Style::Structured)?;
    check(&mut client, 600, newest)?;

    // It comes back, has nothing of it, and can have it the next time.
    wan.set(SITES[AMS], SITES[CHI], Ways::Both, &Change { delay: Some("5ms".parse()?), ..Change::default() })?;
    cluster.nodes[CHI].run()?;
    cluster.until("it is at chi", |cluster| {
        Ok(cluster.nodes[AMS].sterna(["volume", "move", "disk", "--to", "chi"]).run()?.status.success())
    })?;
    let (mut client, _) = cluster.nodes[CHI].disk("disk").attach(Style::Structured)?;
    check(&mut client, 600, newest)
}

const MIB: u64 = 1 << 20;
const MEBIBYTES: u64 = SIZE / MIB;
/// What of them is hot.
const HOT: std::ops::Range<u64> = 40..44;
/// Longer than anything takes that is not held up.
const CUT_FOR: Duration = Duration::from_secs(3);
