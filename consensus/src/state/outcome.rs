//! What came of a command.

use serde::{Deserialize, Serialize};
use sterna_types::{ByteSize, ClusterId, Epoch, NodeId, SnapshotName, VolumeId, VolumeName};

use super::volume::{Generation, VolumeFormat};
use crate::limits::{MAX_ROOTS_PER_COMMAND, MAX_SNAPSHOTS, MAX_SNAPSHOTS_PER_VOLUME, MAX_VOLUMES};

/// What a command that was carried out has brought.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Outcome {
    /// Done; there is nothing more to say.
    Done,
    /// A volume was made.
    Created {
        /// Its id.
        volume: VolumeId,
        /// Its first epoch.
        epoch: Epoch,
    },
    /// Roots were published, but for these.
    Published {
        /// The volumes whose roots were refused, in the command's order, and why.
        refused: Vec<(VolumeId, Refusal)>,
    },
}

/// Why a command was not carried out. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Refusal {
    /// There is a cluster already.
    #[error("this metadata belongs to cluster {cluster} already")]
    AlreadyBootstrapped {
        /// Which.
        cluster: ClusterId,
    },
    /// There is no cluster yet.
    #[error("this metadata belongs to no cluster yet: the first command is the one that begins one")]
    NotBootstrapped,
    /// No volume has this id (any more).
    #[error("there is no volume with the id {volume}")]
    NoSuchVolume {
        /// The id.
        volume: VolumeId,
    },
    /// No node has this id.
    #[error("there is no node with the id {node}")]
    NoSuchNode {
        /// The id.
        node: NodeId,
    },
    /// The volume has no snapshot of this name.
    #[error("volume {volume} has no snapshot '{name}'")]
    NoSuchSnapshot {
        /// The volume.
        volume: VolumeId,
        /// The name.
        name: SnapshotName,
    },
    /// Another volume has the name.
    #[error("there is a volume '{name}' already: choose another name")]
    VolumeNameTaken {
        /// The name.
        name: VolumeName,
        /// Whose it is.
        volume: VolumeId,
    },
    /// Another snapshot of the volume has the name.
    #[error("volume {volume} has a snapshot '{name}' already: choose another name")]
    SnapshotNameTaken {
        /// The volume.
        volume: VolumeId,
        /// The name.
        name: SnapshotName,
    },
    /// [`MAX_VOLUMES`].
    #[error("there are {MAX_VOLUMES} volumes, the most a cluster can have: delete one first")]
    TooManyVolumes,
    /// [`MAX_SNAPSHOTS_PER_VOLUME`].
    #[error("volume {volume} has {MAX_SNAPSHOTS_PER_VOLUME} snapshots, the most a volume can have: delete one first")]
    TooManySnapshotsOfVolume {
        /// The volume.
        volume: VolumeId,
    },
    /// [`MAX_SNAPSHOTS`].
    #[error("there are {MAX_SNAPSHOTS} snapshots, the most a cluster can have: delete one first")]
    TooManySnapshots,
    /// [`MAX_ROOTS_PER_COMMAND`].
    #[error("{given} roots in one command; {MAX_ROOTS_PER_COMMAND} are the most")]
    TooManyRoots {
        /// How many there were.
        given: usize,
    },
    /// All ids have been given out.
    #[error("all 2^64 ids of volumes have been given out")]
    NoIdsLeft,
    /// It has snapshots, and they were not to go with it.
    #[error("volume {volume} has {count} snapshots: delete them first, or say that they go with it")]
    HasSnapshots {
        /// The volume.
        volume: VolumeId,
        /// How many.
        count: usize,
    },
    /// Whoever asks is not the owner any more.
    #[error("volume {volume} is in epoch {current}; what was done in epoch {given} does not count")]
    WrongEpoch {
        /// The volume.
        volume: VolumeId,
        /// Of the command.
        given: Epoch,
        /// Of the volume.
        current: Epoch,
    },
    /// Something newer is known.
    #[error("generation {published} of volume {volume} is published; {given} is older")]
    OldGeneration {
        /// The volume.
        volume: VolumeId,
        /// Of the command.
        given: Generation,
        /// Of the volume.
        published: Generation,
    },
    /// One seal cannot have two roots.
    #[error("generation {generation} of volume {volume} has another root: the owner contradicts itself")]
    OtherRoot {
        /// The volume.
        volume: VolumeId,
        /// The seal.
        generation: Generation,
    },
    /// It is complete already.
    #[error("volume {volume} is not being imported")]
    NotImporting {
        /// The volume.
        volume: VolumeId,
    },
    /// It is not complete yet.
    #[error("volume {volume} is still being imported")]
    StillImporting {
        /// The volume.
        volume: VolumeId,
    },
    /// A volume only grows.
    #[error("volume {volume} has {current}; it cannot be made smaller, as {given} would")]
    WouldShrink {
        /// The volume.
        volume: VolumeId,
        /// Of the command.
        given: ByteSize,
        /// Of the volume.
        current: ByteSize,
    },
    /// A snapshot cannot be larger than its volume.
    #[error("volume {volume} has {current}; a snapshot of it cannot have {given}")]
    SnapshotTooLarge {
        /// The volume.
        volume: VolumeId,
        /// Of the command.
        given: ByteSize,
        /// Of the volume.
        current: ByteSize,
    },
    /// A clone holds all of its origin.
    #[error("what is to be cloned has {origin}; {given} are not enough for it")]
    SmallerThanOrigin {
        /// Of the command.
        given: ByteSize,
        /// Of the origin.
        origin: ByteSize,
    },
    /// A clone is written down as its origin is.
    #[error("what is to be cloned has format {origin}, not {given}")]
    OtherFormat {
        /// Of the command.
        given: VolumeFormat,
        /// Of the origin.
        origin: VolumeFormat,
    },
    /// The volume has published something else since.
    #[error("volume {volume} has published another root meanwhile: clone that, or a snapshot")]
    RootHasMoved {
        /// The volume.
        volume: VolumeId,
    },
}
