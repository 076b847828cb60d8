//! Disk images on their way in and out: raw and sparse, and of other formats; interrupted and begun again; and what is no
//! image.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::json;
use sterna_tests::client::{Request, Style};
use sterna_tests::disk_server::DiskServer;
use sterna_tests::node::Node;
use sterna_tests::random::Random;
use sterna_tests::tool::{self, Tool, until};

const MIB: u64 = 1 << 20;

fn noise(seed: u64, bytes: u64) -> Vec<u8> {
    let mut random = Random::new(seed);
    (0..bytes / 8).flat_map(|_| random.bits().to_le_bytes()).collect()
}

/// A sparse image with some data, some zeroes that take space, and much of nothing.
fn image(path: &Path, size_bytes: u64) -> Result<()> {
    let file = File::create(path)?;
    file.set_len(size_bytes)?;
    file.write_all_at(&noise(1, MIB), 0)?;
    file.write_all_at(&vec![0; 1 << 20], 8 * MIB)?;
    file.write_all_at(&noise(2, 2 * MIB), 20 * MIB + 512)?;
    file.write_all_at(&noise(3, 4096), size_bytes - 4096)?;
    Ok(())
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

#[test]
fn a_raw_image_comes_in_and_goes_out_as_it_was_holes_and_all() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let [from, to, of_snapshot] = ["from.raw", "to.raw", "snapshot.raw"].map(|name| directory.path().join(name));
    image(&from, 64 * MIB)?;
    let node = Node::start(directory.path())?;
    let imported = node.value(["volume", "import", "disk", &text(&from)])?;
    assert_eq!((&imported["volume"]["state"], &imported["volume"]["size_bytes"]), (&json!("ready"), &json!(64 * MIB)));
    let data = imported["data_bytes"].as_u64().context("bytes of data")?;
    ensure!((3 * MIB..4 * MIB).contains(&data), "{imported}");
    let compared = Tool::new("qemu-img").args(["compare", "-f", "raw", "-F", "raw", &text(&from), &node.uri("disk")]);
    compared.succeed()?;
    let exported = node.value(["volume", "export", "disk", &text(&to)])?;
    assert_eq!((&exported["file"], &exported["size_bytes"]), (&json!(text(&to)), &json!(64 * MIB)));
    assert!(fs::read(&from)? == fs::read(&to)?, "what went out differs");
    ensure!(fs::metadata(&to)?.blocks() * 512 < 6 * MIB, "the holes are gone");
    node.sterna(["volume", "snapshot", "disk", "s"]).succeed()?;
    let (mut client, _) = node.disk("disk").attach(Style::Simple)?;
    assert_eq!(client.call(Request::write(0, vec![0xaa; 4096]))?.error(), 0);
    node.sterna(["volume", "export", "disk@s", &text(&of_snapshot)]).succeed()?;
    assert!(fs::read(&from)? == fs::read(&of_snapshot)?, "the snapshot has changed");
    node.sterna(["volume", "export", "disk", &text(&to), "--overwrite"]).succeed()?;
    assert!(fs::read(&to)?[..4096] == [0xaa; 4096], "what was written last is not in it");
    Ok(())
}

#[test]
fn the_same_image_twice_takes_its_space_once() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let from = directory.path().join("from.raw");
    image(&from, 64 * MIB)?;
    let node = Node::start(directory.path())?;
    let first = node.value(["volume", "import", "one", &text(&from)])?;
    let second = node.value(["volume", "import", "two", &text(&from)])?;
    assert!(first["new_bytes"].as_u64() > Some(3 * MIB), "{first}");
    assert_eq!(second["new_bytes"], json!(0), "{second}");
    Ok(())
}

#[test]
fn an_image_of_whole_sectors_is_filled_up_with_a_note() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let from = directory.path().join("from.raw");
    fs::write(&from, vec![7; 4096 + 512])?;
    let node = Node::start(directory.path())?;
    let ended = node.sterna(["--json", "volume", "import", "disk", &text(&from)]).succeed()?;
    assert!(ended.stderr.contains("3584 bytes of zeroes"), "{ended}");
    let (mut client, size_bytes) = node.disk("disk").attach(Style::Simple)?;
    assert_eq!(size_bytes, 8192);
    assert_eq!(client.call(Request::read(0, 8192))?.data(), [vec![7; 4608], vec![0; 3584]].concat());
    Ok(())
}

