//! What can happen, and what becomes of it.
//!
//! Taken for granted, and shown by [`super::clocks`]: when the metadata says that a session has lapsed, the lease of its node is
//! over, and no answer that is still on its way prolongs it.

use std::fmt;

use sterna_consensus::handoff::Pledge;
use sterna_consensus::state::session::{Session, SessionLength, SessionState};
use sterna_types::NodeId;

use super::volume::{At, Bounds, Contents, Message, Node, Resumed, State, View, Writes};

/// One thing that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// A node's process is killed.
    Crash(At),
    /// It is started again.
    Start(At),
    /// A node asks for a session.
    AskForSession(At),
    /// A renewal arrives at the metadata; nodes send them all the time.
    Renew(At),
    /// A node hears what came of its renewal, or of its question for a session.
    Hear(At),
    /// A node applies what the metadata has decided.
    Learn(At),
    /// A node has not renewed its session for so long that it has lapsed.
    Lapse(At),
    /// A message arrives; it may again.
    Deliver(Message),
    /// The owner asks for a handoff.
    Begin(At, At),
    /// It stops, and releases the volume.
    Release(At),
    /// It aborts instead.
    Abort(At),
    /// The node where it was to go declines.
    Decline(At),
    /// Somebody has a node take over what is owned in the epoch that it knows of.
    TakeOver(At),
    /// A client writes, and that is acknowledged.
    Write(At),
    /// A node that serves the volume publishes what it has.
    Publish(At),
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Crash(at) => write!(f, "{at} is killed"),
            Self::Start(at) => write!(f, "{at} starts"),
            Self::AskForSession(at) => write!(f, "{at} asks for a session"),
            Self::Renew(at) => write!(f, "a renewal of {at} arrives"),
            Self::Hear(at) => write!(f, "{at} hears that it has a session"),
            Self::Learn(at) => write!(f, "{at} learns how the metadata is"),
            Self::Lapse(at) => write!(f, "the session of {at} lapses"),
            Self::Deliver(message) => write!(f, "arrives: {message}"),
            Self::Begin(at, to) => write!(f, "{at} asks for a handoff to {to}"),
            Self::Release(at) => write!(f, "{at} releases the volume"),
            Self::Abort(at) => write!(f, "{at} aborts the handoff"),
            Self::Decline(at) => write!(f, "{at} declines the handoff"),
            Self::TakeOver(at) => write!(f, "a failover to {at}"),
            Self::Write(at) => write!(f, "{at} acknowledges a write"),
            Self::Publish(at) => write!(f, "{at} publishes what it has"),
        }
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(at, request) => write!(f, "{at} wants a session (request {request})"),
            Self::Begin(at, handoff, to) => write!(f, "{at} begins handoff {} to {to}", handoff.0),
            Self::Commit(at, handoff) => write!(f, "{at} commits handoff {}", handoff.0),
            Self::Abort(at, handoff) => write!(f, "{at} aborts handoff {}", handoff.0),
            Self::Decline(at, handoff) => write!(f, "{at} declines handoff {}", handoff.0),
            Self::Publish(epoch, writes) => write!(f, "{} writes are published in epoch {epoch}", writes.count()),
            Self::Release(to, handoff, writes) => {
                write!(f, "handoff {} is released to {to}, with {} writes", handoff.0, writes.count())
            }
        }
    }
}

/// All that can happen in a state.
pub fn actions(state: &State, bounds: &Bounds) -> Vec<Action> {
    let spent = &state.spent;
    let mut actions: Vec<_> = state.messages.iter().copied().map(Action::Deliver).collect();
    for at in At::all() {
        let node = state.node(at);
        if !node.is_up {
            actions.push(Action::Start(at));
            if spent.lapses < bounds.lapses {
                actions.push(Action::Lapse(at));
            }
            continue;
        }
        actions.extend([Action::Renew(at), Action::Hear(at), Action::Learn(at)]);
        actions.extend([Action::Release(at), Action::Abort(at), Action::Decline(at)]);
        let limited = [
            (spent.crashes < bounds.crashes, Action::Crash(at)),
            (spent.opens[at.index()] < bounds.opens, Action::AskForSession(at)),
            (spent.lapses < bounds.lapses, Action::Lapse(at)),
            (spent.takeovers < bounds.takeovers, Action::TakeOver(at)),
            (state.history.acknowledged.count() < bounds.writes, Action::Write(at)),
            (spent.publications < bounds.publications, Action::Publish(at)),
        ];
        actions.extend(limited.iter().filter(|(may, _)| *may).map(|(_, action)| *action));
        if spent.handoffs < bounds.handoffs {
            // Until something has come of the first, the second node and the third are in no way different.
            let to = At::all().filter(|to| *to != at && (spent.handoffs > 0 || at != At(0) || *to == At(1)));
            actions.extend(to.map(|to| Action::Begin(at, to)));
        }
    }
    actions
}

