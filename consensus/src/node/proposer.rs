//! The task that proposes: it puts what was asked for at about the same time into one entry of the log, so that it shares
//! one sync of the disk and one round to the other nodes. Where another node leads, that one is asked to do it.
//!
//! Invariants: a few entries of this node are on their way at a time, and those who come meanwhile are in the next one;
//! requests that wait together are carried out in the order in which they came; each one is answered once.

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use openraft::error::{ClientWriteError, Fatal, RaftError};
use openraft::raft::ClientWriteResult;
use sterna_types::NodeId;
use tokio::sync::{mpsc, oneshot};

use super::error::ProposeError;
use super::leader::{Leader, Written};
use crate::limits::{MAX_COMMANDS_PER_ENTRY, MAX_ENTRIES_IN_FLIGHT, MAX_ENTRY_BYTES, MAX_WAITING_PROPOSALS};
use crate::raft::{Batch, Raft, TypeConfig};
use crate::state::command::Request;
use crate::state::outcome::Outcome;

/// What comes of one request.
pub(super) type Answer = Result<Outcome, ProposeError>;

/// Requests that belong into one entry, and who waits for their answers.
#[derive(Debug)]
pub(super) struct Proposal {
    requests: Vec<Request>,
    /// Whether another node may be asked, where that one leads.
    hand_on: bool,
    answer: oneshot::Sender<Result<Written, ProposeError>>,
}

/// Has requests put into one entry, and waits for what comes of them.
///
/// # Errors
/// [`ProposeError`], but for [`ProposeError::Refused`], which is an answer to one of them.
pub(super) async fn ask(
    proposals: &mpsc::Sender<Proposal>,
    requests: Vec<Request>,
    hand_on: bool,
) -> Result<Written, ProposeError> {
    let (answer, answered) = oneshot::channel();
    let stopped = |_| ProposeError::Stopped { what: "it was shut down".to_owned() };
    proposals.send(Proposal { requests, hand_on, answer }).await.map_err(stopped)?;
    let lost = |_| ProposeError::Unknown { what: "the metadata was shut down meanwhile".to_owned() };
    answered.await.map_err(lost)?
}

/// The task; see above. It ends when nobody can propose any more, and all that was on its way is answered.
pub(super) struct Proposer {
    raft: Raft,
    node: NodeId,
    leader: Leader,
    waiting: mpsc::Receiver<Proposal>,
    /// What did not fit into the last entry.
    left_over: Option<Proposal>,
}

/// What goes into one entry.
struct Gathered {
    requests: Vec<Request>,
    hand_on: bool,
    /// Who waits, and for how many of the requests, in their order.
    waiters: Vec<(usize, oneshot::Sender<Result<Written, ProposeError>>)>,
}

impl Proposer {
    /// The task, not started yet, and the way to it.
    pub(super) fn new(raft: Raft, node: NodeId, leader: Leader) -> (Self, mpsc::Sender<Proposal>) {
        let (sender, waiting) = mpsc::channel(MAX_WAITING_PROPOSALS);
        (Self { raft, node, leader, waiting, left_over: None }, sender)
    }

    /// Proposes until there is nobody to do it for.
    pub(super) async fn run(mut self) {
        let mut in_flight = FuturesUnordered::new();
        loop {
            tokio::select! {
                gathered = self.gather(), if in_flight.len() < MAX_ENTRIES_IN_FLIGHT => match gathered {
                    Some(gathered) => {
                        let begun = self.begin(gathered).await;
                        in_flight.push(begun);
                    }
                    None => break,
                },
                Some(()) = in_flight.next() => {}
            }
        }
        while in_flight.next().await.is_some() {}
    }

    /// What goes into the next entry: at least one proposal, and what waits already, within the bounds of an entry.
    ///
    /// # Cancel safety
    /// Dropped, it has taken nothing.
    async fn gather(&mut self) -> Option<Gathered> {
        let first = match self.left_over.take() {
            Some(proposal) => proposal,
            None => self.waiting.recv().await?,
        };
        let mut bytes = first.bytes_at_most();
        let mut gathered = Gathered { requests: Vec::new(), hand_on: first.hand_on, waiters: Vec::new() };
        gathered.add(first);
        while let Ok(next) = self.waiting.try_recv() {
            bytes += next.bytes_at_most();
            let count = gathered.requests.len() + next.requests.len();
            if bytes > MAX_ENTRY_BYTES || count > MAX_COMMANDS_PER_ENTRY || next.hand_on != gathered.hand_on {
                self.left_over = Some(next);
                break;
            }
            gathered.add(next);
        }
        Some(gathered)
    }

