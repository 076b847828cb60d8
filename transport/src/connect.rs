//! One connection: TCP, TLS, and the first byte from the other end.
//!
//! In TLS 1.3 the calling end is through its handshake before the other has looked at its certificate. An HTTP/2 server
//! speaks first once it has (its SETTINGS, RFC 9113, 3.4), so that byte is waited for, and a refused certificate is an
//! error of connecting, which says so, rather than one of whatever is called first.

use std::error::Error;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use sterna_types::NodeId;
use tokio::io::AsyncBufRead;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{self, AlertDescription, ClientConfig};

use crate::lane::Lane;
use crate::limits::CONNECT_TIMEOUT;
use crate::links::{Member, Shaped};
use crate::socket::TcpStream;
use crate::tls::offering;
use crate::verifier::NotANode;

/// A connection, as tonic takes it.
pub(crate) type Stream = TokioIo<TlsStream<Shaped<TcpStream>>>;

/// Why there is no connection. Where it caused the failure of a call, [`ConnectError::behind`] finds it.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// It is not known where the node is.
    #[error("it is not known at which address node {node} is")]
    NoAddress {
        /// The node.
        node: NodeId,
    },
    /// There is no TCP connection to be had.
    #[error("{address} cannot be reached")]
    Unreachable {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// It took too long.
    #[error("{address} has not answered within {limit:?}")]
    TimedOut {
        /// Where.
        address: SocketAddr,
        /// How long is allowed.
        limit: Duration,
    },
    /// Who answers is not who was called, or does not speak TLS as we do.
    #[error("what answers at {address} is not who was called")]
    Untrusted {
        /// Where.
        address: SocketAddr,
        /// What is wrong.
        source: rustls::Error,
    },
    /// Who answers is no node of the cluster that was called.
    #[error("what answers at {address} is not a node of the cluster")]
    NotANode {
        /// Where.
        address: SocketAddr,
        /// Who it is.
        source: NotANode,
    },
    /// Who answers does not accept us.
    #[error("{address} refused the connection: {reason}", reason = reason(*.alert))]
    Refused {
        /// Where.
        address: SocketAddr,
        /// What it said.
        alert: AlertDescription,
    },
    /// The connection broke during the handshake, or behind it before a word was said.
    #[error("{address} ended the connection before it was of use")]
    Broken {
        /// Where.
        address: SocketAddr,
        /// How; nothing where it was in order.
        source: Option<io::Error>,
    },
    /// Who answers speaks no HTTP/2.
    #[error("{address} does not speak HTTP/2")]
    NoHttp2 {
        /// Where.
        address: SocketAddr,
    },
    /// The last attempt is too short a time ago.
    #[error("node {node} is not called again for another {} ms", .wait.as_millis())]
    Waiting {
        /// The node.
        node: NodeId,
        /// How long from now on.
        wait: Duration,
        /// Why the last attempt failed; nothing where it succeeded, and the connection did not last.
        #[source]
        last: Option<Arc<ConnectError>>,
    },
    /// Our own credentials or those in the token are of no use.
    #[error("TLS does not accept our own settings")]
    Settings(#[source] rustls::Error),
    /// The runtime is shutting down.
    #[error("the program is shutting down")]
    ShuttingDown,
}

impl ConnectError {
    /// The one that caused another error, a `tonic::Status` say, if one did.
    pub fn behind<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e Self> {
        let found = |error: &'e (dyn Error + 'static)| {
            error.downcast_ref().or_else(|| error.downcast_ref::<Arc<Self>>().map(AsRef::as_ref))
        };
        std::iter::successors(Some(error), |&error| error.source()).find_map(found)
    }
}

/// What an alert of TLS (RFC 8446, 6.2) means here.
fn reason(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::CertificateExpired => "our certificate has expired, or a clock is wrong".to_owned(),
        AlertDescription::UnknownCA | AlertDescription::DecryptError => {
            "it does not trust the authority that signed our certificate".to_owned()
        }
        AlertDescription::BadCertificate | AlertDescription::CertificateUnknown => {
            "our certificate is not one that it accepts".to_owned()
        }
        AlertDescription::NoApplicationProtocol => "it does not speak HTTP/2".to_owned(),
        AlertDescription::ProtocolVersion => "it does not speak TLS 1.3".to_owned(),
        other => format!("it sent the alert {other:?}"),
    }
}

/// Connects, and checks that who answers is `name` as `config` sees it. The connection is a member of a link from the
/// beginning, and of the member's lane, unless it is of none.
///
/// # Errors
/// [`ConnectError`], after at most [`CONNECT_TIMEOUT`].
///
/// # Cancel safety
/// Dropped, it leaves nothing behind.
pub(crate) async fn connect(
    address: SocketAddr,
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    member: Option<Member>,
) -> Result<Stream, ConnectError> {
    let limit = CONNECT_TIMEOUT;
    timeout(limit, connect_untimed(address, config, name, member))
        .await
        .unwrap_or(Err(ConnectError::TimedOut { address, limit }))
}

async fn connect_untimed(
    address: SocketAddr,
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    member: Option<Member>,
) -> Result<Stream, ConnectError> {
    shake_hands(TcpStream::connect(address).await, address, config, name, member).await
}

/// As [`connect`], over this network, and for as long as it takes.
#[cfg(all(test, feature = "simulation"))]
pub(crate) async fn connect_over(
    network: &dyn crate::simulation::Network,
    address: SocketAddr,
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
) -> Result<Stream, ConnectError> {
    shake_hands(TcpStream::connect_over(network, address).await, address, config, name, None).await
}

/// The calling end of a handshake: checks who answers on a connection, if there is one.
async fn shake_hands(
    tcp: io::Result<TcpStream>,
    address: SocketAddr,
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    member: Option<Member>,
) -> Result<Stream, ConnectError> {
    let unreachable = |source| ConnectError::Unreachable { address, source };
    let tcp = tcp.map_err(unreachable)?;
    tcp.set_up().map_err(unreachable)?;
    let broken = |error| broken(address, error);
    let mut tcp = Shaped::new(tcp);
    let mut config = config;
    if let Some(member) = member {
        config = offering(config, member.lane());
        tcp.suit(member.lane());
        tcp.join(member);
    }
    let mut stream = TlsConnector::from(config).connect(name, tcp).await.map_err(broken)?;
    if Lane::of_protocol(stream.get_ref().1.alpn_protocol()).is_none() {
        return Err(ConnectError::NoHttp2 { address });
    }
    let spoken = poll_fn(|context| Pin::new(&mut stream).poll_fill_buf(context).map_ok(|bytes| !bytes.is_empty()));
    if spoken.await.map_err(broken)? {
        Ok(TokioIo::new(stream))
    } else {
        Err(ConnectError::Broken { address, source: None })
    }
}

/// What the error of a TLS stream tells.
fn broken(address: SocketAddr, error: io::Error) -> ConnectError {
    match tls_error(&error) {
        Some(rustls::Error::AlertReceived(alert)) => ConnectError::Refused { address, alert: *alert },
        Some(error) => match NotANode::behind(error) {
            Some(source) => ConnectError::NotANode { address, source: source.clone() },
            None => ConnectError::Untrusted { address, source: error.clone() },
        },
        None => ConnectError::Broken { address, source: Some(error) },
    }
}

/// The error of TLS that is wrapped in one of I/O.
pub(crate) fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}
