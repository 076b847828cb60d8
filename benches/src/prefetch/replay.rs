//! What was recorded, once more, where nothing of the disk is there.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;

use super::disk::Disk;
use super::link::{Lane, Link};
use super::policies::{Policy, Way, milliseconds};
use super::workloads::Work;
use crate::recording::Request;

/// What a replay has shown.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Shown {
    /// How long the guest has waited, in its first [`WINDOW_S`] seconds, waits included.
    pub(super) waited_s: f64,
    /// What has come until its last request was answered.
    pub(super) brought_bytes: f64,
    /// What of that was not read.
    pub(super) wasted_bytes: f64,
}

/// Replays what was done the second time.
pub(super) fn replay(disk: &Disk, work: &Work, way: Way, bytes_per_s: f64, round_trip_s: f64) -> Shown {
    let policy = way.policy(disk, &work.before);
    let mut replay = Replay::new(disk, policy, Link::new(bytes_per_s, round_trip_s));
    for batch in batches(&work.again) {
        replay.batch(&work.again[batch]);
    }
    replay.shown()
}

/// Requests of which each came before all those before it had been answered: they are asked together.
fn batches(requests: &[Request]) -> Vec<Range<usize>> {
    let (mut batches, mut answered_s) = (Vec::<Range<usize>>::new(), f64::NEG_INFINITY);
    for (number, request) in requests.iter().enumerate() {
        match batches.last_mut() {
            Some(batch) if request.at_s < answered_s => batch.end = number + 1,
            _ => batches.push(number..number + 1),
        }
        answered_s = answered_s.max(request.answered_s);
    }
    batches
}

/// A guest, and what its disk has.
struct Replay<'a> {
    disk: &'a Disk,
    policy: Box<dyn Policy>,
    link: Link,
    now_s: f64,
    /// By how much it is later than when it was recorded.
    late_s: f64,
    waited_s: f64,
    /// Of each chunk.
    states: Vec<State>,
    /// Blocks that the guest has written, and those that it has read of what was brought.
    written: HashSet<u64>,
    read: HashSet<u64>,
    /// What each order waits for.
    orders: BTreeMap<u64, HashSet<u32>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Absent,
    Asked,
    Here,
}

impl<'a> Replay<'a> {
    fn new(disk: &'a Disk, policy: Box<dyn Policy>, link: Link) -> Self {
        Self {
            disk,
            policy,
            link,
            now_s: 0.0,
            late_s: 0.0,
            waited_s: 0.0,
            states: vec![State::Absent; disk.chunk_count()],
            written: HashSet::new(),
            read: HashSet::new(),
            orders: BTreeMap::new(),
        }
    }

    /// The guest asks for these together, and goes on when it has them all.
    fn batch(&mut self, requests: &[Request]) {
        let Some(first) = requests.first() else { return };
        let due_s = (first.at_s + self.late_s).max(self.now_s);
        self.advance(due_s);
        let needed: HashSet<u32> = requests.iter().flat_map(|request| self.ask(request)).collect();
        self.carry_orders_out();
        while needed.iter().any(|chunk| self.state(*chunk) != State::Here) {
            let Some(arrival_s) = self.link.next_arrival_s() else { break };
            self.advance(arrival_s);
        }
        self.waited_s += (self.now_s.min(WINDOW_S) - due_s).max(0.0);
        self.late_s += self.now_s - due_s;
    }

    /// What a request needs and is not here; it is asked for, where nobody has.
    fn ask(&mut self, request: &Request) -> Vec<u32> {
        let (all, whole, now_ms) = (request.blocks(), request.whole_blocks(), milliseconds(self.now_s));
        if request.is_read {
            let needed = self.need(all.clone());
            self.policy.reads(&all, !needed.is_empty(), now_ms);
            return needed;
        }
        let edges = [all.start..whole.start.min(all.end), whole.end.max(all.start)..all.end];
        let mut needed = Vec::new();
        for edge in edges.into_iter().filter(|edge| !edge.is_empty()) {
            let of_edge = self.need(edge.clone());
            self.policy.reads(&edge, !of_edge.is_empty(), now_ms);
            needed.extend(of_edge);
        }
        self.policy.overwrites(&whole, now_ms);
        self.written.extend(whole);
        needed
    }

    /// The chunks of these blocks that are not here.
    fn need(&mut self, blocks: Range<u64>) -> Vec<u32> {
        let mut needed = Vec::new();
        for block in blocks.filter(|block| !self.written.contains(block)).collect::<Vec<_>>() {
            let Some(chunk) = self.disk.chunk_of(block) else { continue };
            self.read.insert(block);
            if self.state(chunk) != State::Here && needed.last() != Some(&chunk) {
                self.bring(Lane::Demand, chunk);
                needed.push(chunk);
            }
        }
        needed
    }

    fn state(&self, chunk: u32) -> State {
        self.states[chunk as usize]
    }

    fn bring(&mut self, lane: Lane, chunk: u32) {
        if self.state(chunk) == State::Absent {
            self.states[chunk as usize] = State::Asked;
            self.link.ask(lane, chunk, self.disk.chunk(chunk).wire_bytes, self.now_s);
        }
    }

