//! Which parts of a volume are touched first after an attach, in which order, and when: what a guest that starts again is about to need.
//!
//! A guest that boots reads the same blocks in nearly the same order each time. Heat knows that they are read, and not when; a trace knows
//! the order, block by block.
//!
//! ```text
//!  attach        first touches                        the next attach, the close of the volume, ten minutes, or no room
//!    ├──▪─▪▪──▪───▪▪▪▪──────▪─────▪▪── ... ──────────────┤
//!    │                                                   └── joined into runs, and kept among the few latest that differ
//!    └── of the first client after none
//! ```
//!
//! * An attach begins with the first client of a volume that had none. Clients that come beside it change nothing. It is over when
//!   another begins, or the volume is closed or goes to another node; nothing has to be noticed when the last client leaves, since nobody
//!   touches anything from then on.
//! * A first touch is a read of a block that was not touched since, or a write of a part of it. A block that is overwritten whole needs
//!   nothing of what it held: it is noted, and is in no trace.
//! * [`Touches`] notes them, beside requests: bounded in memory, without a lock. [`Trace`] is what one attach has come to, and [`Traces`] are
//!   those that are kept with the volume (`kept` has their bytes). A trace that says nothing beyond what reading ahead finds by itself
//!   is not kept.
//!
//! This module is *not* a policy: what is fetched for a trace that comes again is decided by whoever follows it.

mod kept;
mod touches;

use std::ops::Range;

pub use kept::{InvalidTraces, MAX_KEPT_BYTES, Traces};
pub use touches::{Seen, Touches};

/// The first touches after one attach, in order.
///
/// Invariant: the runs' times never fall, and each run has one block or more, at most [`MAX_RUN_BLOCKS`], of those that a volume can
/// have. No block is in two runs, as long as no two requests have touched it at the same moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    runs: Vec<Run>,
}

/// Neighbouring blocks that were touched about together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// When the first of them was: milliseconds after the attach.
    pub at_ms: u32,
    /// Which.
    pub blocks: Range<u64>,
}

impl Trace {
    /// What these touches come to, which are in the order of time: neighbours that come soon after each other are one run. The first
    /// [`MAX_RUNS`] of them.
    pub fn of(touches: impl IntoIterator<Item = Run>) -> Self {
        let mut runs: Vec<Run> = Vec::new();
        for touch in touches {
            let recent = runs.len().saturating_sub(JOINED_RUNS);
            let joined = runs[recent..].iter_mut().rev().any(|run| run.joins(&touch));
            if !joined && runs.len() == MAX_RUNS {
                break;
            }
            if !joined {
                runs.push(touch);
            }
        }
        Self { runs }
    }

    /// Its runs, in order.
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// How many blocks are in it.
    pub fn block_count(&self) -> u64 {
        self.runs.iter().map(Run::block_count).sum()
    }

    /// Whether it says more than that somebody reads on and on.
    pub fn is_telling(&self) -> bool {
        let jumps = self.runs.windows(2).filter(|pair| pair[0].blocks.end != pair[1].blocks.start);
        jumps.take(TELLING_JUMPS).count() == TELLING_JUMPS
    }

    /// How many blocks are in both.
    fn shared_blocks(&self, other: &Self) -> u64 {
        let (one, other) = (self.in_place(), other.in_place());
        let (mut ones, mut others) = (one.iter().peekable(), other.iter().peekable());
        let mut shared = 0;
        while let (Some(one), Some(other)) = (ones.peek(), others.peek()) {
            shared += one.end.min(other.end).saturating_sub(one.start.max(other.start));
            if one.end <= other.end {
                ones.next()
            } else {
                others.next()
            };
        }
        shared
    }

    /// Its blocks in the order of the volume.
    fn in_place(&self) -> Vec<Range<u64>> {
        let mut ranges: Vec<_> = self.runs.iter().map(|run| run.blocks.clone()).collect();
        ranges.sort_unstable_by_key(|blocks| blocks.start);
        ranges
    }
}

impl Run {
    /// How many blocks it has.
    pub fn block_count(&self) -> u64 {
        self.blocks.end - self.blocks.start
    }

    /// Takes a touch in, where it is beside it, soon after it, and there is room.
    fn joins(&mut self, touch: &Self) -> bool {
        let is_soon = touch.at_ms.saturating_sub(self.at_ms) <= JOINED_MS;
        if !is_soon || self.block_count() + touch.block_count() > MAX_RUN_BLOCKS {
            return false;
        }
        if touch.blocks.start == self.blocks.end {
            self.blocks.end = touch.blocks.end;
        } else if touch.blocks.end == self.blocks.start {
            self.blocks.start = touch.blocks.start;
        } else {
            return false;
        }
        true
    }
}

/// The most runs of a trace: several boots of a Linux guest, whose first minute has about two thousand.
pub const MAX_RUNS: usize = 16_384;
/// The most blocks of a run: 4 MiB, so that what is fetched for one is never much.
pub const MAX_RUN_BLOCKS: u64 = 1024;
/// How long after an attach first touches are noted: ten minutes.
pub const MAX_TRACE_MS: u32 = 600_000;
/// Runs that a touch may still join: as many as a guest reads at a time.
const JOINED_RUNS: usize = 8;
/// How long after the beginning of a run another touch may join it.
const JOINED_MS: u32 = 1000;
/// So many times the reader goes elsewhere than on.
const TELLING_JUMPS: usize = 8;
/// All blocks that a volume can have lie below: 64 TiB of them.
const MAX_BLOCKS: u64 = 1 << 34;

#[cfg(test)]
mod tests;
