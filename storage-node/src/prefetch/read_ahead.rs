//! Reading ahead of a guest that reads on and on through what has not arrived: what it comes to next is asked for before it does, so
//! that it waits for the link's rate and not for a round trip at each chunk.
//!
//! ```text
//!              read to                        asked to
//!  ───────────────┤──────────────┼───────────────┤
//!                               mark     a read that comes here, or a miss anywhere on the way, is the reader's next step:
//!                                        more is asked for. A miss elsewhere may be the first step of another reader.
//! ```
//!
//! What is here is read without anybody noticing, but for a read that comes to the mark, a quarter of the distance on: so the link is
//! kept busy. A miss says that the distance is too small. It grows up to twice of what the reader has read by then, so that what is
//! asked for in vain stays in proportion, and to what is on its way on a fast and long link. What it has passed over without its
//! having been asked for was not read: reads here and there within a few MiB are not somebody who reads on and on.
//!
//! The mark is that of the read-ahead of Linux (Wu et al., *On the design of a new Linux readahead framework*, ACM SIGOPS Operating
//! Systems Review 42(5), 2008).

use std::ops::Range;

/// Tells readers that go on and on from others, by what they miss.
#[derive(Debug, Default)]
pub struct ReadAhead {
    /// Who was seen last is the last one.
    readers: Vec<Reader>,
}

/// Somebody who may be reading on and on. All in blocks.
#[derive(Debug)]
struct Reader {
    /// How much of what it has come through it has read, or found here.
    has_read: u64,
    /// Behind the last block that it was seen to read.
    read_to: u64,
    /// All before this was asked for.
    asked_to: u64,
    /// How far ahead of it that is to be; nothing at its first step.
    distance: u64,
}

impl ReadAhead {
    /// Notes that these blocks are read, of a volume of `size` blocks: some are not here, or they come to the mark. What is to be asked
    /// for beside them, if anything, at most `room` blocks.
    pub fn comes(&mut self, blocks: &Range<u64>, is_missed: bool, size: u64, room: u64) -> Option<Range<u64>> {
        let Some(place) = self.readers.iter().rposition(|reader| reader.comes_to(blocks)) else {
            if is_missed {
                if self.readers.len() == MAX_READERS {
                    self.readers.remove(0);
                }
                let Range { start, end } = *blocks;
                self.readers.push(Reader { has_read: end - start, read_to: end, asked_to: end, distance: 0 });
            }
            return None;
        };
        let mut reader = self.readers.remove(place);
        let more = reader.goes_on(blocks, is_missed, size, room);
        self.readers.push(reader);
        more
    }

    /// Where the reader that was seen last is to be noticed, if it has anything asked for.
    pub fn mark(&self) -> Option<u64> {
        self.readers.last().filter(|reader| reader.distance > 0).map(Reader::mark)
    }
}

impl Reader {
    /// Whether these blocks are its next step. Requests of one reader overtake each other.
    fn comes_to(&self, blocks: &Range<u64>) -> bool {
        let near = ((blocks.end - blocks.start) * NEAR_STEPS).min(NEAR);
        (self.read_to.saturating_sub(near)..=self.asked_to + near).contains(&blocks.start)
    }

    fn goes_on(&mut self, blocks: &Range<u64>, is_missed: bool, size: u64, room: u64) -> Option<Range<u64>> {
        if blocks.end <= self.read_to {
            // It has missed them before: what they need comes level by level.
            return None;
        }
        let passed_over = blocks.start.saturating_sub(self.asked_to.max(self.read_to));
        self.has_read += blocks.end - self.read_to - passed_over;
        self.read_to = blocks.end;
        if is_missed {
            self.distance = (2 * self.has_read).clamp(FIRST_DISTANCE, MAX_DISTANCE).max(self.distance);
        }
        let from = self.asked_to.max(self.read_to);
        let to = (self.read_to + self.distance).min(from + room).min(size);
        let is_little = self.asked_to > self.read_to && to < size && to < from + self.distance / 4;
        if to <= from || is_little {
            return None;
        }
        self.asked_to = to;
        Some(from..to)
    }

    /// Where a quarter of the distance is left to be asked for.
    fn mark(&self) -> u64 {
        (self.asked_to.saturating_sub(self.distance - self.distance / 4)).max(self.read_to)
    }
}

