//! A volume that goes from one machine to another, against a plain array: whatever has arrived, whatever is written over what
//! has not, and wherever either machine stops.

use std::ops::Range;
use std::sync::Arc;

use proptest::prelude::{Strategy, any, prop, prop_assert, prop_assert_eq, prop_oneof, proptest};
use proptest::test_runner::TestCaseError;
use sterna_types::device::ReadOutcome;
use sterna_types::{BLOCK_SIZE, BLOCKS_PER_SEGMENT, ByteOffset, DeviceError, Epoch, Root};

use super::absence::Absence;
use super::absence_tests::Courier;
use super::tests::{Machine, contents, range, spec};
use super::{Inheritance, Released, SealedState, Tail, Volume, VolumeError, VolumeSpec};
use crate::disk::simulated::CrashMode;

/// Two segments and a little.
const BLOCKS: u64 = 2 * BLOCKS_PER_SEGMENT + 64;
const SIZE: u64 = BLOCKS * BLOCK_SIZE;
const BLOCK: usize = 4096;

fn write(volume: &Volume, block: u64, count: u64, byte: u8) {
    let data = vec![byte; usize::try_from(count).expect("few") * BLOCK];
    volume.write(ByteOffset(block * BLOCK_SIZE), &data).expect("a write");
}

fn zero(volume: &Volume, block: u64, count: u64) {
    volume.zero(range(block * BLOCK_SIZE, count * BLOCK_SIZE)).expect("a hole");
}

/// One run of blocks.
fn only(blocks: Range<u64>) -> Vec<Range<u64>> {
    std::iter::once(blocks).collect()
}

/// What a machine is told of a volume that was released.
fn inheritance(released: &Released) -> Inheritance {
    let SealedState { root, generation, .. } = released.sealed;
    let written_blocks = released.written_blocks;
    let epoch = Epoch::FIRST.next();
    let spec = VolumeSpec { epoch, root, generation, written_blocks, ..spec(1, SIZE, Root::EMPTY) };
    Inheritance { spec, tail: released.tail.clone() }
}

fn open(machine: &Machine, inheritance: &Inheritance) -> Arc<Volume> {
    Volume::open(&machine.storage, &inheritance.spec).expect("the volume opens")
}

/// All of the volume, once all of it has arrived.
fn all_of(volume: &Volume, courier: &Courier) -> Vec<u8> {
    loop {
        let mut bytes = vec![0xee; usize::try_from(SIZE).expect("small")];
        match volume.read(range(0, SIZE), &mut bytes) {
            Ok(ReadOutcome::Filled) => return bytes,
            Ok(ReadOutcome::Zeroes) => return vec![0; bytes.len()],
            Err(error) => courier.carry(volume, &error.absence().expect("something is absent")),
        }
    }
}

/// A volume with a root, and something newer than it: data, and a hole over what the root has.
fn released() -> (Machine, Arc<Volume>, Released) {
    let there = Machine::new();
    let volume = there.volume(1, SIZE, Root::EMPTY);
    write(&volume, 0, 20, 1);
    write(&volume, BLOCKS_PER_SEGMENT, 5, 2);
    volume.seal().expect("a seal");
    write(&volume, 3, 2, 3);
    zero(&volume, 10, 4);
    write(&volume, 12, 1, 4);
    let released = volume.release().expect("it is all here");
    (there, volume, released)
}

