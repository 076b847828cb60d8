//! A node among others that are only pretended; see [`crate::rehearsal`].

use std::path::Path;
use std::sync::Arc;

use openraft::network::RaftNetworkFactory;
use tokio::sync::watch;

use super::error::OpenError;
use super::{MetadataConfig, MetadataNode, open_store};
use crate::raft::TypeConfig;
use crate::state::Metadata;
use crate::store::Absent;

impl MetadataNode {
    /// Opens the metadata in `dir` over a network of one's own.
    pub(crate) async fn open_on<N: RaftNetworkFactory<TypeConfig>>(
        dir: &Path,
        config: MetadataConfig,
        network: impl FnOnce(watch::Receiver<Arc<Metadata>>) -> N,
    ) -> Result<Self, OpenError> {
        let store = open_store(dir, Absent::Refuse).await?;
        let network = network(store.view.clone());
        let node = Self::start(dir, config, store, network, None).await?;
        let opened = node.lead_alone().await;
        node.opened(opened).await
    }

    /// See [`crate::rehearsal::furthest_behind`].
    pub(crate) fn furthest_behind(&self) -> u64 {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        let matched = metrics.replication.iter().flat_map(|nodes| nodes.values());
        let lowest = matched.map(|matched| matched.map_or(0, |id| id.index)).min();
        let last = metrics.last_log_index.unwrap_or(0);
        last.saturating_sub(lowest.unwrap_or(last))
    }
}
