//! What a simulated disk keeps, loses and refuses.

use proptest::prelude::{any, prop_assert, proptest};

use super::*;
use crate::disk::conformance;

fn written(disk: &SimulatedDisk, path: &str, durable: &[u8], later: &[(u64, &[u8])]) -> Arc<dyn DiskFile> {
    let file = disk.create(path).expect("a file");
    disk.sync_dir("").and_then(|()| file.write_at(0, &[durable])).and_then(|()| file.sync()).expect("durable bytes");
    for (at, bytes) in later {
        file.write_at(*at, &[bytes]).expect("bytes in the cache");
    }
    file
}

fn all_of(disk: &SimulatedDisk, path: &str) -> Vec<u8> {
    let file = disk.open(path).expect("a file");
    let mut bytes = vec![0; usize::try_from(file.size().expect("a size")).expect("a short file")];
    file.read_at(0, &mut bytes).expect("its bytes");
    bytes
}

#[test]
fn a_simulated_disk_keeps_the_contract() {
    conformance::run(&SimulatedDisk::new());
}

#[test]
fn what_was_synced_is_in_every_image_and_a_kill_loses_nothing() {
    let disk = SimulatedDisk::new();
    let _file = written(&disk, "file", &[1; 1500], &[(0, &[2; 100]), (512, &[3; 512]), (4000, &[4; 1000])]);
    let now = all_of(&disk, "file");
    assert_eq!(all_of(&disk.after_kill(), "file"), now);
    assert_eq!(all_of(&disk.crash_image(0, CrashMode::Lose), "file"), [1; 1500]);
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..200 {
        let left = all_of(&disk.crash_image(seed, CrashMode::Scramble), "file");
        assert!(left[..100] == [1; 100] || left[..100] == [2; 100], "a sector was torn");
        assert!(left[512..1024] == [1; 512] || left[512..1024] == [3; 512], "a sector was torn");
        assert_eq!(left[1024..1500], [1; 476]);
        assert_eq!(left, all_of(&disk.crash_image(seed, CrashMode::Scramble), "file"));
        seen.insert((left[0], left[512], left.len(), left.get(4200).copied()));
    }
    assert!(seen.len() >= 8, "scrambled images differ in too little: {seen:?}");
    assert_eq!(all_of(&disk.after_kill().crash_image(0, CrashMode::Lose), "file"), [1; 1500]);
}

#[test]
fn images_in_order_have_a_prefix_and_one_torn_write() {
    let disk = SimulatedDisk::new();
    let writes: Vec<(u64, Vec<u8>)> = (1..=8u8).map(|n| (u64::from(n - 1) * 2048, vec![n; 2048])).collect();
    let later: Vec<(u64, &[u8])> = writes.iter().map(|(at, bytes)| (*at, &bytes[..])).collect();
    let _file = written(&disk, "file", &[], &later);
    let mut torn = 0;
    for seed in 0..100 {
        let left = all_of(&disk.crash_image(seed, CrashMode::InOrder), "file");
        let whole =
            (0..8).take_while(|n| left.get(n * 2048..(n + 1) * 2048).is_some_and(|p| p == writes[*n].1)).count();
        assert!(left.len() <= (whole + 1) * 2048, "more than one write behind the first that is not whole");
        torn += usize::from(left.len() > whole * 2048);
    }
    assert!(torn > 10, "{torn} of 100 images had a torn write");
}

#[test]
fn names_are_durable_once_their_directory_is_synced() {
    let disk = SimulatedDisk::new();
    disk.create_dir("d").expect("a directory");
    disk.create("d/a").expect("a file");
    disk.sync_dir("d").expect("a sync");
    disk.rename("d/a", "d/b").and_then(|()| disk.create("d/c").map(drop)).expect("changed names");
    assert_eq!(disk.crash_image(0, CrashMode::Lose).list("d").expect("names"), ["a"]);
    assert_eq!(disk.after_kill().list("d").expect("names"), ["b", "c"]);
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..50 {
        let left = disk.crash_image(seed, CrashMode::Scramble).list("d").expect("names");
        assert!(left.contains(&"a".to_owned()) != left.contains(&"b".to_owned()), "a rename was torn: {left:?}");
        seen.insert(left);
    }
    assert_eq!(seen.len(), 4, "{seen:?}");
    disk.sync_dir("d").expect("a sync");
    assert_eq!(disk.crash_image(0, CrashMode::Lose).list("d").expect("names"), ["b", "c"]);
}

