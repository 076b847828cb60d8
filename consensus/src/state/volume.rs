//! One volume and its snapshots, as the metadata knows them.
//!
//! Invariants of a [`Volume`], checked by `Metadata::check`:
//! * its id, once given, belongs to no other volume, not even after its deletion;
//! * its epoch never falls; nor does the generation of its published root, and one generation has one root;
//! * its size never falls, and no snapshot of it is larger;
//! * its replicas are at other sites than its owner, each kept by a node of its site;
//! * it is handed over only when it is ready, to another node than its owner, and there is room for one more source then;
//! * its sources owned it one after the other, each in an epoch that is over;
//! * those in sync with it are of a bounded number, none of them its owner or the node that it is being handed over to, and each keeps a
//!   replica of it in mode sync whose complete contents are a state of what it is now; right after each change of its epoch there are
//!   none;
//! * its owner goes on with what it has kept of an earlier epoch only where all epochs from that one on have ended without their owners,
//!   which are one, or two where it was being handed over.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sterna_types::{ByteRate, Epoch, NodeId, Root, SiteName, SnapshotName, VolumeId, VolumeName, VolumeSize};

use super::cluster::is_default;
use super::hydration::Source;
use super::in_sync::InSyncRevision;
use super::ownership::{HandoffNumber, Ownership};
use super::policy::{AttachPolicy, DegradedPolicy, Durability};
use super::replica::{Replica, Superseded};
use super::shared_map::SharedMap;

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Volume {
    /// Its id.
    pub id: VolumeId,
    /// What people call it.
    pub name: VolumeName,
    /// Its size.
    pub size: VolumeSize,
    /// How its contents are cut and written down.
    pub format: VolumeFormat,
    /// What its flushes wait for.
    pub durability: Durability,
    /// Who may attach it where.
    pub attach: AttachPolicy,
    /// Whether it can be used.
    pub state: VolumeState,
    /// The one node that may write it.
    pub owner: NodeId,
    /// How often it has changed its owner.
    pub epoch: Epoch,
    /// The newest contents that its owners have published.
    pub published: Published,
    /// What it was made from; `None` for one that began blank or was imported.
    pub origin: Option<ClonedFrom>,
    /// Its snapshots.
    pub snapshots: SharedMap<SnapshotName, Arc<Snapshot>>,
    /// Which other sites keep it. Since version 3 of the metadata.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub replicas: BTreeMap<SiteName, Replica>,
    /// The last epochs that ended without their owners, the newest last. Since version 3 of the metadata.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub superseded: Vec<Superseded>,
    /// The last handoff of it that was begun. Since version 4 of the metadata, as what follows.
    #[serde(default, skip_serializing_if = "is_default")]
    pub last_handoff: HandoffNumber,
    /// Of a handoff that is under way, the node that is to own it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moving_to: Option<NodeId>,
    /// The nodes that have handed it over, the oldest first, until its owner has all of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<Source>,
    /// Where its owner goes on with what it has kept of an earlier epoch, as it was left there: that epoch. It has owned the volume
    /// in it, and has reclaimed it from a handoff; or, since version 5 of the metadata, it was in sync in it, and has taken over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reclaimed: Option<Epoch>,
    /// How much of it each other node fetches in a second while nobody waits for it. Since version 5 of the metadata.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<ByteRate>,
    /// What flushes do while fewer nodes are in sync than its durability asks for. Since version 5 of the metadata, as what follows.
    #[serde(default, skip_serializing_if = "is_default")]
    pub degraded: DegradedPolicy,
    /// The nodes beside its owner that hold everything which was acknowledged: see [`in_sync`](super::in_sync). Its flushes wait for
    /// each of them, whatever its durability.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub in_sync: BTreeSet<NodeId>,
    /// Counts what has happened to that set in this epoch.
    #[serde(default, skip_serializing_if = "is_default")]
    pub in_sync_revision: InSyncRevision,
}

/// A number for how a volume's contents are cut into chunks and how its map is written down. The storage engine gives it
/// its meaning; here it is only kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct VolumeFormat(pub u32);

impl fmt::Display for VolumeFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Whether a volume can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VolumeState {
    /// It is being filled from elsewhere; nobody may attach, clone or snapshot it.
    Importing,
    /// It is complete.
    Ready,
}

