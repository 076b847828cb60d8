//! The ranges of a volume that could not be rebuilt.

use std::fmt;

use sterna_types::ByteRange;

/// A part of a volume whose contents are not here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LostRange {
    /// Its bytes. In an image they are a hole.
    pub range: ByteRange,
    /// What is missing.
    pub cause: LostCause,
}

/// What is missing of a lost range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LostCause {
    /// A part of the map: nobody knows what was in the range, or whether anything was.
    Map,
    /// The data.
    Data,
    /// Data in the journal that could be read a moment before.
    Journal,
    /// Data that had not arrived from the node that the volume was handed over from.
    Elsewhere,
}

impl fmt::Display for LostCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Map => "map",
            Self::Data => "data",
            Self::Journal => "journal",
            Self::Elsewhere => "elsewhere",
        })
    }
}

/// Lost ranges as they are found, from the start of the volume on. Invariants: neighbours of one cause are one; there are at
/// most [`MAX_LOST_RANGES`], the last of which comes to cover what is between it and any later one.
#[derive(Debug, Default)]
pub(super) struct LostRanges {
    ranges: Vec<LostRange>,
}

impl LostRanges {
    pub(super) fn push(&mut self, range: ByteRange, cause: LostCause) {
        if range.is_empty() {
            return;
        }
        let is_full = self.ranges.len() >= MAX_LOST_RANGES;
        match self.ranges.last_mut() {
            Some(last) if is_full || (last.cause == cause && last.range.end() == range.start()) => {
                last.range = ByteRange::between(last.range.start(), range.end().max(last.range.end()));
            }
            _ => self.ranges.push(LostRange { range, cause }),
        }
    }

    /// These and others, in the order of their bytes.
    pub(super) fn with(mut self, others: [Self; 2]) -> Vec<LostRange> {
        self.ranges.extend(others.into_iter().flat_map(|others| others.ranges));
        self.ranges.sort_by_key(|lost| lost.range.start());
        self.ranges
    }
}

/// 24 MiB of them. Who has lost more has no use for the exact list.
const MAX_LOST_RANGES: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use sterna_types::ByteOffset;

    #[test]
    fn neighbours_are_one_and_a_full_list_covers_the_rest() {
        let range = |start: u64| ByteRange::between(ByteOffset(start), ByteOffset(start + 4096));
        let mut lost = LostRanges::default();
        lost.push(range(0), LostCause::Data);
        lost.push(range(4096), LostCause::Data);
        lost.push(range(8192), LostCause::Map);
        assert_eq!(lost.ranges.len(), 2);
        assert_eq!(lost.ranges[0].range.length(), 8192);
        for number in 0..MAX_LOST_RANGES as u64 {
            lost.push(range(20_000 * (number + 1)), LostCause::Data);
        }
        assert_eq!(lost.ranges.len(), MAX_LOST_RANGES);
        let end = lost.ranges.last().expect("a range").range.end();
        assert_eq!(end, range(20_000 * MAX_LOST_RANGES as u64).end());
        let all = lost.with([LostRanges::default(), LostRanges::default()]);
        assert!(all.is_sorted_by_key(|lost| lost.range.start()));
    }
}
