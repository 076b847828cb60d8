//! A node as a process: its data directory, which is nobody else's; its start, its end, and what it refuses to run on.

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use sterna_tests::client::{Request, Style};
use sterna_tests::disk_server::DiskServer;
use sterna_tests::node::{Node, is_refusal};
use sterna_tests::random::Random;
use sterna_tests::server::sterna;
use sterna_tests::tool::{Ended, Tool};
use sterna_tests::tree::files;

const MIB: u64 = 1 << 20;
const EIO: u32 = 5;

fn run(data: &Path) -> Result<Ended> {
    Tool::new(sterna()).args(["node", "run"]).args([data]).env("STERNA_LOG", "warn").run()
}

#[test]
fn a_node_is_made_once() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let path = |name: &str| directory.path().join(name);
    let init = |name: &str, more: &[&str]| {
        Tool::new(sterna()).args(["--json", "node", "init"]).args([path(name)]).args(["--site", "ams"]).args(more).run()
    };
    let made = init("node", &["--bootstrap", "--name", "first"])?;
    assert!(made.status.success(), "{made}");
    assert_eq!(serde_json::from_str::<serde_json::Value>(&made.stdout)?["node"], json!("first"));
    assert_eq!(fs::metadata(path("node"))?.permissions().mode() & 0o077, 0, "others may read disks");
    let before = files(&path("node"))?;
    is_refusal(&init("node", &["--bootstrap"])?, 1, &[&path("node").display().to_string(), "'first'"])?;
    ensure!(files(&path("node"))? == before, "what was refused changed something");
    is_refusal(&init("other", &[])?, 2, &["--bootstrap"])?;
    fs::create_dir(path("mine"))?;
    fs::write(path("mine").join("file"), "mine")?;
    is_refusal(&init("mine", &["--bootstrap"])?, 1, &["not empty", "'file'"])?;
    assert_eq!(files(&path("mine"))?.len(), 1);
    for site in ["", "A", "-a", "a b"] {
        let site = format!("--site={site}");
        let args = ["node", "init", "x", "--bootstrap", &site];
        is_refusal(&Tool::new(sterna()).args(args).run()?, 2, &["--site"])?;
    }
    Ok(())
}

#[test]
fn a_directory_belongs_to_one_process() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let node = Node::start(directory.path())?;
    let (mut client, _) = node.create("disk", MIB)?.attach(Style::Structured)?;
    is_refusal(&run(&node.data())?, 1, &[&node.data().display().to_string(), "use"])?;
    assert_eq!(client.call(Request::write(0, vec![1; 4096]))?.error(), 0, "the first one goes on");
    assert_eq!(node.volumes()?, ["disk"]);
    Ok(())
}

#[test]
fn a_directory_that_is_none_is_refused() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let empty = directory.path().join("empty");
    fs::create_dir(&empty)?;
    is_refusal(&run(&empty)?, 1, &[&empty.display().to_string(), "sterna node init"])?;
    is_refusal(&run(&directory.path().join("none"))?, 1, &["none", "sterna node init"])?;
    assert_eq!(fs::read_dir(&empty)?.count(), 0);
    Ok(())
}

#[test]
fn a_directory_of_a_newer_version_is_refused_and_left_alone() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let mut node = Node::start(directory.path())?;
    node.create("disk", MIB)?;
    node.terminate()?;
    let format = node.data().join("format");
    let mine = fs::read_to_string(&format)?;
    fs::write(&format, mine.replacen(" 1\n", " 2\n", 1))?;
    let before = files(&node.data())?;
    is_refusal(&run(&node.data())?, 1, &[&format.display().to_string(), "version 2"])?;
    ensure!(files(&node.data())? == before, "what was refused changed something");
    fs::write(&format, mine)?;
    node.run()?;
    assert_eq!(node.volumes()?, ["disk"]);
    Ok(())
}

