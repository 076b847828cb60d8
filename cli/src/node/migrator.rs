//! `sterna migrator run`: the migrator beside the node of a data directory, from its start to its end.
//!
//! It is a process of its own, so that either may be started again without the other. It has the node's name among other hosts, by the
//! node's certificate, and asks it for whatever concerns volumes, on the admin socket. In the data directory it uses
//!
//! | name | what |
//! |---|---|
//! | `migrator/LOCK` | locked by the process that runs |
//! | `migrator/vms`, `migrator/outgoing`, `migrator/incoming` | what it remembers ([`sterna_migrator::records`]) |
//! | `migrator/tokens` | which migration tokens were used up here |
//! | `migrator/run/NAME` | of a VM that has come here: its sockets, and what its QEMU says |
//! | `migrator.sock` | where it is asked for something on its host |

use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use sterna_migrator::host::{Host, MigrationsService};
use sterna_migrator::service::VmsService;
use sterna_migrator::token::Admission;
use sterna_migrator::vms::{HostSettings, Vms};
use sterna_migrator::volumes::{Node, NodeError};
use sterna_proto::migrator::migrations_server::MigrationsServer;
use sterna_proto::migrator::vms_server::VmsServer;
use sterna_runtime::work::blocking;
use sterna_storage_node::disk::SystemDisk;
use sterna_transport::{Listener, ListenerConfig, Refusals, Tls, http2};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint, Server};

use super::admin::door;
use super::config::Config;
use super::credentials;
use super::directory::{ADMIN_SOCKET, CONFIG, DataDirectory, NBD_SOCKET};
use super::duties::ending_of;
use super::gate::{Door, Gate};
use super::run::Signals;
use crate::args::MigratorCommand;
use crate::socket;

/// Carries out a command about the migrator of this host.
///
/// # Errors
/// What went wrong, for people.
pub(crate) fn command(command: MigratorCommand, json: bool) -> Result<()> {
    match command {
        MigratorCommand::Run(run) => {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            let result = runtime.block_on(serve(&run.directory, json));
            runtime.shutdown_timeout(THREADS_TIMEOUT);
            result
        }
    }
}

async fn serve(directory: &Path, json: bool) -> Result<()> {
    let mut signals = Signals::new()?;
    let (root, identity) = DataDirectory::find(directory)?;
    let config = Config::read(&root.join(CONFIG))?.migrator;
    let own = root.join(DIRECTORY);
    std::fs::create_dir_all(&own).with_context(|| format!("cannot make {}", own.display()))?;
    let _lock = SystemDisk::open(&own).context("the migrator's directory cannot be used")?;
    let files = credentials::files(&root);
    let loaded = blocking(move || files.load()).await?.context("the node's credentials cannot be read")?;
    let tls = Tls::new(loaded).context("the node's credentials cannot be used")?;
    let mut sockets = Sockets::bind(&root, config.listen)?;

    let node = tokio::select! {
        node = meet(&root) => node?,
        () = signals.next() => return Ok(()),
    };
    ensure!(
        node.place().node == identity.node,
        "what answers at {} is node {}, and this is the directory of {}",
        root.join(ADMIN_SOCKET).display(),
        node.place().node,
        identity.node
    );
    let vms = config.vms.unwrap_or_else(|| own.join("run"));
    let hooks = Arc::new(config.hooks);
    let admission = Admission::open(&own, tls.clone(), config.tokens)?;
    let settings = HostSettings { migrator: own, vms, nbd_socket: root.join(NBD_SOCKET), hooks, admission };
    let vms = Vms::open(settings.clone(), node.clone(), tls.clone()).map_err(anyhow::Error::new)?;
    let host = Host::open(settings, node, Arc::clone(&vms))?;
    vms.resume()?;

    let stop = CancellationToken::new();
    let Sockets { peers, local, .. } = &mut sockets;
    let mut outside = peers.take().map(|socket| listen_outside(socket, &host, &tls, &stop)).transpose()?;
    let local = local.take().context("the migrator's socket was taken already")?;
    let mut inside = listen_inside(local, Arc::clone(&vms), stop.clone())?;
    let renewal = tokio::spawn(follow_certificate(root.clone(), tls, stop.clone()));
    announce(&identity.node.to_string(), &root, config.listen.map(|address| address.to_string()), &vms, json)?;
    let outside_ends = async {
        match &mut outside {
            Some(task) => ending_of(task.await, "listening to other migrators"),
            None => std::future::pending().await,
        }
    };
    let ending = tokio::select! {
        () = signals.next() => Ok(()),
        error = outside_ends => Err(error),
        ended = &mut inside => Err(ending_of(ended, "the migrator's socket")),
    };
    tracing::info!("shutting down: migrations stay as they are, and are brought to an end after the next start");
    vms.stop().await;
    host.stop().await;
    stop.cancel();
    // Who still listens to something is let go of.
    let _ = tokio::time::timeout(CALLS_TIMEOUT, async {
        if let Some(task) = outside {
            let _ = task.await;
        }
        let _ = inside.await;
    })
    .await;
    renewal.abort();
    ending
}

/// The sockets, and the file of one, which is removed with this.
struct Sockets {
    peers: Option<TcpListener>,
    local: Option<UnixListener>,
    path: PathBuf,
}

