//! A volume of which nothing is here but the name of its root: what is read of it comes from another machine, and only that.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use sterna_types::device::{Allocation, Inline, Persistence, ReadData, ZeroRequest};
use sterna_types::{BLOCK_SIZE, BlockDevice, ByteOffset, ByteRange, ChunkId, DeviceError, Root, SEGMENT_SIZE};
use tokio::sync::Semaphore;

use super::absence::{Absence, Supplied, Supply, Urgency};
use super::storage::lock;
use super::tests::{Machine, contents, range};
use super::{Sealer, Volume, VolumeDevice, VolumeError};
use crate::chunk_store::ChunkKind::{self, Data, Manifest, Node};
use crate::gaps::{Wanted, store_fetched};

const SIZE: u64 = 20 * SEGMENT_SIZE;
const BLOCK: usize = 4096;

/// Brings what is lacking from another machine: chunks from its store, blocks from its volume.
#[derive(Debug)]
pub(super) struct Courier {
    from: Arc<Volume>,
    brought: Mutex<Vec<Absence>>,
    /// How many times somebody waited.
    waits: Mutex<usize>,
    is_cut_off: Mutex<bool>,
}

impl Supply for Courier {
    fn bring<'a>(&'a self, volume: &'a Arc<Volume>, absence: Absence, urgency: Urgency) -> Supplied<'a> {
        Box::pin(async move {
            *lock(&self.waits) += usize::from(urgency == Urgency::Waited);
            if *lock(&self.is_cut_off) {
                return Err(DeviceError::Io(std::io::Error::other("cut off")));
            }
            self.carry(volume, &absence);
            lock(&self.brought).push(absence);
            Ok(())
        })
    }
}

impl Courier {
    pub(super) fn from(from: &Arc<Volume>) -> Arc<Self> {
        let from = Arc::clone(from);
        Arc::new(Self { from, brought: Mutex::default(), waits: Mutex::default(), is_cut_off: Mutex::new(false) })
    }

    /// Has all of it at `volume`.
    pub(super) fn carry(&self, volume: &Volume, absence: &Absence) {
        let get = |wanted: &Wanted| self.from.storage.store().get(wanted.id).expect("a store").expect("a chunk");
        let chunks = absence.chunks.iter().map(|wanted| (*wanted, get(wanted))).collect();
        let store = volume.storage.store();
        store_fetched(store, &store.pin(), chunks).expect("stored chunks");
        for blocks in &absence.blocks {
            let length = usize::try_from((blocks.end - blocks.start) * BLOCK_SIZE).expect("short");
            let data = contents(&self.from, blocks.start * BLOCK_SIZE, length);
            volume.take_in(blocks.start, &data).expect("room in the journal");
        }
    }

    /// What was brought since the last call: how many times, and the kinds of the chunks.
    fn brought(&self) -> (usize, Vec<ChunkKind>) {
        let brought = std::mem::take(&mut *lock(&self.brought));
        let ids: BTreeSet<ChunkId> = brought.iter().flat_map(|absence| &absence.chunks).map(|chunk| chunk.id).collect();
        let kinds: Vec<_> = brought.iter().flat_map(|absence| &absence.chunks).map(|chunk| chunk.kind).collect();
        assert_eq!(ids.len(), kinds.len(), "something was brought twice");
        (brought.len(), kinds)
    }
}

/// Of each of the first four segments a few blocks, no two of them alike, and some chunks of their own.
fn written(volume: &Volume) {
    for segment in 0..4 {
        for block in [0, 1, 2, 100, 101, 900] {
            volume
                .write(ByteOffset(segment * SEGMENT_SIZE + block * BLOCK_SIZE), &block_of(segment, block))
                .expect("a write");
            volume.seal().expect("a seal");
        }
    }
}

fn block_of(segment: u64, block: u64) -> [u8; BLOCK] {
    let mut bytes = [7; BLOCK];
    bytes[..8].copy_from_slice(&(segment * 10_000 + block).to_le_bytes());
    bytes
}

/// A volume that was written on one machine, on another one that has nothing of it.
struct Moved {
    here: Machine,
    volume: Arc<Volume>,
    device: VolumeDevice,
    courier: Arc<Courier>,
}

