//! Volumes of a node by name: made, listed, shown, grown, deleted, kept as snapshots, cloned and compared, over the command
//! line and over NBD.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sterna_tests::client::{Request, Style};
use sterna_tests::disk_server::DiskServer;
use sterna_tests::node::Node;
use sterna_tests::tool::Tool;

const MIB: u64 = 1 << 20;
const ENOSPC: u32 = 28;

fn qemu_io(uri: &str, commands: &[&str]) -> Result<()> {
    let commands = commands.iter().flat_map(|command| ["-c", command]);
    Tool::new("qemu-io").args(["-f", "raw", "-t", "writeback"]).args(commands).args([uri]).succeed().map(drop)
}

/// Whether two disks hold the same.
fn are_identical(a: &str, b: &str) -> Result<bool> {
    let compared = Tool::new("qemu-img").args(["compare", "-f", "raw", "-F", "raw", a, b]).run()?;
    ensure!(compared.code()? <= 1, "{compared}");
    Ok(compared.code()? == 0)
}

#[test]
fn a_volume_is_made_listed_shown_grown_and_deleted() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let node = Node::start(directory.path())?;
    assert_eq!(node.volumes()?, [""; 0]);
    let made = node.value(["volume", "create", "web-1", "--size", "1G", "--attach", "auto"])?;
    assert_eq!(
        (&made["name"], &made["size_bytes"], &made["state"]),
        (&json!("web-1"), &json!(1024 * MIB), &json!("ready"))
    );
    assert_eq!(
        (&made["durability"], &made["attach"], &made["owner"]),
        (&json!("local"), &json!("auto"), &json!("ams-1"))
    );
    assert_eq!((&made["cloned_from"], &made["snapshots"]), (&Value::Null, &json!(0)));
    node.create("data", 64 << 40)?;
    assert_eq!(node.volumes()?, ["data", "web-1"]);
    let shown = node.value(["volume", "show", "web-1"])?;
    assert_eq!((&shown["volume"]["name"], &shown["snapshots"]), (&json!("web-1"), &json!([])));
    assert_eq!(shown["uri"], json!(node.uri("web-1")));
    let grown = node.value(["volume", "resize", "web-1", "--size", "2G"])?;
    assert_eq!(grown["size_bytes"], json!(2048 * MIB));
    let size = Tool::new("nbdinfo").args(["--size", &node.uri("web-1")]).succeed()?.stdout;
    assert_eq!(size.trim(), (2048 * MIB).to_string());
    assert_eq!(node.value(["volume", "delete", "data"])?, json!({ "deleted": "data" }));
    assert_eq!(node.volumes()?, ["web-1"]);
    Ok(())
}

#[test]
fn what_people_see_is_aligned_and_in_binary_units() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let node = Node::start(directory.path())?;
    let made = node.sterna(["volume", "create", "web-1", "--size", "20G"]).succeed()?.stdout;
    ensure!(made.contains("20 GiB") && made.contains(&node.uri("web-1")), "{made}");
    node.create("a-volume-with-a-long-name", 4096)?;
    let listed = node.sterna(["volume", "list"]).succeed()?.stdout;
    let lines: Vec<&str> = listed.lines().collect();
    assert_eq!(lines.len(), 3, "{listed}");
    let column = lines[0].find("STATE").context("a header")?;
    assert!(lines[1..].iter().all(|line| line[column..].starts_with("ready")), "{listed}");
    assert!(listed.contains(" 4 KiB ") && listed.contains(" 20 GiB "), "{listed}");
    let status = node.sterna(["cluster", "status"]).succeed()?.stdout;
    assert!(status.contains("ams-1") && status.contains("2,") && status.contains("nbd.sock"), "{status}");
    let status = node.value(["cluster", "status"])?;
    assert_eq!((&status["site"], &status["leader"], &status["volumes"]), (&json!("ams"), &json!("ams-1"), &json!(2)));
    Ok(())
}