impl Sockets {
    fn bind(root: &Path, peers: Option<std::net::SocketAddr>) -> Result<Self> {
        let path = root.join(SOCKET);
        let local = Some(socket::unix_listener(&path)?);
        let mut sockets = Self { peers: None, local, path };
        sockets.peers = peers.map(socket::tcp_listener).transpose().context("[migrator] listen")?;
        Ok(sockets)
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        // It may have been removed by hand.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// The node of this directory, once it answers.
async fn meet(root: &Path) -> Result<Node> {
    let mut is_first = true;
    loop {
        match Node::meet(to_node(root.join(ADMIN_SOCKET))).await {
            Ok(node) => return Ok(node),
            Err(NodeError::Status(status)) => {
                if std::mem::take(&mut is_first) {
                    tracing::warn!(%status, "the node does not answer yet; it is waited for: start it with `sterna node run`");
                }
                tokio::time::sleep(NODE_RETRY).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// A channel to the node, connected anew whenever that was started again.
fn to_node(socket: PathBuf) -> Channel {
    let connector = tower::service_fn(move |_| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    // The address is never used; HTTP asks for one.
    Endpoint::from_static("http://node.invalid").connect_with_connector_lazy(connector)
}

fn listen_outside(
    socket: TcpListener,
    host: &Arc<Host>,
    tls: &Tls,
    stop: &CancellationToken,
) -> Result<JoinHandle<Result<()>>> {
    let listener = ListenerConfig::new(tls.clone(), stop.clone());
    let listener = Listener::start(socket, listener).context("cannot listen to other migrators")?;
    let gate = Gate::new(Door::Network, listener.refusals(), stop.clone());
    let service =
        MigrationsServer::new(MigrationsService(Arc::clone(host))).max_decoding_message_size(MAX_REQUEST_BYTES);
    let stop = stop.clone();
    Ok(tokio::spawn(async move {
        let mut server = http2::server().layer(gate);
        server.add_service(service).serve_with_incoming_shutdown(listener, stop.cancelled_owned()).await?;
        Ok(())
    }))
}

fn listen_inside(listener: UnixListener, vms: Arc<Vms>, stop: CancellationToken) -> Result<JoinHandle<Result<()>>> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::UnixListener::from_std(listener).context("cannot watch the migrator's socket")?;
    let refusals = Arc::<Refusals>::default();
    let gate = Gate::new(Door::Socket, Arc::clone(&refusals), stop.clone());
    let service = VmsServer::new(VmsService(vms)).max_decoding_message_size(MAX_REQUEST_BYTES);
    Ok(tokio::spawn(async move {
        let incoming = door::open(listener, refusals);
        let mut server = Server::builder().layer(gate);
        server.add_service(service).serve_with_incoming_shutdown(incoming, stop.cancelled_owned()).await?;
        Ok(())
    }))
}

/// Shows the certificate that the node has renewed, from then on.
async fn follow_certificate(root: PathBuf, tls: Tls, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(CERTIFICATE_LOOK) => {}
        }
        let files = credentials::files(&root);
        let loaded = blocking(move || files.load()).await;
        let replaced = match loaded {
            Ok(Ok(loaded)) if loaded.not_after() == tls.credentials().not_after() => continue,
            Ok(Ok(loaded)) => tls.replace(loaded).map_err(anyhow::Error::new),
            Ok(Err(error)) => Err(error.into()),
            Err(panic) => Err(panic.into()),
        };
        match replaced {
            Ok(()) => tracing::info!("the node has a new certificate"),
            Err(error) => tracing::warn!("the node's certificate cannot be read, the old one is shown: {error:#}"),
        }
    }
}

#[derive(Serialize)]
struct Ready {
    node: String,
    directory: String,
    listen: Option<String>,
    vms: usize,
}

/// Says that it is ready. Whoever started it may wait for this line.
fn announce(node: &str, root: &Path, listen: Option<String>, vms: &Vms, json: bool) -> Result<()> {
    use std::io::Write;

    let ready = Ready { node: node.to_owned(), directory: root.display().to_string(), listen, vms: vms.list().len() };
    let line = if json {
        serde_json::to_string(&ready)?
    } else {
        let listens = ready.listen.as_deref().unwrap_or("nowhere, so VMs neither come nor leave ([migrator] listen)");
        format!("the migrator beside node {node} is ready, {} VMs; it listens at {listens}", ready.vms)
    };
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}")?;
    stdout.flush()?;
    Ok(())
}

/// What it remembers, in the data directory.
const DIRECTORY: &str = "migrator";

/// Where it is asked on its host.
pub(crate) const SOCKET: &str = "migrator.sock";

/// A command line, at most.
const MAX_REQUEST_BYTES: usize = 4 << 20;

const NODE_RETRY: Duration = Duration::from_millis(200);

/// A certificate is renewed long before it expires.
const CERTIFICATE_LOOK: Duration = Duration::from_secs(5);

/// A carried stream ends with its task.
const CALLS_TIMEOUT: Duration = Duration::from_secs(2);
const THREADS_TIMEOUT: Duration = Duration::from_secs(1);
