//! Manifests against a plain array of blocks, and their format.

use proptest::collection::vec;
use proptest::prelude::{Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};
use sterna_types::ChunkId;

use super::{Manifest, ManifestFormatError, ManifestStatistics};
use crate::chunk_store::chunk_id;
use crate::chunking::MAX_CHUNK_BLOCKS;
use crate::map::extent::{Extent, InvalidExtent, Piece, SEGMENT_BLOCKS};

/// A segment, the simple way: where each block is.
type Blocks = Vec<Option<(ChunkId, u16)>>;

#[derive(Clone, Debug)]
struct Replacement {
    first_block: u16,
    block_count: u16,
    with: Option<(ChunkId, u16)>,
}

fn chunk(number: u8) -> ChunkId {
    ChunkId::from_bytes([number; 32])
}

/// Replacements that often meet, continue or repeat one another: few chunks, and half of all blocks near the start.
fn replacement() -> impl Strategy<Value = Replacement> {
    let first = || prop_oneof![0..64u16, 0..SEGMENT_BLOCKS];
    let data = (first(), 1..=MAX_CHUNK_BLOCKS, 0..4u8, 0..MAX_CHUNK_BLOCKS).prop_map(|(first, count, number, from)| {
        let count = count.min(SEGMENT_BLOCKS - first).min(MAX_CHUNK_BLOCKS - from);
        Replacement { first_block: first, block_count: count, with: Some((chunk(number), from)) }
    });
    // The block of a chunk follows from the block of the segment, so that neighbours continue one another.
    let aligned = (first(), 1..=MAX_CHUNK_BLOCKS).prop_map(|(first, count)| {
        let from = first % MAX_CHUNK_BLOCKS;
        let (number, count) = (u8::try_from(first / MAX_CHUNK_BLOCKS).unwrap(), count.min(MAX_CHUNK_BLOCKS - from));
        Replacement { first_block: first, block_count: count, with: Some((chunk(number), from)) }
    });
    let hole = (first(), prop_oneof![1..20u16, 1..=SEGMENT_BLOCKS]).prop_map(|(first, count)| Replacement {
        first_block: first,
        block_count: count.min(SEGMENT_BLOCKS - first),
        with: None,
    });
    prop_oneof![2 => data, 3 => aligned, 1 => hole]
}

fn apply(replacements: &[Replacement]) -> (Manifest, Blocks) {
    let (mut manifest, mut blocks) = (Manifest::default(), vec![None; usize::from(SEGMENT_BLOCKS)]);
    for Replacement { first_block, block_count, with } in replacements {
        manifest.replace(*first_block, *block_count, *with).unwrap();
        for number in 0..*block_count {
            blocks[usize::from(first_block + number)] = with.map(|(chunk, from)| (chunk, from + number));
        }
    }
    (manifest, blocks)
}

/// The blocks of `pieces`, which are checked to lie one behind the other from `at` on.
fn blocks_of(pieces: impl Iterator<Item = Piece>, mut at: u16) -> Blocks {
    let mut blocks = Blocks::new();
    for piece in pieces {
        assert!(piece.first_block() == at && piece.block_count() > 0, "{piece:?} where block {at} is next");
        blocks.extend((0..piece.block_count()).map(|number| match piece {
            Piece::Mapped(extent) => Some((extent.chunk, extent.first_in_chunk + number)),
            Piece::Hole { .. } => None,
        }));
        at = piece.end_block();
    }
    blocks
}

fn one_by_one(blocks: &Blocks) -> impl Iterator<Item = Extent> {
    (0..).zip(blocks).filter_map(|(first_block, place)| {
        place.map(|(chunk, first_in_chunk)| Extent { first_block, block_count: 1, chunk, first_in_chunk })
    })
}

/// Something that is nearly a manifest: a real one, a byte of it changed, or bytes lost or added.
fn nearly_a_manifest() -> impl Strategy<Value = Vec<u8>> {
    (vec(replacement(), 1..40), vec((any::<usize>(), any::<u8>()), 0..3), any::<usize>(), 0..4u8).prop_map(
        |(replacements, changes, cut, how)| {
            let mut bytes = apply(&replacements).0.encode().unwrap_or_default().to_vec();
            let length = bytes.len();
            for (place, byte) in changes.into_iter().filter(|_| length > 0) {
                // Half of all changes go where the structure is.
                let span = if byte % 2 == 0 { length } else { length.min(12) };
                bytes[place % span] = byte >> (byte % 8);
            }
            match how {
                0 => bytes.truncate(cut % (bytes.len() + 1)),
                1 => bytes.push(0),
                _ => {}
            }
            bytes
        },
    )
}

