//! What the node answers over the network: to other nodes, to administrators with certificates, and to those that want to join. It
//! is one port, on which nobody is heard who has neither a certificate of the cluster nor a token; [`super::access`] says who may
//! call what.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Result;
use sterna_proto::node::enrolment_server::EnrolmentServer;
use sterna_transport::{Listener, ListenerConfig, http2};
use tonic::service::Routes;

use super::gate::{Door, Gate};
use super::join::EnrolmentService;
use super::node::Node;
use super::{handoff, mirrors, replication};

/// How `node` listens to others, until it shuts down.
pub(super) fn listener(node: &Node) -> ListenerConfig {
    ListenerConfig::new(node.tls.clone(), node.peers_stopping.clone()).with_links(node.metadata.links())
}

/// Serves other nodes, and to whoever is let in to them the services that are `added`, until the node shuts down.
///
/// # Errors
/// The connections cannot be served.
///
/// # Cancel safety
/// Dropped, it ends all calls.
pub(super) async fn serve(
    node: Arc<Node>,
    listener: Listener,
    added: impl FnOnce(Routes) -> Routes + Send,
) -> Result<()> {
    let stop = node.peers_stopping.clone();
    let refusals = listener.refusals();
    let gate = Gate::new(Door::Network, Arc::clone(&refusals), node.stopping.clone());
    let enrolment = EnrolmentServer::new(EnrolmentService::new(Arc::clone(&node), refusals));
    let enrolment = enrolment.max_decoding_message_size(MAX_ENROLMENT_BYTES);
    let routes = node
        .metadata
        .routes()
        .add_service(enrolment)
        .add_service(replication::service(Arc::clone(&node)))
        .add_service(handoff::service(Arc::clone(&node)))
        .add_service(mirrors::service(Arc::clone(&node)));
    http2::server()
        .layer(gate)
        .add_routes(added(routes))
        .serve_with_incoming_shutdown(listener, stop.cancelled_owned())
        .await?;
    Ok(())
}

/// Tells the cluster where this node listens, where that has changed.
///
/// # Errors
/// The metadata does not answer.
pub(super) async fn tell_address(node: &Node, address: SocketAddr) -> Result<()> {
    use sterna_consensus::state::command::Command;

    let id = node.metadata.id();
    let known = node.metadata.linearizable().await?.node(id).and_then(|node| node.address);
    if known != Some(address) {
        node.metadata.propose(Command::SetNodeAddress { node: id, address }).await?;
        tracing::info!(%address, "the cluster knows this node's new address");
    }
    Ok(())
}

/// A request for a certificate, and names.
const MAX_ENROLMENT_BYTES: usize = 64 << 10;
