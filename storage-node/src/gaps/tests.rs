//! Gaps against a plain set: whatever is lacking is named, nothing else is, and what is equal is not looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicBool;

use proptest::collection::{btree_map, vec};
use proptest::prelude::{ProptestConfig, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};
use proptest::sample::Index;
use proptest::test_runner::TestCaseError;

use bytes::Bytes;

use super::*;
use crate::chunk_store::collect::CollectOptions;
use crate::chunk_store::index::{MemoryIndex, VolumeRecords};
use crate::chunk_store::{NewChunk, PackStore, PackStoreOptions, Room, chunk_id};
use crate::chunk_writer::ChunkWriter;
use crate::disk::SimulatedDisk;
use crate::journal::SaltSource;
use crate::map::test_store::TestStore;
use crate::map::{Change, Extent, MAX_SEGMENTS, NodeFormatError, ReferencesError};
use crate::volume::{Storage, StorageOptions};

/// A map, the simple way: of each segment, the numbers of its blocks, each of which is a chunk.
type Model = BTreeMap<u64, Vec<u16>>;

fn block(number: u16) -> NewChunk {
    let mut bytes = vec![0; 4096];
    bytes[..2].copy_from_slice(&number.to_le_bytes());
    NewChunk::of(ChunkKind::Data, bytes.into())
}

fn manifest(blocks: &[u16]) -> NewChunk {
    let extent = |(first_block, number): (u16, &u16)| Extent {
        first_block,
        block_count: 1,
        chunk: block(*number).id,
        first_in_chunk: 0,
    };
    let manifest = Manifest::from_extents((0..).zip(blocks).map(extent)).expect("a manifest");
    NewChunk::of(ChunkKind::Manifest, manifest.encode().expect("extents"))
}

/// A site that has everything, and how it makes a root.
#[derive(Default)]
struct Elsewhere {
    store: Arc<TestStore>,
}

impl Elsewhere {
    fn root(&self, model: &Model) -> Root {
        let mut writer = ChunkWriter::new(self.store.clone());
        let mut changes = Vec::new();
        for (segment, blocks) in model {
            for number in blocks {
                writer.put(block(*number)).expect("a block");
            }
            changes.push(Change::Set(SegmentIndex(*segment), writer.put(manifest(blocks)).expect("a manifest")));
        }
        let root = map::update(&NodeCache::new(0), &mut writer, Root::EMPTY, &changes).expect("a root");
        drop(writer.finish().expect("stored chunks"));
        root
    }

    /// All that a root needs.
    fn reached(&self, root: Root) -> BTreeSet<Wanted> {
        let mut reached = BTreeSet::new();
        let mut open: Vec<_> = root.top().map(|id| Wanted { id, kind: ChunkKind::Node }).into_iter().collect();
        while let Some(chunk) = open.pop() {
            if reached.insert(chunk) {
                let bytes = self.bytes(chunk);
                let kind = match chunk.kind {
                    ChunkKind::Node => map::kind_of_children(&Node::decode(&bytes).expect("a node")),
                    _ => ChunkKind::Data,
                };
                let children = map::children(chunk.kind, &bytes).expect("a part of a map");
                open.extend(children.into_iter().map(|id| Wanted { id, kind }));
            }
        }
        reached
    }

    fn bytes(&self, chunk: Wanted) -> Bytes {
        self.store.get(chunk.id).expect("an answer").expect("everything is there")
    }

    fn fetch(&self, group: &[Wanted]) -> Vec<(Wanted, Bytes)> {
        group.iter().map(|chunk| (*chunk, self.bytes(*chunk))).collect()
    }

    /// A store that has these, and a handle to count what it is asked.
    fn copy(&self, chunks: &BTreeSet<Wanted>) -> (Arc<dyn ChunkStore>, Arc<TestStore>) {
        let counted = Arc::new(TestStore::default());
        let store: Arc<dyn ChunkStore> = counted.clone();
        let chunks: Vec<_> = chunks.iter().copied().collect();
        store_fetched(&store, &store.pin(), self.fetch(&chunks)).expect("stored chunks");
        (store, counted)
    }

