//! Joining a cluster: what a new node asks, and what the node that it asks answers (`Enrolment` in `node.proto`).
//!
//! 1. The new node makes a key, and everything of its data directory that it can make alone.
//! 2. It connects to an address of its token. The other side has to show a certificate of the authority that the token names.
//! 3. It sends the token's secret, its public key, its name, site and address.
//! 4. The other side has the metadata let it in: the token is used up with that, and the node has its id.
//! 5. It signs the new node's certificate, and sends it.
//! 6. The new node keeps it, and its directory is complete.
//!
//! Cut between 4 and 6, the same key may ask again with the same token as long as the new node has its key; a new attempt with
//! another key needs another token, and the name is taken: `sterna cluster node remove` frees it.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use sterna_consensus::ProposeError;
use sterna_consensus::state::cluster::MetadataVersion;
use sterna_consensus::state::command::{Admission, Command};
use sterna_consensus::state::outcome::Outcome;
use sterna_consensus::state::token::Digest;
use sterna_consensus::state::volume::UnixTime;
use sterna_proto::node::enrolment_client::EnrolmentClient;
use sterna_proto::node::enrolment_server::Enrolment;
use sterna_proto::node::{
    FetchAuthorityReply, FetchAuthorityRequest, HoldsAuthorityReply, HoldsAuthorityRequest, JoinReply, JoinRequest,
    RenewReply, RenewRequest,
};
use sterna_transport::{
    Authority, AuthorityCertificate, CertificateRequest, ConnectInfo, Credentials, JoinToken, Peer, PrivateKey,
    RefusalReason, Refusals, SecretHash, SignedCertificate, Subject, TokenSecret, connect_to_join,
};
use sterna_types::limits::MAX_NAME_BYTES;
use sterna_types::names::InvalidName;
use sterna_types::{NodeId, NodeName, SiteName, TokenId};
use tonic::{Code, Request, Response, Status};

use super::authority;
use super::clock::now;
use super::node::Node;

/// What a new node is to be.
pub(super) struct Newcomer {
    pub(super) name: NodeName,
    pub(super) site: SiteName,
    pub(super) address: SocketAddr,
}

/// Steps 2 to 5, from the new node's side.
///
/// # Errors
/// Why it was not let in, for people.
pub(super) async fn join(token: &JoinToken, newcomer: &Newcomer) -> Result<(NodeId, Credentials)> {
    let key = PrivateKey::generate().context("cannot make a key")?;
    let channel = connect_to_join(token).await.context("cannot reach the cluster")?;
    let request = JoinRequest {
        token: token.id().0,
        secret: token.secret().as_bytes().to_vec(),
        certificate_request: key.request()?.der().to_vec(),
        name: newcomer.name.to_string(),
        site: newcomer.site.to_string(),
        address: newcomer.address.to_string(),
        metadata_version: MetadataVersion::CURRENT.0,
    };
    let reply = EnrolmentClient::new(channel).join(request).await;
    let reply =
        reply.map_err(|status| anyhow::anyhow!("the cluster does not let this node in: {}", status.message()))?;
    let JoinReply { node, certificate, authorities } = reply.into_inner();
    let credentials = credentials_of(key, &certificate, &authorities)?;
    Ok((NodeId(node), credentials))
}

pub(super) fn credentials_of(key: PrivateKey, certificate: &[u8], authorities: &[Vec<u8>]) -> Result<Credentials> {
    let certificate = SignedCertificate::from_der(certificate).context("the certificate that was sent")?;
    let authorities = authorities.iter().map(|der| AuthorityCertificate::from_der(der));
    let authorities = authorities.collect::<Result<Vec<_>, _>>().context("the authority that was sent")?;
    Credentials::new(key, certificate, authorities).context("the certificate that was sent")
}

/// Steps 4 and 5, from the other side.
pub(super) struct EnrolmentService {
    node: Arc<Node>,
    refusals: Arc<Refusals>,
}

impl EnrolmentService {
    /// Lets nodes into `node`'s cluster. Those that are not let in are counted and logged there.
    pub(super) fn new(node: Arc<Node>, refusals: Arc<Refusals>) -> Self {
        Self { node, refusals }
    }

    /// The node of the cluster that asks, if it is one.
    fn known_node<T>(&self, request: &Request<T>) -> Option<NodeId> {
        match request.extensions().get::<ConnectInfo>()?.peer {
            Peer::Node(id) => self.node.metadata.read().node(id).map(|node| node.id),
            Peer::Administrator { .. } | Peer::Stranger => None,
        }
    }

    /// Looks at the token before anything is proposed: strangers write nothing into the log.
    fn check_token(&self, token: TokenId, secret: &TokenSecret, now: UnixTime) -> Result<(), Status> {
        let metadata = self.node.metadata.read();
        let known = metadata.tokens().find(|known| known.id == token);
        match known.filter(|known| SecretHash::from_bytes(known.secret.0).matches(secret)) {
            Some(known) if known.expires > now => Ok(()),
            Some(_) => Err(Status::permission_denied(format!("token {token} has expired: ask for a new one"))),
            None => Err(Status::permission_denied(format!("there is no token {token} with this secret"))),
        }
    }

