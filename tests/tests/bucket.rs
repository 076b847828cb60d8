//! Volumes in a bucket, kept by a real S3 server: they are made again from it alone, byte for byte.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use sterna_tests::bucket::{QUICK, S3, SECRET_KEY, until};
use sterna_tests::client::{Request, Style};
use sterna_tests::disk_server::{Disk, DiskServer};
use sterna_tests::node::Node;
use sterna_tests::random::Random;

const SERVER: &str = env!("CARGO_BIN_EXE_s3");
const MIB: u64 = 1 << 20;

/// What is in a MiB of a volume, written by a round.
fn contents(round: u64, mib: u64) -> Vec<u8> {
    let mut random = Random::new(round * 1000 + mib + 1);
    (0..MIB / 8).flat_map(|_| random.bits().to_le_bytes()).collect()
}

fn write(disk: &Disk, round: u64, mibs: impl IntoIterator<Item = u64>) -> Result<()> {
    let (mut client, _) = disk.attach(Style::Structured)?;
    for mib in mibs {
        ensure!(client.call(Request::write(mib * MIB, contents(round, mib)))?.error() == 0, "a write failed");
    }
    ensure!(client.call(Request::flush())?.error() == 0, "a flush failed");
    Ok(())
}

/// Whether every byte of a disk is as it has to be: of each MiB the round that wrote it last, or none.
fn is_as_written(disk: &Disk, size_mib: u64, round: impl Fn(u64) -> Option<u64>) -> Result<()> {
    let (mut client, _) = disk.attach(Style::Structured)?;
    for mib in 0..size_mib {
        let expected = round(mib).map_or_else(|| vec![0; 1 << 20], |round| contents(round, mib));
        for (at, expected) in (0..).step_by(256 << 10).zip(expected.chunks(256 << 10)) {
            let answer = client.call(Request::read(mib * MIB + at, 256 << 10))?;
            ensure!(answer.error() == 0, "a read of MiB {mib} failed");
            ensure!(answer.data() == expected, "MiB {mib} has something else, {at} bytes into it");
        }
    }
    Ok(())
}

fn status(node: &Node) -> Result<Value> {
    node.value(["bucket", "status"])
}

/// Whether all of a volume that has been sealed is in the bucket, and nothing waits to be sealed.
fn is_there(node: &Node, volume: &str) -> Result<bool> {
    let shown = node.value(["volume", "show", volume])?;
    let unsealed = shown["open"]["unsealed_bytes"].as_u64().unwrap_or(0);
    let is_published = shown["open"].is_null() || shown["open"]["root"] == shown["volume"]["root"];
    Ok(unsealed == 0 && is_published && shown["bucket"]["is_current"] == true)
}

fn new_node(s3: &S3, directory: &Path, settings: &str) -> Result<Node> {
    fs::create_dir_all(directory)?;
    let mut node = Node::init(directory)?;
    s3.configure(&node, settings)?;
    node.run()?;
    Ok(node)
}

/// A clone of a snapshot, so that it can be read.
fn opened(node: &Node, snapshot: &str) -> Result<Disk> {
    node.sterna(["volume", "clone", snapshot, "looked-at"]).succeed()?;
    Ok(node.disk("looked-at"))
}