#[test]
fn settings_that_are_wrong_are_refused_with_their_place_and_left_alone() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let mut node = Node::start(directory.path())?;
    node.create("disk", MIB)?;
    node.terminate()?;
    let settings = node.data().join("sterna.toml");
    let mine = fs::read(&settings)?;
    ensure!(String::from_utf8_lossy(&mine).lines().any(|line| line.starts_with('#')), "no comment explains a setting");
    for (wrong, words) in [
        ("[journal]\nseal_afer = \"32M\"\n", ["seal_afer", "2"]),
        ("[journal]\nseal_after = \"32X\"\n", ["32X", "K, M, G or T"]),
        ("[journal]\nseal_after = \"4K\"\n", ["journal.seal_after", "\"1M\""]),
        ("[nbd]\nlisten = [\"0.0.0.0:10809\"]\n", ["0.0.0.0:10809", "nbd.tls"]),
        ("[nbd]\nlanes = -1\n", ["lanes", "-1"]),
        ("[nbd\n", ["sterna.toml", "1"]),
        ("\0", ["sterna.toml", "1"]),
    ] {
        fs::write(&settings, wrong)?;
        let before = files(&node.data())?;
        let ended = run(&node.data())?;
        is_refusal(&ended, 1, &[&settings.display().to_string()])?;
        words.iter().try_for_each(|word| {
            ensure!(ended.stderr.contains(word), "the message does not have '{word}': {ended}");
            Ok(())
        })?;
        ensure!(files(&node.data())? == before, "what was refused changed something");
    }
    fs::remove_file(&settings)?;
    is_refusal(&run(&node.data())?, 1, &[&settings.display().to_string()])?;
    fs::write(&settings, mine)?;
    node.run()?;
    assert_eq!(node.volumes()?, ["disk"]);
    Ok(())
}

#[test]
fn a_node_that_is_terminated_ends_in_order_and_keeps_what_was_never_flushed() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let mut node = Node::start(directory.path())?;
    let disk = node.create("disk", 4 * MIB)?;
    let (mut client, _) = disk.attach(Style::Structured)?;
    assert_eq!(client.call(Request::write(MIB, vec![6; 8192]))?.error(), 0);
    node.terminate()?;
    assert_eq!(client.until_closed()?, b"");
    for socket in ["nbd.sock", "admin.sock"] {
        ensure!(!fs::exists(node.data().join(socket))?, "{socket} is left behind");
    }
    node.run()?;
    let (mut client, _) = disk.attach(Style::Structured)?;
    assert_eq!(client.call(Request::read(MIB, 8192))?.data(), vec![6; 8192]);
    assert_eq!(node.value(["volume", "show", "disk"])?["open"]["unsealed_bytes"], json!(0), "it was sealed at the end");
    Ok(())
}

/// A node with a volume whose megabytes are noise, kept in a snapshot; it does not run.
fn with_data(directory: &Path) -> Result<Node> {
    let mut node = Node::start(directory)?;
    let (mut client, _) = node.create("disk", 8 * MIB)?.attach(Style::Structured)?;
    let mut random = Random::new(5);
    for at in 0..8 {
        let noise = (0..MIB / 8).flat_map(|_| random.bits().to_le_bytes()).collect();
        assert_eq!(client.call(Request::write(at * MIB, noise))?.error(), 0);
    }
    node.sterna(["volume", "snapshot", "disk", "kept"]).succeed()?;
    node.terminate()?;
    Ok(node)
}

