//! One volume, three nodes that may own it, the metadata, and all that was ever sent.
//!
//! What is not in it, because it changes nothing here: how often a session was renewed (a lapse that comes too late is in
//! [`super::clocks`]), and the order of writes (only which there are).

use std::array;
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use sterna_consensus::handoff::{Holder, Pledge};
use sterna_consensus::state::ownership::{HandoffNumber, Ownership};
use sterna_consensus::state::session::{Session, SessionLength, SessionNumber};
use sterna_types::{Epoch, NodeId};

/// How many nodes there are: two of a handoff, and a third that takes over.
pub const NODES: usize = 3;

/// A node, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct At(pub u8);

impl At {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        [Self(0), Self(1), Self(2)].into_iter()
    }

    /// Its place among others.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }

    /// As the metadata calls it.
    pub fn id(self) -> NodeId {
        NodeId(u64::from(self.0) + 1)
    }

    /// The node of this id.
    pub fn of(id: NodeId) -> Self {
        Self(u8::try_from(id.0 - 1).unwrap_or(u8::MAX))
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(["A", "B", "C"][self.index()])
    }
}

/// A set of nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Nodes(u8);

impl Nodes {
    /// These, and one more.
    #[must_use]
    pub fn with(self, at: At) -> Self {
        Self(self.0 | 1 << at.0)
    }

    /// How many.
    pub fn count(self) -> u32 {
        self.0.count_ones()
    }
}

/// A set of writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Writes(pub u8);

impl Writes {
    /// These, and one that nobody has made yet, out of all that were ever made.
    #[must_use]
    pub fn with(self, new: Self) -> Self {
        Self(self.0 | new.0)
    }

    /// Those that are not among `others`.
    #[must_use]
    pub fn without(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    /// Whether all of `others` are among them.
    pub fn has(self, others: Self) -> bool {
        others.without(self) == Self::default()
    }

    /// How many.
    pub fn count(self) -> u32 {
        self.0.count_ones()
    }
}

/// All there is at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// The metadata.
    pub metadata: Service,
    /// The nodes.
    pub nodes: [Node; NODES],
    /// All that was ever sent. It may arrive at any time, any number of times, and never.
    pub messages: BTreeSet<Message>,
    /// What nobody in the system knows, and the properties are about.
    pub history: History,
    /// What has happened of what happens a limited number of times.
    pub spent: Spent,
}

/// The metadata, of one volume: what Raft has decided. It is late and loses messages, and is never wrong.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Service {
    /// Who owns the volume.
    pub ownership: Ownership,
    /// The newest session of each node.
    pub sessions: [Option<Session>; NODES],
    /// The requests for a session that were carried out, by node, as bits: none is carried out twice.
    pub opened: [u8; NODES],
    /// What its owners have published.
    pub published: Writes,
    /// What the epoch began with, where a failover began it at another node than its owner's.
    pub resumed: Option<Resumed>,
}

/// What an epoch began with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Resumed {
    /// Which.
    pub epoch: Epoch,
    /// What was published then.
    pub writes: Writes,
}

/// What a node knows of the metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct View {
    /// Who owns the volume.
    pub ownership: Ownership,
    /// What the epoch began with.
    pub resumed: Option<Resumed>,
}

impl View {
    /// The first node owns the volume.
    pub const FIRST: Self = Self {
        ownership: Ownership {
            owner: NodeId::FIRST,
            epoch: Epoch::FIRST,
            moving_to: None,
            last_handoff: HandoffNumber::NONE,
        },
        resumed: None,
    };

    /// What comes later has a greater one: epochs rise, handoffs are counted, and each ends after it has begun.
    fn age(&self) -> (Epoch, HandoffNumber, bool) {
        let Ownership { epoch, last_handoff, moving_to, .. } = self.ownership;
        (epoch, last_handoff, moving_to.is_none())
    }

    /// The later one.
    #[must_use]
    pub fn or_later(self, other: Self) -> Self {
        if other.age() > self.age() { other } else { self }
    }
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Node {
    /// Whether its process runs. What follows until the view is gone when it does not.
    pub is_up: bool,
    /// The session that it renews.
    pub session: Option<SessionNumber>,
    /// Whether it waits for a session that it has asked for.
    pub is_waiting: bool,
    /// Whether its lease lasts.
    pub has_lease: bool,
    /// A renewal, or a session, whose answer is on its way: it has applied the log up to this when it hears of it.
    pub answer: Option<(SessionNumber, View)>,
    /// What it has applied of the metadata.
    pub view: View,
    /// What it has promised; on its disk.
    pub pledge: Option<Pledge>,
    /// What it holds of the volume; on its disk.
    pub contents: Contents,
}

/// What a node holds of a volume, and the epoch that it has it of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Contents {
    /// Of which epoch.
    pub epoch: Epoch,
    /// What.
    pub writes: Writes,
}

