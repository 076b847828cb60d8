//! Cut points: golden vectors, boundaries, properties.

use std::collections::BTreeSet;
use std::ops::Range;

use proptest::collection::vec;
use proptest::prelude::{Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};

use super::{BLOCK_BYTES, ChunkingParameters, InvalidChunkingParameters, Run, cut, is_zero, runs};

/// Bytes that look random and are the same everywhere: what BLAKE3 makes of `seed`.
fn random(seed: &str, blocks: usize) -> Vec<u8> {
    let mut data = vec![0; blocks * BLOCK_BYTES];
    blake3::Hasher::new().update(seed.as_bytes()).finalize_xof().fill(&mut data);
    data
}

/// Lines of text that differ in a number, as logs do.
fn log(blocks: usize) -> Vec<u8> {
    let lines = (0u64..).flat_map(|n| format!("{n:09} GET /images/{}.png 200\n", n * 7919 % 1009).into_bytes());
    lines.take(blocks * BLOCK_BYTES).collect()
}

/// A table of growing offsets, as indices and inode tables have them.
fn table(blocks: usize) -> Vec<u8> {
    (0u32..).flat_map(|n| (n * 24 + n % 5).to_le_bytes()).take(blocks * BLOCK_BYTES).collect()
}

/// The lengths of the chunks, in blocks.
fn lengths(parameters: &ChunkingParameters, data: &[u8]) -> Vec<usize> {
    cut(parameters, data).map(|chunk| chunk.len() / BLOCK_BYTES).collect()
}

fn default_lengths(data: &[u8]) -> Vec<usize> {
    lengths(&ChunkingParameters::default(), data)
}

#[test]
fn golden_cut_points_of_random_data() {
    #[rustfmt::skip]
    let small = [13, 7, 10, 7, 4, 8, 15, 10, 12, 3, 14, 17, 16, 13, 13, 13, 5, 7, 11, 23, 15, 12, 8];
    assert_eq!(default_lengths(&random("sterna chunking 1", 256)), small);
    #[rustfmt::skip]
    let segment = [
        28, 17, 19, 9, 11, 10, 13, 9, 9, 19, 7, 9, 9, 5, 15, 11, 9, 6, 10, 9, 6, 7, 9, 3, 3, 7, 4, 5, 7, 13, 5, 9, 3, 22,
        11, 11, 18, 15, 8, 13, 6, 13, 4, 4, 9, 10, 12, 3, 11, 10, 3, 11, 4, 11, 10, 12, 18, 17, 10, 9, 12, 7, 13, 17, 9,
        13, 11, 4, 10, 9, 3, 11, 3, 3, 15, 12, 13, 4, 11, 5, 9, 4, 3, 3, 16, 9, 10, 16, 8, 12, 11, 10, 12, 14, 11, 15,
        15, 3, 5, 11, 13, 11, 5, 7, 6,
    ];
    assert_eq!(default_lengths(&random("sterna chunking 2", 1024)), segment);
}

#[test]
fn golden_cut_points_of_structured_data() {
    #[rustfmt::skip]
    let of_log = [
        16, 9, 12, 11, 3, 12, 8, 7, 19, 9, 3, 12, 6, 11, 14, 9, 6, 7, 9, 15, 17, 4, 7, 8, 3, 4, 5, 4, 6,
    ];
    assert_eq!(default_lengths(&log(256)), of_log);
    #[rustfmt::skip]
    let of_table = [12, 25, 3, 9, 13, 4, 10, 7, 12, 3, 6, 15, 25, 5, 9, 5, 5, 12, 9, 6, 10, 16, 9, 4, 13, 9];
    assert_eq!(default_lengths(&table(256)), of_table);
}

#[test]
fn golden_cut_points_of_other_parameters() {
    let data = random("sterna chunking 1", 128);
    let parameters = |minimum, average, maximum| ChunkingParameters::new(minimum, average, maximum).unwrap();
    assert_eq!(lengths(&parameters(1, 1, 2), &data), [2; 64]);
    assert_eq!(lengths(&parameters(4, 16, 32), &data), [21, 18, 20, 18, 11, 32, 8]);
    let small = [4, 8, 7, 7, 7, 3, 3, 5, 5, 10, 5, 5, 5, 3, 5, 6, 8, 7, 5, 11, 3, 6];
    assert_eq!(lengths(&parameters(2, 4, 24), &data), small);
}

