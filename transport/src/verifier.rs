//! Servers that are known by less than their name: any node of a cluster, known by its authorities or by the
//! fingerprint of one of them.
//!
//! Nodes among themselves do not need it: they know whom they call, and rustls' own verifier does the rest. It does the
//! rest here too, once it has been found out by which authority and for which name to ask.

use std::sync::Arc;

use sterna_types::ClusterId;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
};

use crate::fingerprint::Fingerprint;
use crate::identity::{Identity, IdentityError};
use crate::subject::Subject;

/// Accepts any node of one cluster.
#[derive(Debug)]
pub(crate) struct AnyNode {
    pub(crate) cluster: ClusterId,
    pub(crate) trust: Trust,
    pub(crate) provider: Arc<CryptoProvider>,
}

/// Who may have certified the node.
#[derive(Debug)]
pub(crate) enum Trust {
    /// One of these authorities.
    Authorities(Arc<RootCertStore>),
    /// The authority with this fingerprint, whose certificate the node shows along with its own.
    Pinned(Fingerprint),
}

/// Why a server is not a node of the cluster; what WebPKI finds wrong is told by rustls.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NotANode {
    /// The authority that is pinned is not behind it.
    #[error(
        "the authority behind the server is not the one of the token, {expected}; either the token is of another \
         cluster, or somebody stands between"
    )]
    OtherAuthority {
        /// The one that is pinned.
        expected: Fingerprint,
    },
    /// Its certificate is of nobody that Sterna knows.
    #[error("the server is not a node: it does not say who it is")]
    Nobody(#[from] IdentityError),
    /// Its certificate is an administrator's, or another cluster's.
    #[error("the server is {found}, and not a node of cluster {expected}")]
    Other {
        /// Whose certificate it shows.
        found: Identity,
        /// The cluster that was called.
        expected: ClusterId,
    },
}

impl NotANode {
    /// The one that rustls was given, and wrapped.
    pub(crate) fn behind(error: &Error) -> Option<&Self> {
        match error {
            Error::InvalidCertificate(CertificateError::Other(OtherError(error))) => error.downcast_ref(),
            _ => None,
        }
    }
}

impl From<NotANode> for Error {
    fn from(error: NotANode) -> Self {
        Self::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
    }
}

impl AnyNode {
    /// Whom to trust for this chain.
    fn roots(&self, others: &[CertificateDer<'_>]) -> Result<Arc<RootCertStore>, Error> {
        match &self.trust {
            Trust::Authorities(roots) => Ok(Arc::clone(roots)),
            Trust::Pinned(expected) => {
                let pinned = others.iter().find(|certificate| Fingerprint::of(certificate) == *expected);
                let pinned = pinned.ok_or(NotANode::OtherAuthority { expected: *expected })?;
                let mut roots = RootCertStore::empty();
                roots.add(pinned.clone().into_owned())?;
                Ok(Arc::new(roots))
            }
        }
    }

    /// The name of the node that the certificate claims to be of.
    fn claimed(&self, certificate: &CertificateDer<'_>) -> Result<ServerName<'static>, NotANode> {
        let found = Identity::of_certificate(certificate)?;
        match found.subject {
            Subject::Node(_) if found.cluster == self.cluster => Ok(found.server_name()),
            _ => Err(NotANode::Other { found, expected: self.cluster }),
        }
    }
}

impl ServerCertVerifier for AnyNode {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let roots = self.roots(intermediates)?;
        let claimed = self.claimed(end_entity)?;
        WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&self.provider))
            .build()
            .map_err(|error| Error::Other(OtherError(Arc::new(error))))?
            .verify_server_cert(end_entity, intermediates, &claimed, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authority::Authority;
    use crate::credentials::Credentials;
    use crate::subject::Role;
    use crate::testing::{administrator, chain, cluster, credentials, expired, node};
    use tokio_rustls::rustls::crypto::ring;

    fn pinning(authority: &Authority) -> AnyNode {
        let provider = Arc::new(ring::default_provider());
        AnyNode { cluster: cluster(1), trust: Trust::Pinned(authority.fingerprint()), provider }
    }

    fn verify(verifier: &AnyNode, shown: &[CertificateDer<'static>]) -> Result<(), String> {
        let (leaf, others) = shown.split_first().expect("a chain");
        let name = ServerName::try_from("anything.sterna").expect("a name");
        let verified = verifier.verify_server_cert(leaf, others, &name, &[], UnixTime::now());
        verified.map(drop).map_err(|error| match NotANode::behind(&error) {
            Some(error) => chain(error),
            None => chain(&error),
        })
    }

    fn authority(number: u8) -> Authority {
        Authority::create(cluster(number)).expect("an authority")
    }

    #[test]
    fn any_node_of_the_pinned_authority_is_accepted() {
        let authority = authority(1);
        for number in [1, 2, u64::MAX] {
            assert_eq!(verify(&pinning(&authority), &credentials(&authority, node(number)).chain()), Ok(()));
        }
    }

    #[test]
    fn an_authority_that_is_only_shown_certifies_nobody() {
        // Somebody stands between, who has seen the authority's certificate and has an authority of their own.
        let (authority, forged) = (authority(1), authority(1));
        let forged_leaf = credentials(&forged, node(1)).chain().remove(0);
        let shown = [forged_leaf.clone(), authority.certificate().as_tls().clone()];
        assert!(verify(&pinning(&authority), &shown).is_err());
        let shown = [forged_leaf, forged.certificate().as_tls().clone(), authority.certificate().as_tls().clone()];
        assert!(verify(&pinning(&authority), &shown).is_err());
        // Nor does the authority serve itself.
        let shown = [authority.certificate().as_tls().clone(), authority.certificate().as_tls().clone()];
        assert!(verify(&pinning(&authority), &shown).is_err());
    }

    #[test]
    fn who_is_no_node_of_the_cluster_is_refused() {
        let (authority, elsewhere) = (authority(1), authority(2));
        let refused = |credentials: &Credentials, authority| {
            verify(&pinning(authority), &credentials.chain()).expect_err("no node of the cluster")
        };
        let error = refused(&credentials(&authority, administrator("anna", Role::Admin)), &authority);
        assert!(error.contains("and not a node of cluster"), "{error}");
        let error = refused(&credentials(&elsewhere, node(1)), &elsewhere);
        assert!(error.contains("and not a node of cluster"), "{error}");
        let error = refused(&expired(&authority, &node(1)), &authority);
        assert!(error.contains("expired"), "{error}");
        let alone = &credentials(&authority, node(1)).chain()[..1];
        let error = verify(&pinning(&authority), alone).expect_err("the authority is not shown");
        assert!(error.contains(&authority.fingerprint().to_string()), "{error}");
    }

    #[test]
    fn an_authority_has_no_say_outside_its_cluster() {
        // The authority of cluster 2 certifies a node of cluster 1, and is trusted by mistake.
        let (authority, elsewhere) = (authority(1), authority(2));
        let mut roots = RootCertStore::empty();
        roots.add(elsewhere.certificate().as_tls().clone()).expect("an authority");
        let verifier = AnyNode { trust: Trust::Authorities(Arc::new(roots)), ..pinning(&authority) };
        let shown = elsewhere.sign_for_another_cluster(cluster(1), &node(1));
        let error = verify(&verifier, &[shown]).expect_err("its name is outside");
        assert!(error.contains("NameConstraint"), "{error}");
    }
}
