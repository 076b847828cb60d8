//! The command on data directories as a node leaves them.

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Parser;
use sterna_storage_node::chunk_store::index::{Index, RocksIndex, VolumeRecords};
use sterna_storage_node::chunk_store::{PackStore, PackStoreOptions};
use sterna_storage_node::chunking::ChunkingParameters;
use sterna_storage_node::disk::{Disk, SystemDisk};
use sterna_storage_node::journal::SaltSource;
use sterna_storage_node::volume::{Storage, StorageOptions, Volume, VolumeSpec};
use sterna_types::{ByteOffset, ByteSize, Epoch, Root, VolumeId, VolumeSize};

use super::{Output, Report, SalvageArgs, Work, run};

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    salvage: SalvageArgs,
}

fn salvage(directory: &Path, rest: &[&str]) -> anyhow::Result<()> {
    run(&arguments(directory, rest)?, false)
}

fn arguments(directory: &Path, rest: &[&str]) -> anyhow::Result<SalvageArgs> {
    let directory = directory.to_string_lossy().into_owned();
    let words = ["salvage", &directory].into_iter().chain(rest.iter().copied());
    Ok(Line::try_parse_from(words)?.salvage)
}

/// A data directory with volume 7: two blocks that are sealed, and one that is not.
fn data_directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let disk: Arc<dyn Disk> = Arc::new(SystemDisk::open(directory.path()).expect("a data directory"));
    let index: Arc<dyn Index> =
        Arc::new(RocksIndex::open(&directory.path().join(super::INDEX), 1 << 20).expect("an index"));
    let store = PackStore::open(Arc::clone(&disk), Arc::clone(&index), PackStoreOptions::default()).expect("a store");
    let (records, salts) = (VolumeRecords::new(index), SaltSource::new([1; 32]));
    let storage = Storage::new(disk, Arc::new(store), records, salts, StorageOptions::default()).expect("a storage");
    let spec = VolumeSpec {
        id: VolumeId(7),
        size: VolumeSize::try_from(ByteSize(1 << 20)).expect("a size"),
        epoch: Epoch::FIRST,
        root: Root::EMPTY,
        generation: 0,
        written_blocks: 0,
        chunking: ChunkingParameters::default(),
        reclaimed: None,
    };
    let volume = Volume::open(&storage, &spec).expect("a volume");
    volume.write(ByteOffset(0), &[1; 8192]).expect("a write");
    volume.seal().expect("a seal");
    volume.write(ByteOffset(65_536), &[2; 4096]).expect("a write");
    directory
}

#[test]
fn a_volume_is_listed_and_written_with_what_was_not_sealed() {
    let (directory, to) = (data_directory(), tempfile::tempdir().expect("a temporary directory"));
    salvage(directory.path(), &[]).expect("a list of what is whole");
    salvage(directory.path(), &["--list", "--check"]).expect("a list of what is whole");
    let file = to.path().join("disk.raw");
    let words = ["--volume", "7", "--to", &file.to_string_lossy()];
    salvage(directory.path(), &words).expect("an image");
    let image = std::fs::read(&file).expect("an image");
    assert_eq!(image.len(), 1 << 20);
    assert!(image[..8192] == [1; 8192] && image[65_536..69_632] == [2; 4096]);
    assert_eq!(image.iter().filter(|byte| **byte != 0).count(), 3 * 4096);
    let twice = salvage(directory.path(), &words).expect_err("a file that is there already");
    assert!(format!("{twice:#}").contains("not there yet"), "{twice:#}");
    salvage(directory.path(), &["--all", "--to-dir", &to.path().join("all").to_string_lossy()]).expect("images");
    assert!(std::fs::read(to.path().join("all/7.raw")).expect("an image") == image);
    let sealed = to.path().join("sealed.raw");
    salvage(directory.path(), &["--volume", "7", "--generation", "1", "--to", &sealed.to_string_lossy()])
        .expect("an image");
    assert_eq!(std::fs::read(&sealed).expect("an image").iter().filter(|byte| **byte != 0).count(), 8192);
}

