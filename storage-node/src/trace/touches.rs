//! Noting first touches, beside requests and without a lock.
//!
//! Which blocks were touched is in a table of cells, found by a hash of the place; what was touched first is in a log. Both are made at
//! the first attach and used again for the next.
//!
//! ```text
//!         ┌──────────────────────┬──────────────────────┐
//!  cell   │ group of blocks + 1  │ a bit for each block │   32 bits each: a group has 32 blocks, 128 KiB
//!         └──────────────────────┴──────────────────────┘
//!         ┌───────────────────────┬────────────┬────────────────┐
//!  entry  │ first block        34 │ more     8 │ ms + 1      22 │
//!         └───────────────────────┴────────────┴────────────────┘
//! ```
//!
//! A request of blocks that were all touched before costs a look at the cell of each group, one for most requests. Where two requests come
//! to one place in the same moment, a touch may be noted late or in two entries. Nothing but order hangs on that.

use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use sterna_runtime::BootTime;

use super::{MAX_BLOCKS, MAX_TRACE_MS, Run, Trace};

/// What is noted of the attach of now.
#[derive(Default)]
pub struct Touches {
    /// When it began, in nanoseconds of [`BootTime`]; 0 where nothing is noted.
    begun: AtomicU64,
    /// How many have begun.
    attaches: AtomicU64,
    cells: OnceLock<Box<[AtomicU64]>>,
    /// How many of them are taken.
    taken: AtomicUsize,
    leaves: [OnceLock<Box<Leaf>>; LEAVES],
    /// How many entries are in the log, or were to be.
    logged: AtomicUsize,
}

type Leaf = [AtomicU64; ENTRIES_PER_LEAF];

/// What somebody has seen of the touches of an attach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    attach: u64,
    entries: usize,
    /// Where the last of them ended, which may have grown.
    end: u64,
}

impl Touches {
    /// An attach begins: what was noted of the one before is gone.
    pub fn begin(&self, now: BootTime) {
        self.begun.store(0, Ordering::Relaxed);
        for cell in self.cells().iter().chain(self.leaves.iter().filter_map(OnceLock::get).flat_map(|leaf| &leaf[..])) {
            cell.store(0, Ordering::Relaxed);
        }
        self.taken.store(0, Ordering::Relaxed);
        self.logged.store(0, Ordering::Relaxed);
        self.attaches.fetch_add(1, Ordering::Relaxed);
        self.begun.store(now.nanoseconds().max(1), Ordering::Release);
    }

    /// Notes a touch of blocks whose contents are needed.
    #[inline]
    pub fn note(&self, blocks: &Range<u64>, now: BootTime) {
        if let Some(at_ms) = self.moment(now) {
            self.note_at(blocks, at_ms);
        }
    }

    /// Notes that all of these blocks are overwritten: what they held is needed by nobody from now on.
    #[inline]
    pub fn note_overwritten(&self, blocks: &Range<u64>, now: BootTime) {
        // What is written much would leave no room for what is read.
        if self.moment(now).is_some() && self.taken.load(Ordering::Relaxed) < MAX_TAKEN / 2 {
            self.first_of(blocks, |_| ());
        }
    }

    /// What was touched first since the attach, as it is now.
    pub fn trace(&self) -> Trace {
        Trace::of((0..self.logged()).filter_map(|at| self.entry(at)?.run()))
    }

    /// Which attach it is, and how many entries it has come to: another one where there is anything new.
    pub fn progress(&self) -> (u64, usize) {
        (self.attaches.load(Ordering::Relaxed), self.logged())
    }

    /// What was touched first that was not `seen` yet, in order; all of it where another attach has begun since.
    pub fn news(&self, seen: &mut Seen) -> Vec<Run> {
        let (attach, logged) = self.progress();
        if seen.attach != attach {
            *seen = Seen { attach, ..Seen::default() };
        }
        let mut news = Vec::new();
        // The last one that was seen may have grown.
        for at in seen.entries.saturating_sub(1)..logged {
            // It is about to be written.
            let Some(run) = self.entry(at).and_then(Entry::run) else { break };
            let (at_ms, Range { start, end }) = (run.at_ms, run.blocks);
            let from = if at < seen.entries { seen.end.clamp(start, end) } else { start };
            if from < end {
                news.push(Run { at_ms, blocks: from..end });
            }
            (seen.entries, seen.end) = (at + 1, end);
        }
        news
    }

