//! Who we are on a connection: a key, the certificate for it, and the authorities that we and our peers trust.

use std::time::SystemTime;

use sterna_types::ClusterId;
use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use crate::authority::{AuthorityCertificate, InvalidAuthority};
use crate::certificate::{InvalidCertificate, SignedCertificate};
use crate::identity::Identity;
use crate::key::{KeyError, PrivateKey};
use crate::limits::MAX_AUTHORITIES;
use crate::sections::{self, SectionsError};
use crate::subject::Subject;

/// A key, its certificate, and the authorities of the cluster; they belong together. Cloning shares the key.
///
/// What is never false: the certificate is for the key; all authorities are of the certificate's cluster; one of them,
/// the *issuer*, has signed the certificate. Whether anything has expired is not looked at: connections say so.
#[derive(Clone, Debug)]
pub struct Credentials {
    key: PrivateKey,
    certificate: SignedCertificate,
    authorities: Vec<AuthorityCertificate>,
    issuer: usize,
}

/// Parts that do not belong together.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The certificate is for another key.
    #[error("the certificate of {identity} is for another key than the one beside it")]
    OtherKey {
        /// Whose certificate it is.
        identity: Identity,
    },
    /// None of the authorities has signed the certificate.
    #[error("none of the {count} trusted authorities has signed the certificate of {identity}")]
    OtherAuthority {
        /// Whose certificate it is.
        identity: Identity,
        /// How many authorities there are.
        count: usize,
    },
    /// An authority is of another cluster.
    #[error("the certificate is of cluster {cluster}, and an authority beside it of cluster {other}")]
    OtherCluster {
        /// The certificate's cluster.
        cluster: ClusterId,
        /// The authority's.
        other: ClusterId,
    },
    /// There are too many authorities.
    #[error("there are {count} trusted authorities, and there may be {MAX_AUTHORITIES}")]
    TooManyAuthorities {
        /// How many.
        count: usize,
    },
    /// The certificate cannot be looked into.
    #[error("the certificate cannot be read")]
    Certificate(#[from] webpki::Error),
}