#[test]
fn a_volume_that_is_attached_grows_for_the_next_client_and_for_no_write_beyond_it() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let node = Node::start(directory.path())?;
    let disk = node.create("disk", 4 * MIB)?;
    let (mut client, _) = disk.attach(Style::Extended)?;
    assert_eq!(client.call(Request::write(4 * MIB - 4096, vec![7; 4096]))?.error(), 0);
    assert_eq!(client.call(Request::write(4 * MIB, vec![8; 4096]))?.error(), ENOSPC);
    node.sterna(["volume", "resize", "disk", "--size", "8M"]).succeed()?;
    let (mut later, size_bytes) = disk.attach(Style::Structured)?;
    assert_eq!(size_bytes, 8 * MIB);
    assert_eq!(later.call(Request::write(8 * MIB - 4096, vec![9; 4096]))?.error(), 0);
    assert_eq!(later.call(Request::read(4 * MIB - 4096, 8192))?.data(), [vec![7; 4096], vec![0; 4096]].concat());
    assert_eq!(client.call(Request::read(0, 4096))?.error(), 0, "the first client goes on");
    Ok(())
}

#[test]
fn a_snapshot_keeps_what_was_there_and_a_clone_goes_its_own_way() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let node = Node::start(directory.path())?;
    let disk = node.create("disk", 64 * MIB)?.uri();
    qemu_io(&disk, &["write -P 1 0 1M", "write -P 2 40M 3M"])?;
    let snapshot = node.value(["volume", "snapshot", "disk", "before"])?;
    assert_eq!((&snapshot["volume"], &snapshot["name"]), (&json!("disk"), &json!("before")));
    qemu_io(&disk, &["write -P 3 512k 64k", "discard 40M 1M", "flush"])?;
    let clone = node.value(["volume", "clone", "disk@before", "old"])?;
    assert_eq!(clone["cloned_from"], json!("disk@before"));
    node.sterna(["volume", "clone", "disk", "new"]).succeed()?;
    let (old, new) = (node.uri("old"), node.uri("new"));
    qemu_io(&old, &["read -P 1 0 1M", "read -P 0 1M 39M", "read -P 2 40M 3M"])?;
    assert!(are_identical(&disk, &new)? && !are_identical(&disk, &old)?);
    qemu_io(&old, &["write -P 9 0 4k", "flush"])?;
    qemu_io(&disk, &["read -P 1 0 512k", "read -P 3 512k 64k", "read -P 0 40M 1M", "read -P 2 41M 2M"])?;
    node.sterna(["volume", "clone", "disk@before", "old-again"]).succeed()?;
    qemu_io(&node.uri("old-again"), &["read -P 1 0 1M", "read -P 2 40M 3M"])?;
    Ok(())
}

#[test]
fn a_snapshot_outlives_the_node_and_a_clone_outlives_its_snapshot_and_its_volume() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let mut node = Node::start(directory.path())?;
    let disk = node.create("disk", 16 * MIB)?.uri();
    qemu_io(&disk, &["write -P 5 1M 2M"])?;
    node.sterna(["volume", "snapshot", "disk", "kept"]).succeed()?;
    node.restart()?;
    node.sterna(["volume", "clone", "disk@kept", "clone"]).succeed()?;
    node.refuses(["volume", "delete", "disk"], 1, &["'disk'", "--with-snapshots"])?;
    assert_eq!(node.value(["volume", "delete", "disk@kept"])?, json!({ "deleted": "disk@kept" }));
    node.refuses(["volume", "delete", "disk@kept"], 1, &["disk", "kept"])?;
    node.sterna(["volume", "snapshot", "disk", "another"]).succeed()?;
    node.sterna(["volume", "delete", "disk", "--with-snapshots"]).succeed()?;
    node.sterna(["gc"]).succeed()?;
    node.terminate()?;
    node.run()?;
    qemu_io(&node.uri("clone"), &["read -P 0 0 1M", "read -P 5 1M 2M", "read -P 0 3M 13M"])?;
    assert_eq!(node.volumes()?, ["clone"]);
    Ok(())
}

#[test]
fn a_difference_is_told_in_ranges() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let node = Node::start(directory.path())?;
    let disk = node.create("disk", 64 * MIB)?.uri();
    qemu_io(&disk, &["write -P 1 0 1M", "write -P 2 40M 1M"])?;
    node.sterna(["volume", "snapshot", "disk", "before"]).succeed()?;
    qemu_io(&disk, &["write -P 3 512k 4k", "discard 40M 1M", "write -P 4 60M 8k"])?;
    let changes = node.json(["volume", "diff", "disk@before", "disk", "--compare-data"])?;
    let change =
        |start: u64, length: u64, now: &str| json!({ "start_bytes": start, "length_bytes": length, "now": now });
    let expected = [change(512 << 10, 4096, "data"), change(40 * MIB, MIB, "hole"), change(60 * MIB, 8192, "data")];
    assert_eq!(changes, expected);
    assert_eq!(node.json(["volume", "diff", "disk@before", "disk@before"])?, Vec::<Value>::new());
    let text = node.sterna(["volume", "diff", "disk@before", "disk", "--compare-data"]).succeed()?.stdout;
    assert!(text.contains("40 MiB") && text.contains("3 ranges"), "{text}");
    Ok(())
}

