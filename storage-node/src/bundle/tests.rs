//! Bundles: what is unpacked is what was packed, whatever was asked for; and what is sent is about what has changed.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};
use sterna_types::{Root, SegmentIndex};

use super::*;
use crate::chunk_store::{ChunkKind, NewChunk, Room, chunk_id};
use crate::chunk_writer::ChunkWriter;
use crate::gaps::{Gap, Gaps, Wanted, complete, store_fetched};
use crate::map::test_store::TestStore;
use crate::map::{self, Change, Extent, Manifest, NodeCache};

/// Bytes that do not compress.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn data(seed: u64, blocks: usize) -> NewChunk {
    NewChunk::of(ChunkKind::Data, noise(seed, blocks * 4096).into())
}

fn store_of(chunks: &[NewChunk]) -> Arc<TestStore> {
    let store = Arc::new(TestStore::default());
    store.append(chunks, Room::BesideReserve, &store.pin()).expect("stored chunks");
    store
}

fn gap(chunk: &NewChunk, predecessors: &[Excerpt]) -> Gap {
    Gap { wanted: Wanted { id: chunk.id, kind: chunk.kind }, predecessors: predecessors.to_vec() }
}

/// All that is sent of these, and how many bytes that is: frames, lengths of two bytes, and excerpts of 40.
fn packed(from: &Arc<TestStore>, gaps: Vec<Gap>, with_below: bool) -> (Vec<Bundle>, usize) {
    let mut packer = Packer::new(Arc::clone(from) as _, gaps, with_below);
    let bundles: Vec<_> = std::iter::from_fn(|| packer.next_bundle().expect("a store")).collect();
    let bytes = |bundle: &Bundle| bundle.frame.len() + 2 * bundle.lengths.len() + 40 * bundle.prefix.len();
    let sent = bundles.iter().map(bytes).sum();
    (bundles, sent)
}

#[test]
fn a_chunk_of_which_little_has_changed_costs_little() {
    let old = data(1, 32);
    let mut bytes = old.bytes.to_vec();
    bytes[70_000..70_100].copy_from_slice(&noise(2, 100));
    let new = NewChunk::of(ChunkKind::Data, bytes.into());
    let (from, to) = (store_of(&[old.clone(), new.clone()]), store_of(std::slice::from_ref(&old)));
    let gaps = vec![gap(&new, &[Excerpt::all_of(old.id)])];
    let mut unpacker = Unpacker::new(Arc::clone(&to) as _, &gaps, false);
    let (bundles, sent) = packed(&from, gaps, false);
    assert_eq!(bundles.len(), 1);
    assert!(sent < 300, "{sent} bytes");
    let chunks = unpacker.unpack(&bundles[0]).expect("chunks");
    assert_eq!(chunks, [(Wanted { id: new.id, kind: ChunkKind::Data }, new.bytes)]);
    // Collected meanwhile.
    to.lose(old.id);
    let lost = unpacker.unpack(&bundles[0]).expect_err("it refers to nothing");
    assert!(matches!(lost, UnpackError::Predecessor { id } if id == old.id), "{lost}");
}

#[test]
fn what_is_far_back_in_the_prefix_is_found() {
    // A MiB of prefix, whose parts come back in another order.
    let old: Vec<_> = (0..8).map(|seed| data(seed, 32)).collect();
    let new: Vec<_> = (0..8)
        .map(|at| {
            let mut bytes = old[7 - at].bytes.to_vec();
            bytes[5] ^= 1;
            NewChunk::of(ChunkKind::Data, bytes.into())
        })
        .collect();
    let from = store_of(&[&old[..], &new[..]].concat());
    let gaps: Vec<_> = new.iter().zip(&old).map(|(new, old)| gap(new, &[Excerpt::all_of(old.id)])).collect();
    let (bundles, sent) = packed(&from, gaps, false);
    assert_eq!(bundles.len(), 1);
    assert!(sent < 2000, "{sent} bytes");
}

#[test]
fn what_is_not_there_does_not_come_and_what_is_wrong_is_refused() {
    let (one, two, lost) = (data(1, 1), data(2, 1), data(3, 1));
    let (from, to) = (store_of(&[one.clone(), two.clone()]), Arc::new(TestStore::default()));
    let asked = vec![gap(&one, &[]), gap(&lost, &[]), gap(&two, &[Excerpt::all_of(lost.id)])];
    let mut unpacker = Unpacker::new(Arc::clone(&to) as _, &asked, false);
    let (bundles, _) = packed(&from, asked, false);
    let come: Vec<_> = unpacker.unpack(&bundles[0]).expect("chunks").into_iter().map(|(chunk, _)| chunk.id).collect();
    assert_eq!(come, [one.id, two.id]);

    let refused = |bundle: Bundle| Unpacker::new(Arc::clone(&to) as _, &[gap(&one, &[])], true).unpack(&bundle);
    let good = packed(&from, vec![gap(&one, &[])], false).0.remove(0);
    let other = packed(&from, vec![gap(&two, &[])], false).0.remove(0);
    assert!(matches!(refused(other), Err(UnpackError::Unasked { found }) if found == two.id));
    for lengths in [vec![], vec![4095], vec![4096, 1], vec![4097], vec![u32::MAX; 9]] {
        let wrong = refused(Bundle { lengths: lengths.clone(), ..good.clone() }).expect_err("it has one block");
        let is_told = matches!(wrong, UnpackError::Frame { .. } | UnpackError::TooLong { .. });
        assert!(is_told, "{lengths:?}: {wrong}");
    }
    let frame = good.frame.slice(..good.frame.len() - 1);
    assert!(matches!(refused(Bundle { frame, ..good.clone() }), Err(UnpackError::Frame { .. })));
    let much = vec![Excerpt::all_of(one.id); PREFIX_BYTES / 4096 + 1];
    to.append(std::slice::from_ref(&one), Room::BesideReserve, &to.pin()).expect("a stored chunk");
    assert!(matches!(refused(Bundle { prefix: much, ..good }), Err(UnpackError::TooLong { .. })));
}

