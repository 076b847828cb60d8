//! What is kept of a volume is told by its epoch, whatever interrupts that: forgetting it, and reclaiming it.

use std::sync::Arc;

use sterna_types::{BLOCK_SIZE, ByteOffset, Epoch, Root, VolumeId};

use super::error::VolumeError;
use super::record::VolumeRecord;
use super::tests::{Machine, contents, spec};
use super::{Volume, VolumeSpec};
use crate::chunking::ChunkingParameters;
use crate::disk::simulated::CrashMode;

const ID: VolumeId = VolumeId(1);

fn epoch(number: u64) -> Epoch {
    Epoch::from_number(number).expect("an epoch")
}

fn open(machine: &Machine, number: u64) -> Result<Arc<Volume>, VolumeError> {
    Volume::open(&machine.storage, &VolumeSpec { epoch: epoch(number), ..spec(1, 1 << 20, Root::EMPTY) })
}

fn kept(machine: &Machine) -> Option<VolumeRecord> {
    machine.storage.kept(ID).expect("an answer")
}

fn write(volume: &Volume, block: u64, byte: u8) {
    volume.write(ByteOffset(block * BLOCK_SIZE), &[byte; 4096]).expect("a write");
}

/// That the volume does not open in epoch `asked`, since what is here is of epoch `found`; and that nothing is changed by it.
fn assert_refused(machine: &Machine, asked: u64, found: u64) {
    let before = (machine.disk.operations(), kept(machine));
    let error = open(machine, asked).expect_err("what is here is of another epoch");
    let VolumeError::OtherEpoch { volume: ID, kept: of, asked: by } = error else { panic!("{error}") };
    assert_eq!((of, by), (epoch(found), epoch(asked)));
    assert_eq!((machine.disk.operations(), kept(machine)), before);
}

#[test]
fn of_a_volume_that_nobody_wrote_nothing_is_kept() {
    let machine = Machine::new();
    assert_eq!(kept(&machine), None);
    open(&machine, 1).expect("a volume").close();
    assert_eq!(kept(&machine), None, "an empty journal is none");
    let machine = machine.killed();
    open(&machine, 2).expect("another epoch");
}

#[test]
fn a_journal_says_what_it_stands_on_until_there_is_a_record() {
    let machine = Machine::new();
    let base = VolumeSpec { generation: 5, written_blocks: 100, ..spec(1, 1 << 20, Root::EMPTY) };
    let volume = Volume::open(&machine.storage, &base).expect("a volume");
    write(&volume, 3, 3);
    let stood_on = kept(&machine).expect("a journal");
    assert_eq!((stood_on.generation, stood_on.written_blocks, stood_on.epoch), (5, 100, Epoch::FIRST));
    assert_eq!((stood_on.root, stood_on.checkpoint), (Root::EMPTY, None));
    assert_eq!((volume.seal().expect("a seal").written_blocks, volume.status().written_blocks), (101, 101));
    write(&volume, 3, 4);
    assert_eq!(volume.sealed().written_blocks, 101, "it is not sealed");
    let record = kept(&machine).expect("a record");
    assert_eq!((record.generation, record.written_blocks), (6, 101));
    let machine = machine.killed();
    assert_eq!(kept(&machine), Some(record));
    let volume = Volume::open(&machine.storage, &base).expect("a volume");
    assert_eq!(volume.seal().expect("a seal").written_blocks, 102);
}

#[test]
fn what_another_epoch_has_left_is_kept_as_a_branch_before_the_volume_opens() {
    for is_sealed in [false, true] {
        let machine = Machine::new();
        let volume = open(&machine, 1).expect("a volume");
        write(&volume, 1, 1);
        if is_sealed {
            volume.seal().expect("a seal");
        }
        write(&volume, 2, 2);
        assert_refused(&machine, 2, 1);
        let machine = machine.killed();
        assert_refused(&machine, 2, 1);

        let left = kept(&machine).expect("something");
        let branch = VolumeSpec::of_kept(&left, ID, ChunkingParameters::default()).expect("a size");
        let volume = Volume::open(&machine.storage, &branch).expect("the branch");
        let sealed = volume.seal().expect("a seal");
        assert_eq!((volume.epoch(), sealed.written_blocks), (epoch(1), 2));
        volume.close();
        assert_refused(&machine, 2, 1);
        machine.storage.remove_volume(ID).expect("it is forgotten");
        assert_eq!(kept(&machine), None);

        let volume = open(&machine, 2).expect("the volume");
        assert_eq!(contents(&volume, 0, 4 * 4096), [0; 4 * 4096], "nothing of the branch is in it");
        write(&volume, 1, 7);
        assert_refused(&machine, 1, 2);
        let machine = machine.killed();
        assert_refused(&machine, 1, 2);
        assert_eq!(contents(&open(&machine, 2).expect("the volume"), 4096, 4096), [7; 4096]);
        let clone = machine.volume(9, 1 << 20, sealed.root);
        assert_eq!(contents(&clone, 4096, 2 * 4096), [[1; 4096], [2; 4096]].concat());
    }
}

