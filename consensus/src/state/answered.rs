//! The outcomes of the last requests that had an id, so that one that is sent again, because its answer was lost, is answered
//! and not carried out twice.
//!
//! Invariants (checked by [`Answered::check`]): each outcome has one place in the order; there are at most
//! [`MAX_ANSWERED_REQUESTS`], and the oldest go first.

use serde::{Deserialize, Serialize};

use super::outcome::Outcome;
use super::request::RequestId;
use super::shared_map::SharedMap;
use crate::limits::MAX_ANSWERED_REQUESTS;

/// The outcomes of the last requests. Two are equal if they remember the same in the same order.
#[derive(Clone, Debug, Default)]
pub(super) struct Answered {
    outcomes: SharedMap<RequestId, Outcome>,
    /// In the order in which they were answered.
    order: SharedMap<u64, RequestId>,
    /// How many there have been since this was read.
    count: u64,
}

impl PartialEq for Answered {
    fn eq(&self, other: &Self) -> bool {
        self.outcomes == other.outcomes && self.order.values().eq(other.order.values())
    }
}

impl Eq for Answered {}

/// One of them as it is written down, the oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Answer {
    request: RequestId,
    outcome: Outcome,
}

impl Answered {
    /// What came of the request, if it is one of the last.
    pub(super) fn outcome(&self, id: RequestId) -> Option<&Outcome> {
        self.outcomes.get(&id)
    }

    /// Remembers what came of a request; the oldest one is forgotten for it.
    pub(super) fn remember(&mut self, id: RequestId, outcome: Outcome) {
        if self.outcomes.insert(id, outcome).is_some() {
            return;
        }
        self.order.insert(self.count, id);
        self.count += 1;
        if self.order.len() > MAX_ANSWERED_REQUESTS
            && let Some((&at, &oldest)) = self.order.first()
        {
            self.order.remove(&at);
            self.outcomes.remove(&oldest);
        }
    }

    /// What there is to be written down.
    pub(super) fn answers(&self) -> Vec<Answer> {
        let answer =
            |id: &RequestId| self.outcomes.get(id).map(|outcome| Answer { request: *id, outcome: outcome.clone() });
        self.order.values().filter_map(answer).collect()
    }

    /// What was written down.
    pub(super) fn from_answers(answers: Vec<Answer>) -> Self {
        let mut answered = Self::default();
        for Answer { request, outcome } in answers {
            answered.remember(request, outcome);
        }
        answered
    }

    /// Whether the invariants hold.
    pub(super) fn check(&self) -> bool {
        self.outcomes.check()
            && self.order.check()
            && self.order.len() <= MAX_ANSWERED_REQUESTS
            && self.order.len() == self.outcomes.len()
            && self.order.values().all(|id| self.outcomes.contains(id))
    }
}
