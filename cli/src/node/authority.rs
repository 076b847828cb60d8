//! Who holds the cluster's authority: every voter, so that nodes join and certificates are renewed whichever of them is gone
//! (docs/decisions/0015).
//!
//! | this node | holds it | what it does |
//! |---|---|---|
//! | votes | no | fetches it from a node that does, and keeps it (durable before it is used) |
//! | votes | yes | signs; finds out, once, whether another voter holds it too |
//! | does not vote | yes | removes it once a voter says that it has it: the last copy stays where it is |
//! | was removed | yes | the same with what it knows; else it says that its file is to be destroyed |
//! | does not vote | no | nothing: whom to ask it knows |
//!
//! A node hands it over only to a caller whose certificate says that it is a node that votes by the metadata as it was decided
//! last; whoever cannot reach a majority hands it to nobody.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use sterna_consensus::Metadata;
use sterna_proto::node::enrolment_client::EnrolmentClient;
use sterna_proto::node::{FetchAuthorityReply, FetchAuthorityRequest, HoldsAuthorityRequest};
use sterna_runtime::work::blocking;
use sterna_transport::{Authority, Lane};
use sterna_types::NodeId;
use tonic::Status;
use tonic::transport::Channel;

use super::credentials;
use super::node::Node;

/// What a node has found out, since it was started, about who else holds the authority.
#[derive(Debug, Default)]
pub(super) struct Custody {
    /// Whether a voter other than this node has said that it does.
    elsewhere: AtomicBool,
}

/// Keeps this node's copy as the table says, until it shuts down.
pub(super) async fn run(node: Arc<Node>) {
    let mut view = node.metadata.watch();
    let mut last_failure = None;
    loop {
        let voters = view.borrow_and_update().layout().voters.clone();
        let pause = match settle(&node).await {
            Ok(()) => LOOK_AGAIN,
            Err(error) => {
                let what = format!("{error:#}");
                // It is tried again and again: what has not changed is not told again.
                if last_failure.as_ref() != Some(&what) {
                    tracing::warn!("the cluster's authority is not where it belongs yet, it is tried again: {what}");
                }
                last_failure = Some(what);
                TRY_AGAIN
            }
        };
        tokio::select! {
            () = node.stopping.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
            _ = view.wait_for(|metadata| metadata.layout().voters != voters) => {}
        }
    }
}

/// For a node whose end has come: where it was removed from the cluster, its copy goes as well.
pub(super) async fn leave(node: &Node) {
    let metadata = node.metadata.read();
    let was_removed = metadata.cluster().is_some() && metadata.node(node.metadata.id()).is_none();
    let path = credentials::files(&node.directory).authority_path();
    if !was_removed || !path.exists() {
        return;
    }
    if !node.custody.elsewhere.load(Ordering::Relaxed) {
        tracing::warn!(
            "this node was removed from its cluster and holds the cluster's authority, and it does not know whether another \
             node does: see that one does, and destroy {}",
            path.display()
        );
    } else if let Err(error) = remove(node, "this node was removed from its cluster").await {
        tracing::error!("this node was removed from its cluster: destroy {}: {error:#}", path.display());
    }
}

/// The authority, for signing.
///
/// # Errors
/// This node does not hold it, with the nodes to ask instead.
pub(super) async fn to_sign(node: &Node) -> Result<Authority, Status> {
    let held = load(node).await.map_err(|error| unreadable(&error))?;
    held.ok_or_else(|| {
        let voters = voters_shown(&node.metadata.read(), node.metadata.id());
        Status::failed_precondition(format!(
            "this node does not hold the cluster's authority, which signs certificates: ask a node that votes{voters}"
        ))
    })
}

/// The copy that is here.
///
/// # Errors
/// It cannot be read.
pub(super) async fn load(node: &Node) -> Result<Option<Authority>> {
    let files = credentials::files(&node.directory);
    Ok(blocking(move || files.load_authority()).await??)
}

/// What a caller is told of a copy that cannot be read.
pub(super) fn unreadable(error: &anyhow::Error) -> Status {
    tracing::error!("the cluster's authority cannot be read: {error:#}");
    Status::internal("the cluster's authority cannot be read here")
}

/// Gives it to a voter.
///
/// # Errors
/// The caller is none, or that cannot be found out now, or this node does not hold it.
pub(super) async fn hand_over(node: &Node, caller: Option<NodeId>) -> Result<FetchAuthorityReply, Status> {
    let caller = caller.ok_or_else(|| Status::permission_denied("only nodes of the cluster that vote may have it"))?;
    let metadata = node.metadata.linearizable().await.map_err(|error| Status::unavailable(error.to_string()))?;
    if !metadata.layout().voters.contains(&caller) {
        return Err(Status::permission_denied(format!("node {caller} does not vote, and only voters may have it")));
    }
    let authority = to_sign(node).await?;
    tracing::info!(node = %caller, "the cluster's authority was handed to a node that votes");
    Ok(FetchAuthorityReply { authority: authority.to_pem() })
}

/// The voters but `own`, for people: `: ams-1 (10.77.0.1:7400), …`; nothing where there are none.
pub(super) fn voters_shown(metadata: &Metadata, own: NodeId) -> String {
    let others = metadata.layout().voters.iter().filter(|id| **id != own).filter_map(|id| metadata.node(*id));
    let shown = others.map(|node| match node.address {
        Some(address) => format!("{} ({address})", node.name),
        None => node.name.to_string(),
    });
    let shown: Vec<_> = shown.collect();
    if shown.is_empty() { String::new() } else { format!(": {}", shown.join(", ")) }
}

