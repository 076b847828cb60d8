//! One trace, and how a guest keeps to it.
//!
//! ```text
//!  runs of the trace   0 ──────────── position ──────────── cursor ─────────────────── the last
//!                      touched, or passed over │ ordered, or here │ to be ordered
//! ```
//!
//! The position is behind the third newest of the guest's last touches that are in the trace: one or two that come early do not
//! move it. What the guest passes over stays ordered, if it was.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use super::{AHEAD_BLOCKS, ORDER_BLOCKS, ORDER_RUNS};
use crate::trace::Trace;

#[derive(Debug)]
pub(super) struct Track {
    trace: Arc<Trace>,
    /// The runs by their place in the volume; none overlaps another.
    places: Vec<(Range<u64>, usize)>,
    /// How many blocks come before each run, and how many there are.
    before: Vec<u64>,
    /// Which runs were ordered, or touched to their end.
    is_done: Vec<bool>,
    /// The guest's last touches: the run, where one was in the trace.
    recent: VecDeque<Option<usize>>,
    /// How many were, since it is followed.
    hits: u64,
    is_followed: bool,
    /// How many touches there were.
    touches: u64,
    /// All before it is done, or passed over.
    cursor: usize,
    /// Where the guest is.
    position: usize,
}

impl Track {
    pub(super) fn new(trace: Arc<Trace>) -> Self {
        let runs = trace.runs();
        let mut places: Vec<_> = runs.iter().map(|run| run.blocks.clone()).zip(0..).collect();
        places.sort_unstable_by_key(|(blocks, run)| (blocks.start, *run));
        let mut end = 0;
        places.retain(|(blocks, _)| {
            let is_apart = blocks.start >= end;
            end = end.max(blocks.end);
            is_apart
        });
        let mut before = vec![0];
        before.extend(runs.iter().scan(0, |sum, run| {
            *sum += run.block_count();
            Some(*sum)
        }));
        Self {
            places,
            before,
            is_done: vec![false; runs.len()],
            recent: VecDeque::with_capacity(RECENT),
            hits: 0,
            is_followed: false,
            touches: 0,
            cursor: 0,
            position: 0,
            trace,
        }
    }

    /// The guest has touched these blocks.
    pub(super) fn touched(&mut self, blocks: &Range<u64>) {
        let first = self.places.partition_point(|(place, _)| place.end <= blocks.start);
        let mut hit = None;
        for (place, run) in self.places[first..].iter().take_while(|(place, _)| place.start < blocks.end) {
            hit = hit.max(Some(*run));
            // The rest of one that was touched only at its beginning is still to come.
            self.is_done[*run] |= blocks.end >= place.end;
        }
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(hit);
        self.touches += 1;
        self.judge();
    }

    fn judge(&mut self) {
        let mut hits: Vec<_> = self.recent.iter().copied().flatten().collect();
        hits.sort_unstable();
        if self.is_followed {
            self.hits += u64::from(self.recent.back().is_some_and(Option::is_some));
            self.is_followed = self.keeps_to_it(hits.len());
        } else if self.touches == 1 && hits.first().is_some_and(|run| *run < BEGINNING) {
            (self.is_followed, self.hits) = (true, 1);
        } else if hits.len() >= RECOGNISED_BY && hits.len() * 2 >= self.recent.len() {
            self.is_followed = true;
            self.hits = hits.len() as u64;
            self.cursor = hits[0];
        }
        if self.is_followed {
            let newest = hits.len().checked_sub(STEADY).and_then(|at| hits.get(at)).or(hits.first());
            self.position = newest.copied().unwrap_or(self.position);
            // What it has passed over by that much it does not come back to.
            self.cursor = self.cursor.max(self.position.saturating_sub(PASSED_OVER));
        }
    }

    /// Whether a guest that is followed still is, with so many of its last touches in the trace. One that has begun as the trace does has
    /// to go on with it soon.
    fn keeps_to_it(&self, hits: usize) -> bool {
        match self.recent.len() {
            ..PRESUMED_FOR => true,
            touches @ ..RECENT => hits >= RECOGNISED_BY && hits * 2 >= touches,
            _ => hits * KEPT_TO_OF >= RECENT,
        }
    }

    /// The next runs that are to be ordered, where the link brings so many blocks in a second.
    pub(super) fn order(&mut self, blocks_per_s: u64) -> Vec<usize> {
        let seconds = (self.hits / HITS_PER_SECOND).clamp(LEAST_SECONDS, MOST_SECONDS);
        let ahead = (blocks_per_s.saturating_mul(seconds)).clamp(AHEAD_BLOCKS, MOST_AHEAD_BLOCKS);
        let end = self.before[self.position].saturating_add(ahead);
        let (mut runs, mut blocks) = (Vec::new(), 0);
        while self.cursor < self.len() && self.before[self.cursor] < end {
            if !self.is_done[self.cursor] {
                let count = self.trace.runs()[self.cursor].block_count();
                if !runs.is_empty() && (blocks + count > ORDER_BLOCKS || runs.len() == ORDER_RUNS) {
                    break;
                }
                blocks += count;
                self.is_done[self.cursor] = true;
                runs.push(self.cursor);
            }
            self.cursor += 1;
        }
        runs
    }

    /// These were ordered, and have not come.
    pub(super) fn failed(&mut self, runs: &[usize]) {
        for run in runs {
            self.is_done[*run] = false;
            self.cursor = self.cursor.min(*run);
        }
    }

    pub(super) fn blocks(&self, run: usize) -> Range<u64> {
        self.trace.runs()[run].blocks.clone()
    }

    pub(super) fn is_followed(&self) -> bool {
        self.is_followed
    }

    /// Whether the guest keeps to it, and has not come to its end.
    pub(super) fn is_leading(&self) -> bool {
        self.is_followed && self.position + STEADY < self.len()
    }

    /// Whether nothing of it is left to be ordered.
    pub(super) fn is_complete(&self) -> bool {
        self.cursor >= self.len()
    }

    pub(super) fn hits(&self) -> u64 {
        self.hits
    }

    pub(super) fn position(&self) -> usize {
        self.position
    }

    pub(super) fn ordered_to(&self) -> usize {
        self.cursor
    }

    pub(super) fn len(&self) -> usize {
        self.is_done.len()
    }
}

/// So many of the guest's last touches are looked at.
pub(super) const RECENT: usize = 16;
/// So many of them in the trace, and at least half of them all, and it is recognised.
pub(super) const RECOGNISED_BY: usize = 3;
/// Among so many of the trace's first runs a guest's first touch is, and it is taken to be the same again
const BEGINNING: usize = 4;
/// until it has touched so much.
const PRESUMED_FOR: usize = 6;
/// One in so many, and the guest still keeps to it.
const KEPT_TO_OF: usize = 4;
/// So many of the last touches are at the position or behind it in the trace.
const STEADY: usize = 3;
/// Runs that a guest may take in another order.
const PASSED_OVER: usize = 32;
/// The longer the guest has kept to it, the farther ahead: from four seconds of what the link brings
const LEAST_SECONDS: u64 = 4;
/// to twenty,
const MOST_SECONDS: u64 = 20;
/// one more for so many touches,
const HITS_PER_SECOND: u64 = 4;
/// and at most 256 MiB: what 100 Mbit/s brings in twenty seconds.
pub(super) const MOST_AHEAD_BLOCKS: u64 = 65_536;
