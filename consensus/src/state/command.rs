//! What can be asked of the metadata. A command holds all that its outcome depends on besides the metadata itself: no clock,
//! no randomness, no look at a disk.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sterna_types::{
    ClusterId, Epoch, NodeId, NodeName, Root, SiteName, SnapshotName, TokenId, VolumeId, VolumeName, VolumeSize,
};

use super::cluster::{MetadataVersion, is_default};
use super::layout::{LayoutRevision, NodeChange};
use super::policy::{AttachPolicy, Durability};
use super::replica::ReplicaMode;
use super::session::{SessionLength, SessionNumber};
use super::text_form::as_text;
use super::token::Digest;
use super::volume::{Generation, Published, UnixTime, VolumeFormat};

/// A command, and optionally a name for this very request, so that it is carried out once however often it is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The same again when the request is repeated because its answer was lost. The outcomes of the last
    /// [`MAX_ANSWERED_REQUESTS`](crate::limits::MAX_ANSWERED_REQUESTS) requests with an id are remembered.
    pub id: Option<RequestId>,
    /// What is asked.
    pub command: Command,
}

/// The name of one request: 16 random bytes chosen by the client, written as 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u128);

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// A text that is not a [`RequestId`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not a request's id: it takes 32 hexadecimal digits")]
pub struct InvalidRequestId {
    /// What was given.
    pub text: String,
}

impl FromStr for RequestId {
    type Err = InvalidRequestId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.len() == 32 && text.bytes().all(|c| c.is_ascii_hexdigit());
        let number = if digits { u128::from_str_radix(text, 16).ok() } else { None };
        number.map(Self).ok_or_else(|| InvalidRequestId { text: text.to_owned() })
    }
}

as_text!(RequestId);

/// A change of the metadata that somebody asks for. It is either carried out as a whole or refused and changes nothing;
/// [`Command::PublishRoots`] and [`Command::ReportReplicas`] are, for each of their volumes.
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
    /// Changes what the flushes of a volume wait for.
    SetDurability {
        /// The volume.
        volume: VolumeId,
        /// From now on.
        durability: Durability,
    },
    /// Changes who may attach a volume where.
    SetAttach {
        /// The volume.
        volume: VolumeId,
        /// From now on.
        attach: AttachPolicy,
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
    /// Has a site keep a copy of a volume, at a node that is there; a copy at another node of that site is given up for it.
    SetReplica {
        /// The volume.
        volume: VolumeId,
        /// The node.
        node: NodeId,
        /// How it is to follow.
        mode: ReplicaMode,
    },
    /// Gives the copy at a site up.
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
    /// complete there. What that loses was looked at before.
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

impl Command {
    /// The version of the metadata from which on it can be carried out.
    pub fn since(&self) -> MetadataVersion {
        match self {
            Self::Bootstrap(_)
            | Self::CreateVolume(_)
            | Self::FinishImport { .. }
            | Self::DeleteVolume { .. }
            | Self::RenameVolume { .. }
            | Self::ResizeVolume { .. }
            | Self::CreateSnapshot(_)
            | Self::DeleteSnapshot { .. }
            | Self::PublishRoots(_)
            | Self::SetDurability { .. }
            | Self::SetAttach { .. }
            | Self::RaiseVersion { .. } => MetadataVersion::FIRST,
            Self::CreateToken(_)
            | Self::RevokeToken { .. }
            | Self::AdmitNode(_)
            | Self::SetNodeAddress { .. }
            | Self::OpenSession { .. }
            | Self::RenewSession { .. }
            | Self::CloseSession { .. }
            | Self::LapseSession { .. }
            | Self::SetSessionLength { .. }
            | Self::StageChange(_)
            | Self::DiscardChanges
            | Self::ApplyChanges { .. } => MetadataVersion::MANY_NODES,
            Self::SetReplica { .. }
            | Self::UnsetReplica { .. }
            | Self::ReportReplicas { .. }
            | Self::FailOver { .. }
            | Self::SettleEpoch { .. } => MetadataVersion::REPLICAS,
        }
    }
}

impl Request {
    /// A bound for the bytes that this request takes as JSON, found without writing it.
    pub(crate) fn bytes_at_most(&self) -> usize {
        let (base, listed) = match &self.command {
            Command::PublishRoots(publications) => {
                (SHORT_REQUEST_BYTES_AT_MOST, publications.len() * PUBLICATION_BYTES_AT_MOST)
            }
            Command::RenewSession { .. } => (SHORT_REQUEST_BYTES_AT_MOST, 0),
            Command::ReportReplicas { reports, .. } => {
                let snapshots: usize = reports.iter().map(|report| report.snapshots.len()).sum();
                (SHORT_REQUEST_BYTES_AT_MOST, reports.len() * REPORT_BYTES_AT_MOST + snapshots * NAME_BYTES_AT_MOST)
            }
            _ => (REQUEST_BYTES_AT_MOST, 0),
        };
        base + listed
    }
}

/// No request without roots is longer as JSON: a handful of names of 63 bytes, a hash, and the names of the fields.
pub(crate) const REQUEST_BYTES_AT_MOST: usize = 1024;
/// Nor is one that has nothing but an id, two numbers of 20 digits, and the names of the fields. Many of these share an entry.
const SHORT_REQUEST_BYTES_AT_MOST: usize = 160;
/// No publication is longer as JSON: five numbers of 20 digits, a hash of 64, and the names of the fields.
const PUBLICATION_BYTES_AT_MOST: usize = 288;
/// Nor a report, but for the names of its snapshots.
const REPORT_BYTES_AT_MOST: usize = 320;
/// Nor a name of 63 bytes, with quotes and a comma.
const NAME_BYTES_AT_MOST: usize = 66;
