//! STARTTLS with certificates (rustls, TLS 1.2 and 1.3).
//!
//! Pre-shared keys, which some NBD programs offer besides certificates, rustls has not (`docs/decisions`).

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use tokio_rustls::rustls::{self, RootCertStore, ServerConfig};
use tokio_rustls::server::TlsStream;

use crate::handshake::TlsTerms;

/// Whether and how connections are encrypted.
#[derive(Clone, Default)]
pub enum TlsPolicy {
    /// They are not.
    #[default]
    Off,
    /// Those whose clients ask for it; an export can insist.
    Offered(Arc<ServerConfig>),
    /// All of them, from the first option on.
    Required(Arc<ServerConfig>),
}

impl TlsPolicy {
    /// What the handshake has to know of it.
    pub(crate) fn terms(&self) -> TlsTerms {
        match self {
            Self::Off => TlsTerms::Off,
            Self::Offered(_) => TlsTerms::Offered,
            Self::Required(_) => TlsTerms::Required,
        }
    }

    /// Whether connections in the clear are served.
    pub fn is_off(&self) -> bool {
        matches!(self, Self::Off)
    }

    /// Upgrades a connection whose STARTTLS was acknowledged.
    pub(crate) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) -> io::Result<TlsStream<S>> {
        match self {
            Self::Off => Err(io::Error::other("TLS is not configured")),
            Self::Offered(config) | Self::Required(config) => {
                TlsAcceptor::from(Arc::clone(config)).accept(stream).await
            }
        }
    }
}

/// Where the server's identity is kept, as PEM files.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The certificate, with the chain behind it.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authority that clients' certificates have to be from; `None` where clients need none.
    pub client_ca: Option<PathBuf>,
}

/// Why the server's identity cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsFilesError {
    /// A file cannot be read, or holds no such thing.
    #[error("{path} holds no usable {what} in PEM form", path = path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What it was to hold.
        what: &'static str,
        /// Why it does not.
        source: pem::Error,
    },
    /// A file holds nothing of what it was to hold.
    #[error("{path} holds no {what}", path = path.display())]
    Empty {
        /// The file.
        path: PathBuf,
        /// What it was to hold.
        what: &'static str,
    },
    /// Certificate and key are not accepted, or do not belong together.
    #[error("the certificate or its key cannot be used")]
    Identity(#[from] rustls::Error),
    /// The authority for clients is not accepted.
    #[error("the clients' authority cannot be used")]
    ClientCa(#[from] VerifierBuilderError),
}

impl TlsFiles {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsFilesError`], with the file that is at fault.
    pub fn load(&self) -> Result<Arc<ServerConfig>, TlsFilesError> {
        let chain = certificates(&self.certificate)?;
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|source| TlsFilesError::Pem {
            path: self.key.clone(),
            what: "private key",
            source,
        })?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder =
            ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates(path)? {
                    roots.add(certificate)?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        Ok(Arc::new(builder.with_single_cert(chain, key)?))
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsFilesError> {
    let what = "certificate";
    let failed = |source| TlsFilesError::Pem { path: path.to_owned(), what, source };
    let chain = CertificateDer::pem_file_iter(path).map_err(failed)?.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    if chain.is_empty() { Err(TlsFilesError::Empty { path: path.to_owned(), what }) } else { Ok(chain) }
}