    /// Fetches group by group until there is no next one; the groups.
    fn fill(&self, store: &Arc<dyn ChunkStore>, gaps: &mut Gaps) -> Vec<Vec<Wanted>> {
        let mut groups = Vec::new();
        loop {
            let pin = store.pin();
            let Some(group) = next(gaps, &pin) else { return groups };
            assert!((1..=MAX_WANTED).contains(&group.len()), "a group of {}", group.len());
            for chunk in &group {
                assert!(!store.keep(chunk.id, &pin).expect("an answer"), "{chunk:?} is here");
            }
            store_fetched(store, &pin, self.fetch(&group)).expect("stored chunks");
            groups.push(group);
        }
    }
}

/// The next group, without predecessors.
fn next(gaps: &mut Gaps, pin: &StorePin) -> Option<Vec<Wanted>> {
    let group = gaps.next(pin).expect("a walk")?;
    Some(group.into_iter().map(|gap| gap.wanted).collect())
}

fn is_complete(store: &Arc<dyn ChunkStore>, old: Root, new: Root) -> bool {
    complete(store, old, new).expect("a walk").is_some()
}

fn sorted(groups: &[Vec<Wanted>]) -> Vec<Wanted> {
    let mut all = groups.concat();
    all.sort_unstable();
    all
}

/// So many segments from 0 on, of these blocks each, and no block twice.
fn regular(segments: u64, blocks: u16) -> Model {
    let numbers = |segment: u64| (0..blocks).map(move |at| u16::try_from(segment).expect("small") * blocks + at);
    (0..segments).map(|segment| (segment, numbers(segment).collect())).collect()
}

/// Maps with segments near one another, at the seams of nodes, and anywhere.
fn model() -> impl Strategy<Value = Model> {
    let seam = (0..3usize, 0..3u64).prop_map(|(seam, more)| [256, 65_536, MAX_SEGMENTS][seam] - 1 - more);
    let segment = prop_oneof![0..100u64, seam, 65_536..65_700u64, 0..MAX_SEGMENTS];
    btree_map(segment, vec(0..60u16, 1..6), 0..40)
}

/// A map and one that may come after it: something is changed, or everything.
fn two_models() -> impl Strategy<Value = (Model, Model)> {
    let changes = (model(), any::<bool>(), 1..5usize);
    (model(), changes).prop_map(|(old, (other, is_unlike, every))| {
        let mut new = if is_unlike { Model::new() } else { old.clone() };
        new.retain(|segment, _| !segment.is_multiple_of(7));
        new.extend(other.into_iter().step_by(every));
        (old, new)
    })
}

