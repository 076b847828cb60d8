//! Noting first touches against a set, runs, which traces are kept, and the bytes that are kept of them.

use std::collections::BTreeSet;

use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};
use sterna_runtime::BootTime;

use super::kept::MAX_TRACES;
use super::*;

const ATTACH_MS: u64 = 5_000;

/// So long after the attach.
fn at(ms: u64) -> BootTime {
    BootTime::from_nanoseconds((ATTACH_MS + ms) * 1_000_000)
}

fn attached() -> Touches {
    let touches = Touches::default();
    touches.begin(at(0));
    touches
}

fn run(at_ms: u32, blocks: Range<u64>) -> Run {
    Run { at_ms, blocks }
}

/// `count` reads of 8 blocks each, all over the place, the same for the same seed.
fn trace(seed: u64, count: u32) -> Trace {
    let place = |number: u32| (u64::from(number) * 7919 + seed * 104_729) % 100_000 * 64;
    Trace::of((0..count).map(|number| run(number * 10, place(number)..place(number) + 8)))
}

fn kept(traces: &Traces) -> Vec<Trace> {
    traces.iter().map(|trace| Trace::clone(trace)).collect()
}

#[test]
fn only_the_first_touch_of_a_block_is_noted_and_none_before_an_attach() {
    let touches = Touches::default();
    touches.note(&(5..6), at(1));
    assert_eq!(touches.trace(), Trace::default());
    touches.begin(at(0));
    touches.note(&(100..108), at(20));
    touches.note(&(100..108), at(30));
    touches.note(&(3..3), at(30));
    touches.note(&(104..112), at(2_000));
    touches.note(&(0..40), at(4_000));
    assert_eq!(touches.trace().runs(), [run(20, 100..108), run(2_000, 108..112), run(4_000, 0..40)]);
    // The next attach knows nothing of it.
    touches.begin(at(10_000));
    assert_eq!(touches.trace(), Trace::default());
    touches.note(&(100..108), at(10_007));
    assert_eq!(touches.trace().runs(), [run(7, 100..108)]);
}

#[test]
fn what_is_overwritten_is_needed_by_nobody() {
    let touches = attached();
    touches.note_overwritten(&(64..96), at(1));
    touches.note(&(60..100), at(2));
    assert_eq!(touches.trace().runs(), [run(2, 60..64), run(2, 96..100)]);
}

#[test]
fn neighbours_that_are_touched_about_together_are_one_run() {
    let touches = attached();
    // Four readers take turns, and one of them goes backwards.
    for step in 0..8 {
        for reader in 0..3 {
            touches.note(&(reader * 10_000 + step * 8..reader * 10_000 + step * 8 + 8), at(step * 10));
        }
        touches.note(&(50_000 - step * 8 - 8..50_000 - step * 8), at(step * 10));
    }
    let runs = [0..64, 10_000..10_064, 20_000..20_064, 49_936..50_000].map(|blocks| run(0, blocks));
    assert_eq!(touches.trace().runs(), runs);
    // What comes much later is another.
    touches.note(&(64..72), at(5_000));
    assert_eq!(touches.trace().runs()[4], run(5_000, 64..72));
}

#[test]
fn a_long_read_is_cut_into_runs() {
    let touches = attached();
    touches.note(&(10..2_500), at(1));
    assert_eq!(touches.trace().runs(), [run(1, 10..1_034), run(1, 1_034..2_058), run(1, 2_058..2_500)]);
}

#[test]
fn it_ends_after_ten_minutes_and_where_there_is_no_room() {
    let touches = attached();
    touches.note(&(1..2), at(599_999));
    touches.note(&(3..4), at(600_000));
    // It has ended for good.
    touches.note(&(5..6), at(10));
    assert_eq!(touches.trace().runs(), [run(599_999, 1..2)]);
    let touches = attached();
    (0..1 << 17).for_each(|group| touches.note(&(group * 64..group * 64 + 1), at(7)));
    assert_eq!(touches.trace().runs().len(), MAX_RUNS);
    assert!((MAX_RUNS..1 << 15).contains(&touches.progress().1), "{touches:?}");
    // What is written much leaves room for what is read.
    let touches = attached();
    (0..4096).for_each(|request| touches.note_overwritten(&(request << 12..(request + 1) << 12), at(7)));
    assert_eq!(touches.progress().1, 0);
    touches.note(&(1 << 30..(1 << 30) + 1), at(8));
    assert_eq!(touches.trace().runs(), [run(8, 1 << 30..(1 << 30) + 1)]);
    // No volume has such blocks.
    touches.note(&(MAX_BLOCKS - 1..MAX_BLOCKS + 1), at(9));
    assert_eq!(touches.trace().runs()[1], run(9, MAX_BLOCKS - 1..MAX_BLOCKS));
}

