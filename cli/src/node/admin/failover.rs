//! FailOver: a volume goes on at another site without its owner, or without the node that its owner was handing it over to; what that
//! loses is said before.

use std::sync::Arc;

use sterna_consensus::Metadata;
use sterna_consensus::state::cluster::Node as NodeEntry;
use sterna_consensus::state::command::Command;
use sterna_consensus::state::outcome::Outcome;
use sterna_consensus::state::replica::Loss;
use sterna_consensus::state::session::SessionState;
use sterna_consensus::state::volume::Volume as VolumeEntry;
use sterna_proto::admin;
use sterna_types::{BLOCK_SIZE, NodeId, SiteName, VolumeName};
use tonic::Status;

use super::lookup::{metadata, name_of, subject, volume};
use super::replica::{has_session, published};
use super::reply::node_name;
use super::request::parsed;
use super::status::IntoStatus;
use crate::node::node::Node;

/// Says what would be lost, and where that is accepted, does it.
pub(super) async fn fail_over(
    node: Arc<Node>,
    request: admin::FailOverRequest,
) -> Result<admin::FailOverReply, Status> {
    let (name, site): (VolumeName, SiteName) = (parsed(&request.volume)?, parsed(&request.site)?);
    let metadata = metadata(&node).await?;
    let entry = volume(&metadata, &name)?;
    if let Some(to) = entry.moving_to
        && metadata.node(entry.owner).is_some_and(|owner| owner.site == site)
    {
        return reclaim(&node, &metadata, entry, to, &request).await;
    }
    let loss = metadata.loss(entry, &site).ok_or_else(|| nothing_there(&metadata, entry, &site))?;
    let obstacle = obstacle(&metadata, entry, &loss);
    // What the node that it was being handed over to has acknowledged is of the epoch behind.
    let has_all = loss.is_in_sync && entry.moving_to.is_none();
    let is_lossless = loss.lost_blocks == 0 && (loss.all_is_published || has_all);
    let mut reply = report(&metadata, entry, &site, &loss);
    if !is_to_be_done(&request, &mut reply, obstacle, is_lossless)? {
        return Ok(reply);
    }
    let (volume, epoch, root) = (entry.id, entry.epoch, loss.complete.contents.root);
    if loss.is_in_sync {
        reply.epoch = carry_out(&node, &name, Command::TakeOver { volume, epoch, node: loss.node }).await?;
        tracing::warn!(
            volume = %name, from = reply.from_node, to = reply.to_node, epoch = reply.epoch,
            "a volume was taken over by a node that has all of it"
        );
        return Ok(reply);
    }
    // What was looked at is what happens: the owner's last publication may still be on its way.
    let published = Some(entry.published.generation);
    let command = Command::FailOver { volume, epoch, site, root, published };
    reply.epoch = carry_out(&node, &name, command).await?;
    tracing::warn!(
        volume = %name, from = reply.from_node, to = reply.to_node, epoch = reply.epoch, lost_bytes = reply.lost_bytes,
        all_is_published = reply.all_is_published, "a volume was taken over without its owner"
    );
    Ok(reply)
}

/// The owner takes back what it was handing over to a node that is gone: it has all that it ever acknowledged.
async fn reclaim(
    node: &Node,
    metadata: &Metadata,
    entry: &VolumeEntry,
    to: NodeId,
    request: &admin::FailOverRequest,
) -> Result<admin::FailOverReply, Status> {
    let (name, owner) = (&entry.name, entry.owner);
    let recipient = metadata.node(to);
    let obstacle = match metadata.node(owner) {
        _ if recipient.is_none_or(|recipient| may_serve(recipient)) => {
            let to = name_of(metadata, to);
            Some(format!("{to}, which it is being handed over to, may be serving it by now: its session has not ended"))
        }
        Some(owner) if has_session(owner) => None,
        _ => Some(format!("its owner, {}, has no session: it is not running, or cut off", name_of(metadata, owner))),
    };
    let was_closed = |node: &Arc<NodeEntry>| node.session.is_some_and(|session| session.state == SessionState::Closed);
    let all_is_published = recipient.is_some_and(was_closed);
    let mut reply = admin::FailOverReply {
        volume: name.to_string(),
        from_node: node_name(metadata, to),
        from_site: recipient.map(|recipient| recipient.site.to_string()).unwrap_or_default(),
        from_epoch: entry.epoch.next().number(),
        published: Some(published(&entry.published)),
        to_node: node_name(metadata, owner),
        to_site: request.site.clone(),
        complete: Some(published(&entry.published)),
        all_is_published,
        is_reclaimed: true,
        ..admin::FailOverReply::default()
    };
    if !is_to_be_done(request, &mut reply, obstacle, all_is_published)? {
        return Ok(reply);
    }
    let command = Command::Reclaim { volume: entry.id, epoch: entry.epoch, node: owner };
    reply.epoch = carry_out(node, name, command).await?;
    tracing::warn!(
        volume = %name, from = reply.from_node, to = reply.to_node, epoch = reply.epoch, all_is_published,
        "a volume was taken back out of a handoff"
    );
    Ok(reply)
}

