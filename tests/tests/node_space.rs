//! A node whose disk is full: clients hear ENOSPC, what was acknowledged stays, and whoever makes room can go on without
//! starting anything again.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use sterna_nbd_server::wire::command;
use sterna_tests::client::{Client, Request, Style};
use sterna_tests::disk_server::DiskServer;
use sterna_tests::node::Node;
use sterna_tests::random::Random;
use sterna_tests::small_disk::on_a_small_disk;
use sterna_tests::tool::{Tool, until};

const MIB: u64 = 1 << 20;
const ENOSPC: u32 = 28;
const DISK_BYTES: u64 = 512 * MIB;

/// A megabyte that no other has, and that nothing makes smaller.
fn noise(seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed);
    (0..MIB / 8).flat_map(|_| random.bits().to_le_bytes()).collect()
}

/// A node with as little in reserve as it can be set to, which seals soon.
fn node(directory: &Path) -> Result<Node> {
    let mut node = Node::init(directory)?;
    let settings =
        "[journal]\nseal_after = \"4M\"\nseal_age = \"100ms\"\nlimit = \"64M\"\n[space]\nreserve = \"128M\"\n";
    fs::write(node.data().join("sterna.toml"), settings)?;
    node.run()?;
    Ok(node)
}

/// Megabytes of a volume: `Some(seed)` for noise that was acknowledged, `None` for what was refused at some time.
struct Written {
    megabytes: Vec<Option<u64>>,
}

impl Written {
    /// Writes noise from megabyte `from` on until there is no room for more.
    fn fill(&mut self, client: &mut Client<UnixStream>, from: usize) -> Result<()> {
        for at in from..self.megabytes.len() {
            let seed = at as u64 + 1000;
            let error = client.call(Request::write(at as u64 * MIB, noise(seed)))?.error();
            self.megabytes[at] = (error == 0).then_some(seed);
            if error != 0 {
                ensure!(error == ENOSPC, "a full disk is told as error {error}");
                return Ok(());
            }
        }
        anyhow::bail!("there is more room than there can be")
    }

    fn count(&self) -> usize {
        self.megabytes.iter().flatten().count()
    }

    /// Reads all that was acknowledged.
    fn check(&self, client: &mut Client<UnixStream>) -> Result<()> {
        for (at, seed) in (0..).zip(&self.megabytes).filter_map(|(at, seed)| Some((at, (*seed)?))) {
            let found = client.call(Request::read(at * MIB, MIB))?.data();
            ensure!(found == noise(seed), "megabyte {at} is not what was acknowledged");
        }
        Ok(())
    }
}

fn available(node: &Node) -> Result<u64> {
    node.value(["cluster", "status"])?["available_bytes"].as_u64().context("a number of bytes")
}

#[test]
fn heavy_a_full_disk_refuses_writes_keeps_what_it_has_and_goes_on_once_there_is_room() -> Result<()> {
    let name = "heavy_a_full_disk_refuses_writes_keeps_what_it_has_and_goes_on_once_there_is_room";
    on_a_small_disk(name, DISK_BYTES, |directory, _| {
        let mut node = node(directory)?;
        fill_and_go_on(&mut node).with_context(|| warnings(&node))
    })
}

