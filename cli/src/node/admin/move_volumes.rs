//! MoveVolumes: volumes of this node go on at another site, all in one moment (design section 5, handoff).

use std::sync::Arc;

use sterna_consensus::Metadata;
use sterna_consensus::state::volume::Volume as VolumeEntry;
use sterna_proto::admin;
use sterna_types::{NodeId, SiteName, VolumeName};
use tonic::Status;

use super::lookup::{held_volume, metadata, own_volume, spec, subject};
use super::replica::{any_live_node, live_nodes, node_of};
use super::reply::node_name;
use super::request::parsed;
use super::status::IntoStatus;
use crate::args::values::Requirement;
use crate::node::handoff::{Given, give};
use crate::node::node::Node;

/// Has another node go on with volumes.
pub(super) async fn move_volumes(
    node: Arc<Node>,
    request: admin::MoveVolumesRequest,
) -> Result<admin::MoveVolumesReply, Status> {
    let site: SiteName = parsed(&request.site)?;
    let require: Requirement = parsed(&request.require)?;
    let names = request.volumes.iter().map(|name| parsed(name)).collect::<Result<Vec<VolumeName>, _>>()?;
    let metadata = metadata(&node).await?;
    let entries = names.iter().map(|name| own_volume(&node, &metadata, name)).collect::<Result<Vec<_>, _>>()?;
    let to = match request.node.as_str() {
        "" => best_node(&metadata, &entries, &site)?,
        chosen => node_of(&metadata, &parsed(chosen)?, &site)?,
    };
    if to == node.metadata.id() {
        return Err(Status::invalid_argument(format!(
            "site '{site}' is where this node is, which owns what is to move"
        )));
    }
    let given = hold(&node, &entries, to, require).await?;
    let handed = give(Arc::clone(&node), given, to).await;
    let handed = handed.map_err(|error| Status::failed_precondition(format!("{error:#}")))?;
    let moved = handed.volumes.into_iter().map(|(name, epoch, tail_bytes)| {
        tracing::info!(volume = %name, %to, %epoch, tail_bytes, "a volume was handed over");
        admin::MovedVolume { volume: name.to_string(), epoch: epoch.number(), tail_bytes }
    });
    Ok(admin::MoveVolumesReply {
        volumes: moved.collect(),
        node: node_name(&metadata, to),
        site: site.to_string(),
        paused_us: u64::try_from(handed.paused.as_micros()).unwrap_or(u64::MAX),
    })
}

/// The node that keeps a replica of the most of them; of those that keep none, any that can.
fn best_node(metadata: &Metadata, entries: &[&Arc<VolumeEntry>], site: &SiteName) -> Result<NodeId, Status> {
    let keeper = |entry: &&Arc<VolumeEntry>| entry.replicas.get(site).map(|replica| replica.node);
    let kept = |node: &NodeId| entries.iter().filter(|entry| keeper(entry) == Some(*node)).count();
    let keepers = live_nodes(metadata, site).map(|node| node.id).filter(|node| kept(node) > 0);
    match keepers.max_by_key(kept) {
        Some(keeper) => Ok(keeper),
        None => any_live_node(metadata, site),
    }
}

/// Holds their slots, always in the same order, and opens them.
async fn hold(
    node: &Arc<Node>,
    entries: &[&Arc<VolumeEntry>],
    to: NodeId,
    require: Requirement,
) -> Result<Vec<Given>, Status> {
    let mut ordered: Vec<_> = entries.iter().map(|entry| (entry.id, entry.name.clone())).collect();
    ordered.sort_unstable();
    if let Some([(_, name), _]) = ordered.array_windows().find(|[(one, _), (next, _)]| one == next) {
        return Err(Status::invalid_argument(format!("volume '{name}' is named twice")));
    }
    let mut given = Vec::new();
    for (_, name) in ordered {
        let (mut slot, entry) = held_volume(node, &name).await?;
        let open = slot.volume(&spec(&entry)?).await.map_err(|error| error.about(&subject(&name)))?;
        check(&entry, to, require)?;
        given.push(Given::new(entry, open, slot));
    }
    Ok(given)
}

/// Whether as much of it is there as has to be.
fn check(entry: &VolumeEntry, to: NodeId, require: Requirement) -> Result<(), Status> {
    let replica = entry.replicas.values().find(|replica| replica.node == to);
    let is_there =
        replica.and_then(|replica| replica.complete).is_some_and(|complete| complete.contents == entry.published);
    if require == Requirement::None || is_there {
        return Ok(());
    }
    let name = &entry.name;
    Err(Status::failed_precondition(match replica {
        Some(_) => format!(
            "the replica of volume '{name}' there does not have all that is published yet: try again, or do without --require all"
        ),
        None => format!(
            "there is no replica of volume '{name}': 'sterna volume replica {name} set SITE async' makes one; or do without --require all"
        ),
    }))
}