/// How many places differ, nodes and manifests, and how many chunks of data the new manifests name and the old ones do not.
fn difference(old: &Model, new: &Model) -> (usize, usize) {
    let changed: Vec<_> = new.iter().filter(|(segment, blocks)| old.get(segment) != Some(blocks)).collect();
    let cleared: Vec<_> = old.keys().filter(|segment| !new.contains_key(segment)).collect();
    let fresh = |(segment, blocks): &(&u64, &Vec<u16>)| {
        let held: BTreeSet<_> = old.get(segment).into_iter().flatten().collect();
        blocks.iter().filter(|number| !held.contains(number)).count()
    };
    (4 * (changed.len() + cleared.len()), changed.iter().map(fresh).sum())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn all_that_is_lacking_is_named_and_nothing_else_is((old, new) in two_models(), here in vec(any::<bool>(), 64)) {
        let elsewhere = Elsewhere::default();
        let (old_root, new_root) = (elsewhere.root(&old), elsewhere.root(&new));
        let (held, needed) = (elsewhere.reached(old_root), elsewhere.reached(new_root));
        // Some of the new one is here already, nobody knows from where.
        let by_chance = needed.iter().filter(|chunk| here[usize::from(chunk.id.as_bytes()[0]) % 64]);
        let mut present: BTreeSet<_> = by_chance.copied().collect();
        present.extend(&held);
        let (store, counted) = elsewhere.copy(&present);
        let lacking: Vec<_> = needed.difference(&present).copied().collect();

        prop_assert_eq!(is_complete(&store, old_root, new_root), lacking.is_empty());
        let groups = elsewhere.fill(&store, &mut Gaps::new(store.clone(), old_root, new_root));
        prop_assert_eq!(sorted(&groups), lacking, "each once");
        prop_assert!(needed.iter().all(|chunk| store.locate(chunk.id).expect("an answer").is_some()));
        counted.take_keeps();
        counted.take_gets();
        prop_assert!(is_complete(&store, old_root, new_root));
        let (places, data) = difference(&old, &new);
        let (keeps, gets) = (counted.take_keeps(), counted.take_gets());
        prop_assert!(keeps <= places + data && gets <= 2 * places, "{keeps} and {gets} for {places} and {data}");
    }

    #[test]
    fn of_a_map_all_that_is_lacking_is_named_and_no_data_is((old, new) in two_models(), here in vec(any::<bool>(), 64)) {
        let elsewhere = Elsewhere::default();
        let (old_root, new_root) = (elsewhere.root(&old), elsewhere.root(&new));
        let is_of_map = |chunk: &&Wanted| chunk.kind != ChunkKind::Data;
        let (held, all) = (elsewhere.reached(old_root), elsewhere.reached(new_root));
        let needed: BTreeSet<_> = all.iter().filter(is_of_map).copied().collect();
        let by_chance = all.iter().filter(|chunk| here[usize::from(chunk.id.as_bytes()[0]) % 64]);
        let mut present: BTreeSet<_> = by_chance.copied().collect();
        present.extend(held.iter().filter(is_of_map));
        let (store, _) = elsewhere.copy(&present);
        let lacking: Vec<_> = needed.difference(&present).copied().collect();
        let has_map = || complete_map(&store, old_root, new_root).expect("a walk").is_some();
        prop_assert_eq!(has_map(), lacking.is_empty());
        let groups = elsewhere.fill(&store, &mut Gaps::of_map(store.clone(), old_root, new_root));
        prop_assert_eq!(sorted(&groups), lacking, "each once");
        prop_assert!(has_map());
    }

    #[test]
    fn of_some_blocks_what_they_need_is_named_and_nothing_else_is(
        new in model(),
        picks in vec((any::<Index>(), 0..6u64), 0..8),
    ) {
        let elsewhere = Elsewhere::default();
        let root = elsewhere.root(&new);
        let (store, _) = elsewhere.copy(&BTreeSet::new());
        let segments: Vec<_> = new.keys().copied().collect();
        let picked = picks.iter().filter(|_| !segments.is_empty());
        let picked: BTreeSet<_> = picked.map(|(segment, block)| (*segment.get(&segments), *block)).collect();
        let blocks = picked.iter().map(|(segment, block)| segment * BLOCKS_PER_SEGMENT + block);
        let blocks: Vec<_> = blocks.map(|block| block..block + 1).collect();
        let groups = elsewhere.fill(&store, &mut Gaps::within(store.clone(), Root::EMPTY, root, blocks));
        let (nodes, others): (BTreeSet<_>, BTreeSet<_>) =
            groups.concat().into_iter().partition(|chunk| chunk.kind == ChunkKind::Node);
        let mut expected: BTreeSet<_> = picked
            .iter()
            .map(|(segment, _)| Wanted { id: manifest(&new[segment]).id, kind: ChunkKind::Manifest })
            .collect();
        let data = picked.iter().filter_map(|(segment, at)| new[segment].get(usize::try_from(*at).ok()?));
        expected.extend(data.map(|number| Wanted { id: block(*number).id, kind: ChunkKind::Data }));
        prop_assert_eq!(others, expected);
        prop_assert!(nodes.len() <= 1 + 2 * picked.len() && nodes.is_subset(&elsewhere.reached(root)));
    }

    #[test]
    fn a_walk_that_was_given_up_is_begun_anew_and_asks_for_nothing_twice(new in model(), groups in 0..12usize) {
        let elsewhere = Elsewhere::default();
        let root = elsewhere.root(&new);
        let (store, _) = elsewhere.copy(&BTreeSet::new());
        let mut fetched = Vec::new();
        let mut gaps = Gaps::new(store.clone(), Root::EMPTY, root);
        for _ in 0..groups {
            let pin = store.pin();
            let Some(mut group) = next(&mut gaps, &pin) else { break };
            // Part of a group, as far as it goes.
            group.truncate(group.len().div_ceil(2));
            store_fetched(&store, &pin, elsewhere.fetch(&group)).expect("stored chunks");
            fetched.push(group);
        }
        drop(gaps);
        fetched.extend(elsewhere.fill(&store, &mut Gaps::new(store.clone(), Root::EMPTY, root)));
        let needed: Vec<_> = elsewhere.reached(root).into_iter().collect();
        prop_assert_eq!(sorted(&fetched), needed);
        check_complete(&store, root)?;
    }
}

