//! What a volume may hold, block by block.
//!
//! What is read is what was written last. After a crash it may be anything that was written since the last flush that was
//! acknowledged, or what was there then: never something older, never something else, and never zeroes where there was data. Once
//! it has been read after the crash, it stays.

use std::fmt;

use sterna_tests::oracle::block::{BLOCK_BYTES, Content, Stamp};

/// The blocks of one volume.
#[derive(Clone, Debug)]
pub struct Oracle {
    seed: u64,
    blocks: Vec<Block>,
}

/// What a block holds: the number of a write, 0 for zeroes.
#[derive(Clone, Debug, Default)]
struct Block {
    now: u64,
    /// What it may hold after a crash, besides that.
    before: Vec<u64>,
    /// Whether it is one of all those now.
    is_open: bool,
}

/// A block holds what it cannot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Wrong {
    block: u64,
    found: Content,
    may_hold: Vec<u64>,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { block, found, may_hold } = self;
        match found {
            Content::Zeros => write!(f, "block {block} is zeroes"),
            Content::Written(stamp) => {
                write!(f, "block {block} holds write {} of block {}", stamp.sequence, stamp.block)
            }
            Content::Torn(_) => write!(f, "block {block} holds parts of several writes"),
            Content::Garbage { sector } => write!(f, "sector {sector} of block {block} was never written so"),
        }?;
        write!(f, ", and it may hold {may_hold:?} (0 is zeroes)")
    }
}

impl Oracle {
    /// Of a volume of zeroes, whose blocks are told apart from those of others by its seed.
    pub fn new(seed: u64, blocks: usize) -> Self {
        Self { seed, blocks: vec![Block::default(); blocks] }
    }

    /// How many blocks there are.
    pub fn block_count(&self) -> u64 {
        self.blocks.len() as u64
    }

    /// The bytes of a write.
    pub fn bytes(&self, first: u64, count: u64, number: u64) -> Vec<u8> {
        let stamp = |block| Stamp { seed: self.seed, block, sequence: number };
        (first..first + count).flat_map(|block| stamp(block).to_bytes()).collect()
    }

    /// Blocks were written, or made zeroes (number 0). Whether that was `done` is not known where it was answered with an error.
    pub fn write(&mut self, first: u64, count: u64, number: u64, done: bool) {
        for block in self.range(first, count) {
            block.before.push(block.now);
            block.now = number;
            block.is_open |= !done;
        }
    }

    /// All that was written is durable.
    pub fn flush(&mut self) {
        for block in &mut self.blocks {
            if !block.is_open {
                block.before.clear();
            }
        }
    }

    /// The machine has stopped, and what was not flushed may be lost.
    pub fn crash(&mut self) {
        self.blocks.iter_mut().for_each(|block| block.is_open = !block.before.is_empty());
    }

    /// Blocks were read.
    ///
    /// # Errors
    /// One holds what it cannot.
    pub fn read(&mut self, first: u64, bytes: &[u8]) -> Result<(), Wrong> {
        let (seed, count) = (self.seed, (bytes.len() / BLOCK_BYTES) as u64);
        for ((number, block), bytes) in (first..).zip(self.range(first, count)).zip(bytes.chunks(BLOCK_BYTES)) {
            let found = Content::of(bytes);
            let held = match &found {
                Content::Zeros => Some(0),
                Content::Written(stamp) if (stamp.seed, stamp.block) == (seed, number) => Some(stamp.sequence),
                _ => None,
            };
            let may_hold: Vec<u64> =
                if block.is_open { block.before.iter().copied().chain([block.now]).collect() } else { vec![block.now] };
            let Some(held) = held.filter(|held| may_hold.contains(held)) else {
                return Err(Wrong { block: number, found, may_hold });
            };
            // It was one of several, and is that from now on; whether it is durable is not known where nothing has crashed.
            if block.is_open {
                *block = Block { now: held, before: may_hold, is_open: false };
            }
        }
        Ok(())
    }

    /// Everything that was read after a crash is durable: there was nothing in the way of it but the disk itself.
    pub fn settle(&mut self) {
        self.blocks.iter_mut().for_each(|block| block.before.clear());
    }

    fn range(&mut self, first: u64, count: u64) -> &mut [Block] {
        let at = |block: u64| usize::try_from(block).unwrap_or(usize::MAX).min(self.blocks.len());
        let (first, end) = (at(first), at(first + count));
        &mut self.blocks[first..end]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(oracle: &mut Oracle, number: u64) -> Result<(), Wrong> {
        let bytes = if number == 0 { vec![0; BLOCK_BYTES] } else { oracle.bytes(0, 1, number) };
        oracle.read(0, &bytes)
    }

    #[test]
    fn without_a_crash_a_block_holds_what_was_written_last() {
        let mut oracle = Oracle::new(7, 2);
        read(&mut oracle, 0).unwrap();
        oracle.write(0, 1, 1, true);
        read(&mut oracle, 1).unwrap();
        oracle.write(0, 1, 2, true);
        assert!(read(&mut oracle, 1).is_err() && read(&mut oracle, 0).is_err());
        let of_another = Oracle::new(8, 2).bytes(0, 1, 2);
        assert!(oracle.read(0, &of_another).is_err());
    }

    #[test]
    fn a_crash_leaves_what_was_flushed_or_something_later() {
        for (left, is_possible) in [(1, false), (2, true), (3, true), (4, true), (0, false)] {
            let mut oracle = Oracle::new(7, 1);
            oracle.write(0, 1, 1, true);
            oracle.write(0, 1, 2, true);
            oracle.flush();
            oracle.write(0, 1, 3, true);
            oracle.write(0, 1, 4, true);
            oracle.crash();
            assert_eq!(read(&mut oracle, left).is_ok(), is_possible, "{left}");
        }
    }

    #[test]
    fn what_was_found_after_a_crash_stays() {
        let mut oracle = Oracle::new(7, 1);
        oracle.write(0, 1, 1, true);
        oracle.crash();
        read(&mut oracle, 0).unwrap();
        assert!(read(&mut oracle, 1).is_err());
        oracle.settle();
        oracle.crash();
        assert!(read(&mut oracle, 1).is_err());
    }

    #[test]
    fn what_failed_may_have_been_done() {
        for left in [0, 1] {
            let mut oracle = Oracle::new(7, 1);
            oracle.write(0, 1, 1, false);
            read(&mut oracle, left).unwrap();
            assert!(read(&mut oracle, 1 - left).is_err());
        }
    }
}
