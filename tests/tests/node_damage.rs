//! Data directories that are damaged: what is wrong is named, with its file and with what to do; nothing is changed by a
//! refusal; other volumes are served all the same; and no read invents anything.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use sterna_tests::client::{Request, Style};
use sterna_tests::disk_server::DiskServer;
use sterna_tests::node::{Node, is_refusal};
use sterna_tests::server::sterna;
use sterna_tests::tool::{Ended, Tool};
use sterna_tests::tree::files;

const MIB: u64 = 1 << 20;
const BLOCKS: u8 = 64;

fn run(node: &Node) -> Result<Ended> {
    Tool::new(sterna()).args(["node", "run"]).args([node.data()]).env("STERNA_LOG", "warn").run()
}

/// A node that was killed: its volume `disk` has 64 blocks that were flushed and not sealed, its volume `other` one.
fn with_journals(directory: &Path) -> Result<Node> {
    let mut node = Node::init(directory)?;
    fs::write(node.data().join("sterna.toml"), "[journal]\nseal_age = \"10min\"\n")?;
    node.run()?;
    for (volume, blocks) in [("disk", BLOCKS), ("other", 1)] {
        let (mut client, _) = node.create(volume, MIB)?.attach(Style::Structured)?;
        for block in 0..blocks {
            let write = Request::write(u64::from(block) * 4096, vec![block + 1; 4096]);
            assert_eq!((client.call(write)?.error(), client.call(Request::flush())?.error()), (0, 0));
        }
    }
    node.kill()?;
    Ok(node)
}

/// The only file of the journal of a volume; ids are given out from 1 on.
fn journal(node: &Node, volume: u64) -> Result<PathBuf> {
    let directory = node.data().join(format!("volumes/{volume:016x}/journal"));
    let mut files = fs::read_dir(&directory)?.map(|file| Ok(file?.path())).collect::<Result<Vec<_>>>()?;
    ensure!(files.len() == 1, "{files:?}");
    files.pop().context("a file")
}

/// Whether all of a volume's blocks are what was written.
fn check(node: &Node, volume: &str, blocks: u8) -> Result<()> {
    let (mut client, _) = node.disk(volume).attach(Style::Structured)?;
    for block in 0..blocks {
        let found = client.call(Request::read(u64::from(block) * 4096, 4096))?.data();
        ensure!(found == vec![block + 1; 4096], "block {block} of {volume} is not what was written");
    }
    Ok(())
}

#[test]
fn a_damaged_journal_is_named_and_left_alone_and_others_are_served() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let mut node = with_journals(directory.path())?;
    let path = journal(&node, 1)?;
    let whole = fs::read(&path)?;
    // The first 4 KiB are the header; each record has a block, and 48 bytes.
    let middle = 4096 + 32 * (4096 + 48);
    let mut flipped = whole.clone();
    flipped[middle + 1000] ^= 4;
    let zeroes = vec![0; whole.len()];
    for (what, damaged) in [
        ("a flipped bit", &flipped[..]),
        ("cut between two records", &whole[..middle]),
        ("cut in the header", &whole[..100]),
        ("empty", &[]),
        ("zeroes", &zeroes),
    ] {
        fs::write(&path, damaged)?;
        node.run()?;
        let file = path.strip_prefix(node.data())?.display().to_string();
        let words = ["'disk'", &file, "damaged", "sterna salvage"];
        node.refuses(["volume", "snapshot", "disk", "s"], 1, &words).context(what)?;
        ensure!(node.disk("disk").attach(Style::Structured).is_err(), "{what}: it is served");
        check(&node, "other", 1).context(what)?;
        node.sterna(["volume", "snapshot", "other", what.rsplit(' ').next().unwrap_or_default()]).succeed()?;
        node.terminate()?;
        ensure!(fs::read(&path)? == damaged, "{what}: what was refused was changed");
    }
    fs::write(&path, &whole)?;
    node.run()?;
    check(&node, "disk", BLOCKS)
}

