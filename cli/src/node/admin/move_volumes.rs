//! MoveVolumes: volumes of this node go on at another site, all in one moment (design section 5, handoff).

use std::future::Future;
use std::sync::Arc;

use sterna_consensus::Metadata;
use sterna_consensus::state::volume::Volume as VolumeEntry;
use sterna_proto::admin;
use sterna_proto::admin::move_volumes_reply::Step;
use sterna_types::{NodeId, SiteName, VolumeId, VolumeName};
use tonic::{Response, Status};

use super::lookup::{held_volume, metadata, own_volume, spec, subject};
use super::replica::{any_live_node, live_nodes, node_of};
use super::reply::node_name;
use super::request::parsed;
use super::status::IntoStatus;
use super::work::{Replies, long_work, to_the_end};
use crate::args::values::Requirement;
use crate::node::handoff::{Given, PreCopied, give, pre_copy};
use crate::node::node::Node;
use crate::node::volumes::{HeldSlot, OpenVolume};

/// Has another node go on with volumes.
pub(super) fn run(node: &Arc<Node>, request: admin::MoveVolumesRequest) -> Response<Replies<admin::MoveVolumesReply>> {
    let own = Arc::clone(node);
    long_work(node, move |mut reporter| async move {
        let gone = reporter.gone();
        let progress = |done_bytes| {
            let progress = admin::Progress { done_bytes, total_bytes: 0 };
            // Whether the caller is still there is seen to beside it.
            let _ = reporter.progress(|| step(Step::Progress(progress)));
        };
        Ok(step(Step::Result(move_volumes(&own, request, gone, progress).await?)))
    })
}

/// The same, given up when `gone` ends as long as nothing but bringing has begun; `progress` is told how many bytes were brought.
pub(super) async fn move_volumes(
    node: &Arc<Node>,
    request: admin::MoveVolumesRequest,
    gone: impl Future<Output = ()>,
    mut progress: impl FnMut(u64),
) -> Result<admin::MoveResult, Status> {
    let site: SiteName = parsed(&request.site)?;
    let require: Requirement = parsed(&request.require)?;
    let names = request.volumes.iter().map(|name| parsed(name)).collect::<Result<Vec<VolumeName>, _>>()?;
    let metadata = metadata(node).await?;
    let entries = names.iter().map(|name| own_volume(node, &metadata, name)).collect::<Result<Vec<_>, _>>()?;
    let to = match request.node.as_str() {
        "" => best_node(&metadata, &entries, &site)?,
        chosen => node_of(&metadata, &parsed(chosen)?, &site)?,
    };
    if to == node.metadata.id() {
        return Err(Status::invalid_argument(format!(
            "site '{site}' is where this node is, which owns what is to move"
        )));
    }
    let names: Vec<_> = entries.iter().map(|entry| (entry.id, entry.name.clone())).collect();
    let mut pre_copied_bytes = 0;
    let bringing = bring(node, &names, to, require, |bytes| {
        pre_copied_bytes = bytes;
        progress(bytes);
    });
    let brought = tokio::select! {
        brought = bringing => brought?,
        () = gone => return Err(Status::cancelled("nothing has moved: it was told to stop while it brought what has to be there")),
        () = node.stopping.cancelled() => return Err(Status::unavailable("the node is shutting down")),
    };
    let own = Arc::clone(node);
    let handed = to_the_end(async move {
        let given = hold(&own, &names).await?.into_iter().map(|(entry, open, slot)| Given::new(entry, open, slot));
        let handed = give(Arc::clone(&own), given.collect(), to).await;
        // Until now the other node has kept it for this.
        drop(brought);
        handed.map_err(|error| Status::failed_precondition(format!("{error:#}")))
    });
    let handed = handed.await?;
    let moved = handed.volumes.into_iter().map(|(name, epoch, tail_bytes)| {
        tracing::info!(volume = %name, %to, %epoch, tail_bytes, "a volume was handed over");
        admin::MovedVolume { volume: name.to_string(), epoch: epoch.number(), tail_bytes }
    });
    Ok(admin::MoveResult {
        pre_copied_bytes,
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

/// Brings what has to be there.
async fn bring(
    node: &Arc<Node>,
    names: &[(VolumeId, VolumeName)],
    to: NodeId,
    require: Requirement,
    fetched: impl FnMut(u64),
) -> Result<Option<PreCopied>, Status> {
    // Their slots are free again meanwhile.
    let open = hold(node, names).await?.into_iter().map(|(entry, open, _)| (entry.name.clone(), open.volume));
    let volumes: Vec<_> = open.collect();
    let brought = match require {
        Requirement::None => return Ok(None),
        Requirement::Hot => pre_copy(node, &volumes, to, false, fetched).await,
        Requirement::All => pre_copy(node, &volumes, to, true, fetched).await,
    };
    brought.map_err(|error| Status::failed_precondition(format!("{error:#}; or move it with --require none")))
}

/// Holds the slots of volumes that can be given away, always in the same order, and opens them.
async fn hold(
    node: &Arc<Node>,
    names: &[(VolumeId, VolumeName)],
) -> Result<Vec<(Arc<VolumeEntry>, OpenVolume, HeldSlot)>, Status> {
    let mut ordered = names.to_vec();
    ordered.sort_unstable();
    if let Some([(_, name), _]) = ordered.array_windows().find(|[(one, _), (next, _)]| one == next) {
        return Err(Status::invalid_argument(format!("volume '{name}' is named twice")));
    }
    let mut held = Vec::new();
    for (_, name) in ordered {
        let (mut slot, entry) = held_volume(node, &name).await?;
        if !entry.is_hydrated() {
            let what = format!("not all of volume '{name}' has arrived here yet: move it later");
            return Err(Status::failed_precondition(what));
        }
        let open = slot.volume(&spec(&entry)?).await.map_err(|error| error.about(&subject(&name)))?;
        held.push((entry, open, slot));
    }
    Ok(held)
}

fn step(step: Step) -> admin::MoveVolumesReply {
    admin::MoveVolumesReply { step: Some(step) }
}