fn check_complete(store: &Arc<dyn ChunkStore>, root: Root) -> Result<(), TestCaseError> {
    prop_assert!(is_complete(store, Root::EMPTY, root));
    Ok(())
}

#[test]
fn what_is_equal_is_not_looked_at() {
    let elsewhere = Elsewhere::default();
    let old = regular(3000, 2);
    let mut new = old.clone();
    new.insert(1234, vec![1234 * 2, 60_000]);
    let (old, new) = (elsewhere.root(&old), elsewhere.root(&new));
    let (store, counted) = elsewhere.copy(&elsewhere.reached(old));
    counted.take_gets();
    let mut gaps = Gaps::new(store.clone(), old, new);
    let mut named = Vec::new();
    while let Some(group) = next(&mut gaps, &store.pin()) {
        store_fetched(&store, &store.pin(), elsewhere.fetch(&group)).expect("stored chunks");
        named.extend(group.iter().map(|chunk| chunk.kind));
    }
    let (node, data) = (ChunkKind::Node, ChunkKind::Data);
    assert_eq!(named, [node, node, node, ChunkKind::Manifest, data], "one on each level, and one block");
    assert_eq!((counted.take_gets(), counted.take_keeps()), (8, 10), "old and new; before and after");
    assert!(Gaps::new(store.clone(), new, new).next(&store.pin()).expect("no walk").is_none());
    assert!(Gaps::new(store.clone(), new, Root::EMPTY).next(&store.pin()).expect("no walk").is_none());
    assert_eq!((counted.take_gets(), counted.take_keeps()), (0, 0));
}

#[test]
fn a_group_is_as_large_as_it_can_be() {
    let elsewhere = Elsewhere::default();
    let root = elsewhere.root(&regular(600, 70));
    let (store, _) = elsewhere.copy(&BTreeSet::new());
    let groups = elsewhere.fill(&store, &mut Gaps::new(store.clone(), Root::EMPTY, root));
    let named: Vec<_> = groups.iter().map(|group| (group[0].kind, group.len())).collect();
    let (node, manifest, data) = (ChunkKind::Node, ChunkKind::Manifest, ChunkKind::Data);
    let mut expected = vec![(node, 1), (node, 1), (node, 3)];
    for segments in [64, 64, 64, 64, 64, 64, 64, 64, 64, 24] {
        expected.push((manifest, segments));
        let blocks = segments * 70;
        expected.extend((0..blocks).step_by(MAX_WANTED).map(|from| (data, MAX_WANTED.min(blocks - from))));
    }
    assert_eq!(named, expected);
}

