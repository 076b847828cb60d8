//! The tail of a handoff: the blocks that are newer than the root which is handed over (design section 5).
//!
//! Of each it is said whether it is a hole or data. Holes are known by that; data is fetched from the node that has handed the
//! volume over, block by block, before anything else is. Until then the tail is a part of the volume's record.
//!
//! As bytes, integers little-endian, 16 for each run, in the order of the blocks:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | first block |
//! | 8 | 8 | how many blocks, at least 1; the highest bit is set for a hole |

use std::ops::Range;

use sterna_types::{BLOCK_SIZE, VolumeSize};

use super::overlay::{BlockSet, Overlay, Source};

/// The blocks that are newer than a root, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tail {
    runs: Vec<TailRun>,
}

/// Neighbouring blocks of a tail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TailRun {
    /// Which.
    pub blocks: Range<u64>,
    /// Whether they read as zeroes; else they hold data, which may be zeroes too.
    pub is_hole: bool,
}

/// Bytes that are no tail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTail {
    /// Runs have 16 bytes each.
    #[error("{0} bytes are no whole number of runs of {RUN_BYTES}")]
    Length(usize),
    /// [`MAX_TAIL_RUNS`].
    #[error("{0} runs; {MAX_TAIL_RUNS} are the most")]
    TooManyRuns(usize),
    /// A run of no blocks, of blocks that no volume has, or of some that an earlier run has too.
    #[error("run {0} is empty, beyond the largest volume, or not behind the one before it")]
    Run(usize),
}

impl Tail {
    /// Nothing.
    pub const EMPTY: Self = Self { runs: Vec::new() };

    /// What these layers have, the later over the earlier.
    pub(super) fn of<'a>(layers: impl IntoIterator<Item = &'a Overlay>) -> Self {
        let mut all = Overlay::default();
        layers.into_iter().for_each(|layer| all.put(layer));
        let mut tail = Self::EMPTY;
        for (blocks, source) in all.runs() {
            tail.push(blocks, matches!(source, Source::Hole));
        }
        tail
    }

    /// Data in these blocks.
    pub(super) fn of_data(blocks: &BlockSet) -> Self {
        let mut tail = Self::EMPTY;
        blocks.runs().for_each(|(blocks, ())| tail.push(blocks, false));
        tail
    }

    fn push(&mut self, blocks: Range<u64>, is_hole: bool) {
        match self.runs.last_mut() {
            Some(last) if last.blocks.end == blocks.start && last.is_hole == is_hole => last.blocks.end = blocks.end,
            _ => self.runs.push(TailRun { blocks, is_hole }),
        }
    }

    /// Its runs, in order; none overlaps another.
    pub fn runs(&self) -> &[TailRun] {
        &self.runs
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// How many blocks of data are in it.
    pub fn data_blocks(&self) -> u64 {
        self.data().map(|blocks| blocks.end - blocks.start).sum()
    }

    /// The blocks that hold data, in order.
    pub fn data(&self) -> impl Iterator<Item = Range<u64>> {
        self.runs.iter().filter(|run| !run.is_hole).map(|run| run.blocks.clone())
    }

    /// The blocks that are holes, in order.
    pub(super) fn holes(&self) -> impl Iterator<Item = Range<u64>> {
        self.runs.iter().filter(|run| run.is_hole).map(|run| run.blocks.clone())
    }

    /// It as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.runs.len() * RUN_BYTES);
        for TailRun { blocks, is_hole } in &self.runs {
            let count = (blocks.end - blocks.start) | if *is_hole { HOLE } else { 0 };
            bytes.extend_from_slice(&blocks.start.to_le_bytes());
            bytes.extend_from_slice(&count.to_le_bytes());
        }
        bytes
    }

    /// The tail that these bytes are.
    ///
    /// # Errors
    /// [`InvalidTail`].
    pub fn parse(bytes: &[u8]) -> Result<Self, InvalidTail> {
        let (runs, rest) = bytes.as_chunks::<RUN_BYTES>();
        if !rest.is_empty() {
            return Err(InvalidTail::Length(bytes.len()));
        }
        if runs.len() > MAX_TAIL_RUNS {
            return Err(InvalidTail::TooManyRuns(runs.len()));
        }
        let (mut tail, mut behind) = (Self { runs: Vec::with_capacity(runs.len()) }, 0);
        for (index, run) in runs.iter().enumerate() {
            let [first, count] = [0, 8].map(|at| u64::from_le_bytes(std::array::from_fn(|byte| run[at + byte])));
            let (is_hole, count) = (count & HOLE != 0, count & !HOLE);
            let end = first.checked_add(count).filter(|end| *end <= MAX_BLOCKS);
            let Some(end) = end.filter(|_| count > 0 && first >= behind) else {
                return Err(InvalidTail::Run(index));
            };
            tail.runs.push(TailRun { blocks: first..end, is_hole });
            behind = end;
        }
        Ok(tail)
    }
}

/// The most runs in a tail: four times as many as a full journal of single blocks has.
pub const MAX_TAIL_RUNS: usize = 1 << 20;
/// Bytes of a run.
const RUN_BYTES: usize = 16;
const HOLE: u64 = 1 << 63;
const MAX_BLOCKS: u64 = VolumeSize::MAX.0 / BLOCK_SIZE;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{Strategy, any, prop, prop_assert_eq, proptest};

    fn tails() -> impl Strategy<Value = Tail> {
        prop::collection::vec((0..5u64, 1..100u64, any::<bool>()), 0..50).prop_map(|runs| {
            let (mut tail, mut at) = (Tail::EMPTY, 0);
            for (gap, count, is_hole) in runs {
                tail.push(at + gap..at + gap + count, is_hole);
                at += gap + count;
            }
            tail
        })
    }

    proptest! {
        #[test]
        fn a_tail_reads_back_as_it_was_written(tail in tails()) {
            prop_assert_eq!(Tail::parse(&tail.encode()), Ok(tail));
        }

        #[test]
        fn any_bytes_are_a_tail_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            if let Ok(tail) = Tail::parse(&bytes) {
                prop_assert_eq!(tail.encode(), bytes);
            }
        }
    }

    #[test]
    fn golden_bytes_of_a_tail() {
        let mut tail = Tail::EMPTY;
        tail.push(3..5, false);
        tail.push(5..6, false);
        tail.push(0x0102_0304..0x0102_0305, true);
        let numbers = [3, 3, 0x0102_0304, HOLE + 1].map(u64::to_le_bytes).concat();
        assert_eq!(tail.encode(), numbers);
        assert_eq!((tail.data_blocks(), tail.runs().len()), (3, 2));
    }

    #[test]
    fn what_is_no_tail_is_refused() {
        let parse = |numbers: &[u64]| Tail::parse(&numbers.iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<_>>());
        assert_eq!(parse(&[1, 0]), Err(InvalidTail::Run(0)), "no blocks");
        assert_eq!(parse(&[1, HOLE]), Err(InvalidTail::Run(0)), "no blocks of a hole");
        assert_eq!(parse(&[1, 4, 4, 1]), Err(InvalidTail::Run(1)), "block 4 twice");
        assert_eq!(parse(&[MAX_BLOCKS, 1]), Err(InvalidTail::Run(0)));
        assert_eq!(parse(&[u64::MAX, 2]), Err(InvalidTail::Run(0)));
        assert_eq!(parse(&[1]), Err(InvalidTail::Length(8)));
        assert!(parse(&[MAX_BLOCKS - 1, 1]).is_ok());
    }
}
