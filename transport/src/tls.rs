//! The settings of both ends of a connection, made of a node's credentials, and replaced while connections go on.
//!
//! TLS 1.3 only, HTTP/2 inside (ALPN `h2`, or the [`Lane`]'s name for it), nothing sent before the handshake is complete. No session is resumed: a
//! resumed one would be believed what its certificate said earlier, after it expired or its authority was dropped.
//!
//! A client need not show a certificate, so that a node can join; one that is shown has to be valid, or the handshake
//! fails.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use sterna_runtime::clock::wall_time;
use sterna_types::NodeId;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::{CertificateDer, UnixTime};
use tokio_rustls::rustls::server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier};
use tokio_rustls::rustls::time_provider::TimeProvider;
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{self, ClientConfig, ConfigBuilder, ServerConfig, WantsVerifier};

use crate::credentials::Credentials;
use crate::identity::{Identity, IdentityError};
use crate::lane::{ALPN, Lane};
use crate::subject::{Peer, Subject};
use crate::token::JoinToken;
use crate::verifier::{AnyNode, Trust};

/// A node's TLS, at both ends. Cloning shares it: what is replaced is replaced everywhere.
///
/// What is never false: whatever it is replaced by, it is the same node of the same cluster.
#[derive(Clone)]
pub struct Tls(Arc<RwLock<Arc<Settings>>>);

/// What one handshake goes by.
pub(crate) struct Settings {
    pub(crate) credentials: Arc<Credentials>,
    pub(crate) server: Arc<ServerConfig>,
    pub(crate) client: Arc<ClientConfig>,
}

/// Why credentials are of no use for a node's TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// They are an administrator's.
    #[error("these are the credentials of {identity}, and only a node can serve")]
    NotANode {
        /// Whose they are.
        identity: Identity,
    },
    /// They are another one's than those before.
    #[error("the credentials of {before} cannot be replaced by those of {after}")]
    Another {
        /// Whose those before are.
        before: Identity,
        /// Whose these are.
        after: Identity,
    },
    /// TLS does not take the key or the certificate.
    #[error("TLS does not accept the credentials")]
    Settings(#[from] rustls::Error),
    /// TLS does not take the authorities.
    #[error("TLS does not accept the trusted authorities")]
    Authorities(#[from] VerifierBuilderError),
}

/// Why a peer whose certificate is valid is nobody of ours all the same.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PeerError {
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("the certificate is for {found}, of another cluster")]
    OtherCluster { found: Identity },
}

impl Tls {
    /// The TLS of the node that these credentials are of.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn new(credentials: Credentials) -> Result<Self, TlsError> {
        Ok(Self(Arc::new(RwLock::new(Arc::new(Settings::new(credentials)?)))))
    }

    /// Uses these credentials from the next handshake on; connections that exist go on with what they have.
    ///
    /// # Errors
    /// [`TlsError`]; then the old ones stay. So where they are of another node or cluster.
    pub fn replace(&self, credentials: Credentials) -> Result<(), TlsError> {
        let (before, after) = (self.credentials().identity().clone(), credentials.identity().clone());
        if before != after {
            return Err(TlsError::Another { before, after });
        }
        let settings = Arc::new(Settings::new(credentials)?);
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = settings;
        Ok(())
    }

    /// The credentials that the next handshake uses.
    pub fn credentials(&self) -> Arc<Credentials> {
        Arc::clone(&self.now().credentials)
    }

    /// What the next handshake goes by.
    pub(crate) fn now(&self) -> Arc<Settings> {
        // Nothing panics while it is held, and a whole value is all that is ever in it.
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tls({})", self.credentials().identity())
    }
}

impl Settings {
    fn new(credentials: Credentials) -> Result<Self, TlsError> {
        match credentials.subject() {
            Subject::Node(_) => Ok(Self {
                server: Arc::new(server_config(&credentials)?),
                client: Arc::new(client_config(&credentials)?),
                credentials: Arc::new(credentials),
            }),
            Subject::Administrator { .. } => Err(TlsError::NotANode { identity: credentials.identity().clone() }),
        }
    }

