//! The accepting end of one handshake: who is there, or why it is nobody of ours.

use std::io;
use std::time::{Duration, SystemTime};

use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::{self, CertificateError};
use tokio_rustls::server::TlsStream;

use crate::certificate::SignedCertificate;
use crate::connect::tls_error;
use crate::lane::Lane;
use crate::links::Shaped;
use crate::refusals::RefusalReason;
use crate::socket::TcpStream;
use crate::subject::Peer;
use crate::tls::{PeerError, Settings};

/// Why a connection is not let in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    #[error("the handshake took longer than {limit:?}")]
    TooSlow { limit: Duration },
    #[error("the connection broke")]
    Broken(#[source] io::Error),
    #[error("TLS was not agreed upon")]
    Tls(#[source] rustls::Error),
    #[error("the peer does not offer HTTP/2")]
    NoHttp2,
    #[error("the peer's certificate is valid, and of nobody that we know")]
    Nobody(#[from] PeerError),
    #[error("there are as many connections as there may be ({0})")]
    NoRoom(RefusalReason),
}

impl HandshakeError {
    pub(crate) fn reason(&self) -> RefusalReason {
        match self {
            Self::TooSlow { .. } => RefusalReason::TooSlow,
            Self::Broken(_) => RefusalReason::Departed,
            Self::Tls(error) => reason(error),
            Self::NoHttp2 => RefusalReason::Incompatible,
            Self::Nobody(_) => RefusalReason::BadCertificate,
            Self::NoRoom(reason) => *reason,
        }
    }
}

/// A connection whose peer is known.
pub(crate) struct Arrival {
    pub(crate) stream: TlsStream<Shaped<TcpStream>>,
    pub(crate) peer: Peer,
    pub(crate) lane: Lane,
    /// Until when its certificate is valid.
    pub(crate) expires: Option<SystemTime>,
}

/// Shakes hands with who has connected.
///
/// # Errors
/// [`HandshakeError`], after at most `limit`; the peer was told by an alert, where it could be.
///
/// # Cancel safety
/// Dropped, it closes the connection.
pub(crate) async fn handshake(tcp: TcpStream, settings: &Settings, limit: Duration) -> Result<Arrival, HandshakeError> {
    tcp.set_up().map_err(HandshakeError::Broken)?;
    let accept = TlsAcceptor::from(settings.server.clone()).accept(Shaped::new(tcp));
    let stream = timeout(limit, accept).await.map_err(|_| HandshakeError::TooSlow { limit })?.map_err(failed)?;
    let connection = stream.get_ref().1;
    let lane = Lane::of_protocol(connection.alpn_protocol()).ok_or(HandshakeError::NoHttp2)?;
    let certificates = connection.peer_certificates();
    let peer = settings.peer(certificates)?;
    let shown = certificates.and_then(<[_]>::first).and_then(|shown| SignedCertificate::from_der(shown).ok());
    let expires = shown.map(|shown| shown.not_after());
    Ok(Arrival { stream, peer, lane, expires })
}

fn failed(error: io::Error) -> HandshakeError {
    match tls_error(&error) {
        Some(error) => HandshakeError::Tls(error.clone()),
        None => HandshakeError::Broken(error),
    }
}

fn reason(error: &rustls::Error) -> RefusalReason {
    match error {
        rustls::Error::InvalidMessage(_)
        | rustls::Error::InappropriateMessage { .. }
        | rustls::Error::InappropriateHandshakeMessage { .. }
        | rustls::Error::PeerSentOversizedRecord => RefusalReason::NotTls,
        rustls::Error::InvalidCertificate(error) => certificate_reason(error),
        rustls::Error::AlertReceived(_) => RefusalReason::RefusedUs,
        _ => RefusalReason::Incompatible,
    }
}

fn certificate_reason(error: &CertificateError) -> RefusalReason {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => RefusalReason::Expired,
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => RefusalReason::NotYetValid,
        CertificateError::UnknownIssuer | CertificateError::BadSignature => RefusalReason::OtherAuthority,
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => RefusalReason::WrongUse,
        _ => RefusalReason::BadCertificate,
    }
}
