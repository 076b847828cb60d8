//! What is to be brought before anybody waits for it, and in which order: the policy, and nothing else.
//!
//! ```text
//!  touches of the guest ──┐                              ┌──> orders: which blocks next, and why
//!  traces, heat ──────────┼──> Prefetch (this module) ───┤
//!  what has arrived, when ┘                              └──> nothing, for now
//! ```
//!
//! * **A trace that comes again is followed** (`track`): a few of the guest's touches that are in a kept trace are enough to
//!   recognise it, in about the order of the trace, with some left out, and others between; and the very first one, where the trace begins with it: a
//!   machine that starts reads next to nothing for seconds, in which a link brings much. From there on what the trace has next is
//!   ordered ahead of where the guest is: as much as the link brings in some seconds, and the more seconds the longer the guest has kept to it. When
//!   it keeps to it no more nothing further is ordered, until it comes back.
//! * **Else what is read-hot** and less written than read ([`Heat::read_hot`](crate::heat::Heat::read_hot)), a little at a time; not while
//!   the guest is in the middle of a trace, which knows better.
//! * What is written more than it is read waits: it may be overwritten before it is needed. It, and all the rest, is the business of whoever brings
//!   everything ([`in_order`]), which asks for no chunk that was superseded by then: blocks are ordered, and the map of the moment says what
//!   they need.
//!
//! There is no clock here, no task and no link: whoever carries orders out says when it is, so a recorded trace can be replayed through the same code
//! without a network. Reading ahead of somebody who reads on and on is done beside this, by those who miss something ([`ReadAhead`]).
//!
//! Bounds: what is ordered and has not arrived is at most about what the link brings in half a second, since whoever needs some of it by then waits
//! until it is its turn; how far it is ahead of the guest has a bound of its own.

mod bulk;
mod rate;
mod read_ahead;
mod track;

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

pub use bulk::in_order;
pub use read_ahead::ReadAhead;

use crate::trace::Trace;
use rate::Rate;
use track::Track;

/// What is brought ahead of the guest of one volume, from an attach on.
///
/// Invariant: no block of a trace is ordered twice, unless its order has failed.
#[derive(Debug)]
pub struct Prefetch {
    tracks: Vec<Track>,
    /// What is hot, the hottest first, in parts of at most [`ORDER_BLOCKS`].
    hot: VecDeque<Range<u64>>,
    in_flight: BTreeMap<u64, InFlight>,
    /// The number of the next order.
    next: u64,
    rate: Rate,
    /// Nothing is ordered before: what was ordered last has failed.
    pause_until_ms: u64,
}

/// Some blocks that are to be here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Which order it is.
    pub number: u64,
    /// Why.
    pub why: Why,
    /// Which, in the order in which they are needed.
    pub runs: Vec<Range<u64>>,
}

/// Why something is ordered: what comes first is more urgent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// A trace that is followed has it next.
    Trace,
    /// It is read often.
    Hot,
}

/// What has become of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was all here.
    WasHere,
    /// Some of it was not, and has come.
    Arrived,
    /// Some of it has not come.
    Failed,
}

/// How the guest is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Following {
    /// Which of the traces, as they were given.
    pub trace: usize,
    /// The run at which the guest is.
    pub at: usize,
    /// All before this was ordered, or was touched.
    pub ordered_to: usize,
    /// How many there are.
    pub runs: usize,
}

#[derive(Debug)]
struct InFlight {
    blocks: u64,
    /// Which trace it is of, and which of its runs.
    of: Option<(usize, Vec<usize>)>,
}

impl Prefetch {
    /// The guest has touched nothing yet. These traces may come again, and these parts are hot, the hottest first.
    pub fn new(traces: impl IntoIterator<Item = Arc<Trace>>, hot: impl IntoIterator<Item = Range<u64>>) -> Self {
        let parts = hot.into_iter().flat_map(|Range { start, end }| {
            let starts = (start..end).step_by(usize::try_from(ORDER_BLOCKS).unwrap_or(1));
            starts.map(move |from| from..end.min(from + ORDER_BLOCKS))
        });
        Self {
            tracks: traces.into_iter().map(Track::new).collect(),
            hot: parts.take(MAX_HOT).collect(),
            in_flight: BTreeMap::new(),
            next: 0,
            rate: Rate::default(),
            pause_until_ms: 0,
        }
    }

