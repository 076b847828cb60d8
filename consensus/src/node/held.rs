//! Proposals that can wait for a moment, held back by the node that leads, so that many of them share one entry.
//!
//! In a large cluster renewals of sessions and published roots come from somewhere all the time. Put into the log as they come,
//! each would be an entry of its own, and each entry is a message to every other node. Nobody waits for any of them, so they wait
//! for each other: a thirtieth of a session, and not longer than the time between two heartbeats, which go to every node
//! anyhow. What else is proposed meanwhile takes them along.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::proposer::Proposal;
use crate::limits::{MAX_COMMANDS_PER_ENTRY, MAX_ENTRY_BYTES};
use crate::state::Metadata;

/// The proposals, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Held {
    proposals: VecDeque<Proposal>,
    bytes: usize,
    requests: usize,
    /// Until when; `None` where there are none.
    due: Option<Instant>,
}

impl Held {
    /// Until when what is held may wait; `None` where nothing is.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Whether they fill an entry.
    pub(super) fn is_full(&self) -> bool {
        self.bytes >= MAX_ENTRY_BYTES || self.requests >= MAX_COMMANDS_PER_ENTRY
    }

    /// Holds one more, until `due` at the latest.
    pub(super) fn push(&mut self, proposal: Proposal, due: Instant) {
        self.bytes += proposal.bytes_at_most();
        self.requests += proposal.count();
        self.due = Some(self.due.map_or(due, |before| before.min(due)));
        self.proposals.push_back(proposal);
    }

    /// Hands out the next one, if it has at most so many bytes and requests.
    pub(super) fn pop(&mut self, bytes: usize, requests: usize) -> Option<Proposal> {
        let next = self.proposals.front()?;
        if next.bytes_at_most() > bytes || next.count() > requests {
            return None;
        }
        let next = self.proposals.pop_front()?;
        self.bytes -= next.bytes_at_most();
        self.requests -= next.count();
        if self.proposals.is_empty() {
            self.due = None;
        }
        Some(next)
    }
}

/// How long a proposal that can wait is held back at the node that leads.
pub(crate) fn time_to_hold(metadata: &Metadata, heartbeat: Duration) -> Duration {
    if metadata.node_count() <= NODES_THAT_NEED_NOT_WAIT {
        return Duration::ZERO;
    }
    heartbeat.min(metadata.session_length().duration() / HOLDS_PER_SESSION)
}

/// A tenth of the time between two renewals: a node notices nothing of it.
const HOLDS_PER_SESSION: u32 = 30;
/// Of so many nodes, each of which renews its session ten times in the time that is held for, one renewal comes in it: it
/// would wait for nobody.
const NODES_THAT_NEED_NOT_WAIT: usize = 10;
