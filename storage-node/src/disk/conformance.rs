//! What every [`Disk`] does, whatever it is made of.

use std::io::ErrorKind;

use super::{Disk, DiskFile};

/// Runs the suite on an empty disk.
///
/// # Panics
/// Where the disk breaks its contract.
pub(super) fn run(disk: &dyn Disk) {
    directories_are_made_with_their_parents(disk);
    files_are_made_opened_and_removed(disk);
    bytes_are_read_as_written(disk);
    a_rename_replaces(disk);
    an_open_file_outlives_its_name(disk);
    space_is_allocated_as_zeroes(disk);
    paths_stay_in_the_directory(disk);
    assert!(disk.available_bytes().expect("an account of space") > 0);
}

fn directories_are_made_with_their_parents(disk: &dyn Disk) {
    disk.create_dir("a/b/c").expect("directories");
    disk.create_dir("a/b").expect("one that is there");
    disk.create_dir("").expect("the data directory");
    assert_eq!(disk.list("a").expect("names"), ["b"]);
    assert_eq!(disk.list("a/b/c").expect("names"), Vec::<String>::new());
    assert_eq!(disk.list("none/at/all").expect("names"), Vec::<String>::new());
    assert!(disk.remove("a/b").is_err(), "a directory that is not empty was removed");
    disk.remove("a/b/c").expect("an empty directory");
    assert_eq!(disk.list("a/b").expect("names"), Vec::<String>::new());
    assert!(disk.sync_dir("none").is_err());
    disk.sync_dir("a/b").and_then(|()| disk.sync_dir("")).expect("synced directories");
}

fn files_are_made_opened_and_removed(disk: &dyn Disk) {
    let failed = |result: std::io::Result<std::sync::Arc<dyn super::DiskFile>>| result.expect_err("a refusal").kind();
    assert_eq!(failed(disk.open("file")), ErrorKind::NotFound);
    assert_eq!(failed(disk.create("none/file")), ErrorKind::NotFound);
    disk.create("file").and_then(|file| file.write_at(0, &[b"kept"])).expect("a file");
    assert_eq!(failed(disk.create("file")), ErrorKind::AlreadyExists);
    assert_eq!(disk.open("file").and_then(|file| file.size()).expect("a size"), 4);
    disk.create("a/second").expect("a file in a directory");
    assert!(disk.list("").expect("names").contains(&"file".to_owned()));
    disk.remove("file").and_then(|()| disk.remove("a/second")).expect("removed files");
    assert_eq!(failed(disk.open("file")), ErrorKind::NotFound);
    assert_eq!(disk.remove("file").expect_err("a refusal").kind(), ErrorKind::NotFound);
}

fn bytes_are_read_as_written(disk: &dyn Disk) {
    let file = disk.create("bytes").expect("a file");
    file.write_at(10_000, &[b"one", b"", b"two"]).expect("a gathered write");
    assert_eq!(file.size().expect("a size"), 10_006);
    let many: Vec<[u8; 3]> = (0..3000u16).map(|i| [7, i.to_le_bytes()[0], i.to_le_bytes()[1]]).collect();
    let parts: Vec<&[u8]> = many.iter().map(|part| &part[..]).collect();
    file.write_at(100, &parts).expect("a write of very many parts");
    file.sync().expect("a sync");
    let mut bytes = vec![1; 10_006];
    disk.open("bytes").and_then(|file| file.read_at(0, &mut bytes)).expect("all of it");
    assert!(bytes[..100].iter().all(|&byte| byte == 0));
    assert_eq!(bytes[100..9100], many.concat());
    assert!(bytes[9100..10_000].iter().all(|&byte| byte == 0));
    assert_eq!(&bytes[10_000..], b"onetwo");
    assert_eq!(file.read_at(10_000, &mut [0; 7]).expect_err("the end").kind(), ErrorKind::UnexpectedEof);
    let mut now = [0; 6];
    assert!(!file.read_at_now(10_001, &mut [0; 6]), "bytes beyond the end");
    assert!(!file.read_at_now(10_000, &mut now) || &now == b"onetwo");
    let (mut one, mut two) = ([0; 3], [0; 3]);
    file.read_parts_at(10_000, &mut [&mut one, &mut [], &mut two]).expect("its bytes in parts");
    assert_eq!((&one, &two), (b"one", b"two"));
    assert!(!file.read_parts_at_now(10_000, &mut [&mut one, &mut two]) || (&one, &two) == (b"one", b"two"));
    let beyond = file.read_parts_at(10_000, &mut [&mut one, &mut [0; 4]]);
    assert_eq!(beyond.expect_err("the end").kind(), ErrorKind::UnexpectedEof);
    assert!(!file.read_parts_at_now(10_000, &mut [&mut one, &mut [0; 4]]), "bytes beyond the end");
    let mut many = vec![[0; 1]; 3000];
    let mut parts: Vec<&mut [u8]> = many.iter_mut().map(|byte| &mut byte[..]).collect();
    file.read_parts_at(7_006, &mut parts).expect("more parts than one system call takes");
    assert_eq!(many.concat(), bytes[7_006..]);
    file.write_unkept_at(9_990, &[b"be", b"", b"fore"]).expect("bytes that are not kept in memory");
    let mut before = [0; 6];
    file.read_at(9_990, &mut before).expect("they are there all the same");
    assert_eq!(&before, b"before");
    an_aligned_write_is_there(&*file);
    file.write_at(10_003, &[b"TWO"]).and_then(|()| file.read_at(10_000, &mut now)).expect("bytes written over");
    assert_eq!(&now, b"oneTWO");
    disk.remove("bytes").expect("a removed file");
}

