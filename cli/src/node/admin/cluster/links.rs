//! What goes from site to site: how much may, and how much has.

use std::sync::Arc;

use sterna_consensus::state::command::Command;
use sterna_consensus::{Metadata, link_to};
use sterna_proto::cluster;
use sterna_types::{ByteRate, SiteName};
use tonic::Status;

use crate::node::admin::lookup::metadata;
use crate::node::admin::request::parsed;
use crate::node::admin::status::IntoStatus;
use crate::node::node::Node;

/// All links.
pub(super) async fn list(node: &Node) -> Result<cluster::ListLinksReply, Status> {
    Ok(listed(node, &*metadata(node).await?))
}

/// Sets or lifts a limit.
pub(super) async fn set_limit(
    node: Arc<Node>,
    request: cluster::SetLinkLimitRequest,
) -> Result<cluster::ListLinksReply, Status> {
    let (from, to): (SiteName, SiteName) = (parsed(&request.from)?, parsed(&request.to)?);
    let limit: Option<ByteRate> = match request.limit.as_str() {
        "" => None,
        limit => Some(parsed(limit)?),
    };
    let set = node.metadata.propose(Command::SetLinkLimit { from, to, limit }).await;
    set.map_err(|error| error.about("the limit of a link"))?;
    Ok(listed(&node, &node.metadata.read()))
}

fn listed(node: &Node, metadata: &Metadata) -> cluster::ListLinksReply {
    let own = metadata.node(node.metadata.id()).map(|own| &own.site);
    let counted = node.metadata.links().counters();
    let traffic = |to: &SiteName| {
        let of_link = counted.iter().filter(|counted| counted.link == link_to(to));
        let lane = |counted: &sterna_transport::LinkTraffic| cluster::LaneTraffic {
            lane: counted.lane.to_string(),
            sent_bytes: counted.sent_bytes,
            received_bytes: counted.received_bytes,
        };
        of_link.map(lane).collect()
    };
    let links = metadata.sites().flat_map(|from| {
        let others = metadata.sites().filter(|to| to.name != from.name);
        others.map(|to| cluster::Link {
            from: from.name.to_string(),
            to: to.name.to_string(),
            limit: from.limits.get(&to.name).map(ToString::to_string).unwrap_or_default(),
            traffic: if own == Some(&from.name) { traffic(&to.name) } else { Vec::new() },
        })
    });
    cluster::ListLinksReply { links: links.collect() }
}