#[test]
fn what_is_no_whole_image_is_refused_and_leaves_nothing() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let path = |name: &str| text(&directory.path().join(name));
    let node = Node::start(directory.path())?;
    fs::write(path("truncated.raw"), vec![1; 4096 * 3 + 100])?;
    fs::write(path("empty.raw"), [])?;
    fs::write(path("image.gz"), b"\x1f\x8b\x08 and so on")?;
    fs::write(path("bad.qcow2"), b"QFI\xfb\0\0\0\x03 and nothing more")?;
    File::create(path("large.raw"))?.set_len(8 << 40)?;
    let import = |name: &str, words: &[&str]| node.refuses(["volume", "import", "disk", &path(name)], 1, words);
    import("missing.raw", &[&path("missing.raw"), "No such file"])?;
    import("", &["is a directory"])?;
    import("truncated.raw", &[&path("truncated.raw"), "12388 bytes", "truncated"])?;
    import("empty.raw", &[&path("empty.raw"), "at least 4096 bytes"])?;
    import("image.gz", &[&path("image.gz"), "gzip", "unpack"])?;
    import("bad.qcow2", &[&path("bad.qcow2"), "qcow2", "--format raw"])?;
    assert_eq!(node.volumes()?, [""; 0]);
    node.sterna(["volume", "import", "large", &path("large.raw")]).succeed()?;
    node.refuses(["volume", "import", "large", &path("large.raw")], 1, &["'large'", "another name"])?;
    node.refuses(["volume", "import", "x.importing", &path("large.raw")], 2, &["'x.importing'"])?;
    assert_eq!(node.volumes()?, ["large"]);
    Ok(())
}

#[test]
fn images_of_other_formats_come_in_through_qemu_img() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let path = |name: &str| text(&directory.path().join(name));
    let node = Node::start(directory.path())?;
    image(&directory.path().join("raw"), 64 * MIB)?;
    for format in ["qcow2", "vmdk", "vhdx", "vdi"] {
        Tool::new("qemu-img").args(["convert", "-f", "raw", "-O", format, &path("raw"), &path(format)]).succeed()?;
        let imported = node.value(["volume", "import", format, &path(format), "--attach", "auto"])?;
        assert_eq!(imported["volume"]["attach"], json!("auto"), "{imported}");
        let compared = ["compare", "-f", "raw", "-F", "raw", &path("raw"), &node.uri(format)];
        Tool::new("qemu-img").args(compared).succeed()?;
    }
    assert_eq!(node.volumes()?, ["qcow2", "vdi", "vhdx", "vmdk"]);
    node.sterna(["volume", "import", "as-it-is", &path("qcow2"), "--format", "raw"]).succeed()?;
    let (mut client, size_bytes) = node.disk("as-it-is").attach(Style::Simple)?;
    assert_eq!(client.call(Request::read(0, 4))?.data(), b"QFI\xfb");
    assert_eq!(size_bytes, fs::metadata(path("qcow2"))?.len().next_multiple_of(4096));
    Ok(())
}

#[test]
fn a_missing_qemu_img_is_told() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let path = |name: &str| text(&directory.path().join(name));
    let node = Node::start(directory.path())?;
    Tool::new("qemu-img").args(["create", "-q", "-f", "qcow2", &path("image"), "1M"]).succeed()?;
    let ended = node.sterna(["volume", "import", "disk", &path("image")]).env("PATH", path("")).run()?;
    sterna_tests::node::is_refusal(&ended, 1, &[&path("image"), "qcow2", "qemu-utils"])?;
    assert_eq!(node.volumes()?, [""; 0]);
    Ok(())
}

#[test]
fn an_export_does_not_overwrite_what_it_was_not_told_to() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let path = |name: &str| text(&directory.path().join(name));
    let node = Node::start(directory.path())?;
    node.create("disk", MIB)?;
    fs::write(path("mine"), "mine")?;
    node.refuses(["volume", "export", "disk", &path("mine")], 1, &[&path("mine"), "--overwrite"])?;
    node.refuses(["volume", "export", "disk", &path("no/such/place")], 1, &[&path("no/such/place")])?;
    node.refuses(["volume", "export", "dusk", &path("new")], 1, &["no volume 'dusk'"])?;
    assert!(fs::read(path("mine"))? == b"mine" && !fs::exists(path("new"))?);
    Ok(())
}

#[test]
fn what_an_export_has_left_whose_node_was_killed_is_replaced_by_the_next() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let [from, to] = ["from.raw", "to.raw"].map(|name| directory.path().join(name));
    fs::write(&from, noise(11, 128 * MIB))?;
    let mut node = Node::start(directory.path())?;
    node.sterna(["volume", "import", "disk", &text(&from)]).succeed()?;
    let partial = directory.path().join("to.raw.sterna-partial");
    let export = node.sterna(["volume", "export", "disk", &text(&to)]).spawn()?;
    ensure!(until(Duration::from_secs(30), || Ok(fs::exists(&partial)? || fs::exists(&to)?))?, "it does not begin");
    node.restart()?;
    let ended = export.wait()?;
    ensure!(fs::exists(&partial)? || fs::exists(&to)?, "{ended}");
    // Where it was too quick for that, what it would have left.
    fs::write(&partial, "half of an image")?;
    node.sterna(["volume", "export", "disk", &text(&to), "--overwrite"]).succeed()?;
    assert!(fs::read(&from)? == fs::read(&to)?, "what went out differs");
    ensure!(!fs::exists(&partial)?, "something is left");
    Ok(())
}

