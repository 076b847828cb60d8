//! Collections: what is reached stays, what is not goes, whatever happens in between.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock, Weak};

use bytes::Bytes;
use proptest::prelude::{Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};

use super::*;
use crate::chunk_store::index::{Batch, Index, IndexError, KeyValue, MemoryIndex, Space};
use crate::chunk_store::testing::{
    EAGER, Machine, OPTIONS, collected, data, parent, reachable, references, root, root_of, tree,
};
use crate::chunk_store::{Encoding, NewChunk, Room};
use crate::disk::SimulatedDisk;
use crate::disk::simulated::CrashMode;

#[test]
fn what_no_root_reaches_is_removed_and_its_space_given_back() {
    let machine = Machine::new();
    let (kept, dropped) = (tree(&[&[1, 2, 3], &[5, 7]]), tree(&[&[1, 9, 11, 13, 15, 17, 19]]));
    machine.append(&kept).expect("chunks");
    machine.append(&dropped).expect("chunks");
    let located = machine.store.locate(data(9, 2).id).expect("an answer").expect("a place");
    let before = machine.pack_bytes();
    let report = machine.collect(&[root_of(&kept)], &EAGER).expect("a report");
    assert!(report.finished);
    assert_eq!((report.marked_chunks, report.dead_chunks, report.absent_chunks), (8, 8, 0));
    assert_eq!((report.removed_packs, report.moved_chunks, report.damaged_packs), (1, 8, 0));
    assert_eq!(report.compacted_packs, 1);
    let after = machine.pack_bytes();
    assert!(after < before, "{before} bytes have become {after}");
    assert_eq!(machine.store.get(data(9, 2).id).expect("an answer"), None);
    let mut block = vec![0; 4096];
    machine.store.read(&located, 0, &mut block).expect("a chunk that somebody had found");
    let cold = machine.store.locate(data(2, 1).id).expect("an answer").expect("a place");
    assert!(matches!(cold.encoding, Encoding::Zstd { .. }), "what compresses was not compressed");
    machine.store.read(&cold, 0, &mut block).expect("a compressed block");
    assert_eq!(block, data(2, 1).bytes);
    machine.check();
    machine.check_reachable([root_of(&kept)]);
    let again = machine.collect(&[root_of(&kept)], &EAGER).expect("a report");
    assert_eq!((again.dead_chunks, again.removed_packs), (0, 0), "nothing is left to do");
}

#[test]
fn packs_in_which_nothing_lives_go_without_being_read() {
    let machine = Machine::new();
    machine.append(&tree(&[&[1, 3]])).expect("chunks");
    let report = machine.collect(&[], &EAGER).expect("a report");
    assert_eq!((report.dead_chunks, report.removed_packs, report.moved_chunks), (4, 1, 0));
    assert_eq!(report.compacted_packs, 0, "nothing in it was moved");
    assert_eq!(machine.store.stats().expect("figures"), crate::chunk_store::StoreStats::default());
}

#[test]
fn on_a_full_disk_each_compacted_pack_makes_room_for_the_next_and_what_finds_none_is_told() {
    let machine = Machine::new();
    let append = |seeds: &[u64], dead: u64| {
        let kept: Vec<NewChunk> = seeds.iter().map(|seed| data(*seed, 1)).collect();
        machine.append(&kept).expect("chunks");
        machine.append(&[data(dead, 7)]).expect("a chunk that nobody needs");
        machine.store.close_pack();
        kept.iter().map(|chunk| chunk.id).collect::<Vec<_>>()
    };
    let (large, small) = (append(&[1, 3, 5, 7, 9, 11], 101), append(&[13, 15], 103));
    let manifest = parent(ChunkKind::Manifest, &[large, small].concat());
    let top = parent(ChunkKind::Node, &[manifest.id]);
    machine.append(&[manifest, top.clone()]).expect("a map");
    let before = machine.pack_bytes();
    let collected = |room: u64| {
        machine.disk.limit(Some(machine.pack_bytes() + OPTIONS.reserve_bytes / 2 + room));
        let report = machine.collect(&[top.id], &EAGER).expect("a report");
        machine.disk.limit(None);
        machine.check();
        machine.check_reachable([top.id]);
        report
    };
    // Only the map has room.
    let report = collected(5000);
    assert!(report.finished && report.cramped_packs == 2, "{report:?}");
    assert!((14 * 4096..22 * 4096).contains(&report.cramped_bytes), "{report:?}");
    // The smaller pack has, too, and makes room for the larger one.
    let report = collected(12_000);
    assert_eq!((report.cramped_packs, report.cramped_bytes), (0, 0), "{report:?}");
    assert!(report.compacted_packs >= 2 && machine.pack_bytes() + 14 * 4096 < before, "{report:?}");
}

