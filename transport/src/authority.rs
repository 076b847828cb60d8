//! The cluster's own certificate authority: one key that signs the certificates of nodes and administrators, and
//! nothing below it (path length 0) or outside the cluster (its name constraint is the cluster's domain).
//!
//! What WebPKI checks of a certificate is then all that there is to know about a peer: signed by an authority of this
//! cluster, valid now, for this purpose, with this name.

use std::fmt;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, NameConstraints, SanType, SerialNumber, date_time_ymd,
};
use sterna_runtime::chance::{self, NoRandomBytes};
use sterna_runtime::clock::wall_time;
use sterna_types::ClusterId;
use tokio_rustls::rustls::pki_types::CertificateDer;

use crate::certificate::{InvalidCertificate, SignedCertificate, Unreadable, Validity, parse};
use crate::fingerprint::Fingerprint;
use crate::identity::Identity;
use crate::key::{KeyError, PrivateKey};
use crate::limits::{AUTHORITY_LIFETIME, BACKDATING};

use crate::request::CertificateRequest;
use crate::sections::{self, SectionsError};
use crate::subject::Subject;

/// The certificate of an authority: what the cluster's members trust.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorityCertificate {
    der: CertificateDer<'static>,
    cluster: ClusterId,
    validity: Validity,
}

/// Bytes that are not the certificate of a cluster's authority.
#[derive(Debug, thiserror::Error)]
pub enum InvalidAuthority {
    /// They are no certificate at all.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// It may not sign certificates.
    #[error("the certificate is not one of an authority")]
    NoAuthority,
    /// It does not say which cluster's it is.
    #[error("the authority '{name}' is not the one of a Sterna cluster")]
    NoCluster {
        /// What it is called.
        name: String,
    },
}

impl AuthorityCertificate {
    /// Reads a certificate in DER form.
    ///
    /// # Errors
    /// [`InvalidAuthority`].
    pub fn from_der(der: &[u8]) -> Result<Self, InvalidAuthority> {
        let certificate = parse(der)?;
        if !certificate.is_ca() {
            return Err(InvalidAuthority::NoAuthority);
        }
        let name =
            certificate.subject().iter_common_name().next().and_then(|name| name.as_str().ok()).unwrap_or_default();
        let cluster = name.strip_prefix(NAME).and_then(|cluster| cluster.parse::<ClusterId>().ok());
        let cluster = cluster.ok_or_else(|| InvalidAuthority::NoCluster { name: name.to_owned() })?;
        Ok(Self { validity: Validity::of(&certificate)?, cluster, der: CertificateDer::from(der.to_owned()) })
    }

    /// Its DER form.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// Its PEM form, for people's tools.
    pub fn to_pem(&self) -> String {
        sections::encode(sections::CERTIFICATE, &self.der)
    }

    /// Whose authority it is.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// What it is known by.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.der)
    }

    /// From when to when it signs. TLS does not look at it; the certificates that it signs are valid no longer.
    pub fn validity(&self) -> Validity {
        self.validity
    }

    pub(crate) fn as_tls(&self) -> &CertificateDer<'static> {
        &self.der
    }
}

/// An authority: its certificate, and the key that signs.
///
/// Whoever has it can be any node and any administrator of the cluster.
pub struct Authority {
    key: PrivateKey,
    certificate: AuthorityCertificate,
}

