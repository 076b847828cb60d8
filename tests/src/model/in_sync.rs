//! Who is in sync with a volume: an owner that takes nodes in and out, with requests that are late, lost, repeated and overtaken, a view of
//! the metadata that is old, and starts in between (`docs/decisions/0031-who-is-in-sync-is-metadata.md`).
//!
//! What decides is the product: every request is carried out by [`Metadata::apply`]. The model adds the owner, by the rules of
//! [`sterna_consensus::state::in_sync`]: it waits for a node from before it asks for it to be added until after it knows that it is out; it
//! asks for one change at a time, until that is answered; and where it has started anew it acknowledges nothing before a change was carried
//! out.

use std::collections::BTreeSet;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use stateright::{Model, Property};
use sterna_consensus::Metadata;
use sterna_consensus::state::command::Command;
use sterna_consensus::state::in_sync::InSyncRevision;
use sterna_consensus::state::request::Request;
use sterna_consensus::state::volume::Volume;
use sterna_types::NodeId;

use super::candidates::{CANDIDATES, VOLUME, volume_with_candidates};

/// The metadata. Nothing of it changes but who is in sync with the one volume.
#[derive(Clone)]
struct Known(Arc<Metadata>);

/// What an owner asks for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Ask {
    revision: InSyncRevision,
    add: BTreeSet<NodeId>,
    remove: BTreeSet<NodeId>,
}

/// What the owner is about to ask for, or has asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Change {
    ask: Ask,
    /// The writes that there were when it began to wait for those to be added.
    before: u8,
    is_asked: bool,
}

/// The volume, its owner, and those that may be in sync.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Set {
    metadata: Known,
    /// As the owner has applied it.
    known: Known,
    /// How many of the writes each of [`CANDIDATES`] has on its disk.
    held: [u8; CANDIDATES.len()],
    written: u8,
    acknowledged: u8,
    /// Waited for, whether the metadata names them or not.
    adding: BTreeSet<NodeId>,
    /// Whether nothing is carried out any more that the owner has asked for before it started.
    is_settled: bool,
    change: Option<Change>,
    /// All that was ever asked for: each may arrive at any time, and again.
    requests: BTreeSet<Ask>,
    changes: u8,
    starts: u8,
}

/// What happens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// A client writes.
    Write,
    /// A node has one more of the writes on its disk.
    Send(NodeId),
    /// The owner acknowledges as much as it may.
    Acknowledge,
    /// The owner begins to wait for those whom it is about to add, and chooses whom to remove.
    Begin(BTreeSet<NodeId>, BTreeSet<NodeId>),
    /// It asks for that.
    Ask,
    /// What was asked for is carried out, if it can be, and its answer is lost.
    CarryOut(usize),
    /// So, and its answer arrives.
    Answer,
    /// The owner applies all that was decided.
    Learn,
    /// The owner starts anew.
    Start,
}

/// The model, within bounds.
#[derive(Clone, Copy, Debug)]
pub struct InSync {
    /// How many writes there are.
    pub writes: u8,
    /// How often the owner begins to change the set.
    pub changes: u8,
    /// How often it starts anew.
    pub starts: u8,
    /// How many changes are decided by then, before nothing arrives any more whose answer is lost: what is as it is to be counts each time.
    pub decisions: u64,
}

/// What [`InSync`] promises.
pub const PROMISE: &str = "who is in sync holds all that was acknowledged";

impl Known {
    fn volume(&self) -> &Volume {
        self.0.volume(VOLUME).expect("the volume is there from the beginning")
    }

    fn in_sync(&self) -> &BTreeSet<NodeId> {
        &self.volume().in_sync
    }

    fn revision(&self) -> InSyncRevision {
        self.volume().in_sync_revision
    }
}

impl PartialEq for Known {
    fn eq(&self, other: &Self) -> bool {
        (self.in_sync(), self.revision()) == (other.in_sync(), other.revision())
    }
}

impl Eq for Known {}

impl Hash for Known {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.in_sync(), self.revision()).hash(state);
    }
}

impl fmt::Debug for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} by revision {}", self.in_sync(), self.revision())
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write => write!(f, "a client writes"),
            Self::Send(node) => write!(f, "node {node} has one write more"),
            Self::Acknowledge => write!(f, "the owner acknowledges what it may"),
            Self::Begin(add, remove) => write!(f, "the owner is about to add {add:?} and to remove {remove:?}"),
            Self::Ask => write!(f, "it asks for that"),
            Self::CarryOut(which) => write!(f, "request {which} of all that were made arrives, and its answer is lost"),
            Self::Answer => write!(f, "the owner's request arrives, and is answered"),
            Self::Learn => write!(f, "the owner applies what was decided"),
            Self::Start => write!(f, "the owner starts anew"),
        }
    }
}

impl Model for InSync {
    type State = Set;
    type Action = Event;

    fn init_states(&self) -> Vec<Set> {
        let metadata = Known(Arc::new(volume_with_candidates()));
        vec![Set {
            known: metadata.clone(),
            metadata,
            held: [0; CANDIDATES.len()],
            written: 0,
            acknowledged: 0,
            adding: BTreeSet::new(),
            is_settled: false,
            change: None,
            requests: BTreeSet::new(),
            changes: 0,
            starts: 0,
        }]
    }

