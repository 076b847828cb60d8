//! How often the regions of a volume are read and written, lately: what is to be where the volume goes before it goes there, and in
//! which order.
//!
//! A volume is cut into regions of the same size: 256 KiB up to a TiB, and so much more beyond that there are at most four million. Of
//! each there is one number in memory, and none where nothing of it was read or written since the volume was opened: 4 KiB for 128 MiB
//! that are used, at most 32 MiB. A volume that grows far beyond its size of then is counted to the end only once it is opened again.
//!
//! ```text
//!  ┌────────────┬──────────────┬──────────────┐
//!  │ minute  20 │ reads     22 │ writes    22 │   counts are in sixteenths of a block of 4 KiB
//!  └────────────┴──────────────┴──────────────┘
//! ```
//!
//! A count halves every ten minutes: exponential decay, carried out when a region is touched again or looked at, so that
//! nothing has to be done for what is left alone. A block that was read once is told from none for forty minutes, a region that was read
//! as a whole for an hour and a half. Counts are added without a lock: where two requests come to one region in the same moment one of
//! them may go uncounted. Nothing but order hangs on them.
//!
//! This module is *not* a policy of propagation and knows no network: it counts, and says what is hot.

mod kept;

use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use sterna_runtime::BootTime;
use sterna_types::{BLOCK_SIZE, ByteSize};

pub use kept::{InvalidHeat, MAX_KEPT_BYTES};

/// What is counted of a volume.
pub struct Heat {
    /// Blocks of a region, as a power of two.
    shift: u32,
    groups: Box<[OnceLock<Box<Group>>]>,
    /// Whether anything was counted since [`Heat::take_changed`].
    is_changed: AtomicBool,
}

type Group = [OnceLock<Box<Leaf>>; LEAVES_PER_GROUP];
type Leaf = [AtomicU64; REGIONS_PER_LEAF];

/// A region, and how it is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// Its blocks.
    pub blocks: Range<u64>,
    /// Sixteenths of blocks that were read, decayed.
    pub reads: u32,
    /// The same of writes.
    pub writes: u32,
}

impl Heat {
    /// Nothing is counted yet of a volume of this size.
    pub fn new(size: ByteSize) -> Self {
        let fits = |shift: &u32| (MAX_REGIONS << *shift).saturating_mul(BLOCK_SIZE) >= size.0;
        let shift = (SMALLEST_SHIFT..u64::BITS / 2).find(fits).unwrap_or(u64::BITS / 2);
        let groups = (0..GROUPS).map(|_| OnceLock::new()).collect();
        Self { shift, groups, is_changed: AtomicBool::new(false) }
    }

    /// Counts a read of these blocks.
    #[inline]
    pub fn note_read(&self, blocks: &Range<u64>, now: BootTime) {
        self.note(blocks, now, |added| (added, 0));
    }

    /// Counts a write of these blocks.
    #[inline]
    pub fn note_write(&self, blocks: &Range<u64>, now: BootTime) {
        self.note(blocks, now, |added| (0, added));
    }

    fn note(&self, blocks: &Range<u64>, now: BootTime, reads_and_writes: impl Fn(u32) -> (u32, u32)) {
        if blocks.is_empty() {
            return;
        }
        let minute = minute_of(now);
        for region in blocks.start >> self.shift..=(blocks.end - 1) >> self.shift {
            let shared = blocks.end.min((region + 1) << self.shift) - blocks.start.max(region << self.shift);
            let added = u32::try_from(shared).unwrap_or(MAX_COUNT).saturating_mul(PER_BLOCK);
            if self.add(region, minute, reads_and_writes(added)).is_none() {
                return;
            }
        }
        if !self.is_changed.load(Ordering::Relaxed) {
            self.is_changed.store(true, Ordering::Relaxed);
        }
    }

    /// Adds reads and writes to a region's, as of a minute; `None` beyond what is counted.
    #[inline]
    fn add(&self, region: u64, minute: u32, (reads, writes): (u32, u32)) -> Option<()> {
        let cell = self.cell(region)?;
        let (old_reads, old_writes) = Counts(cell.load(Ordering::Relaxed)).at(minute);
        let sum = Counts::of(minute, old_reads.saturating_add(reads), old_writes.saturating_add(writes));
        cell.store(sum.0, Ordering::Relaxed);
        Some(())
    }

    /// Whether anything was counted since the last call.
    pub fn take_changed(&self) -> bool {
        self.is_changed.swap(false, Ordering::Relaxed)
    }

    /// The regions of which something is left, in order.
    pub fn regions(&self, now: BootTime) -> impl Iterator<Item = Region> {
        let minute = minute_of(now);
        let groups = (0u64..).zip(&self.groups).filter_map(|(at, group)| Some((at, group.get()?)));
        let leaves = groups.flat_map(|(group, leaves)| {
            let numbered = (group * LEAVES_PER_GROUP as u64..).zip(leaves.iter());
            numbered.filter_map(|(at, leaf)| Some((at, leaf.get()?)))
        });
        leaves.flat_map(move |(leaf, cells)| {
            (leaf * REGIONS_PER_LEAF as u64..).zip(cells.iter()).filter_map(move |(region, cell)| {
                let (reads, writes) = Counts(cell.load(Ordering::Relaxed)).at(minute);
                let blocks = region << self.shift..(region + 1) << self.shift;
                (reads > 0 || writes > 0).then_some(Region { blocks, reads, writes })
            })
        })
    }