proptest! {
    #[test]
    fn a_manifest_says_where_each_block_is(replacements in vec(replacement(), 0..60), first in 0..SEGMENT_BLOCKS, count in 1..=SEGMENT_BLOCKS) {
        let (manifest, blocks) = apply(&replacements);
        prop_assert_eq!(&blocks_of(manifest.lookup(0, SEGMENT_BLOCKS), 0), &blocks);
        let count = count.min(SEGMENT_BLOCKS - first);
        let part = &blocks[usize::from(first)..usize::from(first + count)];
        prop_assert_eq!(&blocks_of(manifest.lookup(first, count), first)[..], part);
    }

    #[test]
    fn equal_blocks_make_equal_manifests_whatever_their_history(replacements in vec(replacement(), 0..60)) {
        let (manifest, blocks) = apply(&replacements);
        let again = Manifest::from_extents(one_by_one(&blocks)).unwrap();
        prop_assert_eq!(&manifest, &again);
        prop_assert_eq!(manifest.encode(), again.encode());
    }

    #[test]
    fn statistics_count_what_is_there(replacements in vec(replacement(), 0..60)) {
        let (manifest, blocks) = apply(&replacements);
        let statistics = manifest.statistics();
        let mut chunks: Vec<_> = blocks.iter().flatten().map(|(chunk, _)| *chunk).collect();
        prop_assert_eq!(usize::from(statistics.mapped_blocks), chunks.len());
        prop_assert_eq!(usize::from(statistics.extents), manifest.extents().len());
        chunks.sort();
        chunks.dedup();
        prop_assert_eq!(usize::from(statistics.distinct_chunks), chunks.len());
        let mut listed = manifest.chunks();
        listed.sort();
        prop_assert_eq!(listed, chunks);
    }

    #[test]
    fn a_manifest_reads_back_as_it_was_written(replacements in vec(replacement(), 0..60)) {
        let (manifest, blocks) = apply(&replacements);
        match manifest.encode() {
            Some(bytes) => prop_assert_eq!(Manifest::decode(&bytes).unwrap(), manifest),
            None => prop_assert!(blocks.iter().all(Option::is_none)),
        }
    }

    #[test]
    fn whatever_decodes_is_the_one_way_to_write_it(bytes in nearly_a_manifest()) {
        if let Ok(manifest) = Manifest::decode(&bytes) {
            prop_assert_eq!(manifest.encode().unwrap(), bytes);
        }
    }

    #[test]
    fn no_bytes_are_too_odd_to_be_refused(bytes in vec(any::<u8>(), 0..200)) {
        prop_assert!(Manifest::decode(&bytes).is_err());
    }
}

/// Blocks 4 and 5 from chunk 1, block 6 from chunk 2, blocks 7 to 38 from chunk 1 again.
fn example() -> Manifest {
    let extent = |first_block, block_count, number, first_in_chunk| Extent {
        first_block,
        block_count,
        chunk: chunk(number),
        first_in_chunk,
    };
    Manifest::from_extents([extent(4, 2, 1, 0), extent(6, 1, 2, 31), extent(7, 30, 1, 2)]).unwrap()
}

fn example_bytes() -> Vec<u8> {
    let header = [b'S', b'M', b'f', b's', 1, 0, 2, 0, 3, 0, 0, 0];
    let extents = [[4, 0, 2, 0, 0, 0, 0, 0], [6, 0, 1, 0, 1, 0, 31, 0], [7, 0, 30, 0, 0, 0, 2, 0]];
    [&header[..], &[1; 32], &[2; 32], &extents.concat()].concat()
}

#[test]
fn golden_bytes_of_a_manifest() {
    let bytes = example().encode().unwrap();
    assert_eq!(bytes, example_bytes());
    assert_eq!(Manifest::decode(&bytes), Ok(example()));
    assert_eq!(chunk_id(&bytes).to_string(), "d0f24069d06ec637beebf8ff4287907bbe239d35f83525822b633853e0b9ccb5");
}

