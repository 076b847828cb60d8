//! Statements: bytes that somebody has signed with the key of their certificate, for those who were not on the connection.
//!
//! Whoever receives one knows by it what a connection would tell: an authority of the cluster has certified the signer, the certificate is
//! valid at that moment, and these bytes are what was signed. What the signer may state is for the receiver to decide, by who it is.
//!
//! The same keys sign in TLS and in requests for certificates. Neither can be taken for a statement: what is signed here begins with its
//! [`Purpose`], what TLS 1.3 signs with 64 spaces (RFC 8446, 4.4.3), and a request with the tag of a DER sequence.

use std::time::SystemTime;

use rcgen::SigningKey;
use tokio_rustls::rustls::pki_types::{SignatureVerificationAlgorithm, UnixTime};
use webpki::{EndEntityCert, Error, KeyUsage, anchor_from_trusted_cert};

use crate::authority::AuthorityCertificate;
use crate::certificate::SignedCertificate;
use crate::credentials::Credentials;
use crate::identity::Identity;
use crate::key::KeyError;

/// What a statement is for: no statement for one purpose is one for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Purpose(&'static str);

impl Purpose {
    /// One that is called this: words that nothing else is called.
    pub const fn new(name: &'static str) -> Self {
        Self(name)
    }

    /// What is signed. The end of the name is known by the zero behind it, which no name has.
    fn signed(self, statement: &[u8]) -> Vec<u8> {
        [b"sterna statement: ", self.0.as_bytes(), b"\0", statement].concat()
    }
}

/// Why a statement is not to be believed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum UntrustedStatement {
    /// The certificate is over.
    #[error("the certificate of {signer} has expired: have another one made (sterna cluster admin create)")]
    Expired {
        /// Whose it is.
        signer: Identity,
    },
    /// It has not begun.
    #[error(
        "the certificate of {signer} is not valid yet: compare the clock of this machine with that of the one that has made it"
    )]
    NotValidYet {
        /// Whose it is.
        signer: Identity,
    },
    /// None of the authorities is behind it.
    #[error("no authority of this cluster has certified {signer}: {source}")]
    Authority {
        /// Whom the certificate claims to be of.
        signer: Identity,
        /// What WebPKI says of the last authority that was tried.
        source: Error,
    },
    /// It is not what was signed.
    #[error("it is not what {signer} has signed: it was altered on the way, or somebody else has made it")]
    Altered {
        /// Whose certificate is beside it.
        signer: Identity,
    },
}

impl Credentials {
    /// Signs a statement, with the key of these credentials. Who is to believe it needs [`Credentials::certificate`] as well.
    ///
    /// # Errors
    /// [`KeyError::Sign`].
    pub fn sign_statement(&self, purpose: Purpose, statement: &[u8]) -> Result<Vec<u8>, KeyError> {
        self.key().pair().sign(&purpose.signed(statement)).map_err(KeyError::Sign)
    }
}

impl SignedCertificate {
    /// Whether the one that this certificate is for has signed the statement, and one of these authorities has certified them for the moment
    /// `at`.
    ///
    /// # Errors
    /// [`UntrustedStatement`].
    pub fn verify_statement(
        &self,
        authorities: &[AuthorityCertificate],
        purpose: Purpose,
        statement: &[u8],
        signature: &[u8],
        at: SystemTime,
    ) -> Result<(), UntrustedStatement> {
        let signer = || self.identity().clone();
        let untrusted = |error| match error {
            Error::CertExpired { .. } => UntrustedStatement::Expired { signer: signer() },
            Error::CertNotValidYet { .. } => UntrustedStatement::NotValidYet { signer: signer() },
            source => UntrustedStatement::Authority { signer: signer(), source },
        };
        let certificate = EndEntityCert::try_from(self.as_tls()).map_err(untrusted)?;
        let anchors = authorities.iter().map(|authority| anchor_from_trusted_cert(authority.as_tls()));
        let anchors = anchors.collect::<Result<Vec<_>, _>>().map_err(untrusted)?;
        // Before 1970 nothing is valid.
        let at = UnixTime::since_unix_epoch(at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default());
        let usage = KeyUsage::client_auth();
        let verified = certificate.verify_for_usage(&[ALGORITHM], &anchors, &[], at, usage, None, None);
        verified.map(drop).map_err(untrusted)?;
        let signed = certificate.verify_signature(ALGORITHM, &purpose.signed(statement), signature);
        signed.map_err(|_| UntrustedStatement::Altered { signer: signer() })
    }
}

