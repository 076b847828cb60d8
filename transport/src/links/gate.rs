//! Whose turn it is to write on a link. No clock, lock or socket is in it: moments come in, and wakers go out.
//!
//! Whoever wants to write asks, and then says what came of it. A connection of a lane that [yields](Lane::yields) waits
//!
//! * while one of a more urgent lane writes, or has written a lot a moment ago;
//! * behind those of more urgent lanes that wait, and those of its own lane that have waited longer;
//! * for the limit, and while there is demand, for what the link carries without a queue: what has been put into the queues on the way is in
//!   front of what is urgent, whoever goes first here;
//!
//! but not for ever: whoever has waited for [`STARVED_AFTER`] writes once, so that its pings are answered.
//!
//! Each that waits has a timer. Only the first in line has to be woken before it rings, when its turn comes sooner than
//! it was told; what it does then makes another the first.

use std::collections::BTreeMap;
use std::task::Waker;
use std::time::Duration;

use sterna_types::ByteRate;
use tokio::time::Instant;

use super::bucket::Bucket;
use super::speed::Speed;
use crate::lane::Lane;
use crate::limits::{
    COURTESY, COURTESY_PART, HOLDING_WRITE_BYTES, MAX_GRANT_BYTES, STARVED_AFTER, STARVED_INTERVAL, STARVED_SHARE,
    STUCK_AFTER, URGENT_HOLD,
};

/// A connection on a link. Later ones have greater numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct MemberId(u64);

/// When a connection may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Now, so many bytes. What comes of it is to be [said](Gate::wrote).
    Now { at_most_bytes: usize },
    /// It is to ask again then, or when it is woken.
    Later(Instant),
}

/// The connections of a link, and what may be sent over it.
#[derive(Debug, Default)]
pub(super) struct Gate {
    bucket: Option<Bucket>,
    speed: Speed,
    /// While there is demand: a little less than the link carries.
    courtesy: Option<Courtesy>,
    connections: BTreeMap<MemberId, Connection>,
    next_member: u64,
    next_ticket: u64,
    /// When one that starved was last let go before its turn.
    fed: Option<Instant>,
}

/// A limit while there is demand, of which its answers take their part first.
#[derive(Debug)]
struct Courtesy {
    bucket: Bucket,
    until: Instant,
}

#[derive(Debug)]
struct Connection {
    lane: Lane,
    state: State,
    /// When it began to write what the socket has not taken since.
    attempted: Option<Instant>,
    /// Until when it holds others back, since it has written a lot.
    holds_until: Option<Instant>,
}

#[derive(Debug)]
enum State {
    Quiet,
    /// It has a turn, and the socket has not taken anything yet.
    Writing,
    Waiting(Wait),
}

#[derive(Debug)]
struct Wait {
    /// Its place behind others of its lane.
    ticket: u64,
    since: Instant,
    /// When it will ask again.
    expected: Instant,
    waker: Waker,
}

impl Gate {
    /// A connection more.
    pub(super) fn join(&mut self, lane: Lane) -> MemberId {
        let id = MemberId(self.next_member);
        self.next_member += 1;
        self.connections.insert(id, Connection { lane, state: State::Quiet, attempted: None, holds_until: None });
        id
    }

    /// A connection has ended. Returned is who is to be woken.
    #[must_use]
    pub(super) fn leave(&mut self, id: MemberId, now: Instant) -> Option<Waker> {
        self.connections.remove(&id);
        self.first_in_line(now)
    }

    /// Whether a connection may write; else it waits, and is woken by this.
    pub(super) fn ask(&mut self, id: MemberId, now: Instant, waker: &Waker) -> Turn {
        let Some(connection) = self.connections.get(&id) else { return Turn::Now { at_most_bytes: usize::MAX } };
        let lane = connection.lane;
        let (ticket, since) = match &connection.state {
            State::Waiting(wait) => (wait.ticket, wait.since),
            State::Quiet | State::Writing => (self.next_ticket, now),
        };
        let turn = if lane.yields() { self.turn(id, (lane, ticket), since, now) } else { UNBOUNDED };
        let state = match turn {
            Turn::Now { .. } => State::Writing,
            Turn::Later(expected) => {
                self.next_ticket = self.next_ticket.max(ticket + 1);
                State::Waiting(Wait { ticket, since, expected, waker: waker.clone() })
            }
        };
        if let Some(connection) = self.connections.get_mut(&id) {
            if matches!(state, State::Writing) {
                connection.attempted.get_or_insert(now);
            }
            connection.state = state;
        }
        turn
    }

    /// A connection that had its turn has written so much; nothing where that failed. Returned is who is to be woken.
    #[must_use]
    pub(super) fn wrote(&mut self, id: MemberId, bytes: usize, now: Instant) -> Option<Waker> {
        if let Some(bucket) = &mut self.bucket {
            bucket.take(bytes, now);
        }
        let is_answer =
            bytes >= HOLDING_WRITE_BYTES && self.connections.get(&id).is_some_and(|of| of.lane == Lane::Demand);
        self.be_courteous(bytes, is_answer, now);
        if let Some(connection) = self.connections.get_mut(&id) {
            (connection.state, connection.attempted) = (State::Quiet, None);
            if bytes >= HOLDING_WRITE_BYTES {
                connection.holds_until = Some(now + URGENT_HOLD);
            }
        }
        self.first_in_line(now)
    }

    /// The socket of a connection that had its turn takes nothing now. Returned is who is to be woken.
    #[must_use]
    pub(super) fn blocked(&mut self, now: Instant) -> Option<Waker> {
        self.first_in_line(now)
    }

