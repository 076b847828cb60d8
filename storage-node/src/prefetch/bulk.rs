//! In which order all of a volume is brought, by somebody who brings all of it.
//!
//! 1. What is read-hot, in classes, the hottest first.
//! 2. What the traces have, the newest trace first, about in their order.
//! 3. What is not written more than it is read.
//! 4. The rest, which may be overwritten before it is needed.

use std::iter;
use std::ops::Range;
use std::sync::Arc;

use crate::heat::Region;
use crate::trace::Trace;

/// The parts of a volume of `size` blocks, class by class: in each in order, none of them empty, and none overlapping another of the same
/// class; together all of it. There are at most `max_runs` parts, and one where that is none.
pub fn in_order(
    size: u64,
    hot: Vec<Vec<Range<u64>>>,
    traces: &[Arc<Trace>],
    regions: impl IntoIterator<Item = Region>,
    max_runs: usize,
) -> Vec<Vec<Range<u64>>> {
    let mut classes = Vec::new();
    let overwritten = regions.into_iter().filter(|region| region.writes > region.reads);
    let overwritten = united(overwritten.map(|region| region.blocks.start..region.blocks.end.min(size)).collect());
    // All of it has its place, whatever else has.
    let last = match cold(size, &overwritten) {
        cold if cold.len() + overwritten.len() < max_runs => vec![cold, overwritten],
        _ => vec![iter::once(0..size).collect()],
    };
    let mut room = max_runs.saturating_sub(last.iter().map(Vec::len).sum());
    let slices = traces.iter().flat_map(|trace| slices(trace, size));
    for class in hot.into_iter().chain(slices) {
        let parts = class.into_iter().map(|part| part.start..part.end.min(size)).filter(|part| !part.is_empty());
        let parts: Vec<_> = parts.take(room).collect();
        room -= parts.len();
        classes.push(parts);
    }
    classes.extend(last);
    classes.retain(|class| class.iter().any(|part| !part.is_empty()));
    classes
}

/// A trace in pieces that follow each other, each in the order of the volume.
fn slices(trace: &Trace, size: u64) -> Vec<Vec<Range<u64>>> {
    let (mut slices, mut slice, mut blocks) = (Vec::new(), Vec::new(), 0);
    for run in trace.runs().iter().filter(|run| run.blocks.start < size) {
        slice.push(run.blocks.clone());
        blocks += run.block_count();
        if blocks >= SLICE_BLOCKS {
            slices.push(united(std::mem::take(&mut slice)));
            blocks = 0;
        }
    }
    slices.push(united(slice));
    slices
}

/// All but these.
fn cold(size: u64, overwritten: &[Range<u64>]) -> Vec<Range<u64>> {
    let (mut cold, mut from) = (Vec::new(), 0);
    for blocks in overwritten {
        if blocks.start > from {
            cold.push(from..blocks.start);
        }
        from = blocks.end;
    }
    if from < size {
        cold.push(from..size);
    }
    cold
}

/// The same blocks in order, in as few parts as can be.
fn united(mut parts: Vec<Range<u64>>) -> Vec<Range<u64>> {
    parts.retain(|part| !part.is_empty());
    parts.sort_unstable_by_key(|part| part.start);
    let mut united: Vec<Range<u64>> = Vec::new();
    for part in parts {
        match united.last_mut() {
            Some(last) if last.end >= part.start => last.end = last.end.max(part.end),
            _ => united.push(part),
        }
    }
    united
}

/// 16 MiB: within that the order of the volume costs little, and spares looking up its map in another order.
const SLICE_BLOCKS: u64 = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::Run;

    #[test]
    fn what_is_hot_comes_first_then_the_traces_and_what_is_overwritten_last() {
        let trace = Trace::of([5_000..5_064, 200..210, 205..220, 9_990..10_010].map(|blocks| Run { at_ms: 0, blocks }));
        let region = |blocks, reads, writes| Region { blocks, reads, writes };
        let regions = [region(0..64, 9, 2), region(128..192, 3, 4), region(192..256, 0, 1), region(512..576, 1, 1)];
        let hot = || vec![vec![0..64], vec![9_984..10_048]];
        let traces = [Arc::new(trace)];
        let one = |part: Range<u64>| iter::once(part).collect::<Vec<_>>();
        let all = || one(0..10_000);
        let classes = in_order(10_000, hot(), &traces, regions.clone(), 100);
        let traced = vec![200..220, 5_000..5_064, 9_990..10_000];
        let cold = vec![0..128, 256..10_000];
        assert_eq!(classes, [one(0..64), one(9_984..10_000), traced, cold, one(128..256)]);
        // It is all there even where there is no room for anything else.
        assert_eq!(in_order(10_000, hot(), &traces, regions.clone(), 2), [one(0..64), all()]);
        assert_eq!(in_order(10_000, hot(), &traces, regions, 0), [all()]);
        assert_eq!(in_order(10_000, Vec::new(), &[], [], 9), [all()]);
        assert_eq!(in_order(0, Vec::new(), &[], [], 9), Vec::<Vec<Range<u64>>>::new());
    }

    #[test]
    fn a_long_trace_is_brought_about_in_its_order() {
        let place = |number: u64| number * 7919 % 1000 * 100;
        let runs = (0..1000).map(|number: u64| Run { at_ms: 0, blocks: place(number)..place(number) + 50 });
        let classes = in_order(100_000, Vec::new(), &[Arc::new(Trace::of(runs))], [], 2000);
        let class_of = |block| classes.iter().position(|class| class.iter().any(|part| part.contains(&block)));
        assert_eq!([0, 81, 82, 999].map(|number| class_of(place(number))), [Some(0), Some(0), Some(1), Some(12)]);
        assert!(classes.iter().all(|class| class.windows(2).all(|pair| pair[0].end <= pair[1].start)), "{classes:?}");
    }
}