#[test]
fn frames_that_a_crash_left_are_reclaimed() {
    let machine = Machine::new();
    machine.append(&tree(&[&[1, 3]])).expect("chunks");
    machine.disk.crash_after(1);
    assert!(machine.append(&tree(&[&[5, 7, 9, 11]])).is_err(), "it was written, and not synced");
    let reopened = machine.after_kill();
    let root = root_of(&tree(&[&[1, 3]]));
    let report = reopened.collect(&[root], &EAGER).expect("a report");
    assert_eq!((report.dead_chunks, report.moved_chunks, report.removed_packs), (0, 4, 1));
    reopened.check_reachable([root]);
}

#[test]
fn a_collection_says_how_far_it_has_come() {
    let machine = Machine::new();
    let (kept, dropped) = (tree(&[&[1, 2, 3], &[5, 7]]), tree(&[&[9, 11, 13]]));
    machine.append(&kept).expect("chunks");
    machine.append(&dropped).expect("chunks");
    let stored_bytes = machine.store.stats().expect("figures").stored_bytes;
    let (mut heard, roots) = (Vec::new(), [root(root_of(&kept))]);
    let mut on_progress = |progress| heard.push(progress);
    let never = AtomicBool::new(false);
    let report = machine.store.collect(|| Ok(roots), &references, &EAGER, &mut on_progress, &never).expect("a report");
    assert_eq!(report.marked_bytes + report.dead_bytes, stored_bytes);
    assert!(heard.is_sorted_by_key(|progress: &Progress| progress.done_bytes), "{heard:?}");
    assert_eq!(heard[0].total_bytes, stored_bytes);
    // All is judged, and then what lives is moved.
    let end = stored_bytes + report.marked_bytes;
    assert_eq!(heard.last(), Some(&Progress { done_bytes: end, total_bytes: end }));
}

#[test]
fn many_small_packs_are_joined() {
    let mut machine = Machine::new();
    let mut roots = Vec::new();
    for seed in 0..9 {
        let chunks = tree(&[&[2 * seed + 1]]);
        machine.append(&chunks).expect("chunks");
        roots.push(root_of(&chunks));
        machine = machine.after_kill();
    }
    let options = CollectOptions { dead_percent: 100, ..CollectOptions::default() };
    let report = machine.collect(&roots, &options).expect("a report");
    assert_eq!((report.removed_packs, report.moved_chunks), (9, 27));
    assert_eq!(machine.store.stats().expect("figures").packs, 3, "each is full at 40,000 bytes");
    machine.check_reachable(roots);
}

#[test]
fn what_is_not_here_is_counted_and_no_error() {
    let machine = Machine::new();
    let chunks = tree(&[&[1, 3], &[5]]);
    let partial: Vec<NewChunk> = chunks.iter().filter(|chunk| chunk.id != data(1, 1).id).cloned().collect();
    machine.append(&partial).expect("chunks");
    let report = machine.collect(&[root_of(&chunks), data(7, 1).id], &EAGER).expect("a report");
    assert_eq!((report.absent_chunks, report.marked_chunks, report.dead_chunks), (2, 5, 0));
}

