//! Mirrors: what a member has when its owner is gone, at every moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sterna_types::device::Persistence;
use sterna_types::{BLOCK_SIZE, BlockDevice, ByteOffset, ByteSize, DeviceError, Epoch, Root, VolumeId, VolumeSize};

use super::collect::references;
use super::feed::{Beginning, Copied, Copies, Feed, FeedCut, FeedRecord};
use super::mirror::{Change, Changed};
use super::tests::{Machine, contents, range, spec};
use super::{SealedState, Volume, VolumeDevice, VolumeError, VolumeSpec};
use crate::chunk_store::collect::Reference;
use crate::chunk_store::{ChunkKind, NewChunk, Room};
use crate::disk::simulated::CrashMode;
use crate::journal::record::Sequence;

const SIZE: u64 = 16 << 20;

fn change(record: &FeedRecord) -> Change {
    let first_block = record.blocks.start;
    let what = match record.is_hole() {
        true => Changed::Hole(record.blocks.end - record.blocks.start),
        false => Changed::Data(record.data().expect("contents").into()),
    };
    Change { first_block, what }
}

/// A volume at one machine, and its mirror at another.
struct Pair {
    owner: Arc<Volume>,
    mirror: Arc<Volume>,
    feed: Arc<Feed>,
}

/// Brings all that a root needs from one store to another.
fn bring(from: &Machine, to: &Machine, root: Root) {
    let (from, to) = (from.storage.store(), to.storage.store());
    let mut left: Vec<_> = root.top().map(|id| Reference { kind: ChunkKind::Node, id }).into_iter().collect();
    while let Some(Reference { kind, id }) = left.pop() {
        let bytes = from.get(id).expect("a store").expect("a chunk");
        left.extend(references(kind, &bytes).expect("a part of a map"));
        to.append(&[NewChunk::of(kind, bytes)], Room::BesideReserve, &to.pin()).expect("a stored chunk");
    }
}

fn size() -> VolumeSize {
    VolumeSize::try_from(ByteSize(SIZE)).expect("a size")
}

fn rebase(mirror: &Volume, sealed: SealedState, written_blocks: u64, newer: &[Change]) -> Result<(), VolumeError> {
    let mut rebase = mirror.begin_rebase()?;
    for change in newer {
        mirror.go_on_with_rebase(&mut rebase, size(), std::slice::from_ref(change))?;
    }
    mirror.finish_rebase(rebase, sealed, written_blocks)
}

fn begin(from: &Machine, to: &Machine, owner: &Arc<Volume>) -> Pair {
    let (Beginning { sealed, newer, written_blocks, .. }, feed) = owner.follow().expect("a beginning");
    bring(from, to, sealed.root);
    let mirror = to.storage.open_mirror(&spec(1, SIZE, Root::EMPTY)).expect("a mirror");
    let newer: Vec<_> = newer.iter().map(change).collect();
    rebase(&mirror, sealed, written_blocks, &newer).expect("it begins anew");
    Pair { owner: Arc::clone(owner), mirror, feed }
}

impl Pair {
    /// Passes on what was written.
    async fn pass_on(&self) {
        let last = self.owner.appended();
        loop {
            let records = self.feed.take(1 << 20).await.expect("changes");
            self.mirror.mirror(size(), &records.iter().map(change).collect::<Vec<_>>()).expect("they are made");
            if records.last().is_some_and(|record| record.sequence >= last) {
                return;
            }
        }
    }
}

fn block(seed: u64) -> Vec<u8> {
    let mut block = vec![0; 4096];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut block);
    block
}

fn write(volume: &Volume, at: u64, seed: u64) {
    volume.write(ByteOffset(at * BLOCK_SIZE), &block(seed)).expect("a write");
}

fn all(volume: &Volume) -> Vec<u8> {
    contents(volume, 0, usize::try_from(SIZE).expect("it is in memory"))
}

/// The mirror as the machine opens it that has been made the owner.
fn taken_over(machine: &Machine, published: (Root, u64)) -> Arc<Volume> {
    let (root, generation) = published;
    let epoch = Epoch::FIRST.next();
    let spec = VolumeSpec { epoch, root, generation, reclaimed: Some(Epoch::FIRST), ..spec(1, SIZE, root) };
    Volume::open(&machine.storage, &spec).expect("a volume")
}

