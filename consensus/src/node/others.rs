//! How the other nodes are, and this one; and the ways to them.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use sterna_proto::node::PingRequest;
use sterna_proto::node::metadata_client::MetadataClient;
use sterna_transport::{Channels, Lane, LinkId, Links};
use sterna_types::{NodeId, SiteName};
use tokio::sync::watch;

use super::MetadataNode;
use crate::state::Metadata;
use crate::state::cluster::MetadataVersion;

/// How another node has answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pong {
    /// How far it has applied the log.
    pub applied: u64,
    /// The version of its program.
    pub version: String,
}

/// Why another node has not answered.
#[derive(Debug, thiserror::Error)]
pub enum PingError {
    /// This one has no network.
    #[error("this node listens to no other node, and asks none")]
    Alone,
    /// What came instead.
    #[error("{what}")]
    Failed {
        /// What happened.
        what: String,
    },
}

/// Which link a site is behind: all of its nodes share it.
pub fn link_to(site: &SiteName) -> LinkId {
    let mut hasher = DefaultHasher::new();
    site.hash(&mut hasher);
    LinkId(hasher.finish())
}

/// The links to other nodes, by their sites; one that is not known is on one of its own.
pub(super) fn links(view: watch::Receiver<Arc<Metadata>>) -> Links {
    Links::new(move |node| view.borrow().node(node).map_or(LinkId(node.0), |node| link_to(&node.site)))
}

impl MetadataNode {
    /// The links to other sites; one without limits for a node that is alone.
    pub fn links(&self) -> Links {
        self.channels().map(|channels| channels.links().clone()).unwrap_or_default()
    }

    /// The ways to the other nodes; `None` for a node that is alone.
    pub fn channels(&self) -> Option<&Channels> {
        self.channels.as_ref()
    }

    /// Asks another node how it is.
    ///
    /// # Errors
    /// [`PingError`]. It waits for as long as the connection does: the caller bounds the time.
    ///
    /// # Cancel safety
    /// May be dropped at any time.
    pub async fn ping(&self, node: NodeId) -> Result<Pong, PingError> {
        let channels = self.channels().ok_or(PingError::Alone)?;
        let mut client = MetadataClient::new(channels.channel(node, Lane::Control));
        let failed = |status: tonic::Status| PingError::Failed { what: status.message().to_owned() };
        let pong = client.ping(PingRequest {}).await.map_err(failed)?.into_inner();
        Ok(Pong { applied: pong.applied, version: pong.version })
    }

    /// How far this node has applied the log.
    pub fn applied_index(&self) -> u64 {
        self.raft.metrics().borrow().last_applied.map_or(0, |id| id.index)
    }

    /// Which version of the metadata's commands this node understands.
    pub fn knows(&self) -> MetadataVersion {
        self.knows
    }

    /// Who leads, as far as this node knows.
    pub fn leader(&self) -> Option<NodeId> {
        self.raft.metrics().borrow().current_leader.map(NodeId)
    }
}