#[test]
fn what_was_acknowledged_is_there_and_a_hole_is_known_without_a_journey() {
    let (_there, before, released) = released();
    let expected = contents(&before, 0, usize::try_from(SIZE).expect("small"));
    let runs: Vec<_> = released.tail.runs().iter().map(|run| (run.blocks.clone(), run.is_hole)).collect();
    assert_eq!(runs, [(3..5, false), (10..12, true), (12..13, false), (13..14, true)]);
    assert_eq!(released.written_blocks, 28);
    assert!(released.sealed.written_blocks < 28, "the tail is not in the root");

    let (here, inheritance) = (Machine::new(), inheritance(&released));
    here.storage.inherit(&inheritance, b"activated".to_vec()).expect("it is taken over");
    here.storage.inherit(&inheritance, b"activated".to_vec()).expect("the same once more");
    let here = here.without_power(1, CrashMode::ALL[0]);
    assert_eq!(here.storage.pledge(inheritance.spec.id).expect("an answer"), Some(b"activated".to_vec()));
    let volume = open(&here, &inheritance);
    assert_eq!(contents(&volume, 10 * BLOCK_SIZE, 2 * BLOCK), [0; 2 * BLOCK]);
    assert_eq!(volume.status().tail_bytes, 3 * BLOCK_SIZE);
    let error = volume.read(range(2 * BLOCK_SIZE, 3 * BLOCK_SIZE), &mut [0; 3 * BLOCK]).expect_err("it is elsewhere");
    let Absence { chunks, blocks } = error.absence().expect("an absence");
    assert_eq!((chunks.len(), blocks), (1, only(3..5)), "of the map its top, of the tail what was asked for");
    assert!(volume.read_now(range(3 * BLOCK_SIZE, BLOCK_SIZE), &mut [0; BLOCK]).is_none());

    let courier = Courier::from(&before);
    assert!(all_of(&volume, &courier) == expected);
    assert_eq!(volume.status().tail_bytes, 0);
    assert_eq!(volume.seal().expect("a seal").written_blocks, 28, "what arrived was counted where it was written");
    assert!(volume.tail().is_empty() && all_of(&volume, &courier) == expected);
    assert!(volume.release().is_ok(), "it can go on from here");
}

#[test]
fn what_is_released_takes_nothing_more_until_it_is_resumed() {
    let (there, volume, released) = released();
    let error = volume.write(ByteOffset(0), &[9; BLOCK]).expect_err("it is released");
    assert!(matches!(error, VolumeError::Device(DeviceError::NotOwner)), "{error}");
    assert!(volume.write_now(ByteOffset(0), &[9; BLOCK]).is_some_and(|written| written.is_err()));
    assert!(volume.zero(range(0, BLOCK_SIZE)).is_err());
    let sealed = volume.seal().expect("there is nothing to do");
    assert_eq!((sealed.root, sealed.generation), (released.sealed.root, released.sealed.generation));
    assert_eq!(volume.release().expect("the same once more"), released);
    volume.flush().expect("a flush");

    let there = there.without_power(3, CrashMode::ALL[1]);
    let again = there.volume(1, SIZE, Root::EMPTY);
    assert_eq!(again.release().expect("as it was left"), released);
    again.resume();
    write(&again, 0, 1, 9);
    assert_eq!(again.seal().expect("a seal").generation, released.sealed.generation + 1);
}

#[test]
fn a_seal_that_a_release_comes_before_changes_nothing() {
    let there = Machine::new();
    let volume = there.volume(1, SIZE, Root::EMPTY);
    write(&volume, 0, 20, 1);
    volume.seal().expect("a seal");
    write(&volume, 3, 2, 3);
    let frozen = volume.freeze().expect("something to seal");
    write(&volume, 4, 2, 4);
    let built = volume.build(&frozen).expect("chunks");
    let released = volume.release().expect("it is all here");
    assert!(!volume.record_and_show(&built, Some(&frozen)).expect("no error"), "it would be another root");
    assert_eq!(released.tail.data().collect::<Vec<_>>(), only(3..6));
    assert_eq!(volume.release().expect("the same once more"), released);
    assert_eq!(there.killed().volume(1, SIZE, Root::EMPTY).release().expect("the same"), released);
    volume.resume();
    let sealed = volume.seal().expect("a seal");
    assert_eq!((sealed.generation, contents(&volume, 4 * BLOCK_SIZE, BLOCK)), (3, vec![4; BLOCK]));
}

#[test]
fn what_has_not_arrived_is_not_handed_on_and_no_earlier_epoch_is_written_over() {
    let (_there, _before, released) = released();
    let (here, inheritance) = (Machine::new(), inheritance(&released));
    let older = here.volume(1, SIZE, Root::EMPTY);
    write(&older, 0, 1, 1);
    older.close();
    let error = here.storage.inherit(&inheritance, Vec::new()).expect_err("something is here");
    assert!(matches!(error, VolumeError::OtherEpoch { .. }), "{error}");
    assert_eq!(here.storage.pledge(inheritance.spec.id).expect("an answer"), None);
    here.storage.remove_volume(inheritance.spec.id).expect("it is forgotten");
    here.storage.inherit(&inheritance, vec![1]).expect("it is taken over");
    let volume = open(&here, &inheritance);
    let absence = volume.release().expect_err("a part of it is elsewhere").absence().expect("an absence");
    assert_eq!(absence.blocks, [3..5, 12..13]);
    assert!(!volume.is_released());
    write(&volume, 3, 2, 5);
    write(&volume, 12, 1, 5);
    assert!(volume.tail().is_empty(), "it was overwritten");
    let onward = volume.release().expect("nothing is elsewhere any more");
    assert_eq!(onward.tail.data().collect::<Vec<_>>(), [3..5, 12..13]);
}

