//! Which nodes decide, which are on their way out, and changes of that which were prepared but not yet made.
//!
//! Changes are staged one by one, shown together, and made together: [`Layout::revision`] counts everything that happens to
//! the layout, and whoever applies the staged changes names the revision that was shown. So what is applied is what was
//! seen, whoever else was at work meanwhile.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};
use sterna_types::NodeId;

/// The voters, and what is staged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layout {
    /// Counts what has happened to it.
    pub revision: LayoutRevision,
    /// The nodes that are to vote; all others listen. Raft's own members follow.
    pub voters: BTreeSet<NodeId>,
    /// The nodes that are to be given nothing more to own.
    pub draining: BTreeSet<NodeId>,
    /// What is to be changed once it is applied, in this order.
    pub staged: Vec<NodeChange>,
}

/// A number that grows with everything that happens to a [`Layout`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct LayoutRevision(pub u64);

impl fmt::Display for LayoutRevision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// One change of what a node is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum NodeChange {
    /// It votes.
    Promote(NodeId),
    /// It listens.
    Demote(NodeId),
    /// It is given no more volumes.
    Drain(NodeId),
    /// It is again.
    Undrain(NodeId),
    /// It goes for good; its id is never given out again. It may own nothing.
    Remove(NodeId),
    /// The first goes for good, and the second has its voice, if it had one: for a node that lost its disk.
    Replace(NodeId, NodeId),
}

impl Default for Layout {
    /// That of a cluster which has never had more than its first node.
    fn default() -> Self {
        Self {
            revision: LayoutRevision::default(),
            voters: BTreeSet::from([NodeId::FIRST]),
            draining: BTreeSet::new(),
            staged: Vec::new(),
        }
    }
}

impl NodeChange {
    /// The nodes that it is about.
    pub fn nodes(self) -> impl Iterator<Item = NodeId> {
        let (first, second) = match self {
            Self::Promote(node) | Self::Demote(node) | Self::Drain(node) | Self::Undrain(node) | Self::Remove(node) => {
                (node, None)
            }
            Self::Replace(old, new) => (old, Some(new)),
        };
        std::iter::once(first).chain(second)
    }
}
