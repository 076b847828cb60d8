//! What a node and its commands refuse: exit code 2 where the command line itself is wrong, 1 where what it asks for cannot
//! be done. The message names the value and what to do, and nothing is changed.

use std::fs;

use anyhow::{Result, ensure};
use sterna_tests::client::Style;
use sterna_tests::disk_server::DiskServer;
use sterna_tests::node::{Node, is_refusal};
use sterna_tests::server::sterna;
use sterna_tests::tool::Tool;

const MIB: u64 = 1 << 20;

/// A node with a volume `disk` of 1 MiB with a snapshot `kept`, and what is listed of it.
fn node(directory: &tempfile::TempDir) -> Result<Node> {
    let node = Node::start(directory.path())?;
    node.create("disk", MIB)?;
    node.sterna(["volume", "snapshot", "disk", "kept"]).succeed()?;
    Ok(node)
}

#[test]
fn names_that_are_none_are_refused() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let node = node(&directory)?;
    let too_long = "a".repeat(64);
    for name in ["", "Web", "a b", "-a", ".hidden", "a/b", "ä", "..", too_long.as_str()] {
        let words = [&*format!("'{name}'"), "volume's name", "a-z"];
        node.refuses(["volume", "create", "--size", "1M", "--", name], 2, &words)?;
        node.refuses(["volume", "clone", "--", "disk", name], 2, &words)?;
        node.refuses(["volume", "show", "--", name], 2, &words)?;
        node.refuses(["volume", "snapshot", "--", "disk", name], 2, &["snapshot's name", "a-z"])?;
    }
    node.refuses(["volume", "create", "a@b", "--size", "1M"], 2, &["'a@b'"])?;
    node.refuses(["volume", "delete", "disk@"], 2, &["snapshot's name"])?;
    node.refuses(["volume", "delete", "disk@a@b"], 2, &["'a@b'"])?;
    node.refuses(["volume", "create", "a.importing", "--size", "1M"], 2, &["'a.importing'", "another name"])?;
    node.refuses(["volume", "clone", "disk", "a.importing"], 2, &["'a.importing'", "another name"])?;
    assert_eq!(node.volumes()?, ["disk"]);
    Ok(())
}

#[test]
fn sizes_that_no_volume_can_have_are_refused() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let node = node(&directory)?;
    for (size, words) in [
        ("0", ["4096", "--size"]),
        ("1", ["1 bytes", "give 4096"]),
        ("4097", ["4097 bytes", "give 8192"]),
        ("65T", ["65 TiB", "64 TiB"]),
        ("70368744181760", ["68719476740 KiB", "64 TiB"]),
        ("18446744073709551615", ["18446744073709551615 bytes", "64 TiB"]),
        ("18446744073709551616", ["18446744073709551616", "2^64"]),
        ("20X", ["'20X'", "K, M, G or T"]),
        ("1.5G", ["'1.5G'", "K, M, G or T"]),
        ("-1", ["-1", "size"]),
        ("", ["--size", "value"]),
    ] {
        node.refuses(["volume", "create", "new", &format!("--size={size}")], 2, &words)?;
        node.refuses(["volume", "resize", "disk", &format!("--size={size}")], 2, &words)?;
    }
    node.refuses(["volume", "create", "new"], 2, &["--size"])?;
    node.refuses(["volume", "resize", "disk", "--size", "512K"], 1, &["512 KiB", "1 MiB"])?;
    assert_eq!(node.volumes()?, ["disk"]);
    assert_eq!(node.disk("disk").attach(Style::Simple)?.1, MIB);
    Ok(())
}

