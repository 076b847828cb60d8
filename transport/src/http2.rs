//! How HTTP/2 (RFC 9113) is set up on both ends: windows, pings, how much at a time.
//!
//! A window belongs to the receiving end, so a snapshot that a node sends to another one goes by the other's [`server`]
//! settings, and one that it fetches by its own channel's.

use tonic::transport::{Endpoint, Server};
#[cfg(not(feature = "simulation"))]
use tower::layer::util::Identity as Around;

use crate::lane::Lane;
use crate::limits::{
    BULK_CONNECTION_WINDOW_BYTES, BULK_STREAM_WINDOW_BYTES, CHANNEL_QUEUE, CONTROL_CONNECTION_WINDOW_BYTES,
    CONTROL_STREAM_WINDOW_BYTES, DEMAND_CONNECTION_WINDOW_BYTES, DEMAND_STREAM_WINDOW_BYTES,
    MAX_STREAMS_PER_CONNECTION, PING_INTERVAL, PING_TIMEOUT, SERVER_CONNECTION_WINDOW_BYTES,
    SERVER_STREAM_WINDOW_BYTES,
};
#[cfg(feature = "simulation")]
use crate::simulation::dates::{Around, dates};

/// A server to add services to, in place of `Server::builder()`; it serves what a [`Listener`](crate::Listener) lets
/// in.
pub fn server() -> Server<Around> {
    let server = Server::builder();
    #[cfg(feature = "simulation")]
    let server = server.layer(dates());
    server
        .initial_stream_window_size(SERVER_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(SERVER_CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(MAX_STREAMS_PER_CONNECTION)
        .http2_keepalive_interval(Some(PING_INTERVAL))
        .http2_keepalive_timeout(Some(PING_TIMEOUT))
}

/// The calling end of a connection to the server of this name.
pub(crate) fn endpoint(name: &str, lane: Lane) -> Endpoint {
    let (stream, connection) = match lane {
        Lane::Control => (CONTROL_STREAM_WINDOW_BYTES, CONTROL_CONNECTION_WINDOW_BYTES),
        Lane::Demand => (DEMAND_STREAM_WINDOW_BYTES, DEMAND_CONNECTION_WINDOW_BYTES),
        Lane::Tail | Lane::Sync | Lane::Prefetch | Lane::Bulk => {
            (BULK_STREAM_WINDOW_BYTES, BULK_CONNECTION_WINDOW_BYTES)
        }
    };
    Endpoint::from_shared(format!("https://{name}"))
        .expect("a DNS name is the authority of a URI")
        .initial_stream_window_size(stream)
        .initial_connection_window_size(connection)
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true)
        .buffer_size(CHANNEL_QUEUE)
}
