//! gRPC channels to nodes.
//!
//! A channel connects when it is first used, and again when its connection has ended, each time to the address that the
//! node has then, and with the credentials that we have then. A call that finds no connection and cannot make one fails
//! at once, with the reason; calls are never kept for a node that may not come back.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sterna_types::{ClusterId, NodeId};
use tokio::time::Instant;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::Channel;
use tower::service_fn;

use crate::backoff::Backoff;
use crate::connect::{ConnectError, Stream, connect};
use crate::credentials::Credentials;
use crate::http2::endpoint;
use crate::identity::Identity;
use crate::lane::Lane;
use crate::links::Links;
use crate::tls::{Tls, any_node_config, joining_config};
use crate::token::JoinToken;

/// Who knows where nodes are. It is asked at every attempt to connect, so it should answer from memory.
pub trait Addresses: Send + Sync + 'static {
    /// Where a node listens for other nodes; `None` for one that is not known.
    fn address_of(&self, node: NodeId) -> Option<SocketAddr>;
}

impl<F: Fn(NodeId) -> Option<SocketAddr> + Send + Sync + 'static> Addresses for F {
    fn address_of(&self, node: NodeId) -> Option<SocketAddr> {
        self(node)
    }
}

/// The channels from one node to the others. Cloning shares them.
///
/// ```no_run
/// use sterna_transport::{Channels, Lane, Tls};
/// use sterna_types::NodeId;
///
/// # fn example(tls: Tls) {
/// let channels = Channels::new(tls, |node| (node == NodeId(2)).then(|| ([10, 77, 0, 2], 7400).into()));
/// // For the client that tonic generates of any service, inside a runtime:
/// let channel: tonic::transport::Channel = channels.channel(NodeId(2), Lane::Control);
/// # }
/// ```
#[derive(Clone)]
pub struct Channels(Arc<Shared>);

struct Shared {
    tls: Tls,
    addresses: Arc<dyn Addresses>,
    links: Links,
    /// In an order that is the same in every run, since that is how they end.
    channels: Mutex<BTreeMap<(NodeId, Lane), Channel>>,
}

impl Channels {
    /// Channels from the node whose credentials are in `tls`, on links of their own.
    pub fn new(tls: Tls, addresses: impl Addresses) -> Self {
        Self::from_parts(tls, Arc::new(addresses), Links::default())
    }

    /// The same on these links, to begin with: those of the node's [`ListenerConfig`](crate::ListenerConfig), so that
    /// both ways count as one. Channels that were made before stay what they are.
    pub fn with_links(self, links: Links) -> Self {
        Self::from_parts(self.0.tls.clone(), Arc::clone(&self.0.addresses), links)
    }

    /// The links that they are on.
    pub fn links(&self) -> &Links {
        &self.0.links
    }

    fn from_parts(tls: Tls, addresses: Arc<dyn Addresses>, links: Links) -> Self {
        Self(Arc::new(Shared { tls, addresses, links, channels: Mutex::default() }))
    }

    /// The channel to a node: the same one each time, not connected before it is used.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn channel(&self, node: NodeId, lane: Lane) -> Channel {
        self.channels().entry((node, lane)).or_insert_with(|| self.make(node, lane)).clone()
    }

    /// Lets go of the channels to a node that has left the cluster; they end when their last user has let go too.
    pub fn forget(&self, node: NodeId) {
        self.channels().retain(|(other, _), _| *other != node);
    }

    fn make(&self, node: NodeId, lane: Lane) -> Channel {
        let dialer = Arc::new(Dialer {
            node,
            lane,
            tls: self.0.tls.clone(),
            addresses: Arc::clone(&self.0.addresses),
            links: self.0.links.clone(),
            attempts: Mutex::default(),
        });
        let name = self.0.tls.now().identity_of(node).to_string();
        endpoint(&name, lane).connect_with_connector_lazy(service_fn(move |_| Arc::clone(&dialer).dial()))
    }

    fn channels(&self) -> MutexGuard<'_, BTreeMap<(NodeId, Lane), Channel>> {
        // Whatever panicked while it was held has put in a whole channel or none.
        self.0.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Channels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channels").field("from", &self.0.tls).field("to", &self.channels().keys()).finish()
    }
}

/// What connects one channel, again and again.
struct Dialer {
    node: NodeId,
    lane: Lane,
    tls: Tls,
    addresses: Arc<dyn Addresses>,
    links: Links,
    attempts: Mutex<Attempts>,
}

#[derive(Default)]
struct Attempts {
    backoff: Backoff,
    last: Option<Arc<ConnectError>>,
}

