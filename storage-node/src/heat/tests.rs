//! Heat against plain sums, decay against the formula, and the bytes that are kept of it.

use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};

use super::kept::MAX_KEPT_REGIONS;
use super::*;

const GIB: u64 = 1 << 30;

fn at(minute: u64) -> BootTime {
    BootTime::from_nanoseconds(minute * NANOSECONDS_PER_MINUTE)
}

fn regions(heat: &Heat, now: BootTime) -> Vec<(Range<u64>, u32, u32)> {
    heat.regions(now).map(|Region { blocks, reads, writes }| (blocks, reads, writes)).collect()
}

#[test]
fn each_region_counts_its_part_of_a_request() {
    let heat = Heat::new(ByteSize(GIB));
    heat.note_read(&(60..70), at(1));
    heat.note_write(&(64..65), at(1));
    heat.note_read(&(5..5), at(1));
    assert_eq!(regions(&heat, at(1)), [(0..64, 4 * 16, 0), (64..128, 6 * 16, 16)]);
}

#[test]
fn counts_halve_in_ten_minutes_and_are_forgotten_at_last() {
    let heat = Heat::new(ByteSize(GIB));
    heat.note_read(&(0..64), at(7));
    let left = |minute| regions(&heat, at(minute)).first().map(|(_, reads, _)| *reads);
    assert_eq!([left(7), left(17), left(27), left(107)], [Some(1024), Some(512), Some(256), Some(1)]);
    assert_eq!(left(117), None);
    assert_eq!(left(7 + u64::from(MAX_MINUTE)), None, "a count is as old as can be");
    // It is added to what is left by then.
    heat.note_read(&(0..1), at(17));
    assert_eq!(left(17), Some(528));
}

#[test]
fn what_cannot_be_counted_is_the_most_that_can() {
    let heat = Heat::new(ByteSize(GIB));
    for _ in 0..5_000 {
        heat.note_read(&(0..64), at(1));
    }
    assert_eq!(regions(&heat, at(1)), [(0..64, MAX_COUNT, 0)]);
}

#[test]
fn regions_are_larger_where_a_volume_is_and_none_lies_beyond_what_is_counted() {
    for (size, blocks) in [(1, 64), (1 << 40, 64), ((1 << 40) + 1, 128), (64 << 40, 4096)] {
        let heat = Heat::new(ByteSize(size));
        let last = size.div_ceil(BLOCK_SIZE) - 1;
        heat.note_read(&(last..last + 1), at(1));
        let first = last / blocks * blocks;
        assert_eq!(regions(&heat, at(1)), [(first..first + blocks, 16, 0)], "{size} bytes");
    }
    let heat = Heat::new(ByteSize(1 << 40));
    heat.note_read(&((1 << 28) - 1..(1 << 28) + 1), at(1));
    assert_eq!(regions(&heat, at(1)).len(), 1, "it has grown");
}

#[test]
fn what_is_read_most_is_hot_first_and_what_is_overwritten_is_not() {
    let heat = Heat::new(ByteSize(GIB));
    let read =
        |region: u64, times: u64| (0..times).for_each(|_| heat.note_read(&(region * 64..region * 64 + 64), at(1)));
    read(1, 1);
    read(2, 1);
    read(9, 1);
    read(5, 8);
    read(7, 1);
    heat.note_write(&(7 * 64..8 * 64), at(1));
    heat.note_write(&(20 * 64..21 * 64), at(1));
    let hot = |most| {
        let classes = heat.read_hot(at(1), most).into_iter();
        classes.map(|runs| runs.into_iter().map(|run| (run.start, run.end)).collect()).collect::<Vec<Vec<_>>>()
    };
    assert_eq!(hot(100), [vec![(320, 384)], vec![(64, 192), (576, 640)]]);
    assert_eq!(hot(2), [[(320, 384)], [(64, 192)]]);
    assert_eq!(hot(0), Vec::<Vec<_>>::new());
}

#[test]
fn golden_bytes_of_heat() {
    let heat = Heat::new(ByteSize(GIB));
    heat.note_read(&(64..128), at(1));
    heat.note_write(&(130..131), at(1));
    let bytes = [&[1, 6, 0, 0][..], &[1, 1024, 0, 2, 0, 16].map(u32::to_le_bytes).concat()].concat();
    assert_eq!(heat.encode(at(1)), bytes);
    let other = Heat::new(ByteSize(GIB));
    other.adopt(&bytes, at(500)).expect("heat");
    assert_eq!(regions(&other, at(500)), regions(&heat, at(1)));
}

