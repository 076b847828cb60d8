//! The node's session while it runs, and what can be done only once there is one: with metadata that has everything.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sterna_consensus::session::{SessionKeeper, SessionNews};
use sterna_consensus::state::refusal::Refusal;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use super::node::Node;
use super::peers::tell_address;
use super::publish::publish_left;

/// The tasks that keep the session.
pub(super) struct Session {
    keeper: JoinHandle<Result<(), Refusal>>,
    settling: JoinHandle<()>,
    news: watch::Receiver<SessionNews>,
    stop: oneshot::Sender<bool>,
}

impl Session {
    /// Opens the session of a node that listens to others at `address`, and keeps it.
    pub(super) fn keep(node: &Arc<Node>, address: Option<SocketAddr>) -> Self {
        let (volumes, own) = (Arc::clone(&node.volumes), node.metadata.id());
        let give_up = move |metadata: &_| volumes.give_up(metadata, own);
        let keeper = SessionKeeper::new(Arc::clone(&node.metadata), Arc::clone(&node.lease), give_up);
        let news = keeper.news();
        let (stop, stopped) = oneshot::channel();
        let settling = tokio::spawn(settle(Arc::clone(node), news.clone(), address));
        Self { keeper: tokio::spawn(keeper.run(stopped)), settling, news, stop }
    }

    /// Shows how it is.
    pub(super) fn news(&self) -> watch::Receiver<SessionNews> {
        self.news.clone()
    }

    /// Waits until the node can have no session any more, and says why.
    ///
    /// # Cancel safety
    /// May be dropped at any time.
    pub(super) async fn ended(&mut self) -> anyhow::Error {
        match (&mut self.keeper).await {
            Ok(Err(refusal)) => anyhow::Error::new(refusal).context("this node can have no session any more"),
            Ok(Ok(())) => anyhow::anyhow!("the session's keeper has ended by itself"),
            Err(panic) => anyhow::Error::new(panic).context("the session's keeper has failed"),
        }
    }

    /// Ends it: nothing is acknowledged any more, and nobody has to wait for it to lapse. `all_is_published`: whether the
    /// cluster knows all that ever was.
    pub(super) async fn close(self, all_is_published: bool) {
        self.settling.abort();
        // Where the keeper has ended, the session has.
        let _ = self.stop.send(all_is_published);
        if self.keeper.is_finished() {
            return;
        }
        match self.keeper.await {
            Ok(Ok(())) => {}
            Ok(Err(refusal)) => tracing::error!(%refusal, "the session is over"),
            Err(panic) => tracing::error!(error = %panic, "the session's keeper failed"),
        }
    }
}

/// Does, once there is a session, what a start leaves to do: removes what is left of deleted volumes, and tells the cluster
/// where the node listens, and publishes what an earlier run has left.
async fn settle(node: Arc<Node>, mut news: watch::Receiver<SessionNews>, address: Option<SocketAddr>) {
    if news.wait_for(|news| matches!(news, SessionNews::Open(_))).await.is_err() {
        return;
    }
    loop {
        let settled = async {
            node.remove_deleted().await?;
            match address {
                Some(address) => tell_address(&node, address).await,
                None => Ok(()),
            }
        };
        match settled.await {
            Ok(()) => break,
            Err(error) => tracing::warn!("not settled yet, it is tried again: {error:#}"),
        }
        tokio::select! {
            () = node.stopping.cancelled() => return,
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
    if let Err(error) = publish_left(&node).await {
        tracing::warn!("what an earlier run has left is not published: {error:#}");
    }
}

const PAUSE: Duration = Duration::from_secs(5);