#[test]
fn what_is_still_lacking_is_named_again_and_the_same_chunk_once() {
    let elsewhere = Elsewhere::default();
    let model: Model = [(0, vec![1, 2]), (1, vec![2, 1]), (2, vec![1, 2])].into();
    let root = elsewhere.root(&model);
    let (store, _) = elsewhere.copy(&BTreeSet::new());
    let mut gaps = Gaps::new(store.clone(), Root::EMPTY, root);
    for expected in [1, 1, 1, 2, 2] {
        let pin = store.pin();
        let group = next(&mut gaps, &pin).expect("a group");
        assert_eq!(group.len(), expected, "{group:?}");
        assert_eq!(next(&mut gaps, &pin), Some(group.clone()), "nothing was stored");
        store_fetched(&store, &pin, elsewhere.fetch(&group[..1])).expect("a stored chunk");
        if let Some(rest) = group.get(1..).filter(|rest| !rest.is_empty()) {
            assert_eq!(next(&mut gaps, &pin).as_deref(), Some(rest));
            store_fetched(&store, &pin, elsewhere.fetch(rest)).expect("stored chunks");
        }
    }
    assert_eq!(next(&mut gaps, &store.pin()), None);
    assert_eq!(next(&mut gaps, &store.pin()), None);
}

#[test]
fn the_pin_of_a_complete_root_lasts_until_it_is_dropped() {
    let elsewhere = Elsewhere::default();
    let root = elsewhere.root(&regular(3, 3));
    let (store, counted) = elsewhere.copy(&elsewhere.reached(root));
    let pin = complete(&store, Root::EMPTY, root).expect("a walk").expect("all is here");
    assert_eq!(counted.pins(), 1);
    drop(pin);
    counted.lose(block(8).id);
    assert!(complete(&store, Root::EMPTY, root).expect("a walk").is_none());
    assert_eq!(counted.pins(), 0);
}

#[test]
fn what_is_lacking_comes_with_what_was_in_its_place_before() {
    let elsewhere = Elsewhere::default();
    let extent = |first_block, block_count, chunk: &NewChunk, first_in_chunk| Extent {
        first_block,
        block_count,
        chunk: chunk.id,
        first_in_chunk,
    };
    let long = |number: u8, blocks: usize| NewChunk::of(ChunkKind::Data, vec![number; blocks * 4096].into());
    let (one, two, changed, more) = (long(1, 8), long(2, 2), long(3, 6), long(4, 1));
    let root = |extents: &[Extent], chunks: &[&NewChunk]| {
        let mut writer = ChunkWriter::new(elsewhere.store.clone());
        for chunk in chunks {
            writer.put((*chunk).clone()).expect("a chunk");
        }
        let manifest = Manifest::from_extents(extents.iter().copied()).expect("a manifest");
        let id =
            writer.put(NewChunk::of(ChunkKind::Manifest, manifest.encode().expect("extents"))).expect("a manifest");
        let change = [Change::Set(SegmentIndex(0), id)];
        let root = map::update(&NodeCache::new(0), &mut writer, Root::EMPTY, &change).expect("a root");
        drop(writer.finish().expect("stored chunks"));
        (root, id)
    };
    // Blocks 0 to 7, none at 8, 9 and 10; then 4 to 9, and 20, are others.
    let (old, before) = root(&[extent(0, 8, &one, 0), extent(9, 2, &two, 0)], &[&one, &two]);
    let changes = [extent(0, 4, &one, 0), extent(4, 6, &changed, 0), extent(10, 1, &two, 1), extent(20, 1, &more, 0)];
    let (new, _) = root(&changes, &[&changed, &more]);
    let (store, _) = elsewhere.copy(&elsewhere.reached(old));
    let mut gaps = Gaps::new(store.clone(), old, new);
    let mut named = Vec::new();
    while let Some(group) = gaps.next(&store.pin()).expect("a walk") {
        let wanted: Vec<_> = group.iter().map(|gap| gap.wanted).collect();
        store_fetched(&store, &store.pin(), elsewhere.fetch(&wanted)).expect("stored chunks");
        named.extend(group);
    }
    let part = |chunk: &NewChunk, bytes| Excerpt { chunk: chunk.id, bytes };
    let data: Vec<_> = named.iter().filter(|gap| gap.wanted.kind == ChunkKind::Data).collect();
    assert_eq!(data[0].wanted.id, changed.id);
    assert_eq!(data[0].predecessors, [part(&one, 4 * 4096..8 * 4096), part(&two, 0..4096)]);
    assert_eq!((data[1].wanted.id, &data[1].predecessors[..]), (more.id, &[][..]), "there was nothing");
    let map: Vec<_> = named.iter().filter(|gap| gap.wanted.kind != ChunkKind::Data).collect();
    assert_eq!(map.len(), 4, "a node on each level, and a manifest");
    assert_eq!(map[0].predecessors, [Excerpt::all_of(old.top().expect("a top"))]);
    assert_eq!(map[3].predecessors, [Excerpt::all_of(before)]);
}

