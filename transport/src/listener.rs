//! Who comes in: accepts connections, shakes hands with many at a time, and hands on those whose peer is known.
//!
//! ```text
//! accept ──> a place (census) ──> handshake ──> who is it? ──> Connection ──> accept(), or tonic
//!               │ none               │ failed      │ nobody
//!               └────────────────────┴─────────────┴──> Refusals
//! ```
//!
//! One task accepts, and each handshake has a task of its own, all of them tracked, so that a peer that is slow holds
//! up nobody but itself. All ends when the token is cancelled or the listener is dropped; connections that were handed
//! on are not its business any more, but keep their place until they are dropped.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use sterna_runtime::clock::wall_time;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, sleep};
use tokio_rustls::server::TlsStream;
use tokio_stream::Stream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tonic::transport::server::Connected;

use crate::census::{Census, Most, Seat};
use crate::handshake::{Arrival, HandshakeError, handshake};
use crate::lane::Lane;
use crate::limits::{
    ACCEPT_PAUSE, ACCEPTED_BACKLOG, HANDSHAKE_TIMEOUT, MAX_CONNECTIONS, MAX_CONNECTIONS_PER_ADDRESS, MAX_HANDSHAKES,
    MAX_HANDSHAKES_PER_ADDRESS, MAX_STRANGERS, STRANGER_LIFETIME,
};
use crate::links::{Links, Shaped};
use crate::refusals::Refusals;
#[cfg(feature = "simulation")]
use crate::simulation::{self, Network};
use crate::socket::{TcpListener, TcpStream};
use crate::subject::Peer;
use crate::tls::Tls;
use crate::watched::{Cut, Watched};

/// How a listener is set up.
#[derive(Clone, Debug)]
pub struct ListenerConfig {
    /// Whose listener it is.
    pub tls: Tls,
    /// Cancelled when it is to stop.
    pub stop: CancellationToken,
    /// What peers may make it do.
    pub limits: ListenerLimits,
    /// The links that connections of nodes are on.
    pub links: Links,
}

/// What peers may make a listener do; [`limits`](crate::limits) has the reasons.
#[derive(Clone, Copy, Debug)]
pub struct ListenerLimits {
    /// Most handshakes at a time; more wait.
    pub handshakes: usize,
    /// How long a handshake may take.
    pub handshake_timeout: Duration,
    /// Most connections at a time, those in a handshake included.
    pub connections: usize,
    /// Most of them from one address.
    pub connections_per_address: usize,
    /// Most handshakes with one address at a time.
    pub handshakes_per_address: usize,
    /// Most connections without a certificate.
    pub strangers: usize,
    /// How long one of those may last.
    pub stranger_lifetime: Duration,
}

impl Default for ListenerLimits {
    fn default() -> Self {
        Self {
            handshakes: MAX_HANDSHAKES,
            handshake_timeout: HANDSHAKE_TIMEOUT,
            connections: MAX_CONNECTIONS,
            connections_per_address: MAX_CONNECTIONS_PER_ADDRESS,
            handshakes_per_address: MAX_HANDSHAKES_PER_ADDRESS,
            strangers: MAX_STRANGERS,
            stranger_lifetime: STRANGER_LIFETIME,
        }
    }
}

impl ListenerConfig {
    /// The node's listener, with the limits as they are written down, and links of its own.
    pub fn new(tls: Tls, stop: CancellationToken) -> Self {
        Self { tls, stop, limits: ListenerLimits::default(), links: Links::default() }
    }

    /// The same on these links: those of the node's [`Channels`](crate::Channels), so that both ways count as one.
    pub fn with_links(self, links: Links) -> Self {
        Self { links, ..self }
    }
}

/// Accepts connections. It is a stream of them, which tonic's `serve_with_incoming` takes.
pub struct Listener {
    accepted: mpsc::Receiver<Connection>,
    address: SocketAddr,
    refusals: Arc<Refusals>,
    tasks: TaskTracker,
    /// Stops the tasks when the listener is dropped.
    stop: DropGuard,
}

impl Listener {
    /// Listens on a socket that is bound.
    ///
    /// # Errors
    /// The socket cannot be watched, or is not bound.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn start(socket: std::net::TcpListener, config: ListenerConfig) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let socket = tokio::net::TcpListener::from_std(socket)?;
        let address = socket.local_addr()?;
        Ok(Self::on(TcpListener::System(socket), address, config))
    }

    /// Listens at this address of the network that is [installed](simulation::install).
    ///
    /// # Errors
    /// There is none, or it does not let this node listen there.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    ///
    /// # Cancel safety
    /// Dropped, it leaves nothing behind.
    #[cfg(feature = "simulation")]
    pub async fn start_simulated(address: SocketAddr, config: ListenerConfig) -> io::Result<Self> {
        let network = simulation::installed().ok_or_else(|| io::Error::other("no network is simulated"))?;
        Self::start_over(network, address, config).await
    }

    /// Listens at this address of this network.
    #[cfg(feature = "simulation")]
    pub(crate) async fn start_over(
        network: &dyn Network,
        address: SocketAddr,
        config: ListenerConfig,
    ) -> io::Result<Self> {
        let socket = network.bind(address).await?;
        Ok(Self::on(TcpListener::Simulated(socket), address, config))
    }

    fn on(socket: TcpListener, address: SocketAddr, config: ListenerConfig) -> Self {
        let limits = config.limits;
        let (sender, accepted) = mpsc::channel(ACCEPTED_BACKLOG);
        let (refusals, tasks, stop) = (Arc::new(Refusals::default()), TaskTracker::new(), config.stop.child_token());
        let door = Door {
            tls: config.tls,
            limits,
            census: Census::new(Most {
                connections: limits.connections,
                per_address: limits.connections_per_address,
                handshakes_per_address: limits.handshakes_per_address,
                strangers: limits.strangers,
            }),
            handshakes: Arc::new(Semaphore::new(limits.handshakes)),
            refusals: Arc::clone(&refusals),
            accepted: sender,
            links: config.links,
            tasks: tasks.clone(),
        };
        let stopped = stop.clone();
        tasks.spawn(async move { stopped.run_until_cancelled(door.accept(socket, &stopped)).await });
        tasks.close();
        Self { accepted, address, refusals, tasks, stop: stop.drop_guard() }
    }

    /// Where it listens.
    pub fn local_address(&self) -> SocketAddr {
        self.address
    }

    /// What was not let in.
    pub fn refusals(&self) -> Arc<Refusals> {
        Arc::clone(&self.refusals)
    }

    /// The next connection whose peer is known; `None` once it was told to stop.
    ///
    /// # Cancel safety
    /// Safe: dropped, it has taken no connection.
    pub async fn accept(&mut self) -> Option<Connection> {
        self.accepted.recv().await
    }

    /// Stops, and returns when nothing is accepted and no handshake goes on any more.
    ///
    /// # Cancel safety
    /// Dropped, it has stopped all the same, without waiting.
    pub async fn shutdown(self) {
        let Self { accepted, tasks, stop, .. } = self;
        drop((stop, accepted));
        tasks.wait().await;
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Listener({})", self.address)
    }
}

