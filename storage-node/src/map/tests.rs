//! Trees against a plain sorted map: updates, look-ups, walks over one root and over two, and what they cost.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::{ProptestConfig, Strategy, any, prop_assert_eq, prop_oneof, proptest};
use sterna_types::{BlockIndex, ChunkId, Root, SegmentIndex};

use super::test_store::TestStore;
use super::{
    BlockChange, Change, ChangedBlocks, Comparison, MAX_SEGMENTS, Manifest, MapError, MapStatistics, Node, NodeCache,
    ReferencesError, SegmentChange, children, diff, diff_blocks, manifest, manifest_of, references, segments,
    statistics, update,
};
use crate::chunk_store::{ChunkKind, ChunkStore, NewChunk, StoreError, chunk_id};
use crate::chunk_writer::{ChunkWriter, WriterStats};
use crate::chunking::BLOCK_BYTES;

/// A map, the simple way.
type Model = BTreeMap<u64, ChunkId>;

/// A store, and a cache that holds nothing unless told otherwise, so that what is read is counted.
struct Fixture {
    store: Arc<TestStore>,
    cache: NodeCache,
}

impl Fixture {
    fn new() -> Self {
        Self { store: Arc::default(), cache: NodeCache::new(0) }
    }

    fn writer(&self) -> ChunkWriter {
        ChunkWriter::new(Arc::<TestStore>::clone(&self.store))
    }

    fn try_update(&self, root: Root, changes: &[Change]) -> Result<(Root, WriterStats), MapError> {
        let mut writer = self.writer();
        let root = update(&self.cache, &mut writer, root, changes)?;
        Ok((root, writer.finish()?.1))
    }

    fn update(&self, root: Root, changes: &[Change]) -> Root {
        self.try_update(root, changes).unwrap().0
    }

    fn of(&self, model: &Model) -> Root {
        self.update(Root::EMPTY, &model.iter().map(|(segment, id)| set(*segment, *id)).collect::<Vec<_>>())
    }

    fn segments(&self, root: Root, range: Range<u64>) -> Vec<(u64, ChunkId)> {
        let found = segments(&*self.store, &self.cache, root, SegmentIndex(range.start)..SegmentIndex(range.end));
        found.map(|found| found.map(|(segment, id)| (segment.0, id)).unwrap()).collect()
    }

    fn diff(&self, old: Root, new: Root) -> Vec<SegmentChange> {
        diff(&*self.store, &self.cache, old, new).map(Result::unwrap).collect()
    }

    fn put(&self, kind: ChunkKind, bytes: Bytes) -> ChunkId {
        let mut writer = self.writer();
        let id = writer.put(NewChunk::of(kind, bytes)).unwrap();
        writer.finish().unwrap();
        id
    }

    /// A root with one segment, of these extents: (first block, number of blocks, chunk, first block in it).
    fn of_extents(&self, segment: u64, extents: &[(u16, u16, ChunkId, u16)]) -> Root {
        let mut manifest = Manifest::default();
        for (first, count, chunk, first_in_chunk) in extents {
            manifest.replace(*first, *count, Some((*chunk, *first_in_chunk))).unwrap();
        }
        let id = self.put(ChunkKind::Manifest, manifest.encode().unwrap());
        self.update(Root::EMPTY, &[set(segment, id)])
    }

    fn diff_blocks(&self, old: Root, new: Root, comparison: Comparison) -> Result<Vec<ChangedBlocks>, MapError> {
        diff_blocks(&*self.store, &self.cache, old, new, comparison).collect()
    }
}

fn set(segment: u64, id: ChunkId) -> Change {
    Change::Set(SegmentIndex(segment), id)
}

fn clear(segments: Range<u64>) -> Change {
    Change::Clear(SegmentIndex(segments.start)..SegmentIndex(segments.end))
}

fn id(number: u64) -> ChunkId {
    chunk_id(&number.to_le_bytes())
}

/// Segments near one another, near the seams of nodes, at the very end, and anywhere.
fn segment() -> impl Strategy<Value = u64> {
    let seam = (0..4usize, 0..4u64).prop_map(|(seam, more)| [256, 65_536, 131_072, MAX_SEGMENTS][seam] - 1 - more);
    prop_oneof![0..40u64, seam, 65_536..65_800u64, 0..MAX_SEGMENTS]
}

