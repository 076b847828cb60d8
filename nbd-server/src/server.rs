//! Listeners, the lanes that connections run on, and the drain.
//!
//! A lane is a thread with a runtime of its own; each connection lives on one lane for all its life. So a request goes
//! from the socket to the device and back without changing its thread, and no other work of the process, however busy
//! its runtime is, stands in a guest's way.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use tokio::runtime::{Builder, Handle};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::client::Client;
use crate::connection::{self, End, Neighbours, Shared};
use crate::counters::Counters;
use crate::export::Catalog;
use crate::handshake::CloseReason;
use crate::limits::MAX_CONNECTIONS;
use crate::tls::TlsPolicy;

/// Threads of a lane's blocking pool: as many requests of a lane can wait in system calls at a time.
const BLOCKING_THREADS_PER_LANE: usize = 64;

/// How a server is set up.
pub struct ServerConfig {
    /// Who knows the exports.
    pub catalog: Arc<dyn Catalog>,
    /// How many lanes; 0 for one per processor.
    pub lanes: usize,
    /// Most connections of one listener at a time, at most [`MAX_CONNECTIONS`]; one more waits to be accepted. Those of one do
    /// not keep others from coming in by another.
    pub max_connections: usize,
}

impl ServerConfig {
    /// A server of these exports, with the defaults for everything else.
    pub fn new(catalog: Arc<dyn Catalog>) -> Self {
        Self { catalog, lanes: 0, max_connections: MAX_CONNECTIONS }
    }
}

/// A socket that clients connect to.
#[derive(Debug)]
pub enum Listener {
    /// A Unix socket.
    Unix(std::os::unix::net::UnixListener),
    /// A TCP socket.
    Tcp(std::net::TcpListener),
}

/// A running server. Dropping it drains it without waiting; [`NbdServer::shutdown`] waits.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::sync::Arc;
///
/// use sterna_nbd_server::export::FixedCatalog;
/// use sterna_nbd_server::{Export, ExportMode, ExportName, Listener, NbdServer, ServerConfig, TlsPolicy};
/// use sterna_types::ByteSize;
/// use sterna_types::device::MemoryDevice;
///
/// let scratch = Export {
///     name: ExportName::try_from(&b"scratch"[..])?,
///     description: Some("gone when the process ends".parse()?),
///     mode: ExportMode::ReadWrite,
///     requires_tls: false,
///     device: Arc::new(MemoryDevice::new(ByteSize(20 << 30))),
/// };
/// let server = Arc::new(NbdServer::start(ServerConfig::new(Arc::new(FixedCatalog(vec![scratch]))))?);
/// server.listen(Listener::Tcp(std::net::TcpListener::bind("127.0.0.1:0")?), TlsPolicy::Off)?;
/// // ... and at the end, in good order:
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
/// runtime.block_on(server.shutdown());
/// # Ok(())
/// # }
/// ```
pub struct NbdServer {
    shared: Shared,
    lanes: Vec<Lane>,
    next_lane: AtomicUsize,
    max_connections: usize,
    connections: TaskTracker,
    acceptors: TaskTracker,
}