#[test]
fn heavy_a_site_whose_disk_is_wiped_is_rebuilt_from_the_bucket_alone() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let s3 = S3::start(SERVER, directory.path())?;
    let first = directory.path().join("first");
    let mut node = new_node(&s3, &first, QUICK)?;
    let disk = node.create("disk", 64 * MIB)?;
    write(&disk, 1, 0..20)?;
    node.sterna(["volume", "snapshot", "disk", "before"]).succeed()?;
    write(&disk, 2, 10..30)?;
    node.create("blank", 1 << 30)?;
    for volume in ["disk", "blank"] {
        until(&node, "all of it is in the bucket", || is_there(&node, volume))?;
    }
    let told = status(&node)?;
    ensure!(told["volumes_behind"] == 0 && told["failure"].is_null(), "{told}");
    ensure!(told["sent_bytes"].as_u64() >= Some(40 * MIB), "random bytes do not compress: {told}");
    let shown = node.sterna(["cluster", "status"]).succeed()?.stdout;
    ensure!(shown.contains("s3://disks/of/tests") && shown.contains("all volumes of this node are there"), "{shown}");

    node.kill()?;
    fs::remove_dir_all(node.data())?;
    drop(node);

    let node = new_node(&s3, &directory.path().join("second"), QUICK)?;
    ensure!(node.volumes()?.is_empty(), "a fresh node has volumes");
    let listed = node.json(["bucket", "list"])?;
    let names: Vec<_> = listed.iter().filter_map(|record| record["name"].as_str()).collect();
    ensure!(names == ["blank", "disk"] && listed[1]["snapshots"][0] == "before", "{listed:?}");
    let restored = node.value(["bucket", "restore", "disk"])?;
    ensure!(restored["snapshots"][0] == "before" && restored["volume"]["state"] == "ready", "{restored}");
    node.sterna(["bucket", "restore", "blank"]).succeed()?;
    let round = |mib| if (10..30).contains(&mib) { Some(2) } else { (mib < 10).then_some(1) };
    is_as_written(&node.disk("disk"), 64, round)?;
    is_as_written(&opened(&node, "disk@before")?, 64, |mib| (mib < 20).then_some(1))?;
    node.sterna(["volume", "verify", "disk"]).succeed()?;
    node.sterna(["volume", "verify", "disk@before"]).succeed()?;
    ensure!(node.value(["volume", "show", "blank"])?["volume"]["size_bytes"] == 1 << 30, "another size");

    // It goes on like any other: what is written is kept, and of what was there nothing is sent again.
    write(&node.disk("disk"), 3, 40..41)?;
    until(&node, "what was written since is in the bucket", || is_there(&node, "disk"))?;
    let sent = status(&node)?["sent_bytes"].as_u64().context("a number")?;
    ensure!((MIB..8 * MIB).contains(&sent), "{sent} bytes were sent for one MiB that is new");
    node.refuses(["bucket", "restore", "disk"], 1, &["several volumes are called 'disk'", "--from"])?;
    node.refuses(["bucket", "restore", "disc"], 1, &["the bucket has no volume 'disc'", "sterna bucket list"])?;
    let own =
        node.json(["bucket", "list"])?.into_iter().find(|record| record["is_own"] == true && record["name"] == "disk");
    let key = own.context("the restored volume")?["key"].as_str().context("a key")?.to_owned();
    node.refuses(["bucket", "forget", "disk", "--from", &key], 1, &["is a volume of this cluster"])?;
    node.sterna(["bucket", "restore", "disk", "--from", &key, "--as", "again"]).succeed()?;
    let round = |mib| if mib == 40 { Some(3) } else { round(mib) };
    is_as_written(&node.disk("again"), 64, round)
}