    /// Sets an entry on its way: what is returned ends when it has arrived, and all who wait for it have been answered. Entries
    /// of this node are in the log in the order in which this was called.
    async fn begin(&self, gathered: Gathered) -> impl Future<Output = ()> + use<> {
        let Gathered { requests, hand_on, waiters } = gathered;
        let count = requests.len();
        let metrics = self.raft.metrics().borrow().clone();
        let way = match (metrics.running_state, metrics.current_leader.map(NodeId)) {
            (Err(fatal), _) => Way::Nowhere(ProposeError::Stopped { what: fatal.to_string() }),
            (Ok(()), Some(leader)) if leader == self.node => {
                match self.raft.client_write_ff(Batch { requests }).await {
                    Ok(written) => Way::Own(written),
                    Err(fatal) => Way::Nowhere(ProposeError::Stopped { what: fatal.to_string() }),
                }
            }
            (Ok(()), Some(leader)) if hand_on => Way::Leader(self.leader.clone(), leader, requests),
            (Ok(()), leader) => Way::Nowhere(ProposeError::NotLeader { leader }),
        };
        async move {
            let written = match way {
                Way::Own(written) => written.await.map_or_else(|_| Err(gone()), |result| answers_of(result, count)),
                Way::Leader(way, leader, requests) => way.propose(leader, &requests).await,
                Way::Nowhere(error) => Err(error),
            };
            answer(written, waiters);
        }
    }
}

/// Where an entry goes.
enum Way {
    /// Into this node's own log, which it is being written to.
    Own(oneshot::Receiver<ClientWriteResult<TypeConfig>>),
    /// To the node that leads.
    Leader(Leader, NodeId, Vec<Request>),
    /// Nowhere, and why.
    Nowhere(ProposeError),
}

impl Proposal {
    fn bytes_at_most(&self) -> usize {
        self.requests.iter().map(Request::bytes_at_most).sum()
    }
}

impl Gathered {
    fn add(&mut self, proposal: Proposal) {
        self.waiters.push((proposal.requests.len(), proposal.answer));
        self.requests.extend(proposal.requests);
    }
}

/// Gives everybody who waits what is theirs. Who does not wait any more does not want to know.
fn answer(
    written: Result<Written, ProposeError>,
    waiters: Vec<(usize, oneshot::Sender<Result<Written, ProposeError>>)>,
) {
    match written {
        Ok(Written { index, answers }) => {
            let mut answers = answers.into_iter();
            for (count, waiter) in waiters {
                let _ = waiter.send(Ok(Written { index, answers: answers.by_ref().take(count).collect() }));
            }
        }
        Err(error) => {
            for (_, waiter) in waiters {
                let _ = waiter.send(Err(error.clone()));
            }
        }
    }
}

fn answers_of(result: ClientWriteResult<TypeConfig>, count: usize) -> Result<Written, ProposeError> {
    match result {
        Ok(written) => {
            let answers = written.data.0;
            assert_eq!(answers.len(), count, "an entry has an answer for each of its requests");
            let answers = answers.into_iter().map(|answer| answer.map_err(ProposeError::from)).collect();
            Ok(Written { index: written.log_id.index, answers })
        }
        Err(error) => Err(unknown(&RaftError::APIError(error))),
    }
}

/// A proposal that was on its way when something happened. Even one that openraft took out of the log, because another leader
/// had other entries there, may be in the log of a third node, and be committed yet.
fn unknown(error: &RaftError<u64, ClientWriteError<u64, openraft::EmptyNode>>) -> ProposeError {
    ProposeError::Unknown { what: error.to_string() }
}

fn gone() -> ProposeError {
    unknown(&RaftError::Fatal(Fatal::Stopped))
}