/// A text that holds no [`Credentials`].
#[derive(Debug, thiserror::Error)]
pub enum InvalidCredentials {
    /// It has not the right parts.
    #[error(transparent)]
    Sections(#[from] SectionsError),
    /// The key is of no use.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The certificate is of no use.
    #[error(transparent)]
    Certificate(#[from] InvalidCertificate),
    /// An authority is of no use.
    #[error(transparent)]
    Authority(#[from] InvalidAuthority),
    /// The parts do not belong together.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
}

impl Credentials {
    /// Puts the parts together.
    ///
    /// # Errors
    /// [`CredentialsError`], where they do not belong together.
    pub fn new(
        key: PrivateKey,
        certificate: SignedCertificate,
        authorities: Vec<AuthorityCertificate>,
    ) -> Result<Self, CredentialsError> {
        let identity = certificate.identity();
        let (cluster, count) = (identity.cluster, authorities.len());
        if count > MAX_AUTHORITIES {
            return Err(CredentialsError::TooManyAuthorities { count });
        }
        if let Some(other) = authorities.iter().map(AuthorityCertificate::cluster).find(|other| *other != cluster) {
            return Err(CredentialsError::OtherCluster { cluster, other });
        }
        if EndEntityCert::try_from(certificate.as_tls())?.subject_public_key_info().as_ref() != key.public_half() {
            return Err(CredentialsError::OtherKey { identity: identity.clone() });
        }
        let issuer = authorities.iter().position(|authority| has_signed(authority, &certificate));
        let issuer = issuer.ok_or_else(|| CredentialsError::OtherAuthority { identity: identity.clone(), count })?;
        Ok(Self { key, certificate, authorities, issuer })
    }

    /// The same, trusting these authorities from now on; the one that signed the certificate has to be among them.
    ///
    /// # Errors
    /// [`CredentialsError`].
    pub fn with_authorities(&self, authorities: Vec<AuthorityCertificate>) -> Result<Self, CredentialsError> {
        Self::new(self.key.clone(), self.certificate.clone(), authorities)
    }

    /// Who we are.
    pub fn identity(&self) -> &Identity {
        self.certificate.identity()
    }

    /// Which cluster we are of.
    pub fn cluster(&self) -> ClusterId {
        self.identity().cluster
    }

    /// Who we are in it.
    pub fn subject(&self) -> &Subject {
        &self.identity().subject
    }

    /// Our certificate.
    pub fn certificate(&self) -> &SignedCertificate {
        &self.certificate
    }

    /// Whom we trust.
    pub fn authorities(&self) -> &[AuthorityCertificate] {
        &self.authorities
    }

    /// The one of [`Credentials::authorities`] that signed our certificate.
    pub fn issuer(&self) -> &AuthorityCertificate {
        &self.authorities[self.issuer]
    }

    /// The last moment at which our certificate is valid.
    pub fn not_after(&self) -> SystemTime {
        self.certificate.not_after()
    }

    /// When another certificate should be asked for.
    pub fn renewal_due_at(&self) -> SystemTime {
        self.certificate.renewal_due_at()
    }

    /// All parts as one text: the key, the certificate, the authorities. It is a secret, for a file that only one user
    /// may read.
    pub fn to_pem(&self) -> String {
        let authorities = self.authorities.iter().map(AuthorityCertificate::to_pem);
        let key = sections::encode(sections::PRIVATE_KEY, self.key.to_pkcs8());
        [key, self.certificate.to_pem()].into_iter().chain(authorities).collect()
    }

    /// Reads what [`Credentials::to_pem`] has written.
    ///
    /// # Errors
    /// [`InvalidCredentials`].
    pub fn from_pem(text: &str) -> Result<Self, InvalidCredentials> {
        let (key, certificates) = sections::key_and_certificates(text)?;
        let (certificate, authorities) =
            certificates.split_first().ok_or(SectionsError::Missing { expected: sections::CERTIFICATE })?;
        let authorities =
            authorities.iter().map(|der| AuthorityCertificate::from_der(der)).collect::<Result<_, _>>()?;
        let (key, certificate) = (PrivateKey::from_pkcs8(&key)?, SignedCertificate::from_der(certificate)?);
        Ok(Self::new(key, certificate, authorities)?)
    }

    pub(crate) fn key(&self) -> &PrivateKey {
        &self.key
    }

    /// What is shown in a handshake: our certificate, and its issuer, so that a node that is about to join, which knows
    /// nothing but a fingerprint, finds the authority there.
    pub(crate) fn chain(&self) -> Vec<CertificateDer<'static>> {
        vec![self.certificate.as_tls().clone(), self.issuer().as_tls().clone()]
    }

    /// Whom we trust, for TLS.
    pub(crate) fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        let (_, unusable) = roots.add_parsable_certificates(self.authorities.iter().map(|it| it.as_tls().clone()));
        // `has_signed` has made an anchor of the issuer at least; one that cannot be used lets nobody in.
        if unusable > 0 {
            tracing::warn!(unusable, "authorities cannot be used by TLS, and are not trusted");
        }
        roots
    }
}

/// Whether the authority has signed the certificate, and may have. The time is not looked at.
fn has_signed(authority: &AuthorityCertificate, certificate: &SignedCertificate) -> bool {
    let begin = certificate.validity().not_before.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let verified = anchor_from_trusted_cert(authority.as_tls()).and_then(|anchor| {
        EndEntityCert::try_from(certificate.as_tls())?
            .verify_for_usage(
                &[webpki::ring::ECDSA_P256_SHA256],
                &[anchor],
                &[],
                UnixTime::since_unix_epoch(begin),
                // Which administrators and nodes both may be.
                KeyUsage::client_auth(),
                None,
                None,
            )
            .map(drop)
    });
    verified.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authority::Authority;
    use crate::subject::Role;
    use crate::testing::{administrator, cluster, credentials, node, signed};

    #[test]
    fn credentials_read_back_as_they_were_written() {
        let authority = Authority::create(cluster(1)).expect("an authority");
        for subject in [node(3), administrator("anna", Role::Viewer)] {
            let written = credentials(&authority, subject);
            let read = Credentials::from_pem(&written.to_pem()).expect("the credentials");
            assert_eq!(read.identity(), written.identity());
            assert_eq!(read.certificate(), written.certificate());
            assert_eq!(read.authorities(), written.authorities());
            assert_eq!(read.key().to_pkcs8(), written.key().to_pkcs8());
            assert_eq!(read.renewal_due_at(), written.renewal_due_at());
        }
    }

    #[test]
    fn while_authorities_change_the_issuer_is_one_of_two() {
        let [old, new] = [(); 2].map(|()| Authority::create(cluster(1)).expect("an authority"));
        let before = credentials(&old, node(1));
        let both = vec![new.certificate().clone(), old.certificate().clone()];
        let between = before.with_authorities(both).expect("credentials with two authorities");
        assert_eq!(between.issuer(), old.certificate());
        let refused = before.with_authorities(vec![new.certificate().clone()]).expect_err("the issuer is not trusted");
        assert!(matches!(refused, CredentialsError::OtherAuthority { count: 1, .. }), "{refused}");
    }

    #[test]
    fn parts_that_do_not_belong_together_are_refused() {
        let authority = Authority::create(cluster(1)).expect("an authority");
        let (_, certificate) = signed(&authority, node(1));
        let (other_key, _) = signed(&authority, node(1));
        let authorities = vec![authority.certificate().clone()];
        let refused = Credentials::new(other_key, certificate, authorities.clone()).expect_err("another key");
        assert!(matches!(refused, CredentialsError::OtherKey { .. }), "{refused}");

        let stranger = Authority::create(cluster(2)).expect("an authority");
        let (key, certificate) = signed(&stranger, node(1));
        let refused = Credentials::new(key.clone(), certificate.clone(), authorities).expect_err("another cluster");
        assert!(matches!(refused, CredentialsError::OtherCluster { .. }), "{refused}");
        let refused = Credentials::new(key.clone(), certificate.clone(), Vec::new()).expect_err("no authority");
        assert!(matches!(refused, CredentialsError::OtherAuthority { count: 0, .. }), "{refused}");
        let many = vec![stranger.certificate().clone(); MAX_AUTHORITIES + 1];
        let refused = Credentials::new(key, certificate, many).expect_err("many authorities");
        assert!(matches!(refused, CredentialsError::TooManyAuthorities { .. }), "{refused}");
    }

    #[test]
    fn a_text_that_lacks_a_part_is_refused() {
        let text = credentials(&Authority::create(cluster(1)).expect("an authority"), node(1)).to_pem();
        let end = "-----END PRIVATE KEY-----\n";
        let (key, certificates) = text.split_at(text.find(end).expect("the key comes first") + end.len());
        for lacking in ["", key, certificates, &text[..text.len() / 2], "certificates"] {
            assert!(Credentials::from_pem(lacking).is_err(), "{lacking}");
        }
    }
}
