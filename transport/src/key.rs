//! A private key: ECDSA on P-256, which every TLS library has, and small enough that a handshake fits into few packets.

use std::fmt;
use std::sync::Arc;

use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::request::CertificateRequest;

/// A private key. Cloning it shares it; it is never shown.
#[derive(Clone)]
pub struct PrivateKey(Arc<KeyPair>);

/// Why a key cannot be made or used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The system cannot make one.
    #[error("a key cannot be made")]
    Generate(#[source] rcgen::Error),
    /// It is no key of the one kind that is used here.
    #[error("this is no private key for ECDSA on P-256 (PKCS#8)")]
    Read(#[source] rcgen::Error),
    /// It does not sign.
    #[error("the key does not sign")]
    Sign(#[source] rcgen::Error),
}

impl PrivateKey {
    /// A new key.
    ///
    /// # Errors
    /// [`KeyError::Generate`] where the system has no random bytes.
    pub fn generate() -> Result<Self, KeyError> {
        KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map(|pair| Self(Arc::new(pair))).map_err(KeyError::Generate)
    }

    /// Asks for a certificate for this key. Who it is for is not in the request: the authority's side knows.
    ///
    /// # Errors
    /// [`KeyError::Sign`].
    pub fn request(&self) -> Result<CertificateRequest, KeyError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let request = params.serialize_request(self.0.as_ref()).map_err(KeyError::Sign)?;
        Ok(CertificateRequest::of_our_own(request.der(), self.0.der_bytes()))
    }

    /// The key in this PKCS#8 form.
    pub(crate) fn from_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
        KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(der), &PKCS_ECDSA_P256_SHA256)
            .map(|pair| Self(Arc::new(pair)))
            .map_err(KeyError::Read)
    }

    /// The key itself (PKCS#8), for a file.
    pub(crate) fn to_pkcs8(&self) -> &[u8] {
        self.0.serialized_der()
    }

    /// The key itself, for TLS.
    pub(crate) fn to_tls(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.0.serialize_der()))
    }

    /// The public half as it stands in a certificate (SubjectPublicKeyInfo).
    pub(crate) fn public_half(&self) -> Vec<u8> {
        self.0.subject_public_key_info()
    }

    pub(crate) fn pair(&self) -> &KeyPair {
        &self.0
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(…)")
    }
}