#[test]
fn data_without_a_natural_cut_is_cut_at_the_maximum() {
    assert_eq!(default_lengths(&[0xE5; 1024 * BLOCK_BYTES]), [32; 32]);
    assert_eq!(default_lengths(&[0xE5; 70 * BLOCK_BYTES]), [32, 32, 6]);
}

#[test]
fn what_is_at_most_the_minimum_is_one_chunk() {
    assert_eq!(default_lengths(&[]), [0; 0]);
    for blocks in [1, 2] {
        assert_eq!(default_lengths(&random("short", blocks)), [blocks]);
    }
    assert_eq!(default_lengths(&[1; 32 * BLOCK_BYTES]), [32], "exactly the maximum");
    assert_eq!(default_lengths(&[1; 33 * BLOCK_BYTES]), [32, 1], "the last chunk may be shorter than the minimum");
}

/// FastCDC as it is described, one byte at a time, with none of the library's ways to be fast.
fn plain_cut(data: &[u8], minimum: usize, average: usize, maximum: usize) -> usize {
    let (gear, _) = fastcdc::v2020::get_gear_with_seed(0);
    let (strict, loose) = fastcdc::v2020::select_masks(average, fastcdc::v2020::Normalization::Level1);
    let end = data.len().min(maximum);
    let mut hash = 0u64;
    for at in minimum..end {
        hash = (hash << 1).wrapping_add(gear[usize::from(data[at])]);
        if hash & (if at < average { strict } else { loose }) == 0 {
            return at;
        }
    }
    end
}

#[test]
fn the_library_cuts_where_the_plain_algorithm_does() {
    let parameters = ChunkingParameters::default();
    for data in [random("plain", 512), log(128), table(128), vec![3; 40 * BLOCK_BYTES]] {
        let mut at = 0;
        for chunk in cut(&parameters, &data) {
            let plain = plain_cut(&data[at..], 8 << 10, 32 << 10, 128 << 10);
            let rounded = at + plain.div_ceil(BLOCK_BYTES) * BLOCK_BYTES;
            assert_eq!(chunk, at..rounded);
            at = rounded;
        }
        assert_eq!(at, data.len());
    }
}

/// Where chunks of `data` begin that lie wholly behind `from`, counted back from the end.
fn starts_from_end(data: &[u8], from: usize) -> BTreeSet<usize> {
    let chunks = cut(&ChunkingParameters::default(), data);
    chunks.filter(|chunk| chunk.start >= from).map(|chunk| data.len() - chunk.start).collect()
}

#[test]
fn blocks_put_in_between_move_only_the_cuts_nearby() {
    const NEARBY_BYTES: usize = 1 << 20;
    for round in 0..24 {
        let data = random(&format!("resynchronisation {round}"), 1024);
        let at = (100 + 10 * round) * BLOCK_BYTES;
        let insert = random("in between", 1 + round % 7);
        let longer = [&data[..at], &insert, &data[at..]].concat();

        let (before, after) = (default_cuts(&data), default_cuts(&longer));
        let unmoved = before.iter().take_while(|chunk| chunk.end <= at && after.contains(chunk)).count();
        let first_moved = before[unmoved].start;
        assert!(at - first_moved < 128 << 10, "a cut more than one chunk ahead of the place has moved");

        let nearby = data.len() - at - NEARBY_BYTES;
        let behind = |data: &[u8]| starts_from_end(data, data.len() - nearby);
        assert_eq!(behind(&data), behind(&longer), "cuts more than 1 MiB behind the place have moved");
        assert!(behind(&data).len() > 25);
    }
}

fn default_cuts(data: &[u8]) -> Vec<Range<usize>> {
    cut(&ChunkingParameters::default(), data).collect()
}

#[test]
fn parameters_are_four_bytes() {
    let default = ChunkingParameters::default();
    assert_eq!(default.encode(), [1, 2, 8, 32]);
    assert_eq!(ChunkingParameters::decode([1, 2, 8, 32]), Ok(default));
    assert_eq!((default.minimum_bytes(), default.average_bytes(), default.maximum_bytes()), (8192, 32768, 131_072));
    assert_eq!(default.average_blocks(), 8);
    assert_eq!(ChunkingParameters::decode([2, 2, 8, 32]), Err(InvalidChunkingParameters::Algorithm { found: 2 }));
    for [minimum, average, maximum] in [[0, 8, 32], [9, 8, 32], [2, 8, 4], [2, 8, 33], [2, 7, 32], [0, 0, 0]] {
        assert!(ChunkingParameters::decode([1, minimum, average, maximum]).is_err(), "{minimum} {average} {maximum}");
    }
}

