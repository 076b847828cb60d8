//! Join tokens: made here, shown once, and kept in the metadata without their secrets.

use std::sync::Arc;
use std::time::Duration;

use sterna_consensus::Metadata;
use sterna_consensus::state::command::{Command, NewToken};
use sterna_consensus::state::token::{Digest, Token};
use sterna_consensus::state::volume::UnixTime;
use sterna_proto::cluster;
use sterna_runtime::chance;
use sterna_transport::{JoinToken, TokenSecret};
use sterna_types::{SiteName, TokenId};
use tonic::Status;

use crate::node::admin::lookup::metadata;
use crate::node::admin::request::parsed;
use crate::node::admin::status::IntoStatus;
use crate::node::authority;
use crate::node::clock::now;
use crate::node::node::Node;

/// A new one, for a node that comes to this one.
pub(super) async fn create(
    node: Arc<Node>,
    request: cluster::CreateTokenRequest,
) -> Result<cluster::CreateTokenReply, Status> {
    let site = if request.site.is_empty() { None } else { Some(parsed::<SiteName>(&request.site)?) };
    let lifetime = Duration::from_millis(request.lifetime_ms);
    if lifetime.is_zero() || lifetime > LONGEST_LIFETIME {
        return Err(Status::invalid_argument(format!("a token lasts from 1 ms to 30 days, not {lifetime:?}")));
    }
    if node.metadata.channels().is_none() {
        return Err(Status::failed_precondition(
            "this node listens to no other node: set [cluster] listen in its sterna.toml, and start it anew",
        ));
    }
    // Nobody could come in by it here.
    authority::to_sign(&node).await?;
    let id = random_id()?;
    let secret = TokenSecret::generate().map_err(|error| Status::internal(error.to_string()))?;
    let hash = Digest(*secret.hash().as_bytes());
    let (at, own) = (now(), node.metadata.id());
    let expires = UnixTime { unix_ms: at.unix_ms.saturating_add(request.lifetime_ms) };
    let known = metadata(&node).await?;
    if known.node(own).and_then(|node| node.address).is_none() {
        return Err(Status::unavailable("the cluster does not know yet where this node listens: try again"));
    }
    let credentials = node.tls.credentials();
    let token = JoinToken::new(
        node.identity.cluster,
        credentials.issuer().fingerprint(),
        id,
        secret,
        authority::addresses_to_join(&known, own),
    );
    let token = token.map_err(|error| Status::internal(error.to_string()))?;
    let new = NewToken { id, secret: hash, at, expires, site };
    node.metadata.propose(Command::CreateToken(new)).await.map_err(|error| error.about("the token"))?;
    let known = node.metadata.read();
    let made = known.tokens().find(|token| token.id == id).map(|token| shown(&known, token));
    Ok(cluster::CreateTokenReply { token: made, text: token.to_text() })
}

/// Those that have not expired, and those that have since the last one was made.
pub(super) async fn list(node: &Node) -> Result<cluster::ListTokensReply, Status> {
    let metadata = metadata(node).await?;
    let tokens = metadata.tokens().map(|token| shown(&metadata, token)).collect();
    Ok(cluster::ListTokensReply { tokens })
}

/// Nobody comes in by it any more.
pub(super) async fn revoke(
    node: Arc<Node>,
    request: cluster::RevokeTokenRequest,
) -> Result<cluster::RevokeTokenReply, Status> {
    let token: TokenId = parsed(&request.id)?;
    let revoked = node.metadata.propose(Command::RevokeToken { token }).await;
    revoked.map_err(|error| error.about(&format!("token {token}")))?;
    Ok(cluster::RevokeTokenReply {})
}

fn random_id() -> Result<TokenId, Status> {
    let bytes = chance::bytes().map_err(|error| Status::internal(error.to_string()))?;
    Ok(TokenId(u64::from_le_bytes(bytes)))
}

fn shown(metadata: &Metadata, token: &Token) -> cluster::Token {
    let used_by = token
        .used_by
        .map(|id| metadata.node(id).map_or_else(|| format!("node {id}, which is gone"), |node| node.name.to_string()));
    cluster::Token {
        id: token.id.to_string(),
        expires_at_ms: token.expires.unix_ms,
        site: token.site.as_ref().map(SiteName::to_string).unwrap_or_default(),
        used_by: used_by.unwrap_or_default(),
    }
}

/// A token that lies about for longer is forgotten, and found by somebody else.
const LONGEST_LIFETIME: Duration = Duration::from_secs(30 * 24 * 3600);
