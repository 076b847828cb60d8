//! SetReplica, UnsetReplica and ListReplicas: which other sites keep a volume, and how far they are.

use std::sync::Arc;

use sterna_consensus::Metadata;
use sterna_consensus::state::cluster::Node as NodeEntry;
use sterna_consensus::state::command::Command;
use sterna_consensus::state::replica::{Replica as ReplicaEntry, ReplicaMode, Superseded};
use sterna_consensus::state::volume::{Published, Volume as VolumeEntry};
use sterna_proto::admin;
use sterna_types::{BLOCK_SIZE, NodeId, NodeName, SiteName, VolumeName};
use tonic::Status;

use super::lookup::{metadata, subject, volume};
use super::reply::node_name;
use super::request::parsed;
use super::status::IntoStatus;
use crate::node::node::Node;

/// Has a site keep a volume.
pub(super) async fn set(
    node: Arc<Node>,
    request: admin::SetReplicaRequest,
) -> Result<admin::ListReplicasReply, Status> {
    let (name, site): (VolumeName, SiteName) = (parsed(&request.volume)?, parsed(&request.site)?);
    let mode: ReplicaMode = parsed(&request.mode)?;
    let metadata = metadata(&node).await?;
    let entry = volume(&metadata, &name)?;
    let keeper = match request.node.as_str() {
        "" => any_node_of(&metadata, entry, &site)?,
        chosen => node_of(&metadata, &parsed(chosen)?, &site)?,
    };
    let command = Command::SetReplica { volume: entry.id, node: keeper, mode };
    node.metadata.propose(command).await.map_err(|error| error.about(&subject(&name)))?;
    listed(&node, &name)
}

/// Has a site keep a volume no more.
pub(super) async fn unset(
    node: Arc<Node>,
    request: admin::UnsetReplicaRequest,
) -> Result<admin::ListReplicasReply, Status> {
    let (name, site): (VolumeName, SiteName) = (parsed(&request.volume)?, parsed(&request.site)?);
    let volume = volume(&*metadata(&node).await?, &name)?.id;
    let command = Command::UnsetReplica { volume, site };
    node.metadata.propose(command).await.map_err(|error| error.about(&subject(&name)))?;
    listed(&node, &name)
}

/// Who keeps a volume.
pub(super) async fn list(
    node: Arc<Node>,
    request: admin::ListReplicasRequest,
) -> Result<admin::ListReplicasReply, Status> {
    let name: VolumeName = parsed(&request.volume)?;
    metadata(&node).await?;
    listed(&node, &name)
}

/// As this node knows it, which has all that it was answered with.
fn listed(node: &Node, name: &VolumeName) -> Result<admin::ListReplicasReply, Status> {
    let metadata = node.metadata.read();
    let entry = volume(&metadata, name)?;
    let owner = metadata.node(entry.owner);
    Ok(admin::ListReplicasReply {
        volume: name.to_string(),
        owner: node_name(&metadata, entry.owner),
        site: owner.map(|owner| owner.site.to_string()).unwrap_or_default(),
        epoch: entry.epoch.number(),
        published: Some(published(&entry.published)),
        replicas: entry.replicas.iter().map(|(site, kept)| replica(&metadata, entry, site, kept)).collect(),
        superseded: entry.superseded.iter().map(|epoch| superseded(&metadata, epoch)).collect(),
    })
}

fn replica(metadata: &Metadata, entry: &VolumeEntry, site: &SiteName, replica: &ReplicaEntry) -> admin::Replica {
    let loss = metadata.loss(entry, site);
    admin::Replica {
        site: site.to_string(),
        node: node_name(metadata, replica.node),
        mode: replica.mode.to_string(),
        is_live: metadata.node(replica.node).is_some_and(|node| has_session(node)),
        complete: replica.complete.map(|complete| published(&complete.contents)),
        complete_epoch: replica.complete.map_or(0, |complete| complete.epoch.number()),
        behind_bytes: loss.as_ref().map_or(entry.published.written_blocks, |loss| loss.lost_blocks) * BLOCK_SIZE,
        behind_ms: loss.and_then(|loss| loss.lost_ms),
        is_in_sync: entry.in_sync.contains(&replica.node),
        mapped: replica.mapped.map(|mapped| published(&mapped.contents)),
    }
}

fn superseded(metadata: &Metadata, superseded: &Superseded) -> admin::SupersededEpoch {
    admin::SupersededEpoch {
        epoch: superseded.epoch.number(),
        owner: node_name(metadata, superseded.owner),
        published: Some(published(&superseded.published)),
        resumed: Some(published(&superseded.resumed)),
        is_settled: superseded.is_settled,
    }
}

/// Published contents, as a message.
pub(super) fn published(published: &Published) -> admin::PublishedState {
    admin::PublishedState {
        root: published.root.to_string(),
        generation: published.generation.0,
        written_bytes: published.written_blocks * BLOCK_SIZE,
        published_at_ms: published.at.map(|at| at.unix_ms),
    }
}

/// Of the nodes of a site that can, the one that keeps the fewest volumes.
fn any_node_of(metadata: &Metadata, entry: &VolumeEntry, site: &SiteName) -> Result<NodeId, Status> {
    match entry.replicas.get(site) {
        Some(known) => Ok(known.node),
        None => any_live_node(metadata, site),
    }
}

/// The nodes of a site that have a session and do not drain.
pub(super) fn live_nodes<'a>(metadata: &'a Metadata, site: &'a SiteName) -> impl Iterator<Item = &'a Arc<NodeEntry>> {
    let draining = &metadata.layout().draining;
    metadata.nodes().filter(move |node| node.site == *site && has_session(node) && !draining.contains(&node.id))
}

/// Of these, the one that has the fewest volumes.
pub(super) fn any_live_node(metadata: &Metadata, site: &SiteName) -> Result<NodeId, Status> {
    let load = |node: &&Arc<NodeEntry>| {
        let keeps = |volume: &&Arc<VolumeEntry>| {
            volume.owner == node.id || volume.replicas.values().any(|replica| replica.node == node.id)
        };
        metadata.volumes().filter(keeps).count()
    };
    if metadata.sites().all(|known| known.name != *site) {
        return Err(Status::not_found(format!("there is no site '{site}': 'sterna cluster status' lists them")));
    }
    let nobody =
        || Status::failed_precondition(format!("no node of site '{site}' has a session and does not drain: start one"));
    live_nodes(metadata, site).min_by_key(load).map(|node| node.id).ok_or_else(nobody)
}

pub(super) fn node_of(metadata: &Metadata, name: &NodeName, site: &SiteName) -> Result<NodeId, Status> {
    let missing = || Status::not_found(format!("there is no node '{name}': 'sterna cluster status' lists them"));
    let node = metadata.nodes().find(|node| node.name == *name).ok_or_else(missing)?;
    if node.site == *site {
        return Ok(node.id);
    }
    let found = &node.site;
    Err(Status::invalid_argument(format!("node '{name}' is at site '{found}', not at '{site}'")))
}

/// Whether a node has a session.
pub(super) fn has_session(node: &NodeEntry) -> bool {
    node.session.is_some_and(|session| session.is_live())
}