    /// Milliseconds since the attach; `None` where nothing is noted.
    #[inline]
    fn moment(&self, now: BootTime) -> Option<u32> {
        let begun = self.begun.load(Ordering::Acquire);
        if begun == 0 {
            return None;
        }
        let since_ms = BootTime::from_nanoseconds(begun).until(now).as_millis();
        let at_ms = u32::try_from(since_ms).ok().filter(|at_ms| *at_ms < MAX_TRACE_MS);
        if at_ms.is_none() {
            self.end();
        }
        at_ms
    }

    fn note_at(&self, blocks: &Range<u64>, at_ms: u32) {
        let mut pending = 0..0;
        self.first_of(blocks, |run| {
            if run.start == pending.end {
                pending.end = run.end;
            } else {
                self.log(std::mem::replace(&mut pending, run), at_ms);
            }
        });
        self.log(pending, at_ms);
    }

    /// Marks these blocks as touched, and tells of runs of those that were not, in order.
    fn first_of(&self, blocks: &Range<u64>, mut is_first: impl FnMut(Range<u64>)) {
        let blocks = blocks.start..blocks.end.min(MAX_BLOCKS);
        if blocks.is_empty() {
            return;
        }
        for group in blocks.start / BLOCKS_PER_GROUP..=(blocks.end - 1) / BLOCKS_PER_GROUP {
            let base = group * BLOCKS_PER_GROUP;
            let (from, to) = (blocks.start.max(base) - base, blocks.end.min(base + BLOCKS_PER_GROUP) - base);
            let touched = ((1_u64 << to) - 1) & !((1 << from) - 1);
            let Some(cell) = self.cell(group) else { return self.end() };
            if cell.load(Ordering::Relaxed) & touched == touched {
                continue;
            }
            let mut new = touched & !cell.fetch_or(touched, Ordering::Relaxed);
            while new != 0 {
                let first = u64::from(new.trailing_zeros());
                let count = u64::from((new >> first).trailing_ones());
                is_first(base + first..base + first + count);
                new &= !(((1 << count) - 1) << first);
            }
        }
    }

    /// The cell of a group; `None` where there is no room for it.
    fn cell(&self, group: u64) -> Option<&AtomicU64> {
        let (cells, key) = (self.cells(), group + 1);
        let hash = usize::try_from(key.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (u64::BITS - CELLS_BITS)).ok()?;
        for probe in 0..MAX_PROBES {
            let cell = &cells[(hash + probe) % CELLS];
            let mut found = cell.load(Ordering::Relaxed);
            if found == 0 {
                if self.taken.load(Ordering::Relaxed) >= MAX_TAKEN {
                    return None;
                }
                match cell.compare_exchange(0, key << GROUP_SHIFT, Ordering::Relaxed, Ordering::Relaxed) {
                    Ok(_) => {
                        self.taken.fetch_add(1, Ordering::Relaxed);
                        return Some(cell);
                    }
                    Err(other) => found = other,
                }
            }
            if found >> GROUP_SHIFT == key {
                return Some(cell);
            }
        }
        None
    }

    /// Puts a run into the log: into the last entry, where that goes on with it.
    fn log(&self, run: Range<u64>, at_ms: u32) {
        let mut from = run.start;
        while from < run.end {
            let part = from..run.end.min(from + MAX_ENTRY_BLOCKS);
            from = part.end;
            if self.grows(&part, at_ms) {
                continue;
            }
            let at = self.logged.fetch_add(1, Ordering::Relaxed);
            match self.slot(at) {
                Some(slot) => slot.store(Entry::of(&part, at_ms).0, Ordering::Release),
                None => return self.end(),
            }
        }
    }