#[test]
fn a_volume_that_comes_back_before_it_has_arrived_needs_what_was_done_elsewhere_and_nothing_else() {
    let (there, before, first) = released();
    let mut expected = contents(&before, 0, usize::try_from(SIZE).expect("small"));
    let (here, inheritance) = (Machine::new(), inheritance(&first));
    here.storage.inherit(&inheritance, vec![1]).expect("it is taken over");
    let (volume, courier) = (open(&here, &inheritance), Courier::from(&before));
    // Its tail, and what a seal needs of the map.
    courier.carry(&volume, &Absence { blocks: volume.tail().data().collect(), ..Absence::default() });
    assert!(!volume.has_sealed_tail(), "it is in the journal only");
    write(&volume, BLOCKS_PER_SEGMENT + 1, 1, 7);
    while let Err(error) = volume.seal() {
        courier.carry(&volume, &error.absence().expect("something is absent"));
    }
    assert!(volume.has_sealed_tail());
    write(&volume, 30, 1, 8);
    for (block, byte) in [(BLOCKS_PER_SEGMENT + 1, 7), (30, 8)] {
        let at = usize::try_from(block).expect("few") * BLOCK;
        expected[at..at + BLOCK].fill(byte);
    }
    let again = volume.release().expect("what is lacking are chunks");
    let error = volume.read(range(0, 3 * BLOCK_SIZE), &mut [0; 3 * BLOCK]).expect_err("it never came here");
    assert!(!error.absence().expect("an absence").chunks.is_empty());

    // What it was there, beside chunks, makes room for what it is now.
    before.close();
    drop(before);
    there.storage.remove_volume(inheritance.spec.id).expect("it is forgotten");
    let SealedState { root, generation, .. } = again.sealed;
    let epoch = Epoch::FIRST.next().next();
    let spec = VolumeSpec { epoch, root, generation, written_blocks: again.written_blocks, ..inheritance.spec };
    there.storage.inherit(&Inheritance { spec, tail: again.tail }, vec![2]).expect("it is back");
    let there = there.without_power(1, CrashMode::ALL[0]);
    let back = Volume::open(&there.storage, &spec).expect("the volume opens");
    // It is asked for nothing that it does not have.
    let courier = Courier::from(&volume);
    assert!(all_of(&back, &courier) == expected);
    assert_eq!(back.seal().expect("a seal").written_blocks, first.written_blocks + 2);
    assert!(back.has_sealed_tail() && all_of(&back, &courier) == expected);
}

#[derive(Clone, Debug)]
enum Step {
    Write(u64, u64, u8),
    Zero(u64, u64),
    Seal,
    /// Some blocks of the tail arrive.
    Arrive(u64, u64),
    /// A read of some blocks, with whatever it needs.
    Read(u64, u64),
    Kill,
    LosePower(u64, CrashMode),
}

fn runs() -> impl Strategy<Value = (u64, u64)> {
    (prop_oneof![0..40u64, BLOCKS_PER_SEGMENT - 20..BLOCKS_PER_SEGMENT + 20], 1..20u64)
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (runs(), 1..=255u8).prop_map(|((block, count), byte)| Step::Write(block, count, byte)),
        2 => runs().prop_map(|(block, count)| Step::Zero(block, count)),
        2 => proptest::prelude::Just(Step::Seal),
        2 => runs().prop_map(|(block, count)| Step::Arrive(block, count)),
        2 => runs().prop_map(|(block, count)| Step::Read(block, count)),
        1 => proptest::prelude::Just(Step::Kill),
        1 => (any::<u64>(), prop::sample::select(CrashMode::ALL.to_vec())).prop_map(|(seed, mode)| Step::LosePower(seed, mode)),
    ];
    prop::collection::vec(step, 0..30)
}