/// What becomes of a state; `None` where nothing does.
pub fn next(state: &State, action: Action) -> Option<State> {
    let mut next = state.clone();
    next.take(action)?;
    (next != *state).then_some(next)
}

impl State {
    /// `None` where it cannot happen.
    fn take(&mut self, action: Action) -> Option<()> {
        match action {
            Action::Crash(at) => self.crash(at),
            Action::Start(at) => self.node_mut(at).is_up = true,
            Action::AskForSession(at) => self.ask_for_session(at)?,
            Action::Renew(at) => self.renew(at)?,
            Action::Hear(at) => self.hear(at)?,
            Action::Learn(at) => self.learn(at, self.newest()),
            Action::Lapse(at) => self.lapse(at)?,
            Action::Deliver(message) => self.deliver(message)?,
            Action::Begin(at, to) => self.begin(at, to)?,
            Action::Release(at) => self.release(at)?,
            Action::Abort(at) => {
                let pledge = self.holder(at).may_abort(&self.node(at).view.ownership)?;
                self.promise(at, pledge, Message::Abort(at, pledge.handoff));
            }
            Action::Decline(at) => {
                let pledge = self.holder(at).may_decline(&self.node(at).view.ownership)?;
                self.promise(at, pledge, Message::Decline(at, pledge.handoff));
            }
            Action::TakeOver(at) => {
                self.take_over(at, self.node(at).view.ownership.epoch)?;
                self.spent.takeovers += 1;
            }
            Action::Write(at) => self.write(at)?,
            Action::Publish(at) => {
                let epoch = self.serves(at)?;
                self.spent.publications += 1;
                self.messages.insert(Message::Publish(epoch, self.node(at).contents.writes));
            }
        }
        Some(())
    }

    /// All that its process knew is gone; what is on its disk is not, but for what it had applied of the metadata: that may have to
    /// be applied again.
    fn crash(&mut self, at: At) {
        self.spent.crashes += 1;
        let node = self.node_mut(at);
        *node = Node {
            is_up: false,
            session: None,
            is_waiting: false,
            has_lease: false,
            answer: None,
            view: View::FIRST,
            pledge: node.pledge,
            contents: node.contents,
        };
    }

    fn ask_for_session(&mut self, at: At) -> Option<()> {
        let node = self.node_mut(at);
        if node.session.is_some() {
            return None;
        }
        node.is_waiting = true;
        let asked = &mut self.spent.opens[at.index()];
        *asked += 1;
        let request = *asked;
        self.messages.insert(Message::Open(at, request));
        Some(())
    }

    fn open(&mut self, at: At, request: u8) -> Option<()> {
        let opened = &mut self.metadata.opened[at.index()];
        if *opened & 1 << request != 0 {
            return None;
        }
        *opened |= 1 << request;
        let session = Session::open(self.metadata.sessions[at.index()], SessionLength::DEFAULT);
        self.change_session(at, session);
        let newest = self.newest();
        let is_newest = request == self.spent.opens[at.index()];
        let node = self.node_mut(at);
        if node.is_waiting && is_newest {
            node.answer = Some((session.number, newest));
        }
        Some(())
    }

    /// While its lease lasts, a renewal brings nothing that learning does not.
    fn renew(&mut self, at: At) -> Option<()> {
        let (own, session) = (self.node(at).session?, self.metadata.sessions[at.index()]?);
        if self.node(at).has_lease {
            return None;
        }
        match session.renew(SessionLength::DEFAULT) {
            Ok(renewed) if session.number == own => {
                // How often it was renewed is in the model of clocks.
                self.change_session(at, Session { renewals: session.renewals, ..renewed });
                let newest = self.newest();
                self.node_mut(at).answer = Some((own, newest));
            }
            // It hears that it is over.
            _ => {
                let node = self.node_mut(at);
                (node.session, node.has_lease) = (None, false);
            }
        }
        Some(())
    }

    /// A renewal counts for a node only once that node has applied the log up to it.
    fn hear(&mut self, at: At) -> Option<()> {
        let node = self.node_mut(at);
        let (session, view) = node.answer.take()?;
        (node.session, node.is_waiting, node.has_lease) = (Some(session), false, true);
        self.learn(at, view);
        Some(())
    }

    fn lapse(&mut self, at: At) -> Option<()> {
        let session = self.metadata.sessions[at.index()].filter(Session::is_live)?;
        let ended = session.end(SessionState::Lapsed, Some(session.renewals)).ok()?;
        self.change_session(at, ended);
        self.spent.lapses += 1;
        let node = self.node_mut(at);
        node.has_lease = false;
        // Whichever session it is about: what was asked for before the newest one was opened is older still.
        node.answer = None;
        Some(())
    }

