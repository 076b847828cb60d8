//! Where VMs come in at a site.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use sterna_proto::admin;
use sterna_proto::node::FindMigratorRequest;
use sterna_proto::node::handoff_client::HandoffClient;
use sterna_transport::Lane;
use sterna_types::{NodeId, NodeName, SiteName};
use tokio::time::timeout;
use tonic::Status;

use super::lookup::metadata;
use super::replica::{any_live_node, live_nodes, node_of};
use super::reply::node_name;
use super::request::parsed;
use crate::node::node::Node;

/// Asks the nodes of a site that have a session; those that do not answer now are left out.
pub(super) async fn find(
    node: &Arc<Node>,
    request: admin::FindMigratorsRequest,
) -> Result<admin::FindMigratorsReply, Status> {
    let site: SiteName = parsed(&request.site)?;
    let metadata = metadata(node).await?;
    let wanted = if request.node.is_empty() {
        // Where there is none the error says why.
        any_live_node(&metadata, &site)?;
        live_nodes(&metadata, &site).map(|node| node.id).collect()
    } else {
        let name: NodeName = parsed(&request.node)?;
        vec![node_of(&metadata, &name, &site)?]
    };
    let asked = join_all(wanted.into_iter().map(|id| async move { (id, ask(node, id).await) })).await;
    let found =
        asked.into_iter().filter_map(|(id, address)| Some((id, address.filter(|address| !address.is_empty())?)));
    let migrators =
        found.map(|(id, address)| admin::Migrator { node: node_name(&metadata, id), node_id: id.0, address });
    Ok(admin::FindMigratorsReply { migrators: migrators.collect() })
}

/// What a node says of the migrator beside it; `None` where it does not answer.
async fn ask(node: &Arc<Node>, id: NodeId) -> Option<String> {
    if id == node.metadata.id() {
        return Some(node.migrator.map(|address| address.to_string()).unwrap_or_default());
    }
    let channel = node.metadata.channels()?.channel(id, Lane::Control);
    let asked = timeout(PATIENCE, HandoffClient::new(channel).find_migrator(FindMigratorRequest {})).await;
    match asked.ok()? {
        Ok(reply) => Some(reply.into_inner().address),
        Err(status) => {
            tracing::info!(node = %id, %status, "a node does not say where its migrator is");
            None
        }
    }
}

/// A few round trips of the longest.
const PATIENCE: Duration = Duration::from_secs(5);
