//! How far away other nodes are, by what they have answered so far: who is asked first.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sterna_types::NodeId;
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// What is known of the nodes that this one has fetched something from.
#[derive(Debug, Default)]
pub(in crate::node) struct Reach(Mutex<BTreeMap<NodeId, Measured>>);

#[derive(Debug)]
struct Measured {
    /// Until the first bytes of an answer are here; `None` before there was one.
    answers_in: Option<Duration>,
    /// Bytes in a second, of one answer that was long.
    rate: Option<f64>,
    /// Asked last until then: it has failed.
    failing_until: Option<Instant>,
    /// Requests in bulk that may still be under way.
    requests: Arc<Semaphore>,
}

impl Reach {
    /// These nodes, the one from which a little data is expected first at the head. Of those that have not answered yet nothing is known:
    /// they are in the order in which they are given, behind those that answer within [`NEAR`].
    pub(super) fn nearest_first(&self, nodes: &[NodeId]) -> Vec<NodeId> {
        let (known, now) = (self.known(), Instant::now());
        let expected = |node: &NodeId| {
            let Some(measured) = known.get(node) else { return (false, NEAR) };
            let is_failing = measured.failing_until.is_some_and(|until| now < until);
            let transfer = measured.rate.map_or(Duration::ZERO, |rate| Duration::from_secs_f64(LITTLE_BYTES / rate));
            (is_failing, measured.answers_in.map_or(NEAR, |answers_in| answers_in + transfer))
        };
        let mut nodes = nodes.to_vec();
        nodes.sort_by_key(expected);
        nodes
    }

    /// A node has answered, the first bytes after `first`, and all of `bytes` within `all`.
    pub(super) fn answered(&self, node: NodeId, first: Option<Duration>, bytes: u64, all: Duration) {
        let mut known = self.known();
        let measured = known.entry(node).or_default();
        measured.failing_until = None;
        let Some(first) = first else { return };
        // The shortest of late: long ones have waited for something else than the way.
        let answers_in = measured.answers_in.map_or(first, |known| first.min(known + known / 8));
        measured.answers_in = Some(answers_in);
        let took = all.saturating_sub(first).as_secs_f64();
        if bytes >= MUCH_BYTES && took > 0.0 {
            #[expect(clippy::cast_precision_loss, reason = "it is an estimate")]
            let rate = bytes as f64 / took;
            measured.rate = Some(measured.rate.map_or(rate, |known| known + (rate - known) / 4.0));
        }
    }

    /// A node did not answer, or with something that is of no use.
    pub(super) fn failed(&self, node: NodeId) {
        self.known().entry(node).or_default().failing_until = Some(Instant::now() + FAILING);
    }

    /// How many requests in bulk this node may make to that one beside those that it makes.
    pub(super) fn requests(&self, node: NodeId) -> Arc<Semaphore> {
        Arc::clone(&self.known().entry(node).or_default().requests)
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<NodeId, Measured>> {
        // Each number is right by itself.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Measured {
    fn default() -> Self {
        Self { answers_in: None, rate: None, failing_until: None, requests: Arc::new(Semaphore::new(MAX_REQUESTS)) }
    }
}

/// Whoever answers faster is asked before somebody who has never been asked.
const NEAR: Duration = Duration::from_millis(5);
/// What a guest waits for, more or less.
const LITTLE_BYTES: f64 = 65_536.0;
/// What takes long enough to tell how fast it comes.
const MUCH_BYTES: u64 = 1 << 20;
/// How long a node that has failed is asked last: a link that is back is noticed soon.
const FAILING: Duration = Duration::from_secs(5);
/// Together they have more on the way than any link holds; each holds a message here and some at the other node.
const MAX_REQUESTS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[tokio::test(start_paused = true)]
    async fn the_nearest_is_asked_first_and_who_fails_last() {
        let reach = Reach::default();
        let [far, near, slow, unknown] = [1, 2, 3, 4].map(NodeId);
        let all = [unknown, slow, far, near];
        assert_eq!(reach.nearest_first(&all), all, "nothing is known");
        reach.answered(far, Some(MS(100)), 5000, MS(100));
        reach.answered(near, Some(MS(2)), 5000, MS(2));
        // Half a MB/s: 64 KiB take 125 ms.
        reach.answered(slow, Some(MS(2)), 2 << 20, MS(4_002));
        assert_eq!(reach.nearest_first(&all), [near, unknown, far, slow]);
        reach.failed(near);
        assert_eq!(reach.nearest_first(&all), [unknown, far, slow, near]);
        tokio::time::advance(FAILING).await;
        assert_eq!(reach.nearest_first(&all), [near, unknown, far, slow]);
        // A node that has moved away is found out after some answers, one late one is none.
        reach.answered(near, Some(MS(300)), 5000, MS(300));
        assert_eq!(reach.nearest_first(&all)[0], near);
        (0..60).for_each(|_| reach.answered(near, Some(MS(300)), 5000, MS(300)));
        assert_eq!(reach.nearest_first(&all), [unknown, far, slow, near]);
    }
}
