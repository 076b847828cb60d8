//! Volumes against plain arrays: the device's contract, any sequence of operations, and crashes at any moment.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::{Just, Strategy, any, prop, prop_assert, prop_assert_eq, prop_oneof, proptest};
use proptest::test_runner::TestCaseError;
use sterna_types::device::{ReadOutcome, conformance};
use sterna_types::{BLOCK_SIZE, ByteOffset, ByteRange, ByteSize, Epoch, Root, SEGMENT_SIZE, VolumeId, VolumeSize};

use super::{Storage, StorageOptions, Volume, VolumeDevice, VolumeError, VolumeSpec};
use crate::chunk_store::collect::{CollectError, CollectOptions};
use crate::chunk_store::index::{Index, IndexError, MemoryIndex, RocksIndex, VolumeRecords};
use crate::chunk_store::{PackStore, PackStoreOptions, StoreError};
use crate::chunking::ChunkingParameters;
use crate::disk::simulated::{CrashMode, Operation};
use crate::disk::{Disk, SimulatedDisk, SystemDisk};
use crate::journal::SaltSource;

/// A node's storage on a disk that can be cut off at any moment: real packs, real journals, and an index in memory that
/// loses what was not made durable.
#[derive(Clone)]
pub(super) struct Machine {
    pub(super) disk: SimulatedDisk,
    index: Arc<MemoryIndex>,
    store: Arc<PackStore>,
    pub(super) storage: Arc<Storage>,
    runs: u8,
}

impl Machine {
    pub(super) fn new() -> Self {
        let disk = SimulatedDisk::new();
        let index = Arc::new(MemoryIndex::on(&disk));
        Self::on(disk, index, 0)
    }

    fn on(disk: SimulatedDisk, index: Arc<MemoryIndex>, runs: u8) -> Self {
        Self::try_on(disk, index, runs).expect("a data directory that can be opened")
    }

    fn try_on(disk: SimulatedDisk, index: Arc<MemoryIndex>, runs: u8) -> Result<Self, VolumeError> {
        Self::try_with_reserve(0, disk, index, runs)
    }

    /// One whose packs leave so many bytes of the disk free.
    fn try_with_reserve(
        reserve_bytes: u64,
        disk: SimulatedDisk,
        index: Arc<MemoryIndex>,
        runs: u8,
    ) -> Result<Self, VolumeError> {
        let options = StorageOptions {
            segment_cache_bytes: 64 << 10,
            node_cache_bytes: 64 << 10,
            journal_file_bytes: 64 << 10,
            reserve_bytes: 0,
            ..StorageOptions::default()
        };
        let pack_options = PackStoreOptions { reserve_bytes, ..PackStoreOptions::default() };
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let store = Arc::new(PackStore::open(Arc::clone(&shared), index.clone(), pack_options)?);
        let records = VolumeRecords::new(index.clone());
        let salts = SaltSource::new([runs; 32]);
        let storage = Storage::new(shared, store.clone(), records, salts, options).map_err(VolumeError::ReadBack)?;
        Ok(Self { disk, index, store, storage, runs })
    }

    /// The machine after the process was killed.
    pub(super) fn killed(&self) -> Self {
        let disk = self.disk.after_kill();
        let index = Arc::new(self.index.after_kill(&disk));
        Self::on(disk, index, self.runs + 1)
    }

    /// The machine after power was lost.
    pub(super) fn without_power(&self, seed: u64, mode: CrashMode) -> Self {
        let disk = self.disk.crash_image(seed, mode);
        let index = Arc::new(self.index.crash_image(seed, &disk));
        Self::on(disk, index, self.runs + 1)
    }

    /// Collects garbage: whatever neither a record nor one of `roots` needs.
    fn collect(&self, roots: &[Root]) -> Result<(), CollectError> {
        let options = CollectOptions { dead_percent: 30, ..CollectOptions::default() };
        let cancel = std::sync::atomic::AtomicBool::new(false);
        let report = self.storage.collect(&self.store, || Ok(roots.to_vec()), &options, &mut |_| {}, &cancel)?;
        assert!(report.finished);
        Ok(())
    }

    pub(super) fn volume(&self, id: u64, size: u64, root: Root) -> Arc<Volume> {
        Volume::open(&self.storage, &spec(id, size, root)).expect("a volume to open")
    }
}