#[test]
fn what_is_reclaimed_goes_on_as_it_was_left_whenever_power_is_lost() {
    for is_sealed in [false, true] {
        for cut in 0.. {
            let machine = Machine::new();
            let volume = open(&machine, 1).expect("a volume");
            write(&volume, 1, 1);
            if is_sealed {
                volume.seal().expect("a seal");
            }
            write(&volume, 2, 2);
            volume.flush().expect("a flush");
            volume.release().expect("it is released");
            volume.close();
            let spec =
                |left| VolumeSpec { epoch: epoch(3), reclaimed: Some(epoch(left)), ..spec(1, 1 << 20, Root::EMPTY) };
            let of_another = Volume::open(&machine.storage, &spec(2));
            assert!(matches!(of_another, Err(VolumeError::OtherEpoch { .. })), "{of_another:?}");

            machine.disk.crash_after(cut);
            let is_open = Volume::open(&machine.storage, &spec(1)).is_ok();
            let found = machine.without_power(cut, CrashMode::ALL[0]);
            let left = kept(&found).expect("it is here").epoch;
            assert!(left == epoch(3) || left == epoch(1) && !is_open, "it is of {left}");
            let volume = Volume::open(&found.storage, &spec(1)).expect("the volume");
            assert_eq!(contents(&volume, 4096, 2 * 4096), [[1; 4096], [2; 4096]].concat());
            write(&volume, 1, 7);
            volume.flush().expect("a flush");
            let again = found.killed();
            assert_refused(&again, 1, 3);
            let volume = Volume::open(&again.storage, &spec(1)).expect("the same again");
            assert_eq!(contents(&volume, 4096, 2 * 4096), [[7; 4096], [2; 4096]].concat());
            if is_open {
                break;
            }
        }
    }
}

#[test]
fn an_epoch_that_is_over_is_told_from_one_that_has_begun() {
    let said = |kept, asked| VolumeError::OtherEpoch { volume: ID, kept: epoch(kept), asked: epoch(asked) }.to_string();
    assert!(
        said(1, 2).ends_with("epoch 1, and the volume is in epoch 2: what is here has to be kept as a branch first")
    );
    assert!(said(2, 1).ends_with("it was to be opened in epoch 1, which is over: the metadata says whose it is now"));
}

#[test]
fn a_volume_whose_size_is_none_does_not_open_as_it_was_left() {
    let machine = Machine::new();
    write(&open(&machine, 1).expect("a volume"), 1, 1);
    let left = VolumeRecord { size_bytes: 4097, ..kept(&machine).expect("a journal") };
    let refused = VolumeSpec::of_kept(&left, ID, ChunkingParameters::default());
    assert!(matches!(refused, Err(VolumeError::DamagedRecord { volume: ID, .. })), "{refused:?}");
}

/// A volume of epoch 1 with a record, files of its journal that were given back, and some that were not.
fn with_a_history() -> Machine {
    let machine = Machine::new();
    let volume = open(&machine, 1).expect("a volume");
    for round in 1..=3 {
        (0..40).for_each(|block| write(&volume, block, round));
        volume.flush().expect("a flush");
        if round < 3 {
            volume.seal().expect("a seal");
        }
    }
    volume.close();
    machine
}

#[test]
fn a_volume_that_is_being_forgotten_opens_in_no_other_epoch_whenever_power_is_lost() {
    let mut interrupted = 0;
    for cut in 0.. {
        let machine = with_a_history();
        machine.disk.crash_after(cut);
        let is_removed = machine.storage.remove_volume(ID).is_ok();
        for (seed, mode) in (0..).zip(CrashMode::ALL.into_iter().cycle().take(2 * CrashMode::ALL.len())) {
            let found = machine.without_power(seed ^ cut, mode);
            if kept(&found).is_some() {
                assert!(!is_removed, "it was forgotten, and is here again");
                interrupted += 1;
                assert_refused(&found, 2, 1);
                found.storage.remove_volume(ID).expect("it is forgotten");
                assert_eq!(kept(&found), None);
            }
            let volume = open(&found, 2).expect("the volume");
            assert_eq!(contents(&volume, 0, 40 * 4096), [0; 40 * 4096], "nothing of the old epoch is in it");
            write(&volume, 1, 9);
            volume.flush().expect("a flush");
            let again = found.without_power(seed, mode);
            assert_refused(&again, 1, 2);
            assert_eq!(contents(&open(&again, 2).expect("the volume"), 4096, 4096), [9; 4096]);
        }
        if is_removed {
            break;
        }
    }
    assert!(interrupted > 10, "{interrupted} were found half forgotten");
}