/// That of all keys here.
const ALGORITHM: &dyn SignatureVerificationAlgorithm = webpki::ring::ECDSA_P256_SHA256;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::authority::Authority;
    use crate::subject::Role;
    use crate::testing::{administrator, cluster, credentials, expired, node};

    const ORDER: Purpose = Purpose::new("an order");

    fn authority(number: u8) -> Authority {
        Authority::create(cluster(number)).expect("an authority")
    }

    fn verify(signer: &Credentials, by: &Authority, statement: &[u8], signature: &[u8]) -> Result<(), String> {
        let (trusted, now) = ([by.certificate().clone()], SystemTime::now());
        let verified = signer.certificate().verify_statement(&trusted, ORDER, statement, signature, now);
        verified.map_err(|error| error.to_string())
    }

    #[test]
    fn what_was_signed_is_believed_and_nothing_else() {
        let authority = authority(1);
        for subject in [administrator("anna", Role::Operator), node(3)] {
            let signer = credentials(&authority, subject);
            let signature = signer.sign_statement(ORDER, b"go").expect("a signature");
            assert_eq!(verify(&signer, &authority, b"go", &signature), Ok(()));
            let altered = verify(&signer, &authority, b"gone", &signature).expect_err("another statement");
            assert!(altered.contains("altered on the way"), "{altered}");
            assert!(verify(&signer, &authority, b"go", b"").is_err());
            for byte in 0..signature.len() {
                let mut signature = signature.clone();
                signature[byte] ^= 1;
                assert!(verify(&signer, &authority, b"go", &signature).is_err(), "byte {byte}");
            }
        }
    }

    #[test]
    fn a_statement_for_one_purpose_is_none_for_another() {
        let authority = authority(1);
        let signer = credentials(&authority, administrator("anna", Role::Operator));
        for (other, statement) in [("another order", b"go".as_slice()), ("an", b"order\0go"), ("an order\0", b"go")] {
            let signature = signer.sign_statement(Purpose::new(other), statement).expect("a signature");
            assert!(verify(&signer, &authority, b"go", &signature).is_err(), "{other}");
        }
    }

    #[test]
    fn who_is_certified_by_somebody_else_or_no_more_is_not_believed() {
        let (own, same_name, elsewhere) = (authority(1), authority(1), authority(2));
        for foreign in [&same_name, &elsewhere] {
            let signer = credentials(foreign, administrator("anna", Role::Operator));
            let signature = signer.sign_statement(ORDER, b"go").expect("a signature");
            let refused = verify(&signer, &own, b"go", &signature).expect_err("a foreign authority");
            assert!(refused.contains("no authority of this cluster has certified anna.operator"), "{refused}");
        }
        let over = expired(&own, &administrator("anna", Role::Operator));
        let signature = over.sign_statement(ORDER, b"go").expect("a signature");
        let refused = verify(&over, &own, b"go", &signature).expect_err("it is over");
        assert!(refused.contains("has expired"), "{refused}");
        let early = SystemTime::now() - Duration::from_secs(5 * 3600);
        let trusted = [own.certificate().clone()];
        let refused = over.certificate().verify_statement(&trusted, ORDER, b"go", &signature, early);
        assert!(matches!(refused, Err(UntrustedStatement::NotValidYet { .. })), "{refused:?}");
    }
}