#[test]
fn heavy_an_upload_that_is_cut_off_goes_on_and_sends_nothing_twice() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let mut s3 = S3::start(SERVER, directory.path())?;
    // A pack each four seconds.
    let mut node = new_node(&s3, &directory.path().join("node"), "interval = \"1s\"\nrate = \"8Mbit\"\n")?;
    let disk = node.create("disk", 64 * MIB)?;
    write(&disk, 1, 0..24)?;
    until(&node, "some of it is in the bucket", || Ok(s3.objects("packs")?.len() >= 2))?;
    node.kill()?;
    // A record that is there, be it that of the blank volume, has all that it needs.
    if !s3.objects("volumes")?.is_empty() {
        let mut early = new_node(&s3, &directory.path().join("early"), "interval = \"1h\"\n")?;
        early.sterna(["bucket", "restore", "disk", "--as", "early"]).succeed()?;
        early.sterna(["volume", "verify", "early"]).succeed()?;
        early.terminate()?;
    }
    let came: u64 = s3.objects("packs")?.iter().filter_map(|path| fs::metadata(path).ok()).map(|pack| pack.len()).sum();
    ensure!((4 * MIB..20 * MIB).contains(&came), "{came} bytes were there");

    // The server is killed as well, and the node is up before it is.
    s3.kill()?;
    s3.configure(&node, QUICK)?;
    node.run()?;
    until(&node, "the failure shows", || {
        let told = status(&node)?;
        Ok(told["failure"].as_str().is_some_and(|failure| failure.contains("cannot")) && told["volumes_behind"] == 1)
    })?;
    let shown = node.sterna(["cluster", "status"]).succeed()?.stdout;
    ensure!(shown.contains("FAILS"), "{shown}");
    node.terminate()?;
    s3.restart()?;
    s3.configure(&node, QUICK)?;
    node.run()?;
    until(&node, "all of it is in the bucket", || is_there(&node, "disk"))?;
    let sent = status(&node)?["sent_bytes"].as_u64().context("a number")?;
    let all: u64 = s3.objects("packs")?.iter().filter_map(|path| fs::metadata(path).ok()).map(|pack| pack.len()).sum();
    ensure!(sent + came == all && all < 26 * MIB, "{came} bytes were there, {sent} were sent, and {all} are");

    let other = new_node(&s3, &directory.path().join("other"), QUICK)?;
    other.sterna(["bucket", "restore", "disk", "--as", "copy"]).succeed()?;
    is_as_written(&other.disk("copy"), 64, |mib| (mib < 24).then_some(1))
}

#[test]
fn heavy_a_damaged_object_is_noticed_and_never_served_and_what_is_whole_there_mends_a_node() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let s3 = S3::start(SERVER, directory.path())?;
    let mut node = new_node(&s3, &directory.path().join("node"), QUICK)?;
    let disk = node.create("disk", 16 * MIB)?;
    write(&disk, 1, 0..8)?;
    until(&node, "all of it is in the bucket", || is_there(&node, "disk"))?;

    // What is damaged on the node's disk is mended from the bucket: no other node has it.
    node.terminate()?;
    let pack = largest(&node.data().join("packs"))?;
    flip(&pack, 3 * MIB)?;
    node.run()?;
    let scrubbed = node.json(["scrub"])?;
    let damage = scrubbed.iter().find(|line| line["kind"] == "damage").context("a scrub finds it")?;
    ensure!(damage["repaired_from"] == "the bucket", "{scrubbed:?}");
    is_as_written(&node.disk("disk"), 16, |mib| (mib < 8).then_some(1))?;

    // And what is damaged there makes no volume.
    let packs = s3.objects("packs")?;
    let large = packs.iter().max_by_key(|path| fs::metadata(path).map_or(0, |pack| pack.len())).context("a pack")?;
    flip(large, 2 * MIB)?;
    let other = new_node(&s3, &directory.path().join("other"), QUICK)?;
    let name = large.file_name().and_then(|name| name.to_str()).context("a name")?.to_owned();
    other.refuses(["bucket", "restore", "disk"], 1, &["is damaged", &format!("packs/{name}"), "checksum"])?;
    ensure!(other.volumes()?.is_empty(), "something is left of it");
    flip(large, 2 * MIB)?;
    other.sterna(["bucket", "restore", "disk"]).succeed()?;
    is_as_written(&other.disk("disk"), 16, |mib| (mib < 8).then_some(1))?;

    // Of a record likewise.
    let record = s3.objects("volumes")?.into_iter().next().context("a record")?;
    flip(&record, 60)?;
    let third = new_node(&s3, &directory.path().join("third"), "interval = \"1h\"\n")?;
    third.refuses(["bucket", "gc"], 1, &["is damaged", "checksum"])?;
    let listed = third.sterna(["bucket", "list"]).run()?;
    ensure!(listed.code()? == 1 && listed.stderr.contains("its checksum is another one"), "{listed}");
    Ok(())
}