#[test]
fn the_map_covers_the_volume_and_tells_holes_from_chunks() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let node = Node::start(directory.path())?;
    let disk = node.create("disk", 64 * MIB)?.uri();
    qemu_io(&disk, &["write -P 1 8M 1M"])?;
    node.sterna(["volume", "snapshot", "disk", "sealed"]).succeed()?;
    let ranges = node.json(["volume", "map", "disk@sealed"])?;
    let mut at = 0;
    for range in &ranges {
        assert_eq!(range["start_bytes"].as_u64(), Some(at), "{range}");
        let is_data = (8 * MIB..9 * MIB).contains(&at);
        assert_eq!(range["chunk"].as_str().map(str::len), is_data.then_some(64), "{range}");
        at += range["length_bytes"].as_u64().context("a length")?;
    }
    assert_eq!(at, 64 * MIB);
    let shown = node.value(["volume", "show", "disk", "--map"])?;
    assert_eq!(shown["map"]["mapped_bytes"], json!(MIB), "{shown}");
    Ok(())
}

#[test]
fn a_reader_that_has_read_enough_is_no_failure() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let node = Node::start(directory.path())?;
    for index in 0..20 {
        node.create(&format!("disk-{index}"), MIB)?;
    }
    let program = sterna_tests::server::sterna();
    let script = format!("set -o pipefail; '{}' --json volume list | head -n 1", program.display());
    let ended = Tool::new("bash").env("STERNA_DIR", node.data()).args(["-c", &script]).succeed()?;
    assert_eq!((ended.stdout.lines().count(), ended.stderr.as_str()), (1, ""));
    Ok(())
}

#[test]
fn what_nobody_needs_is_freed_and_what_is_left_is_whole() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let node = Node::start(directory.path())?;
    let (kept, dropped) = (node.create("kept", 16 * MIB)?, node.create("dropped", 16 * MIB)?);
    qemu_io(&kept.uri(), &["write -P 1 0 4M"])?;
    qemu_io(&dropped.uri(), &["write -P 2 0 8M"])?;
    for volume in ["kept", "dropped"] {
        node.sterna(["volume", "snapshot", volume, "s"]).succeed()?;
        let verified = node.value(["volume", "verify", &format!("{volume}@s")])?;
        assert_eq!((&verified["kind"], &verified["damaged_ranges"]), (&json!("result"), &json!(0)));
    }
    node.sterna(["volume", "delete", "dropped", "--with-snapshots"]).succeed()?;
    let collected = node.value(["gc"])?;
    assert!(collected["live_chunks"].as_u64() > Some(0), "{collected}");
    assert_eq!((&collected["compacted_packs"], &collected["cramped_packs"]), (&json!(1), &json!(0)), "{collected}");
    let scrubbed = node.value(["scrub", "--rate", "100M"])?;
    assert_eq!((&scrubbed["kind"], &scrubbed["damaged_chunks"]), (&json!("result"), &json!(0)));
    qemu_io(&kept.uri(), &["read -P 1 0 4M", "read -P 0 4M 12M"])
}

#[test]
fn a_scrub_shows_people_how_far_it_has_come() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let node = Node::start(directory.path())?;
    let disk = node.create("disk", 16 * MIB)?;
    // Patterns of one byte would be stored once: these are 64 different chunks.
    let writes: Vec<String> = (0..64).map(|at| format!("write -P {} {}k 128k", at + 1, at * 128)).collect();
    qemu_io(&disk.uri(), &writes.iter().map(String::as_str).collect::<Vec<_>>())?;
    node.sterna(["volume", "snapshot", "disk", "sealed"]).succeed()?;
    let command = format!("'{}' scrub --rate 8M", sterna_tests::server::sterna().display());
    let shown = Tool::new("script").env("STERNA_DIR", node.data()).args(["-qec", &command, "/dev/null"]).succeed()?;
    assert!(shown.stdout.contains("scrubbing [") && shown.stdout.contains(" MiB/"), "no bar with a length: {shown}");
    Ok(())
}