#[test]
fn an_old_root_that_is_not_all_here_is_an_error_and_the_walk_stays_where_it_is() {
    let elsewhere = Elsewhere::default();
    let (old, new) = (elsewhere.root(&regular(1, 1)), elsewhere.root(&regular(1, 2)));
    let (store, counted) = elsewhere.copy(&elsewhere.reached(old));
    let lost = manifest(&[0]);
    counted.lose(lost.id);
    let mut gaps = Gaps::new(store.clone(), old, new);
    let failed = loop {
        let pin = store.pin();
        match gaps.next(&pin) {
            Ok(group) => {
                let wanted: Vec<_> = group.expect("more").into_iter().map(|gap| gap.wanted).collect();
                store_fetched(&store, &pin, elsewhere.fetch(&wanted)).expect("stored chunks");
            }
            Err(error) => break error,
        }
    };
    let MapError::Missing { part } = failed else { panic!("{failed}") };
    assert_eq!(part.id, lost.id);
    store.append(&[lost], Room::BesideReserve, &store.pin()).expect("a stored chunk");
    let groups = elsewhere.fill(&store, &mut gaps);
    assert_eq!(groups, [[Wanted { id: block(1).id, kind: ChunkKind::Data }]]);
}

#[test]
fn what_is_not_what_was_wanted_is_refused_and_named_and_nothing_is_stored() {
    let counted = Arc::new(TestStore::default());
    let store: Arc<dyn ChunkStore> = counted.clone();
    let refused = |kind, id, bytes: Bytes| {
        let good = block(1);
        let chunks = vec![(Wanted { id: good.id, kind: good.kind }, good.bytes), (Wanted { id, kind }, bytes)];
        let error = store_fetched(&store, &store.pin(), chunks).expect_err("one of them is bad");
        assert!(counted.in_order().is_empty(), "{error}");
        error
    };
    let (one, other) = (block(2), block(3));
    let altered = refused(ChunkKind::Data, one.id, other.bytes.clone());
    assert!(matches!(altered, FetchedError::Altered { id, found } if id == one.id && found == other.id), "{altered}");
    let named = |bytes: &'static [u8]| (chunk_id(bytes), Bytes::from_static(bytes));
    for (kind, (wanted, bytes)) in [(ChunkKind::Data, named(b"no block")), (ChunkKind::Data, named(b""))] {
        let length = bytes.len();
        let error = refused(kind, wanted, bytes);
        assert!(matches!(error, FetchedError::Length { id, length: of } if (id, of) == (wanted, length)), "{error}");
    }
    let (wanted, bytes) = named(b"nonsense");
    let error = refused(ChunkKind::Node, wanted, bytes.clone());
    let source = ReferencesError::Node(NodeFormatError::NoHeader { length: 8 });
    assert!(matches!(&error, FetchedError::Kind { id, source: why } if *id == wanted && *why == source), "{error}");
    for kind in [ChunkKind::Manifest, ChunkKind::Checkpoint] {
        let error = refused(kind, wanted, bytes.clone());
        assert!(matches!(error, FetchedError::Kind { id, .. } if id == wanted), "{error}");
    }
}

