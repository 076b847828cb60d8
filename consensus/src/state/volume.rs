//! One volume and its snapshots, as the metadata knows them.
//!
//! Invariants of a [`Volume`], checked by `Metadata::check`:
//! * its id, once given, belongs to no other volume, not even after its deletion;
//! * its epoch never falls; nor does the generation of its published root, and one generation has one root;
//! * its size never falls, and no snapshot of it is larger.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sterna_types::{Epoch, NodeId, Root, SnapshotName, VolumeId, VolumeName, VolumeSize};

use super::policy::{AttachPolicy, Durability};
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
}

/// A moment, in milliseconds since 1970 (UTC). For people: nothing is decided by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct UnixTime {
    /// Milliseconds since 1970-01-01T00:00:00Z, leap seconds not counted.
    pub unix_ms: u64,
}
