//! What can be asked of the metadata. A command holds all that its outcome depends on besides the metadata itself: no clock,
//! no randomness, no look at a disk.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use sterna_types::{
    ByteRate, ClusterId, Epoch, NodeId, NodeName, Root, SiteName, SnapshotName, TokenId, VolumeId, VolumeName,
    VolumeSize,
};

use super::cluster::{MetadataVersion, is_default};
use super::handoffs::{ReceivedVolume, VolumeHandoff};
use super::in_sync::InSyncRevision;
use super::layout::{LayoutRevision, NodeChange};
use super::policy::{AttachPolicy, DegradedPolicy, Durability};
use super::replica::ReplicaMode;
use super::session::{SessionLength, SessionNumber};
use super::token::Digest;
use super::volume::{Generation, Published, UnixTime, VolumeFormat};

/// A change of the metadata that somebody asks for. It is either carried out as a whole or refused and changes nothing;
/// [`Command::PublishRoots`], [`Command::ReportReplicas`], and what ends handoffs are, for each of their volumes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Command {
    /// Begins a cluster of one site and one node, whose id is [`NodeId::FIRST`].
    Bootstrap(Bootstrap),
    /// Makes a volume.
    CreateVolume(NewVolume),
    /// Says that the import of a volume is complete.
    FinishImport {
        /// The volume.
        volume: VolumeId,
        /// The epoch that the import ran in.
        epoch: Epoch,
        /// The contents.
        root: Root,
        /// The seal that made them.
        generation: Generation,
    },
    /// Removes a volume.
    DeleteVolume {
        /// The volume.
        volume: VolumeId,
        /// Whether its snapshots may go with it; otherwise it has to have none.
        with_snapshots: bool,
    },
    /// Gives a volume another name.
    RenameVolume {
        /// The volume.
        volume: VolumeId,
        /// Its name from now on.
        name: VolumeName,
    },
    /// Makes a volume larger.
    ResizeVolume {
        /// The volume.
        volume: VolumeId,
        /// Its size from now on, at least that of before.
        size: VolumeSize,
    },
    /// Keeps the contents of a volume at one moment under a name.
    CreateSnapshot(NewSnapshot),
    /// Gives a snapshot up.
    DeleteSnapshot {
        /// The volume.
        volume: VolumeId,
        /// The snapshot.
        name: SnapshotName,
    },
    /// Says what several volumes of one node contain now. Each is accepted or refused by itself.
    PublishRoots(Vec<RootPublication>),
    /// Changes what the flushes of a volume wait for. Those that are in sync stay so, and are waited for until the owner has them taken
    /// out.
    SetDurability {
        /// The volume.
        volume: VolumeId,
        /// From now on.
        durability: Durability,
    },
    /// Changes what the flushes of a volume do while fewer nodes are in sync than its durability asks for.
    SetDegraded {
        /// The volume.
        volume: VolumeId,
        /// From now on.
        policy: DegradedPolicy,
    },
    /// Changes who may attach a volume where.
    SetAttach {
        /// The volume.
        volume: VolumeId,
        /// From now on.
        attach: AttachPolicy,
    },
    /// Limits how much of a volume each other node fetches while nobody waits for it; `None` lifts that.
    SetVolumeLimit {
        /// The volume.
        volume: VolumeId,
        /// From now on.
        limit: Option<ByteRate>,
    },
    /// Limits how much is sent from one site to another; `None` lifts that.
    SetLinkLimit {
        /// Where it is sent from.
        from: SiteName,
        /// Where to.
        to: SiteName,
        /// From now on.
        limit: Option<ByteRate>,
    },
    /// Has the commands of a later version of the metadata understood, from now on and by all nodes. Done where they are.
    RaiseVersion {
        /// That version.
        version: MetadataVersion,
    },
    /// Gives out a token by which one node can join.
    CreateToken(NewToken),
    /// Takes a token back.
    RevokeToken {
        /// Which.
        token: TokenId,
    },
    /// Lets a node in, by a token.
    AdmitNode(Admission),
    /// Says where a node is reached from now on.
    SetNodeAddress {
        /// The node.
        node: NodeId,
        /// Where.
        address: SocketAddr,
    },
    /// Begins a session: the node has started, or its last one has lapsed. It ends the one before.
    OpenSession {
        /// The node.
        node: NodeId,
        /// What its program understands.
        knows: MetadataVersion,
    },
    /// Makes a session last, from now on.
    RenewSession {
        /// The node.
        node: NodeId,
        /// Its session.
        number: SessionNumber,
    },
    /// Ends a session: the node acknowledges nothing more.
    CloseSession {
        /// The node.
        node: NodeId,
        /// Its session.
        number: SessionNumber,
        /// Whether all that it ever acknowledged is published. Only from version 3 of the metadata on.
        #[serde(default, skip_serializing_if = "is_default")]
        all_is_published: bool,
    },
    /// Ends a session that has not been renewed in time. Only who leads says so, having waited for longer than the node does.
    LapseSession {
        /// The node.
        node: NodeId,
        /// Its session.
        number: SessionNumber,
        /// How often that had been renewed, as far as was known.
        renewals: u64,
    },
    /// Changes how long sessions last, from each one's next renewal on.
    SetSessionLength {
        /// From now on.
        length: SessionLength,
    },
    /// Prepares a change of the layout, which [`Command::ApplyChanges`] makes.
    StageChange(NodeChange),
    /// Gives up what is staged.
    DiscardChanges,
    /// Makes all changes that are staged.
    ApplyChanges {
        /// The revision that was looked at; refused if anything has happened to the layout since.
        revision: LayoutRevision,
    },
    /// Has a site keep a copy of a volume, at a node that is there; a copy at another node of that site is given up for it. A node that is
    /// in sync stays so if it goes on in mode sync.
    SetReplica {
        /// The volume.
        volume: VolumeId,
        /// The node.
        node: NodeId,
        /// How it is to follow.
        mode: ReplicaMode,
    },
    /// Gives the copy at a site up; its node is in sync no more. It may be the last one in mode sync of a volume whose flushes ask for
    /// one: then they wait, or go on without, as the volume says ([`Command::SetDegraded`]).
    UnsetReplica {
        /// The volume.
        volume: VolumeId,
        /// The site.
        site: SiteName,
    },
    /// Says what a node holds of the volumes that it keeps copies of. Each is accepted or refused by itself.
    ReportReplicas {
        /// The node.
        node: NodeId,
        /// What it holds.
        reports: Vec<ReplicaReport>,
    },
    /// Gives a volume to the node that keeps its copy at a site, after its owner's session has ended, with the contents that are
    /// complete there. What that loses was looked at before. Refused for a node that is in sync: see [`Command::TakeOver`].
    FailOver {
        /// The volume.
        volume: VolumeId,
        /// Its epoch; refused if it has had another one since.
        epoch: Epoch,
        /// The site.
        site: SiteName,
        /// What was found to be complete there; refused if something else is by now.
        root: Root,
        /// How far what was published had come when it was looked at; refused if it has come further by now: an owner whose
        /// session has ended may have asked for that before. Not looked at where it is not said.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        published: Option<Generation>,
    },
    /// Says, by the owner of a volume, which nodes it takes into the set of those that are in sync with it, and which it takes out; what
    /// it has to see to before and after is in [`in_sync`](super::in_sync). Also while the volume is being handed over, because the owner
    /// acknowledges until it releases it. Where all are already as they are to be it is done, so that a request whose answer was lost can be
    /// sent again. Otherwise one that arrives after another one is refused, because its owner may count on what that has brought.
    ChangeInSync {
        /// The volume.
        volume: VolumeId,
        /// Its epoch; refused if it has another one by now.
        epoch: Epoch,
        /// The owner.
        node: NodeId,
        /// The revision of the set that the owner knows; see [`Volume::in_sync_revision`](super::volume::Volume::in_sync_revision).
        revision: InSyncRevision,
        /// Who is in sync from now on. Each of them has a session, and keeps a replica in mode sync with complete contents.
        add: BTreeSet<NodeId>,
        /// Who is not any more; none of those.
        remove: BTreeSet<NodeId>,
    },
    /// Gives a volume to a node that is in sync, after its owner's session has ended. It goes on with all that was acknowledged in that
    /// epoch: with what it has kept of it, as after [`Command::Reclaim`]. Where the volume was being handed over, what the node that it was
    /// to go to has acknowledged since is not of that epoch, and is kept as a snapshot when that returns, as after a failover. A request
    /// that arrives again is refused: the epoch is over.
    TakeOver {
        /// The volume.
        volume: VolumeId,
        /// Its epoch, in which the node is in sync.
        epoch: Epoch,
        /// The node.
        node: NodeId,
    },
    /// Says, by an owner that was superseded, what it had beside what was gone on with.
    SettleEpoch {
        /// The volume.
        volume: VolumeId,
        /// The epoch that is over.
        epoch: Epoch,
        /// Who owned the volume in it.
        node: NodeId,
        /// Everything that it had, to be kept as a snapshot; `None` where that is nothing more.
        branch: Option<Branch>,
    },
    /// Begins handing volumes over from their owner to another node: all of them or none. Each handoff is the one after the last that
    /// the owner knows of, so a request that arrives again is refused: the handoff is under way, or has ended.
    BeginHandoff {
        /// Their owner.
        by: NodeId,
        /// The node that is to own them.
        to: NodeId,
        /// The volumes, none of them twice.
        volumes: Vec<VolumeHandoff>,
    },
    /// Ends handoffs: a node owns the volumes that it has been given, and serves already. Each is accepted or refused by itself. What
    /// was carried out is accepted again, and changes nothing, as long as the volume is not handed on.
    CommitHandoff {
        /// The node that they went to.
        by: NodeId,
        /// What it was given.
        volumes: Vec<ReceivedVolume>,
    },
    /// Ends handoffs that the owner has not released, and now never does: it keeps the volumes. Each is accepted or refused by
    /// itself. One that has ended, however it did, is refused as not under way: who owns the volume in which epoch says how.
    AbortHandoff {
        /// The owner.
        by: NodeId,
        /// The handoffs.
        volumes: Vec<VolumeHandoff>,
    },
    /// Ends handoffs that the node which they go to has not accepted, and now never does: the owner keeps the volumes. Refused as
    /// [`Command::AbortHandoff`] is.
    DeclineHandoff {
        /// The node that they were to go to.
        by: NodeId,
        /// The handoffs.
        volumes: Vec<VolumeHandoff>,
    },
    /// Gives a volume back to its owner, which has released it to a node whose session has ended since. It goes on with all that it
    /// ever had; what the other node had beside is kept as a snapshot when that returns. A request that arrives again is refused:
    /// the epoch is over.
    Reclaim {
        /// The volume.
        volume: VolumeId,
        /// Its epoch, which the owner owned it in.
        epoch: Epoch,
        /// The owner.
        node: NodeId,
    },
    /// Says, by the owner of a volume, that it has all of it: those who have handed it over need keep nothing for it any more, nor
    /// those of its snapshots that the owner has too, unless they keep a replica.
    FinishHydration {
        /// The volume.
        volume: VolumeId,
        /// Its epoch; refused if it has another one by now.
        epoch: Epoch,
        /// The owner.
        node: NodeId,
        /// The snapshots that it has all of, too; those that are gone meanwhile are passed over.
        snapshots: Vec<SnapshotName>,
    },
}

