//! What can be asked of the metadata. A command holds all that its outcome depends on besides the metadata itself: no clock,
//! no randomness, no look at a disk.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sterna_types::{
    ClusterId, Epoch, NodeId, NodeName, Root, SiteName, SnapshotName, VolumeId, VolumeName, VolumeSize,
};

use super::policy::{AttachPolicy, Durability};
use super::text_form::as_text;
use super::volume::{Generation, UnixTime, VolumeFormat};

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
/// [`Command::PublishRoots`] is, for each of its volumes.
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
}

impl Request {
    /// A bound for the bytes that this request takes as JSON, found without writing it.
    pub(crate) fn bytes_at_most(&self) -> usize {
        let roots = match &self.command {
            Command::PublishRoots(publications) => publications.len(),
            _ => 0,
        };
        REQUEST_BYTES_AT_MOST + roots * PUBLICATION_BYTES_AT_MOST
    }
}

/// No request without roots is longer as JSON: a handful of names of 63 bytes, a hash, and the names of the fields.
pub(crate) const REQUEST_BYTES_AT_MOST: usize = 1024;
/// No publication is longer as JSON: three numbers of 20 digits, a hash of 64, and the names of the fields.
const PUBLICATION_BYTES_AT_MOST: usize = 192;
