//! Which nodes beside its owner hold everything that a volume's flushes have acknowledged (design section 4, and
//! `docs/decisions/0031-who-is-in-sync-is-metadata.md`).
//!
//! ```text
//! epoch 1   A owns the volume; B and C keep replicas in mode sync      in sync: none
//! B holds all that A has acknowledged, and A says so                   in sync: B       A's flushes wait for B
//! C does too                                                           in sync: B, C    for B and C
//! B falls behind, and A has it taken out                               in sync: C       for C
//! A is gone, and C takes over: epoch 2 goes on with all that A had     in sync: none    superseded: epoch 1 of A
//! ```
//!
//! The metadata names who is in sync, and cannot see what they hold. That it is right is up to the owner:
//! 1. It asks for a node to be added only once that holds on its disk, on top of contents that are complete there, all that this
//!    owner has acknowledged or asked to publish, and all that the volume was when its epoch began: of a handoff's tail, too.
//! 2. It acknowledges no flush, and asks to publish no root, before each node of [`Volume::in_sync`] has on its disk what is in it, and
//!    each node which it has asked to add under the [`InSyncRevision`] of now: that request may still be carried out.
//! 3. Where it opens the volume anew in its epoch, it does not know what it has asked for. So it waits until a change that it asks for
//!    now, were it an empty one, has been carried out: what it asked for before is refused from then on.
//!
//! It looks at the metadata as it has applied it, and that may be old. So whoever is in the set holds every flush that was
//! acknowledged, whatever requests are late, lost or repeated; and every published root is a state of what it goes on with.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};
use sterna_types::{NodeId, SiteName};

use super::replica::{Replica, ReplicaMode};
use super::volume::Volume;
use crate::limits::MAX_SYNC_COPIES;

/// The most nodes that are in sync, the owner not counted.
pub const MAX_IN_SYNC: usize = MAX_SYNC_COPIES as usize - 1;

/// Counts what has happened to the set of those that are in sync within one epoch: each change that its owner asked for and that was
/// carried out, also where all were already as they were to be, and each time that somebody left the set because of its replica.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct InSyncRevision(pub u64);

impl InSyncRevision {
    /// The one after it.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for InSyncRevision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Why the set of the nodes that are in sync does not change, or why nobody takes over by it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum CannotSync {
    /// It keeps none that could be.
    #[error("node {node} keeps no complete replica in mode 'sync': it cannot be in sync")]
    NoCandidate {
        /// The node.
        node: NodeId,
    },
    /// The set has changed since the owner looked.
    #[error("revision {given} of those in sync is not the newest, which is {current}: look at who is, then ask again")]
    Outdated {
        /// Of the request.
        given: InSyncRevision,
        /// Of the volume.
        current: InSyncRevision,
    },
    /// [`MAX_IN_SYNC`].
    #[error("{given} nodes are too many to be in sync beside the owner: {MAX_IN_SYNC} are the most")]
    TooMany {
        /// How many there would be.
        given: usize,
    },
    /// One of the two.
    #[error("node {node} cannot be added and removed in one request")]
    AddedAndRemoved {
        /// The node.
        node: NodeId,
    },
    /// It may lack what was acknowledged.
    #[error(
        "node {node} is not in sync, and may lack what was acknowledged: a failover to its site says what would be lost, and takes it \
         over all the same"
    )]
    NotInSync {
        /// The node.
        node: NodeId,
    },
    /// A failover would give up what the node has beside its replica's complete contents.
    #[error(
        "site '{site}' is in sync: its node {node} takes over with all that was acknowledged, and nothing has to be given up"
    )]
    InSync {
        /// The site.
        site: SiteName,
        /// The node.
        node: NodeId,
    },
}

impl Volume {
    /// How many nodes hold each flush that is acknowledged, the owner among them. What `sync:N` asks for is
    /// [`Durability::copies`](super::policy::Durability::copies). 1 to [`MAX_SYNC_COPIES`].
    pub fn copies_in_force(&self) -> u8 {
        u8::try_from(self.in_sync.len()).map_or(u8::MAX, |members| members.saturating_add(1))
    }

    /// The nodes that may be in sync once they hold everything: those that keep a replica in mode sync.
    pub fn candidates(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.replicas.values().filter(|replica| replica.mode == ReplicaMode::Sync).map(|replica| replica.node)
    }

    /// Whether a node can be in sync: what it keeps completely is a state of what the volume is now, and what the owner sends goes on
    /// top of that. Not the node that it is being handed over to, which gives that up for what it is handed.
    pub(super) fn can_be_in_sync(&self, node: NodeId) -> bool {
        let has_a_state = |replica: &Replica| replica.complete.is_some_and(|complete| self.descends_from(&complete));
        let can_be = |replica: &Replica| replica.mode == ReplicaMode::Sync && has_a_state(replica);
        node != self.owner
            && self.moving_to != Some(node)
            && self.replicas.values().any(|replica| replica.node == node && can_be(replica))
    }

    /// Notes who is in sync from now on.
    pub(super) fn set_in_sync(&mut self, in_sync: BTreeSet<NodeId>) {
        self.in_sync = in_sync;
        self.in_sync_revision = self.in_sync_revision.next();
    }

    /// Takes those out who cannot be in sync any more, after a change of its replicas. Its owner goes on waiting for them until it knows,
    /// which does no harm; and none of them can take over any more.
    pub(super) fn leave_in_sync(&mut self) {
        let staying: BTreeSet<_> = self.in_sync.iter().copied().filter(|node| self.can_be_in_sync(*node)).collect();
        if staying != self.in_sync {
            self.set_in_sync(staying);
        }
    }

    /// Whether those who are in sync can be.
    pub(super) fn in_sync_is_right(&self) -> bool {
        self.in_sync.len() <= MAX_IN_SYNC && self.in_sync.iter().all(|node| self.can_be_in_sync(*node))
    }
}