/// See [`Command::Bootstrap`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bootstrap {
    /// The new cluster's id, chosen at random.
    pub cluster: ClusterId,
    /// Its first site.
    pub site: SiteName,
    /// Its first node.
    pub node: NodeName,
    /// Where other nodes reach that; `None` if it listens to none.
    pub address: Option<SocketAddr>,
}

/// See [`Command::CreateToken`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    /// Chosen at random.
    pub id: TokenId,
    /// The hash of its secret.
    pub secret: Digest,
    /// When it was made.
    pub at: UnixTime,
    /// From when on it lets nobody in.
    pub expires: UnixTime,
    /// The one site at which it lets a node in; `None` for any, also a new one.
    pub site: Option<SiteName>,
}

/// See [`Command::AdmitNode`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Admission {
    /// The token that it came with.
    pub token: TokenId,
    /// The hash of the secret that it came with.
    pub secret: Digest,
    /// When it came, by the clock of the node that it came to.
    pub at: UnixTime,
    /// What its program understands.
    pub knows: MetadataVersion,
    /// The hash of its public key.
    pub key: Digest,
    /// What it is to be called.
    pub name: NodeName,
    /// Where it is.
    pub site: SiteName,
    /// Where other nodes reach it.
    pub address: SocketAddr,
}

/// See [`Command::CreateVolume`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewVolume {
    /// Its name, which no other volume has.
    pub name: VolumeName,
    /// Its size; for a clone at least that of its origin.
    pub size: VolumeSize,
    /// How its contents are cut and written down; for a clone as its origin.
    pub format: VolumeFormat,
    /// What its flushes wait for.
    pub durability: Durability,
    /// Who may attach it where.
    pub attach: AttachPolicy,
    /// What is in it.
    pub origin: Origin,
    /// The node that may write it.
    pub owner: NodeId,
}