/// The root of these segments, in which each block is a chunk; all of it in the store.
fn root(store: &Arc<TestStore>, segments: &BTreeMap<u64, Vec<u8>>) -> Root {
    let mut writer = ChunkWriter::new(Arc::clone(store) as _);
    let mut changes = Vec::new();
    for (segment, blocks) in segments {
        let extents = (0..).zip(blocks).map(|(first_block, seed)| Extent {
            first_block,
            block_count: 1,
            chunk: writer.put(data((*seed).into(), 1)).expect("a block"),
            first_in_chunk: 0,
        });
        let manifest = Manifest::from_extents(extents).expect("a manifest").encode().expect("extents");
        let id = writer.put(NewChunk::of(ChunkKind::Manifest, manifest)).expect("a manifest");
        changes.push(Change::Set(SegmentIndex(*segment), id));
    }
    let root = map::update(&NodeCache::new(0), &mut writer, Root::EMPTY, &changes).expect("a root");
    drop(writer.finish().expect("stored chunks"));
    root
}

/// Fetches all of `new` by bundles; how many requests that took, and how many bytes were sent for them.
fn follow(from: &Arc<TestStore>, to: &Arc<TestStore>, old: Root, new: Root) -> (usize, usize) {
    let store: Arc<dyn ChunkStore> = Arc::clone(to) as _;
    let mut gaps = Gaps::new(Arc::clone(&store), old, new);
    let (mut requests, mut sent) = (0, 0);
    while let Some(group) = gaps.next(&store.pin()).expect("a walk") {
        let mut unpacker = Unpacker::new(Arc::clone(&store), &group, true);
        let (bundles, bytes) = packed(from, group, true);
        for bundle in bundles {
            store_fetched(&store, &store.pin(), unpacker.unpack(&bundle).expect("chunks")).expect("stored chunks");
        }
        (requests, sent) = (requests + 1, sent + bytes);
    }
    (requests, sent)
}

#[test]
fn little_that_has_changed_takes_one_request_and_little_more_than_its_bytes() {
    let mut segments: BTreeMap<_, _> = (0..300).map(|segment| (segment, vec![1, 2, 3, 4, 5, 6, 7, 8])).collect();
    let from = Arc::new(TestStore::default());
    let old = root(&from, &segments);
    let to = Arc::new(TestStore::default());
    follow(&from, &to, Root::EMPTY, old);
    segments.insert(123, vec![1, 2, 3, 99, 5, 6, 7, 8]);
    let new = root(&from, &segments);
    let (requests, sent) = follow(&from, &to, old, new);
    assert_eq!(requests, 1, "the map, and the block");
    assert!(sent < 4096 + 500, "{sent} bytes");
    // More than that may be there already.
    for segment in 10..15 {
        segments.insert(segment, vec![1, 2, 3, 100 + u8::try_from(segment).expect("small"), 5, 6, 7, 8]);
    }
    let newer = root(&from, &segments);
    let (requests, sent) = follow(&from, &to, new, newer);
    assert_eq!(requests, 2, "the map, and then the blocks");
    assert!(sent < 5 * (4096 + 300) + 500, "{sent} bytes");
}

proptest! {
    #[test]
    fn what_is_sent_is_all_that_was_lacking(
        old in proptest::collection::btree_map(0..600_u64, vec(any::<u8>(), 1..5), 0..12),
        changes in proptest::collection::btree_map(0..600_u64, vec(any::<u8>(), 1..5), 0..6),
        kept in 0..13_usize,
    ) {
        let from = Arc::new(TestStore::default());
        let mut segments = old.clone();
        segments.extend(changes);
        let segments: BTreeMap<_, _> = segments.into_iter().skip(12 - kept.min(12)).collect();
        let (old, new) = (root(&from, &old), root(&from, &segments));
        let to = Arc::new(TestStore::default());
        follow(&from, &to, Root::EMPTY, old);
        follow(&from, &to, old, new);
        let store: Arc<dyn ChunkStore> = to;
        prop_assert!(complete(&store, old, new).expect("a walk").is_some());
        prop_assert!(complete(&store, Root::EMPTY, new).expect("a walk").is_some());
    }

    #[test]
    fn what_is_unpacked_is_what_was_packed(
        chunks in vec((any::<u8>(), 1..33_usize, any::<bool>()), 1..60),
    ) {
        let made: Vec<_> = chunks.iter().map(|(seed, blocks, _)| data((*seed).into(), *blocks)).collect();
        let from = store_of(&made);
        let gaps: Vec<_> = made
            .iter()
            .zip(&chunks)
            .map(|(chunk, (seed, _, has))| match has {
                true => gap(chunk, &[Excerpt { chunk: made[usize::from(*seed) % made.len()].id, bytes: 100..9000 }]),
                false => gap(chunk, &[]),
            })
            .collect();
        // Whoever asks has everything that it names.
        let mut unpacker = Unpacker::new(Arc::clone(&from) as _, &gaps, false);
        let mut come = Vec::new();
        for bundle in packed(&from, gaps, false).0 {
            prop_assert!(bundle.prefix.len() * 8900 <= PREFIX_BYTES + 8900);
            come.extend(unpacker.unpack(&bundle).expect("chunks"));
        }
        prop_assert_eq!(come.len(), made.len());
        for ((wanted, bytes), chunk) in come.iter().zip(&made) {
            prop_assert_eq!((wanted.id, chunk_id(bytes)), (chunk.id, chunk.id));
        }
    }
}
