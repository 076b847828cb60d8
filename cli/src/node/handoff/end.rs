//! How handoffs of node A end ([`super`]): aborted before anything was released, or once the other node has taken what was.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use sterna_consensus::handoff::Holder;
use sterna_consensus::state::command::Command;
use sterna_consensus::state::handoffs::VolumeHandoff;
use sterna_consensus::state::outcome::Outcome;
use sterna_consensus::state::volume::Volume as VolumeEntry;
use sterna_proto::node::ReleaseRequest;
use sterna_runtime::work::blocking;
use sterna_types::NodeId;
use tokio::time::timeout;

use super::give::{ANSWER_PATIENCE, client};
use super::promise::promise;
use super::tell;
use super::wire::{Passing, Release};
use crate::node::node::Node;

/// How a handoff has ended, as the metadata says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The epoch that it begins has begun, or the volume is deleted.
    Passed,
    /// A later epoch has begun: somebody has gone on with it since, or in its place.
    Overtaken,
    /// The owner goes on with it.
    HandedBack,
}

/// Promises never to release these, and has their handoffs ended: those that have not ended already.
pub(super) async fn abort(node: &Arc<Node>, passings: &[Passing]) -> Result<()> {
    let mut aborting = Vec::new();
    for passing in passings.iter().copied() {
        let own = Arc::clone(node);
        if blocking(move || promise(&own, passing, Holder::may_abort)).await?? {
            aborting.push(passing);
        }
    }
    let command = Command::AbortHandoff { by: node.metadata.id(), volumes: handoffs(&aborting) };
    match node.metadata.propose(command).await? {
        Outcome::HandoffsEnded { refused } => {
            for (volume, refusal) in refused {
                // It has ended already.
                tracing::debug!(%volume, %refusal, "a handoff was not aborted");
            }
            Ok(())
        }
        other => unreachable!("an abort has the outcome {other:?}"),
    }
}

/// Sends releases until `to` has taken them, or their handoffs have ended: how, for each.
///
/// # Errors
/// The node shuts down.
///
/// # Cancel safety
/// May be dropped at any time, and called again.
pub(super) async fn deliver(node: &Arc<Node>, to: NodeId, releases: &[Release]) -> Result<Vec<End>> {
    let mut ends = vec![None; releases.len()];
    let mut view = node.metadata.watch();
    let mut told = false;
    loop {
        {
            let metadata = view.borrow_and_update();
            for (end, release) in ends.iter_mut().zip(releases) {
                *end = end.or_else(|| end_of(metadata.volume(release.passing.volume), release.passing));
            }
        }
        let left: Vec<_> =
            releases.iter().zip(&ends).filter(|(_, end)| end.is_none()).map(|(release, _)| release).collect();
        if left.is_empty() {
            return Ok(ends.into_iter().flatten().collect());
        }
        let answer = tokio::select! {
            () = node.stopping.cancelled() => bail!("the node is shutting down: the next start goes on with it"),
            answer = send(node, to, &left) => answer,
        };
        match answer {
            Ok(true) => {
                for release in left {
                    node.handoffs.note_delivered(release.passing.volume, release.passing.handoff);
                }
                return Ok(ends.into_iter().map(|end| end.unwrap_or(End::Passed)).collect());
            }
            // The metadata is about to say that it has ended.
            Ok(false) => {}
            Err(error) => {
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!(node = %to, "volumes are released to it, and it does not answer; they are sent again: {error:#}");
                }
            }
        }
        tokio::select! {
            () = node.stopping.cancelled() => {}
            () = tokio::time::sleep(RETRY) => {}
            changed = view.changed() => changed.context("the metadata has ended")?,
        }
    }
}

/// Whether they were accepted.
async fn send(node: &Arc<Node>, to: NodeId, releases: &[&Release]) -> Result<bool> {
    let volumes = releases.iter().map(|release| release.to_message()).collect();
    tell("release", to);
    let reply = timeout(ANSWER_PATIENCE, client(node, to)?.release(ReleaseRequest { volumes })).await;
    let reply = reply.context("no answer in time")?;
    Ok(reply.map_err(|status| anyhow::anyhow!("{}", status.message()))?.into_inner().accepted)
}

/// How a handoff has ended, if it has.
fn end_of(entry: Option<&Arc<VolumeEntry>>, passing: Passing) -> Option<End> {
    let Some(entry) = entry else { return Some(End::Passed) };
    let is_under_way = entry.moving_to.is_some() && entry.last_handoff == passing.handoff;
    match entry.epoch {
        epoch if epoch == passing.epoch => (!is_under_way).then_some(End::HandedBack),
        epoch if epoch == passing.epoch.next() => Some(End::Passed),
        _ => Some(End::Overtaken),
    }
}

/// Handoffs, as commands name them.
pub(super) fn handoffs(passings: &[Passing]) -> Vec<VolumeHandoff> {
    passings.iter().map(|&Passing { volume, handoff, .. }| VolumeHandoff { volume, handoff }).collect()
}

const RETRY: Duration = Duration::from_millis(500);