#[test]
fn who_looks_again_sees_what_is_new() {
    let (touches, mut seen) = (Touches::default(), Seen::default());
    assert_eq!(touches.news(&mut seen), []);
    touches.begin(at(0));
    touches.note(&(10..18), at(1));
    touches.note(&(50..58), at(2));
    assert_eq!(touches.news(&mut seen), [run(1, 10..18), run(2, 50..58)]);
    assert_eq!(touches.news(&mut seen), []);
    // The last entry grows.
    touches.note(&(58..60), at(3));
    touches.note(&(90..91), at(4));
    assert_eq!(touches.news(&mut seen), [run(2, 58..60), run(4, 90..91)]);
    touches.begin(at(100));
    touches.note(&(10..11), at(101));
    assert_eq!(touches.news(&mut seen), [run(1, 10..11)]);
}

#[test]
fn a_few_traces_are_kept_that_differ() {
    let mut traces = Traces::default();
    // Who reads on and on is known without.
    traces.add(Trace::of((0..100).map(|number: u32| run(number * 2_000, number.into()..u64::from(number) + 1))));
    assert!(traces.is_empty());
    traces.add(trace(1, 100));
    // The same boot again, which touches a little more.
    traces.add(trace(1, 120));
    assert_eq!(kept(&traces), [trace(1, 120)]);
    // One that has stopped early is for what it began as.
    traces.add(trace(1, 20));
    assert_eq!(kept(&traces), [trace(1, 120)]);
    (2..6).for_each(|seed| traces.add(trace(seed, 50)));
    assert_eq!(
        kept(&traces),
        [trace(5, 50), trace(4, 50), trace(3, 50), trace(1, 120)],
        "what came more than once stays"
    );
    assert_eq!(traces.iter().count(), MAX_TRACES);
}

#[test]
fn golden_bytes_of_traces() {
    let runs = [run(3, 100..108), run(300, 20..21), run(300, 21..23), run(301, 1 << 33..(1 << 33) + 1024)];
    let mut bytes = b"STtr\x01\x01\x01\x04".to_vec();
    bytes.extend([3, 0xC8, 1, 7]);
    bytes.extend([0xA9, 2, 0xAF, 1, 0]);
    // Elsewhere it would be a part of the run before.
    bytes.extend([0, 0, 1]);
    bytes.extend([1, 0xD2, 0xFF, 0xFF, 0xFF, 0x3F, 0xFF, 7]);
    let traces = Traces::parse(&bytes).expect("traces");
    assert_eq!(kept(&traces), [Trace { runs: runs.to_vec() }]);
    assert_eq!(traces.encode(), bytes);
    assert_eq!(Traces::default().encode(), b"STtr\x01\x00");
}