    fn actions(&self, state: &Set, actions: &mut Vec<Event>) {
        if state.written < self.writes {
            actions.push(Event::Write);
        }
        actions.extend(CANDIDATES.map(Event::Send));
        actions.extend([Event::Acknowledge, Event::Learn]);
        match &state.change {
            None if state.changes < self.changes => actions.extend(state.beginnings()),
            None => {}
            Some(change) if change.is_asked => actions.push(Event::Answer),
            Some(_) => actions.push(Event::Ask),
        }
        if state.metadata.revision().0 < self.decisions {
            actions.extend((0..state.requests.len()).map(Event::CarryOut));
        }
        if state.starts < self.starts {
            actions.push(Event::Start);
        }
    }

    fn next_state(&self, before: &Set, event: Event) -> Option<Set> {
        let mut state = before.clone();
        match event {
            Event::Write => state.written += 1,
            Event::Send(node) => {
                let (held, written) = (state.held_mut(node), before.written);
                *held = written.min(*held + 1);
            }
            Event::Acknowledge => state.acknowledge(),
            Event::Begin(add, remove) => state.begin(add, remove),
            Event::Ask => state.ask(),
            Event::CarryOut(which) => {
                let ask = before.requests.iter().nth(which)?.clone();
                state.carry_out(&ask);
            }
            Event::Answer => state.answer()?,
            Event::Learn => state.known = state.metadata.clone(),
            Event::Start => {
                (state.starts, state.is_settled, state.change) = (state.starts + 1, false, None);
                state.adding.clear();
            }
        }
        (state != *before).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![Property::always(PROMISE, |_, state: &Set| {
            state.metadata.in_sync().iter().all(|node| state.held(*node) >= state.acknowledged)
        })]
    }
}

impl Set {
    fn held(&self, node: NodeId) -> u8 {
        CANDIDATES.iter().zip(self.held).find(|(candidate, _)| **candidate == node).map_or(0, |(_, held)| held)
    }

    fn held_mut(&mut self, node: NodeId) -> &mut u8 {
        let at = CANDIDATES.iter().position(|candidate| *candidate == node);
        &mut self.held[at.expect("no other node holds anything")]
    }

    /// What may be changed: one node comes, one goes, or one takes the place of another; and nothing, where it is not known what is still
    /// carried out.
    fn beginnings(&self) -> Vec<Event> {
        let none = BTreeSet::new;
        let (mut all, members) = (Vec::new(), self.known.in_sync());
        for node in CANDIDATES {
            let (one, others) = (BTreeSet::from([node]), CANDIDATES.into_iter().filter(|other| *other != node));
            if members.contains(&node) {
                all.push(Event::Begin(none(), one));
                continue;
            }
            let replaced = others.filter(|other| members.contains(other));
            all.extend(replaced.map(|other| Event::Begin(one.clone(), BTreeSet::from([other]))));
            all.push(Event::Begin(one, none()));
        }
        if !self.is_settled {
            all.push(Event::Begin(none(), none()));
        }
        all
    }

    fn acknowledge(&mut self) {
        if self.is_settled {
            let waited_for = self.adding.iter().chain(self.known.in_sync());
            let held_by_all = waited_for.map(|node| self.held(*node)).fold(self.written, u8::min);
            self.acknowledged = self.acknowledged.max(held_by_all);
        }
    }

    fn begin(&mut self, add: BTreeSet<NodeId>, remove: BTreeSet<NodeId>) {
        self.changes += 1;
        self.adding.extend(&add);
        let ask = Ask { revision: self.known.revision(), add, remove };
        self.change = Some(Change { ask, before: self.written, is_asked: false });
    }

    /// Once those to be added have all that was written before they were waited for.
    fn ask(&mut self) {
        let Some(change) = &self.change else { return };
        if change.ask.add.iter().any(|node| self.held(*node) < change.before) {
            return;
        }
        self.requests.insert(change.ask.clone());
        self.change = Some(Change { is_asked: true, ..change.clone() });
    }

    /// Whether it could be.
    fn carry_out(&mut self, Ask { revision, add, remove }: &Ask) -> bool {
        let mut metadata = Metadata::clone(&self.metadata.0);
        let Volume { epoch, owner, .. } = *self.metadata.volume();
        let (revision, add, remove) = (*revision, add.clone(), remove.clone());
        let command = Command::ChangeInSync { volume: VOLUME, epoch, node: owner, revision, add, remove };
        let is_done = metadata.apply(&Request { id: None, command }).is_ok();
        self.metadata = Known(Arc::new(metadata));
        is_done
    }

    /// What was refused may be on its way still: so that it is not carried out, something else is asked for, which changes nothing.
    fn answer(&mut self) -> Option<()> {
        let Change { ask, before, .. } = self.change.take()?;
        if self.carry_out(&ask) {
            (self.known, self.is_settled) = (self.metadata.clone(), true);
            self.adding.clear();
        } else {
            let nothing = Ask { add: BTreeSet::new(), remove: BTreeSet::new(), ..ask };
            self.requests.insert(nothing.clone());
            self.change = Some(Change { ask: nothing, before, is_asked: true });
        }
        Some(())
    }
}