    /// Time passes until then: things arrive, and the policy is asked, at least every few moments.
    fn advance(&mut self, to_s: f64) {
        loop {
            let next_s = self.link.next_arrival_s().unwrap_or(f64::INFINITY);
            let look_s = self.now_s + LOOK_EVERY_S;
            if next_s <= to_s.min(look_s) {
                self.now_s = next_s;
                self.arrive();
            } else {
                self.now_s = look_s.min(to_s);
            }
            self.carry_orders_out();
            if self.now_s >= to_s {
                return;
            }
        }
    }

    fn arrive(&mut self) {
        let Some(chunk) = self.link.arrive() else { return };
        self.states[chunk as usize] = State::Here;
        for left in self.orders.values_mut() {
            left.remove(&chunk);
        }
        let done: Vec<_> = self.orders.iter().filter(|(_, left)| left.is_empty()).map(|(number, _)| *number).collect();
        for number in done {
            self.orders.remove(&number);
            self.policy.done(number, true, milliseconds(self.now_s));
        }
    }

    fn carry_orders_out(&mut self) {
        let now_ms = milliseconds(self.now_s);
        while let Some((number, runs)) = self.policy.order(now_ms) {
            let mut left = HashSet::new();
            for block in runs.into_iter().flatten().filter(|block| !self.written.contains(block)).collect::<Vec<_>>() {
                let Some(chunk) = self.disk.chunk_of(block) else { continue };
                if self.state(chunk) != State::Here && left.insert(chunk) {
                    self.bring(Lane::Ahead, chunk);
                }
            }
            if left.is_empty() {
                self.policy.done(number, false, now_ms);
            } else {
                self.orders.insert(number, left);
            }
        }
    }

    fn shown(&self) -> Shown {
        let mut read = vec![0_u32; self.states.len()];
        self.read.iter().filter_map(|block| self.disk.chunk_of(*block)).for_each(|chunk| read[chunk as usize] += 1);
        let mut shown = Shown { waited_s: self.waited_s, ..Shown::default() };
        for ((number, state), read) in (0..).zip(&self.states).zip(read) {
            if *state == State::Here {
                let chunk = self.disk.chunk(number);
                shown.brought_bytes += chunk.wire_bytes;
                shown.wasted_bytes += chunk.wire_bytes * f64::from(chunk.blocks - read) / f64::from(chunk.blocks);
            }
        }
        shown
    }
}

/// In which waits count.
pub(super) const WINDOW_S: f64 = 60.0;
/// As a node looks for what its guests touch.
const LOOK_EVERY_S: f64 = 0.05;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(at_s: f64, answered_s: f64, bytes: Range<u64>) -> Request {
        Request { at_s, answered_s, is_read: true, bytes }
    }

    /// 4 MiB of which no two blocks are alike.
    fn disk() -> Disk {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let noise = (0..4_u64 << 17).map(|number| number.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let contents: Vec<u8> = noise.flat_map(|noise| (noise ^ (noise >> 29)).to_le_bytes()).collect();
        std::fs::write(file.path(), contents).expect("written");
        Disk::of(file.path()).expect("a disk")
    }

    #[test]
    fn what_is_asked_together_waits_together_and_a_wait_puts_off_what_follows() {
        let disk = disk();
        let requests = vec![
            read(0.0, 0.002, 0..4096),
            read(0.001, 0.003, 2 << 20..(2 << 20) + 4096),
            read(1.0, 1.001, 3 << 20..(3 << 20) + 4096),
            read(2.0, 2.001, 0..4096),
        ];
        assert_eq!(batches(&requests), [0..2, 2..3, 3..4]);
        let work = Work { name: "some", before: Vec::new(), again: requests };
        let shown = replay(&disk, &work, Way::Nothing, 1e12, 0.1);
        assert!((shown.waited_s - 0.2).abs() < 1e-3, "two round trips: {shown:?}");
        let share = shown.wasted_bytes / shown.brought_bytes;
        assert!((0.5..1.0).contains(&share), "of three chunks one block each was read: {shown:?}");
        let eager = replay(&disk, &work, Way::Eager, 1e12, 0.1);
        assert!((eager.waited_s - 0.1).abs() < 1e-3 && eager.brought_bytes > shown.brought_bytes, "{eager:?}");
    }

    #[test]
    fn what_was_done_before_is_there_before_it_is_asked_for_again() {
        let disk = disk();
        let requests: Vec<_> = (0_u32..60)
            .map(|number| {
                let (at_s, at) = (f64::from(number), u64::from(number * 7919 % 1000) * 4096);
                read(at_s, at_s + 0.001, at..at + 4096)
            })
            .collect();
        let work = Work { name: "some", before: requests.clone(), again: requests };
        let [without, ours] = [Way::Nothing, Way::Ours].map(|way| replay(&disk, &work, way, 3e6, 0.1));
        assert!(ours.waited_s < without.waited_s / 2.0, "{ours:?}, {without:?}");
        // Once the trace is at its end, what is hot comes too: regions, of which a block was read.
        let all: f64 =
            (0..disk.chunk_count()).map(|number| disk.chunk(u32::try_from(number).expect("few")).wire_bytes).sum();
        assert!(ours.brought_bytes < (without.brought_bytes + all) / 2.0, "{ours:?}, {without:?}, of {all}");
    }
}
