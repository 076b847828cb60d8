//! One direction between two sites, as a model: when does a packet that is offered now arrive, if at all? It has no clock and
//! carries no bytes; both are the [`carrier`](super::carrier)'s.
//!
//! A packet is offered → drawn for loss → waits in a queue of so many bytes → leaves, one packet after another, at the rate →
//! is under way for the delay → arrives. None overtakes another.

use std::collections::VecDeque;

use crate::random::Random;

use super::moment::Moment;
use super::settings::{Change, Settings};

/// What may be in flight in one direction, in bytes: 8.5 Gbit/s for 250 ms. Where there is no rate nothing else bounds it.
const IN_FLIGHT_LIMIT_BYTES: u64 = 256 << 20;

/// One direction. Invariants: `queued_bytes` and `under_way_bytes` are the sums of what `flights` holds behind and before
/// `left`; departures and arrivals in `flights` never decrease.
#[derive(Debug)]
pub(super) struct Link {
    settings: Settings,
    is_cut: bool,
    random: Random,
    /// In the order in which they were offered.
    flights: VecDeque<Flight>,
    /// How many of them have left, and are under way; the others wait, or are leaving.
    left: usize,
    queued_bytes: u64,
    under_way_bytes: u64,
    /// When the last bit of the last one leaves.
    free_at: Moment,
    /// When the last one arrives.
    last_arrival: Moment,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It arrives then.
    DeliverAt(Moment),
    /// It never does.
    Dropped(Reason),
}

/// Why a packet never arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// It was drawn.
    Loss,
    /// Too much waited before it.
    Queue,
    /// The direction is cut.
    Cut,
    /// Too much is in flight for this program.
    Limit,
}

/// What has not arrived yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InFlight {
    pub(super) packets: usize,
    pub(super) bytes: u64,
}

#[derive(Clone, Copy, Debug)]
struct Flight {
    departs_at: Moment,
    arrives_at: Moment,
    bytes: u64,
}

impl Link {
    /// A link that nothing was offered to. What is lost depends on the seed, and on how many packets are offered.
    pub(super) fn new(settings: Settings, seed: u64) -> Self {
        Self {
            settings,
            is_cut: false,
            random: Random::new(seed),
            flights: VecDeque::new(),
            left: 0,
            queued_bytes: 0,
            under_way_bytes: 0,
            free_at: Moment::default(),
            last_arrival: Moment::default(),
        }
    }

    /// What is set of it.
    pub(super) fn settings(&self) -> Settings {
        self.settings
    }

    /// Whether it is cut.
    pub(super) fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// What becomes of a packet of so many bytes that is offered now. `now` never decreases.
    pub(super) fn offer(&mut self, now: Moment, bytes: u64) -> Verdict {
        self.settle(now);
        if self.is_cut {
            return Verdict::Dropped(Reason::Cut);
        }
        if self.draws_loss() {
            return Verdict::Dropped(Reason::Loss);
        }
        // A packet that is larger than the queue passes where nothing waits: else none of its size ever would.
        let has_room =
            |limit| self.queued_bytes == 0 || self.queued_bytes.checked_add(bytes).is_some_and(|sum| sum <= limit);
        if !self.settings.queue_bytes().is_none_or(has_room) {
            return Verdict::Dropped(Reason::Queue);
        }
        if self.queued_bytes + self.under_way_bytes + bytes > IN_FLIGHT_LIMIT_BYTES {
            return Verdict::Dropped(Reason::Limit);
        }
        let departs_at = self.free_at.max(now).plus_ns(self.settings.rate.time_ns(bytes));
        let arrives_at = departs_at.plus_ns(self.settings.delay.ns()).max(self.last_arrival);
        self.flights.push_back(Flight { departs_at, arrives_at, bytes });
        self.queued_bytes += bytes;
        (self.free_at, self.last_arrival) = (departs_at, arrives_at);
        Verdict::DeliverAt(arrives_at)
    }

    /// Sets something anew, for what is offered from now on: what was accepted keeps its time.
    pub(super) fn change(&mut self, change: &Change) {
        self.settings = self.settings.with(change);
    }

    /// Cuts it: what is in flight never arrives, and neither does what is offered until it is healed. How many packets were
    /// in flight.
    pub(super) fn cut(&mut self, now: Moment) -> usize {
        self.settle(now);
        let packets = self.flights.len();
        self.flights.clear();
        (self.left, self.queued_bytes, self.under_way_bytes) = (0, 0, 0);
        (self.free_at, self.last_arrival) = (now, now);
        self.is_cut = true;
        packets
    }

    /// Heals it.
    pub(super) fn heal(&mut self) {
        self.is_cut = false;
    }

    /// What has not arrived yet.
    pub(super) fn in_flight(&mut self, now: Moment) -> InFlight {
        self.settle(now);
        InFlight { packets: self.flights.len(), bytes: self.queued_bytes + self.under_way_bytes }
    }

    /// Sees what has left and what has arrived since it last looked.
    fn settle(&mut self, now: Moment) {
        while let Some(flight) = self.flights.get(self.left).filter(|flight| flight.departs_at <= now) {
            self.queued_bytes -= flight.bytes;
            self.under_way_bytes += flight.bytes;
            self.left += 1;
        }
        while let Some(flight) = self.flights.front().filter(|flight| flight.arrives_at <= now) {
            self.under_way_bytes -= flight.bytes;
            self.left -= 1;
            self.flights.pop_front();
        }
    }

    fn draws_loss(&mut self) -> bool {
        let ppm = self.settings.loss.ppm();
        ppm > 0 && self.random.below(1_000_000) < u64::from(ppm)
    }

    /// Panics where an invariant does not hold.
    #[cfg(test)]
    fn validate(&self) {
        let sum = |flights: &mut dyn Iterator<Item = &Flight>| flights.map(|flight| flight.bytes).sum::<u64>();
        assert_eq!(sum(&mut self.flights.iter().take(self.left)), self.under_way_bytes);
        assert_eq!(sum(&mut self.flights.iter().skip(self.left)), self.queued_bytes);
        assert!(self.flights.iter().is_sorted_by_key(|flight| flight.departs_at));
        assert!(self.flights.iter().is_sorted_by_key(|flight| flight.arrives_at));
        assert!(self.queued_bytes + self.under_way_bytes <= IN_FLIGHT_LIMIT_BYTES);
        assert!(!self.is_cut || self.flights.is_empty());
    }
}

#[cfg(test)]
mod tests;
