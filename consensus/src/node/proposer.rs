//! The task that proposes: it puts what was asked for at about the same time into one entry of the log, so that it shares
//! one sync of the disk and one round to the other nodes. Where another node leads, that one is asked to do it. What can wait
//! is held back by the node that leads: see [`held`](super::held).
//!
//! Invariants: a few entries of this node are on their way at a time, and those who come meanwhile are in the next one;
//! requests that wait together are carried out in the order in which they came, but for those that can wait; each one is
//! answered once.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use openraft::error::{ClientWriteError, Fatal, RaftError};
use openraft::raft::ClientWriteResult;
use openraft::{EmptyNode, RaftMetrics};
use sterna_types::NodeId;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::error::ProposeError;
use super::held::{Held, time_to_hold};
use super::leader::{Leader, Written};
use crate::limits::{MAX_COMMANDS_PER_ENTRY, MAX_ENTRIES_IN_FLIGHT, MAX_ENTRY_BYTES, MAX_WAITING_PROPOSALS};
use crate::raft::{Batch, Raft, TypeConfig};
use crate::state::Metadata;
use crate::state::outcome::Outcome;
use crate::state::request::Request;

/// What comes of one request.
pub(super) type Answer = Result<Outcome, ProposeError>;

/// Requests that belong into one entry, and who waits for their answers.
#[derive(Debug)]
pub(super) struct Proposal {
    requests: Vec<Request>,
    /// Whether another node may be asked, where that one leads.
    hand_on: bool,
    urgency: Urgency,
    answer: oneshot::Sender<Result<Written, ProposeError>>,
}

/// Whether somebody waits for what is proposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Urgency {
    /// Somebody does.
    AtOnce,
    /// Nobody does, and it may share an entry with what comes a moment later.
    CanWait,
}

/// Has requests put into one entry, and waits for what comes of them.
///
/// # Errors
/// [`ProposeError`], but for [`ProposeError::Refused`], which is an answer to one of them.
pub(super) async fn ask(
    proposals: &mpsc::Sender<Proposal>,
    requests: Vec<Request>,
    hand_on: bool,
    urgency: Urgency,
) -> Result<Written, ProposeError> {
    let (answer, answered) = oneshot::channel();
    let stopped = |_| ProposeError::Stopped { what: "it was shut down".to_owned() };
    proposals.send(Proposal { requests, hand_on, urgency, answer }).await.map_err(stopped)?;
    let lost = |_| ProposeError::Unknown { what: "the metadata was shut down meanwhile".to_owned() };
    answered.await.map_err(lost)?
}

/// The task; see above. It ends when nobody can propose any more, and all that was on its way is answered.
pub(super) struct Proposer {
    raft: Raft,
    node: NodeId,
    leader: Leader,
    view: watch::Receiver<Arc<Metadata>>,
    heartbeat: Duration,
    waiting: mpsc::Receiver<Proposal>,
    /// What did not fit into the last entry.
    left_over: Option<Proposal>,
    held: Held,
}

/// What goes into one entry.
struct Gathered {
    requests: Vec<Request>,
    bytes: usize,
    hand_on: bool,
    urgency: Urgency,
    /// Who waits, and for how many of the requests, in their order.
    waiters: Vec<(usize, oneshot::Sender<Result<Written, ProposeError>>)>,
}

impl Proposer {
    /// The task, not started yet, and the way to it.
    pub(super) fn new(
        raft: Raft,
        node: NodeId,
        leader: Leader,
        view: watch::Receiver<Arc<Metadata>>,
        heartbeat: Duration,
    ) -> (Self, mpsc::Sender<Proposal>) {
        let (sender, waiting) = mpsc::channel(MAX_WAITING_PROPOSALS);
        (Self { raft, node, leader, view, heartbeat, waiting, left_over: None, held: Held::default() }, sender)
    }

    /// Proposes until there is nobody to do it for.
    pub(super) async fn run(mut self) {
        let mut in_flight = FuturesUnordered::new();
        loop {
            tokio::select! {
                biased;
                Some(()) = in_flight.next() => {}
                gathered = self.gather(), if in_flight.len() < MAX_ENTRIES_IN_FLIGHT => match gathered {
                    Some(gathered) => {
                        let begun = self.begin(gathered).await;
                        in_flight.push(begun);
                    }
                    None => break,
                },
            }
        }
        while in_flight.next().await.is_some() {}
    }

    /// What goes into the next entry: at least one proposal, and what waits already, within the bounds of an entry.
    ///
    /// # Cancel safety
    /// Dropped, it has taken nothing.
    async fn gather(&mut self) -> Option<Gathered> {
        let first = self.first().await?;
        let mut gathered = Gathered::new(first);
        while let Ok(next) = self.waiting.try_recv() {
            let (bytes, requests) = gathered.room();
            if next.bytes_at_most() > bytes || next.count() > requests || next.hand_on != gathered.hand_on {
                self.left_over = Some(next);
                break;
            }
            gathered.add(next);
        }
        // Whether they are due or not: the entry is on its way.
        while let Some(next) = {
            let (bytes, requests) = gathered.room();
            self.held.pop(bytes, requests)
        } {
            gathered.add(next);
        }
        Some(gathered)
    }