    /// Has this limit, or none, from now on. Returned is who is to be woken.
    #[must_use]
    pub(super) fn set_limit(&mut self, limit: Option<ByteRate>, now: Instant) -> Option<Waker> {
        match (&mut self.bucket, limit) {
            (Some(bucket), Some(rate)) => bucket.change(rate, now),
            (bucket, limit) => *bucket = limit.map(|rate| Bucket::new(rate, now)),
        }
        self.first_in_line(now)
    }

    /// The limit that there is.
    pub(super) fn limit(&self) -> Option<ByteRate> {
        self.bucket.as_ref().map(Bucket::rate)
    }

    /// So much was written, perhaps an answer to demand.
    fn be_courteous(&mut self, bytes: usize, is_answer: bool, now: Instant) {
        if self.courtesy.as_ref().is_some_and(|courtesy| courtesy.until <= now) {
            self.courtesy = None;
        }
        match &mut self.courtesy {
            Some(courtesy) => {
                courtesy.bucket.take(bytes, now);
                courtesy.until = if is_answer { now + COURTESY } else { courtesy.until };
            }
            None => {
                self.speed.sent(bytes, now);
                // A limit says what the link is to carry.
                let rate = self.speed.rate().filter(|_| is_answer && self.bucket.is_none());
                if let Some(ByteRate(rate)) = rate {
                    // What goes over the link meanwhile says nothing of what it carries.
                    self.speed.skip();
                    let bucket = Bucket::new(ByteRate(rate - rate / COURTESY_PART), now);
                    self.courtesy = Some(Courtesy { bucket, until: now + COURTESY });
                }
            }
        }
    }

    /// From when on somebody who yields may write, by what there are of limits.
    fn is_free_at(&self, now: Instant) -> Instant {
        let limit = self.bucket.as_ref().map(Bucket::free_at);
        // Whoever waits for that asks again when it is over.
        let courtesy = self.courtesy.as_ref().map(|courtesy| courtesy.bucket.free_at().min(courtesy.until));
        limit.max(courtesy).unwrap_or(now)
    }

    fn turn(&mut self, id: MemberId, place: (Lane, u64), since: Instant, now: Instant) -> Turn {
        let free_at = self.free_at(id, place, now);
        if free_at.is_some_and(|at| at <= now) {
            return if self.bucket.is_some() || self.courtesy.is_some() { GRANT } else { UNBOUNDED };
        }
        let fed_at = self.fed_at(id, since, now);
        if fed_at <= now {
            self.fed = Some(now);
            return GRANT;
        }
        Turn::Later(free_at.map_or(fed_at, |at| at.min(fed_at)))
    }

    /// When it is a connection's turn, unless something happens before; `None` while another one is before it in line.
    fn free_at(&self, id: MemberId, (lane, ticket): (Lane, u64), now: Instant) -> Option<Instant> {
        let mut at = self.is_free_at(now);
        for (_, other) in self.connections.iter().filter(|(other, _)| **other != id) {
            if other.waiting(now).is_some_and(|wait| (other.lane, wait.ticket) < (lane, ticket)) {
                return None;
            }
            if other.lane.goes_before(lane) {
                at = other.holds_back_until().map_or(at, |until| at.max(until));
            }
        }
        Some(at)
    }

    /// When a connection is let go before its turn. Who has waited longest goes first.
    fn fed_at(&self, id: MemberId, since: Instant, now: Instant) -> Instant {
        let at_limit = self.bucket.as_ref().map_or(Duration::ZERO, |bucket| bucket.time_for(MAX_GRANT_BYTES));
        let interval = STARVED_INTERVAL.max(at_limit * STARVED_SHARE);
        let starved_at = since + STARVED_AFTER;
        let at = self.fed.map_or(starved_at, |fed| starved_at.max(fed + interval));
        let is_before = |(other, connection): (&MemberId, &Connection)| {
            connection.waiting(now).is_some_and(|wait| (wait.since, *other) < (since, id))
        };
        let is_first = !self.connections.iter().any(is_before);
        if is_first || at > now { at } else { now + interval }
    }

    /// Who is to be woken, if its turn comes before it would ask again: the first in line. It comes soon then.
    fn first_in_line(&mut self, now: Instant) -> Option<Waker> {
        let waiting = self.connections.iter().filter_map(|(id, other)| Some((other, other.waiting(now)?, *id)));
        let (place, id) = waiting.map(|(other, wait, id)| ((other.lane, wait.ticket), id)).min()?;
        let free_at = self.free_at(id, place, now)?;
        match &mut self.connections.get_mut(&id)?.state {
            State::Waiting(wait) if free_at < wait.expected => {
                wait.expected = now;
                Some(wait.waker.clone())
            }
            _ => None,
        }
    }
}

impl Connection {
    /// How it waits, unless it has not asked again when it was to: whoever has given a write up stands in nobody's way.
    fn waiting(&self, now: Instant) -> Option<&Wait> {
        match &self.state {
            State::Waiting(wait) if now < wait.expected + STUCK_AFTER => Some(wait),
            _ => None,
        }
    }

    /// Until when those that it goes before do not write.
    fn holds_back_until(&self) -> Option<Instant> {
        let stuck_at = self.attempted.map(|attempted| attempted + STUCK_AFTER);
        let writing = stuck_at.filter(|_| matches!(self.state, State::Writing));
        writing.max(self.holds_until)
    }
}

/// As much as it wants.
const UNBOUNDED: Turn = Turn::Now { at_most_bytes: usize::MAX };

/// A piece, behind which others have their turn.
const GRANT: Turn = Turn::Now { at_most_bytes: MAX_GRANT_BYTES };