    /// The name to ask for when this node is called.
    pub(crate) fn identity_of(&self, node: NodeId) -> Identity {
        Identity { cluster: self.credentials.cluster(), subject: Subject::Node(node) }
    }

    /// Who showed these certificates in a handshake that succeeded.
    pub(crate) fn peer(&self, certificates: Option<&[CertificateDer<'_>]>) -> Result<Peer, PeerError> {
        let Some(certificate) = certificates.and_then(<[_]>::first) else { return Ok(Peer::Stranger) };
        let found = Identity::of_certificate(certificate)?;
        if found.cluster == self.credentials.cluster() {
            Ok(found.subject.into())
        } else {
            Err(PeerError::OtherCluster { found })
        }
    }
}

pub(crate) fn server_config(credentials: &Credentials) -> Result<ServerConfig, TlsError> {
    let provider = provider();
    let roots = Arc::new(credentials.roots());
    let clients =
        WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider)).allow_unauthenticated().build()?;
    let mut config = ServerConfig::builder_with_details(provider, Arc::new(TimeOfDay))
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(clients)
        .with_single_cert(credentials.chain(), credentials.key().to_tls())?;
    // The first of ours that the client offers is agreed upon, so the one that everybody offers comes last.
    config.alpn_protocols = Lane::ALL.iter().rev().map(|lane| lane.protocol().to_vec()).collect();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// For calls from a node to a node whose name it knows.
fn client_config(credentials: &Credentials) -> Result<ClientConfig, rustls::Error> {
    let config = client()?
        .with_root_certificates(credentials.roots())
        .with_client_auth_cert(credentials.chain(), credentials.key().to_tls())?;
    Ok(finished(config))
}

/// For calls from an administrator, or a node, to whatever node is at an address.
pub(crate) fn any_node_config(credentials: &Credentials) -> Result<ClientConfig, rustls::Error> {
    let trust = Trust::Authorities(Arc::new(credentials.roots()));
    let verifier = AnyNode { cluster: credentials.cluster(), trust, provider: provider() };
    let config = client()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_auth_cert(credentials.chain(), credentials.key().to_tls())?;
    Ok(finished(config))
}

/// For the call of a node that has nothing but a token, to whatever node is at an address.
pub(crate) fn joining_config(token: &JoinToken) -> Result<ClientConfig, rustls::Error> {
    let trust = Trust::Pinned(token.authority());
    let verifier = AnyNode { cluster: token.cluster(), trust, provider: provider() };
    let config = client()?.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth();
    Ok(finished(config))
}

/// What all calls have in common before it is said whom to believe.
fn client() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, rustls::Error> {
    ClientConfig::builder_with_details(provider(), Arc::new(TimeOfDay)).with_protocol_versions(&[&TLS13])
}

/// And after it.
fn finished(mut config: ClientConfig) -> ClientConfig {
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config
}

/// The same for a connection of this lane: its name is offered before what a node that knows no lanes takes.
pub(crate) fn offering(config: Arc<ClientConfig>, lane: Lane) -> Arc<ClientConfig> {
    if lane.protocol() == ALPN {
        return config;
    }
    let mut config = Arc::unwrap_or_clone(config);
    config.alpn_protocols = vec![lane.protocol().to_vec(), ALPN.to_vec()];
    Arc::new(config)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// The time by which certificates are checked: the same by which they are made. Before 1970 there is none, and no certificate is
/// valid.
#[derive(Debug)]
struct TimeOfDay;

impl TimeProvider for TimeOfDay {
    fn current_time(&self) -> Option<UnixTime> {
        wall_time().duration_since(SystemTime::UNIX_EPOCH).ok().map(UnixTime::since_unix_epoch)
    }
}