#[test]
fn nothing_is_removed_while_the_map_cannot_be_read() {
    let machine = Machine::new();
    let chunks = tree(&[&[1, 3]]);
    machine.append(&chunks).expect("chunks");
    let manifest = machine.store.locate(chunks[2].id).expect("an answer").expect("a place");
    manifest.file.write_at(manifest.offset, &[&[0xff; 8]]).expect("damage");
    let refused = machine.collect(&[root_of(&chunks)], &EAGER);
    assert!(matches!(refused, Err(CollectError::Unreadable { id, .. }) if id == chunks[2].id), "{refused:?}");
    assert_eq!(machine.store.stats().expect("figures").chunks, 4);
    let odd = NewChunk::of(ChunkKind::Manifest, Bytes::from_static(b"not a list of ids"));
    machine.append(std::slice::from_ref(&odd)).expect("a chunk");
    assert!(matches!(machine.collect(&[odd.id], &EAGER), Err(CollectError::Unreadable { .. })));
    machine.append(&[data(9, 2)]).expect("appends go on");
}

#[test]
fn a_pack_with_damage_stays_when_the_rest_of_it_has_moved() {
    let machine = Machine::new();
    let chunks = tree(&[&[1, 3]]);
    machine.append(&chunks).expect("chunks");
    machine.append(&tree(&[&[5, 7, 9, 11]])).expect("chunks");
    let block = machine.store.locate(data(1, 1).id).expect("an answer").expect("a place");
    block.file.write_at(block.offset, &[b"damage"]).expect("damage");
    let report = machine.collect(&[root_of(&chunks)], &EAGER).expect("a report");
    assert_eq!((report.moved_chunks, report.damaged_packs, report.removed_packs), (3, 1, 0));
    assert_eq!(report.compacted_packs, 0, "it is still there");
    let bad = machine.store.get(data(1, 1).id);
    assert!(matches!(bad, Err(StoreError::Corrupt { .. })), "{bad:?}");
}

#[test]
fn a_manifest_that_a_guest_had_in_a_block_of_its_own_is_followed() {
    // A manifest of just one block, as data first; `keep` cannot tell, `append` can.
    let children: Vec<NewChunk> = (0..128).map(|seed| data(seed, 1)).collect();
    let manifest = parent(ChunkKind::Manifest, &children.iter().map(|chunk| chunk.id).collect::<Vec<_>>());
    let block = NewChunk { kind: ChunkKind::Data, ..manifest.clone() };
    let image = parent(ChunkKind::Manifest, &[children[0].id, block.id]);
    let top = parent(ChunkKind::Node, &[manifest.id]);
    for appended in [true, false] {
        let machine = Machine::new();
        machine.append(&children).and_then(|()| machine.append(&[block.clone(), image.clone()])).expect("chunks");
        let fresh = if appended { vec![manifest.clone(), top.clone()] } else { vec![top.clone()] };
        machine.append(&fresh).expect("chunks");
        let guest = Ok(Reference { kind: ChunkKind::Manifest, id: image.id });
        let roots = [guest, root(top.id)];
        let report = collected(&machine.store, || Ok(roots), &references);
        assert_eq!((report.marked_chunks, report.dead_chunks), (131, 0));
        assert_eq!(machine.store.get(data(100, 1).id).expect("a chunk"), Some(data(100, 1).bytes));
        let kept = machine.store.entry(manifest.id).expect("an answer").expect("an entry").frame.kind;
        assert_eq!(kept, if appended { ChunkKind::Manifest } else { ChunkKind::Data });
    }
}

#[test]
fn a_cancelled_collection_ends_and_loses_nothing() {
    let machine = Machine::new();
    let chunks = tree(&[&[1, 3]]);
    machine.append(&chunks).expect("chunks");
    let pin = machine.store.pin();
    let cancel = AtomicBool::new(true);
    let roots = || -> Result<Vec<Result<Reference, StoreError>>, StoreError> { panic!("asked before it began") };
    let report = machine.store.collect(roots, &references, &EAGER, &mut |_| {}, &cancel).expect("a report");
    assert_eq!(report, CollectReport::default());
    drop(pin);
    let roots = || Ok([root(root_of(&chunks))]);
    let report = machine.store.collect(roots, &references, &EAGER, &mut |_| {}, &cancel).expect("a report");
    assert!(!report.finished && report.removed_packs == 0);
    machine.check_reachable([root_of(&chunks)]);
    assert!(machine.collect(&[], &EAGER).expect("a report").finished);
}

