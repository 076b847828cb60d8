//! What the node that leads does besides: it raises the metadata's version once all nodes know the next, ends sessions that
//! were not renewed in time, and makes Raft's members those of the layout.
//!
//! Each of these is decided anew from the metadata whenever that changes, and from time to time: a leader that ends halfway
//! leaves to the next one what is still to be done. Nothing here is decided by anything that the metadata does not say but the
//! one clock of [`Overdue`].

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use openraft::error::Fatal;
use openraft::{ChangeMembers, EmptyNode, RaftMetrics, ServerState};
use sterna_types::NodeId;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};

use super::error::ProposeError;
use super::overdue::Overdue;
use super::proposer::{Proposal, Urgency, ask};
use crate::raft::Raft;
use crate::session::trace::Asked;
use crate::state::Metadata;
use crate::state::cluster::MetadataVersion;
use crate::state::command::Command;
use crate::state::request::Request;

/// The task; see above. It ends when it is aborted, or Raft has ended.
pub(super) struct Leadership {
    node: NodeId,
    /// What this program understands.
    knows: MetadataVersion,
    raft: Raft,
    view: watch::Receiver<Arc<Metadata>>,
    proposals: mpsc::Sender<Proposal>,
    /// What was seen in the term that this node leads in.
    led: Option<(u64, Overdue<Instant>)>,
    /// What kept Raft's members from being what they should be, said once.
    told: Option<String>,
}

impl Leadership {
    pub(super) fn new(
        node: NodeId,
        knows: MetadataVersion,
        raft: Raft,
        view: watch::Receiver<Arc<Metadata>>,
        proposals: mpsc::Sender<Proposal>,
    ) -> Self {
        Self { node, knows, raft, view, proposals, led: None, told: None }
    }