#[test]
fn a_damaged_pack_is_found_named_and_never_served() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let mut node = with_data(directory.path())?;
    let packs: Vec<_> = fs::read_dir(node.data().join("packs"))?.collect::<Result<_, _>>()?;
    let sizes = packs.iter().map(|pack| Ok((pack.metadata()?.len(), pack.path()))).collect::<Result<Vec<_>>>()?;
    let (length, pack) = sizes.into_iter().max().context("there are packs")?;
    ensure!(length > 6 * MIB, "the data is not in {}", pack.display());
    let file = fs::File::options().write(true).read(true).open(&pack)?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, 3 * MIB)?;
    file.write_all_at(&[byte[0] ^ 0x40], 3 * MIB)?;
    node.run()?;
    let verified = node.sterna(["--json", "volume", "verify", "disk@kept"]).run()?;
    assert_eq!(verified.code()?, 1, "{verified}");
    ensure!(verified.stdout.contains("\"kind\":\"damage\"") && verified.stderr.contains("disk@kept"), "{verified}");
    let damaged: Value = serde_json::from_str(verified.stdout.lines().next().context("a line of damage")?)?;
    let (start, length) = (damaged["start_bytes"].as_u64(), damaged["length_bytes"].as_u64());
    scrub_names_who_needs_what_is_damaged(&node, &damaged)?;
    let (start, length) = start.zip(length).context("a range")?;
    let (mut client, _) = node.disk("disk").attach(Style::Structured)?;
    let (mut random, mut refused) = (Random::new(5), 0);
    for at in 0..8 {
        let expected: Vec<u8> = (0..MIB / 8).flat_map(|_| random.bits().to_le_bytes()).collect();
        for (block, expected) in (0..).zip(expected.chunks(4096)) {
            let block = at * MIB + block * 4096;
            let answer = client.call(Request::read(block, 4096))?;
            if answer.error() == EIO {
                ensure!((start..start + length).contains(&block), "block {block} fails, and damaged is {damaged}");
                refused += 1;
            } else {
                ensure!(answer.data() == expected, "block {block} is not what was written");
            }
        }
    }
    assert_eq!(refused, 1, "of the damaged chunk one block is damaged");
    node.sterna(["volume", "show", "disk"]).succeed()?;
    Ok(())
}

fn scrub_names_who_needs_what_is_damaged(node: &Node, damaged: &Value) -> Result<()> {
    node.sterna(["volume", "clone", "disk@kept", "copy"]).succeed()?;
    let scrubbed = node.sterna(["scrub"]).run()?;
    assert_eq!(scrubbed.code()?, 1, "{scrubbed}");
    ensure!(scrubbed.stdout.contains("chunk ") && scrubbed.stdout.contains("\n  disk@kept: "), "{scrubbed}");
    ensure!(scrubbed.stderr.contains("1 chunk is damaged: restore the ranges above"), "{scrubbed}");
    let scrubbed = node.sterna(["--json", "scrub"]).run()?;
    let values = scrubbed.stdout.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
    let [found, result] = &values[..] else { bail!("not one damaged chunk and a result: {scrubbed}") };
    assert_eq!(
        (&found["kind"], &found["chunk"], &found["more_ranges"]),
        (&json!("damage"), &damaged["chunk"], &json!(0))
    );
    let needed_by = found["needed_by"].as_array().context("a list")?;
    let names: Vec<_> = needed_by.iter().map(|range| &range["volume"]).collect();
    assert_eq!(names, ["copy", "disk", "disk@kept"]);
    for range in needed_by {
        for key in ["start_bytes", "length_bytes", "chunk"] {
            assert_eq!(range[key], damaged[key], "{key}");
        }
    }
    assert_eq!((&result["damaged_chunks"], &result["ranges_are_complete"]), (&json!(1), &json!(true)), "{result}");
    Ok(())
}

#[test]
fn a_damaged_index_is_refused_by_name() -> Result<()> {
    for (part, database) in [("index", "index"), ("metadata", "metadata/db")] {
        let directory = tempfile::tempdir()?;
        let node = with_data(directory.path())?;
        let current = node.data().join(database).join("CURRENT");
        ensure!(fs::exists(&current)?, "there is no {}", current.display());
        fs::write(&current, "MANIFEST-999999\n")?;
        is_refusal(&run(&node.data())?, 1, &[&node.data().join(part).display().to_string()])?;
    }
    Ok(())
}