/// What is in a new volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Origin {
    /// Zeroes.
    Blank,
    /// Nothing yet: it is to be filled, and then declared complete by [`Command::FinishImport`].
    Import,
    /// What is in a snapshot.
    Snapshot {
        /// The volume.
        volume: VolumeId,
        /// Its snapshot.
        name: SnapshotName,
    },
    /// What a volume has published last. Refused if it has published something else since, because only what the metadata
    /// names is safe from being collected.
    Published {
        /// The volume.
        volume: VolumeId,
        /// Its published root.
        root: Root,
    },
}

/// See [`Command::CreateSnapshot`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewSnapshot {
    /// The volume.
    pub volume: VolumeId,
    /// The epoch that these contents were sealed in; a snapshot of an owner that is none any more is refused.
    pub epoch: Epoch,
    /// The snapshot's name, which no other snapshot of the volume has.
    pub name: SnapshotName,
    /// The contents.
    pub root: Root,
    /// The seal that made them.
    pub generation: Generation,
    /// The size of the volume then.
    pub size: VolumeSize,
    /// When it was asked for.
    pub at: UnixTime,
}

/// What one volume contains now; see [`Command::PublishRoots`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RootPublication {
    /// The volume.
    pub volume: VolumeId,
    /// The epoch that these contents were sealed in.
    pub epoch: Epoch,
    /// The contents.
    pub root: Root,
    /// The seal that made them.
    pub generation: Generation,
    /// See [`Published::written_blocks`]. Only from version 3 of the metadata on.
    #[serde(default, skip_serializing_if = "is_default")]
    pub written_blocks: u64,
    /// When this was sent. Only from version 3 of the metadata on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<UnixTime>,
}

/// What a node holds of one volume; see [`Command::ReportReplicas`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplicaReport {
    /// The volume.
    pub volume: VolumeId,
    /// The epoch in which the contents were published; refused if that is over.
    pub epoch: Epoch,
    /// Contents that are complete there now.
    pub complete: Option<Published>,
    /// Whether only the map of these is, since that is all that a cache follows.
    #[serde(default, skip_serializing_if = "super::cluster::is_default")]
    pub is_map: bool,
    /// Snapshots that are complete there now.
    pub snapshots: Vec<SnapshotName>,
}

/// What an owner that was superseded had; see [`Command::SettleEpoch`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Branch {
    /// The snapshot's name, which no other snapshot of the volume has.
    pub name: SnapshotName,
    /// The contents.
    pub root: Root,
    /// The seal that made them.
    pub generation: Generation,
    /// The size of the volume then.
    pub size: VolumeSize,
    /// When it was found.
    pub at: UnixTime,
}
