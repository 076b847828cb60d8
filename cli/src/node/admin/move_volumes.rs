//! MoveVolumes: volumes of this node go on at another site, all in one moment (design section 5, handoff).

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sterna_consensus::Metadata;
use sterna_consensus::state::volume::Volume as VolumeEntry;
use sterna_migrator::token::Stage;
use sterna_proto::admin;
use sterna_proto::admin::move_volumes_reply::Step;
use sterna_types::{NodeId, SiteName, VolumeId, VolumeName};
use tonic::{Response, Status};

use super::lookup::{held_volume, metadata, own_volume, spec, subject, volume};
use super::replica::{any_live_node, live_nodes, node_of};
use super::reply::node_name;
use super::request::parsed;
use super::status::IntoStatus;
use super::work::{Replies, long_work, to_the_end};
use crate::args::values::Requirement;
use crate::node::handoff::{self, Given, PreCopied, pre_copy, prepare};
use crate::node::migration;
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

/// Has another node go on with volumes; given up when `gone` ends as long as nothing but bringing has begun. `progress` is told how many
/// bytes were brought.
pub(super) async fn move_volumes(
    node: &Arc<Node>,
    request: admin::MoveVolumesRequest,
    gone: impl Future<Output = ()>,
    progress: impl FnMut(u64),
) -> Result<admin::MoveResult, Status> {
    let moving = Moving::new(node, &request, None).await?;
    let brought = tokio::select! {
        brought = moving.bring(progress) => brought?,
        () = gone => return Err(Status::cancelled("nothing has moved: it was told to stop while it brought what has to be there")),
        () = node.stopping.cancelled() => return Err(Status::unavailable("the node is shutting down")),
    };
    moving.hand_over(brought, |_| async { Ok(()) }).await
}

/// Volumes of this node that are to go on at another one.
pub(super) struct Moving {
    node: Arc<Node>,
    names: Vec<(VolumeId, VolumeName)>,
    to: NodeId,
    to_name: String,
    site: SiteName,
    require: Requirement,
    token: Option<Vec<u8>>,
    /// What was brought there, in bytes.
    pre_copied_bytes: AtomicU64,
}

impl Moving {
    /// What is asked for. Volumes that move with a VM do so by its token, which is looked at before anything else.
    ///
    /// # Errors
    /// It cannot be: something is not known, or not here, or not allowed.
    pub(super) async fn new(
        node: &Arc<Node>,
        request: &admin::MoveVolumesRequest,
        token: Option<Vec<u8>>,
    ) -> Result<Self, Status> {
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
        if let Some(token) = &token {
            let epochs = entries.iter().map(|entry| (entry.id, entry.epoch)).collect();
            migration::check(node, token, &epochs, &node.identity.site, &site, Stage::Beginning)?;
        }
        let names: Vec<_> = entries.iter().map(|entry| (entry.id, entry.name.clone())).collect();
        let to_name = node_name(&metadata, to);
        let (node, pre_copied_bytes) = (Arc::clone(node), AtomicU64::new(0));
        Ok(Self { node, names, to, to_name, site, require, token, pre_copied_bytes })
    }

    /// How much was brought, in bytes, by all calls of [`Moving::bring`].
    pub(super) fn pre_copied_bytes(&self) -> u64 {
        self.pre_copied_bytes.load(Ordering::Relaxed)
    }

    /// Brings what has to be there and is not. `progress` is told how much that was until now, with what was brought before.
    ///
    /// # Errors
    /// Why it was not brought.
    ///
    /// # Cancel safety
    /// May be dropped at any time.
    pub(super) async fn bring(&self, mut progress: impl FnMut(u64)) -> Result<Option<PreCopied>, Status> {
        let before = self.pre_copied_bytes();
        let fetched = |bytes| {
            self.pre_copied_bytes.store(before + bytes, Ordering::Relaxed);
            progress(before + bytes);
        };
        if self.require == Requirement::None {
            return Ok(None);
        }
        // Their slots are free again meanwhile.
        let open = hold(&self.node, &self.names).await?.into_iter();
        let volumes: Vec<_> = open.map(|(entry, open, _)| (entry.name.clone(), open.volume)).collect();
        let brought = pre_copy(&self.node, &volumes, self.to, self.require == Requirement::All, fetched).await;
        brought.map_err(|error| Status::failed_precondition(format!("{error:#}; or move it with --require none")))
    }