/// Readers of one volume that are told from each other.
const MAX_READERS: usize = 16;
/// How near to each other the steps of one reader are: what as many requests at a time can overtake each other by,
const NEAR_STEPS: u64 = 32;
/// and at most 1 MiB.
const NEAR: u64 = 256;
/// 64 KiB: a chunk or two.
const FIRST_DISTANCE: u64 = 16;
/// 32 MiB: what is on its way at 1 Gbit/s over 250 ms.
const MAX_DISTANCE: u64 = 8192;
#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = 1 << 20;
    const ROOM: u64 = 8192;

    /// Reads `blocks` in steps of `step`, each of which is missed unless it was asked for `late` steps before; how many were, and how
    /// much was asked for that is not in `blocks`.
    fn read(ahead: &mut ReadAhead, blocks: Range<u64>, step: u64, late: usize) -> (u64, u64) {
        let (mut asked, mut missed) = (Vec::<(usize, Range<u64>)>::new(), 0);
        let starts = blocks.clone().step_by(usize::try_from(step).expect("a step"));
        for (number, start) in starts.enumerate() {
            let wanted = start..start + step;
            let is_here = |at: u64| asked.iter().any(|(since, asked)| since + late <= number && asked.contains(&at));
            let is_missed = !wanted.clone().all(is_here);
            missed += u64::from(is_missed);
            if !is_missed && !ahead.mark().is_some_and(|mark| wanted.contains(&mark)) {
                continue;
            }
            if let Some(more) = ahead.comes(&wanted, is_missed, SIZE, ROOM) {
                assert!(more.start >= wanted.end && more.end <= SIZE, "{more:?} behind {wanted:?}");
                assert!(asked.iter().all(|(_, before)| before.end <= more.start), "{more:?} is asked for twice");
                let in_proportion = (3 * (wanted.end - blocks.start)).max(2 * FIRST_DISTANCE);
                assert!(more.end - wanted.end <= in_proportion, "{more:?} after {wanted:?}");
                asked.push((number, more));
            }
        }
        (missed, asked.iter().map(|(_, asked)| asked.end.saturating_sub(blocks.end.max(asked.start))).sum())
    }

    #[test]
    fn who_reads_on_and_on_misses_only_its_first_steps() {
        let (missed, in_vain) = read(&mut ReadAhead::default(), 5000..25_000, 8, 0);
        assert!(missed <= 3, "{missed} of 2,500 steps");
        assert!(in_vain <= 2 * FIRST_DISTANCE, "{in_vain}: it keeps up with a small distance");
    }

    #[test]
    fn what_comes_late_is_asked_for_farther_ahead_until_it_comes_in_time() {
        let mut ahead = ReadAhead::default();
        // What is asked for comes 500 steps later, 4,000 blocks.
        let (missed, in_vain) = read(&mut ahead, 0..100_000, 8, 500);
        let [reader] = &ahead.readers[..] else { panic!("one reader was taken for several: {ahead:?}") };
        assert_eq!(reader.distance, MAX_DISTANCE);
        assert!(missed <= 2_000 && in_vain <= MAX_DISTANCE, "{missed} of 12,500 steps, {in_vain} in vain");
    }

    #[test]
    fn who_jumps_about_is_followed_by_nobody() {
        let mut ahead = ReadAhead::default();
        for number in 0..10_000_u64 {
            let start = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) % (1 << 40);
            assert_eq!(ahead.comes(&(start..start + 1), true, 1 << 40, ROOM), None);
            assert_eq!(ahead.mark(), None);
        }
        assert_eq!(ahead.readers.len(), MAX_READERS);
    }

    #[test]
    fn who_reads_here_and_there_in_a_small_place_is_not_read_ahead_of() {
        let (mut ahead, mut asked) = (ReadAhead::default(), 0);
        for number in 0..10_000_u64 {
            // 64 MiB.
            let start = (number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) % (1 << 14);
            asked += ahead.comes(&(start..start + 1), true, SIZE, ROOM).map_or(0, |more| more.end - more.start);
        }
        assert!(asked <= 30_000, "{asked} blocks ahead of 10,000");
    }

    #[test]
    fn readers_are_told_from_each_other_and_steps_may_overtake_each_other() {
        let mut ahead = ReadAhead::default();
        let mut asked = [0; 4];
        for round in 0..200_u64 {
            for (reader, asked) in (0_u64..).zip(&mut asked) {
                // Pairs of steps change places.
                let start = reader * 100_000 + (round ^ 1) * 8;
                let more = ahead.comes(&(start..start + 8), true, SIZE, ROOM);
                *asked += more.map_or(0, |more| more.end - more.start);
            }
        }
        assert!(asked.iter().all(|asked| (1600..=3 * 1600).contains(asked)), "{asked:?}");
    }

    #[test]
    fn nothing_is_asked_for_twice_behind_the_end_or_without_room() {
        let mut ahead = ReadAhead::default();
        let mut miss = |from: u64, room| ahead.comes(&(SIZE - from..SIZE - from + 8), true, SIZE, room);
        assert_eq!(miss(200, ROOM), None);
        assert_eq!(miss(192, 0), None, "there is no room");
        assert_eq!(miss(184, ROOM), Some(SIZE - 176..SIZE - 128));
        assert_eq!(miss(184, ROOM), None, "the same again, for the next level of the map");
        assert_eq!(miss(120, ROOM), Some(SIZE - 112..SIZE));
        assert_eq!(miss(8, ROOM), None);
    }
}