/// What a system may write in another way: whole blocks, in parts that are none, and more of it than one call takes.
fn an_aligned_write_is_there(file: &dyn DiskFile) {
    let bytes: Vec<u8> = (0..5 << 20).map(|at: u32| u8::try_from(at % 251).expect("less than 251")).collect();
    let (first, rest) = bytes.split_at(1234);
    let (size, mut before) = (file.size().expect("a size"), [0; 2]);
    file.write_unkept_at(1 << 20, &[first, b"", rest]).expect("whole blocks");
    assert_eq!(file.size().expect("a size"), 6 << 20);
    let mut read = vec![0; bytes.len()];
    file.read_at(1 << 20, &mut read).expect("they are there");
    assert!(read == bytes, "whole blocks are read as they were written");
    file.write_unkept_at(1 << 20, &[&bytes[4096..8192]]).expect("one of them again");
    file.read_at(1 << 20, &mut read[..4096]).expect("it is there");
    assert!(read[..4096] == bytes[4096..8192], "what was read before is not read again");
    file.read_at(size - 2, &mut before).and_then(|()| file.sync()).expect("what was there before");
    assert_eq!(&before, b"wo");
}

fn a_rename_replaces(disk: &dyn Disk) {
    disk.create("new").and_then(|file| file.write_at(0, &[b"new"])).expect("a file");
    disk.create("a/old").and_then(|file| file.write_at(0, &[b"older"])).expect("a file");
    disk.rename("new", "a/old").expect("a rename");
    assert_eq!(disk.open("a/old").and_then(|file| file.size()).expect("a size"), 3);
    assert!(!disk.list("").expect("names").contains(&"new".to_owned()));
    assert_eq!(disk.rename("new", "a/old").expect_err("a refusal").kind(), ErrorKind::NotFound);
    disk.remove("a/old").expect("a removed file");
}

fn an_open_file_outlives_its_name(disk: &dyn Disk) {
    let file = disk.create("gone").expect("a file");
    file.write_at(0, &[b"still here"]).and_then(|()| disk.remove("gone")).expect("a removed file");
    disk.sync_dir("").expect("a synced directory");
    let mut bytes = [0; 10];
    file.read_at(0, &mut bytes).expect("bytes of a removed file");
    assert_eq!(&bytes, b"still here");
}

fn space_is_allocated_as_zeroes(disk: &dyn Disk) {
    let file = disk.create("space").expect("a file");
    file.write_at(0, &[b"front"]).and_then(|()| file.allocate(20_000)).expect("space");
    assert_eq!(file.size().expect("a size"), 20_000);
    file.allocate(10).expect("nothing to do");
    let mut bytes = vec![1; 20_000];
    file.read_at(0, &mut bytes).expect("all of it");
    assert!(bytes.starts_with(b"front") && bytes[5..].iter().all(|&byte| byte == 0));
    disk.remove("space").expect("a removed file");
}

fn paths_stay_in_the_directory(disk: &dyn Disk) {
    for path in ["..", "a/../b", "/etc", "a//b", "a/", "."] {
        assert_eq!(disk.create(path).expect_err("a refusal").kind(), ErrorKind::InvalidInput, "{path}");
        assert_eq!(disk.list(path).expect_err("a refusal").kind(), ErrorKind::InvalidInput, "{path}");
    }
    assert_eq!(disk.remove("").expect_err("a refusal").kind(), ErrorKind::InvalidInput);
}