#[test]
fn a_wrong_field_is_named() {
    let decoded = |place: usize, byte: u8| {
        let mut bytes = example_bytes();
        bytes[place] = byte;
        Manifest::decode(&bytes).unwrap_err()
    };
    let extent = |number: usize| 12 + 2 * 32 + 8 * number;
    assert_eq!(decoded(0, b'T'), ManifestFormatError::Magic { found: *b"TMfs" });
    assert_eq!(decoded(4, 2), ManifestFormatError::Version { found: 2 });
    assert_eq!(decoded(6, 0), ManifestFormatError::Counts { chunks: 0, extents: 3 });
    assert_eq!(decoded(6, 4), ManifestFormatError::Counts { chunks: 4, extents: 3 });
    assert_eq!(decoded(9, 5), ManifestFormatError::Counts { chunks: 2, extents: 1283 });
    assert_eq!(decoded(6, 1), ManifestFormatError::Length { expected: 68, found: 100 });
    assert_eq!(decoded(11, 1), ManifestFormatError::Reserved { found: 256 });
    assert_eq!(decoded(extent(0) + 4, 1), ManifestFormatError::ChunkOrder { extent: 0, found: 1, next: 0 });
    assert_eq!(decoded(extent(1) + 4, 2), ManifestFormatError::ChunkOrder { extent: 1, found: 2, next: 1 });
    assert_eq!(decoded(extent(1) + 4, 0), ManifestFormatError::UnusedChunks { chunks: 2, used: 1 });
    assert_eq!(Manifest::decode(&example_bytes()[..11]), Err(ManifestFormatError::NoHeader { length: 11 }));
    let disorder = InvalidExtent::Disorder { first_block: 5, previous_end: 6 };
    assert_eq!(decoded(extent(1), 5), ManifestFormatError::Extent { extent: 1, source: disorder });
    let empty = InvalidExtent::OutsideSegment { first_block: 6, block_count: 0 };
    assert_eq!(decoded(extent(1) + 2, 0), ManifestFormatError::Extent { extent: 1, source: empty });
    let beyond = InvalidExtent::OutsideChunk { first_in_chunk: 32, block_count: 1 };
    assert_eq!(decoded(extent(1) + 6, 32), ManifestFormatError::Extent { extent: 1, source: beyond });
}

#[test]
fn a_manifest_has_one_form_only() {
    let mut twice = example_bytes();
    twice[12 + 32..12 + 64].fill(1);
    assert_eq!(Manifest::decode(&twice), Err(ManifestFormatError::DuplicateChunk { id: chunk(1) }));

    let header = [b'S', b'M', b'f', b's', 1, 0, 1, 0, 2, 0, 0, 0];
    let unmerged = [&header[..], &[1; 32], &[4, 0, 2, 0, 0, 0, 0, 0], &[6, 0, 1, 0, 0, 0, 2, 0]].concat();
    assert_eq!(Manifest::decode(&unmerged), Err(ManifestFormatError::NotMerged { extent: 1 }));
}

#[test]
fn what_cannot_be_is_refused_and_changes_nothing() {
    let mut manifest = example();
    let outside = |first_block, block_count| Err(InvalidExtent::OutsideSegment { first_block, block_count });
    assert_eq!(manifest.replace(0, 0, None), outside(0, 0));
    assert_eq!(manifest.replace(1020, 5, None), outside(1020, 5));
    assert_eq!(manifest.replace(u16::MAX, u16::MAX, None), outside(u16::MAX, u16::MAX));
    let beyond = Err(InvalidExtent::OutsideChunk { first_in_chunk: 30, block_count: 3 });
    assert_eq!(manifest.replace(0, 3, Some((chunk(3), 30))), beyond);
    assert_eq!(manifest, example());

    let extent = example().extents()[0];
    let disorder = InvalidExtent::Disorder { first_block: 4, previous_end: 6 };
    assert_eq!(Manifest::from_extents([extent, extent]), Err(disorder));
}

#[test]
fn the_largest_manifest_has_a_chunk_for_each_block() {
    let mut manifest = Manifest::default();
    for block in 0..SEGMENT_BLOCKS {
        manifest.replace(block, 1, Some((chunk_id(&block.to_le_bytes()), 0))).unwrap();
    }
    let bytes = manifest.encode().unwrap();
    assert_eq!(bytes.len(), 12 + 1024 * 40);
    assert_eq!(Manifest::decode(&bytes), Ok(manifest.clone()));
    let counts = ManifestStatistics { mapped_blocks: 1024, extents: 1024, distinct_chunks: 1024 };
    assert_eq!(manifest.statistics(), counts);
    assert_eq!(manifest.excess_extents(8), 1024 - 128);
}

#[test]
fn fragmentation_is_what_a_rewrite_would_save() {
    let mut manifest = Manifest::default();
    assert_eq!(manifest.excess_extents(8), 0);
    for block in [0, 8, 16, 24] {
        manifest.replace(block, 8, Some((chunk_id(&block.to_le_bytes()), 0))).unwrap();
    }
    assert_eq!(manifest.excess_extents(8), 0, "as good as new");
    manifest.replace(3, 1, Some((chunk(9), 0))).unwrap();
    assert_eq!(manifest.excess_extents(8), 2, "one block written anew has made three extents of one");
    manifest.replace(500, 1, Some((chunk(9), 1))).unwrap();
    assert_eq!(manifest.excess_extents(8), 2, "a block by itself cannot be had for less");
    manifest.replace(0, SEGMENT_BLOCKS, None).unwrap();
    assert_eq!(manifest, Manifest::default());
}