    async fn admit(&self, request: JoinRequest) -> Result<JoinReply, Status> {
        let invalid = |what: &dyn std::fmt::Display| Status::invalid_argument(what.to_string());
        let secret: [u8; 16] =
            request.secret.as_slice().try_into().map_err(|_| invalid(&"a token's secret has 16 bytes"))?;
        let (token, secret) = (TokenId(request.token), TokenSecret::from_bytes(secret));
        let at = now();
        self.check_token(token, &secret, at)?;
        let signing = CertificateRequest::from_der(&request.certificate_request).map_err(|error| invalid(&error))?;
        let authority = authority::to_sign(&self.node).await?;
        let admission = Admission {
            token,
            secret: Digest(*secret.hash().as_bytes()),
            at,
            knows: MetadataVersion(request.metadata_version),
            key: Digest(signing.key_hash()),
            name: request.name.parse().map_err(|error: InvalidName| invalid(&error))?,
            site: request.site.parse().map_err(|error: InvalidName| invalid(&error))?,
            address: request.address.parse().map_err(|error: std::net::AddrParseError| invalid(&error))?,
        };
        let (name, site, address) = (admission.name.clone(), admission.site.clone(), admission.address);
        let node = match self.node.metadata.propose(Command::AdmitNode(admission)).await {
            Ok(Outcome::Admitted { node }) => node,
            Ok(other) => return Err(Status::internal(format!("an admission has the outcome {other:?}"))),
            Err(ProposeError::Refused(refusal)) => return Err(Status::permission_denied(refusal.to_string())),
            Err(error) => return Err(Status::new(Code::Unavailable, error.to_string())),
        };
        tracing::info!(%node, %name, %site, %address, %token, "a node has joined");
        let (certificate, authorities) = self.sign(&authority, &signing, &Subject::Node(node))?;
        Ok(JoinReply { node: node.0, certificate, authorities })
    }

    fn sign(
        &self,
        authority: &Authority,
        request: &CertificateRequest,
        subject: &Subject,
    ) -> Result<(Vec<u8>, Vec<Vec<u8>>), Status> {
        let signed = authority.sign(request, subject, self.node.certificate_lifetime);
        let signed = signed.map_err(|error| Status::internal(error.to_string()))?;
        let authorities = self.node.tls.credentials().authorities().iter().map(|ca| ca.der().to_vec()).collect();
        Ok((signed.der().to_vec(), authorities))
    }
}

#[tonic::async_trait]
impl Enrolment for EnrolmentService {
    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinReply>, Status> {
        let from = request.extensions().get::<ConnectInfo>().map(|info| info.address);
        let request = request.into_inner();
        let name: String = request.name.chars().take(MAX_NAME_BYTES).flat_map(char::escape_debug).collect();
        let what = format!("token {}, node '{name}'", TokenId(request.token));
        let admitted = self.admit(request).await;
        let admitted = admitted.inspect_err(|status| {
            let from = from.map_or_else(|| "an unknown address".to_owned(), |from| from.to_string());
            let why = format!("a node was not let in: {}", status.message());
            self.refusals.record_call(RefusalReason::BadToken, &what, &from, "Join", &why);
        });
        admitted.map(Response::new)
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<RenewReply>, Status> {
        let id = self
            .known_node(&request)
            .ok_or_else(|| Status::permission_denied("only nodes of the cluster have certificates to renew"))?;
        let request = CertificateRequest::from_der(&request.into_inner().certificate_request)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let authority = authority::to_sign(&self.node).await?;
        let (certificate, authorities) = self.sign(&authority, &request, &Subject::Node(id))?;
        tracing::info!(node = %id, "a node's certificate was renewed");
        Ok(Response::new(RenewReply { certificate, authorities }))
    }

    async fn holds_authority(
        &self,
        request: Request<HoldsAuthorityRequest>,
    ) -> Result<Response<HoldsAuthorityReply>, Status> {
        self.known_node(&request).ok_or_else(|| Status::permission_denied("this is for nodes of the cluster only"))?;
        let held = authority::load(&self.node).await.map_err(|error| authority::unreadable(&error))?;
        let fingerprint = held.map(|held| held.fingerprint().as_bytes().to_vec()).unwrap_or_default();
        Ok(Response::new(HoldsAuthorityReply { fingerprint }))
    }

    async fn fetch_authority(
        &self,
        request: Request<FetchAuthorityRequest>,
    ) -> Result<Response<FetchAuthorityReply>, Status> {
        let from = request.extensions().get::<ConnectInfo>().map(|from| (from.peer.to_string(), from.address));
        let (peer, address) = from.unzip();
        let handed = authority::hand_over(&self.node, self.known_node(&request)).await;
        let handed = handed.inspect_err(|status| {
            tracing::warn!(peer, ?address, "the cluster's authority was not handed over: {}", status.message());
        });
        handed.map(Response::new)
    }
}
