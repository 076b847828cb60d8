//! Why a node's lease has ended when the metadata says that its session has lapsed: by clocks that are wrong, with renewals and
//! answers that are late, a lapse that is proposed and arrives late, and leaders that change.
//!
//! In steps of a second; a session lasts for ten, so that a margin is one. Each of the two clocks, the node's and that of whoever
//! leads, is wrong by up to one margin: the node's is behind, the leader's is ahead, and both change while the session
//! lasts. That is ten times what design section 5 assumes of clocks.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use stateright::{Model, Property};
use sterna_consensus::session::{holds_for, lapses_after};
use sterna_consensus::state::session::{Session, SessionLength, SessionState};

/// A node's session, its lease, and whoever leads.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Clocks {
    /// As the metadata knows it. How often it was renewed counts from what the oldest message that is under way knows.
    session: Session,
    /// For how long the node may acknowledge things yet, by its clock.
    lease_s: u64,
    /// How long ago the renewals were sent that have not arrived, by the node's clock.
    sent_s: BTreeSet<u64>,
    /// The same of those that were carried out, and whose answers have not arrived.
    answered_s: BTreeSet<u64>,
    /// How long ago the leader saw the newest renewal, by its clock.
    seen_s: u64,
    /// The proposals that the session has lapsed: the renewals that they know of.
    lapses: BTreeSet<u64>,
    /// Whether the node's clock is behind by a second.
    is_behind: bool,
    /// Whether the leader's clock is ahead by a second.
    is_ahead: bool,
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// A second passes; the clocks are right or wrong behind it.
    Second {
        /// The node's is behind.
        is_behind: bool,
        /// The leader's is ahead.
        is_ahead: bool,
    },
    /// The node sends a renewal.
    Send,
    /// A renewal that was sent so long ago arrives, and is carried out if it can be.
    Arrive(u64),
    /// The answer to one that was sent so long ago arrives.
    Answer(u64),
    /// Whoever leads proposes that the session has lapsed.
    Propose,
    /// That is carried out, if it can be.
    Lapse(u64),
    /// Another node leads, by its own clock, and has every session last once more.
    Lead {
        /// Its clock is ahead.
        is_ahead: bool,
    },
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Second { is_behind, is_ahead } => {
                let wrong = |is_wrong: bool| if is_wrong { "wrong" } else { "right" };
                write!(f, "a second; the node's clock is {}, the leader's {}", wrong(*is_behind), wrong(*is_ahead))
            }
            Self::Send => write!(f, "the node sends a renewal"),
            Self::Arrive(ago) => write!(f, "the renewal of {ago} s ago arrives"),
            Self::Answer(ago) => write!(f, "the answer to the renewal of {ago} s ago arrives"),
            Self::Propose => write!(f, "the leader proposes that the session has lapsed"),
            Self::Lapse(_) => write!(f, "that arrives"),
            Self::Lead { .. } => write!(f, "another node leads"),
        }
    }
}

/// The model.
#[derive(Clone, Copy, Debug)]
pub struct Time {
    /// How many renewals, and as many answers, are on their way at once.
    pub under_way: usize,
}

/// What [`Time`] promises.
pub const PROMISE: &str = "a lease has ended when its session lapses";

impl Model for Time {
    type State = Clocks;
    type Action = Event;

    fn init_states(&self) -> Vec<Clocks> {
        let length =
            SessionLength::try_from(Duration::from_secs(LENGTH_S)).expect("a session may last for ten seconds");
        vec![Clocks {
            session: Session::open(None, length),
            lease_s: 0,
            sent_s: BTreeSet::new(),
            answered_s: BTreeSet::from([0]),
            seen_s: 0,
            lapses: BTreeSet::new(),
            is_behind: false,
            is_ahead: false,
        }]
    }

