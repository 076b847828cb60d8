//! What a node does by itself as long as it runs, for other nodes and for its own data, whoever its clients are.
//!
//! * the session is kept, and what a start leaves to do is done ([`super::session`]);
//! * other nodes are answered ([`super::peers`]);
//! * roots are published, replicas follow, what others took over is settled, handoffs come to their end ([`super::publish`],
//!   [`super::replication`], [`super::returned`], [`super::handoff`]);
//! * mirrors are kept of what others write, and others are taken into the in-sync sets of what this node writes ([`super::mirrors`]);
//! * what was published goes to the bucket, where there is one ([`super::bucket`]).
//!
//! Each is a task that ends only with the node: one that ends before is a failure of the node, and [`Duties::ended`] shows it.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use sterna_transport::Listener;
use tokio::task::{JoinError, JoinHandle};
use tonic::service::Routes;

use super::node::Node;
use super::session::Session;
use super::{bucket, handoff, link_limits, mirrors, peers, publish, replication, returned};

/// The tasks.
pub(super) struct Duties {
    node: Arc<Node>,
    /// What clients are answered under.
    pub(super) session: Session,
    peers: JoinHandle<Result<()>>,
    publisher: JoinHandle<()>,
    follower: JoinHandle<()>,
    returned: JoinHandle<()>,
    handoffs: JoinHandle<()>,
    limits: JoinHandle<()>,
    keeper: JoinHandle<()>,
    steward: JoinHandle<()>,
    bucket: JoinHandle<()>,
}

impl Duties {
    /// Starts them, with the session that is kept already. Other nodes come in by `listener`, and find what is `added` besides;
    /// without it the node is alone.
    pub(super) fn start(
        node: &Arc<Node>,
        session: Session,
        listener: Option<Listener>,
        added: impl FnOnce(Routes) -> Routes + Send + 'static,
    ) -> Self {
        let peers = match listener {
            Some(listener) => tokio::spawn(peers::serve(Arc::clone(node), listener, added)),
            None => tokio::spawn(std::future::pending()),
        };
        Self {
            node: Arc::clone(node),
            session,
            peers,
            publisher: tokio::spawn(publish::run(Arc::clone(node))),
            follower: tokio::spawn(replication::run(Arc::clone(node))),
            returned: tokio::spawn(returned::run(Arc::clone(node))),
            handoffs: tokio::spawn(handoff::run(Arc::clone(node))),
            limits: tokio::spawn(link_limits::run(Arc::clone(node))),
            keeper: tokio::spawn(mirrors::keep(Arc::clone(node))),
            steward: tokio::spawn(mirrors::steward(Arc::clone(node))),
            bucket: tokio::spawn(bucket::run(Arc::clone(node))),
        }
    }

    /// Waits until one of them, or the metadata, has ended by itself, and says why.
    ///
    /// # Cancel safety
    /// May be dropped at any time, and not be asked again once it has answered.
    pub(super) async fn ended(&mut self) -> anyhow::Error {
        tokio::select! {
            ending = self.node.metadata.ended() => anyhow::anyhow!("the metadata has ended: {ending}"),
            error = self.session.ended() => error,
            ended = &mut self.peers => ending_of(ended, "listening to other nodes"),
            ended = &mut self.publisher => ending_of(ended.map(Ok), "publishing roots"),
            ended = &mut self.follower => ending_of(ended.map(Ok), "following other nodes' volumes"),
            ended = &mut self.returned => ending_of(ended.map(Ok), "keeping what others took over"),
            ended = &mut self.limits => ending_of(ended.map(Ok), "keeping the limits of links"),
            ended = &mut self.keeper => ending_of(ended.map(Ok), "keeping mirrors of other nodes' volumes"),
            ended = &mut self.steward => ending_of(ended.map(Ok), "seeing to who is in sync"),
            ended = &mut self.bucket => ending_of(ended.map(Ok), "sending to the bucket"),
            ended = &mut self.handoffs => ending_of(ended.map(Ok), "seeing to handoffs"),
        }
    }

    /// Ends everything in good order, each part within its time: first `clients`, who are told so, then the volumes, which are
    /// sealed and published, then the session, then the metadata.
    pub(super) async fn drain(self, clients: impl Future<Output = ()>) {
        let Self { node, session, .. } = self;
        node.stopping.cancel();
        clients.await;
        let late = "volumes are still being sealed; their journals have it all";
        let last = in_time(SEAL_TIMEOUT, node.volumes.close_all(), late).await.unwrap_or_default();
        let publishing = async {
            publish::publish_last(&node, &last).await.unwrap_or_else(|error| {
                tracing::warn!(%error, "the last roots were not published; the next start does it");
                false
            })
        };
        let all_is_published =
            in_time(METADATA_TIMEOUT, publishing, "the metadata does not answer").await.unwrap_or(false);
        // Nobody is answered any more, and all that was is published or in the journals.
        in_time(METADATA_TIMEOUT, session.close(all_is_published), "the session is not closed").await;
        node.peers_stopping.cancel();
        in_time(METADATA_TIMEOUT, node.metadata.shutdown(), "the metadata does not end").await;
    }
}

/// Waits for something, but not for ever: that is told.
pub(super) async fn in_time<T>(limit: Duration, work: impl Future<Output = T>, late: &str) -> Option<T> {
    let done = tokio::time::timeout(limit, work).await;
    if done.is_err() {
        tracing::warn!("not waiting any longer: {late}");
    }
    done.ok()
}

/// Why something that should not has ended.
pub(super) fn ending_of(ended: Result<Result<()>, JoinError>, what: &str) -> anyhow::Error {
    match ended {
        Ok(Ok(())) => anyhow::anyhow!("{what} has ended by itself"),
        Ok(Err(error)) => error.context(format!("{what} has failed")),
        Err(panic) => anyhow::Error::from(panic).context(format!("{what} has failed")),
    }
}

/// Sealing what journals may hold unsealed: at most 1 GiB for each volume, of which few are that full.
const SEAL_TIMEOUT: Duration = Duration::from_secs(60);
/// One entry of the log, and the closing of a database.
const METADATA_TIMEOUT: Duration = Duration::from_secs(10);