/// Something that was sent: to the metadata, but for a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Message {
    /// A node asks for a session, for the so manyth time.
    Open(At, u8),
    /// The owner begins a handoff to another node.
    Begin(At, HandoffNumber, At),
    /// The node that serves a volume since it was released to it owns it.
    Commit(At, HandoffNumber),
    /// The owner ends a handoff.
    Abort(At, HandoffNumber),
    /// The node where it was to go ends a handoff.
    Decline(At, HandoffNumber),
    /// A node publishes what it has.
    Publish(Epoch, Writes),
    /// To a node: a volume is released to it, with all that was written.
    Release(At, HandoffNumber, Writes),
}

/// What was acknowledged, and what a failover has said is lost.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct History {
    /// All writes that were acknowledged.
    pub acknowledged: Writes,
    /// Those that failovers have reported as lost.
    pub lost: Writes,
    /// The node that has acknowledged writes in each epoch, from the first.
    pub writers: [Nodes; EPOCHS],
    /// Whether an epoch, a handoff or a session number has ever fallen.
    pub has_fallen: bool,
}

/// More epochs than any bounds allow: a failover may begin two, and a handoff one.
pub const EPOCHS: usize = 3 * MOST_OF_ANYTHING as usize;
/// Of each thing that [`Bounds`] limits, there are fewer.
const MOST_OF_ANYTHING: u8 = 8;

/// How often things have happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Spent {
    /// Processes that were killed.
    pub crashes: u8,
    /// Sessions that were asked for, by node.
    pub opens: [u8; NODES],
    /// Sessions that lapsed.
    pub lapses: u8,
    /// Handoffs that were asked for.
    pub handoffs: u8,
    /// Failovers that were asked for.
    pub takeovers: u8,
    /// Publications.
    pub publications: u8,
}

/// How often things may happen: what makes the states finite. As text, `crashes=1,handoffs=2`; what is not named does not happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Processes that are killed.
    pub crashes: u8,
    /// Sessions that each node asks for.
    pub opens: u8,
    /// Sessions that lapse.
    pub lapses: u8,
    /// Handoffs that are asked for.
    pub handoffs: u8,
    /// Failovers that are asked for.
    pub takeovers: u8,
    /// Writes.
    pub writes: u32,
    /// Publications.
    pub publications: u8,
}

/// A text is not [`Bounds`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{text}' is no bound: it takes NAME=COUNT with crashes, opens, lapses, handoffs, takeovers, writes or publications"
)]
pub struct InvalidBounds {
    /// What was given.
    pub text: String,
}

impl FromStr for Bounds {
    type Err = InvalidBounds;

    fn from_str(text: &str) -> Result<Self, InvalidBounds> {
        let mut bounds = Self::default();
        for part in text.split(',') {
            let invalid = || InvalidBounds { text: part.to_owned() };
            let (name, count) = part.split_once('=').ok_or_else(invalid)?;
            // As many writes as there are bits for them, and fewer epochs than there is room for.
            let count = count.parse().ok().filter(|count| *count < MOST_OF_ANYTHING).ok_or_else(invalid)?;
            match name {
                "crashes" => bounds.crashes = count,
                "opens" => bounds.opens = count,
                "lapses" => bounds.lapses = count,
                "handoffs" => bounds.handoffs = count,
                "takeovers" => bounds.takeovers = count,
                "writes" => bounds.writes = count.into(),
                "publications" => bounds.publications = count,
                _ => return Err(invalid()),
            }
        }
        Ok(bounds)
    }
}

impl fmt::Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { crashes, opens, lapses, handoffs, takeovers, writes, publications } = self;
        write!(f, "handoffs={handoffs},takeovers={takeovers},crashes={crashes},lapses={lapses},opens={opens},")?;
        write!(f, "writes={writes},publications={publications}")
    }
}

impl State {
    /// The first node owns the volume and has a session, and so has every other.
    pub fn begun() -> Self {
        let session = Session::open(None, SessionLength::DEFAULT);
        let node = Node {
            is_up: true,
            session: Some(session.number),
            is_waiting: false,
            has_lease: true,
            answer: None,
            view: View::FIRST,
            pledge: None,
            contents: Contents { epoch: Epoch::FIRST, writes: Writes::default() },
        };
        let metadata = Service {
            ownership: View::FIRST.ownership,
            sessions: [Some(session); NODES],
            opened: [0; NODES],
            published: Writes::default(),
            resumed: None,
        };
        let history = History {
            acknowledged: Writes::default(),
            lost: Writes::default(),
            writers: [Nodes::default(); EPOCHS],
            has_fallen: false,
        };
        let nodes = array::from_fn(|_| node.clone());
        Self { metadata, nodes, messages: BTreeSet::new(), history, spent: Spent::default() }
    }

    /// What a node that has applied all of the metadata knows.
    pub fn newest(&self) -> View {
        View { ownership: self.metadata.ownership, resumed: self.metadata.resumed }
    }

    /// A node.
    pub fn node(&self, at: At) -> &Node {
        &self.nodes[at.index()]
    }

    /// The epoch in which a node acknowledges what clients ask for; `None` where it does not.
    pub fn serves(&self, at: At) -> Option<Epoch> {
        let node = self.node(at);
        if node.is_up && node.has_lease { self.holder(at).serves(&node.view.ownership) } else { None }
    }

    /// A node's part in the ownership.
    pub fn holder(&self, at: At) -> Holder {
        Holder { node: at.id(), pledge: self.node(at).pledge }
    }
}