/// Whether what was asked for is to be done; what keeps it from that is an error, unless nothing was to be done anyway.
fn is_to_be_done(
    request: &admin::FailOverRequest,
    reply: &mut admin::FailOverReply,
    obstacle: Option<String>,
    is_lossless: bool,
) -> Result<bool, Status> {
    if request.dry_run {
        reply.obstacle = obstacle.unwrap_or_default();
        return Ok(false);
    }
    match obstacle {
        Some(obstacle) => Err(Status::failed_precondition(format!("volume '{}': {obstacle}", request.volume))),
        None => Ok(is_lossless || request.accept_loss),
    }
}

/// The epoch that has begun.
async fn carry_out(node: &Node, name: &VolumeName, command: Command) -> Result<u64, Status> {
    match node.metadata.propose(command).await.map_err(|error| error.about(&subject(name)))? {
        Outcome::TakenOver { epoch } => Ok(epoch.number()),
        other => unreachable!("a failover has the outcome {other:?}"),
    }
}

/// Whether a node may be serving what it owns: its session has not ended, or it has never had one.
fn may_serve(node: &NodeEntry) -> bool {
    node.session.is_none() || has_session(node)
}

fn report(metadata: &Metadata, entry: &VolumeEntry, site: &SiteName, loss: &Loss) -> admin::FailOverReply {
    let owner = metadata.node(entry.owner);
    admin::FailOverReply {
        volume: entry.name.to_string(),
        from_node: node_name(metadata, entry.owner),
        from_site: owner.map(|owner| owner.site.to_string()).unwrap_or_default(),
        from_epoch: entry.epoch.number(),
        published: Some(published(&loss.published)),
        to_node: node_name(metadata, loss.node),
        to_site: site.to_string(),
        complete: Some(published(&loss.complete.contents)),
        lost_bytes: loss.lost_blocks * BLOCK_SIZE,
        lost_ms: loss.lost_ms,
        all_is_published: loss.all_is_published,
        more_at: loss.more_at.iter().map(ToString::to_string).collect(),
        is_in_sync: loss.is_in_sync,
        ..admin::FailOverReply::default()
    }
}

/// Why it cannot be done now.
fn obstacle(metadata: &Metadata, entry: &VolumeEntry, loss: &Loss) -> Option<String> {
    if let Some(to) = entry.moving_to.filter(|to| *to == loss.node) {
        let to = name_of(metadata, to);
        return Some(format!("it is being handed over to {to}, which has to decline that first"));
    }
    let may_serve = |id: &NodeId| metadata.node(*id).is_none_or(|node| may_serve(node));
    if let Some(writer) = entry.ownership().writers().find(may_serve) {
        let (writer, is) = (name_of(metadata, writer), if writer == entry.owner { "owner" } else { "owner to be" });
        return Some(format!("its {is}, {writer}, may still be serving it: its session has not ended"));
    }
    let heir = name_of(metadata, loss.node);
    if loss.is_given_up {
        return Some(format!(
            "what {heir} has of it was given up by an earlier failover, and it has pulled nothing newer: that is no state of the \
             volume any more"
        ));
    }
    let is_live = metadata.node(loss.node).is_some_and(|heir| has_session(heir));
    (!is_live).then(|| format!("{heir}, which keeps the replica, has no session: it is not running, or cut off"))
}

fn nothing_there(metadata: &Metadata, entry: &VolumeEntry, site: &SiteName) -> Status {
    let name = &entry.name;
    if metadata.node(entry.owner).is_some_and(|owner| owner.site == *site) {
        return Status::invalid_argument(format!("volume '{name}' is at site '{site}' already"));
    }
    let complete = entry.replicas.iter().filter(|(_, replica)| replica.complete.is_some());
    let sites: Vec<_> = complete.map(|(site, _)| format!("'{site}'")).collect();
    let instead = match sites.as_slice() {
        [] => "no other site has one either: only its owner can go on with it".to_owned(),
        sites => format!("there is one at {}", sites.join(", ")),
    };
    Status::failed_precondition(format!("site '{site}' has no complete replica of volume '{name}': {instead}"))
}