/// Where a new node finds this one, and, should that be gone, the other voters.
pub(super) fn addresses_to_join(metadata: &Metadata, own: NodeId) -> Vec<SocketAddr> {
    let others = metadata.layout().voters.iter().filter(|id| **id != own);
    let nodes = std::iter::once(&own).chain(others).filter_map(|id| metadata.node(*id));
    nodes.filter_map(|node| node.address).take(sterna_transport::limits::MAX_TOKEN_ADDRESSES).collect()
}

/// One look at the table.
async fn settle(node: &Node) -> Result<()> {
    let own = node.metadata.id();
    let held = load(node).await?;
    let known = node.metadata.read();
    if known.node(own).is_none() || known.nodes().nth(1).is_none() {
        // It has just joined and knows nothing yet, or it was removed, or it is alone.
        return Ok(());
    }
    match (known.layout().voters.contains(&own), held) {
        (false, None) => Ok(()),
        (true, None) => fetch(node, &known).await,
        (true, Some(held)) => {
            if !node.custody.elsewhere.load(Ordering::Relaxed) {
                // Nobody, for now, is no failure: the others have to fetch it.
                let _ = voter_that_holds(node, &known, &held).await;
            }
            Ok(())
        }
        (false, Some(held)) => {
            let decided = node.metadata.linearizable().await?;
            if decided.layout().voters.contains(&own) {
                return Ok(());
            }
            let holder = voter_that_holds(node, &decided, &held).await;
            let holder =
                holder.context("this node does not vote, and keeps its copy for as long as no voter has one")?;
            remove(node, &format!("this node does not vote any more, and node {holder} does")).await
        }
    }
}

async fn fetch(node: &Node, known: &Metadata) -> Result<()> {
    let own = node.metadata.id();
    let voters = &known.layout().voters;
    let (first, then): (Vec<_>, Vec<_>) = known.nodes().map(|node| node.id).partition(|id| voters.contains(id));
    let mut answers = Vec::new();
    for id in first.into_iter().chain(then).filter(|id| *id != own) {
        match fetch_from(node, id).await {
            Ok(authority) => {
                let files = credentials::files(&node.directory);
                let kept = blocking(move || files.store_authority(&authority)).await?;
                kept.context("the cluster's authority cannot be kept")?;
                node.custody.elsewhere.store(voters.contains(&id), Ordering::Relaxed);
                tracing::info!(from = %id, "this node votes, and holds the cluster's authority from now on");
                return Ok(());
            }
            Err(error) => answers.push(format!("node {id}: {error:#}")),
        }
    }
    bail!("this node votes, and nobody gives it the authority ({})", answers.join("; "))
}

async fn fetch_from(node: &Node, from: NodeId) -> Result<Authority> {
    let mut client = client(node, from)?;
    let asked = client.fetch_authority(FetchAuthorityRequest {});
    let reply = tokio::time::timeout(PATIENCE, asked).await.context("no answer")?;
    let reply = reply.map_err(|status| anyhow::anyhow!("{}", status.message()))?;
    let authority = Authority::from_pem(&reply.into_inner().authority)?;
    // It is one that this node trusts already: nobody slips it another one.
    let is_trusted = node.tls.credentials().authorities().contains(authority.certificate());
    ensure!(is_trusted, "what it sent is not this cluster's authority, but {}", authority.fingerprint());
    Ok(authority)
}

/// A voter other than this node that holds the same authority.
async fn voter_that_holds(node: &Node, known: &Metadata, held: &Authority) -> Result<NodeId> {
    let own = node.metadata.id();
    for id in known.layout().voters.iter().copied().filter(|id| *id != own) {
        let Ok(mut client) = client(node, id) else { continue };
        let asked = client.holds_authority(HoldsAuthorityRequest {});
        if let Ok(Ok(reply)) = tokio::time::timeout(PATIENCE, asked).await
            && reply.into_inner().fingerprint == held.fingerprint().as_bytes()
        {
            node.custody.elsewhere.store(true, Ordering::Relaxed);
            return Ok(id);
        }
    }
    bail!("no other voter says that it holds the authority")
}

async fn remove(node: &Node, why: &str) -> Result<()> {
    let files = credentials::files(&node.directory);
    blocking(move || files.remove_authority()).await??;
    tracing::warn!("the copy of the cluster's authority that was here is removed: {why}");
    Ok(())
}

fn client(node: &Node, to: NodeId) -> Result<EnrolmentClient<Channel>> {
    let channels = node.metadata.channels().context("this node listens to no other, and asks none")?;
    Ok(EnrolmentClient::new(channels.channel(to, Lane::Control)).max_decoding_message_size(MAX_REPLY_BYTES))
}

/// A key and a certificate.
const MAX_REPLY_BYTES: usize = 64 << 10;
/// Between two looks where all is in order: the voters' change is noticed at once.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// After one that failed: a node that has just been promoted waits for others that are just being promoted.
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// A round trip around the world, and a read at the leader's.
const PATIENCE: Duration = Duration::from_secs(10);
