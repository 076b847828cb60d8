//! Who asks: as far as the socket that a connection came in on and the certificate that it showed can tell.

use std::fmt;
use std::net::SocketAddr;

use tokio_rustls::rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;

/// A client, as a [`Catalog`](crate::Catalog) sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Client {
    /// Somebody on this machine, whom the permission of a Unix socket lets in.
    Local,
    /// Somebody over TCP who has shown no certificate.
    Unknown {
        /// Where from.
        address: SocketAddr,
    },
    /// Somebody over TCP who has shown a certificate, by an authority that clients have to be from.
    Certified {
        /// Where from.
        address: SocketAddr,
        /// The DNS names in the certificate (subjectAltName), in lower case. What else it says counts for nothing: libraries
        /// disagree about common names. A wildcard is no name: it says whom the client could be, and not who it is.
        names: Vec<String>,
    },
}

impl Client {
    /// The same client, now that it has shown these certificates in a handshake that succeeded.
    pub(crate) fn certified(&mut self, certificates: Option<&[CertificateDer<'_>]>) {
        let (Self::Unknown { address }, Some(shown)) = (&*self, certificates.and_then(<[_]>::first)) else { return };
        let names = EndEntityCert::try_from(shown)
            .map(|shown| shown.valid_dns_names().map(str::to_ascii_lowercase).collect())
            .unwrap_or_default();
        *self = Self::Certified { address: *address, names };
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local => f.write_str("this machine"),
            Self::Unknown { address } => write!(f, "{address}"),
            Self::Certified { address, names } if names.is_empty() => write!(f, "{address} (without a DNS name)"),
            Self::Certified { address, names } => write!(f, "{address} ({})", names.join(", ")),
        }
    }
}
