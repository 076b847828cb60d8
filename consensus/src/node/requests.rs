//! Proposing and reading, from any node: what this node cannot say itself it asks of the one that leads, and where nobody leads
//! it waits for a while.

use std::sync::Arc;
use std::time::Duration;

use openraft::error::{CheckIsLeaderError, RaftError};
use sterna_types::NodeId;
use tokio::time::{Instant, timeout_at};

use super::MetadataNode;
use super::error::{ProposeError, ReadError};
use super::proposer::{Urgency, ask};
use crate::raft::Fatal;
use crate::state::Metadata;
use crate::state::command::Command;
use crate::state::outcome::Outcome;
use crate::state::request::{Request, RequestId};

impl MetadataNode {
    /// The metadata with everything in it that was acknowledged to anybody before this call.
    ///
    /// # Errors
    /// [`ReadError`] where that cannot be said: this node is cut off, or nobody leads.
    ///
    /// # Cancel safety
    /// May be dropped at any time.
    pub async fn linearizable(&self) -> Result<Arc<Metadata>, ReadError> {
        let deadline = Instant::now() + self.patience;
        loop {
            let asked = Instant::now();
            let read = timeout_at(deadline.max(asked + SHORTEST_PATIENCE), self.read_once()).await;
            let error = match read {
                Ok(Ok(metadata)) => return Ok(metadata),
                Ok(Err(error @ ReadError::Stopped { .. })) => return Err(error),
                Ok(Err(error)) => error,
                Err(_) => ReadError::NotLeader { leader: self.leader() },
            };
            if !self.wait_for_leader(deadline).await {
                return Err(error);
            }
        }
    }

    async fn read_once(&self) -> Result<Arc<Metadata>, ReadError> {
        let read = match self.raft.ensure_linearizable().await {
            Ok(_) => return Ok(self.read()),
            Err(RaftError::Fatal(fatal)) => return Err(ReadError::Stopped { what: fatal.to_string() }),
            Err(RaftError::APIError(CheckIsLeaderError::QuorumNotEnough(_))) => None,
            Err(RaftError::APIError(CheckIsLeaderError::ForwardToLeader(forward))) => forward.leader_id.map(NodeId),
        };
        let leader = read.filter(|leader| *leader != self.id).ok_or(ReadError::NotLeader { leader: None })?;
        let index = self.way_to_leader.read_index(leader).await?;
        self.applied(index).await.map_err(|fatal| ReadError::Stopped { what: fatal.to_string() })?;
        Ok(self.read())
    }

    /// Has a command carried out. On return its outcome is durable on a majority of the voters, and in this node's view.
    ///
    /// # Errors
    /// [`ProposeError`], which tells a refusal from an outcome that is not known.
    ///
    /// # Cancel safety
    /// Dropped before its answer, the command may be carried out or not.
    pub async fn propose(&self, command: Command) -> Result<Outcome, ProposeError> {
        self.submit(Request { id: None, command }, Urgency::AtOnce).await
    }

    /// As [`MetadataNode::propose`], for what nobody waits for: in a cluster of many nodes the one that leads holds it back for a
    /// moment, half a second at most, and puts what came meanwhile into one entry with it.
    ///
    /// # Errors
    /// As [`MetadataNode::propose`].
    ///
    /// # Cancel safety
    /// As [`MetadataNode::propose`].
    pub async fn propose_without_haste(&self, command: Command) -> Result<Outcome, ProposeError> {
        self.submit(Request { id: None, command }, Urgency::CanWait).await
    }

    /// As [`MetadataNode::propose`], for a command that must not be carried out twice: proposed again with the same `id`
    /// after its answer was lost, it is answered with the outcome of the first time.
    ///
    /// # Errors
    /// As [`MetadataNode::propose`].
    ///
    /// # Cancel safety
    /// As [`MetadataNode::propose`].
    pub async fn propose_once(&self, id: RequestId, command: Command) -> Result<Outcome, ProposeError> {
        self.submit(Request { id: Some(id), command }, Urgency::AtOnce).await
    }

    async fn submit(&self, request: Request, urgency: Urgency) -> Result<Outcome, ProposeError> {
        let deadline = Instant::now() + self.patience;
        loop {
            let error = match self.submit_once(request.clone(), urgency).await {
                Err(error @ (ProposeError::NotLeader { .. } | ProposeError::CutOff { .. })) => error,
                // It is safe to ask again for what has a name.
                Err(error @ ProposeError::Unknown { .. }) if request.id.is_some() => error,
                answer => return answer,
            };
            if !self.wait_for_leader(deadline).await {
                return Err(error);
            }
        }
    }

    async fn submit_once(&self, request: Request, urgency: Urgency) -> Result<Outcome, ProposeError> {
        let written = ask(&self.proposals, vec![request], true, urgency).await?;
        let stopped = |fatal: Fatal| ProposeError::Unknown { what: format!("it was carried out, but {fatal}") };
        self.applied(written.index).await.map_err(stopped)?;
        let answer = written.answers.into_iter().next();
        answer.unwrap_or_else(|| Err(ProposeError::Unknown { what: "there is no answer".to_owned() }))
    }

    /// Waits until this node has applied the log up to an entry.
    async fn applied(&self, index: u64) -> Result<(), Fatal> {
        let mut metrics = self.raft.metrics();
        loop {
            {
                let metrics = metrics.borrow_and_update();
                if metrics.last_applied.is_some_and(|applied| applied.index >= index) {
                    return Ok(());
                }
                metrics.running_state.clone()?;
            }
            metrics.changed().await.map_err(|_| Fatal::Stopped)?;
        }
    }

    /// Waits for somebody to lead, or for a moment where somebody seems to; whether there is time left to ask.
    async fn wait_for_leader(&self, deadline: Instant) -> bool {
        let next = Instant::now() + RETRY_PAUSE;
        if next >= deadline {
            return false;
        }
        tokio::time::sleep_until(next).await;
        let mut metrics = self.raft.metrics();
        let leads = metrics.wait_for(|metrics| metrics.current_leader.is_some() || metrics.running_state.is_err());
        matches!(timeout_at(deadline, leads).await, Ok(Ok(_)))
    }
}

/// Before whoever seemed to lead, and did not, is asked again.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// A read is given this long at least: a round trip around the world, and a sync.
const SHORTEST_PATIENCE: Duration = Duration::from_secs(1);