    /// The guest has touched these blocks, for the first time since the attach.
    pub fn touched(&mut self, blocks: &Range<u64>) {
        self.tracks.iter_mut().for_each(|track| track.touched(blocks));
    }

    /// What is to be ordered next; `None` as long as nothing is. What is returned is under way until [`Prefetch::done`] is told of it.
    pub fn order(&mut self, now_ms: u64) -> Option<Order> {
        if now_ms < self.pause_until_ms || self.in_flight.len() >= MAX_ORDERS {
            return None;
        }
        let of_traces = self.in_flight.values().filter(|order| order.of.is_some());
        if of_traces.map(|order| order.blocks).sum::<u64>() >= self.rate.blocks_in(UNDER_WAY_MS).max(ORDER_BLOCKS) {
            return None;
        }
        let (why, runs, of) = match self.next_of_trace() {
            Some((trace, numbers)) => {
                let runs = numbers.iter().map(|run| self.tracks[trace].blocks(*run)).collect();
                (Why::Trace, runs, Some((trace, numbers)))
            }
            // One at a time: what it takes of the link is little.
            None if self.in_flight.is_empty() && !self.is_led() => (Why::Hot, vec![self.hot.pop_front()?], None),
            None => return None,
        };
        let number = self.next;
        self.next += 1;
        self.rate.begins(now_ms, self.in_flight.is_empty());
        let blocks = runs.iter().map(|run| run.end - run.start).sum();
        self.in_flight.insert(number, InFlight { blocks, of });
        Some(Order { number, why, runs })
    }

    /// An order has come to its end. What has failed of a trace may be ordered again, a little later.
    pub fn done(&mut self, number: u64, outcome: Outcome, now_ms: u64) {
        let Some(InFlight { blocks, of }) = self.in_flight.remove(&number) else { return };
        let arrived = if outcome == Outcome::Arrived { blocks } else { 0 };
        self.rate.ends(now_ms, arrived, self.in_flight.is_empty());
        if outcome == Outcome::Failed {
            self.pause_until_ms = now_ms + PAUSE_MS;
            if let Some((trace, runs)) = of {
                self.tracks[trace].failed(&runs);
            }
        }
    }

    /// How the guest is followed; `None` where it is not.
    pub fn following(&self) -> Option<Following> {
        let trace = self.followed()?;
        let track = &self.tracks[trace];
        Some(Following { trace, at: track.position(), ordered_to: track.ordered_to(), runs: track.len() })
    }

    /// Whether nothing is under way, and nothing is ordered before the guest touches something more.
    pub fn is_at_rest(&self) -> bool {
        self.in_flight.is_empty() && self.hot.is_empty() && self.followed().is_none()
    }

    /// Whether the guest is in the middle of a trace: that has all that it needs next, and what is hot besides would only be in its way.
    fn is_led(&self) -> bool {
        self.tracks.iter().any(Track::is_leading)
    }

    /// The trace that the guest keeps to most, of those that have anything left.
    fn followed(&self) -> Option<usize> {
        let followed = self.tracks.iter().enumerate().filter(|(_, track)| track.is_followed() && !track.is_complete());
        // Of those that it keeps to alike the newest.
        followed.rev().max_by_key(|(_, track)| track.hits()).map(|(trace, _)| trace)
    }

    /// What the trace that is followed has next, if it is time for that: which trace, and which of its runs.
    fn next_of_trace(&mut self) -> Option<(usize, Vec<usize>)> {
        let trace = self.followed()?;
        let runs = self.tracks[trace].order(self.rate.blocks_in(1000));
        (!runs.is_empty()).then_some((trace, runs))
    }
}

/// 4 MiB: what may be ahead of a guest whose link is not known.
pub(crate) const AHEAD_BLOCKS: u64 = 1024;
/// 1 MiB: what is asked for together.
const ORDER_BLOCKS: u64 = 256;
/// Runs in one order.
const ORDER_RUNS: usize = 64;
/// What is under way is as much as arrives in so long.
const UNDER_WAY_MS: u64 = 500;
/// Orders under way: requests that a source answers at a time.
const MAX_ORDERS: usize = 8;
/// 16 GiB in parts of a MiB: more than that is not brought before its turn.
const MAX_HOT: usize = 16_384;
/// How long nothing is ordered after something has failed.
const PAUSE_MS: u64 = 1000;

#[cfg(test)]
mod tests;