    /// Whether the last entry of the log has taken these blocks in.
    fn grows(&self, blocks: &Range<u64>, at_ms: u32) -> bool {
        let Some(slot) = self.logged().checked_sub(1).and_then(|last| self.slot(last)) else { return false };
        let last = slot.load(Ordering::Relaxed);
        let Some(Run { at_ms: begun_ms, blocks: before }) = Entry(last).run() else { return false };
        let all = before.start..blocks.end;
        if before.end != blocks.start
            || all.end - all.start > MAX_ENTRY_BLOCKS
            || at_ms.saturating_sub(begun_ms) > GROWS_MS
        {
            return false;
        }
        let grown = Entry::of(&all, begun_ms).0;
        slot.compare_exchange(last, grown, Ordering::Release, Ordering::Relaxed).is_ok()
    }

    fn logged(&self) -> usize {
        self.logged.load(Ordering::Relaxed).min(LEAVES * ENTRIES_PER_LEAF)
    }

    fn entry(&self, at: usize) -> Option<Entry> {
        let leaf = self.leaves.get(at / ENTRIES_PER_LEAF)?.get()?;
        Some(Entry(leaf[at % ENTRIES_PER_LEAF].load(Ordering::Acquire)))
    }

    /// The place of an entry; `None` behind the last.
    fn slot(&self, at: usize) -> Option<&AtomicU64> {
        let leaf = self.leaves.get(at / ENTRIES_PER_LEAF)?;
        Some(&leaf.get_or_init(|| Box::new([const { AtomicU64::new(0) }; ENTRIES_PER_LEAF]))[at % ENTRIES_PER_LEAF])
    }

    fn cells(&self) -> &[AtomicU64] {
        self.cells.get_or_init(|| (0..CELLS).map(|_| AtomicU64::new(0)).collect())
    }

    /// Nothing more is noted until the next attach.
    #[cold]
    fn end(&self) {
        self.begun.store(0, Ordering::Relaxed);
    }
}

impl std::fmt::Debug for Touches {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Touches").field("progress", &self.progress()).finish_non_exhaustive()
    }
}

/// An entry of the log; 0 where it is not there yet.
#[derive(Clone, Copy)]
struct Entry(u64);

impl Entry {
    fn of(blocks: &Range<u64>, at_ms: u32) -> Self {
        let more = (blocks.end - blocks.start - 1) & (MAX_ENTRY_BLOCKS - 1);
        Self(blocks.start << (MORE_BITS + TIME_BITS) | more << TIME_BITS | u64::from(at_ms + 1))
    }

    fn run(self) -> Option<Run> {
        let at_ms = u32::try_from(self.0 & ((1 << TIME_BITS) - 1)).ok()?.checked_sub(1)?;
        let start = self.0 >> (MORE_BITS + TIME_BITS);
        let more = self.0 >> TIME_BITS & (MAX_ENTRY_BLOCKS - 1);
        Some(Run { at_ms, blocks: start..start + more + 1 })
    }
}

/// Blocks of a group, one bit each.
const BLOCKS_PER_GROUP: u64 = 32;
const GROUP_SHIFT: u32 = 32;
const CELLS_BITS: u32 = 15;
/// 256 KiB of memory.
const CELLS: usize = 1 << CELLS_BITS;
/// So that a cell is found after a few looks: 3 GiB of blocks beside each other, and 24,576 of them that lie each by itself.
const MAX_TAKEN: usize = CELLS / 4 * 3;
const MAX_PROBES: usize = 64;
/// 8 KiB of memory each.
const ENTRIES_PER_LEAF: usize = 1024;
/// 256 KiB of memory at most: 32,768 entries.
const LEAVES: usize = 32;
const MORE_BITS: u32 = 8;
const TIME_BITS: u32 = 22;
/// 1 MiB.
const MAX_ENTRY_BLOCKS: u64 = 1 << MORE_BITS;
/// How long after its beginning an entry may grow.
const GROWS_MS: u32 = 100;
const _: () = assert!(MAX_TRACE_MS + 1 < 1 << TIME_BITS);
const _: () = assert!(MAX_BLOCKS == 1 << (u64::BITS - MORE_BITS - TIME_BITS));
const _: () = assert!(MAX_BLOCKS / BLOCKS_PER_GROUP < u32::MAX as u64);
