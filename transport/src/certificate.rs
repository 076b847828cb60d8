//! The certificate of a node or an administrator: whose it is, and how long.

use std::time::{Duration, SystemTime};

use tokio_rustls::rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::error::X509Error;
use x509_parser::prelude::FromDer;

use crate::identity::{Identity, IdentityError};
use crate::limits::MAX_CERTIFICATE_BYTES;
use crate::sections;

/// A certificate that an authority signed, for a node or an administrator. That the authority is ours, [`Credentials`]
/// and TLS check.
///
/// [`Credentials`]: crate::Credentials
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedCertificate {
    der: CertificateDer<'static>,
    identity: Identity,
    validity: Validity,
}

/// From when to when a certificate is valid, in whole seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The first moment.
    pub not_before: SystemTime,
    /// The last moment.
    pub not_after: SystemTime,
}

/// Bytes that are not a certificate.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// They are too many.
    #[error("the certificate has {bytes} bytes, and more than {MAX_CERTIFICATE_BYTES} are never needed")]
    TooLong {
        /// How many.
        bytes: usize,
    },
    /// They cannot be read.
    #[error("this is no certificate")]
    Malformed(#[from] X509Error),
    /// There is something behind it.
    #[error("the certificate is followed by {bytes} bytes that do not belong to it")]
    Trailing {
        /// How many.
        bytes: usize,
    },
    /// It is from before 1970, or later than a clock can show.
    #[error("the certificate is valid at a time that no clock shows")]
    Time,
}

/// Bytes that are not the certificate of a node or an administrator.
#[derive(Debug, thiserror::Error)]
pub enum InvalidCertificate {
    /// They are no certificate at all.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// It is not said whose it is.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

impl SignedCertificate {
    /// Reads a certificate in DER form.
    ///
    /// # Errors
    /// [`InvalidCertificate`].
    pub fn from_der(der: &[u8]) -> Result<Self, InvalidCertificate> {
        let validity = Validity::of(&parse(der)?)?;
        let der = CertificateDer::from(der.to_owned());
        Ok(Self { identity: Identity::of_certificate(&der)?, der, validity })
    }

    /// Its DER form.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// Its PEM form, for people's tools.
    pub fn to_pem(&self) -> String {
        sections::encode(sections::CERTIFICATE, &self.der)
    }

    /// Whose it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// From when to when it is valid.
    pub fn validity(&self) -> Validity {
        self.validity
    }

    /// The last moment at which it is valid.
    pub fn not_after(&self) -> SystemTime {
        self.validity.not_after
    }

    /// When another one should be asked for.
    pub fn renewal_due_at(&self) -> SystemTime {
        self.validity.renewal_due_at()
    }

    pub(crate) fn as_tls(&self) -> &CertificateDer<'static> {
        &self.der
    }
}

impl Validity {
    /// After two thirds of the time: early enough for a month without an authority in a certificate of three.
    pub fn renewal_due_at(&self) -> SystemTime {
        let lifetime = self.not_after.duration_since(self.not_before).unwrap_or_default();
        self.not_before + lifetime / 3 * 2
    }

    pub(crate) fn of(certificate: &X509Certificate<'_>) -> Result<Self, Unreadable> {
        let time = |seconds: i64| {
            let since_1970 = Duration::from_secs(u64::try_from(seconds).ok()?);
            SystemTime::UNIX_EPOCH.checked_add(since_1970)
        };
        let validity = certificate.validity();
        let not_before = time(validity.not_before.timestamp()).ok_or(Unreadable::Time)?;
        let not_after = time(validity.not_after.timestamp()).ok_or(Unreadable::Time)?;
        Ok(Self { not_before, not_after })
    }
}

/// Reads one certificate and nothing else.
pub(crate) fn parse(der: &[u8]) -> Result<X509Certificate<'_>, Unreadable> {
    if der.len() > MAX_CERTIFICATE_BYTES {
        return Err(Unreadable::TooLong { bytes: der.len() });
    }
    let (rest, certificate) = X509Certificate::from_der(der).map_err(X509Error::from)?;
    if rest.is_empty() { Ok(certificate) } else { Err(Unreadable::Trailing { bytes: rest.len() }) }
}