pub(super) fn spec(id: u64, size: u64, root: Root) -> VolumeSpec {
    VolumeSpec {
        id: VolumeId(id),
        size: VolumeSize::try_from(ByteSize(size)).expect("a size of a test"),
        epoch: Epoch::FIRST,
        root,
        generation: 0,
        written_blocks: 0,
        chunking: ChunkingParameters::default(),
        reclaimed: None,
    }
}

pub(super) fn range(at: u64, length: u64) -> ByteRange {
    ByteRange::new(ByteOffset(at), length).expect("a range of a test")
}

pub(super) fn contents(volume: &Volume, at: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0xee; length];
    match volume.read(range(at, length as u64), &mut bytes).expect("a read") {
        ReadOutcome::Filled => bytes,
        ReadOutcome::Zeroes => vec![0; length],
    }
}

/// Storage as a node has it: files and RocksDB.
pub(super) fn real_storage(directory: &std::path::Path) -> Arc<Storage> {
    let disk: Arc<dyn Disk> = Arc::new(SystemDisk::open(directory).expect("a data directory"));
    let index = Arc::new(RocksIndex::open(&directory.join("index"), 8 << 20).expect("a new index"));
    let store = PackStore::open(Arc::clone(&disk), index.clone(), PackStoreOptions::default()).expect("a store");
    let (records, salts) = (VolumeRecords::new(index), SaltSource::new([9; 32]));
    let options = StorageOptions { journal_file_bytes: 2 << 20, ..StorageOptions::default() };
    Storage::new(disk, Arc::new(store), records, salts, options).expect("a data directory")
}

