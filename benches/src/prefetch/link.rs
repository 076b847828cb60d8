//! A link that is computed: its delay, its rate, and two lanes, of which one goes first.
//!
//! What is asked for reaches the source half a round trip later. The link then carries one thing after the other, whole: the first that is
//! waited for, else the first of what is brought ahead. It arrives half a round trip after it has been carried.

use std::collections::VecDeque;

/// What is asked for of a link and has not arrived.
pub(super) struct Link {
    bytes_per_s: f64,
    one_way_s: f64,
    /// Until when the link carries what it has begun.
    busy_to_s: f64,
    /// In the order in which they go first: what is waited for, and what is brought ahead.
    lanes: [VecDeque<Asked>; 2],
}

/// In which lane something comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    Demand,
    Ahead,
}

struct Asked {
    item: u32,
    bytes: f64,
    /// When the source knows of it.
    ready_s: f64,
}

impl Link {
    pub(super) fn new(bytes_per_s: f64, round_trip_s: f64) -> Self {
        Self { bytes_per_s, one_way_s: round_trip_s / 2.0, busy_to_s: 0.0, lanes: Default::default() }
    }

    /// Asks for something.
    pub(super) fn ask(&mut self, lane: Lane, item: u32, bytes: f64, now_s: f64) {
        self.lanes[lane as usize].push_back(Asked { item, bytes, ready_s: now_s + self.one_way_s });
    }

    /// When the next thing arrives, unless something else is asked for before.
    pub(super) fn next_arrival_s(&self) -> Option<f64> {
        self.next().map(|(_, carried_s)| carried_s + self.one_way_s)
    }

    /// Has the next thing arrive; which one.
    pub(super) fn arrive(&mut self) -> Option<u32> {
        let (lane, carried_s) = self.next()?;
        self.busy_to_s = carried_s;
        self.lanes[lane].pop_front().map(|asked| asked.item)
    }

    /// The lane of what is carried next, and when it has been carried.
    fn next(&self) -> Option<(usize, f64)> {
        let begins = |lane: &VecDeque<Asked>| lane.front().map(|asked| asked.ready_s.max(self.busy_to_s));
        let first_s = self.lanes.iter().filter_map(begins).min_by(f64::total_cmp)?;
        let lane = self.lanes.iter().position(|lane| begins(lane).is_some_and(|begins_s| begins_s <= first_s))?;
        Some((lane, first_s + self.lanes[lane].front()?.bytes / self.bytes_per_s))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_waited_for_goes_before_what_is_not_and_after_what_is_being_carried() {
        let mut link = Link::new(1000.0, 0.2);
        link.ask(Lane::Ahead, 1, 500.0, 0.0);
        link.ask(Lane::Ahead, 2, 500.0, 0.0);
        // It reaches the source while the first is being carried.
        link.ask(Lane::Demand, 3, 100.0, 0.3);
        let mut arrived = Vec::new();
        while let Some(at_s) = link.next_arrival_s() {
            arrived.push((link.arrive(), (at_s * 1000.0).round()));
        }
        assert_eq!(arrived, [(Some(1), 700.0), (Some(3), 800.0), (Some(2), 1300.0)]);
    }
}