#[test]
fn bytes_that_are_no_traces_are_refused() {
    let with = |count: u8, rest: &[u8]| [&b"STtr\x01"[..], &[count], rest].concat();
    let cases = [
        (vec![], InvalidTraces::Header),
        (b"STtx\x01\x00".to_vec(), InvalidTraces::Header),
        (b"STtr\x02\x00".to_vec(), InvalidTraces::Header),
        (b"STtr\x01".to_vec(), InvalidTraces::Length),
        (with(5, &[]), InvalidTraces::Many { what: "the traces" }),
        (with(0, &[0]), InvalidTraces::Length),
        (with(1, &[]), InvalidTraces::Length),
        (with(1, &[1, 0]), InvalidTraces::Many { what: "the runs" }),
        (with(1, &[1, 0x81, 0x80, 1]), InvalidTraces::Many { what: "the runs" }),
        (with(1, &[0xFF, 0xFF, 0xFF, 0xFF, 0x7F, 1]), InvalidTraces::Many { what: "the attaches" }),
        (with(1, &[1, 2, 0, 0, 0]), InvalidTraces::Length),
        (with(1, &[1, 1, 0, 0, 0, 0]), InvalidTraces::Length),
        // Before the first block, too long, at no time of an attach, in more groups than it takes.
        (with(1, &[1, 1, 0, 1, 0]), InvalidTraces::Run { trace: 0, run: 0 }),
        (with(1, &[1, 1, 0, 0, 0x80, 8]), InvalidTraces::Run { trace: 0, run: 0 }),
        (with(1, &[1, 1, 0xC0, 0xCF, 0x24, 0, 0]), InvalidTraces::Run { trace: 0, run: 0 }),
        (with(1, &[1, 1, 0x80, 0, 0, 0]), InvalidTraces::Run { trace: 0, run: 0 }),
        (vec![0; MAX_KEPT_BYTES + 1], InvalidTraces::Many { what: "their bytes" }),
    ];
    for (bytes, error) in cases {
        assert_eq!(Traces::parse(&bytes), Err(error), "{bytes:?}");
    }
}

#[test]
fn what_is_too_much_to_be_kept_goes_without_its_oldest() {
    let mut traces = Traces::default();
    for seed in 0..4_u64 {
        let far = |number: u32| (u64::from(number % 2) << 32) + (seed << 20) + u64::from(number) * 40;
        traces.add(Trace::of((0..16_384).map(|number| run(number * 30, far(number)..far(number) + 1))));
    }
    let bytes = traces.encode();
    assert!(bytes.len() <= MAX_KEPT_BYTES, "{}", bytes.len());
    let left = kept(&Traces::parse(&bytes).expect("traces"));
    assert!((1..4).contains(&left.len()) && left[..] == kept(&traces)[..left.len()]);
}

proptest! {
    #[test]
    fn each_block_is_in_the_trace_once(requests in prop::collection::vec((0u64..3_000, 1u64..200, any::<bool>()), 0..60)) {
        let (touches, mut seen) = (attached(), Seen::default());
        let (mut touched, mut needed, mut news) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
        for (ms, (first, count, is_read)) in (0..).zip(requests) {
            let blocks = first..first + count;
            if is_read {
                touches.note(&blocks, at(ms * 7));
                needed.extend(blocks.clone().filter(|block| !touched.contains(block)));
            } else {
                touches.note_overwritten(&blocks, at(ms * 7));
            }
            touched.extend(blocks);
            if ms % 3 == 0 {
                news.extend(touches.news(&mut seen));
            }
        }
        news.extend(touches.news(&mut seen));
        let trace = touches.trace();
        let mut found: Vec<_> = trace.runs().iter().flat_map(|run| run.blocks.clone()).collect();
        found.sort_unstable();
        prop_assert_eq!(&found, &needed.iter().copied().collect::<Vec<_>>());
        prop_assert_eq!(trace.block_count(), needed.len() as u64);
        prop_assert!(trace.runs().windows(2).all(|pair| pair[0].at_ms <= pair[1].at_ms));
        let mut seen: Vec<_> = news.into_iter().flat_map(|run| run.blocks).collect();
        seen.sort_unstable();
        prop_assert_eq!(found, seen);
    }

    #[test]
    fn traces_read_back_as_they_were_written(seeds in prop::collection::vec((0u64..50, 0u32..400), 0..8)) {
        let mut traces = Traces::default();
        seeds.into_iter().for_each(|(seed, count)| traces.add(trace(seed, count)));
        prop_assert_eq!(Traces::parse(&traces.encode()), Ok(traces));
    }

    #[test]
    fn any_bytes_are_traces_that_are_written_so_or_refused(rest in prop::collection::vec(any::<u8>(), 0..60)) {
        let _ = Traces::parse(&rest);
        let bytes = [&b"STtr\x01"[..], &rest].concat();
        if let Ok(traces) = Traces::parse(&bytes) {
            prop_assert_eq!(traces.encode(), bytes);
        }
    }
}
