//! The cluster, its sites and its nodes, as the metadata knows them.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use sterna_types::{ClusterId, NodeId, NodeName, SiteName};

/// The cluster itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// Its id.
    pub id: ClusterId,
    /// What every node has to understand to apply the metadata's commands.
    pub version: MetadataVersion,
}

/// The version of the metadata's commands and of what they mean. All nodes apply the same log with the same rules, so a rule
/// changes only when a command raises this version, once every node knows it.
///
/// | version | since | what |
/// |---|---|---|
/// | 1 | 0.2 | the first |
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MetadataVersion(pub u32);

impl MetadataVersion {
    /// What this program makes and understands.
    pub const CURRENT: Self = Self(1);
}

/// A place with its own failures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Site {
    /// What people call it.
    pub name: SiteName,
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
}
