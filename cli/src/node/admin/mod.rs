//! What administrators ask of the node, on its admin socket (`proto/admin.proto`).
//!
//! * [`service`]: the gRPC service; each call is carried out by a function of another module.
//! * [`request`], [`status`], [`reply`]: between messages and the node's own types: what was asked, what went wrong, what
//!   is answered.
//! * [`lookup`]: from names to volumes and roots. [`work`]: long work, whose replies are a stream.
//! * [`cluster`]: the nodes, tokens and the layout (`proto/cluster.proto`), a service of its own on the same socket.
//! * `direct`: some calls without a socket, for simulations. [`door`]: who comes in on that socket. Over the network it is [`super::peers`].
//! * one module for each call, or for each few that belong together.

mod bucket;
mod clone;
mod cluster;
mod collect;
mod create;
mod delete;
mod diff;
#[cfg(feature = "simulation")]
pub(super) mod direct;
pub(super) mod door;
mod export;
mod failover;
mod import;
mod lookup;
mod map;
mod migrators;
mod move_in_steps;
mod move_volumes;
mod node_status;
mod replica;
mod reply;
mod request;
mod resize;
mod restore;
mod scrub;
mod service;
mod set;
mod show;
mod snapshot;
mod status;
mod verify;
mod work;

use std::os::unix::net::UnixListener;
use std::sync::Arc;

use anyhow::{Context, Result};
use sterna_proto::admin::admin_server::AdminServer;
use sterna_proto::cluster::cluster_server::ClusterServer;
use sterna_transport::Refusals;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Server;

pub(super) use service::Service;

use super::gate::{Door, Gate};
use cluster::ClusterService;

/// Both services, for each server that offers them.
#[derive(Clone)]
pub(super) struct AdminServices {
    admin: AdminServer<Service>,
    cluster: ClusterServer<ClusterService>,
    stopping: CancellationToken,
}

impl AdminServices {
    /// Those of `service`'s node.
    pub(super) fn new(service: Service) -> Self {
        let (node, stopping) = (service.node(), service.stopping());
        let cluster = ClusterServer::new(ClusterService::new(node)).max_decoding_message_size(MAX_REQUEST_BYTES);
        Self { admin: AdminServer::new(service).max_decoding_message_size(MAX_REQUEST_BYTES), cluster, stopping }
    }

    /// Beside those that are there.
    pub(super) fn add_to(self, routes: Routes) -> Routes {
        routes.add_service(self.admin).add_service(self.cluster)
    }
}

/// Serves administrators until the node shuts down, and the calls that run then have ended.
///
/// # Errors
/// The socket cannot be watched.
///
/// # Cancel safety
/// Dropped, it ends all calls.
pub(super) async fn serve(services: AdminServices, listener: UnixListener) -> Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::UnixListener::from_std(listener).context("cannot watch the admin socket")?;
    let (stopping, refusals) = (services.stopping.clone(), Arc::<Refusals>::default());
    let gate = Gate::new(Door::Socket, Arc::clone(&refusals), stopping.clone());
    // No pings, as there are over the network: somebody who pages through a long list may take minutes for an answer.
    let mut server = Server::builder().max_concurrent_streams(MAX_CALLS_PER_CONNECTION).layer(gate);
    let routes = services.add_to(Routes::default());
    let incoming = door::open(listener, refusals);
    server.add_routes(routes).serve_with_incoming_shutdown(incoming, stopping.cancelled_owned()).await?;
    Ok(())
}

/// Two paths of the longest that the system takes, and names.
const MAX_REQUEST_BYTES: usize = 64 << 10;
/// A person has one at a time, a program a few.
const MAX_CALLS_PER_CONNECTION: u32 = 64;
