//! Runs of blocks that do not overlap: those of a volume that are newer than its root, with where their contents are, and those
//! that have not arrived yet.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use crate::journal::JournalFile;

/// What is newer than a root. The contents stay in the journal's files.
pub(crate) type Overlay = Runs<Source>;

/// Blocks of which nothing is said but that they are in it.
pub(crate) type BlockSet = Runs<()>;

/// Runs of blocks that do not overlap.
#[derive(Clone, Debug)]
pub(crate) struct Runs<S> {
    /// By first block.
    runs: BTreeMap<u64, Run<S>>,
}

#[derive(Clone, Debug)]
struct Run<S> {
    block_count: u64,
    source: S,
}

/// What is said of the first of some blocks, and follows for those behind it.
pub(crate) trait Skip: Clone {
    /// The same from `blocks` further on.
    fn skip(&self, blocks: u64) -> Self;
}

impl Skip for () {
    fn skip(&self, _blocks: u64) {}
}

/// Where the contents of a run of blocks are.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// In a file of the journal.
    Journal {
        file: Arc<JournalFile>,
        /// The first byte of the run there.
        at: u64,
    },
    /// Nowhere: they read as zeroes.
    Hole,
}

impl Skip for Source {
    fn skip(&self, blocks: u64) -> Self {
        match self {
            Self::Journal { file, at } => {
                Self::Journal { file: Arc::clone(file), at: at + blocks * sterna_types::BLOCK_SIZE }
            }
            Self::Hole => Self::Hole,
        }
    }
}

/// A run of blocks as a reader sees it.
#[derive(Clone, Debug)]
pub(crate) struct Piece<S> {
    pub(crate) blocks: Range<u64>,
    /// `None` where there is nothing said, and what lies below counts.
    pub(crate) source: Option<S>,
}

impl<S> Default for Runs<S> {
    fn default() -> Self {
        Self { runs: BTreeMap::new() }
    }
}

impl Overlay {
    /// Whether there are blocks in it that need no space.
    pub(crate) fn has_holes(&self) -> bool {
        self.runs.values().any(|run| matches!(run.source, Source::Hole))
    }

    /// Whether more blocks in it need no space than do.
    pub(crate) fn gives_back(&self) -> bool {
        let (mut holes, mut data) = (0, 0);
        for run in self.runs.values() {
            match run.source {
                Source::Hole => holes += run.block_count,
                Source::Journal { .. } => data += run.block_count,
            }
        }
        holes > data
    }
}

impl<S: Skip> Runs<S> {
    pub(crate) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Puts newer contents over the blocks.
    pub(crate) fn insert(&mut self, blocks: Range<u64>, source: S) {
        if blocks.is_empty() {
            return;
        }
        self.clear(&blocks);
        let block_count = blocks.end - blocks.start;
        self.runs.insert(blocks.start, Run { block_count, source });
    }

    /// Puts all of a newer overlay over this one.
    pub(crate) fn put(&mut self, newer: &Self) {
        for (blocks, source) in newer.runs() {
            self.insert(blocks, source.clone());
        }
    }

    /// Takes the blocks out, splitting the runs that reach beyond them.
    pub(crate) fn clear(&mut self, blocks: &Range<u64>) {
        if let Some((&start, run)) = self.runs.range_mut(..blocks.start).next_back() {
            let end = start + run.block_count;
            if end > blocks.start {
                run.block_count = blocks.start - start;
                let tail = (end > blocks.end).then(|| run.source.skip(blocks.end - start));
                if let Some(source) = tail {
                    self.runs.insert(blocks.end, Run { block_count: end - blocks.end, source });
                }
            }
        }
        while let Some((&start, run)) = self.runs.range(blocks.clone()).next() {
            let end = start + run.block_count;
            let tail = (end > blocks.end).then(|| run.source.skip(blocks.end - start));
            self.runs.remove(&start);
            if let Some(source) = tail {
                self.runs.insert(blocks.end, Run { block_count: end - blocks.end, source });
            }
        }
    }

