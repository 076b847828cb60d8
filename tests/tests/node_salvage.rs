//! `sterna salvage` as its users see it: how far it has come, what an interrupted one leaves, and readers that go away.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use sterna_tests::node::{Node, is_refusal};
use sterna_tests::random::Random;
use sterna_tests::server::sterna;
use sterna_tests::tool::{self, Tool, until};

/// The data directory of a node that has ended, with one volume of this many bytes of noise.
fn data_directory(directory: &Path, bytes: u64) -> Result<String> {
    let mut node = Node::start(directory)?;
    let (image, mut random) = (directory.join("from.raw"), Random::new(4));
    fs::write(&image, (0..bytes / 8).flat_map(|_| random.bits().to_le_bytes()).collect::<Vec<u8>>())?;
    node.sterna(["volume", "import", "disk"]).args([&image]).succeed()?;
    node.terminate()?;
    Ok(node.data().to_str().context("a path of letters")?.to_owned())
}

#[test]
fn a_salvage_shows_people_how_far_it_has_come() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let data = data_directory(directory.path(), 32 << 20)?;
    let to = directory.path().join("disk.raw");
    let salvage = format!("'{}' salvage '{data}' --volume disk --to '{}'", sterna().display(), to.display());
    let shown = Tool::new("script").args(["-qec", &salvage, "/dev/null"]).succeed()?;
    ensure!(shown.stdout.contains("writing disk ") && shown.stdout.contains(" MiB"), "no bar: {shown}");
    ensure!(fs::read(&to)? == fs::read(directory.path().join("from.raw"))?, "the image is another one");
    Ok(())
}

#[test]
fn an_interrupted_salvage_leaves_no_half_of_an_image() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let data = data_directory(directory.path(), 256 << 20)?;
    let out = directory.path().join("out");
    fs::create_dir(&out)?;
    let to = out.join("disk.raw");
    for signal in [Signal::INT, Signal::TERM] {
        let salvage = Tool::new(sterna()).args(["salvage", &data, "--volume", "disk", "--to"]).args([&to]).spawn()?;
        let begun = until(Duration::from_secs(30), || Ok(fs::read_dir(&out)?.next().is_some()))?;
        ensure!(begun, "the image is not begun");
        tool::signal(salvage.id(), signal)?;
        let ended = salvage.wait()?;
        let is_there = to.try_exists()?;
        if ended.status.success() {
            ensure!(is_there, "{ended}");
            fs::remove_file(&to)?;
        } else {
            is_refusal(&ended, 1, &["interrupted", "disk.raw was not written", "the same command"])?;
        }
        assert_eq!(fs::read_dir(&out)?.count(), 0, "of an image that is not complete nothing is left");
    }
    Ok(())
}

#[test]
fn a_reader_that_has_read_enough_is_no_failure_and_a_full_one_is_told() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let data = data_directory(directory.path(), 1 << 20)?;
    let salvage = format!("'{}' salvage '{data}'", sterna().display());
    let piped = Tool::new("sh").args(["-c", &format!("{{ {salvage}; echo \"code $?\" >&2; }} | :")]).succeed()?;
    ensure!(piped.stderr.contains("code 0") && !piped.stderr.contains("panicked"), "{piped}");
    let full = Tool::new("sh").args(["-c", &format!("{salvage} > /dev/full")]).run()?;
    is_refusal(&full, 1, &["standard output"])
}
