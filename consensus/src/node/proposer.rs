//! The task that proposes: it puts what was asked for at about the same time into one entry of the log, so that it shares
//! one sync of the disk and one round to the other nodes.
//!
//! Invariants: one entry of this node is on its way at a time, and those who came meanwhile are in the next one; requests are
//! carried out in the order in which they came; each one is answered once.

use openraft::error::{ClientWriteError, RaftError};
use sterna_types::NodeId;
use tokio::sync::{mpsc, oneshot};

use super::error::ProposeError;
use crate::limits::{MAX_COMMANDS_PER_ENTRY, MAX_ENTRY_BYTES, MAX_WAITING_PROPOSALS};
use crate::raft::{Batch, Raft};
use crate::state::command::Request;
use crate::state::outcome::Outcome;

/// What comes of a proposal.
pub(super) type Answer = Result<Outcome, ProposeError>;

/// A request, and who waits for its answer.
#[derive(Debug)]
pub(super) struct Proposal {
    pub(super) request: Request,
    pub(super) answer: oneshot::Sender<Answer>,
}

/// The task; see above. It ends when nobody can propose any more, or Raft has ended.
pub(super) struct Proposer {
    raft: Raft,
    node: NodeId,
    waiting: mpsc::Receiver<Proposal>,
    /// What did not fit into the last entry.
    left_over: Option<Proposal>,
}

impl Proposer {
    /// The task, not started yet, and the way to it.
    pub(super) fn new(raft: Raft, node: NodeId) -> (Self, mpsc::Sender<Proposal>) {
        let (sender, waiting) = mpsc::channel(MAX_WAITING_PROPOSALS);
        (Self { raft, node, waiting, left_over: None }, sender)
    }

    /// Proposes until there is nobody to do it for.
    pub(super) async fn run(mut self) {
        while let Some(proposals) = self.gather().await {
            let (requests, waiters): (Vec<_>, Vec<_>) = proposals.into_iter().map(|p| (p.request, p.answer)).unzip();
            match self.propose(requests, waiters.len()).await {
                Ok(answers) => {
                    for (waiter, answer) in waiters.into_iter().zip(answers) {
                        // Who does not wait any more does not want to know.
                        let _ = waiter.send(answer);
                    }
                }
                Err(error) => {
                    for waiter in waiters {
                        let _ = waiter.send(Err(error.clone()));
                    }
                }
            }
        }
    }

    /// What goes into the next entry: at least one proposal, and what waits already, within the bounds of an entry.
    async fn gather(&mut self) -> Option<Vec<Proposal>> {
        let first = match self.left_over.take() {
            Some(proposal) => proposal,
            None => self.waiting.recv().await?,
        };
        let mut bytes = first.request.bytes_at_most();
        let mut proposals = vec![first];
        while proposals.len() < MAX_COMMANDS_PER_ENTRY
            && let Ok(next) = self.waiting.try_recv()
        {
            bytes += next.request.bytes_at_most();
            if bytes > MAX_ENTRY_BYTES {
                self.left_over = Some(next);
                break;
            }
            proposals.push(next);
        }
        Some(proposals)
    }

    /// Puts the requests into the log and waits for what comes of them, one answer for each.
    async fn propose(&self, requests: Vec<Request>, count: usize) -> Result<Vec<Answer>, ProposeError> {
        let state = self.raft.metrics().borrow().clone();
        if let Err(fatal) = state.running_state {
            return Err(ProposeError::Stopped { what: fatal.to_string() });
        }
        if state.current_leader != Some(self.node.0) {
            return Err(ProposeError::NotLeader { leader: state.current_leader.map(NodeId) });
        }
        let written = self.raft.client_write(Batch { requests }).await.map_err(|error| unknown(&error))?;
        let answers = written.data.0;
        assert_eq!(answers.len(), count, "an entry has an answer for each of its requests");
        Ok(answers.into_iter().map(|answer| answer.map_err(ProposeError::from)).collect())
    }
}

/// A proposal that was on its way when something happened. Even one that openraft took out of the log, because another leader
/// had other entries there, may be in the log of a third node, and be committed yet.
fn unknown(error: &RaftError<u64, ClientWriteError<u64, openraft::EmptyNode>>) -> ProposeError {
    ProposeError::Unknown { what: error.to_string() }
}
