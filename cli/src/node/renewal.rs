//! The node's certificate, renewed before it expires and without an interruption: connections that are open go on, new ones show
//! the new certificate.
//!
//! 1. When two thirds of the certificate's time have passed, the node makes a new key.
//! 2. It asks a node that holds the cluster's authority to sign it, or does so itself where it is one. The voters are asked in turn;
//!    who does not hold the authority says so.
//! 3. It keeps key and certificate in one file, replaced as a whole: a crash leaves the old pair or the new one.
//! 4. It shows them from then on.
//!
//! A node that finds nobody tries again until its certificate has expired, and says so from the first failure on.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use sterna_proto::node::RenewRequest;
use sterna_proto::node::enrolment_client::EnrolmentClient;
use sterna_runtime::clock::wall_time;
use sterna_runtime::work::blocking;
use sterna_transport::{Credentials, Lane, PrivateKey};
use sterna_types::NodeId;

use super::credentials;
use super::join::credentials_of;
use super::node::Node;

/// Renews the certificate again and again, until the node shuts down.
pub(super) async fn run(node: Arc<Node>) {
    loop {
        let due = node.tls.credentials().renewal_due_at();
        // A clock that is set is looked at again before long.
        let wait = due.duration_since(wall_time()).unwrap_or_default().min(LONGEST_WAIT);
        tokio::select! {
            () = node.stopping.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
        if wall_time() < due {
            continue;
        }
        match renew(&node).await {
            Ok(()) => tracing::info!("this node has a new certificate"),
            Err(error) => {
                tracing::warn!("this node's certificate could not be renewed, it is tried again: {error:#}");
            }
        }
        // A certificate of a few seconds is due as soon as it is there.
        let left = node.tls.credentials().not_after().duration_since(wall_time()).unwrap_or_default();
        tokio::select! {
            () = node.stopping.cancelled() => return,
            () = tokio::time::sleep((left / 4).clamp(SHORTEST_PAUSE, LONGEST_PAUSE)) => {}
        }
    }
}

async fn renew(node: &Arc<Node>) -> Result<()> {
    let key = PrivateKey::generate().context("cannot make a key")?;
    let files = credentials::files(&node.directory);
    let (own, lifetime) = (Arc::clone(node), node.certificate_lifetime);
    let loaded = blocking(move || credentials::files(&own.directory).load_authority()).await??;
    let renewed = match loaded {
        Some(authority) => {
            let current = node.tls.credentials();
            let certificate = authority.sign(&key.request()?, current.subject(), lifetime)?;
            Credentials::new(key, certificate, current.authorities().to_vec())?
        }
        None => ask_voters(node, key).await?,
    };
    let kept = renewed.clone();
    blocking(move || files.store(&kept)).await?.context("cannot keep the new certificate")?;
    node.tls.replace(renewed).context("the new certificate cannot be used")
}

async fn ask_voters(node: &Node, key: PrivateKey) -> Result<Credentials> {
    let request = key.request()?.der().to_vec();
    let voters: Vec<NodeId> = node.metadata.read().layout().voters.iter().copied().collect();
    let channels = node.metadata.channels().context("this node listens to no other, and holds no authority")?;
    let mut answers = Vec::new();
    for voter in voters.into_iter().filter(|voter| *voter != node.metadata.id()) {
        let mut client = EnrolmentClient::new(channels.channel(voter, Lane::Control));
        let asked = client.renew(RenewRequest { certificate_request: request.clone() });
        match tokio::time::timeout(PATIENCE, asked).await {
            Ok(Ok(reply)) => {
                let reply = reply.into_inner();
                return credentials_of(key, &reply.certificate, &reply.authorities);
            }
            Ok(Err(status)) => answers.push(format!("node {voter}: {}", status.message())),
            Err(_) => answers.push(format!("node {voter}: no answer within {PATIENCE:?}")),
        }
    }
    bail!("no voter signs it ({})", answers.join("; "))
}

/// Between two looks at the clock.
const LONGEST_WAIT: Duration = Duration::from_secs(3_600);
/// Between two renewals, or two attempts at one: often enough for the last quarter of a certificate's time to see several.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_secs(10);