/// How often a volume has been sealed since it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Generation(pub u64);

impl Generation {
    /// That of the root that a volume is made with.
    pub const FIRST: Self = Self(0);
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The contents of a volume as they were after a seal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Published {
    /// Names the contents.
    pub root: Root,
    /// The seal.
    pub generation: Generation,
    /// How many blocks of data the writes had that are in it, over all of the volume's life: two states of one volume differ
    /// by at most as many blocks as these numbers do. Since version 3 of the metadata; 0 in what an earlier one published.
    #[serde(default, skip_serializing_if = "is_default")]
    pub written_blocks: u64,
    /// When it was published, by the clock of the owner; not known of what the volume was made with, or an earlier version published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<UnixTime>,
}

impl Published {
    /// These contents, of which no more is known.
    pub fn of(root: Root, generation: Generation) -> Self {
        Self { root, generation, written_blocks: 0, at: None }
    }
}

/// What a clone was made from. A record of the past: what it names may have gone since.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClonedFrom {
    /// The volume.
    pub volume: VolumeId,
    /// What that was called then.
    pub name: VolumeName,
    /// The snapshot; `None` where it was the published root.
    pub snapshot: Option<SnapshotName>,
    /// The seal that made these contents, in the life of that volume.
    pub generation: Generation,
}

/// The contents of a volume at one moment, kept under a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    /// Names the contents.
    pub root: Root,
    /// The size of the volume then.
    pub size: VolumeSize,
    /// The seal that made these contents.
    pub generation: Generation,
    /// When it was asked for, by the clock of the node that was.
    pub created: UnixTime,
    /// The nodes that hold all of it; none named: the volume's owner does, and no other. Since version 3 of the metadata.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub holders: BTreeSet<NodeId>,
}

impl Volume {
    /// Who owns it, and the handoff that is under way.
    pub fn ownership(&self) -> Ownership {
        let Self { owner, epoch, moving_to, last_handoff, .. } = *self;
        Ownership { owner, epoch, moving_to, last_handoff }
    }

    /// Notes who owns it from now on.
    pub(super) fn set_ownership(&mut self, ownership: Ownership) {
        let Ownership { owner, epoch, moving_to, last_handoff } = ownership;
        if epoch != self.epoch {
            self.reclaimed = None;
            self.in_sync.clear();
            self.in_sync_revision = InSyncRevision::default();
        }
        (self.owner, self.epoch) = (owner, epoch);
        (self.moving_to, self.last_handoff) = (moving_to, last_handoff);
    }

    /// Whether its epoch began without the owner of the one before.
    pub fn was_taken_over(&self) -> bool {
        self.superseded.last().is_some_and(|last| last.epoch.next() == self.epoch)
    }

    /// Whether a node is its owner, and goes on with what it has kept of this earlier epoch. Another node that has kept something of that
    /// epoch has it from when it owned the volume, and is superseded.
    pub fn goes_on_with(&self, node: NodeId, kept: Epoch) -> bool {
        self.owner == node && self.reclaimed == Some(kept)
    }

    /// Whether its owner can be going on with what it has kept of the epoch that is named: the ones from there on have ended without
    /// their owners.
    pub(super) fn reclaimed_is_right(&self) -> bool {
        let is_over = |left: Epoch| left.next() == self.epoch || left.next().next() == self.epoch;
        self.reclaimed.is_none_or(|left| is_over(left) && self.was_taken_over())
    }

    /// The nodes that hold all of a snapshot of this volume.
    pub fn holders<'a>(&'a self, snapshot: &'a Snapshot) -> impl Iterator<Item = NodeId> + 'a {
        let owner = snapshot.holders.is_empty().then_some(self.owner);
        snapshot.holders.iter().copied().chain(owner)
    }

    /// Whether a node holds all of a snapshot of this volume.
    pub fn is_held_by(&self, snapshot: &Snapshot, node: NodeId) -> bool {
        self.holders(snapshot).any(|holder| holder == node)
    }
}

/// A moment, in milliseconds since 1970 (UTC). For people: nothing is decided by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct UnixTime {
    /// Milliseconds since 1970-01-01T00:00:00Z, leap seconds not counted.
    pub unix_ms: u64,
}