#[test]
fn bytes_that_are_no_heat_are_refused_and_nothing_of_them_is_counted() {
    let heat = Heat::new(ByteSize(GIB));
    let region = |numbers: [u32; 3]| numbers.map(u32::to_le_bytes).concat();
    let with = |regions: &[[u32; 3]]| [vec![1, 6, 0, 0], regions.iter().copied().flat_map(region).collect()].concat();
    let cases = [
        (vec![], InvalidHeat::Header),
        (vec![2, 6, 0, 0], InvalidHeat::Header),
        (vec![1, 6, 0, 1], InvalidHeat::Header),
        (vec![1, 5, 0, 0], InvalidHeat::Header),
        (vec![1, 29, 0, 0], InvalidHeat::Header),
        (vec![1, 6, 0, 0, 0], InvalidHeat::Length(1)),
        (with(&[[3, 1, 0], [3, 1, 0]]), InvalidHeat::Region(1)),
        (with(&[[3, 0, 0]]), InvalidHeat::Region(0)),
        (with(&[[3, 1, MAX_COUNT + 1]]), InvalidHeat::Region(0)),
    ];
    for (bytes, error) in cases {
        assert_eq!(heat.adopt(&bytes, at(1)), Err(error), "{bytes:?}");
    }
    let many: Vec<_> = (0..=u32::try_from(MAX_KEPT_REGIONS).expect("few")).map(|region| [region, 1, 0]).collect();
    assert_eq!(heat.adopt(&with(&many), at(1)), Err(InvalidHeat::Length(many.len() * 12)));
    assert_eq!(regions(&heat, at(1)), []);
}

#[test]
fn of_many_regions_those_are_kept_that_are_used_most() {
    let heat = Heat::new(ByteSize(64 * GIB));
    let most = MAX_KEPT_REGIONS as u64;
    (0..most + 10).for_each(|region| heat.note_read(&(region * 64..region * 64 + 1), at(1)));
    heat.note_read(&((most + 5) * 64..(most + 5) * 64 + 9), at(1));
    let bytes = heat.encode(at(1));
    assert_eq!(bytes.len(), MAX_KEPT_BYTES);
    let other = Heat::new(ByteSize(64 * GIB));
    other.adopt(&bytes, at(1)).expect("heat");
    assert!(regions(&other, at(1)).contains(&((most + 5) * 64..(most + 6) * 64, 160, 0)));
}

proptest! {
    #[test]
    fn sums_are_right_whatever_comes(requests in prop::collection::vec((0u64..100_000, 1u64..300, any::<bool>()), 0..50)) {
        let heat = Heat::new(ByteSize(GIB));
        let (mut reads, mut writes) = (0, 0);
        for (first, count, is_read) in requests {
            if is_read {
                heat.note_read(&(first..first + count), at(3));
                reads += count * 16;
            } else {
                heat.note_write(&(first..first + count), at(3));
                writes += count * 16;
            }
        }
        let found = regions(&heat, at(3));
        prop_assert_eq!(found.iter().map(|(_, reads, _)| u64::from(*reads)).sum::<u64>(), reads);
        prop_assert_eq!(found.iter().map(|(.., writes)| u64::from(*writes)).sum::<u64>(), writes);
        prop_assert!(found.iter().zip(&found[1.min(found.len())..]).all(|(one, next)| one.0.end <= next.0.start));
        // Regions of another size have as much of it.
        let (other, bytes) = (Heat::new(ByteSize(4 << 40)), heat.encode(at(3)));
        other.adopt(&bytes, at(9)).expect("heat");
        let there = regions(&other, at(9));
        prop_assert_eq!(there.iter().map(|(_, reads, _)| u64::from(*reads)).sum::<u64>(), reads);
        prop_assert!(there.iter().all(|(blocks, ..)| blocks.end - blocks.start == 256));
    }

    #[test]
    fn any_bytes_are_heat_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        let mut bytes = bytes;
        let heat = Heat::new(ByteSize(GIB));
        let _ = heat.adopt(&bytes, at(1));
        bytes.splice(0..bytes.len().min(4), [1, 6, 0, 0]);
        let _ = heat.adopt(&bytes, at(1));
    }
}