    /// Has the other node make room, and hands the volumes over when `word` says so, which is asked when all is ready for it. What was
    /// `brought` is kept there until it has them.
    ///
    /// # Errors
    /// Why that was not done, or that it is not known yet whether it was.
    ///
    /// # Cancel safety
    /// Dropped, it goes on to its end.
    pub(super) async fn hand_over<W>(
        self,
        brought: Option<PreCopied>,
        word: impl FnOnce(admin::MoveReady) -> W + Send + 'static,
    ) -> Result<admin::MoveResult, Status>
    where
        W: Future<Output = Result<(), Status>> + Send,
    {
        to_the_end(async move {
            let pre_copied_bytes = self.pre_copied_bytes();
            let Self { node, names, to, to_name, site, token, .. } = self;
            let ready = admin::MoveReady { pre_copied_bytes, node: to_name.clone(), site: site.to_string() };
            let given = hold(&node, &names).await?.into_iter().map(|(entry, open, slot)| Given::new(entry, open, slot));
            let failed = |error: anyhow::Error| Status::failed_precondition(format!("{error:#}"));
            let prepared = prepare(Arc::clone(&node), given.collect(), to, token).await.map_err(failed)?;
            if let Err(status) = word(ready).await {
                prepared.abort().await;
                return Err(status);
            }
            let handed = prepared.release().await;
            // Until now the other node has kept it for this.
            drop(brought);
            let handed = handed.map_err(failed)?;
            let moved = handed.volumes.into_iter().map(|(name, epoch, tail_bytes)| {
                tracing::info!(volume = %name, %to, %epoch, tail_bytes, "a volume was handed over");
                admin::MovedVolume { volume: name.to_string(), epoch: epoch.number(), tail_bytes }
            });
            Ok(admin::MoveResult {
                pre_copied_bytes,
                volumes: moved.collect(),
                node: to_name,
                site: site.to_string(),
                paused_us: u64::try_from(handed.paused.as_micros()).unwrap_or(u64::MAX),
            })
        })
        .await
    }
}

/// Waits until this node serves volumes.
pub(super) async fn until_served(
    node: Arc<Node>,
    request: admin::AwaitVolumesRequest,
) -> Result<admin::AwaitVolumesReply, Status> {
    let names = request.volumes.iter().map(|name| parsed(name)).collect::<Result<Vec<VolumeName>, _>>()?;
    let metadata = metadata(&node).await?;
    let ids: Result<Vec<_>, Status> = names.iter().map(|name| volume(&metadata, name).map(|entry| entry.id)).collect();
    let ids = ids?;
    tokio::select! {
        served = handoff::until_served(&node, &ids) => served.map_err(|_| Status::not_found("one of the volumes is not there any more"))?,
        () = node.stopping.cancelled() => return Err(Status::unavailable("the node is shutting down")),
    }
    Ok(admin::AwaitVolumesReply {})
}

/// Has clients that were attached before volumes were handed over go on with them.
pub(super) async fn resume_clients(
    node: Arc<Node>,
    request: admin::ResumeClientsRequest,
) -> Result<admin::ResumeClientsReply, Status> {
    let names = request.volumes.iter().map(|name| parsed(name)).collect::<Result<Vec<VolumeName>, _>>()?;
    for name in names {
        let (mut slot, entry) = held_volume(&node, &name).await?;
        let resumed = slot.resume_clients(&spec(&entry)?).await;
        let are_there = resumed.map_err(|error| error.about(&subject(&name)))?;
        tracing::info!(volume = %name, epoch = %entry.epoch, are_there, "clients from before a handoff go on, where there are any");
    }
    Ok(admin::ResumeClientsReply {})
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
        let open = slot.volume(&spec(&entry)?).await.map_err(|error| error.about(&subject(&name)))?;
        held.push((entry, open, slot));
    }
    Ok(held)
}

pub(super) fn step(step: Step) -> admin::MoveVolumesReply {
    admin::MoveVolumesReply { step: Some(step) }
}
