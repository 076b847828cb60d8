//! `sterna node run`: the node of a data directory, from its start to its end.
//!
//! The order of the start: the directory is locked, the sockets are bound (clients that come early wait), metadata and
//! storage are opened, and only then is anybody served. The end goes the other way: clients first, then the volumes, which
//! are sealed, then the session, then the metadata, which other nodes may need until then.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use sterna_nbd_server::{Listener as ClientListener, NbdServer, ServerConfig, TlsPolicy};
use sterna_transport::Listener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;

use super::admin;
use super::announce::announce;
use super::authority;
use super::background::{Background, BackgroundThreads};
use super::catalog::VolumeCatalog;
use super::config::Config;
use super::directory::DataDirectory;
use super::duties::{Duties, ending_of, in_time};
use super::node::Node;
use super::peers;
use super::renewal;
use super::session::Session;
use super::sockets::Sockets;
use crate::args::node::Run;

/// Runs it until SIGTERM or SIGINT, or until a part of it fails.
///
/// # Errors
/// Why it could not start, or why it ended before it was asked to.
pub(super) fn run(run: &Run, json: bool) -> Result<()> {
    raise_file_limit();
    let directory = DataDirectory::open(&run.directory)?;
    let config = Config::read(&directory.config())?;
    let tls = config.nbd.tls.as_ref().map(|files| files.load().context("[nbd.tls] cannot be used")).transpose()?;
    let tls = tls.map_or(TlsPolicy::Off, TlsPolicy::Required);
    let sockets = Sockets::bind(&directory, &config.nbd, config.cluster.listen)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let background = BackgroundThreads::start()?;
    let result = runtime.block_on(serve(directory, config, background.handle(), tls, sockets, json));
    // A disk that hangs holds threads of the runtime: they must not hold the end.
    background.shutdown(THREADS_TIMEOUT);
    runtime.shutdown_timeout(THREADS_TIMEOUT);
    result
}

async fn serve(
    directory: DataDirectory,
    config: Config,
    background: Background,
    tls: TlsPolicy,
    mut sockets: Sockets,
    json: bool,
) -> Result<()> {
    let mut signals = Signals::new()?;
    let node = tokio::select! {
        node = Node::open(directory, &config, background) => node?,
        () = signals.next() => bail!("ended while it was starting"),
    };
    let parts = Parts::start(node, &config, &tls, &mut sockets)?;
    announce(&parts.node, &sockets, json)?;
    let Parts { node, nbd, mut admin, mut renewal, mut custody, mut duties } = parts;
    let ending = tokio::select! {
        () = signals.next() => Ok(()),
        error = duties.ended() => Err(error),
        ended = &mut admin => Err(ending_of(ended, "the admin socket")),
        ended = &mut renewal => Err(ending_of(ended.map(Ok), "renewing the certificate")),
        ended = &mut custody => Err(ending_of(ended.map(Ok), "keeping the cluster's authority")),
    };
    if let Err(error) = &ending {
        tracing::error!("shutting down: {error:#}");
    } else {
        tracing::info!("shutting down: requests finish, volumes are sealed; a second signal ends it at once");
    }
    let unfinished = "ended before all volumes were sealed; what was acknowledged is in their journals";
    tokio::select! {
        () = duties.drain(nbd.shutdown()) => {}
        () = signals.next() => bail!(unfinished),
    }
    authority::leave(&node).await;
    // What the socket and the publisher would say now follows from the shutdown.
    in_time(
        ADMIN_TIMEOUT,
        async {
            if !admin.is_finished() {
                let _ = admin.await;
            }
        },
        "commands are still running",
    )
    .await;
    tracing::info!(counters = ?nbd.counters().values(), "done");
    ending
}

/// What runs, and is watched.
struct Parts {
    node: Arc<Node>,
    nbd: Arc<NbdServer>,
    admin: JoinHandle<Result<()>>,
    renewal: JoinHandle<()>,
    custody: JoinHandle<()>,
    duties: Duties,
}

impl Parts {
    fn start(node: Arc<Node>, config: &Config, tls: &TlsPolicy, sockets: &mut Sockets) -> Result<Self> {
        let renewal = tokio::spawn(renewal::run(Arc::clone(&node)));
        let custody = tokio::spawn(authority::run(Arc::clone(&node)));
        let session = Session::keep(&node, config.cluster.listen);
        let nbd = start_nbd(&node, config, tls, &session, sockets)?;
        let service = admin::Service::new(Arc::clone(&node), Arc::clone(&nbd), sockets.uris());
        let services = admin::AdminServices::new(service);
        let listen = |socket| Listener::start(socket, peers::listener(&node)).context("cannot listen to other nodes");
        let listener = sockets.take_peers().map(listen).transpose()?;
        let over_network = services.clone();
        let duties = Duties::start(&node, session, listener, |routes| over_network.add_to(routes));
        let listener = sockets.take_admin().context("the admin socket was taken already")?;
        let admin = tokio::spawn(admin::serve(services, listener));
        Ok(Self { node, nbd, admin, renewal, custody, duties })
    }
}

/// The NBD server, on all its sockets: on those of this machine whoever their permission lets in, over TCP whoever shows that the
/// access list means him.
fn start_nbd(
    node: &Arc<Node>,
    config: &Config,
    tls: &TlsPolicy,
    session: &Session,
    sockets: &mut Sockets,
) -> Result<Arc<NbdServer>> {
    let catalog = VolumeCatalog::new(Arc::clone(node), session.news(), config.nbd.access.clone());
    let server = ServerConfig { lanes: config.nbd.lanes.into(), ..ServerConfig::new(Arc::new(catalog)) };
    let nbd = Arc::new(NbdServer::start(server).context("cannot start the NBD server")?);
    for listener in sockets.take_nbd() {
        let tls = match &listener {
            ClientListener::Unix(_) => TlsPolicy::Off,
            ClientListener::Tcp(_) if tls.is_off() => bail!(
                "a TCP socket was handed over, and clients over TCP have to show who they are: set [nbd.tls] and [nbd.access] in \
                 sterna.toml"
            ),
            ClientListener::Tcp(listener) => {
                if config.nbd.access.is_empty() {
                    let address = listener.local_addr().ok();
                    tracing::warn!(
                        ?address,
                        "NBD over TCP gives nobody anything: [nbd.access] in sterna.toml is empty"
                    );
                }
                tls.clone()
            }
        };
        nbd.listen(listener, tls).context("cannot listen for NBD clients")?;
    }
    Ok(nbd)
}

/// The signals that ask for the end.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// They are caught from now on.
    ///
    /// # Errors
    /// The system does not let us.
    pub(super) fn new() -> Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// The next one.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Lets this process have as many files open as the system allows: packs, journals, connections.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit of open files stays as it was");
    }
}

/// Commands have been told to end; long work looks several times in a second.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(5);
const THREADS_TIMEOUT: Duration = Duration::from_secs(1);