#[test]
fn what_is_kept_while_chunks_are_marked_stays_with_all_that_it_refers_to() {
    let machine = Machine::new();
    let (first, other) = (tree(&[&[1, 3]]), tree(&[&[5, 7]]));
    machine.append(&first).expect("chunks");
    machine.append(&other).expect("chunks");
    let pin = Mutex::new(None);
    let keeping = |kind: ChunkKind, bytes: &[u8]| {
        let mut pin = pin.lock().expect("a lock");
        if pin.is_none() {
            let taken = machine.store.pin();
            assert!(machine.store.keep(root_of(&other), &taken).expect("an answer"));
            *pin = Some(taken);
        }
        references(kind, bytes)
    };
    let roots = [root(root_of(&first))];
    let report = collected(&machine.store, || Ok(roots), &keeping);
    assert_eq!((report.marked_chunks, report.dead_chunks), (8, 0));
    machine.check_reachable([root_of(&first), root_of(&other)]);
}

#[test]
fn a_dead_chunk_counts_as_absent_while_it_is_swept_and_can_be_stored_anew() {
    let machine = Machine::new();
    machine.append(&tree(&[&[1, 3]])).expect("chunks");
    let (never, mut ignore) = (AtomicBool::new(false), |_| {});
    let end = machine.store.begin().expect("a beginning");
    let mut run = Run::new(&EAGER, 0, &mut ignore, &never);
    assert!(machine.store.mark_all([], &references, &mut run).expect("marks"));
    let pin = machine.store.pin();
    assert!(!machine.store.keep(data(1, 1).id, &pin).expect("an answer"));
    machine.store.append(&[data(1, 1)], Room::BesideReserve, &pin).expect("a chunk stored again");
    assert!(machine.store.keep(data(1, 1).id, &pin).expect("an answer"));
    assert!(machine.store.sweep_and_compact(&mut run).expect("a sweep"));
    drop(end);
    assert_eq!((run.report.dead_chunks, run.report.removed_packs), (3, 1));
    assert_eq!(machine.store.get(data(1, 1).id).expect("a chunk"), Some(data(1, 1).bytes));
    machine.check();
}

/// An index that does something else between the reading of a page and its answer, and asserts that entries are changed
/// with the lock held that makes this safe.
#[derive(Default)]
struct Interrupted {
    index: MemoryIndex,
    between: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    store: OnceLock<Weak<PackStore>>,
}

impl std::fmt::Debug for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.index.fmt(f)
    }
}

impl Index for Interrupted {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        self.index.get(space, key)
    }

    fn page(&self, space: Space, prefix: &[u8], after: Option<&[u8]>, n: usize) -> Result<Vec<KeyValue>, IndexError> {
        let page = self.index.page(space, prefix, after, n);
        if let Some(between) = self.between.lock().expect("a lock").take() {
            between();
        }
        page
    }

    fn commit(&self, batch: Batch, durable: bool) -> Result<(), IndexError> {
        let store = self.store.get().and_then(Weak::upgrade);
        assert!(batch.is_empty() || store.is_none_or(|store| store.is_marking_locked()), "{batch:?}");
        self.index.commit(batch, durable)
    }

    fn check_sound(&self) -> Result<(), IndexError> {
        self.index.check_sound()
    }
}