/// What each block holds: a byte over and over.
struct Model(Vec<u8>);

impl Model {
    fn put(&mut self, block: u64, count: u64, byte: u8) {
        let at = |block: u64| usize::try_from(block).expect("few");
        self.0[at(block)..at(block + count)].fill(byte);
    }

    fn bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|byte| [*byte; BLOCK]).collect()
    }
}

/// Does the steps on a volume, which may have a courier; where it is then.
fn carry_out(
    mut machine: Machine,
    mut volume: Arc<Volume>,
    courier: Option<&Courier>,
    spec: &VolumeSpec,
    steps: Vec<Step>,
    model: &mut Model,
) -> Result<(Machine, Arc<Volume>), TestCaseError> {
    let bring = |volume: &Volume, error: VolumeError| {
        let absence = error.absence().unwrap_or_else(|| panic!("{error}"));
        courier.expect("all is here").carry(volume, &absence);
    };
    for step in steps {
        match step {
            Step::Write(block, count, byte) => {
                write(&volume, block, count, byte);
                model.put(block, count, byte);
            }
            Step::Zero(block, count) => {
                zero(&volume, block, count);
                model.put(block, count, 0);
            }
            Step::Seal => {
                while let Err(error) = volume.seal() {
                    bring(&volume, error);
                }
            }
            Step::Arrive(block, count) => {
                if let Some(courier) = courier {
                    courier.carry(&volume, &Absence { blocks: only(block..block + count), ..Absence::default() });
                }
            }
            Step::Read(block, count) => {
                let mut bytes = vec![0; usize::try_from(count).expect("few") * BLOCK];
                loop {
                    match volume.read(range(block * BLOCK_SIZE, count * BLOCK_SIZE), &mut bytes) {
                        Ok(ReadOutcome::Filled) => break,
                        Ok(ReadOutcome::Zeroes) => break bytes.fill(0),
                        Err(error) => bring(&volume, error),
                    }
                }
                let begin = usize::try_from(block).expect("few") * BLOCK;
                prop_assert!(bytes == model.bytes()[begin..begin + bytes.len()], "blocks {block} and {count} more");
            }
            Step::Kill => {
                machine = machine.killed();
                volume = Volume::open(&machine.storage, spec).expect("the volume opens");
            }
            Step::LosePower(seed, mode) => {
                volume.flush().expect("a flush");
                machine = machine.without_power(seed, mode);
                volume = Volume::open(&machine.storage, spec).expect("the volume opens");
            }
        }
    }
    Ok((machine, volume))
}

proptest! {
    #[test]
    fn whatever_has_arrived_the_volume_holds_what_was_written(before in steps(), after in steps(), last in any::<u64>()) {
        let mut model = Model(vec![0; usize::try_from(BLOCKS)?]);
        let (there, first) = (Machine::new(), spec(1, SIZE, Root::EMPTY));
        let volume = Volume::open(&there.storage, &first).expect("a volume");
        let (there, volume) = carry_out(there, volume, None, &first, before, &mut model)?;
        let released = volume.release().expect("it is all here");
        prop_assert_eq!(Tail::parse(&released.tail.encode()), Ok(released.tail.clone()));
        volume.flush().expect("a flush");
        // Where it comes from may have stopped since.
        let there = there.without_power(last, CrashMode::ALL[usize::try_from(last % 3)?]);
        let volume = there.volume(1, SIZE, Root::EMPTY);
        prop_assert_eq!(&volume.release().expect("as it was"), &released);

        let (courier, inheritance) = (Courier::from(&volume), inheritance(&released));
        let here = Machine::new();
        here.storage.inherit(&inheritance, vec![1]).expect("it is taken over");
        let opened = open(&here, &inheritance);
        let (here, volume) = carry_out(here, opened, Some(&courier), &inheritance.spec, after, &mut model)?;
        prop_assert!(all_of(&volume, &courier) == model.bytes());
        prop_assert!(volume.tail().is_empty());
        while let Err(error) = volume.seal() {
            courier.carry(&volume, &error.absence().expect("something is absent"));
        }
        let here = here.killed();
        prop_assert!(all_of(&open(&here, &inheritance), &courier) == model.bytes());
    }
}
