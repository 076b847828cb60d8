//! Who may ask this node something about the metadata: nodes of the cluster, as their certificates and the metadata say.
//!
//! A node that was removed keeps its certificate, which is valid until it expires; what shuts it out is that the metadata does
//! not know it any more. A node that has just joined knows nobody yet, and takes the cluster's authority's word for it: it could
//! not learn who belongs to the cluster otherwise.

use std::sync::Arc;

use sterna_transport::{ConnectInfo, Peer};
use sterna_types::NodeId;
use tokio::sync::watch;
use tonic::{Request, Status};

use crate::state::Metadata;

/// Knows who belongs to the cluster.
#[derive(Clone, Debug)]
pub(crate) struct Callers {
    own: NodeId,
    view: watch::Receiver<Arc<Metadata>>,
}

impl Callers {
    /// Those of the cluster in `view`, for node `own`.
    pub(crate) fn new(own: NodeId, view: watch::Receiver<Arc<Metadata>>) -> Self {
        Self { own, view }
    }

    /// The node that a request comes from.
    ///
    /// # Errors
    /// PERMISSION_DENIED for everybody else.
    pub(crate) fn node<T>(&self, request: &Request<T>) -> Result<NodeId, Status> {
        let info = request.extensions().get::<ConnectInfo>();
        match info.map(|info| &info.peer) {
            Some(Peer::Node(node)) if self.is_known(*node) => Ok(*node),
            Some(peer) => {
                let address = info.map(|info| info.address);
                tracing::warn!(%peer, ?address, "refused: this is for nodes of the cluster only");
                Err(Status::permission_denied(format!("{peer} is not a node of this cluster")))
            }
            None => Err(Status::permission_denied("it is not known who asks")),
        }
    }

    fn is_known(&self, node: NodeId) -> bool {
        let metadata = self.view.borrow();
        node != self.own && (metadata.cluster().is_none() || metadata.node(node).is_some())
    }
}