fn moved() -> Moved {
    let there = Machine::new();
    let written_there = there.volume(1, SIZE, Root::EMPTY);
    written(&written_there);
    let root = written_there.sealed().root;
    let here = Machine::new();
    let volume = here.volume(1, SIZE, root);
    let courier = Courier::from(&written_there);
    volume.set_supply(Some(courier.clone()));
    Moved { here, device: VolumeDevice::new(Arc::clone(&volume)), volume, courier }
}

fn at(segment: u64, block: u64) -> ByteRange {
    range(segment * SEGMENT_SIZE + block * BLOCK_SIZE, BLOCK_SIZE)
}

fn is_later<T>(answer: Inline<T>) -> bool {
    matches!(answer, Inline::Later)
}

async fn read(device: &VolumeDevice, range: ByteRange) -> Vec<u8> {
    match device.read(range).await.expect("a read") {
        ReadData::Bytes(bytes) => bytes.to_vec(),
        ReadData::Zeroes => vec![0; usize::try_from(range.length()).expect("short")],
    }
}

#[tokio::test]
async fn what_is_read_is_brought_once_and_nothing_else_is() {
    let Moved { volume, device, courier, .. } = moved();
    let mut into = [0; BLOCK];
    assert!(is_later(device.try_read(at(1, 100).start(), &mut into)), "it would have to wait");
    assert_eq!(read(&device, at(1, 100)).await, block_of(1, 100));
    assert_eq!(courier.brought(), (5, vec![Node, Node, Node, Manifest, Data]));
    assert_eq!(read(&device, at(1, 100)).await, block_of(1, 100));
    assert_eq!(read(&device, at(1, 500)).await, [0; BLOCK], "a hole is known by the map");
    assert_eq!(courier.brought().0, 0);

    // What is here of a segment is read by whoever may not wait, whatever else of it is absent.
    assert!(!is_later(device.try_read(at(1, 100).start(), &mut into)));
    assert_eq!(into, block_of(1, 100));
    assert!(is_later(device.try_read(at(1, 900).start(), &mut into)));

    // Both segments at once, level by level.
    let two = range(2 * SEGMENT_SIZE, SEGMENT_SIZE + 3 * BLOCK_SIZE);
    let bytes = read(&device, two).await;
    assert_eq!(bytes[..BLOCK], block_of(2, 0));
    assert_eq!(bytes[bytes.len() - BLOCK..], block_of(3, 2));
    let (times, kinds) = courier.brought();
    assert_eq!((times, &kinds[..2]), (2, &[Manifest, Manifest][..]));
    assert_eq!(kinds[2..], [Data; 9], "six of one, three of the other");

    courier.is_cut_off.lock().map(|mut cut| *cut = true).expect("a lock");
    assert_eq!(read(&device, at(1, 100)).await, block_of(1, 100), "what is here can be read");
    let error = device.read(at(0, 0)).await.expect_err("it is elsewhere");
    assert!(error.to_string().contains("cut off"), "{error}");
    volume.set_supply(None);
    let mut into = [0; BLOCK];
    let error = volume.read(at(0, 0), &mut into).expect_err("it is nowhere");
    assert!(matches!(error, VolumeError::Absent(_) | VolumeError::Map(_)), "{error}");
    assert!(device.read(at(0, 0)).await.is_err());
}

#[tokio::test]
async fn who_reads_on_and_on_waits_seldom() {
    let there = Machine::new();
    let written_there = there.volume(1, SIZE, Root::EMPTY);
    let mut bytes = vec![0; usize::try_from(2 * SEGMENT_SIZE).expect("short")];
    let mut state = 1_u64;
    for place in bytes.chunks_mut(8) {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        place.copy_from_slice(&state.to_le_bytes());
    }
    written_there.write(ByteOffset(0), &bytes).expect("a write");
    written_there.seal().expect("a seal");
    let here = Machine::new();
    let volume = here.volume(1, SIZE, written_there.sealed().root);
    let courier = Courier::from(&written_there);
    volume.set_supply(Some(courier.clone()));
    let device = VolumeDevice::new(volume);
    for (number, expected) in (0..).zip(bytes.chunks(4 * BLOCK)) {
        let found = read(&device, range(number * 4 * BLOCK_SIZE, 4 * BLOCK_SIZE)).await;
        assert!(found == expected, "read {number} finds something else");
    }
    // This courier brings what two ask for twice.
    let brought = std::mem::take(&mut *lock(&courier.brought));
    let chunks: BTreeSet<_> = brought.iter().flat_map(|absence| &absence.chunks).collect();
    let data = chunks.iter().filter(|chunk| chunk.kind == Data).count();
    let waits = *lock(&courier.waits);
    assert!(data > 100 && waits < data / 4, "{waits} waits for {data} chunks");
}

