//! Why a command was not carried out.

use serde::{Deserialize, Serialize};
use sterna_types::{
    ByteSize, ClusterId, Epoch, NodeId, NodeName, SiteName, SnapshotName, TokenId, VolumeId, VolumeName,
};

use super::cluster::MetadataVersion;
use super::in_sync::CannotSync;
use super::layout::LayoutRevision;
use super::ownership::CannotPass;
use super::session::SessionNumber;
use super::volume::{Generation, VolumeFormat};
use crate::limits::{
    MAX_NODES, MAX_REPLICAS, MAX_ROOTS_PER_COMMAND, MAX_SITES, MAX_SNAPSHOTS, MAX_SNAPSHOTS_PER_VOLUME, MAX_SOURCES,
    MAX_STAGED_CHANGES, MAX_TOKENS, MAX_VOLUMES, MAX_VOLUMES_PER_HANDOFF, MAX_VOTERS,
};

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
    /// The cluster's metadata is older than the command.
    #[error(
        "this takes version {required} of the metadata, and the cluster uses {current}: all nodes have to run a newer program first"
    )]
    NeedsVersion {
        /// Of the command.
        required: MetadataVersion,
        /// Of the cluster.
        current: MetadataVersion,
    },
    /// No program that carries this out knows it.
    #[error("version {version} of the metadata is not known")]
    UnknownVersion {
        /// Which.
        version: MetadataVersion,
    },
    /// A node understands less than it has to.
    #[error(
        "node {node} knows version {knows} of the metadata, and {required} is needed: give it a newer program first"
    )]
    ProgramTooOld {
        /// The node.
        node: NodeId,
        /// What it understands.
        knows: MetadataVersion,
        /// What it has to.
        required: MetadataVersion,
    },
    /// A node that wants to join understands less than it has to.
    #[error(
        "the new node knows version {knows} of the metadata, and the cluster uses {required}: give it a newer program"
    )]
    NewcomerTooOld {
        /// What it understands.
        knows: MetadataVersion,
        /// What it has to.
        required: MetadataVersion,
    },
    /// There is a token of this id.
    #[error("there is a token {token} already")]
    TokenTaken {
        /// The id.
        token: TokenId,
    },
    /// [`MAX_TOKENS`].
    #[error("there are {MAX_TOKENS} tokens that have not expired: revoke some first")]
    TooManyTokens,
    /// There is no such token, or its secret is another one.
    #[error("there is no token {token} with this secret: ask for a new one with 'sterna cluster token create'")]
    NoSuchToken {
        /// The id.
        token: TokenId,
    },
    /// It is too late.
    #[error("token {token} has expired: ask for a new one with 'sterna cluster token create'")]
    TokenExpired {
        /// The id.
        token: TokenId,
    },
    /// It lets in one node only.
    #[error("token {token} was used by node {node}: ask for a new one with 'sterna cluster token create'")]
    TokenUsed {
        /// The id.
        token: TokenId,
        /// By whom.
        node: NodeId,
    },
    /// It is for another site.
    #[error("token {token} lets a node in at site '{site}' only")]
    TokenForOtherSite {
        /// The id.
        token: TokenId,
        /// The site that it is for.
        site: SiteName,
    },
    /// Another node has the name.
    #[error("there is a node '{name}' already: choose another name with --name")]
    NodeNameTaken {
        /// The name.
        name: NodeName,
    },
    /// [`MAX_NODES`] or [`MAX_SITES`].
    #[error("there are as many nodes or sites as a cluster can have: {MAX_NODES} and {MAX_SITES}")]
    TooManyNodes,
    /// Its session has ended, and cannot go on.
    #[error("session {number} of node {node} has lapsed")]
    SessionLapsed {
        /// The node.
        node: NodeId,
        /// The session.
        number: SessionNumber,
    },
    /// It was renewed meanwhile.
    #[error("session {number} of node {node} was renewed")]
    SessionRenewed {
        /// The node.
        node: NodeId,
        /// The session.
        number: SessionNumber,
    },
    /// The node has opened another one.
    #[error("session {given} of node {node} is over: {current} is its newest")]
    OtherSession {
        /// The node.
        node: NodeId,
        /// Of the command.
        given: SessionNumber,
        /// Of the node.
        current: SessionNumber,
    },
    /// The node has none.
    #[error("node {node} has no session: it is not running, or cut off")]
    NoSession {
        /// The node.
        node: NodeId,
    },
    /// [`MAX_STAGED_CHANGES`].
    #[error("{MAX_STAGED_CHANGES} changes are staged: apply or discard them first")]
    TooManyChanges,
    /// Somebody else was at work.
    #[error("revision {given} of the layout is not the newest, which is {current}: look at it, then apply that")]
    LayoutHasChanged {
        /// Of the command.
        given: LayoutRevision,
        /// Of the layout.
        current: LayoutRevision,
    },
    /// Nobody would decide.
    #[error("no voter would be left")]
    NoVoters,
    /// [`MAX_VOTERS`].
    #[error("there would be more than {MAX_VOTERS} voters")]
    TooManyVoters,
    /// A node cannot take its own place.
    #[error("node {node} cannot replace itself: a node that lost its disk joins anew, under another id")]
    ReplacesItself {
        /// The node.
        node: NodeId,
    },
    /// Who goes may own nothing.
    #[error("node {node} owns {count} volumes: move them to other nodes first, or delete them")]
    OwnsVolumes {
        /// The node.
        node: NodeId,
        /// How many.
        count: usize,
    },
    /// It is given nothing more.
    #[error("node {node} is draining: give the volume to another one, or undrain it")]
    Draining {
        /// The node.
        node: NodeId,
    },
    /// There is no such site.
    #[error("there is no site '{site}': 'sterna cluster status' lists them")]
    NoSuchSite {
        /// Its name.
        site: SiteName,
    },
    /// Within a site there is no link.
    #[error("from site '{site}' to itself there is no link: give two sites")]
    NoLink {
        /// The site.
        site: SiteName,
    },
    /// What the site of the owner keeps is the volume itself.
    #[error("site '{site}' is where the owner of volume {volume} is: a replica is at another one")]
    ReplicaAtOwner {
        /// The volume.
        volume: VolumeId,
        /// The site.
        site: SiteName,
    },
    /// [`MAX_REPLICAS`].
    #[error("volume {volume} has {MAX_REPLICAS} replicas, the most a volume can have: unset one first")]
    TooManyReplicas {
        /// The volume.
        volume: VolumeId,
    },
    /// The site does not keep the volume.
    #[error("site '{site}' keeps no replica of volume {volume}: 'sterna volume replica' makes one")]
    NoReplica {
        /// The volume.
        volume: VolumeId,
        /// The site.
        site: SiteName,
    },
    /// The node does not keep the volume.
    #[error("node {node} keeps no replica of volume {volume}")]
    KeepsNoReplica {
        /// The volume.
        volume: VolumeId,
        /// The node.
        node: NodeId,
    },
    /// Nothing could be gone on with.
    #[error("the replica of volume {volume} at site '{site}' has never been complete: there is nothing to go on with")]
    ReplicaIncomplete {
        /// The volume.
        volume: VolumeId,
        /// The site.
        site: SiteName,
    },
    /// Something else would be lost than was looked at.
    #[error(
        "the replica of volume {volume} at site '{site}' has come further meanwhile: look again at what would be lost"
    )]
    ReplicaHasMoved {
        /// The volume.
        volume: VolumeId,
        /// The site.
        site: SiteName,
    },
    /// More would be lost than was looked at.
    #[error("more of volume {volume} has been published meanwhile: look again at what would be lost")]
    PublishedHasMoved {
        /// The volume.
        volume: VolumeId,
    },
    /// What it has was reported as lost.
    #[error(
        "the replica of volume {volume} at site '{site}' has what an earlier failover gave up, and nothing newer: it is no state \
         of the volume any more"
    )]
    ReplicaGivenUp {
        /// The volume.
        volume: VolumeId,
        /// The site.
        site: SiteName,
    },
    /// Its owner goes on with it.
    #[error("epoch {epoch} of volume {volume} is not over")]
    EpochNotOver {
        /// The volume.
        volume: VolumeId,
        /// The epoch.
        epoch: Epoch,
    },
    /// A node that is being given volumes, or has what their owners lack, has to stay.
    #[error(
        "{count} volumes are being handed over to node {node}, or their owners still fetch from it what they lack: wait until they \
         have it, or delete them"
    )]
    HandsVolumesOver {
        /// The node.
        node: NodeId,
        /// How many.
        count: usize,
    },
    /// Who goes may keep no copies.
    #[error("node {node} keeps replicas of {count} volumes: unset them first, or replace the node")]
    KeepsReplicas {
        /// The node.
        node: NodeId,
        /// How many.
        count: usize,
    },
    /// Who goes may not have the only copy of anything.
    #[error("node {node} has the only copies of {count} snapshots: take them elsewhere first, or delete them")]
    HoldsSnapshots {
        /// The node.
        node: NodeId,
        /// How many.
        count: usize,
    },
    /// Its owner may still acknowledge writes, or the node that it is being handed over to.
    #[error(
        "the session of node {owner}, which owns volume {volume} or is being given it, has not lapsed: it may still be serving"
    )]
    OwnerLives {
        /// The volume.
        volume: VolumeId,
        /// Who.
        owner: NodeId,
    },
    /// Its ownership does not pass on so.
    #[error("volume {volume}: {why}")]
    CannotPass {
        /// The volume.
        volume: VolumeId,
        /// Why not.
        why: CannotPass,
    },
    /// Those in sync with it stay as they are, or nobody takes over by being one.
    #[error("volume {volume}: {why}")]
    CannotSync {
        /// The volume.
        volume: VolumeId,
        /// Why.
        why: CannotSync,
    },
    /// One to [`MAX_VOLUMES_PER_HANDOFF`].
    #[error("{given} volumes in one request; handoffs are of 1 to {MAX_VOLUMES_PER_HANDOFF} volumes each")]
    VolumesOfHandoff {
        /// How many there were.
        given: usize,
    },
    /// Once is enough.
    #[error("volume {volume} is named twice")]
    NamedTwice {
        /// The volume.
        volume: VolumeId,
    },
    /// [`MAX_SOURCES`].
    #[error(
        "volume {volume} was handed over {MAX_SOURCES} times before an owner of it had fetched everything: wait until this one has"
    )]
    TooManySources {
        /// The volume.
        volume: VolumeId,
    },
}

impl Refusal {
    /// Says why the ownership of a volume does not pass on.
    pub(super) fn passing(volume: VolumeId, why: CannotPass) -> Self {
        match why {
            CannotPass::WrongEpoch { given, current } => Self::WrongEpoch { volume, given, current },
            CannotPass::Lives { node } => Self::OwnerLives { volume, owner: node },
            why => Self::CannotPass { volume, why },
        }
    }
}