#[test]
fn a_chunk_that_is_stored_anew_just_before_its_old_entry_is_removed_stays() {
    let index = Arc::new(Interrupted::default());
    let store = PackStore::open(Arc::new(SimulatedDisk::new()), index.clone(), OPTIONS).expect("a store");
    let store = Arc::new(store);
    index.store.set(Arc::downgrade(&store)).expect("it was not set");
    store.append(&[data(1, 1), data(3, 1), data(5, 1)], Room::BesideReserve, &store.pin()).expect("chunks");
    let other = Arc::clone(&store);
    *index.between.lock().expect("a lock") = Some(Box::new(move || {
        other.append(&[data(1, 1)], Room::BesideReserve, &other.pin()).expect("a chunk stored again");
    }));
    let roots = [Ok(Reference { kind: ChunkKind::Data, id: data(5, 1).id })];
    let report = collected(&store, || Ok(roots), &references);
    assert_eq!((report.dead_chunks, report.moved_chunks, report.removed_packs), (1, 1, 1));
    assert_eq!(store.get(data(1, 1).id).expect("a chunk"), Some(data(1, 1).bytes));
    assert_eq!(store.get(data(3, 1).id).expect("an answer"), None);
}

/// Appends, drops roots and collects; the roots that are recorded, and those that may be.
fn workload(machine: &Machine) -> Vec<ChunkId> {
    let trees = [tree(&[&[1, 2, 3], &[5]]), tree(&[&[1, 7, 9, 11]]), tree(&[&[2, 4, 6], &[5]]), tree(&[&[13]])];
    let mut recorded = Vec::new();
    for chunks in &trees[..2] {
        if machine.append(chunks).is_err() {
            return recorded;
        }
        recorded.push(root_of(chunks));
    }
    recorded.remove(1);
    if machine.collect(&recorded, &EAGER).is_err() {
        return recorded;
    }
    for chunks in &trees[2..] {
        if machine.append(chunks).is_err() {
            return recorded;
        }
        recorded.push(root_of(chunks));
    }
    recorded.remove(0);
    let options = CollectOptions { dead_percent: 5, ..EAGER };
    let _ = machine.collect(&recorded, &options);
    recorded
}

#[test]
fn a_crash_at_every_operation_of_a_collection_loses_nothing_that_lives() {
    for crash_at in 0.. {
        let machine = Machine::new();
        machine.disk.crash_after(crash_at);
        let recorded = workload(&machine);
        for seed in 0..5 {
            for mode in CrashMode::ALL {
                let reopened = machine.after_crash(seed, mode);
                reopened.check();
                reopened.check_reachable(recorded.iter().copied());
                let report = reopened.collect(&recorded, &EAGER).expect("a collection that ends");
                assert!(report.finished && report.damaged_packs == 0 && report.absent_chunks == 0, "{report:?}");
                reopened.check();
                reopened.check_reachable(recorded.iter().copied());
                let live = reachable(|id| reopened.store.get(id).expect("a chunk"), recorded.iter().copied());
                assert_eq!(reopened.store.stats().expect("figures").chunks, live.len() as u64);
            }
        }
        if !machine.disk.has_crashed() {
            assert!(crash_at > 30, "{crash_at} operations are few");
            break;
        }
    }
}

#[test]
fn an_error_at_every_operation_of_a_collection_loses_nothing_that_lives() {
    for fails in 1.. {
        let machine = Machine::new();
        machine.disk.fail_operation(fails);
        let recorded = workload(&machine);
        machine.check_reachable(recorded.iter().copied());
        let reopened = machine.after_crash(fails, CrashMode::Scramble);
        reopened.check();
        reopened.check_reachable(recorded.iter().copied());
        if machine.disk.operations() < fails {
            break;
        }
    }
}