/// Changes as [`update`] wants them: in order, none touching what another does.
fn changes() -> impl Strategy<Value = Vec<Change>> {
    let length = prop_oneof![1..4u64, 200..600u64, 60_000..200_000u64, 1..=MAX_SEGMENTS];
    let change = (segment(), length, 0..6u64, any::<bool>());
    vec(change, 1..12).prop_map(|mut changes| {
        changes.sort_by_key(|(segment, ..)| *segment);
        changes.dedup_by_key(|(segment, ..)| *segment);
        let ends: Vec<u64> = changes.iter().skip(1).map(|(segment, ..)| *segment).chain([MAX_SEGMENTS]).collect();
        let ordered = changes.into_iter().zip(ends).map(|((segment, length, number, sets), end)| {
            if sets { set(segment, id(number)) } else { clear(segment..end.min(segment + length)) }
        });
        ordered.collect()
    })
}

fn apply(model: &mut Model, changes: &[Change]) {
    for change in changes {
        match change {
            Change::Set(segment, id) => drop(model.insert(segment.0, *id)),
            Change::Clear(cleared) => model.retain(|segment, _| !cleared.contains(&SegmentIndex(*segment))),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn a_root_says_what_the_changes_have_said(history in vec(changes(), 1..6), asked in vec(segment(), 8), range in (segment(), segment()), cache_bytes in prop_oneof![0..1u64, 1u64 << 20..1 << 21]) {
        let fixture = Fixture { cache: NodeCache::new(cache_bytes), ..Fixture::new() };
        let (mut model, mut root) = (Model::new(), Root::EMPTY);
        for changes in &history {
            root = fixture.update(root, changes);
            apply(&mut model, changes);
        }
        for segment in asked.into_iter().chain(model.keys().copied()) {
            let found = manifest_of(&*fixture.store, &fixture.cache, root, SegmentIndex(segment)).unwrap();
            prop_assert_eq!(found, model.get(&segment).copied());
        }
        let all: Vec<_> = model.iter().map(|(segment, id)| (*segment, *id)).collect();
        prop_assert_eq!(fixture.segments(root, 0..u64::MAX), all);
        let range = range.0.min(range.1)..range.0.max(range.1);
        let part: Vec<_> = model.range(range.clone()).map(|(segment, id)| (*segment, *id)).collect();
        prop_assert_eq!(fixture.segments(root, range), part);
    }

    #[test]
    fn equal_contents_have_equal_roots_whatever_their_history(history in vec(changes(), 1..6), split in any::<bool>()) {
        let fixture = Fixture::new();
        let (mut model, mut root) = (Model::new(), Root::EMPTY);
        let mut writer = fixture.writer();
        for changes in &history {
            // One by one or all at once, and in one writer, which has not appended yet what the next update reads.
            for part in changes.chunks(if split { 1 } else { changes.len() }) {
                root = update(&fixture.cache, &mut writer, root, part).unwrap();
            }
            apply(&mut model, changes);
        }
        prop_assert_eq!(root, fixture.of(&model));
        if let Some(last) = history.last() {
            prop_assert_eq!(update(&fixture.cache, &mut writer, root, last).unwrap(), root);
        }
        prop_assert_eq!(update(&fixture.cache, &mut writer, root, &[clear(0..MAX_SEGMENTS)]).unwrap(), Root::EMPTY);
    }

    #[test]
    fn a_diff_is_the_segments_that_differ(shared in changes(), one in vec(changes(), 0..3), other in vec(changes(), 0..3)) {
        let fixture = Fixture::new();
        let made = |more: &[Vec<Change>]| {
            let (mut model, mut root) = (Model::new(), Root::EMPTY);
            for changes in [&shared].into_iter().chain(more) {
                root = fixture.update(root, changes);
                apply(&mut model, changes);
            }
            (model, root)
        };
        let ((old, old_root), (new, new_root)) = (made(&one), made(&other));
        let all: BTreeSet<u64> = old.keys().chain(new.keys()).copied().collect();
        let at = |segment: u64| SegmentChange {
            segment: SegmentIndex(segment),
            old: old.get(&segment).copied(),
            new: new.get(&segment).copied(),
        };
        let expected: Vec<_> = all.into_iter().map(at).filter(|change| change.old != change.new).collect();
        prop_assert_eq!(fixture.diff(old_root, new_root), expected);
    }

    #[test]
    fn a_chunk_is_appended_no_later_than_those_that_refer_to_it(history in vec(changes(), 1..4)) {
        let fixture = Fixture::new();
        history.iter().fold(Root::EMPTY, |root, changes| fixture.update(root, changes));
        let mut seen = BTreeSet::new();
        for chunk in fixture.store.in_order() {
            let node = Node::decode(&chunk.bytes).unwrap();
            if references::kind_of_children(&node) == ChunkKind::Node {
                prop_assert_eq!(node.children().iter().find(|id| !seen.contains(*id)), None);
            }
            seen.insert(chunk.id);
        }
    }
}

/// 20,000 segments in runs of 100, all over the largest volume.
fn large() -> Model {
    (0..200u64).flat_map(|run| (0..100u64).map(move |n| (run * 83_000 + n, id(run * 100 + n)))).collect()
}

#[test]
fn an_update_costs_what_it_changes() {
    let fixture = Fixture::new();
    let root = fixture.of(&large());
    fixture.store.take_gets();

    let (next, stats) = fixture.try_update(root, &[set(83_050, id(1 << 40))]).unwrap();
    assert_eq!((fixture.store.take_gets(), stats.new_chunks), (3, 3), "the nodes from the top to the segment");
    let (again, stats) = fixture.try_update(next, &[clear(2_000..60_000), set(83_050, id(1 << 40))]).unwrap();
    assert_eq!((again, stats), (next, WriterStats::default()), "nothing has changed");
    assert!(fixture.store.take_gets() <= 4);
    fixture.try_update(next, &[]).unwrap();
    assert_eq!(fixture.store.take_gets(), 0);
}

#[test]
fn clearing_costs_no_look_at_what_is_cleared() {
    let fixture = Fixture::new();
    let mut model = large();
    let root = fixture.of(&model);
    fixture.store.take_gets();

    assert_eq!(fixture.update(root, &[clear(0..MAX_SEGMENTS)]), Root::EMPTY);
    assert_eq!(fixture.store.take_gets(), 0);

    let changes = [clear(10..MAX_SEGMENTS - 1)];
    let next = fixture.update(root, &changes);
    let gets = fixture.store.take_gets();
    assert!(gets <= 5, "{gets} nodes were read; those at the two ends are five");
    apply(&mut model, &changes);
    assert_eq!(fixture.segments(next, 0..MAX_SEGMENTS), model.into_iter().collect::<Vec<_>>());
}

#[test]
fn a_diff_costs_the_difference() {
    let fixture = Fixture::new();
    let root = fixture.of(&large());
    let next = fixture.update(root, &[set(83_050, id(1 << 40)), set(83_051, id(1 << 41))]);
    fixture.store.take_gets();
    assert_eq!(fixture.diff(root, root), []);
    assert_eq!(fixture.store.take_gets(), 0);
    assert_eq!(fixture.diff(root, next).len(), 2);
    assert_eq!(fixture.store.take_gets(), 6, "the nodes from each top to the segments");
}

#[test]
fn walks_are_lazy_and_look_only_where_they_go() {
    let fixture = Fixture::new();
    let root = fixture.of(&large());
    fixture.store.take_gets();
    let everything = SegmentIndex(0)..SegmentIndex(MAX_SEGMENTS);
    assert!(segments(&*fixture.store, &fixture.cache, root, everything).next().is_some());
    assert_eq!(fixture.store.take_gets(), 3);
    assert_eq!(fixture.segments(root, 83_010..83_020).len(), 10);
    assert_eq!(fixture.store.take_gets(), 3);
    assert_eq!(fixture.segments(root, 20..20), []);
    assert_eq!(fixture.segments(root, MAX_SEGMENTS..u64::MAX), []);
    assert_eq!(fixture.store.take_gets(), 0);
    assert_eq!(fixture.diff(Root::EMPTY, root).len(), 20_000);
}

#[test]
fn a_cache_spares_the_store() {
    let fixture = Fixture { cache: NodeCache::new(4 << 20), ..Fixture::new() };
    let root = fixture.of(&large());
    let found = |segment| manifest_of(&*fixture.store, &fixture.cache, root, SegmentIndex(segment)).unwrap();
    assert_eq!(found(83_050), Some(id(150)));
    fixture.store.take_gets();
    assert_eq!(found(83_051), Some(id(151)));
    assert_eq!(fixture.store.take_gets(), 0);
}

#[test]
fn what_is_missing_is_an_error_and_never_a_hole() {
    let fixture = Fixture::new();
    let root = fixture.of(&large());
    let top = Node::decode(&fixture.store.get(root.top().unwrap()).unwrap().unwrap()).unwrap();
    let lost = top.child(1).unwrap();
    fixture.store.lose(lost);

    let missing = manifest_of(&*fixture.store, &fixture.cache, root, SegmentIndex(83_050)).unwrap_err();
    let MapError::Missing { part } = &missing else { panic!("{missing}") };
    assert_eq!((part.id, part.segments.clone()), (lost, SegmentIndex(65_536)..SegmentIndex(131_072)));
    assert!(missing.to_string().ends_with("of level 1 (segments 65536 to 131071) is not here"), "{missing}");

    let mut walk = segments(&*fixture.store, &fixture.cache, root, SegmentIndex(0)..SegmentIndex(MAX_SEGMENTS));
    assert_eq!(walk.by_ref().take_while(Result::is_ok).count(), 100);
    assert!(walk.next().is_none(), "an error is the last of a walk");
    let mut walk = diff(&*fixture.store, &fixture.cache, Root::EMPTY, root);
    assert_eq!(walk.by_ref().take_while(Result::is_ok).count(), 100);
    assert!(walk.next().is_none(), "an error is the last of a walk");
    assert!(matches!(fixture.try_update(root, &[set(83_050, id(1))]), Err(MapError::Missing { .. })));
    fixture.update(root, &[clear(65_536..131_072)]);

    let gone = manifest(&*fixture.store, &fixture.cache, id(1), SegmentIndex(7)).unwrap_err();
    assert_eq!(gone.to_string(), format!("the manifest {} (segments 7 to 7) is not here", id(1)));
}

#[test]
fn what_is_no_part_of_a_map_is_named() {
    let fixture = Fixture::new();
    let found = |top| manifest_of(&*fixture.store, &fixture.cache, Root::at(top), SegmentIndex(0)).unwrap_err();
    let nonsense = fixture.put(ChunkKind::Node, Bytes::from_static(b"nonsense"));
    assert!(matches!(found(nonsense), MapError::CorruptNode { .. }));
    let read = manifest(&*fixture.store, &fixture.cache, nonsense, SegmentIndex(0));
    assert!(matches!(read, Err(MapError::CorruptManifest { .. })));

    let root = fixture.of(&Model::from([(0, id(0))]));
    let top = Node::decode(&fixture.store.get(root.top().unwrap()).unwrap().unwrap()).unwrap();
    assert!(matches!(found(top.children()[0]), MapError::WrongLevel { .. }));
    let beyond = manifest_of(&*fixture.store, &fixture.cache, root, SegmentIndex(MAX_SEGMENTS));
    assert!(matches!(beyond, Err(MapError::OutsideMap { .. })));
}

#[test]
fn changes_out_of_order_are_refused() {
    let fixture = Fixture::new();
    let refused = |changes: &[Change]| match fixture.try_update(Root::EMPTY, changes) {
        Err(MapError::ChangesOutOfOrder { change }) => change,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(&[set(1, id(1)), set(1, id(2))]), 1);
    assert_eq!(refused(&[set(2, id(1)), set(1, id(2))]), 1);
    assert_eq!(refused(&[clear(0..10), set(9, id(2))]), 1);
    assert_eq!(refused(&[clear(5..5)]), 0);
    for beyond in [set(MAX_SEGMENTS, id(1)), clear(0..MAX_SEGMENTS + 1)] {
        let outside = fixture.try_update(Root::EMPTY, &[beyond]);
        assert!(matches!(outside, Err(MapError::OutsideMap { .. })));
    }
    assert!(fixture.store.in_order().is_empty());
}

#[test]
fn blocks_differ_by_place_or_by_contents() {
    let fixture = Fixture::new();
    let chunk = |blocks: &[u8]| {
        let bytes: Vec<u8> = blocks.iter().flat_map(|byte| vec![*byte; BLOCK_BYTES]).collect();
        fixture.put(ChunkKind::Data, bytes.into())
    };
    let (a, b) = (chunk(&[1, 2, 3, 4]), chunk(&[9, 2, 3, 0]));
    let old = fixture.of_extents(2, &[(10, 4, a, 0), (100, 1, a, 0)]);
    let new = fixture.of_extents(2, &[(10, 1, a, 0), (11, 2, b, 1), (13, 1, b, 0), (50, 1, b, 3), (51, 1, b, 0)]);

    let found = |first: u64, count, change| ChangedBlocks { first: BlockIndex(2048 + first), count, change };
    let by_place =
        [found(11, 3, BlockChange::Replaced), found(50, 2, BlockChange::Written), found(100, 1, BlockChange::Cleared)];
    assert_eq!(fixture.diff_blocks(old, new, Comparison::Places).unwrap(), by_place);
    let by_contents =
        [found(13, 1, BlockChange::Replaced), found(51, 1, BlockChange::Written), found(100, 1, BlockChange::Cleared)];
    assert_eq!(fixture.diff_blocks(old, new, Comparison::Contents).unwrap(), by_contents);

    fixture.store.lose(b);
    assert_eq!(fixture.diff_blocks(old, new, Comparison::Places).unwrap(), by_place);
    let missing = fixture.diff_blocks(old, new, Comparison::Contents);
    assert!(matches!(missing, Err(MapError::Store(StoreError::Missing { .. }))));
}

#[test]
fn an_extent_beyond_its_chunk_is_named() {
    let fixture = Fixture::new();
    let short = fixture.put(ChunkKind::Data, vec![1; BLOCK_BYTES].into());
    let root = fixture.of_extents(3, &[(0, 2, short, 0)]);
    let beyond = fixture.diff_blocks(Root::EMPTY, root, Comparison::Contents).unwrap_err();
    assert!(matches!(beyond, MapError::BeyondChunk { segment: SegmentIndex(3), block: 1, length: 4096, .. }));
}

#[test]
fn statistics_count_each_chunk_once() {
    let fixture = Fixture::new();
    let one = fixture.of_extents(0, &[(0, 4, id(1), 0), (10, 2, id(2), 0), (20, 1, id(1), 9)]);
    let manifest = manifest_of(&*fixture.store, &fixture.cache, one, SegmentIndex(0)).unwrap().unwrap();
    let both = fixture.update(one, &[set(1 << 20, manifest)]);
    let expected = MapStatistics { segments: 2, mapped_blocks: 14, extents: 6, distinct_chunks: 2 };
    assert_eq!(statistics(&*fixture.store, &fixture.cache, both).unwrap(), expected);
    assert_eq!(statistics(&*fixture.store, &fixture.cache, Root::EMPTY).unwrap(), MapStatistics::default());
}

#[test]
fn references_are_followed_by_kind() {
    let fixture = Fixture::new();
    let root = fixture.of_extents(5, &[(0, 4, id(1), 0), (10, 2, id(2), 0), (20, 1, id(1), 9)]);
    let (mut kind, mut at) = (ChunkKind::Node, root.top().unwrap());
    for _ in 0..3 {
        let bytes = fixture.store.get(at).unwrap().unwrap();
        kind = references::kind_of_children(&Node::decode(&bytes).unwrap());
        at = children(ChunkKind::Node, &bytes).unwrap()[0];
    }
    assert_eq!(kind, ChunkKind::Manifest);
    let bytes = fixture.store.get(at).unwrap().unwrap();
    assert_eq!(children(kind, &bytes), Ok(vec![id(1), id(2)]));
    assert_eq!(children(ChunkKind::Data, &bytes), Ok(vec![]));
    assert_eq!(children(ChunkKind::Checkpoint, &bytes), Err(ReferencesError::Checkpoint));
    assert!(children(ChunkKind::Node, &bytes).is_err());
}