    /// The first proposal of the next entry, once there is one that is not held back any longer.
    async fn first(&mut self) -> Option<Proposal> {
        loop {
            let due = self.held.due();
            let next = match self.left_over.take() {
                Some(left_over) => left_over,
                None => tokio::select! {
                    biased;
                    // One entry's worth is held and no more, however fast others come.
                    () = sleep_until_some(due) => return self.held.pop(usize::MAX, usize::MAX),
                    next = self.waiting.recv() => match next {
                        Some(next) => next,
                        None => return self.held.pop(usize::MAX, usize::MAX),
                    },
                },
            };
            let wait = self.time_to_hold(&next);
            if wait.is_zero() {
                return Some(next);
            }
            self.held.push(next, Instant::now() + wait);
            if self.held.is_full() {
                return self.held.pop(usize::MAX, usize::MAX);
            }
        }
    }

    /// How long a proposal waits for others; nothing where another node leads, which has it wait.
    fn time_to_hold(&self, proposal: &Proposal) -> Duration {
        let leads = || self.raft.metrics().borrow().current_leader == Some(self.node.0);
        if proposal.urgency == Urgency::CanWait && leads() {
            time_to_hold(&self.view.borrow(), self.heartbeat)
        } else {
            Duration::ZERO
        }
    }

    /// Sets an entry on its way: what is returned ends when it has arrived, and all who wait for it have been answered. Entries
    /// of this node are in the log in the order in which this was called.
    async fn begin(&self, gathered: Gathered) -> impl Future<Output = ()> + use<> {
        let Gathered { requests, hand_on, urgency, waiters, .. } = gathered;
        let count = requests.len();
        let metrics = self.raft.metrics();
        let (running, leader, term) = {
            let metrics = metrics.borrow();
            (metrics.running_state.clone(), metrics.current_leader.map(NodeId), metrics.current_term)
        };
        let way = match (running, leader) {
            (Err(fatal), _) => Way::Nowhere(ProposeError::Stopped { what: fatal.to_string() }),
            (Ok(()), Some(leader)) if leader == self.node => {
                match self.raft.client_write_ff(Batch::from(requests)).await {
                    Ok(written) => Way::Own(OwnEntry { written, metrics, term }),
                    Err(fatal) => Way::Nowhere(ProposeError::Stopped { what: fatal.to_string() }),
                }
            }
            (Ok(()), Some(leader)) if hand_on => Way::Leader(self.leader.clone(), leader, requests, urgency),
            (Ok(()), leader) => Way::Nowhere(ProposeError::NotLeader { leader }),
        };
        async move {
            let written = match way {
                Way::Own(entry) => entry.answers(count).await,
                Way::Leader(way, leader, requests, urgency) => way.propose(leader, &requests, urgency).await,
                Way::Nowhere(error) => Err(error),
            };
            answer(written, waiters);
        }
    }
}

/// Where an entry goes.
enum Way {
    /// Into this node's own log, which it is being written to.
    Own(OwnEntry),
    /// To the node that leads.
    Leader(Leader, NodeId, Vec<Request>, Urgency),
    /// Nowhere, and why.
    Nowhere(ProposeError),
}

/// An entry on its way into this node's own log.
struct OwnEntry {
    written: oneshot::Receiver<ClientWriteResult<TypeConfig>>,
    metrics: watch::Receiver<RaftMetrics<u64, EmptyNode>>,
    /// In which this node led.
    term: u64,
}

impl OwnEntry {
    /// Waits for what comes of it, for as long as anything can. An entry of a term is answered when it is applied or taken out
    /// of the log, and is neither once an entry of a later term is applied: openraft 0.9 answers nobody for what a snapshot has
    /// brought, or has taken the place of, and waiting for that would never end.
    async fn answers(mut self, count: usize) -> Result<Written, ProposeError> {
        let passed = self
            .metrics
            .wait_for(|metrics| metrics.last_applied.is_some_and(|applied| applied.leader_id.term > self.term));
        tokio::select! {
            biased;
            written = &mut self.written => written.map_or_else(|_| Err(gone()), |result| answers_of(result, count)),
            passed = passed => Err(passed.map_or_else(|_| gone(), |_| led_no_more())),
        }
    }
}

impl Proposal {
    pub(super) fn bytes_at_most(&self) -> usize {
        self.requests.iter().map(Request::bytes_at_most).sum()
    }

    pub(super) fn count(&self) -> usize {
        self.requests.len()
    }
}

impl Gathered {
    fn new(first: Proposal) -> Self {
        let (requests, waiters) = (Vec::new(), Vec::new());
        let mut gathered = Self { requests, bytes: 0, hand_on: first.hand_on, urgency: first.urgency, waiters };
        gathered.add(first);
        gathered
    }

    /// How many bytes and requests there is room for.
    fn room(&self) -> (usize, usize) {
        (MAX_ENTRY_BYTES.saturating_sub(self.bytes), MAX_COMMANDS_PER_ENTRY.saturating_sub(self.requests.len()))
    }

    /// Who is asked to hand one of them on, and who is not to, are told the same: nobody's request goes round for ever.
    fn add(&mut self, proposal: Proposal) {
        self.bytes += proposal.bytes_at_most();
        self.hand_on &= proposal.hand_on;
        if proposal.urgency == Urgency::AtOnce {
            self.urgency = Urgency::AtOnce;
        }
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
fn unknown(error: &RaftError<u64, ClientWriteError<u64, EmptyNode>>) -> ProposeError {
    ProposeError::Unknown { what: error.to_string() }
}

/// Waits for a moment; for ever where there is none.
async fn sleep_until_some(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn gone() -> ProposeError {
    unknown(&RaftError::Fatal(Fatal::Stopped))
}

fn led_no_more() -> ProposeError {
    ProposeError::Unknown { what: "this node did not lead any more before it was decided".to_owned() }
}