#[tokio::test]
async fn a_volume_keeps_the_contract_of_a_device() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let storage = real_storage(directory.path());
    let mut next = 0;
    conformance::run(|size| {
        next += 1;
        VolumeDevice::new(Volume::open(&storage, &spec(next, size.0, Root::EMPTY)).expect("a volume"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_keeps_the_contract_while_it_is_sealed_all_the_time() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let storage = real_storage(directory.path());
    let mut next = 0;
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let mut sealers = Vec::new();
    conformance::run(|size| {
        next += 1;
        let volume = Volume::open(&storage, &spec(next, size.0, Root::EMPTY)).expect("a volume");
        let (sealed, stopped) = (Arc::clone(&volume), Arc::clone(&stop));
        sealers.push(std::thread::spawn(move || {
            while !stopped.load(std::sync::atomic::Ordering::Acquire) {
                sealed.seal().expect("a seal");
                std::thread::yield_now();
            }
        }));
        VolumeDevice::new(volume)
    })
    .await;
    stop.store(true, std::sync::atomic::Ordering::Release);
    for sealer in sealers {
        sealer.join().expect("no seal has failed");
    }
}

/// What is done to a volume.
#[derive(Clone, Debug)]
enum Step {
    Write { at: u64, length: u64, seed: u8 },
    Zero { at: u64, length: u64 },
    Flush,
    Seal,
    RewriteCold,
    Prepare,
    Resize { blocks: u64 },
    Clone,
    Collect,
    Kill,
    LosePower { seed: u64, mode: CrashMode },
}

const BLOCKS: u64 = 3000;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let place = || (0..BLOCKS * BLOCK_SIZE, 1..40_000u64);
    let aligned = || (0..BLOCKS, 1..12u64).prop_map(|(at, length)| (at * BLOCK_SIZE, length * BLOCK_SIZE));
    let mode = || prop::sample::select(CrashMode::ALL.to_vec());
    let step = prop_oneof![
        6 => (aligned(), any::<u8>()).prop_map(|((at, length), seed)| Step::Write { at, length, seed }),
        3 => (place(), any::<u8>()).prop_map(|((at, length), seed)| Step::Write { at, length, seed }),
        2 => place().prop_map(|(at, length)| Step::Zero { at, length: length * 40 }),
        3 => Just(Step::Flush),
        3 => Just(Step::Seal),
        1 => Just(Step::Prepare),
        1 => Just(Step::RewriteCold),
        1 => (1..BLOCKS).prop_map(|blocks| Step::Resize { blocks }),
        1 => Just(Step::Clone),
        2 => Just(Step::Collect),
        1 => Just(Step::Kill),
        2 => (any::<u64>(), mode()).prop_map(|(seed, mode)| Step::LosePower { seed, mode }),
    ];
    prop::collection::vec(step, 1..40)
}

/// What a volume should hold: blocks that are not all zeroes.
type Blocks = BTreeMap<u64, Vec<u8>>;

/// A volume, and what is known of it.
#[derive(Clone)]
struct Model {
    machine: Machine,
    volume: Arc<Volume>,
    id: u64,
    /// The root that it was cloned from.
    origin: Root,
    blocks: u64,
    now: Blocks,
    /// Blocks of its data writes.
    written: u64,
    /// What each block may be after power is lost, the durable contents first. A block that is not here is as it is now.
    since_flush: BTreeMap<u64, Vec<Vec<u8>>>,
    /// Volumes that were cloned, with what they held; they are not written any more.
    parents: Vec<(u64, u64, Root, Blocks)>,
}

impl Model {
    fn new() -> Self {
        let machine = Machine::new();
        let volume = machine.volume(1, BLOCKS * BLOCK_SIZE, Root::EMPTY);
        let (now, since_flush) = (Blocks::new(), BTreeMap::new());
        let (origin, parents) = (Root::EMPTY, Vec::new());
        Self { machine, volume, id: 1, origin, blocks: BLOCKS, now, written: 0, since_flush, parents }
    }

    fn block(&self, index: u64) -> Vec<u8> {
        self.now.get(&index).cloned().unwrap_or_else(|| vec![0; 4096])
    }

    fn set(&mut self, index: u64, content: Vec<u8>) {
        let before = self.block(index);
        self.since_flush.entry(index).or_insert_with(|| vec![before]).push(content.clone());
        match content.iter().all(|&byte| byte == 0) {
            true => self.now.remove(&index),
            false => self.now.insert(index, content),
        };
    }

    /// Puts `byte_at(position)` for each byte of a range, in the model.
    fn put(&mut self, at: u64, length: u64, byte_at: impl Fn(u64) -> u8) {
        for index in at / BLOCK_SIZE..(at + length).div_ceil(BLOCK_SIZE) {
            let mut content = self.block(index);
            for (offset, byte) in content.iter_mut().enumerate() {
                let position = index * BLOCK_SIZE + offset as u64;
                if (at..at + length).contains(&position) {
                    *byte = byte_at(position);
                }
            }
            self.set(index, content);
        }
    }

    fn clip(&self, at: u64, length: u64) -> (u64, u64) {
        let size = self.blocks * BLOCK_SIZE;
        let at = at.min(size - 1);
        (at, length.min(size - at))
    }

    fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match step {
            Step::Write { at, length, seed } => {
                let (at, length) = self.clip(*at, *length);
                // Some blocks are alike, and some are zero.
                let seed = seed % 4;
                let byte = |position: u64| seed.wrapping_mul((position / BLOCK_SIZE % 251) as u8);
                let data: Vec<u8> = (at..at + length).map(byte).collect();
                let written = self.volume.write(ByteOffset(at), &data);
                self.written += (at + length).div_ceil(BLOCK_SIZE) - at / BLOCK_SIZE;
                self.put(at, length, byte);
                self.allow(written);
            }
            Step::Zero { at, length } => {
                let (at, length) = self.clip(*at, *length);
                let zeroed = self.volume.zero(range(at, length));
                self.written += blocks_in_part(at, at + length);
                self.put(at, length, |_| 0);
                self.allow(zeroed);
            }
            Step::Flush => {
                if self.allow(self.volume.flush()).is_some() {
                    self.since_flush.clear();
                }
            }
            Step::Seal => {
                if let Some(sealed) = self.allow(self.volume.seal()) {
                    prop_assert_eq!(sealed.written_blocks, self.written);
                    self.since_flush.clear();
                }
            }
            Step::RewriteCold => _ = self.allow(self.volume.rewrite_cold()),
            Step::Prepare => _ = self.allow(self.volume.prepare_journal()),
            Step::Resize { blocks } => {
                let size = VolumeSize::try_from(ByteSize(blocks * BLOCK_SIZE)).expect("a size of a test");
                self.volume.resize(size).expect("another size");
                self.blocks = *blocks;
                self.now.retain(|block, _| block < blocks);
                self.since_flush.clear();
            }
            Step::Clone => self.continue_on_a_clone(),
            Step::Collect => {
                let mut roots: Vec<_> = self.parents.iter().map(|(_, _, origin, _)| *origin).collect();
                roots.push(self.origin);
                self.allow(self.machine.collect(&roots));
            }
            Step::Kill => {
                let machine = self.machine.killed();
                self.reopen(machine);
            }
            Step::LosePower { seed, mode } => {
                let machine = self.machine.without_power(*seed, *mode);
                self.reopen(machine);
                self.adopt_what_power_loss_left()?;
            }
        }
        Ok(())
    }

    /// What came of a step; nothing may fail but on a disk that has been cut off.
    fn allow<T, E: std::fmt::Debug>(&self, result: Result<T, E>) -> Option<T> {
        assert!(result.is_ok() || self.machine.disk.has_crashed(), "a step has failed: {:?}", result.err());
        result.ok()
    }

    fn continue_on_a_clone(&mut self) {
        let Some(sealed) = self.allow(self.volume.seal()) else { return };
        let clone = spec(self.id + 1, self.blocks * BLOCK_SIZE, sealed.root);
        let opened = self.allow(Volume::open(&self.machine.storage, &clone));
        self.since_flush.clear();
        let Some(volume) = opened else { return };
        self.parents.push((self.id, self.blocks, self.origin, self.now.clone()));
        (self.id, self.origin, self.volume, self.written) = (self.id + 1, sealed.root, volume, 0);
    }

    fn reopen(&mut self, machine: Machine) {
        self.volume = machine.volume(self.id, self.blocks * BLOCK_SIZE, self.origin);
        self.machine = machine;
    }

    fn adopt_what_power_loss_left(&mut self) -> Result<(), TestCaseError> {
        for (block, mut allowed) in std::mem::take(&mut self.since_flush) {
            if block >= self.blocks {
                continue;
            }
            let found = contents(&self.volume, block * BLOCK_SIZE, 4096);
            allowed.reverse();
            prop_assert!(allowed.contains(&found), "block {block} is neither what was flushed nor anything newer");
            self.set(block, found);
        }
        self.since_flush.clear();
        let found = self.volume.layers().written_blocks;
        prop_assert!(
            (self.volume.sealed().written_blocks..=self.written).contains(&found),
            "{found} blocks were written"
        );
        self.written = found;
        Ok(())
    }

    fn check(&self) -> Result<(), TestCaseError> {
        check_contents(&self.volume, self.blocks, &self.now)?;
        prop_assert_eq!(self.volume.layers().written_blocks, self.written);
        let allocated = self.volume.allocation(range(0, self.blocks * BLOCK_SIZE), usize::MAX).expect("an answer");
        prop_assert_eq!(allocated.iter().map(|run| run.length).sum::<u64>(), self.blocks * BLOCK_SIZE);
        for (id, blocks, origin, held) in &self.parents {
            check_contents(&self.machine.volume(*id, blocks * BLOCK_SIZE, *origin), *blocks, held)?;
        }
        Ok(())
    }
}

/// Blocks of which a range has a part and not the whole: what zeroing it has to write.
fn blocks_in_part(start: u64, end: u64) -> u64 {
    let (first, last) = (start / BLOCK_SIZE, end / BLOCK_SIZE);
    let is_part = |at: u64| u64::from(!at.is_multiple_of(BLOCK_SIZE));
    if first == last { is_part(start).max(is_part(end)) } else { is_part(start) + is_part(end) }
}

fn check_contents(volume: &Volume, blocks: u64, expected: &Blocks) -> Result<(), TestCaseError> {
    prop_assert_eq!(volume.size().0, blocks * BLOCK_SIZE);
    let found = contents(volume, 0, usize::try_from(blocks * BLOCK_SIZE)?);
    for (index, block) in found.chunks(4096).enumerate() {
        let zeroes = vec![0; 4096];
        let expected = expected.get(&(index as u64)).unwrap_or(&zeroes);
        prop_assert!(block == expected, "block {index} is not what it should be");
    }
    Ok(())
}

proptest! {
    #[test]
    fn whatever_is_done_a_volume_holds_what_was_written(steps in steps()) {
        let mut model = Model::new();
        for step in &steps {
            model.step(step)?;
        }
        model.check()?;
        // Sealed and opened anew, it is still the same.
        model.volume.seal().expect("a seal");
        model.check()?;
        model.step(&Step::Kill)?;
        model.check()?;
    }
}

/// A history with everything in it that writes: journals that are recycled, seals, collections with something to collect
/// and to compact, a clone.
fn busy_history() -> Vec<Step> {
    let write = |at: u64, blocks: u64, seed| Step::Write { at: at * BLOCK_SIZE, length: blocks * BLOCK_SIZE, seed };
    let mut steps = Vec::new();
    for (round, seed) in (0..6u64).zip([1, 2, 3, 1, 2, 3]) {
        steps.extend([write(round * 7, 12, seed), write(1020, 9, seed), Step::Flush]);
        steps.extend([write(round * 3, 4, seed + 1), write(2000 + round, 1, 3), write(2010 - round, 1, 2)]);
        steps.extend([Step::Prepare, Step::Zero { at: round * 20_000, length: 30_000 }, Step::Seal]);
        steps.extend([write(5, 10, seed), write(40, 12, 3), Step::Write { at: 12_345, length: 6_000, seed: 3 }]);
        match round {
            2 => steps.push(Step::Clone),
            1 | 3 | 5 => steps.extend([Step::Seal, Step::Collect]),
            _ => steps.push(Step::Flush),
        }
    }
    steps
}

#[test]
fn power_may_be_lost_at_any_moment_and_what_was_flushed_is_there() -> Result<(), TestCaseError> {
    let history = busy_history();
    let mut whole = Model::new();
    history.iter().try_for_each(|step| whole.step(step))?;
    let operations = whole.machine.disk.operations();
    assert!(operations > 200, "{operations} operations are no busy history");
    for cut in 0..operations {
        let mut model = Model::new();
        model.machine.disk.crash_after(cut);
        for step in &history {
            model.step(step)?;
            if model.machine.disk.has_crashed() {
                break;
            }
        }
        for (seed, mode) in CrashMode::ALL.into_iter().enumerate() {
            let mut found = model.clone();
            found.step(&Step::LosePower { seed: seed as u64 ^ cut, mode })?;
            found.check()?;
            // It goes on from there, and a collection finds nothing broken.
            for step in [Step::Seal, Step::Collect, Step::Flush, Step::Kill] {
                found.step(&step)?;
            }
            found.check()?;
        }
    }
    Ok(())
}

#[test]
fn a_trim_of_two_tebibytes_costs_as_much_as_there_is() {
    let machine = Machine::new();
    let size = 4u64 << 40;
    let volume = machine.volume(1, size, Root::EMPTY);
    for at in [0, 1 << 40, 2 << 40, 3 << 40, size - 4096] {
        volume.write(ByteOffset(at), &[7; 4096]).expect("a write");
    }
    volume.seal().expect("a seal");
    let operations = machine.disk.operations();
    volume.zero(range(4096, 2 << 40)).expect("zeroing");
    volume.seal().expect("a seal");
    assert!(machine.disk.operations() - operations < 40, "{} operations", machine.disk.operations() - operations);
    let left = [(0, 7), (1 << 40, 0), (2 << 40, 0), (3 << 40, 7), (size - 4096, 7)];
    for (at, byte) in left {
        assert!(contents(&volume, at, 4096) == [byte; 4096], "at {at}");
    }
}

#[test]
fn a_failed_sync_poisons_the_volume_until_it_is_opened_anew() {
    let machine = Machine::new();
    let volume = machine.volume(1, 1 << 20, Root::EMPTY);
    volume.write(ByteOffset(0), &[1; 4096]).expect("a write");
    volume.flush().expect("a flush");
    volume.write(ByteOffset(0), &[2; 4096]).expect("a write");
    machine.disk.fail_next_sync();
    volume.flush().expect_err("the sync fails");
    volume.flush().expect_err("a later flush proves nothing");
    volume.write(ByteOffset(0), &[3; 4096]).expect_err("a poisoned volume takes no writes");
    assert!(volume.status().poisoned);
    let machine = machine.without_power(1, CrashMode::Lose);
    let volume = machine.volume(1, 1 << 20, Root::EMPTY);
    let found = contents(&volume, 0, 4096);
    assert!(found == [1; 4096] || found == [2; 4096], "neither what was flushed nor what was to be: {}", found[0]);
    volume.flush().expect("a flush");
}

/// A volume with something that is sealed and something that is to be, and what it holds: noise.
fn with_unsealed_writes(machine: &Machine) -> (Arc<Volume>, Vec<u8>) {
    let mut held = vec![0; 1 << 20];
    blake3::Hasher::new().finalize_xof().fill(&mut held);
    let volume = machine.volume(1, 1 << 20, Root::EMPTY);
    volume.write(ByteOffset(0), &held).expect("a write");
    volume.seal().expect("a seal");
    held[..512 << 10].reverse();
    volume.write(ByteOffset(0), &held[..512 << 10]).expect("a write");
    volume.flush().expect("a flush");
    (volume, held)
}

#[test]
fn whatever_fails_in_a_seal_nothing_is_collected_that_either_outcome_needs() {
    let mut unknown = 0;
    for failing in 1.. {
        let machine = Machine::new();
        let (volume, mut held) = with_unsealed_writes(&machine);
        let before = machine.disk.operations();
        machine.disk.fail_operation(failing);
        let sealed = volume.seal();
        if machine.disk.operations() < before + failing {
            break;
        }
        let index_has_failed = machine.index.check_sound().is_err();
        unknown += u32::from(index_has_failed);
        // Everybody goes on as well as he can.
        held[..4096].fill(7);
        volume.write(ByteOffset(0), &held[..4096]).expect("a write to the journal");
        volume.flush().expect("a flush of the journal");
        assert!(contents(&volume, 0, 1 << 20) == held);
        let collected = machine.collect(&[]);
        if index_has_failed {
            assert!(sealed.is_err() && volume.status().seal_failure.is_some() && !volume.status().poisoned);
            let refusal = StoreError::Index(IndexError::Poisoned).to_string();
            let said = collected.expect_err("which root counts is not known").to_string();
            assert!(said == refusal || said == StoreError::Poisoned.to_string(), "{said}");
            volume.seal().expect_err("an index that has failed takes nothing");
            volume.close();
            Volume::open(&machine.storage, &spec(1, 1 << 20, Root::EMPTY))
                .expect_err("which record counts is not known");
        }
        for (seed, mode) in (0..).zip(CrashMode::ALL.into_iter().cycle().take(2 * CrashMode::ALL.len())) {
            let found = machine.without_power(seed, mode);
            let volume = found.volume(1, 1 << 20, Root::EMPTY);
            assert!(contents(&volume, 0, 1 << 20) == held, "operation {failing} has failed, found by seed {seed}");
            volume.seal().expect("a seal");
            found.collect(&[]).expect("a collection");
            assert!(contents(&found.killed().volume(1, 1 << 20, Root::EMPTY), 0, 1 << 20) == held);
        }
    }
    assert_eq!(unknown, 2, "the batches of the chunks and of the record");
}

#[test]
fn a_full_disk_loses_nothing_and_the_volume_comes_back_when_there_is_space() {
    let machine = Machine::new();
    let volume = machine.volume(1, 64 << 20, Root::EMPTY);
    let block = |index: u64| {
        let mut block = vec![0; 4096];
        blake3::Hasher::new().update(&index.to_le_bytes()).finalize_xof().fill(&mut block);
        block
    };
    machine.disk.limit(Some(2 << 20));
    let mut written = 0;
    let refused = loop {
        match volume.write(ByteOffset(written * BLOCK_SIZE), &block(written)) {
            Ok(()) => written += 1,
            Err(error) => break error,
        }
        if written % 100 == 0 {
            // As soon as the disk is full, this fails too.
            let _ = volume.seal();
        }
    };
    assert!(refused.is_full(), "{refused}");
    assert!(written > 200, "{written} blocks on a disk of 512");
    volume.seal().expect_err("there is no space to seal");
    assert!(volume.status().seal_failure.is_some());
    volume.flush().expect("what was acknowledged can be made durable");
    let all_there =
        |volume: &Volume| (0..written).all(|index| contents(volume, index * BLOCK_SIZE, 4096) == block(index));
    assert!(all_there(&volume));
    let machine = machine.without_power(1, CrashMode::Scramble);
    let volume = machine.volume(1, 64 << 20, Root::EMPTY);
    assert!(all_there(&volume));
    machine.disk.limit(None);
    volume.seal().expect("there is space now");
    volume.write(ByteOffset(0), &block(0)).expect("there is space now");
    assert!(all_there(&volume) && volume.status().seal_failure.is_none());
}

#[test]
fn what_is_given_back_is_sealed_where_less_is_free_than_the_reserve() {
    let disk = SimulatedDisk::new();
    let index = Arc::new(MemoryIndex::on(&disk));
    let machine = Machine::try_with_reserve(1 << 20, disk, index, 0).expect("a data directory that can be opened");
    let volume = machine.volume(1, 64 << 20, Root::EMPTY);
    let mut noise = vec![0; 2 << 20];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    volume.write(ByteOffset(0), &noise).expect("a write");
    volume.seal().expect("there is space");
    volume.write(ByteOffset(0), &noise[4096..8192]).expect("a write");
    machine.storage.pool.shrink().expect("a pool");
    // The log, the index, what else there is on the disk: what is left is not what the last seal has left.
    machine.disk.leave((1 << 20) - 1);
    assert!(volume.seal().expect_err("there is no space to seal").is_full());
    volume.zero(ByteRange::new(ByteOffset(4096), 4096).expect("a range")).expect("a hole needs no space");
    assert!(volume.seal().expect_err("no more is given back than was written").is_full());
    volume.zero(ByteRange::new(ByteOffset(8192), 1 << 20).expect("a range")).expect("a hole needs no space");
    assert!(volume.seal().is_ok(), "{:?}", volume.status().seal_failure);
    assert_eq!(volume.status().unsealed_bytes, 0);
    assert!(contents(&volume, 0, 4096) == noise[4096..8192]);
    assert!(contents(&volume, 4096, 4096 + (1 << 20)).iter().all(|byte| *byte == 0));
}

#[test]
fn what_is_given_back_on_a_full_disk_is_sealed_together_with_what_found_no_space() {
    let machine = Machine::new();
    let volume = machine.volume(1, 64 << 20, Root::EMPTY);
    let mut noise = vec![0; 2 << 20];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    volume.write(ByteOffset(0), &noise).expect("a write");
    volume.write(ByteOffset(2 << 20), &noise[..4096]).expect("a write");
    machine.disk.limit(Some(5 << 19));
    assert!(volume.seal().expect_err("there is no space to seal").is_full());
    // Enough for what is small, and for nothing else.
    machine.disk.limit(Some(7 << 19));
    assert!(volume.seal().expect_err("there is no space to seal").is_full());
    let given_back = ByteRange::new(ByteOffset(0), 2 << 20).expect("a range");
    volume.zero(given_back).expect("a hole needs no space");
    assert!(volume.seal().is_ok(), "what was given back needs none: {:?}", volume.status().seal_failure);
    assert_eq!((volume.status().unsealed_bytes, volume.status().written_blocks), (0, 513));
    assert!(contents(&volume, 0, 2 << 20).iter().all(|byte| *byte == 0));
    assert!(contents(&volume, 2 << 20, 4096) == noise[..4096]);
    machine.disk.limit(None);
    let volume = machine.killed().volume(1, 64 << 20, Root::EMPTY);
    assert!(contents(&volume, 0, 2 << 20).iter().all(|byte| *byte == 0));
    assert!(contents(&volume, 2 << 20, 4096) == noise[..4096]);
}

#[test]
fn a_fragmented_segment_is_rewritten_once_it_is_cold_and_reads_the_same() {
    let machine = Machine::new();
    let volume = machine.volume(1, 16 << 20, Root::EMPTY);
    let mut expected = vec![0; 4 << 20];
    blake3::Hasher::new().finalize_xof().fill(&mut expected);
    volume.write(ByteOffset(0), &expected).expect("a write");
    volume.seal().expect("a seal");
    for block in (0..1024usize).step_by(3) {
        let at = block * 4096;
        expected[at..at + 4096].fill(if block % 2 == 0 { 1 } else { 2 });
        volume.write(ByteOffset(at as u64), &expected[at..at + 4096]).expect("a write");
    }
    volume.seal().expect("a seal");
    let extents = |root| crate::map::statistics(&*machine.store, machine.storage.nodes(), root).expect("a map").extents;
    let fragmented = extents(volume.sealed().root);
    assert_eq!(volume.rewrite_cold().expect("a rewrite"), 0, "it was written a moment ago");
    for round in 0..8u8 {
        volume.write(ByteOffset(8 << 20), &[round + 1; 4096]).expect("a write");
        volume.seal().expect("a seal");
    }
    let written = volume.sealed().written_blocks;
    assert_eq!(written, 1024 + 342 + 8);
    assert_eq!(volume.rewrite_cold().expect("a rewrite"), 1);
    assert_eq!(volume.sealed().written_blocks, written, "nobody has written anything");
    let rewritten = extents(volume.sealed().root);
    assert!(rewritten * 4 < fragmented, "{fragmented} extents have become {rewritten}");
    assert!(contents(&volume, 0, 4 << 20) == expected);
    let killed = machine.killed();
    assert!(contents(&killed.volume(1, 16 << 20, Root::EMPTY), 0, 4 << 20) == expected);
}

#[test]
fn writers_of_parts_of_one_block_do_not_undo_each_other() {
    let machine = Machine::new();
    let volume = machine.volume(1, 1 << 20, Root::EMPTY);
    let writers: Vec<_> = (0..4u64)
        .map(|writer| {
            let volume = Arc::clone(&volume);
            std::thread::spawn(move || {
                for round in 0..300u64 {
                    let content = [u8::try_from(round % 250 + 1).expect("a small number"); 1000];
                    volume.write(ByteOffset(writer * 1000), &content).expect("a write");
                    let seen = contents(&volume, writer * 1000, 1000);
                    assert!(seen == content, "writer {writer} has lost its write of round {round}");
                    if round % 50 == writer {
                        volume.seal().expect("a seal");
                    }
                }
            })
        })
        .collect();
    for writer in writers {
        writer.join().expect("nobody has lost a write");
    }
}

#[test]
fn the_maps_of_segments_that_are_read_are_there_again_after_a_seal() {
    let machine = Machine::new();
    let volume = machine.volume(1, 8 << 20, Root::EMPTY);
    let read_now = |segment: u64| {
        let range = ByteRange::new(ByteOffset(segment * SEGMENT_SIZE), 4096).expect("a range");
        volume.read_now(range, &mut [0; 4096]).map(|read| read.expect("a block"))
    };
    let write_both = |byte| {
        for segment in [0, 1] {
            volume.write(ByteOffset(segment * SEGMENT_SIZE), &[byte; 4096]).expect("a write");
        }
        volume.seal().expect("a seal");
    };
    for byte in [1, 2] {
        write_both(byte);
        assert!(read_now(0).is_none() && read_now(1).is_none(), "their maps are those of an earlier root");
        if byte == 1 {
            assert_eq!(contents(&volume, 0, 4096), [1; 4096]);
            assert!(read_now(0).is_some() && read_now(1).is_none());
        }
    }
    volume.renew_maps();
    assert!(read_now(0).is_some(), "it was read before");
    assert!(read_now(1).is_none(), "nobody has read it");
    assert_eq!(contents(&volume, 0, 4096), [2; 4096]);
    write_both(3);
    volume.renew_maps();
    write_both(4);
    volume.renew_maps();
    assert!(read_now(0).is_none(), "nobody has read it between the two seals");
    assert_eq!(contents(&volume, 0, 4096), [4; 4096]);
}

#[test]
fn what_guests_read_is_kept_in_memory_when_it_is_sealed() {
    let mut seals = Seals::new();
    assert!(!seals.keep(&[0, 1], 4096), "nobody has read anything");
    contents(&seals.volume, 0, 4096);
    assert!(seals.keep(&[0], 4096), "it was read");
    assert!(!seals.keep(&[0], 4096), "it was not read since");
    contents(&seals.volume, 0, 4096);
    assert!(!seals.keep(&[1], 4096), "another one was read");
}

#[test]
fn what_is_written_from_end_to_end_is_not_kept_in_memory() {
    let mut seals = Seals::new();
    seals.keep(&[0], 4096);
    contents(&seals.volume, 0, 4096);
    assert!(!seals.keep(&[0], SEGMENT_SIZE), "the whole segment was written");
}

/// A volume that is written to and sealed, and whether what is sealed stays in memory.
struct Seals {
    machine: Machine,
    volume: Arc<Volume>,
    count: u64,
}

impl Seals {
    fn new() -> Self {
        let machine = Machine::new();
        let volume = machine.volume(1, 2 * SEGMENT_SIZE, Root::EMPTY);
        Self { machine, volume, count: 0 }
    }

    /// Writes so many bytes, new ones, to the beginning of each of these segments, and seals them: whether packs keep them.
    fn keep(&mut self, segments: &[u64], bytes: u64) -> bool {
        self.count += 1;
        for segment in segments {
            let noise: Vec<u8> = (0..bytes / 32)
                .flat_map(|at| *blake3::hash(&[self.count, *segment, at].map(u64::to_le_bytes).concat()).as_bytes())
                .collect();
            self.volume.write(ByteOffset(segment * SEGMENT_SIZE), &noise).expect("a write");
        }
        let before = self.machine.disk.log().len();
        self.volume.seal().expect("a seal");
        self.volume.renew_maps();
        let kept = |operation| match operation {
            Operation::Write { path, at, is_kept, .. } if path.starts_with("packs/") && at > 0 => Some(is_kept),
            _ => None,
        };
        let kept: Vec<_> = self.machine.disk.log().split_off(before).into_iter().filter_map(kept).collect();
        assert!(!kept.is_empty(), "a seal writes to packs");
        kept.into_iter().all(|is_kept| is_kept)
    }
}
