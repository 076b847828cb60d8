//! The limits of the links from this node's site, as the metadata has them: kept by the connections themselves.

use std::collections::BTreeMap;
use std::sync::Arc;

use sterna_consensus::{Metadata, link_to};
use sterna_types::{ByteRate, NodeId, SiteName};

use super::node::Node;

/// Sets the limits whenever they change, until the node shuts down.
pub(super) async fn run(node: Arc<Node>) {
    let (links, mut view) = (node.metadata.links(), node.metadata.watch());
    let mut set = BTreeMap::new();
    loop {
        let wanted = shares(&view.borrow_and_update(), node.metadata.id());
        for site in set.keys().filter(|site| !wanted.contains_key(*site)) {
            links.set_limit(link_to(site), None);
        }
        for (site, limit) in wanted.iter().filter(|(site, limit)| set.get(*site) != Some(*limit)) {
            tracing::info!(%site, %limit, "what this node sends there is limited");
            links.set_limit(link_to(site), Some(*limit));
        }
        set = wanted;
        tokio::select! {
            () = node.stopping.cancelled() => return,
            changed = view.changed() => if changed.is_err() { return },
        }
    }
}

/// How much this node may send to each site that there is a limit for: as much as each other node of its own site that has a session.
fn shares(metadata: &Metadata, own: NodeId) -> BTreeMap<SiteName, ByteRate> {
    let Some(node) = metadata.node(own) else { return BTreeMap::new() };
    let Some(site) = metadata.sites().find(|site| site.name == node.site) else { return BTreeMap::new() };
    let is_live = |id: NodeId| metadata.node(id).and_then(|node| node.session).is_some_and(|session| session.is_live());
    let live = metadata.nodes().filter(|other| other.site == site.name && (other.id == own || is_live(other.id)));
    let nodes = live.count() as u64;
    site.limits.iter().map(|(to, limit)| (to.clone(), ByteRate(limit.0 / nodes.max(1)))).collect()
}
