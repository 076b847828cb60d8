//! What is brought before anybody waits for it: five ways to decide.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use sterna_runtime::BootTime;
use sterna_storage_node::heat::Heat;
use sterna_storage_node::prefetch::{Outcome, Prefetch, ReadAhead};
use sterna_storage_node::trace::{Seen, Touches, Trace};
use sterna_types::ByteSize;

use super::disk::Disk;
use crate::recording::Request;

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Nothing is.
    Nothing,
    /// What comes behind what is read, where somebody reads on and on: the node's own reading ahead, by itself.
    Sequential,
    /// What was read last the time before, first.
    Recent,
    /// All of the disk, in its order.
    Eager,
    /// What the node does: the trace of the time before, what was read much, and reading ahead.
    Ours,
}

/// What decides. All times are in milliseconds since the guest's first request.
pub(super) trait Policy {
    /// The guest reads these blocks; whether it has to wait for any.
    fn reads(&mut self, blocks: &Range<u64>, is_missed: bool, now_ms: u64);
    /// The guest overwrites all of these blocks.
    fn overwrites(&mut self, _blocks: &Range<u64>, _now_ms: u64) {}
    /// What is to be brought next, and by which number it is known: asked again until there is nothing.
    fn order(&mut self, now_ms: u64) -> Option<(u64, Vec<Range<u64>>)>;
    /// What was ordered is here; whether any of it had to come.
    fn done(&mut self, number: u64, has_come: bool, now_ms: u64);
}

impl Way {
    pub(super) const ALL: [Self; 5] = [Self::Nothing, Self::Sequential, Self::Recent, Self::Eager, Self::Ours];

    /// What it is called.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Nothing => "none",
            Self::Sequential => "sequential read-ahead",
            Self::Recent => "most recently used first",
            Self::Eager => "eager",
            Self::Ours => "ours",
        }
    }

    /// The policy, for a disk on which this was done before.
    pub(super) fn policy(self, disk: &Disk, before: &[Request]) -> Box<dyn Policy> {
        match self {
            Self::Nothing => Box::new(Listed::of([])),
            Self::Sequential => Box::new(Sequential::of(disk)),
            Self::Recent => Box::new(Listed::of(recent(before))),
            Self::Eager => Box::new(Listed::of(parts(0..disk.block_count(), LISTED_BLOCKS))),
            Self::Ours => Box::new(Ours::of(disk, before)),
        }
    }
}

/// A list from its beginning to its end, whatever the guest does.
struct Listed {
    left: std::vec::IntoIter<Range<u64>>,
    next: u64,
    under_way: usize,
}

impl Listed {
    fn of(parts: impl IntoIterator<Item = Range<u64>>) -> Self {
        Self { left: parts.into_iter().collect::<Vec<_>>().into_iter(), next: 0, under_way: 0 }
    }
}

impl Policy for Listed {
    fn reads(&mut self, _: &Range<u64>, _: bool, _: u64) {}

    fn order(&mut self, _: u64) -> Option<(u64, Vec<Range<u64>>)> {
        let parts: Vec<_> = match self.under_way < LISTED_UNDER_WAY {
            true => self.left.next().into_iter().collect(),
            false => Vec::new(),
        };
        if parts.is_empty() {
            return None;
        }
        self.under_way += 1;
        self.next += 1;
        Some((self.next - 1, parts))
    }

    fn done(&mut self, _: u64, _: bool, _: u64) {
        self.under_way -= 1;
    }
}

/// The node's reading ahead.
struct Sequential {
    readers: ReadAhead,
    size: u64,
    asked: Vec<Range<u64>>,
    next: u64,
    under_way: u64,
}

impl Sequential {
    fn of(disk: &Disk) -> Self {
        Self { readers: ReadAhead::default(), size: disk.block_count(), asked: Vec::new(), next: 0, under_way: 0 }
    }
}

impl Policy for Sequential {
    fn reads(&mut self, blocks: &Range<u64>, is_missed: bool, _: u64) {
        let is_at_mark = self.readers.mark().is_some_and(|mark| blocks.contains(&mark));
        if is_missed || is_at_mark {
            let room = (AHEAD_AT_ONCE - self.under_way.min(AHEAD_AT_ONCE)) * AHEAD_BLOCKS;
            let more = self.readers.comes(blocks, is_missed, self.size, room);
            self.asked.extend(more.into_iter().flat_map(|more| parts(more, AHEAD_BLOCKS)));
        }
    }

