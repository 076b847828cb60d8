//! A request for a certificate (PKCS#10, RFC 2986), of which only the public key is taken.
//!
//! What it says about names, purposes and constraints is ignored: who asks is known from somewhere else (a join token,
//! a connection, a person), and a request could claim anything. Its signature proves that who asks holds the private
//! key.

use rcgen::{CertificateSigningRequestParams, PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm};
use tokio_rustls::rustls::pki_types::CertificateSigningRequestDer;

use crate::fingerprint::sha256;
use crate::limits::MAX_CERTIFICATE_BYTES;

/// A request whose signature was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateRequest {
    der: Vec<u8>,
    /// A point on P-256, uncompressed.
    public_key: Vec<u8>,
}

/// Bytes that are not a request that a certificate can be given for.
#[derive(Debug, thiserror::Error)]
pub enum InvalidRequest {
    /// It is too long.
    #[error("the request has {bytes} bytes, and more than {MAX_CERTIFICATE_BYTES} are never needed")]
    TooLong {
        /// How long.
        bytes: usize,
    },
    /// It cannot be read, or its signature is not by the key in it.
    #[error("the request for a certificate cannot be read, or is not signed by its own key")]
    Malformed(#[source] rcgen::Error),
    /// It is for another kind of key.
    #[error("the request is for a key of another kind than ECDSA on P-256")]
    OtherKey,
}

impl CertificateRequest {
    /// Reads a request, and checks that it is signed by the key in it.
    ///
    /// # Errors
    /// [`InvalidRequest`].
    pub fn from_der(der: &[u8]) -> Result<Self, InvalidRequest> {
        if der.len() > MAX_CERTIFICATE_BYTES {
            return Err(InvalidRequest::TooLong { bytes: der.len() });
        }
        let read = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(der))
            .map_err(InvalidRequest::Malformed)?;
        // rcgen takes the kind of the key from the signature, and the one of the other does not follow.
        let public_key = read.public_key.der_bytes();
        if read.public_key.algorithm() != &PKCS_ECDSA_P256_SHA256 || !is_point(public_key) {
            return Err(InvalidRequest::OtherKey);
        }
        Ok(Self { der: der.to_owned(), public_key: public_key.to_owned() })
    }

    /// The SHA-256 hash of the public key: two requests with the same are by the same holder of the private key.
    pub fn key_hash(&self) -> [u8; 32] {
        sha256(&self.public_key)
    }

    /// A request that was just made here.
    pub(crate) fn of_our_own(der: &[u8], public_key: &[u8]) -> Self {
        Self { der: der.to_owned(), public_key: public_key.to_owned() }
    }

    /// The request as it is sent.
    pub fn der(&self) -> &[u8] {
        &self.der
    }
}

impl PublicKeyData for CertificateRequest {
    fn der_bytes(&self) -> &[u8] {
        &self.public_key
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

/// Whether these bytes have the form of an uncompressed point of P-256 (SEC 1, 2.3.3).
fn is_point(bytes: &[u8]) -> bool {
    bytes.len() == 65 && bytes[0] == 4
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::PrivateKey;
    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};

    #[test]
    fn a_request_reads_back_as_it_was_made() {
        let request = PrivateKey::generate().expect("a key").request().expect("a request");
        assert_eq!(CertificateRequest::from_der(request.der()).expect("the request"), request);
    }

    #[test]
    fn a_request_with_any_byte_changed_is_refused_or_another_ones() {
        let request = PrivateKey::generate().expect("a key").request().expect("a request");
        for index in 0..request.der().len() {
            let mut changed = request.der().to_owned();
            changed[index] ^= 1;
            if let Ok(read) = CertificateRequest::from_der(&changed) {
                assert_eq!(read.public_key, request.public_key, "byte {index} gave another key");
            }
        }
    }

    #[test]
    fn a_request_signed_by_another_key_is_refused() {
        let [one, other] = [(); 2].map(|()| PrivateKey::generate().expect("a key"));
        let (request, other_request) = (one.request().expect("a request"), other.request().expect("a request"));
        let at =
            request.der.windows(65).position(|bytes| bytes == request.public_key).expect("the key is in its request");
        let mut stolen = request.der;
        stolen[at..at + 65].copy_from_slice(&other_request.public_key);
        let refused = CertificateRequest::from_der(&stolen).expect_err("a key that its sender does not hold");
        assert!(matches!(refused, InvalidRequest::Malformed(rcgen::Error::InvalidCertificationRequestSignature)));
    }

    #[test]
    fn other_kinds_of_keys_are_refused() {
        for algorithm in [&PKCS_ECDSA_P384_SHA384, &PKCS_ED25519] {
            let key = KeyPair::generate_for(algorithm).expect("a key");
            let request = CertificateParams::default().serialize_request(&key).expect("a request");
            let refused = CertificateRequest::from_der(request.der()).expect_err("a key of another kind");
            assert!(matches!(refused, InvalidRequest::OtherKey), "{refused}");
        }
        assert!(matches!(CertificateRequest::from_der(&[0; 1 << 20]), Err(InvalidRequest::TooLong { .. })));
    }
}