#[tokio::test]
async fn a_member_has_all_that_was_flushed_when_power_is_lost() {
    let (one, other) = (Machine::new(), Machine::new());
    let owner = one.volume(1, SIZE, Root::EMPTY);
    (0..40).for_each(|at| write(&owner, at, at));
    owner.seal().expect("a seal");
    (30..60).for_each(|at| write(&owner, at, 100 + at));
    let pair = begin(&one, &other, &owner);
    assert!(all(&pair.mirror) == all(&owner), "it begins with what the owner has");
    write(&owner, 3, 1000);
    owner.zero(range(10 * BLOCK_SIZE, 7 * BLOCK_SIZE)).expect("a hole");
    owner.seal().expect("a seal in between");
    owner.write(ByteOffset(5000), b"a part of a block").expect("a write");
    pair.pass_on().await;
    pair.mirror.flush().expect("a flush");
    let expected = all(&owner);
    let status = owner.status();
    for seed in 0..20 {
        let other = other.without_power(seed, CrashMode::Scramble);
        let volume = taken_over(&other, (status.root, status.generation));
        assert!(all(&volume) == expected, "what was flushed is there");
        let sealed = volume.seal().expect("it can be sealed");
        assert!(sealed.generation > status.generation, "{sealed:?} is none of those that were published");
        assert!(!other.storage.kept(VolumeId(1)).expect("a record").expect("a record").is_mirror);
        write(&volume, 0, 2000);
    }
}

#[tokio::test]
async fn a_mirror_that_begins_anew_has_what_it_had_or_what_its_owner_has_and_nothing_between() {
    let (one, other) = (Machine::new(), Machine::new());
    let owner = one.volume(1, SIZE, Root::EMPTY);
    let pair = begin(&one, &other, &owner);
    (0..8).for_each(|at| write(&owner, at, at));
    pair.pass_on().await;
    pair.mirror.flush().expect("a flush");
    // It loses the thread, and misses what follows; none of that is acknowledged as flushed.
    drop(pair.feed);
    (4..12).for_each(|at| write(&owner, at, 100 + at));
    owner.seal().expect("a seal");
    (10..14).for_each(|at| write(&owner, at, 200 + at));
    (10..12).for_each(|at| write(&owner, at, 300 + at));
    let (Beginning { sealed, newer, written_blocks, .. }, _feed) = owner.follow().expect("a beginning");
    bring(&one, &other, sealed.root);
    let newer: Vec<_> = newer.iter().map(change).collect();
    let begun = other.disk.operations();
    rebase(&pair.mirror, sealed, written_blocks, &newer).expect("it begins anew");
    let steps = other.disk.operations() - begun;
    assert!(all(&pair.mirror) == all(&owner));
    pair.mirror.abandon_rebase(pair.mirror.begin_rebase().expect("it begins once more"));
    assert!(all(&pair.mirror) == all(&owner), "it gives up, and is what it was");
    assert_eq!(pair.mirror.seal().expect("a seal").written_blocks, written_blocks);
    for step in 0..=steps {
        // Another run of the same, which loses power on the way.
        let (one, other) = (Machine::new(), Machine::new());
        let owner = one.volume(1, SIZE, Root::EMPTY);
        let pair = begin(&one, &other, &owner);
        (0..8).for_each(|at| write(&owner, at, at));
        pair.pass_on().await;
        pair.mirror.flush().expect("a flush");
        (4..12).for_each(|at| write(&owner, at, 100 + at));
        owner.seal().expect("a seal");
        (10..14).for_each(|at| write(&owner, at, 200 + at));
        (10..12).for_each(|at| write(&owner, at, 300 + at));
        let (Beginning { sealed, newer, written_blocks, .. }, _feed) = owner.follow().expect("a beginning");
        bring(&one, &other, sealed.root);
        let newer: Vec<_> = newer.iter().map(change).collect();
        other.disk.crash_after(step);
        let done = rebase(&pair.mirror, sealed, written_blocks, &newer);
        let other = other.without_power(step, CrashMode::Scramble);
        let volume = taken_over(&other, (sealed.root, sealed.generation));
        let mut before = vec![0; usize::try_from(SIZE).expect("it is in memory")];
        (0..8).for_each(|at| before[at * 4096..][..4096].copy_from_slice(&block(at as u64)));
        let (found, has_begun) = (all(&volume), all(&volume) == all(&owner));
        assert!(has_begun || found == before, "it has something else after step {step}");
        let count = volume.seal().expect("a seal").written_blocks;
        assert_eq!(count, if has_begun { written_blocks } else { 8 }, "after step {step}");
        assert!(has_begun || done.is_err(), "it was said that it has begun anew, in step {step}");
    }
}

