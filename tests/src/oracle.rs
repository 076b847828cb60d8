//! What a disk may hold after a crash: a model that hears of every write and flush, and then judges what is read back.
//!
//! * [`block`]: blocks that say which write they are from. * [`load`]: random requests over real connections.
//! * [`kill_loop`]: load, SIGKILL, restart, verify, again and again.
//!
//! Of each block the model keeps the versions that may still be read, the oldest first. A write is *issued*, then perhaps
//! *acknowledged*; a flush covers what was acknowledged before it was issued. After a crash a block has to hold
//!
//! * where the process was killed ([`Crash::Process`]): the last acknowledged version, or a later issued one;
//! * where the power was cut ([`Crash::Power`]): the last version that a flush covers, or a later issued one.
//!
//! What was not there after one crash may not come back after another, and neither may what it had replaced.

pub mod block;
pub mod kill_loop;
pub mod load;

use std::collections::VecDeque;
use std::fmt;

use block::{BLOCK_BYTES, Content, Stamp};

/// How a server ended, which says what it may have lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// The process was killed: every acknowledged write is there.
    Process,
    /// The machine was cut off: what a flush covers is there.
    Power,
}

/// What a write leaves in its blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Blocks that say what they are.
    Data,
    /// Zeros: WRITE_ZEROES, and TRIM, after which this project's disks read as zeros.
    Zeros,
}

/// Something that a block holds, held or may come to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// The write's number; 0 is what a new disk holds.
    pub sequence: u64,
    /// What it leaves.
    pub kind: Kind,
    /// When it was acknowledged, counted in acknowledgements, if it was.
    acknowledged: Option<u64>,
}

/// A write of some consecutive blocks, on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Write {
    /// Its first block.
    pub first: u64,
    /// How many blocks.
    pub count: u64,
    /// What it leaves in them.
    pub kind: Kind,
    /// Its number.
    pub sequence: u64,
}

/// A flush on its way. It covers what was acknowledged before it was issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flush {
    covers_below: u64,
}

/// A block that holds what it may not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The block.
    pub block: u64,
    /// What is wrong with it.
    pub fault: Fault,
    /// What it holds.
    pub found: Content,
    /// What it might hold.
    pub allowed: Vec<Version>,
}

/// What can be wrong with a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A version from before the oldest that it might hold.
    Older,
    /// A write that was never made to it, or that a crash had already lost.
    NeverThere,
    /// Parts of several writes.
    Torn,
    /// Zeros, where none were written since.
    Zeros,
    /// Nothing that this oracle has ever written here: other bytes, another block, another disk.
    Foreign,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { block, fault, found, allowed } = self;
        write!(f, "block {block} is wrong ({fault:?}): it holds {found:?}, and might hold {allowed:?}")
    }
}

impl std::error::Error for Violation {}

/// The model of one disk.
///
/// Invariants: a block's versions have rising numbers; there is always one, and the first is acknowledged; no more than
/// one is not acknowledged, because a block is not written again before the write before has been answered.
#[derive(Clone, Debug)]
pub struct Oracle {
    seed: u64,
    blocks: Vec<VecDeque<Version>>,
    last_sequence: u64,
    acknowledgements: u64,
}

impl Oracle {
    /// A model of a new disk with this many blocks, all zeros.
    pub fn new(seed: u64, blocks: usize) -> Self {
        let new = Version { sequence: 0, kind: Kind::Zeros, acknowledged: Some(0) };
        Self { seed, blocks: vec![VecDeque::from([new]); blocks], last_sequence: 0, acknowledgements: 1 }
    }

    /// How many blocks the disk has.
    pub fn block_count(&self) -> u64 {
        self.blocks.len() as u64
    }

    /// Whether a write to this block has not been answered yet.
    ///
    /// # Panics
    /// There is no such block.
    pub fn is_busy(&self, block: u64) -> bool {
        self.versions(block).iter().any(|version| version.acknowledged.is_none())
    }

    /// A write is about to be sent.
    ///
    /// # Panics
    /// One of its blocks is busy, or is not there.
    pub fn issue(&mut self, first: u64, count: u64, kind: Kind) -> Write {
        self.last_sequence += 1;
        let write = Write { first, count, kind, sequence: self.last_sequence };
        for block in first..first + count {
            assert!(!self.is_busy(block), "two writes to block {block} at a time: their order is nobody's promise");
            let version = Version { sequence: write.sequence, kind, acknowledged: None };
            self.versions_mut(block).push_back(version);
        }
        write
    }