#[test]
fn much_is_stored_in_pieces() {
    for (length, count, appends) in [(128 << 10, 300, vec![128, 128, 44]), (4 << 10, 5000, vec![4096, 904])] {
        let counted = Arc::new(TestStore::default());
        let store: Arc<dyn ChunkStore> = counted.clone();
        let numbered = |number: u64| {
            let mut bytes = vec![0; length];
            bytes[..8].copy_from_slice(&number.to_le_bytes());
            (Wanted { id: chunk_id(&bytes), kind: ChunkKind::Data }, Bytes::from(bytes))
        };
        let chunks: Vec<_> = (0..count).map(numbered).collect();
        store_fetched(&store, &store.pin(), chunks.clone()).expect("stored chunks");
        assert_eq!(counted.appends(), appends);
        assert!(counted.in_order().into_iter().map(|chunk| chunk.bytes).eq(chunks.into_iter().map(|(_, bytes)| bytes)));
    }
    let counted = Arc::new(TestStore::default());
    let store: Arc<dyn ChunkStore> = counted.clone();
    store_fetched(&store, &store.pin(), Vec::new()).expect("nothing to do");
    assert_eq!(counted.appends(), []);
}

/// Chunks in packs on `disk`, and who collects them.
fn storage(disk: &SimulatedDisk) -> (Arc<Storage>, Arc<PackStore>) {
    let index = Arc::new(MemoryIndex::on(disk));
    let options = PackStoreOptions { reserve_bytes: 0, ..PackStoreOptions::default() };
    let shared = Arc::new(disk.clone());
    let store = Arc::new(PackStore::open(shared.clone(), index.clone(), options).expect("a store"));
    let (records, salts) = (VolumeRecords::new(index), SaltSource::new([1; 32]));
    let options = StorageOptions { reserve_bytes: 0, ..StorageOptions::default() };
    (Storage::new(shared, store.clone(), records, salts, options).expect("storage"), store)
}

#[test]
fn what_is_collected_between_two_groups_is_found_by_the_last_walk() {
    let elsewhere = Elsewhere::default();
    let mut model = regular(300, 2);
    let old = elsewhere.root(&model);
    model.extend((100..200).map(|segment| (segment, vec![60_000, u16::try_from(segment).expect("small")])));
    let new = elsewhere.root(&model);
    let (storage, packs) = storage(&SimulatedDisk::new());
    let collect = |root| {
        let (options, cancel) = (CollectOptions::default(), AtomicBool::new(false));
        let report = storage.collect(&packs, || Ok(vec![root]), &options, &mut |_| {}, &cancel).expect("a collection");
        assert!(report.finished);
        report.dead_chunks
    };
    let store: Arc<dyn ChunkStore> = packs.clone();
    elsewhere.fill(&store, &mut Gaps::new(store.clone(), Root::EMPTY, old));
    drop(complete(&store, Root::EMPTY, old).expect("a walk").expect("all is here"));

    let mut gaps = Gaps::new(store.clone(), old, new);
    let mut fetched = 0;
    let manifests = loop {
        let pin = store.pin();
        let group = next(&mut gaps, &pin).expect("a group");
        store_fetched(&store, &pin, elsewhere.fetch(&group)).expect("stored chunks");
        fetched += group.len();
        if group[0].kind == ChunkKind::Manifest {
            break group;
        }
    };
    assert_eq!(collect(old), u64::try_from(fetched).expect("few"), "nothing refers to what was fetched");
    assert_eq!(next(&mut gaps, &store.pin()), Some(manifests), "they were here a moment ago");
    elsewhere.fill(&store, &mut gaps);
    assert!(!is_complete(&store, old, new), "the nodes above are not here any more");
    elsewhere.fill(&store, &mut Gaps::new(store.clone(), old, new));
    let pin = complete(&store, old, new).expect("a walk").expect("all is here");
    // The root is recorded now.
    drop(pin);
    collect(new);
    for chunk in elsewhere.reached(new) {
        assert!(store.get(chunk.id).expect("a sound chunk").is_some(), "{chunk:?} is lost");
    }
}
