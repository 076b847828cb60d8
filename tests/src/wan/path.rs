//! One direction with its packets: the model says when each arrives, and this holds them until then and counts.

use std::collections::VecDeque;
use std::os::fd::AsFd;

use super::link::{InFlight, Link, Reason, Verdict};
use super::moment::Moment;
use super::pool::{Buffer, Pool};
use super::report::{DirectionReport, Dropped};
use super::settings::{Change, Settings};

/// One direction. Invariant: `packets` are those that the link has in flight, in the same order.
pub(super) struct Path {
    link: Link,
    packets: VecDeque<Held>,
    carried_packets: u64,
    carried_bytes: u64,
    dropped: Dropped,
}

struct Held {
    arrives_at: Moment,
    wire_bytes: u64,
    buffer: Buffer,
}

impl Path {
    pub(super) fn new(settings: Settings, seed: u64) -> Self {
        let (link, packets) = (Link::new(settings, seed), VecDeque::new());
        Self { link, packets, carried_packets: 0, carried_bytes: 0, dropped: Dropped::default() }
    }

    /// Takes a frame that is sent now, or drops it.
    pub(super) fn offer(&mut self, now: Moment, frame: &[u8], wire_bytes: u64, pool: &mut Pool) {
        let Some(buffer) = pool.hold(frame) else {
            self.dropped.limit += 1;
            return;
        };
        let dropped = match self.link.offer(now, wire_bytes) {
            Verdict::DeliverAt(arrives_at) => return self.packets.push_back(Held { arrives_at, wire_bytes, buffer }),
            Verdict::Dropped(Reason::Loss) => &mut self.dropped.loss,
            Verdict::Dropped(Reason::Queue) => &mut self.dropped.queue,
            Verdict::Dropped(Reason::Cut) => &mut self.dropped.cut,
            Verdict::Dropped(Reason::Limit) => &mut self.dropped.limit,
        };
        *dropped += 1;
        pool.give_back(buffer);
    }

    /// When the next packet arrives.
    pub(super) fn next_arrival(&self) -> Option<Moment> {
        self.packets.front().map(|held| held.arrives_at)
    }

    /// Hands what has arrived to the receiving site.
    pub(super) fn deliver(&mut self, now: Moment, device: impl AsFd, pool: &mut Pool) {
        while let Some(held) = self.packets.pop_front_if(|held| held.arrives_at <= now) {
            match rustix::io::write(&device, held.buffer.frame()) {
                Ok(_) => {
                    self.carried_packets += 1;
                    self.carried_bytes += held.wire_bytes;
                }
                // Its device is down, or its kernel has no memory: what does not arrive is sent again, as on any network.
                Err(_) => self.dropped.refused += 1,
            }
            pool.give_back(held.buffer);
        }
    }

    /// Cuts it: nothing arrives from now on.
    pub(super) fn cut(&mut self, now: Moment, pool: &mut Pool) {
        self.link.cut(now);
        self.dropped.cut += self.packets.len() as u64;
        for held in self.packets.drain(..) {
            pool.give_back(held.buffer);
        }
    }

    pub(super) fn heal(&mut self) {
        self.link.heal();
    }

    pub(super) fn change(&mut self, change: &Change) {
        self.link.change(change);
    }

    pub(super) fn report(&mut self, now: Moment, from: &str, to: &str) -> DirectionReport {
        let Settings { delay, rate, loss, .. } = self.link.settings();
        let InFlight { packets, bytes } = self.link.in_flight(now);
        DirectionReport {
            from: from.to_owned(),
            to: to.to_owned(),
            delay,
            rate,
            loss,
            queue_bytes: self.link.settings().queue_bytes(),
            is_cut: self.link.is_cut(),
            carried_packets: self.carried_packets,
            carried_bytes: self.carried_bytes,
            dropped: self.dropped,
            in_flight_packets: packets as u64,
            in_flight_bytes: bytes,
        }
    }
}