struct Lane {
    handle: Handle,
    neighbours: Neighbours,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl NbdServer {
    /// Starts the lanes. Nothing is served before [`NbdServer::listen`].
    ///
    /// # Errors
    /// No thread could be started, or no event queue be had.
    pub fn start(config: ServerConfig) -> io::Result<Self> {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
        let count = if config.lanes == 0 { processors } else { config.lanes };
        let lanes = (0..count).map(Lane::start).collect::<io::Result<Vec<_>>>()?;
        Ok(Self {
            shared: Shared {
                catalog: config.catalog,
                tls: TlsPolicy::Off,
                counters: Arc::new(Counters::default()),
                drain: CancellationToken::new(),
                neighbours: Neighbours::default(),
            },
            lanes,
            next_lane: AtomicUsize::new(0),
            max_connections: config.max_connections.clamp(1, MAX_CONNECTIONS),
            connections: TaskTracker::new(),
            acceptors: TaskTracker::new(),
        })
    }

    /// What has been counted since the start.
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// How many connections there are now.
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// Accepts connections from `listener` until the shutdown, and encrypts them as `tls` says.
    ///
    /// # Errors
    /// The socket cannot be watched.
    pub fn listen(self: &Arc<Self>, listener: Listener, tls: TlsPolicy) -> io::Result<()> {
        let server = Arc::downgrade(self);
        let (drain, permits) = (self.shared.drain.clone(), Arc::new(Semaphore::new(self.max_connections)));
        let lane = &self.lanes[0].handle;
        let accepting = {
            let _in_lane = lane.enter();
            AsyncListener::new(listener)?
        };
        let accept = async move {
            while let Some(permit) = next_permit(&drain, &permits).await {
                let stream = tokio::select! {
                    stream = accepting.accept() => stream,
                    () = drain.cancelled() => break,
                };
                let Some(server) = server.upgrade() else { break };
                match stream {
                    Ok(stream) => server.attach(stream, tls.clone(), permit),
                    Err(error) => {
                        // Out of descriptors, say: the clients wait meanwhile.
                        tracing::warn!(%error, "a connection could not be accepted");
                        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                    }
                }
            }
        };
        self.acceptors.spawn_on(accept, lane);
        Ok(())
    }

    fn attach(&self, stream: Accepted, tls: TlsPolicy, permit: tokio::sync::OwnedSemaphorePermit) {
        let lane = &self.lanes[self.next_lane.fetch_add(1, Ordering::Relaxed) % self.lanes.len()];
        let shared = Shared { tls, neighbours: lane.neighbours.clone(), ..self.shared.clone() };
        shared.counters.connections.add(1);
        let joined = lane.neighbours.join();
        let serve = async move {
            let _until_it_ends = (permit, joined);
            let mut client = stream.client();
            let end = match stream {
                Accepted::Unix(stream) => match tokio::net::UnixStream::from_std(stream) {
                    Ok(stream) => connection::run(stream, &mut client, shared).await,
                    Err(error) => End::Broken(error),
                },
                Accepted::Tcp(stream, _) => match tokio::net::TcpStream::from_std(stream) {
                    Ok(stream) => connection::run(stream, &mut client, shared).await,
                    Err(error) => End::Broken(error),
                },
            };
            log_end(&end, &client);
        };
        self.connections.spawn_on(serve, &lane.handle);
    }

    /// Stops accepting, lets what is in flight finish, answers what comes later with ESHUTDOWN, and closes.
    ///
    /// Returns when the last connection is closed: after at most [`crate::limits::DRAIN_TIMEOUT`] and a second.
    ///
    /// # Cancel safety
    /// The drain goes on if this is dropped.
    pub async fn shutdown(&self) {
        self.shared.drain.cancel();
        self.acceptors.close();
        self.connections.close();
        self.acceptors.wait().await;
        self.connections.wait().await;
    }
}

impl Drop for NbdServer {
    fn drop(&mut self) {
        self.shared.drain.cancel();
    }
}

fn log_end(end: &End, client: &Client) {
    match end {
        End::Orderly | End::Handshake(CloseReason::Aborted) => tracing::debug!(%client, "a connection ended: {end}"),
        // EXPORT_NAME can be refused in no other way, and the catalog says why.
        End::Handshake(CloseReason::ExportNameRefused) => tracing::debug!(%client, "a handshake ended: {end}"),
        // Clients that do not take their leave are common, and nothing to act on.
        End::Broken(error) if is_departure(error) => tracing::debug!(%client, "a connection ended: {end}"),
        End::Broken(_) => tracing::info!(%client, "a connection ended: {end}"),
        End::InTheClear => tracing::warn!(%client, "a client was refused: {end}"),
        End::Handshake(_)
        | End::HandshakeTimeout
        | End::PlaintextBehindStartTls
        | End::Tls(_)
        | End::Violation(_)
        | End::DrainTimeout => tracing::warn!(%client, "a connection was cut: {end}"),
    }
}

/// Whether a connection broke because the peer is gone.
fn is_departure(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}

async fn next_permit(drain: &CancellationToken, permits: &Arc<Semaphore>) -> Option<tokio::sync::OwnedSemaphorePermit> {
    tokio::select! {
        permit = Arc::clone(permits).acquire_owned() => permit.ok(),
        () = drain.cancelled() => None,
    }
}

enum AsyncListener {
    Unix(tokio::net::UnixListener),
    Tcp(tokio::net::TcpListener),
}

enum Accepted {
    Unix(std::os::unix::net::UnixStream),
    Tcp(std::net::TcpStream, SocketAddr),
}

impl Accepted {
    fn client(&self) -> Client {
        match self {
            Self::Unix(_) => Client::Local,
            Self::Tcp(_, address) => Client::Unknown { address: *address },
        }
    }
}

impl AsyncListener {
    fn new(listener: Listener) -> io::Result<Self> {
        match listener {
            Listener::Unix(listener) => {
                listener.set_nonblocking(true)?;
                Ok(Self::Unix(tokio::net::UnixListener::from_std(listener)?))
            }
            Listener::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                Ok(Self::Tcp(tokio::net::TcpListener::from_std(listener)?))
            }
        }
    }

    /// Accepts a connection and takes it off this lane's event queue, so that another lane can have it.
    async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Unix(listener) => Ok(Accepted::Unix(listener.accept().await?.0.into_std()?)),
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                stream.set_nodelay(true)?;
                // A VM may be quiet for days; a peer that is gone shows only so.
                rustix::net::sockopt::set_socket_keepalive(&stream, true)?;
                tracing::debug!(%peer, "connected");
                Ok(Accepted::Tcp(stream.into_std()?, peer))
            }
        }
    }
}

impl Lane {
    fn start(index: usize) -> io::Result<Self> {
        let name = format!("nbd-lane-{index}");
        let runtime = Builder::new_current_thread()
            .enable_all()
            .thread_name(format!("{name}-io"))
            // Look for input after every turn of a task: a connection that spins does it through the event queue.
            .event_interval(1)
            .max_blocking_threads(BLOCKING_THREADS_PER_LANE)
            .build()?;
        let (handle, stop) = (runtime.handle().clone(), CancellationToken::new());
        let stopped = stop.clone();
        let thread = std::thread::Builder::new().name(name).spawn(move || runtime.block_on(stopped.cancelled()))?;
        Ok(Self { handle, neighbours: Neighbours::default(), stop, thread: Some(thread) })
    }
}

impl Drop for Lane {
    /// Ends the lane with the connections that are still on it. The server has drained them, or is dropped undrained.
    fn drop(&mut self) {
        self.stop.cancel();
        let on_this_lane = |thread: &JoinHandle<()>| thread.thread().id() == std::thread::current().id();
        if let Some(thread) = self.thread.take().filter(|thread| !on_this_lane(thread))
            && thread.join().is_err()
        {
            tracing::error!("a lane panicked");
        }
    }
}