#[test]
fn a_database_without_its_beginning_is_refused_and_left_alone() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let mut node = with_journals(directory.path())?;
    for (part, database) in [("index", "index"), ("metadata", "metadata/db")] {
        let current = node.data().join(database).join("CURRENT");
        let mine = fs::read(&current)?;
        fs::remove_file(&current)?;
        let before = files(&node.data().join(part))?;
        is_refusal(&run(&node)?, 1, &[&node.data().join(part).display().to_string()])?;
        // The databases keep logs of their own.
        let changed =
            |files: BTreeMap<PathBuf, Vec<u8>>| files.into_iter().filter(|(path, _)| !is_log(path)).collect::<Vec<_>>();
        ensure!(changed(files(&node.data().join(part))?) == changed(before), "what was refused changed {part}");
        fs::write(&current, mine)?;
    }
    node.run()?;
    check(&node, "disk", BLOCKS)
}

/// Whether a file tells what a database did, or only locks it.
fn is_log(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with("LOG") || name == "LOCK" || name.starts_with("OPTIONS") || name == "IDENTITY"
}

#[test]
fn a_damaged_table_of_the_index_never_makes_zeroes_of_data() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let mut node = with_journals(directory.path())?;
    node.run()?;
    node.sterna(["volume", "snapshot", "disk", "s"]).succeed()?;
    node.terminate()?;
    // What was in the database's log is in tables behind its next start.
    node.run()?;
    node.terminate()?;
    let tables = files(&node.data().join("index"))?;
    let tables: Vec<_> =
        tables.into_iter().filter(|(path, _)| path.extension().is_some_and(|name| name == "sst")).collect();
    ensure!(!tables.is_empty(), "the index has no tables");
    for (path, whole) in &tables {
        let file = File::options().write(true).open(path)?;
        for at in (0..whole.len()).step_by(whole.len().div_ceil(8)) {
            file.write_all_at(&[whole[at] ^ 0x21], at as u64)?;
        }
    }
    match node.run() {
        // Where it starts, a block is what was written, or an error.
        Ok(()) => {
            if let Ok((mut client, _)) = node.disk("disk").attach(Style::Structured) {
                for block in 0..BLOCKS {
                    let answer = client.call(Request::read(u64::from(block) * 4096, 4096))?;
                    let is_right = answer.error() != 0 || answer.data() == vec![block + 1; 4096];
                    ensure!(is_right, "block {block} is made up");
                }
            }
            node.kill()?;
        }
        Err(refused) => ensure!(refused.to_string().contains("index"), "{refused}"),
    }
    for (path, whole) in &tables {
        fs::write(path, whole)?;
    }
    node.run()?;
    check(&node, "disk", BLOCKS)
}

#[test]
fn what_is_no_format_or_of_a_newer_one_is_refused_and_left_alone() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let mut node = with_journals(directory.path())?;
    let [format, metadata, settings] = ["format", "metadata/FORMAT", "sterna.toml"].map(|name| node.data().join(name));
    let cases: [(&Path, &[u8], &str); 7] = [
        (&format, b"STERNA-NODE 7\n", "version 7"),
        (&format, b"\xff\x00garbage", "format"),
        (&format, b"", "STERNA-NODE"),
        (&metadata, b"sterna-metadata 9\n", "format 9"),
        (&metadata, b"\xff\x00garbage", "FORMAT"),
        (&settings, b"\xff\xfe", "byte 0"),
        (&settings, b"[journal]\nseal_age = \"1w\"\n", "ms, s, min, h or d"),
    ];
    for (path, damaged, word) in cases {
        let mine = fs::read(path)?;
        fs::write(path, damaged)?;
        let before = files(&node.data())?;
        let refused = run(&node)?;
        let named = if path == metadata { node.data().join("metadata") } else { path.to_owned() };
        is_refusal(&refused, 1, &[&named.display().to_string(), word])?;
        ensure!(files(&node.data())? == before, "what was refused was changed: {refused}");
        fs::write(path, mine)?;
    }
    node.run()?;
    check(&node, "disk", BLOCKS)
}
