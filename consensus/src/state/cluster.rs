//! The cluster, its sites and its nodes, as the metadata knows them.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use sterna_types::{ByteRate, ClusterId, NodeId, NodeName, SiteName};

use super::session::{Session, SessionLength};
use super::token::Digest;

/// The cluster itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// Its id.
    pub id: ClusterId,
    /// What every node has to understand to apply the metadata's commands.
    pub version: MetadataVersion,
    /// How long nodes' sessions last after each renewal.
    #[serde(default, skip_serializing_if = "is_default")]
    pub session: SessionLength,
}

/// The version of the metadata's commands and of what they mean. All nodes apply the same log with the same rules, so a rule
/// changes only when a command raises this version, once every node knows it.
///
/// | version | since | what |
/// |---|---|---|
/// | 5 | 0.6 | propagation: limits of links and of volumes; who is in sync with a volume, and taking over with everything |
/// | 4 | 0.5 | handoffs: a volume passes from one live node to another |
/// | 3 | 0.4 | replicas: who keeps copies, and taking over with what they hold; snapshots of the metadata, and entries on their way to other nodes, are compressed |
/// | 2 | 0.3 | several nodes: tokens, sessions, the layout |
/// | 1 | 0.2 | the first: one node |
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MetadataVersion(pub u32);

impl MetadataVersion {
    /// What this program makes and understands.
    pub const CURRENT: Self = Self::CACHES;
    /// That of a cluster that has just begun.
    pub const FIRST: Self = Self(1);
    /// From which on there can be more nodes than one.
    pub const MANY_NODES: Self = Self(2);
    /// From which on volumes can have replicas and be taken over, and snapshots of the metadata, and entries on their way to other
    /// nodes, are compressed.
    pub const REPLICAS: Self = Self(3);
    /// From which on volumes can be handed over.
    pub const HANDOFFS: Self = Self(4);
    /// From which on links and volumes can have limits, and nodes can be in sync with a volume.
    pub const PROPAGATION: Self = Self(5);
    /// From which on a site can keep what it has of a volume without following it.
    pub const CACHES: Self = Self(6);
}

impl Default for MetadataVersion {
    fn default() -> Self {
        Self::FIRST
    }
}

impl fmt::Display for MetadataVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A place with its own failures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Site {
    /// What people call it.
    pub name: SiteName,
    /// How much may be sent from it to other sites. Since version 5 of the metadata.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: BTreeMap<SiteName, ByteRate>,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Its id.
    pub id: NodeId,
    /// What people call it.
    pub name: NodeName,
    /// Where it is.
    pub site: SiteName,
    /// Where other nodes reach it; `None` for one that listens to none.
    pub address: Option<SocketAddr>,
    /// What it understands, as it said when it opened its newest session.
    #[serde(default, skip_serializing_if = "is_default")]
    pub knows: MetadataVersion,
    /// The hash of the public key that it came with; `None` for the first node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Digest>,
    /// Its newest session; `None` before its first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<Session>,
}

/// Whether a field need not be written down. What a version without it wrote reads as this.
pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