#[tokio::test]
async fn a_write_of_whole_blocks_needs_nothing_and_of_a_part_what_is_around_it() {
    let Moved { device, courier, .. } = moved();
    let begin = at(0, 100).start();
    device.write(begin, vec![1; 2 * BLOCK].into(), Persistence::Durable).await.expect("a write");
    assert_eq!(courier.brought().0, 0);
    assert_eq!(read(&device, at(0, 101)).await, [1; BLOCK]);
    let part = ByteOffset(at(2, 1).start().0 + 96);
    device.write(part, vec![2; 100].into(), Persistence::AtNextFlush).await.expect("a write");
    assert_eq!(courier.brought().1.iter().filter(|kind| **kind == ChunkKind::Data).count(), 1);
    let mut expected = block_of(2, 1);
    expected[96..196].fill(2);
    assert_eq!(read(&device, at(2, 1)).await, expected);
    let begin = ByteOffset(at(3, 900).start().0 + 512);
    let (range, persistence) = (range(begin.0, 512), Persistence::AtNextFlush);
    let zeroes = ZeroRequest { range, keep_allocated: false, only_if_fast: false, persistence };
    device.write_zeroes(zeroes).await.expect("zeroes");
    let mut expected = block_of(3, 900);
    expected[512..1024].fill(0);
    assert_eq!(read(&device, at(3, 900)).await, expected);
}

#[tokio::test]
async fn a_seal_has_the_parts_of_the_map_brought_that_it_changes_and_no_data() {
    let Moved { here, volume, device, courier, .. } = moved();
    for segment in 0..4 {
        device.write(at(segment, 1).start(), vec![9; BLOCK].into(), Persistence::AtNextFlush).await.expect("a write");
    }
    let whole = range(10 * SEGMENT_SIZE, SEGMENT_SIZE);
    device
        .write(whole.start(), vec![8; usize::try_from(whole.length()).expect("short")].into(), Persistence::AtNextFlush)
        .await
        .expect("a write");
    let error = volume.seal().expect_err("the map is elsewhere");
    assert!(error.absence().is_some(), "{error}");
    assert_eq!(volume.status().seal_failure, None, "it waits, and has not failed");
    let sealer = Sealer::start(Arc::clone(&volume), Arc::new(Semaphore::new(1)));
    volume.seal_wanted.notify_one();
    while volume.status().unsealed_bytes > 0 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    sealer.stop().await;
    assert_eq!(courier.brought(), (4, vec![Node, Node, Node, Manifest, Manifest, Manifest, Manifest]));
    assert_eq!(read(&device, at(3, 0)).await, block_of(3, 0));
    assert_eq!(read(&device, at(3, 1)).await, [9; BLOCK]);

    let here = here.killed();
    let again = here.volume(1, SIZE, Root::EMPTY);
    assert_eq!(contents(&again, at(2, 1).start().0, BLOCK), [9; BLOCK]);
    assert!(again.read(at(2, 2), &mut [0; BLOCK]).is_err(), "it is still elsewhere");
}

#[tokio::test]
async fn what_is_allocated_is_told_by_the_map_alone() {
    let Moved { device, courier, .. } = moved();
    let runs = device.allocation(range(0, SIZE), 100).await.expect("runs");
    let data: u64 = runs.iter().filter(|run| run.status == Allocation::Data).map(|run| run.length).sum();
    assert_eq!(data, 4 * 6 * BLOCK_SIZE);
    assert!(courier.brought().1.iter().all(|kind| *kind != ChunkKind::Data));
    device.prefetch(at(1, 0)).await.expect("a hint");
    assert_eq!(courier.brought().1, [ChunkKind::Data]);
}
