//! Acknowledgements of nodes that listen, handed to Raft together.
//!
//! openraft looks at all of its members anew whenever it has heard of one. In a group of thousands, whose acknowledgements of one
//! entry trickle in from everywhere, that is millions of looks for each entry, and Raft is late for everything else. Nobody
//! waits for who only listens, so these are handed on at certain moments, all that came in between at once.

use std::sync::Arc;
use std::time::Duration;

use sterna_types::NodeId;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::state::Metadata;

/// The moments, for all other nodes the same.
#[derive(Clone, Debug)]
pub(crate) struct Acknowledgements {
    began: Instant,
    view: watch::Receiver<Arc<Metadata>>,
}

impl Acknowledgements {
    /// Those of the cluster in `view`.
    pub(crate) fn new(view: watch::Receiver<Arc<Metadata>>) -> Self {
        Self { began: Instant::now(), view }
    }

    /// Waits until that of `node`, which has come, may be handed on.
    pub(crate) async fn hold(&self, node: NodeId) {
        let waits = {
            let metadata = self.view.borrow();
            metadata.node_count() > NODES_THAT_NEED_NOT_WAIT && !metadata.layout().voters.contains(&node)
        };
        if waits {
            let since = self.began.elapsed().as_nanos() % INTERVAL.as_nanos();
            let since = Duration::from_nanos(u64::try_from(since).unwrap_or(0));
            tokio::time::sleep(INTERVAL - since).await;
        }
    }
}

/// Short beside any round trip between sites.
const INTERVAL: Duration = Duration::from_millis(20);
/// So many acknowledgements of one entry are looked at in a few milliseconds.
const NODES_THAT_NEED_NOT_WAIT: usize = 100;

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::state::tests::nodes::with_nodes;

    #[tokio::test]
    async fn only_listeners_of_a_large_cluster_wait() {
        for (nodes, node, waits) in [(3, 2, false), (100, 2, false), (101, 1, false), (101, 2, true), (101, 101, true)]
        {
            let (_sender, view) = watch::channel(Arc::new(with_nodes(nodes)));
            let held = Acknowledgements::new(view).hold(NodeId(node)).now_or_never();
            assert_eq!(held.is_none(), waits, "node {node} of {nodes}");
        }
        let (_sender, view) = watch::channel(Arc::new(with_nodes(101)));
        Acknowledgements::new(view).hold(NodeId(2)).await;
    }
}