    pub(super) async fn run(mut self) {
        let mut metrics = self.raft.metrics();
        loop {
            let now = metrics.borrow_and_update().clone();
            if now.running_state.is_err() {
                return;
            }
            if now.state == ServerState::Leader {
                self.lead(&now).await;
            } else {
                self.led = None;
            }
            tokio::select! {
                biased;
                changed = self.view.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(INTERVAL) => {}
            }
            if self.view.borrow().node_count() > NODES_THAT_NEED_NO_PAUSE {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    async fn lead(&mut self, metrics: &RaftMetrics<u64, EmptyNode>) {
        let metadata = Arc::clone(&self.view.borrow_and_update());
        if metadata.cluster().is_none() {
            return;
        }
        let now = Instant::now();
        let term = metrics.current_term;
        if self.led.as_ref().is_none_or(|(led, _)| *led != term) {
            self.led = Some((term, Overdue::default()));
        }
        let mut commands = Vec::new();
        let version = version_of_all(&metadata, self.knows);
        if metadata.version() < version {
            commands.push(Command::RaiseVersion { version });
        }
        if let Some((_, overdue)) = &mut self.led {
            overdue.observe(&metadata, now);
            for (node, number, renewals) in overdue.overdue(&metadata, now) {
                tracing::warn!(%node, session = %number, "a session was not renewed in time, and lapses");
                commands.push(Command::LapseSession { node, number, renewals });
            }
        }
        if !commands.is_empty() {
            self.propose(commands).await;
        }
        self.follow_layout(&metadata, metrics).await;
    }

    async fn propose(&self, commands: Vec<Command>) {
        let asked: Vec<_> = commands.iter().map(Asked::tell).collect();
        let requests: Vec<_> = commands.into_iter().map(|command| Request { id: None, command }).collect();
        let answers = match ask(&self.proposals, requests, false, Urgency::AtOnce).await {
            Ok(written) => written.answers,
            Err(error) => asked.iter().map(|_| Err(error.clone())).collect(),
        };
        for (asked, answer) in asked.into_iter().zip(&answers) {
            if let Some(asked) = asked {
                asked.hear(answer.as_ref());
            }
        }
        let refused = answers.into_iter().find_map(Result::err);
        match refused {
            // It was renewed, or has ended, while this was on its way; or another node leads now.
            None | Some(ProposeError::Refused(_) | ProposeError::NotLeader { .. }) => {}
            Some(error) => tracing::warn!(%error, "what the leader proposes is not decided; it is tried again"),
        }
    }

    /// One step of what it takes for Raft's members to be those that the metadata says.
    async fn follow_layout(&mut self, metadata: &Metadata, metrics: &RaftMetrics<u64, EmptyNode>) {
        let Some(step) = next_step(metadata, metrics) else {
            self.told = None;
            return;
        };
        let failed = match step {
            Step::Wait(what) => Some(what),
            Step::AddLearners(nodes) => {
                let nodes = nodes.into_iter().map(|node| (node, EmptyNode {})).collect();
                self.change(ChangeMembers::AddNodes(nodes)).await
            }
            Step::SetVoters(voters) => self.change(ChangeMembers::ReplaceAllVoters(voters)).await,
            Step::Remove(nodes) => self.change(ChangeMembers::RemoveNodes(nodes)).await,
        };
        if failed.is_some() && failed != self.told {
            tracing::warn!(node = %self.node, "Raft's members are not yet those of the layout: {}", failed.as_deref().unwrap_or(""));
        }
        self.told = failed;
    }

    async fn change(&self, change: ChangeMembers<u64, EmptyNode>) -> Option<String> {
        tracing::info!(node = %self.node, ?change, "Raft's members change");
        match timeout(CHANGE_TIMEOUT, self.changed(change)).await {
            Ok(Ok(())) => None,
            Ok(Err(what)) => Some(what),
            Err(_) => Some("a change of the members takes long".to_owned()),
        }
    }

    /// Ends when the change is in the log and Raft's metrics show it: the next step goes by them, and one that went by older ones
    /// would ask for the same change again.
    async fn changed(&self, change: ChangeMembers<u64, EmptyNode>) -> Result<(), String> {
        let written = self.raft.change_membership(change, true).await.map_err(|error| error.to_string())?;
        let mut metrics = self.raft.metrics();
        let shown = metrics.wait_for(|metrics| {
            metrics.membership_config.log_id().is_some_and(|at| at >= written.log_id) || metrics.running_state.is_err()
        });
        shown.await.map(drop).map_err(|_| Fatal::<u64>::Stopped.to_string())
    }
}

/// A change of Raft's members.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// Something has to happen first.
    Wait(String),
    AddLearners(BTreeSet<u64>),
    SetVoters(BTreeSet<u64>),
    Remove(BTreeSet<u64>),
}

/// What is to be done next. A node listens before it votes, and votes only once it has nearly all of the log, so that the
/// voters can decide at every moment; all who are to vote come in together, because two of them can lose less than one.
fn next_step(metadata: &Metadata, metrics: &RaftMetrics<u64, EmptyNode>) -> Option<Step> {
    let membership = metrics.membership_config.membership();
    let members: BTreeSet<u64> = membership.nodes().map(|(id, _)| *id).collect();
    let voters: BTreeSet<u64> = membership.voter_ids().collect();
    let new: BTreeSet<u64> = metadata.nodes().map(|node| node.id.0).filter(|id| !members.contains(id)).collect();
    if !new.is_empty() {
        return Some(Step::AddLearners(new));
    }
    let wanted: BTreeSet<u64> = metadata.layout().voters.iter().map(|id| id.0).collect();
    if wanted != voters {
        let last = metrics.last_log_index.unwrap_or(0);
        let matched = |id: &u64| {
            let replication = metrics.replication.as_ref()?;
            replication.get(id).copied().flatten().map(|matched| matched.index)
        };
        let lags = |id: &&u64| **id != metrics.id && matched(id).is_none_or(|at| at + MAX_LAG_OF_VOTER < last);
        return Some(match wanted.difference(&voters).find(lags) {
            Some(id) => Step::Wait(format!("node {id} is to vote, and has not caught up yet")),
            None => Step::SetVoters(wanted),
        });
    }
    let gone: BTreeSet<u64> = members.iter().copied().filter(|id| metadata.node(NodeId(*id)).is_none()).collect();
    (!gone.is_empty()).then_some(Step::Remove(gone))
}

/// The highest version that all nodes understand, as far as this program does, which knows `own`.
fn version_of_all(metadata: &Metadata, own: MetadataVersion) -> MetadataVersion {
    // A lone node that leads is this program. Nothing is above what this one knows: most often there is nothing to look for.
    if metadata.node_count() == 1 || metadata.version() >= own {
        return own;
    }
    metadata.nodes().map(|node| node.knows).fold(own, MetadataVersion::min)
}

/// Between two looks where nothing changes: a session lapses so much late at most.
const INTERVAL: Duration = Duration::from_millis(200);
/// Between two looks at very many nodes. All of them are looked at each time: not once for each entry, however fast they come.
const PAUSE: Duration = Duration::from_millis(20);
/// So many are looked at in a few microseconds.
const NODES_THAT_NEED_NO_PAUSE: usize = 100;
/// A node that is to vote may lack so many entries: a few round trips' worth.
const MAX_LAG_OF_VOTER: u64 = 100;
/// An election, and a few round trips around the world.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(10);