impl Stream for Listener {
    type Item = Result<Connection, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.accepted.poll_recv(context).map(|accepted| accepted.map(Ok))
    }
}

/// What the tasks of a listener work with.
#[derive(Clone)]
struct Door {
    tls: Tls,
    limits: ListenerLimits,
    census: Census,
    handshakes: Arc<Semaphore>,
    refusals: Arc<Refusals>,
    accepted: mpsc::Sender<Connection>,
    links: Links,
    tasks: TaskTracker,
}

impl Door {
    /// Accepts for ever.
    async fn accept(self, mut socket: TcpListener, stop: &CancellationToken) {
        // Nobody closes the semaphore.
        while let Ok(permit) = Arc::clone(&self.handshakes).acquire_owned().await {
            match socket.accept().await {
                Ok((tcp, address)) => match self.census.enter(address.ip()) {
                    Ok(seat) => {
                        let (door, stop) = (self.clone(), stop.clone());
                        let admit = async move { door.admit(tcp, address, seat, permit).await };
                        self.tasks.spawn(async move { stop.run_until_cancelled(admit).await });
                    }
                    Err(reason) => self.refusals.record(reason, &address, &HandshakeError::NoRoom(reason)),
                },
                Err(error) => {
                    // Out of descriptors, say: the peers wait meanwhile.
                    tracing::warn!(%error, "a connection could not be accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Shakes hands, and hands the connection on.
    async fn admit(self, tcp: TcpStream, address: SocketAddr, seat: Seat, permit: OwnedSemaphorePermit) {
        match self.welcome(tcp, address, seat).await {
            Ok(connection) => {
                // The next may begin while this one waits to be taken.
                drop(permit);
                tracing::debug!(%address, peer = %connection.peer, "connected");
                // Nobody takes it if the listener is gone.
                let _ = self.accepted.send(connection).await;
            }
            Err(error) => self.refusals.record(error.reason(), &address, &error),
        }
    }

    async fn welcome(&self, tcp: TcpStream, address: SocketAddr, mut seat: Seat) -> Result<Connection, HandshakeError> {
        let settings = self.tls.now();
        let Arrival { mut stream, peer, lane, expires } =
            handshake(tcp, &settings, self.limits.handshake_timeout).await?;
        seat.is_in();
        if let Peer::Node(node) = peer {
            let shaped = stream.get_mut().0;
            shaped.suit(lane);
            shaped.join(self.links.member(node, lane));
        }
        let stream = Watched::new(stream, &address, Arc::clone(&self.refusals));
        let stream = match peer {
            Peer::Stranger => {
                seat.is_strangers().map_err(HandshakeError::NoRoom)?;
                stream.until(Instant::now() + self.limits.stranger_lifetime, Cut::StrangerStayed)
            }
            // Expiry is all that ends an administrator's rights. Those of a node end when the metadata does not know it any more.
            Peer::Administrator { .. } => {
                let left = expires.and_then(|expires| expires.duration_since(wall_time()).ok()).unwrap_or_default();
                stream.until(Instant::now() + left, Cut::Outlived)
            }
            Peer::Node(_) => stream,
        };
        Ok(Connection { stream, peer, lane, address, _seat: seat })
    }
}

/// A connection whose peer is known: bytes in and out, TLS taken off.
pub struct Connection {
    stream: Watched<TlsStream<Shaped<TcpStream>>>,
    peer: Peer,
    lane: Lane,
    address: SocketAddr,
    _seat: Seat,
}

/// Who sent a request: tonic puts it into the request's extensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectInfo {
    /// Who it is.
    pub peer: Peer,
    /// What its connection is for; [`Lane::Control`] where the peer knows no lanes.
    pub lane: Lane,
    /// Where from.
    pub address: SocketAddr,
}

impl Connection {
    /// Who is at the other end.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Where the other end is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Connected for Connection {
    type ConnectInfo = ConnectInfo;

    fn connect_info(&self) -> ConnectInfo {
        ConnectInfo { peer: self.peer.clone(), lane: self.lane, address: self.address }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("peer", &self.peer).field("address", &self.address).finish_non_exhaustive()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests;