/// Blocks of each of the kinds that matter: zeroes, nearly zeroes, alike, and all different.
fn some_data() -> impl Strategy<Value = Vec<u8>> {
    let nearly_zero = (0..BLOCK_BYTES, 1..=255u8).prop_map(|(place, byte)| {
        let mut block = vec![0; BLOCK_BYTES];
        block[place] = byte;
        block
    });
    let blocks = prop_oneof![
        (1..5usize).prop_map(|count| vec![0; count * BLOCK_BYTES]),
        nearly_zero,
        (any::<u8>(), 1..40usize).prop_map(|(byte, count)| vec![byte; count * BLOCK_BYTES]),
        (any::<u64>(), 1..40usize).prop_map(|(seed, count)| random(&seed.to_string(), count)),
    ];
    vec(blocks, 0..12).prop_map(|parts| parts.concat())
}

fn some_parameters() -> impl Strategy<Value = ChunkingParameters> {
    (0..=5u8, 1..=32u8, 0..=31u8).prop_map(|(average, minimum, more)| {
        let average = 1 << average;
        ChunkingParameters::new(minimum.min(average), average, (average + more).min(32)).unwrap()
    })
}

proptest! {
    #[test]
    fn chunks_are_all_of_the_data_in_order_and_within_their_bounds(data in some_data(), parameters in some_parameters()) {
        let chunks: Vec<_> = cut(&parameters, &data).collect();
        let mut at = 0;
        for chunk in &chunks {
            prop_assert_eq!(chunk.start, at);
            prop_assert!(!chunk.is_empty() && chunk.len().is_multiple_of(BLOCK_BYTES));
            prop_assert!(chunk.len() <= parameters.maximum_bytes());
            prop_assert!(chunk.len() >= parameters.minimum_bytes() || chunk.end == data.len());
            at = chunk.end;
        }
        prop_assert_eq!(at, data.len());
        prop_assert_eq!(cut(&parameters, &data).collect::<Vec<_>>(), chunks);
    }

    #[test]
    fn a_chunk_is_cut_the_same_whatever_comes_before_and_far_behind(data in some_data(), parameters in some_parameters()) {
        let chunks: Vec<_> = cut(&parameters, &data).collect();
        for chunk in chunks {
            let again = cut(&parameters, &data[chunk.start..]).next();
            prop_assert_eq!(again, Some(0..chunk.len()));
            let horizon = data.len().min(chunk.start + parameters.maximum_bytes());
            prop_assert_eq!(cut(&parameters, &data[chunk.start..horizon]).next(), Some(0..chunk.len()));
        }
    }

    #[test]
    fn runs_are_all_of_the_data_and_alternate(data in some_data()) {
        let mut at = 0;
        let mut was_zero = None;
        for run in runs(&data) {
            let (range, zero) = match run {
                Run::Zero(range) => (range, true),
                Run::Data(range) => (range, false),
            };
            prop_assert_eq!(range.start, at);
            prop_assert!(!range.is_empty() && range.len().is_multiple_of(BLOCK_BYTES));
            prop_assert!(was_zero != Some(zero), "two runs of one kind follow one another");
            for block in data[range.clone()].as_chunks::<BLOCK_BYTES>().0 {
                prop_assert_eq!(block.iter().all(|byte| *byte == 0), zero);
                prop_assert_eq!(is_zero(block), zero);
            }
            (at, was_zero) = (range.end, Some(zero));
        }
        prop_assert_eq!(at, data.len());
    }

    #[test]
    fn parameters_that_decode_are_those_that_were_encoded(bytes in [0..3u8, 0..40u8, 0..40u8, 0..40u8]) {
        if let Ok(parameters) = ChunkingParameters::decode(bytes) {
            prop_assert_eq!(parameters.encode(), bytes);
            prop_assert!(parameters.minimum_bytes() >= BLOCK_BYTES && parameters.maximum_bytes() <= 32 * BLOCK_BYTES);
        }
    }
}