/// Why an authority cannot do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// There is no key to be had.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// There is no serial number to be had.
    #[error(transparent)]
    Random(#[from] NoRandomBytes),
    /// The certificate cannot be made.
    #[error("the certificate cannot be made")]
    Make(#[from] rcgen::Error),
    /// It has ended itself.
    #[error(
        "the authority {fingerprint} of cluster {cluster} has ended, and signs nothing any more; the cluster needs a \
         new one"
    )]
    Ended {
        /// The cluster.
        cluster: ClusterId,
        /// What the authority is known by.
        fingerprint: Fingerprint,
    },
    /// What was made cannot be read.
    #[error("the certificate that was made cannot be read")]
    Made(#[from] InvalidCertificate),
    /// The authority's own certificate that was made cannot be read.
    #[error("the authority's certificate that was made cannot be read")]
    MadeAuthority(#[from] InvalidAuthority),
}

/// A text that is not an [`Authority`] with its key.
#[derive(Debug, thiserror::Error)]
pub enum InvalidAuthorityText {
    /// It has not the right parts.
    #[error(transparent)]
    Sections(#[from] SectionsError),
    /// There are more certificates than one.
    #[error("there are {count} certificates, and an authority has one")]
    Certificates {
        /// How many.
        count: usize,
    },
    /// The key is of no use.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The certificate is of no use.
    #[error(transparent)]
    Certificate(#[from] InvalidAuthority),
    /// They do not belong together.
    #[error("the authority's key and its certificate do not belong together")]
    Mismatch,
}

impl Authority {
    /// A new authority for this cluster, with a key of its own. It is nowhere but in memory.
    ///
    /// # Errors
    /// [`AuthorityError`], where the system has no random bytes.
    pub fn create(cluster: ClusterId) -> Result<Self, AuthorityError> {
        let key = PrivateKey::generate()?;
        let mut params = params(&Moments::from_now_for(AUTHORITY_LIFETIME))?;
        params.distinguished_name.push(DnType::CommonName, format!("{NAME}{cluster}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: vec![GeneralSubtree::DnsName(Identity::domain(cluster))],
            excluded_subtrees: Vec::new(),
        });
        let certificate = params.self_signed(key.pair())?;
        Ok(Self { key, certificate: AuthorityCertificate::from_der(certificate.der())? })
    }

    /// What its members trust.
    pub fn certificate(&self) -> &AuthorityCertificate {
        &self.certificate
    }

    /// Whose authority it is.
    pub fn cluster(&self) -> ClusterId {
        self.certificate.cluster
    }

    /// What it is known by.
    pub fn fingerprint(&self) -> Fingerprint {
        self.certificate.fingerprint()
    }

    /// Makes a certificate for the key in `request`, from now on (and [`BACKDATING`] before) for this long, though not
    /// longer than the authority itself is valid. That the request comes from `subject` the caller has made sure of.
    ///
    /// # Errors
    /// [`AuthorityError`].
    pub fn sign(
        &self,
        request: &CertificateRequest,
        subject: &Subject,
        lifetime: Duration,
    ) -> Result<SignedCertificate, AuthorityError> {
        self.sign_between(request, subject, Moments::from_now_for(lifetime))
    }

    /// As [`Authority::sign`], with times of the caller's choice.
    pub(crate) fn sign_between(
        &self,
        request: &CertificateRequest,
        subject: &Subject,
        mut moments: Moments,
    ) -> Result<SignedCertificate, AuthorityError> {
        moments.not_after = moments.not_after.min(self.certificate.validity.not_after);
        if moments.not_after <= moments.not_before {
            return Err(AuthorityError::Ended { cluster: self.cluster(), fingerprint: self.fingerprint() });
        }
        self.certify(request, &Identity { cluster: self.cluster(), subject: subject.clone() }, &moments)
    }

    fn certify(
        &self,
        request: &CertificateRequest,
        identity: &Identity,
        moments: &Moments,
    ) -> Result<SignedCertificate, AuthorityError> {
        let mut params = params(moments)?;
        params.subject_alt_names = vec![SanType::DnsName(identity.to_string().try_into()?)];
        params.distinguished_name.push(DnType::CommonName, identity.subject.to_string());
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = match identity.subject {
            Subject::Node(_) => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
            Subject::Administrator { .. } => vec![ExtendedKeyUsagePurpose::ClientAuth],
        };
        let issuer: Issuer<'_, &KeyPair> = Issuer::from_ca_cert_der(&self.certificate.der, self.key.pair())?;
        let signed = params.signed_by(request, &issuer)?;
        Ok(SignedCertificate::from_der(signed.der())?)
    }

    /// What an authority that has fallen into other hands might do.
    #[cfg(test)]
    pub(crate) fn sign_for_another_cluster(&self, cluster: ClusterId, subject: &Subject) -> CertificateDer<'static> {
        let request = PrivateKey::generate().expect("a key").request().expect("a request");
        let identity = Identity { cluster, subject: subject.clone() };
        let moments = Moments::from_now_for(Duration::from_secs(3600));
        self.certify(&request, &identity, &moments).expect("a certificate").as_tls().clone()
    }

    /// Key and certificate as text. It is a secret, for a file that only the node's user may read.
    pub fn to_pem(&self) -> String {
        sections::encode(sections::PRIVATE_KEY, self.key.to_pkcs8()) + &self.certificate.to_pem()
    }

    /// Reads what [`Authority::to_pem`] has written.
    ///
    /// # Errors
    /// [`InvalidAuthorityText`], also where key and certificate do not belong together.
    pub fn from_pem(text: &str) -> Result<Self, InvalidAuthorityText> {
        let (key, certificates) = sections::key_and_certificates(text)?;
        let [certificate] = certificates.as_slice() else {
            return Err(InvalidAuthorityText::Certificates { count: certificates.len() });
        };
        let (key, certificate) = (PrivateKey::from_pkcs8(&key)?, AuthorityCertificate::from_der(certificate)?);
        let certified = parse(certificate.der()).map_err(InvalidAuthority::Unreadable)?;
        if certified.public_key().raw != key.public_half() {
            return Err(InvalidAuthorityText::Mismatch);
        }
        Ok(Self { key, certificate })
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

/// From when to when something is to be valid.
pub(crate) struct Moments {
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
}

impl Moments {
    fn from_now_for(lifetime: Duration) -> Self {
        let now = wall_time();
        Self {
            not_before: now.checked_sub(BACKDATING).unwrap_or(SystemTime::UNIX_EPOCH),
            not_after: now.checked_add(lifetime.min(AUTHORITY_LIFETIME)).unwrap_or(now),
        }
    }
}

/// What is common to all certificates: times, a serial number of 128 random bits, and nothing else.
fn params(moments: &Moments) -> Result<CertificateParams, NoRandomBytes> {
    // Nobody has set a clock to before 1970 on purpose; the certificate begins there if somebody has.
    let since_1970 = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let mut params = CertificateParams::default();
    params.not_before = date_time_ymd(1970, 1, 1) + since_1970(moments.not_before);
    params.not_after = date_time_ymd(1970, 1, 1) + since_1970(moments.not_after);
    params.serial_number = Some(SerialNumber::from_slice(&chance::bytes::<16>()?));
    params.distinguished_name = DistinguishedName::new();
    Ok(params)
}

/// What the name of an authority begins with; the cluster's id follows.
const NAME: &str = "Sterna cluster ";

#[cfg(test)]
mod tests;