#[test]
fn appends_and_collections_at_the_same_time_lose_no_recorded_root() {
    let machine = Machine::new();
    let recorded: Mutex<BTreeMap<u64, ChunkId>> = Mutex::default();
    let finished = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for thread in 0..2u64 {
            let (machine, recorded, finished) = (&machine, &recorded, &finished);
            scope.spawn(move || {
                for round in 0..150u64 {
                    // Few seeds, so that the dead of one round are wanted again in another.
                    let seeds: Vec<u64> = (0..4).map(|n| (round * 7 + n * 5 + thread * 3) % 23).collect();
                    let chunks = tree(&[&seeds[..2], &seeds[2..]]);
                    let pin = machine.store.pin();
                    machine.store.append(&chunks, Room::BesideReserve, &pin).expect("chunks");
                    recorded.lock().expect("a lock").insert(thread, root_of(&chunks));
                    drop(pin);
                    machine.check_reachable([root_of(&chunks)]);
                }
                finished.fetch_add(1, Ordering::SeqCst);
            });
        }
        let mut dead = 0;
        while finished.load(Ordering::SeqCst) < 2 {
            let roots = || Ok(recorded.lock().expect("a lock").values().map(|id| root(*id)).collect::<Vec<_>>());
            let report = collected(&machine.store, roots, &references);
            dead += report.dead_chunks;
        }
        assert!(dead > 0, "no collection had anything to do");
    });
    machine.check();
    machine.check_reachable(recorded.into_inner().expect("a lock").into_values());
}

#[derive(Clone, Debug)]
enum Step {
    Append(Vec<u64>),
    Kill,
    Crash(u64),
    /// Keeps the roots whose bit is set.
    Collect(u8, u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => proptest::collection::vec(0u64..40, 1..8).prop_map(Step::Append),
        1 => proptest::strategy::Just(Step::Kill),
        1 => any::<u64>().prop_map(Step::Crash),
        2 => (any::<u8>(), 1u8..100).prop_map(|(roots, percent)| Step::Collect(roots, percent)),
    ];
    proptest::collection::vec(step, 1..25)
}

proptest! {
    #[test]
    fn a_store_is_a_map_of_what_its_roots_reach(steps in steps()) {
        let mut machine = Machine::new();
        let mut model: BTreeMap<ChunkId, Bytes> = BTreeMap::new();
        let mut roots: Vec<ChunkId> = Vec::new();
        for step in steps {
            match step {
                Step::Append(seeds) => {
                    let (left, right) = seeds.split_at(seeds.len() / 2);
                    let chunks = if left.is_empty() { tree(&[right]) } else { tree(&[left, right]) };
                    machine.append(&chunks).expect("chunks");
                    roots.push(root_of(&chunks));
                    model.extend(chunks.into_iter().map(|chunk| (chunk.id, chunk.bytes)));
                }
                Step::Kill => machine = machine.after_kill(),
                Step::Crash(seed) => machine = machine.after_crash(seed, CrashMode::Scramble),
                Step::Collect(kept, dead_percent) => {
                    let mut bits = (0..8).cycle();
                    roots.retain(|_| bits.next().is_some_and(|bit| kept >> bit & 1 == 1));
                    let report = machine.collect(&roots, &CollectOptions { dead_percent, ..EAGER }).expect("a report");
                    prop_assert!(report.finished && report.damaged_packs == 0 && report.absent_chunks == 0);
                    let live: BTreeSet<ChunkId> =
                        reachable(|id| model.get(&id).cloned(), roots.iter().copied()).into_iter().collect();
                    model.retain(|id, _| live.contains(id));
                }
            }
            prop_assert_eq!(machine.store.stats().expect("figures").chunks, model.len() as u64);
        }
        for (id, bytes) in &model {
            prop_assert!(machine.store.get(*id).expect("a chunk").as_ref() == Some(bytes));
        }
        machine.check();
    }
}

#[test]
fn a_second_collection_is_refused_while_one_runs() {
    let machine = Machine::new();
    let chunks = [data(1, 1), parent(ChunkKind::Manifest, &[data(1, 1).id])];
    machine.append(&chunks).expect("chunks");
    let again = |kind: ChunkKind, bytes: &[u8]| {
        assert!(matches!(machine.collect(&[], &EAGER), Err(CollectError::Running)));
        references(kind, bytes)
    };
    let roots = [Ok(Reference { kind: ChunkKind::Manifest, id: chunks[1].id })];
    let report = collected(&machine.store, || Ok(roots), &again);
    assert_eq!(report.marked_chunks, 2);
}