    /// The bytes of a write of data.
    pub fn payload(&self, write: &Write) -> Vec<u8> {
        let stamp = |block| Stamp { seed: self.seed, block, sequence: write.sequence };
        (write.first..write.first + write.count).flat_map(|block| stamp(block).to_bytes()).collect()
    }

    /// A write has been answered; with FUA it is as if a flush had covered it.
    ///
    /// # Panics
    /// It was not on its way.
    pub fn acknowledge(&mut self, write: &Write, fua: bool) {
        let at = self.acknowledgements;
        self.acknowledgements += 1;
        for block in write.first..write.first + write.count {
            let versions = self.versions_mut(block);
            let version = versions.back_mut().filter(|version| version.sequence == write.sequence);
            version.expect("what is answered was sent").acknowledged = Some(at);
            if fua {
                versions.drain(..versions.len() - 1);
            }
        }
    }

    /// A flush is about to be sent.
    pub fn issue_flush(&self) -> Flush {
        Flush { covers_below: self.acknowledgements }
    }

    /// A flush has been answered.
    pub fn acknowledge_flush(&mut self, flush: Flush) {
        for versions in &mut self.blocks {
            let covered = |version: &Version| version.acknowledged.is_some_and(|at| at < flush.covers_below);
            // None is, if a later flush was answered first.
            let floor = versions.iter().rposition(covered).unwrap_or(0);
            versions.drain(..floor);
        }
    }

    /// The server has ended in this way; nothing that was on its way will be answered.
    pub fn crash(&mut self, crash: Crash) {
        if crash == Crash::Process {
            for versions in &mut self.blocks {
                let floor = versions.iter().rposition(|version| version.acknowledged.is_some()).unwrap_or(0);
                versions.drain(..floor);
            }
        }
    }

    /// Judges what a block holds after a crash. What it holds is then its last acknowledged version.
    ///
    /// # Errors
    /// It may not hold that.
    ///
    /// # Panics
    /// There is no such block.
    pub fn verify(&mut self, block: u64, bytes: &[u8]) -> Result<(), Violation> {
        let at = self.judge(block, bytes, 0)?;
        let now = self.acknowledgements;
        self.acknowledgements += 1;
        let versions = self.versions_mut(block);
        versions.truncate(at + 1);
        versions[at].acknowledged.get_or_insert(now);
        Ok(())
    }

    /// Judges what a block holds while nobody writes to it: only its last version will do.
    ///
    /// # Errors
    /// It is not that.
    ///
    /// # Panics
    /// There is no such block.
    pub fn verify_idle(&self, block: u64, bytes: &[u8]) -> Result<(), Violation> {
        self.judge(block, bytes, self.versions(block).len() - 1).map(drop)
    }

    /// Which version these bytes are, of those from this one on.
    fn judge(&self, block: u64, bytes: &[u8], from: usize) -> Result<usize, Violation> {
        let allowed = self.versions(block);
        let found = Content::of(bytes);
        let is_this = |version: &Version| match (&found, version.kind) {
            (Content::Zeros, Kind::Zeros) => true,
            (Content::Written(stamp), Kind::Data) => *stamp == self.stamp(block, version.sequence),
            _ => false,
        };
        if let Some(at) = allowed.iter().rposition(is_this).filter(|&at| at >= from) {
            return Ok(at);
        }
        let allowed: Vec<Version> = allowed.iter().skip(from).copied().collect();
        let fault = match &found {
            Content::Zeros => Fault::Zeros,
            Content::Torn(_) => Fault::Torn,
            Content::Garbage { .. } => Fault::Foreign,
            Content::Written(stamp) if *stamp != self.stamp(block, stamp.sequence) => Fault::Foreign,
            Content::Written(stamp) if stamp.sequence < allowed[0].sequence => Fault::Older,
            Content::Written(_) => Fault::NeverThere,
        };
        Err(Violation { block, fault, found, allowed })
    }

    fn stamp(&self, block: u64, sequence: u64) -> Stamp {
        Stamp { seed: self.seed, block, sequence }
    }

    fn versions(&self, block: u64) -> &VecDeque<Version> {
        &self.blocks[index(block)]
    }

    fn versions_mut(&mut self, block: u64) -> &mut VecDeque<Version> {
        &mut self.blocks[index(block)]
    }
}

fn index(block: u64) -> usize {
    usize::try_from(block).expect("a disk of a test has few blocks")
}

/// Where a block begins, in bytes.
fn offset(block: u64) -> u64 {
    block * BLOCK_BYTES as u64
}

#[cfg(test)]
mod tests;