    /// A node applies what is decided. Where a failover has made it the owner, it goes on with what that fell back to.
    fn learn(&mut self, at: At, view: View) {
        let node = self.node_mut(at);
        let view = node.view.or_later(view);
        node.view = view;
        let epoch = view.ownership.epoch;
        if view.ownership.owner == at.id() && node.contents.epoch < epoch {
            let resumed = view.resumed.filter(|resumed| resumed.epoch == epoch);
            let writes = resumed.map_or(node.contents.writes, |resumed| resumed.writes);
            node.contents = Contents { epoch, writes };
        }
    }

    fn begin(&mut self, at: At, to: At) -> Option<()> {
        self.serves(at)?;
        let ownership = self.node(at).view.ownership;
        if ownership.owner != at.id() || ownership.moving_to.is_some() {
            return None;
        }
        self.spent.handoffs += 1;
        self.messages.insert(Message::Begin(at, ownership.last_handoff.next(), to));
        Some(())
    }

    fn release(&mut self, at: At) -> Option<()> {
        let view = self.node(at).view.ownership;
        let pledge = self.holder(at).may_release(&view)?;
        let to = At::of(view.moving_to?);
        self.promise(at, pledge, Message::Release(to, pledge.handoff, self.node(at).contents.writes));
        Some(())
    }

    /// Makes a pledge durable, and then sends what it allows.
    fn promise(&mut self, at: At, pledge: Pledge, message: Message) {
        self.node_mut(at).pledge = Some(pledge);
        self.messages.insert(message);
    }

    fn write(&mut self, at: At) -> Option<()> {
        let epoch = self.serves(at)?;
        let new = Writes(1 << self.history.acknowledged.count());
        let contents = &mut self.node_mut(at).contents;
        contents.writes = contents.writes.with(new);
        self.history.acknowledged = self.history.acknowledged.with(new);
        let place = usize::try_from(epoch.number() - 1).ok()?;
        let writers = self.history.writers.get_mut(place)?;
        *writers = writers.with(at);
        Some(())
    }

    fn deliver(&mut self, message: Message) -> Option<()> {
        let before = self.metadata.ownership;
        let ownership = &mut self.metadata.ownership;
        match message {
            Message::Open(at, request) => self.open(at, request)?,
            Message::Begin(at, handoff, to) => ownership.begin(at.id(), handoff, to.id()).ok()?,
            Message::Commit(at, handoff) => ownership.commit(at.id(), handoff).ok()?,
            Message::Abort(at, handoff) => ownership.abort(at.id(), handoff).ok()?,
            Message::Decline(at, handoff) => ownership.decline(at.id(), handoff).ok()?,
            Message::Publish(epoch, writes) => {
                ownership.check_epoch(epoch).ok()?;
                // Generations rise: what is older than what is published is refused.
                if !writes.has(self.metadata.published) {
                    return None;
                }
                self.metadata.published = writes;
            }
            Message::Release(to, handoff, writes) => self.receive(to, handoff, writes)?,
        }
        let after = self.metadata.ownership;
        self.history.has_fallen |= after.epoch < before.epoch || after.last_handoff < before.last_handoff;
        Some(())
    }

    fn take_over(&mut self, heir: At, epoch: sterna_types::Epoch) -> Option<()> {
        let sessions = self.metadata.sessions;
        let session = |node: NodeId| sessions[At::of(node).index()];
        session(heir.id()).filter(Session::is_live)?;
        let is_over = |node: NodeId| session(node).is_some_and(|session| !session.is_live());
        let former = self.metadata.ownership.owner;
        self.metadata.ownership.take_over(epoch, heir.id(), is_over).ok()?;
        // An owner that takes its volume back has all that it ever had; any other node has what was published.
        let goes_on_with = if former == heir.id() { self.node(heir).contents.writes } else { self.metadata.published };
        let begun = self.metadata.ownership.epoch;
        self.metadata.resumed = (former != heir.id()).then_some(Resumed { epoch: begun, writes: goes_on_with });
        self.metadata.published = goes_on_with;
        self.history.lost = self.history.lost.with(self.history.acknowledged.without(goes_on_with));
        Some(())
    }

    fn receive(
        &mut self,
        to: At,
        handoff: sterna_consensus::state::ownership::HandoffNumber,
        writes: Writes,
    ) -> Option<()> {
        let node = self.node(to);
        if !node.is_up || !node.has_lease {
            return None;
        }
        let view = node.view.ownership;
        let pledge = self.holder(to).receive(&view, handoff)?;
        // It was received already: what was written since stays.
        if node.pledge != Some(pledge) {
            let epoch = view.epoch.next();
            self.node_mut(to).contents = Contents { epoch, writes };
        }
        self.promise(to, pledge, Message::Commit(to, handoff));
        Some(())
    }

    fn change_session(&mut self, at: At, session: Session) {
        let known = &mut self.metadata.sessions[at.index()];
        self.history.has_fallen |= known.is_some_and(|known| session.number < known.number);
        *known = Some(session);
    }

    fn node_mut(&mut self, at: At) -> &mut Node {
        &mut self.nodes[at.index()]
    }
}