    fn actions(&self, state: &Clocks, actions: &mut Vec<Event>) {
        let clocks = [(false, false), (false, true), (true, false), (true, true)];
        actions.extend(clocks.map(|(is_behind, is_ahead)| Event::Second { is_behind, is_ahead }));
        if state.sent_s.len() < self.under_way && state.answered_s.len() < self.under_way {
            actions.push(Event::Send);
        }
        actions.extend(state.sent_s.iter().copied().map(Event::Arrive));
        actions.extend(state.answered_s.iter().copied().map(Event::Answer));
        if seconds(lapses_after(state.session.length)) <= state.seen_s {
            actions.push(Event::Propose);
        }
        actions.extend(state.lapses.iter().copied().map(Event::Lapse));
        actions.extend([false, true].map(|is_ahead| Event::Lead { is_ahead }));
    }

    fn next_state(&self, before: &Clocks, event: Event) -> Option<Clocks> {
        let mut state = before.clone();
        match event {
            Event::Second { is_behind, is_ahead } => state.pass(is_behind, is_ahead),
            Event::Send => drop(state.sent_s.insert(0)),
            Event::Arrive(ago) => state.arrive(ago),
            Event::Answer(ago) => {
                state.answered_s.remove(&ago);
                state.lease_s = state.lease_s.max(seconds(holds_for(state.session.length)).saturating_sub(ago));
            }
            Event::Propose => drop(state.lapses.insert(state.session.renewals)),
            Event::Lapse(renewals) => {
                state.lapses.remove(&renewals);
                if let Ok(ended) = state.session.end(SessionState::Lapsed, Some(renewals)) {
                    state.session = ended;
                }
            }
            Event::Lead { is_ahead } => (state.seen_s, state.is_ahead) = (0, is_ahead),
        }
        state.forget();
        (state != *before).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![Property::always(PROMISE, |_, state: &Clocks| state.session.is_live() || !state.may_acknowledge())]
    }
}

impl Clocks {
    /// A second, by both clocks as they are then.
    fn pass(&mut self, is_behind: bool, is_ahead: bool) {
        let by_node = 1 + u64::from(self.is_behind) - u64::from(is_behind);
        let by_leader = 1 + u64::from(is_ahead) - u64::from(self.is_ahead);
        let older = |ages: &BTreeSet<u64>| ages.iter().map(|age| (age + by_node).min(LENGTH_S)).collect();
        (self.sent_s, self.answered_s) = (older(&self.sent_s), older(&self.answered_s));
        self.lease_s = self.lease_s.saturating_sub(by_node);
        // Longer than any session is as long as any other time.
        self.seen_s = (self.seen_s + by_leader).min(2 * LENGTH_S);
        (self.is_behind, self.is_ahead) = (is_behind, is_ahead);
    }

    fn arrive(&mut self, ago: u64) {
        self.sent_s.remove(&ago);
        if let Ok(renewed) = self.session.renew(self.session.length) {
            self.session = renewed;
            self.answered_s.insert(ago);
            self.seen_s = 0;
        }
    }

    /// Whether the node may acknowledge something now, or would by an answer that is still under way.
    fn may_acknowledge(&self) -> bool {
        let holds_s = seconds(holds_for(self.session.length));
        self.lease_s > 0 || self.answered_s.iter().any(|ago| *ago < holds_s)
    }

    /// Counts the renewals from the oldest that some message knows of, so that there are finitely many states.
    fn forget(&mut self) {
        let oldest = self.lapses.first().copied().unwrap_or(self.session.renewals).min(self.session.renewals);
        self.session.renewals -= oldest;
        self.lapses = self.lapses.iter().map(|renewals| renewals - oldest).collect();
        // What is not newest is refused, however old it is.
        let stale = self.lapses.iter().filter(|renewals| **renewals != self.session.renewals).count();
        if stale > 0 {
            let is_current = self.lapses.contains(&self.session.renewals);
            self.session.renewals = 1;
            self.lapses = if is_current { BTreeSet::from([0, 1]) } else { BTreeSet::from([0]) };
        }
    }
}

fn seconds(duration: Duration) -> u64 {
    duration.as_secs()
}

const LENGTH_S: u64 = 10;