#[tokio::test]
async fn who_takes_over_goes_on_with_a_generation_that_is_not_before_what_was_published() {
    for (published, is_same_root, expected) in [(4, true, 4), (4, false, 5), (0, false, 1)] {
        let (one, other) = (Machine::new(), Machine::new());
        let owner = one.volume(1, SIZE, Root::EMPTY);
        write(&owner, 0, 0);
        owner.seal().expect("a seal");
        let pair = begin(&one, &other, &owner);
        pair.mirror.close();
        let root = if is_same_root { owner.status().root } else { Root::EMPTY };
        assert_eq!(taken_over(&other, (root, published)).sealed().generation, expected);
    }
}

#[test]
fn what_is_no_change_of_the_volume_is_refused() {
    let machine = Machine::new();
    let mirror = machine.storage.open_mirror(&spec(1, SIZE, Root::EMPTY)).expect("a mirror");
    let data = |length: usize| Changed::Data(vec![1; length].into());
    let end = SIZE / BLOCK_SIZE;
    for (first_block, what) in
        [(end, data(4096)), (end - 1, data(8192)), (0, data(100)), (0, Changed::Hole(0)), (u64::MAX, Changed::Hole(2))]
    {
        mirror.mirror(size(), &[Change { first_block, what }]).expect_err("it is outside, or none");
    }
    assert!(machine.storage.kept(VolumeId(1)).expect("a record").expect("it is kept").is_mirror);
    assert!(all(&mirror).iter().all(|byte| *byte == 0));
}

#[tokio::test]
async fn who_is_too_slow_is_cut_off_and_who_closes_the_volume_cuts_off_all() {
    let machine = Machine::new();
    let owner = machine.volume(1, SIZE, Root::EMPTY);
    let (_, feed) = owner.follow().expect("a beginning");
    for _ in 0..=1 << 16 {
        owner.zero(range(0, BLOCK_SIZE)).expect("a hole");
    }
    assert_eq!(feed.take(1).await.expect_err("more was written than a feed holds"), FeedCut);
    let (_, feed) = owner.follow().expect("a beginning");
    owner.close();
    assert_eq!(feed.take(1).await.expect_err("it is closed"), FeedCut);
}

/// Copies that are durable when a test says so.
#[derive(Debug, Default)]
struct Told {
    wanted: std::sync::Mutex<Vec<Sequence>>,
    needed: AtomicBool,
    done: tokio::sync::Notify,
}

impl Copies for Told {
    fn are_needed(&self) -> bool {
        self.needed.load(Ordering::Acquire)
    }

    fn durable(&self, through: Sequence) -> Copied<'_> {
        self.wanted.lock().expect("no panic").push(through);
        Box::pin(async {
            self.done.notified().await;
            Ok::<_, DeviceError>(())
        })
    }
}

#[tokio::test]
async fn a_flush_and_a_write_through_wait_for_copies_where_they_are_needed() {
    let machine = Machine::new();
    let volume = machine.volume(1, SIZE, Root::EMPTY);
    let device = VolumeDevice::new(Arc::clone(&volume));
    let copies = Arc::new(Told::default());
    volume.set_copies(Some(Arc::<Told>::clone(&copies)));
    device.flush().await.expect("nobody is waited for");
    copies.needed.store(true, Ordering::Release);
    let through = |persistence| device.write(ByteOffset(0), vec![1; 4096].into(), persistence);
    through(Persistence::AtNextFlush).await.expect("it waits for nobody");
    assert!(matches!(device.try_flush(), sterna_types::device::Inline::Later), "not without them");
    for waits in [device.flush(), through(Persistence::Durable)] {
        let mut waits = waits;
        let early = tokio::time::timeout(Duration::from_millis(50), &mut waits).await;
        assert!(early.is_err(), "it was acknowledged without them");
        copies.done.notify_one();
        waits.await.expect("they have it");
    }
    assert_eq!(*copies.wanted.lock().expect("no panic"), [Sequence(1), Sequence(2)]);
}