fn fill_and_go_on(node: &mut Node) -> Result<()> {
    // More than the journal's limit: however much of the disk's other volume is not sealed when there is no room for more, it
    // finds what it needs once this one is gone.
    let spare = node.create("spare", 128 * MIB)?;
    let (mut client, _) = spare.attach(Style::Simple)?;
    for at in 0..112 {
        assert_eq!(client.call(Request::write(at * MIB, noise(at)))?.error(), 0);
    }
    drop(client);
    // Packs are removed as a whole, and each process begins new ones.
    node.terminate()?;
    node.run()?;
    let disk = node.create("disk", DISK_BYTES * 2)?;
    let mut written = Written { megabytes: vec![None; 1024] };
    let (mut client, _) = disk.attach(Style::Extended)?;
    written.fill(&mut client, 0)?;
    let first = written.count();
    ensure!(first > 64, "only {first} MiB were taken");
    assert_eq!(client.call(Request::flush())?.error(), 0, "what was acknowledged can be flushed");
    written.check(&mut client)?;
    drop(client);
    for restart in [Node::terminate as fn(&mut Node) -> Result<()>, Node::kill] {
        restart(node)?;
        node.run()?;
        written.check(&mut disk.attach(Style::Extended)?.0)?;
    }
    // Another volume makes room.
    let (mut client, _) = disk.attach(Style::Extended)?;
    node.sterna(["volume", "delete", "spare"]).succeed().context("a volume cannot be deleted on a full disk")?;
    let collected = node.value(["gc"])?;
    ensure!(collected["freed_bytes"].as_u64() > Some(100 * MIB), "{collected}");
    goes_on(&mut written, &mut client, first + 32)?;
    // And so does the volume itself.
    let full = written.count();
    let error = client.call(Request::new(command::TRIM, 0, full as u64 * MIB))?.error();
    assert_eq!(error, 0, "what gives space back needs none");
    written.megabytes[..full].fill(None);
    let sealed = || Ok(node.value(["volume", "show", "disk"])?["open"]["unsealed_bytes"] == 0);
    ensure!(until(Duration::from_secs(30), sealed)?, "what was given back is not sealed: {}", node.log());
    let mut freed = 0;
    // What the metadata names last goes once it has been told that there is something newer.
    let collected = || {
        freed += node.value(["gc"])?["freed_bytes"].as_u64().context("a number of bytes")?;
        Ok(freed > full as u64 * MIB / 2)
    };
    ensure!(until(Duration::from_secs(30), collected)?, "what was given back stays");
    goes_on(&mut written, &mut client, full / 2)?;
    written.check(&mut client)?;
    node.restart()?;
    written.check(&mut disk.attach(Style::Extended)?.0)?;
    node.sterna(["scrub"]).succeed()?;
    Ok(())
}

/// What the node has complained about.
fn warnings(node: &Node) -> String {
    let log = node.log();
    let lines: Vec<&str> =
        log.lines().filter(|line| [" WARN ", " ERROR ", "panicked"].iter().any(|word| line.contains(word))).collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

/// Writes on where it was refused, without starting anything again, until there are so many megabytes. What could not be
/// sealed is tried again soon, and until then some writes find no room still.
fn goes_on(written: &mut Written, client: &mut Client<UnixStream>, at_least: usize) -> Result<()> {
    let writes = || {
        let end = written.megabytes.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
        written.fill(client, end)?;
        Ok(written.count() >= at_least)
    };
    ensure!(until(Duration::from_secs(30), writes)?, "there is room, and only {} MiB are taken", written.count());
    assert_eq!(client.call(Request::flush())?.error(), 0);
    written.check(client)
}

#[test]
fn heavy_an_import_that_finds_no_room_leaves_nothing_and_works_once_there_is_some() -> Result<()> {
    let name = "heavy_an_import_that_finds_no_room_leaves_nothing_and_works_once_there_is_some";
    on_a_small_disk(name, DISK_BYTES, |directory, beside| {
        let [raw, qcow] = ["image.raw", "image.qcow2"].map(|name| beside.join(name).display().to_string());
        let image = File::create(&raw)?;
        for at in 0..176 {
            image.write_all_at(&noise(at + 5000), at * MIB)?;
        }
        Tool::new("qemu-img").args(["convert", "-f", "raw", "-O", "qcow2", &raw, &qcow]).succeed()?;
        let node = node(directory)?;
        let (mut client, _) = node.create("spare", 256 * MIB)?.attach(Style::Simple)?;
        for at in 0..224 {
            assert_eq!(client.call(Request::write(at * MIB, noise(at)))?.error(), 0);
        }
        drop(client);
        // Sealed, so that the journal takes no space.
        node.sterna(["volume", "snapshot", "spare", "sealed"]).succeed()?;
        node.sterna(["gc"]).succeed()?;
        let before = available(&node)?;
        for image in [&raw, &qcow] {
            node.refuses(["volume", "import", "disk", image], 1, &["pace left"])?;
            assert_eq!(node.volumes()?, ["spare"], "after {image}");
            node.sterna(["gc"]).succeed()?;
            let after = available(&node)?;
            // An image that stayed would be all that was free. Spare files of the journal, of 16 MiB, come and go by themselves.
            ensure!(after + 64 * MIB > before, "{before} bytes were free, and now {after}: {}", node.log());
        }
        node.sterna(["volume", "delete", "spare", "--with-snapshots"]).succeed()?;
        node.sterna(["gc"]).succeed()?;
        for (name, image) in [("one", &raw), ("two", &qcow)] {
            node.sterna(["volume", "import", name, image]).succeed()?;
            Tool::new("qemu-img").args(["compare", "-f", "raw", "-F", "raw", &raw, &node.uri(name)]).succeed()?;
            node.sterna(["volume", "delete", name]).succeed()?;
            node.sterna(["gc"]).succeed()?;
        }
        Ok(())
    })
}