#[test]
fn a_loss_is_an_error_and_the_rest_is_written() {
    let (directory, to) = (data_directory(), tempfile::tempdir().expect("a temporary directory"));
    let pack = std::fs::read_dir(directory.path().join("packs")).expect("packs").next().expect("a pack");
    let pack = std::fs::OpenOptions::new().write(true).open(pack.expect("a pack").path()).expect("a pack");
    // Behind the headers of the pack and of its only batch.
    pack.write_all_at(b"damage", 8192).expect("a write");
    salvage(directory.path(), &["--list"]).expect("where data is looked for, there is some");
    let lost = salvage(directory.path(), &["--list", "--check"]).expect_err("a loss");
    assert!(lost.to_string().contains("lost"), "{lost:#}");
    let file = to.path().join("disk.raw");
    salvage(directory.path(), &["--volume", "7", "--to", &file.to_string_lossy()]).expect_err("a loss");
    assert_eq!(std::fs::read(&file).expect("an image").iter().filter(|byte| **byte == 2).count(), 4096);
}

#[test]
fn what_is_interrupted_says_what_is_missing_and_leaves_nothing_of_it() {
    let (directory, to) = (data_directory(), tempfile::tempdir().expect("a temporary directory"));
    let to_dir = to.path().join("all");
    let args = arguments(directory.path(), &["--all", "--to-dir", &to_dir.to_string_lossy()]).expect("arguments");
    let stop = AtomicBool::new(true);
    let mut work = Work { args: &args, stop: &stop, report: Report::new(Output::new(false)) };
    let told = |error: anyhow::Error| format!("{error:#}");
    let before = work.run().expect_err("nothing was read");
    assert!(told(before).contains("interrupted: nothing was written"));
    stop.store(false, Ordering::Relaxed);
    let found = work.open().expect("what is there");
    stop.store(true, Ordering::Relaxed);
    let listing = work.list(&found).expect_err("nothing was examined");
    assert!(told(listing).contains("interrupted: '7' and what follows"));
    let writing = told(work.all(&found, &to_dir).expect_err("nothing was written"));
    assert!(
        writing.contains("interrupted") && writing.contains("7.raw was not written, nor what follows"),
        "{writing}"
    );
    assert_eq!(std::fs::read_dir(&to_dir).expect("a directory").count(), 0);
    stop.store(false, Ordering::Relaxed);
    assert!(!work.all(&found, &to_dir).expect("an image"));
    assert_eq!(std::fs::read_dir(&to_dir).expect("a directory").count(), 1);
}

#[test]
fn what_cannot_be_done_is_refused_and_changes_nothing() {
    let directory = data_directory();
    let unknown = salvage(directory.path(), &["--volume", "8", "--to", "/nowhere/x"]).expect_err("no such volume");
    assert!(unknown.to_string().contains("no volume '8'"), "{unknown:#}");
    let inside = directory.path().join("packs/disk.raw");
    let inside = salvage(directory.path(), &["--volume", "7", "--to", &inside.to_string_lossy()]);
    assert!(inside.expect_err("a file in the data directory").to_string().contains("nothing is altered"));
    let all_inside = directory.path().join("all").to_string_lossy().into_owned();
    salvage(directory.path(), &["--all", "--to-dir", &all_inside]).expect_err("images in the data directory");
    assert!(!directory.path().join("all").exists());
    salvage(directory.path(), &["--volume", "7"]).expect_err("nowhere to write to");
    salvage(directory.path(), &["--all", "--list"]).expect_err("two things at once");
    let running = SystemDisk::open(directory.path()).expect("a data directory");
    let in_use = salvage(directory.path(), &[]).expect_err("a node that runs");
    assert!(in_use.to_string().contains("in use"), "{in_use:#}");
    drop(running);
    salvage(&directory.path().join("none"), &[]).expect_err("no directory");
}