#[test]
fn a_machine_stops_at_the_operation_it_was_told_to() {
    let disk = SimulatedDisk::new();
    let file = written(&disk, "file", b"old", &[]);
    disk.crash_after(1);
    file.write_at(0, &[b"new"]).expect("the last operation");
    assert!(!disk.has_crashed());
    assert!(file.sync().is_err() && disk.has_crashed());
    assert!(file.read_at(0, &mut [0; 3]).is_err() && disk.create("other").is_err() && disk.list("").is_err());
    assert_eq!(disk.log().last(), Some(&Operation::Sync("file".to_owned())));
    assert_eq!(disk.operations(), 6, "those that were begun");
    assert_eq!(all_of(&disk.crash_image(0, CrashMode::Lose), "file"), b"old");
    assert_eq!(all_of(&disk.after_kill(), "file"), b"new");
}

#[test]
fn a_sync_after_a_failed_one_proves_nothing() {
    let disk = SimulatedDisk::new();
    let writes: Vec<u8> = vec![9; 64 * 512];
    let file = written(&disk, "file", &[1; 64 * 512], &[(0, &writes)]);
    disk.fail_next_sync();
    assert!(file.sync().is_err());
    file.sync().expect("a sync of nothing");
    let left = all_of(&disk.crash_image(0, CrashMode::Lose), "file");
    assert!(left.contains(&1) && left.contains(&9), "all or none of it was durable");
    assert_eq!(all_of(&disk, "file"), writes, "and yet it is read");
}

#[test]
fn a_durable_write_is_durable_by_itself() {
    let disk = SimulatedDisk::new();
    let file = written(&disk, "file", &[1; 8192], &[(0, &[2; 512]), (4096, &[3; 512])]);
    file.write_durably_at(256, &[&[4; 512]]).expect("a durable write");
    let left = all_of(&disk.crash_image(0, CrashMode::Lose), "file");
    assert!(left[256..768] == [4; 512] && left[768..] == [1; 8192 - 768], "another write has become durable");
    assert_eq!(all_of(&disk, "file")[4096..4608], [3; 512]);
    disk.fail_next_sync();
    assert!(file.write_durably_at(0, &[&[5; 512]]).is_err());
}

#[test]
fn faults_come_once_and_change_little() {
    let disk = SimulatedDisk::new();
    let file = written(&disk, "file", b"oldold", &[]);
    disk.fail_operation(2);
    file.write_at(0, &[b"x"]).expect("the first operation");
    assert!(disk.create("other").is_err());
    disk.create("other").expect("the third operation");
    disk.fail_operation(1);
    assert!(file.write_at(0, &[b"abc", b"def"]).is_err());
    assert_eq!(all_of(&disk, "file"), b"abcold");
    disk.fail_next_read();
    assert!(file.read_at(0, &mut [0; 1]).is_err() && file.read_at(0, &mut [0; 1]).is_ok());
}

#[test]
fn a_full_disk_refuses_until_something_is_removed() {
    let disk = SimulatedDisk::new();
    disk.limit(Some(3 * 4096));
    let file = written(&disk, "file", &[1; 4096], &[]);
    let full = |result: io::Result<()>| assert_eq!(result.expect_err("no space").kind(), io::ErrorKind::StorageFull);
    full(file.allocate(4 * 4096));
    full(file.write_at(4096, &[&[2; 3 * 4096]]));
    assert_eq!((file.size().expect("a size"), disk.available_bytes().expect("space")), (3 * 4096, 0));
    file.write_at(0, &[&[3; 4096]]).expect("bytes in space that is taken");
    disk.remove("file").expect("a removed file");
    assert_eq!(disk.available_bytes().expect("space"), 0, "it is open");
    drop(file);
    assert_eq!(disk.available_bytes().expect("space"), 3 * 4096);
}

proptest! {
    #[test]
    fn contents_are_a_vector(writes in proptest::collection::vec((0u64..20_000, 0usize..9000, any::<u8>(), 0u64..25_000), 0..20)) {
        let (mut contents, mut model) = (contents::Contents::default(), Vec::new());
        for (at, length, byte, cut) in writes {
            let start = usize::try_from(at)?;
            model.resize(model.len().max(start + length), 0);
            model[start..start + length].fill(byte);
            contents.write(at, &vec![byte; length]);
            if cut > 15_000 {
                model.resize(usize::try_from(cut)?, 0);
                contents.resize(cut);
            }
            let mut read = vec![0; model.len()];
            prop_assert!(contents.read(0, &mut read) && read == model);
            prop_assert!(!contents.read(1, &mut read));
        }
    }
}