    fn order(&mut self, _: u64) -> Option<(u64, Vec<Range<u64>>)> {
        if self.asked.is_empty() {
            return None;
        }
        self.under_way += 1;
        self.next += 1;
        Some((self.next - 1, vec![self.asked.remove(0)]))
    }

    fn done(&mut self, _: u64, _: bool, _: u64) {
        self.under_way -= 1;
    }
}

/// What a node does for a volume with these traces and this heat.
struct Ours {
    touches: Touches,
    seen: Seen,
    prefetch: Prefetch,
    /// Its orders have odd numbers, those of the other even ones.
    ahead: Sequential,
}

impl Ours {
    fn of(disk: &Disk, before: &[Request]) -> Self {
        let (touches, heat) = (Touches::default(), Heat::new(ByteSize(disk.block_count() * 4096)));
        touches.begin(at(0));
        let mut end = at(0);
        for request in before {
            end = at(milliseconds(request.at_s));
            note(&touches, request, end);
            if request.is_read {
                heat.note_read(&request.blocks(), end);
            } else {
                heat.note_write(&request.blocks(), end);
            }
        }
        let traces = Some(touches.trace()).filter(Trace::is_telling).map(Arc::new);
        let hot = heat.read_hot(end, MAX_HOT_RUNS).concat();
        let prefetch = Prefetch::new(traces, hot);
        let touches = Touches::default();
        touches.begin(at(0));
        Self { touches, seen: Seen::default(), prefetch, ahead: Sequential::of(disk) }
    }
}

impl Policy for Ours {
    fn reads(&mut self, blocks: &Range<u64>, is_missed: bool, now_ms: u64) {
        self.touches.note(blocks, at(now_ms));
        self.ahead.reads(blocks, is_missed, now_ms);
    }

    fn overwrites(&mut self, blocks: &Range<u64>, now_ms: u64) {
        self.touches.note_overwritten(blocks, at(now_ms));
    }

    fn order(&mut self, now_ms: u64) -> Option<(u64, Vec<Range<u64>>)> {
        for run in self.touches.news(&mut self.seen) {
            self.prefetch.touched(&run.blocks);
        }
        if let Some((number, runs)) = self.ahead.order(now_ms) {
            return Some((number * 2 + 1, runs));
        }
        self.prefetch.order(now_ms).map(|order| (order.number * 2, order.runs))
    }

    fn done(&mut self, number: u64, has_come: bool, now_ms: u64) {
        if number % 2 == 1 {
            return self.ahead.done(number / 2, has_come, now_ms);
        }
        let outcome = if has_come { Outcome::Arrived } else { Outcome::WasHere };
        self.prefetch.done(number / 2, outcome, now_ms);
    }
}

/// As a volume notes what its clients do.
fn note(touches: &Touches, request: &Request, now: BootTime) {
    if request.is_read {
        return touches.note(&request.blocks(), now);
    }
    let (all, whole) = (request.blocks(), request.whole_blocks());
    touches.note_overwritten(&whole, now);
    for edge in [all.start..whole.start.min(all.end), whole.end.max(all.start)..all.end] {
        touches.note(&edge, now);
    }
}

/// The blocks that were read, the last one first.
fn recent(before: &[Request]) -> Vec<Range<u64>> {
    let mut known = HashSet::new();
    let reads = before.iter().rev().filter(|request| request.is_read);
    let parts = reads.flat_map(|request| {
        let new: Vec<_> = request.blocks().filter(|block| known.insert(*block)).collect();
        new.first().copied().zip(new.last().copied()).map(|(first, last)| first..last + 1)
    });
    parts.collect()
}

/// A range in parts of so many blocks.
fn parts(range: Range<u64>, blocks: u64) -> impl Iterator<Item = Range<u64>> {
    let end = range.end;
    range.step_by(usize::try_from(blocks).unwrap_or(1)).map(move |from| from..end.min(from + blocks))
}

fn at(ms: u64) -> BootTime {
    BootTime::from_nanoseconds((ms + 1) * 1_000_000)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "some minutes")]
pub(super) fn milliseconds(seconds: f64) -> u64 {
    (seconds * 1000.0) as u64
}

/// 1 MiB, and so many of them: enough to keep a link of 100 Mbit/s busy over 100 ms.
const LISTED_BLOCKS: u64 = 256;
const LISTED_UNDER_WAY: usize = 32;
/// As a volume bounds its reading ahead.
const AHEAD_AT_ONCE: u64 = 8;
const AHEAD_BLOCKS: u64 = 1024;
/// As a volume asks for what is hot.
const MAX_HOT_RUNS: usize = 16_384;