#[test]
fn policies_that_are_none_are_refused() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let node = node(&directory)?;
    let create = ["volume", "create", "new", "--size", "1M"];
    let with = |option: &'static str, value: &'static str| [&create[..], &[option, value]].concat();
    node.refuses(with("--durability", "sync:1"), 2, &["'sync:1'", "'local'", "sync:N"])?;
    node.refuses(with("--durability", "remote"), 2, &["'remote'", "'local'"])?;
    node.refuses(with("--attach", "never"), 2, &["'never'", "'manual'", "'auto'"])?;
    node.refuses(["scrub", "--rate", "0"], 2, &["leave it out"])?;
    node.refuses(["scrub", "--rate", "fast"], 2, &["'fast'"])?;
    assert_eq!(node.volumes()?, ["disk"]);
    Ok(())
}

#[test]
fn what_is_not_there_or_there_already_is_named() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let node = node(&directory)?;
    for command in ["show", "delete", "map", "verify"] {
        node.refuses(["volume", command, "dusk"], 1, &["no volume 'dusk'"])?;
    }
    node.refuses(["volume", "resize", "dusk", "--size", "1M"], 1, &["no volume 'dusk'"])?;
    node.refuses(["volume", "snapshot", "dusk", "s"], 1, &["no volume 'dusk'"])?;
    node.refuses(["volume", "clone", "dusk", "new"], 1, &["no volume 'dusk'"])?;
    node.refuses(["volume", "clone", "disk@lost", "new"], 1, &["disk", "no snapshot 'lost'"])?;
    node.refuses(["volume", "diff", "disk@lost", "disk"], 1, &["disk", "no snapshot 'lost'"])?;
    node.refuses(["volume", "delete", "disk@lost"], 1, &["disk", "no snapshot 'lost'"])?;
    node.refuses(["volume", "create", "disk", "--size", "1M"], 1, &["'disk'", "another name"])?;
    node.refuses(["volume", "clone", "disk@kept", "disk"], 1, &["'disk'", "another name"])?;
    node.refuses(["volume", "snapshot", "disk", "kept"], 1, &["'kept'", "another name"])?;
    let shown = node.value(["volume", "show", "disk"])?;
    assert_eq!((node.volumes()?, shown["snapshots"].as_array().map(Vec::len)), (vec!["disk".to_owned()], Some(1)));
    Ok(())
}

#[test]
fn a_volume_in_use_is_not_deleted() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let node = Node::start(directory.path())?;
    let disk = node.create("disk", MIB)?;
    let (client, _) = disk.attach(Style::Structured)?;
    node.refuses(["volume", "delete", "disk"], 1, &["'disk'"])?;
    assert_eq!(node.volumes()?, ["disk"]);
    drop(client);
    let gone = || Ok(node.sterna(["volume", "delete", "disk"]).run()?.status.success());
    ensure!(sterna_tests::tool::until(std::time::Duration::from_secs(20), gone)?, "it stays in use without a client");
    Ok(())
}

#[test]
fn a_snapshot_has_no_snapshots_to_go_with_it() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let node = node(&directory)?;
    node.refuses(["volume", "delete", "disk@kept", "--with-snapshots"], 2, &["--with-snapshots", "disk@kept"])?;
    assert_eq!(node.value(["volume", "show", "disk"])?["snapshots"].as_array().map(Vec::len), Some(1));
    Ok(())
}

#[test]
fn a_node_has_to_be_chosen_and_to_run() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let path = |name: &str| directory.path().join(name).display().to_string();
    let list = |more: &[&str]| Tool::new(sterna()).args(["volume", "list"]).args(more).run();
    is_refusal(&list(&[])?, 2, &["--dir", "STERNA_DIR"])?;
    is_refusal(&list(&["--dir", &path("nowhere")])?, 1, &[&path("nowhere"), "sterna node init"])?;
    let mut node = Node::init(directory.path())?;
    let (data, socket) = (path("node"), path("node/admin.sock"));
    node.refuses(["volume", "list"], 1, &[&data, &socket, &format!("sterna node run {data}")])?;
    node.run()?;
    node.kill()?;
    ensure!(fs::exists(&socket)?, "a node that is killed leaves its socket behind");
    node.refuses(["volume", "list"], 1, &[&data, &socket, &format!("sterna node run {data}")])?;
    Ok(())
}