    /// What is read, and less written than read, so that it is of use where it is brought: the hottest first, in classes each of which is
    /// read about twice as often as the next. In each class runs of blocks, in order; `max_runs` in all, those of the hottest.
    pub fn read_hot(&self, now: BootTime, max_runs: usize) -> Vec<Vec<Range<u64>>> {
        let mut classes = vec![Vec::<Range<u64>>::new(); u32::BITS as usize];
        for Region { blocks, reads, .. } in self.regions(now).filter(|region| region.reads > region.writes) {
            let class = &mut classes[reads.leading_zeros() as usize];
            match class.last_mut() {
                Some(last) if last.end == blocks.start => last.end = blocks.end,
                _ => class.push(blocks),
            }
        }
        let mut room = max_runs;
        for class in &mut classes {
            class.truncate(room);
            room -= class.len();
        }
        classes.retain(|class| !class.is_empty());
        classes
    }

    /// How many blocks the regions have that are read: those that are hot, as [`Heat::read_hot`] has it, and the others.
    pub fn read_blocks(&self, now: BootTime) -> (u64, u64) {
        let read = self.regions(now).filter(|region| region.reads > 0);
        read.fold((0, 0), |(hot, warm), Region { blocks, reads, writes }| {
            let blocks = blocks.end - blocks.start;
            if reads > writes { (hot + blocks, warm) } else { (hot, warm + blocks) }
        })
    }

    /// The number of a region; `None` beyond what is counted.
    fn cell(&self, region: u64) -> Option<&AtomicU64> {
        let region = usize::try_from(region).ok()?;
        let (leaf, at) = (region / REGIONS_PER_LEAF, region % REGIONS_PER_LEAF);
        let group = self.groups.get(leaf / LEAVES_PER_GROUP)?;
        let leaves = group.get_or_init(|| Box::new([const { OnceLock::new() }; LEAVES_PER_GROUP]));
        let empty = || Box::new([const { AtomicU64::new(0) }; REGIONS_PER_LEAF]);
        Some(&leaves[leaf % LEAVES_PER_GROUP].get_or_init(empty)[at])
    }
}

impl std::fmt::Debug for Heat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Heat").field("shift", &self.shift).finish_non_exhaustive()
    }
}

/// The number of a region.
#[derive(Clone, Copy)]
struct Counts(u64);

impl Counts {
    fn of(minute: u32, reads: u32, writes: u32) -> Self {
        let [reads, writes] = [reads, writes].map(|count| u64::from(count.min(MAX_COUNT)));
        Self(u64::from(minute) << (2 * COUNT_BITS) | reads << COUNT_BITS | writes)
    }

    /// Reads and writes as of a minute.
    fn at(self, minute: u32) -> (u32, u32) {
        let part = |shift: u32, mask: u32| u32::try_from(self.0 >> shift & u64::from(mask)).unwrap_or(mask);
        let age = minute.wrapping_sub(part(2 * COUNT_BITS, MAX_MINUTE)) & MAX_MINUTE;
        (decayed(part(COUNT_BITS, MAX_COUNT), age), decayed(part(0, MAX_COUNT), age))
    }
}

/// What is left of a count after so many minutes.
fn decayed(count: u32, minutes: u32) -> u32 {
    let (halvings, rest) = (minutes / HALF_LIFE_MINUTES, minutes % HALF_LIFE_MINUTES);
    let part = (u64::from(count) * u64::from(LEFT_OF_65536[rest as usize])) >> 16;
    u32::try_from(part).unwrap_or(count).checked_shr(halvings).unwrap_or(0)
}

/// It comes again after two years.
fn minute_of(now: BootTime) -> u32 {
    u32::try_from((now.nanoseconds() / NANOSECONDS_PER_MINUTE) & u64::from(MAX_MINUTE)).unwrap_or(MAX_MINUTE)
}

/// What a guest's working set takes to change.
const HALF_LIFE_MINUTES: u32 = 10;
/// What is left after each minute of a half-life: 2^(16 - m/10).
const LEFT_OF_65536: [u32; HALF_LIFE_MINUTES as usize] =
    [65_536, 61_147, 57_052, 53_232, 49_667, 46_341, 43_238, 40_342, 37_641, 35_120];
/// So that one block is not forgotten at once.
const PER_BLOCK: u32 = 16;
/// 256 KiB: of the order of a few chunks, so that what is brought for one block of a region is about the region.
const SMALLEST_SHIFT: u32 = 6;
const REGIONS_PER_LEAF: usize = 512;
const LEAVES_PER_GROUP: usize = 128;
const GROUPS: usize = 64;
const MAX_REGIONS: u64 = (REGIONS_PER_LEAF * LEAVES_PER_GROUP * GROUPS) as u64;
const COUNT_BITS: u32 = 22;
const MAX_COUNT: u32 = (1 << COUNT_BITS) - 1;
const MAX_MINUTE: u32 = (1 << (u64::BITS - 2 * COUNT_BITS)) - 1;
const NANOSECONDS_PER_MINUTE: u64 = 60_000_000_000;

#[cfg(test)]
mod tests;