#[test]
fn heavy_what_no_volume_needs_goes_from_the_bucket_after_a_grace_period() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let s3 = S3::start(SERVER, directory.path())?;
    let node = new_node(&s3, &directory.path().join("node"), "interval = \"1s\"\ngrace = \"2s\"\n")?;
    let (disk, other) = (node.create("disk", 16 * MIB)?, node.create("other", 16 * MIB)?);
    write(&disk, 1, 0..8)?;
    until(&node, "all of it is in the bucket", || is_there(&node, "disk"))?;
    write(&other, 2, 0..2)?;
    until(&node, "all of it is in the bucket", || is_there(&node, "other"))?;
    let size = || {
        Ok::<u64, anyhow::Error>(
            s3.objects("packs")?.iter().filter_map(|path| fs::metadata(path).ok()).map(|pack| pack.len()).sum(),
        )
    };
    ensure!(size()? > 9 * MIB, "{} bytes", size()?);
    node.sterna(["volume", "delete", "disk"]).succeed()?;
    let kept = node.value(["bucket", "gc"])?;
    ensure!(
        kept["doomed_packs"] == 0 && kept["missing_chunks"] == 0,
        "what was deleted is kept until it is given up: {kept}"
    );
    node.sterna(["bucket", "forget", "disk"]).succeed()?;
    until(&node, "what only that needed is gone", || {
        let collected = node.value(["bucket", "gc"])?;
        ensure!(collected["missing_chunks"] == 0, "{collected}");
        Ok(size()? < 4 * MIB)
    })?;
    node.refuses(["bucket", "restore", "disk"], 1, &["the bucket has no volume 'disk'"])?;
    node.sterna(["bucket", "restore", "other", "--as", "copy"]).succeed()?;
    is_as_written(&node.disk("copy"), 16, |mib| (mib < 2).then_some(2))
}

#[test]
fn heavy_wrong_credentials_and_a_bucket_that_is_not_there_are_told_and_no_secret_is() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let s3 = S3::start(SERVER, directory.path())?;
    let mut node = Node::init(directory.path())?;
    for (bucket, secret, words) in [
        ("disks", "another-key", "its credentials are refused"),
        ("no-such-disks", SECRET_KEY, "there is no such bucket"),
    ] {
        s3.configure_as(&node, bucket, secret, QUICK)?;
        node.run()?;
        until(&node, "the failure shows", || {
            Ok(status(&node)?["failure"].as_str().is_some_and(|text| text.contains(words)))
        })?;
        node.refuses(["bucket", "list"], 1, &[words])?;
        node.terminate()?;
    }
    s3.configure(&node, QUICK)?;
    node.run()?;
    until(&node, "the bucket answers", || {
        Ok(status(&node)?["failure"].is_null() && !status(&node)?["usage"].is_null())
    })?;
    node.terminate()?;
    let log = node.log();
    ensure!(!log.contains(SECRET_KEY) && !log.contains("another-key"), "a secret is in the log");

    fs::remove_file(node.data().join("bucket.credentials"))?;
    let error = node.run().err().context("it runs without credentials")?.to_string();
    ensure!(error.contains("cannot read the credentials in"), "{error}");
    let bare = directory.path().join("bare");
    fs::create_dir(&bare)?;
    let bare = Node::start(&bare)?;
    bare.refuses(["bucket", "status"], 1, &["this node has no bucket", "[bucket]"])?;
    Ok(())
}

fn largest(directory: &Path) -> Result<PathBuf> {
    let files = fs::read_dir(directory)?.collect::<Result<Vec<_>, _>>()?;
    let found = files.into_iter().max_by_key(|file| file.metadata().map_or(0, |file| file.len()));
    Ok(found.context("a file")?.path())
}

/// Changes a bit of a file.
fn flip(path: &Path, at: u64) -> Result<()> {
    let file = File::options().read(true).write(true).open(path)?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at)?;
    file.write_all_at(&[byte[0] ^ 4], at)?;
    file.sync_all()?;
    Ok(())
}