#[test]
fn an_import_that_was_told_to_end_leaves_nothing() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("from.raw");
    fs::write(&path, noise(7, 256 * MIB))?;
    let node = Node::start(directory.path())?;
    let import = node.sterna(["volume", "import", "disk", &text(&path)]).spawn()?;
    ensure!(until(Duration::from_secs(30), || Ok(!node.volumes()?.is_empty()))?, "the import does not begin");
    tool::signal(import.id(), Signal::INT)?;
    let ended = import.wait()?;
    if ended.status.success() {
        return Ok(());
    }
    sterna_tests::node::is_refusal(&ended, 1, &["interrupted", "the same command"])?;
    assert_eq!(node.volumes()?, [""; 0]);
    Ok(())
}

/// Interrupts an import of `image` as soon as it is under way, in the way of `interrupt`; whether it came in time.
fn interrupted(node: &mut Node, image: &str, interrupt: impl FnOnce(&mut Node, u32) -> Result<()>) -> Result<bool> {
    let import = node.sterna(["volume", "import", "disk", image]).spawn()?;
    let begun = until(Duration::from_secs(30), || Ok(!node.volumes()?.is_empty()))?;
    ensure!(begun, "the import does not begin");
    interrupt(node, import.id())?;
    let ended = import.wait()?;
    ensure!(ended.status.success() || ended.code()? == 1, "{ended}");
    Ok(!ended.status.success())
}

#[test]
fn an_interrupted_import_is_begun_again_by_the_same_command() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("from.raw");
    fs::write(&path, noise(9, 256 * MIB))?;
    let mut node = Node::start(directory.path())?;
    let ways: [fn(&mut Node, u32) -> Result<()>; 3] = [
        |_, import| tool::signal(import, Signal::INT),
        |_, import| tool::signal(import, Signal::TERM),
        |node, _| node.restart(),
    ];
    for interrupt in ways {
        if !interrupted(&mut node, &text(&path), interrupt)? {
            node.sterna(["volume", "delete", "disk"]).succeed()?;
            continue;
        }
        if let Some(listed) = node.json(["volume", "list"])?.first() {
            assert_eq!(listed["state"], json!("importing"), "{listed}");
            let attached = Tool::new("nbdinfo").args([&node.uri("disk")]).run()?;
            ensure!(!attached.status.success(), "half of an image is served: {attached}");
        }
        // The node may need a moment to notice that nobody waits for the first one any more.
        let import = || Ok(node.sterna(["volume", "import", "disk", &text(&path)]).run()?.status.success());
        ensure!(until(Duration::from_secs(60), import)?, "the import cannot be begun again");
        let compared = ["compare", "-f", "raw", "-F", "raw", &text(&path), &node.uri("disk")];
        Tool::new("qemu-img").args(compared).succeed()?;
        node.sterna(["volume", "delete", "disk"]).succeed()?;
    }
    Ok(())
}

#[test]
fn an_interrupted_conversion_leaves_nothing_and_is_begun_again() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let [raw, qcow] = ["from.raw", "from.qcow2"].map(|name| text(&directory.path().join(name)));
    fs::write(&raw, noise(8, 256 * MIB))?;
    Tool::new("qemu-img").args(["convert", "-f", "raw", "-O", "qcow2", &raw, &qcow]).succeed()?;
    let mut node = Node::start(directory.path())?;
    if interrupted(&mut node, &qcow, |_, import| tool::signal(import, Signal::INT))? {
        assert_eq!(node.volumes()?, [""; 0], "an import that was told to end cleans up");
    } else {
        node.sterna(["volume", "delete", "disk"]).succeed()?;
    }
    // One that was killed cannot, so that the next one does.
    let import = node.sterna(["volume", "import", "disk", &qcow]).spawn()?;
    ensure!(until(Duration::from_secs(30), || Ok(!node.volumes()?.is_empty()))?, "the import does not begin");
    drop(import);
    ensure!(node.volumes()? == ["disk.importing"], "{:?}", node.volumes()?);
    let imported = until(Duration::from_secs(60), || {
        Ok(node.sterna(["volume", "import", "disk", &qcow]).run()?.status.success())
    })?;
    ensure!(imported, "the import cannot be begun again");
    assert_eq!(node.volumes()?, ["disk"]);
    Tool::new("qemu-img").args(["compare", "-f", "raw", "-F", "raw", &raw, &node.uri("disk")]).succeed()?;
    Ok(())
}