    /// All of `blocks` in order, as runs that are in the overlay and gaps that are not.
    pub(crate) fn pieces(&self, blocks: Range<u64>) -> Pieces<'_, S> {
        let first = self.runs.range(..=blocks.start).next_back().map_or(blocks.start, |(&start, _)| start);
        Pieces { runs: self.runs.range(first..blocks.end.max(first)), at: blocks.start, end: blocks.end, held: None }
    }

    /// Every run, in order.
    pub(crate) fn runs(&self) -> impl Iterator<Item = (Range<u64>, &S)> {
        self.runs.iter().map(|(&start, run)| (start..start + run.block_count, &run.source))
    }
}

/// See [`Runs::pieces`].
#[derive(Debug)]
pub(crate) struct Pieces<'a, S> {
    runs: std::collections::btree_map::Range<'a, u64, Run<S>>,
    at: u64,
    end: u64,
    /// A run that begins behind the gap which was answered first.
    held: Option<Piece<S>>,
}

impl<S: Skip> Iterator for Pieces<'_, S> {
    type Item = Piece<S>;

    fn next(&mut self) -> Option<Piece<S>> {
        if let Some(piece) = self.held.take() {
            self.at = piece.blocks.end;
            return Some(piece);
        }
        while self.at < self.end {
            let Some((&start, run)) = self.runs.next() else {
                let gap = self.at..self.end;
                self.at = self.end;
                return Some(Piece { blocks: gap, source: None });
            };
            let blocks = start.max(self.at)..(start + run.block_count).min(self.end);
            if blocks.is_empty() {
                continue;
            }
            let piece = Piece { source: Some(run.source.skip(blocks.start - start)), blocks };
            if piece.blocks.start > self.at {
                let gap = self.at..piece.blocks.start;
                self.held = Some(piece);
                return Some(Piece { blocks: gap, source: None });
            }
            self.at = piece.blocks.end;
            return Some(piece);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{Strategy, prop, prop_assert, prop_assert_eq, proptest};

    /// What an overlay says of each block: `None` for nothing, `Some(None)` for a hole, else the place in the journal.
    fn said(overlay: &Overlay, blocks: Range<u64>) -> Vec<Option<Option<u64>>> {
        let mut said = Vec::new();
        let mut at = blocks.start;
        for piece in overlay.pieces(blocks.clone()) {
            assert_eq!(piece.blocks.start, at, "pieces follow one another");
            assert!(!piece.blocks.is_empty(), "no piece is empty");
            at = piece.blocks.end;
            for block in 0..piece.blocks.end - piece.blocks.start {
                said.push(piece.source.as_ref().map(|source| match source.skip(block) {
                    Source::Journal { at, .. } => Some(at),
                    Source::Hole => None,
                }));
            }
        }
        assert_eq!(at, blocks.end.max(blocks.start), "pieces cover what was asked for");
        said
    }

    fn operations() -> impl Strategy<Value = Vec<(u64, u64, bool)>> {
        prop::collection::vec((0..64u64, 0..20u64, prop::bool::ANY), 0..40)
    }

    proptest! {
        #[test]
        fn an_overlay_says_of_each_block_what_was_written_last(operations in operations(), ask in (0..80u64, 0..80u64)) {
            let file = Arc::new(crate::journal::JournalFile::for_tests());
            let (mut overlay, mut model) = (Overlay::default(), vec![None; 160]);
            for (index, (start, count, hole)) in operations.into_iter().enumerate() {
                let at = index as u64 * 1_000_000;
                let source = if hole { Source::Hole } else { Source::Journal { file: Arc::clone(&file), at } };
                overlay.insert(start..start + count, source);
                for block in start..start + count {
                    let place = (!hole).then(|| at + (block - start) * sterna_types::BLOCK_SIZE);
                    model[usize::try_from(block)?] = Some(place);
                }
            }
            let (start, end) = (usize::try_from(ask.0)?, usize::try_from(ask.0 + ask.1)?);
            prop_assert_eq!(said(&overlay, ask.0..ask.0 + ask.1), &model[start..end]);
            let mut end = 0;
            for (blocks, _) in overlay.runs() {
                prop_assert!(blocks.start >= end && blocks.end > blocks.start);
                end = blocks.end;
            }
        }
    }
}