impl Dialer {
    async fn dial(self: Arc<Self>) -> Result<Stream, Arc<ConnectError>> {
        self.begin()?;
        // In a task of its own: tonic goes on with a connection only while a call waits for it, and a call that is
        // given up in the middle of a handshake would leave it to run into its time limit.
        let dialer = Arc::clone(&self);
        let connected = AbortOnDropHandle::new(tokio::spawn(async move { dialer.connect().await })).await;
        let connected = connected.unwrap_or_else(|error| match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(ConnectError::ShuttingDown),
        });
        let mut attempts = self.attempts();
        match connected {
            Ok(stream) => {
                attempts.backoff.connected(Instant::now());
                attempts.last = None;
                Ok(stream)
            }
            Err(error) => {
                let error = Arc::new(error);
                attempts.backoff.failed(Instant::now());
                attempts.last = Some(Arc::clone(&error));
                Err(error)
            }
        }
    }

    /// Whether it is time for an attempt.
    fn begin(&self) -> Result<(), Arc<ConnectError>> {
        let mut attempts = self.attempts();
        attempts.backoff.begin(Instant::now()).map_err(|wait| {
            let last = attempts.last.clone();
            Arc::new(ConnectError::Waiting { node: self.node, wait, last })
        })
    }

    async fn connect(&self) -> Result<Stream, ConnectError> {
        let node = self.node;
        let address = self.addresses.address_of(node).ok_or(ConnectError::NoAddress { node })?;
        let settings = self.tls.now();
        let member = self.links.member(node, self.lane);
        connect(address, Arc::clone(&settings.client), settings.identity_of(node).server_name(), Some(member)).await
    }

    fn attempts(&self) -> MutexGuard<'_, Attempts> {
        // Nothing panics while it is held.
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// None of a token's addresses led to a node of its cluster.
#[derive(Debug, thiserror::Error)]
#[error("none of the join token's addresses led to a node of its cluster: {}", list(.attempts))]
pub struct JoinError {
    /// What happened at each, in the order in which they were tried.
    pub attempts: Vec<ConnectError>,
}

fn list(attempts: &[ConnectError]) -> String {
    let with_reasons = attempts.iter().map(|attempt| {
        let reasons = std::iter::successors(Some(attempt as &dyn std::error::Error), |&error| error.source());
        reasons.map(ToString::to_string).collect::<Vec<_>>().join(": ")
    });
    with_reasons.collect::<Vec<_>>().join("; ")
}

/// A channel to some node of the cluster that a token is for, from a node that has no certificate yet. The node at the
/// other end is certified by the authority that the token names, and sees a stranger.
///
/// The addresses are tried in turn, each for at most [`CONNECT_TIMEOUT`](crate::limits::CONNECT_TIMEOUT).
///
/// # Errors
/// [`JoinError`], with the reason at each address.
///
/// # Cancel safety
/// Dropped, it leaves nothing behind.
pub async fn connect_to_join(token: &JoinToken) -> Result<Channel, JoinError> {
    let config = match joining_config(token) {
        Ok(config) => Arc::new(config),
        Err(error) => return Err(JoinError { attempts: vec![ConnectError::Settings(error)] }),
    };
    let mut attempts = Vec::new();
    for address in token.addresses() {
        match connect_to_any_node(*address, Arc::clone(&config), token.cluster()).await {
            Ok(channel) => return Ok(channel),
            Err(error) => attempts.push(error),
        }
    }
    Err(JoinError { attempts })
}

/// A channel to whatever node of our cluster is at this address, from an administrator (or a node) with these
/// credentials.
///
/// # Errors
/// [`ConnectError`], after at most [`CONNECT_TIMEOUT`](crate::limits::CONNECT_TIMEOUT).
///
/// # Cancel safety
/// Dropped, it leaves nothing behind.
pub async fn connect_as_administrator(credentials: &Credentials, address: SocketAddr) -> Result<Channel, ConnectError> {
    let config = any_node_config(credentials).map_err(ConnectError::Settings)?;
    connect_to_any_node(address, Arc::new(config), credentials.cluster()).await
}

/// A channel that is connected, and connects again by the same settings to the same address.
async fn connect_to_any_node(
    address: SocketAddr,
    config: Arc<ClientConfig>,
    cluster: ClusterId,
) -> Result<Channel, ConnectError> {
    let domain = Identity::domain(cluster);
    let name = ServerName::try_from(domain.clone()).expect("a cluster's domain is a DNS name");
    let first = connect(address, Arc::clone(&config), name.clone(), None).await?;
    let first = Arc::new(Mutex::new(Some(first)));
    Ok(endpoint(&domain, Lane::Control).connect_with_connector_lazy(service_fn(move |_| {
        let first = first.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (config, name) = (Arc::clone(&config), name.clone());
        async move {
            match first {
                Some(stream) => Ok(stream),
                None => connect(address, config, name, None).await,
            }
        }
    })))
}

#[cfg(test)]
mod tests;
