//! What administrators ask of the node, on its admin socket (`proto/admin.proto`).
//!
//! * [`service`]: the gRPC service; each call is carried out by a function of another module.
//! * [`request`], [`status`], [`reply`]: between messages and the node's own types: what was asked, what went wrong, what
//!   is answered.
//! * [`lookup`]: from names to volumes and roots. [`work`]: long work, whose replies are a stream.
//! * [`cluster`]: the nodes, tokens and the layout (`proto/cluster.proto`), a service of its own on the same socket.
//! * one module for each call, or for each few that belong together.

mod clone;
mod cluster;
mod collect;
mod create;
mod delete;
mod diff;
mod export;
mod failover;
mod import;
mod lookup;
mod map;
mod node_status;
mod replica;
mod reply;
mod request;
mod resize;
mod scrub;
mod service;
mod show;
mod snapshot;
mod status;
mod verify;
mod work;

use std::os::unix::net::UnixListener;

use anyhow::{Context, Result};
use sterna_proto::admin::admin_server::AdminServer;
use sterna_proto::cluster::cluster_server::ClusterServer;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;

pub(super) use service::Service;

use cluster::ClusterService;

/// Serves administrators until the node shuts down, and the calls that run then have ended.
///
/// # Errors
/// The socket cannot be watched.
///
/// # Cancel safety
/// Dropped, it ends all calls.
pub(super) async fn serve(service: Service, listener: UnixListener) -> Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::UnixListener::from_std(listener).context("cannot watch the admin socket")?;
    let stopping = service.stopping();
    let cluster = ClusterServer::new(ClusterService::new(service.node())).max_decoding_message_size(MAX_REQUEST_BYTES);
    let service = AdminServer::new(service).max_decoding_message_size(MAX_REQUEST_BYTES);
    let server =
        Server::builder().max_concurrent_streams(MAX_CALLS_PER_CONNECTION).add_service(service).add_service(cluster);
    let incoming = UnixListenerStream::new(listener);
    server.serve_with_incoming_shutdown(incoming, stopping.cancelled_owned()).await?;
    Ok(())
}

/// Two paths of the longest that the system takes, and names.
const MAX_REQUEST_BYTES: usize = 64 << 10;
/// A person has one at a time, a program a few.
const MAX_CALLS_PER_CONNECTION: u32 = 64;
