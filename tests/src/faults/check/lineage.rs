//! What a volume holds after a failover: the writes of the epochs before it, in their order, up to a number that the failover
//! reports.
//!
//! A volume has one client at a time, which sends one request at a time. So its writes have an order, and what its owner has
//! published or another site has pulled is the state after the first so many of them. Of a write without an answer it is known
//! from later reads whether it was done; where nothing was read any more, both is possible.

use std::collections::BTreeSet;

use crate::faults::history::{Does, Operation};
use crate::faults::mark::{Found, Mark};

/// A write, and whether it was done; `None` where nobody knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Done {
    block: u64,
    mark: Mark,
    is_done: Option<bool>,
}

/// The writes of a volume, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lineage {
    writes: Vec<Done>,
    /// How many of them were before the last flush that was acknowledged.
    flushed: usize,
}

impl Lineage {
    /// Goes on with what was asked in one epoch, in the order in which it was asked.
    pub fn extend(&mut self, operations: &[&Operation]) {
        for (at, operation) in operations.iter().enumerate() {
            if operation.does == Does::Flush && operation.is_done() {
                self.flushed = self.writes.len();
            }
            let Some((block, mark)) = operation.written() else { continue };
            let is_done = if operation.is_done() { Some(true) } else { seen(&operations[at + 1..], block, mark) };
            self.writes.push(Done { block, mark, is_done });
        }
    }

    /// Each volume that has had exactly so many of the writes done, and none of those behind them: more than one where it is not
    /// known which were.
    pub fn first(&self, blocks: u64) -> Vec<Self> {
        self.until(|so_far, _| so_far.writes.len() as u64 == blocks)
    }

    /// Each volume that has had the first of the writes done, all those among them that were flushed, so many at least, and none behind
    /// them.
    pub fn flushed(&self, blocks: u64) -> Vec<Self> {
        let ends = self.flushed..=self.writes.len();
        let all =
            ends.flat_map(|end| self.until(|_, at| at == end)).filter(|found| found.writes.len() as u64 >= blocks);
        all.collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Each volume that has had all of the writes done: more than one where it is not known of some whether they were.
    pub fn whole(&self) -> Vec<Self> {
        self.until(|_, at| at == self.writes.len())
    }

    /// Each volume that has had the writes done which come before such a place.
    fn until(&self, is_end: impl Fn(&Self, usize) -> bool) -> Vec<Self> {
        let mut found = BTreeSet::new();
        let mut open = vec![(Self::default(), 0)];
        while let Some((so_far, at)) = open.pop() {
            if is_end(&so_far, at) {
                found.insert(Self { flushed: so_far.writes.len(), ..so_far });
                continue;
            }
            let Some(write) = self.writes.get(at) else { continue };
            if write.is_done != Some(true) {
                open.push((so_far.clone(), at + 1));
            }
            if write.is_done != Some(false) {
                let mut longer = so_far;
                longer.writes.push(Done { is_done: Some(true), ..*write });
                open.push((longer, at + 1));
            }
            if open.len() > MOST_OPEN {
                return Vec::new();
            }
        }
        found.into_iter().collect()
    }

    /// What a volume of so many blocks holds after it; of what nobody knows, nothing.
    pub fn contents(&self, blocks: u64) -> Vec<Option<Mark>> {
        let mut contents = vec![None; usize::try_from(blocks).unwrap_or(0)];
        for write in self.writes.iter().filter(|write| write.is_done == Some(true)) {
            if let Some(held) = usize::try_from(write.block).ok().and_then(|block| contents.get_mut(block)) {
                *held = Some(write.mark);
            }
        }
        contents
    }

    /// How many of its writes were done for certain, and how many perhaps.
    pub fn counts(&self) -> (usize, usize) {
        let count = |is_done| self.writes.iter().filter(|write| write.is_done == is_done).count();
        (count(Some(true)), count(None))
    }
}

/// Whether a write without an answer was done, as the next read of its block tells.
fn seen(later: &[&Operation], block: u64, mark: Mark) -> Option<bool> {
    for operation in later {
        if operation.written().is_some_and(|(other, _)| other == block) {
            return None;
        }
        let Some((first, found)) = operation.does.found() else { continue };
        let held = block.checked_sub(first).and_then(|at| found.get(usize::try_from(at).ok()?));
        if let Some(held) = held {
            return Some(*held == Found::Mark(mark));
        }
    }
    None
}

/// Each write that nobody knows of doubles the possibilities, and few are at the end of an epoch.
const MOST_OPEN: usize = 1 << 12;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::history::Outcome;

    fn operation(does: Does, outcome: Outcome) -> Operation {
        Operation { volume: 0, node: 0, connection: 1, does, invoked_ns: 0, answered_ns: 0, outcome }
    }

    fn write(block: u64, sequence: u64, outcome: Outcome) -> Operation {
        operation(Does::Write { block, sequence }, outcome)
    }

    fn mark(sequence: u64) -> Option<Mark> {
        Some(Mark { node: 0, connection: 1, sequence })
    }

    fn lineage(operations: &[Operation]) -> Lineage {
        let mut lineage = Lineage::default();
        lineage.extend(&operations.iter().collect::<Vec<_>>());
        lineage
    }

    #[test]
    fn a_volume_falls_back_to_its_first_writes() {
        let all = lineage(&[write(0, 1, Outcome::Done), write(1, 2, Outcome::Done), write(0, 3, Outcome::Done)]);
        let contents = |blocks| all.first(blocks).iter().map(|first| first.contents(2)).collect::<Vec<_>>();
        assert_eq!(contents(0), [[None, None]]);
        assert_eq!(contents(2), [[mark(1), mark(2)]]);
        assert_eq!(contents(3), [[mark(3), mark(2)]]);
        assert!(contents(4).is_empty(), "there were not so many");
    }

    #[test]
    fn what_was_flushed_is_among_what_is_gone_on_with() {
        let flush = operation(Does::Flush, Outcome::Done);
        let all = lineage(&[write(0, 1, Outcome::Done), flush, write(1, 2, Outcome::Done), write(0, 3, Outcome::Done)]);
        let contents = |blocks| all.flushed(blocks).iter().map(|lineage| lineage.contents(2)).collect::<Vec<_>>();
        assert_eq!(contents(0), [[mark(1), None], [mark(1), mark(2)], [mark(3), mark(2)]]);
        assert_eq!(contents(2), [[mark(1), mark(2)], [mark(3), mark(2)]], "so much was published");
    }

    #[test]
    fn a_write_without_an_answer_counts_if_it_was_seen() {
        let read = |found: Option<Mark>| {
            let found = found.map_or(Found::Zeroes, Found::Mark);
            operation(Does::Read { first: 0, found: vec![found] }, Outcome::Done)
        };
        let first = |reads: &[Operation]| {
            let all = [&[write(0, 1, Outcome::Lost)], reads, &[write(1, 2, Outcome::Done)]].concat();
            lineage(&all).first(1).iter().map(|first| first.contents(2)).collect::<Vec<_>>()
        };
        assert_eq!(first(&[read(mark(1))]), [[mark(1), None]]);
        assert_eq!(first(&[read(None)]), [[None, mark(2)]]);
        assert_eq!(first(&[]).len(), 2, "either");
    }
}
