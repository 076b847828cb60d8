//! Fetching much: several requests at a time, to several sources at once.
//!
//! What is to be fetched waits in a queue, in slices. Each source has some requests under way, each of one slice; when one has been
//! answered, the next slice is taken. So a source that is fast or near carries more than one that is not, whatever the reason. What a source
//! does not have goes back into the queue, for those that have not been asked for it; a source that fails is not asked again.
//!
//! A volume that has a limit is fetched by one request at a time, for little, each once the one before is paid for.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::try_join_all;
use sterna_storage_node::gaps::Gap;
use sterna_transport::Lane;
use sterna_types::{ByteRate, NodeId, VolumeId};
use tokio::sync::Notify;

use super::bucket::fetch_from_bucket;
use super::error::PullError;
use super::fetch::{Stored, Storing, fetch_from};
use crate::node::node::Node;

/// What is fetched by as many requests as are worth it.
pub(super) struct Transfer<'a> {
    node: &'a Arc<Node>,
    volume: VolumeId,
    sources: &'a [NodeId],
    store: Storing<'a>,
    /// The volume's limit.
    limit: Option<ByteRate>,
    queue: Mutex<Queue>,
    /// Told of every change of the queue.
    changed: Notify,
}

#[derive(Default)]
struct Queue {
    slices: VecDeque<Slice>,
    /// Those that are being asked for.
    under_way: usize,
    /// Whether nothing more will be added.
    is_closed: bool,
    failed: Vec<NodeId>,
    /// Why the last of them has.
    failure: Option<PullError>,
}

/// Some of what is to be fetched.
struct Slice {
    gaps: Vec<Gap>,
    /// Who does not have any of it.
    asked: Vec<NodeId>,
}

/// What a source is asked next.
enum Next {
    Slice(Slice),
    Wait,
    Nothing,
}

impl<'a> Transfer<'a> {
    /// Nothing yet, of a volume, from these sources.
    pub(super) fn new(node: &'a Arc<Node>, volume: VolumeId, sources: &'a [NodeId], stored: Stored<'a>) -> Self {
        let store = Storing::new(node, Lane::Bulk, stored);
        let limit = node.metadata.read().volume(volume).and_then(|volume| volume.limit);
        Self { node, volume, sources, store, limit, queue: Mutex::default(), changed: Notify::new() }
    }

    /// Has these fetched too, once there is room for them: so many wait at most.
    pub(super) async fn add(&self, gaps: Vec<Gap>) {
        self.until(|queue| (queue.slices.len() < MAX_WAITING).then_some(())).await;
        let mut left = gaps.into_iter();
        let slices = std::iter::from_fn(|| {
            let gaps: Vec<_> = left.by_ref().take(self.slice()).collect();
            (!gaps.is_empty()).then_some(Slice { gaps, asked: Vec::new() })
        });
        self.queue().slices.extend(slices);
        self.changed.notify_waiters();
    }

    /// Nothing more will be added.
    pub(super) fn close(&self) {
        self.queue().is_closed = true;
        self.changed.notify_waiters();
    }

    /// Fetches all that is added, until it is closed; then all of it is stored.
    ///
    /// # Errors
    /// [`PullError`]: what has come by then may be stored or not.
    pub(super) async fn run(&self) -> Result<(), PullError> {
        let each = if self.limit.is_some() { 1 } else { REQUESTS };
        let requests = self.sources.iter().flat_map(|source| (0..each).map(|_| self.ask(*source)));
        try_join_all(requests).await?;
        loop {
            self.until(|queue| (queue.is_closed || !queue.slices.is_empty()).then_some(())).await;
            let left = self.queue().slices.pop_front();
            let Some(Slice { mut gaps, asked }) = left else { return self.store.finish().await };
            self.changed.notify_waiters();
            let asked_besides = fetch_from_bucket(self.node, &mut gaps, &self.store).await;
            if gaps.is_empty() {
                continue;
            }
            let failure = self.queue().failure.take();
            return Err(match (failure, asked_besides, asked.last(), gaps.first()) {
                (Some(failure), ..) | (None, Err(failure), ..) => failure,
                (None, _, Some(node), Some(gap)) => PullError::Gone { node: *node, id: gap.wanted.id },
                (None, ..) => PullError::NoSource,
            });
        }
    }

    /// One request after the other to one source, until there is nothing more for it to do.
    async fn ask(&self, source: NodeId) -> Result<(), PullError> {
        let next = |queue: &mut Queue| match queue.next_for(source) {
            Next::Wait => None,
            Next::Slice(slice) => Some(Some(slice)),
            Next::Nothing => Some(None),
        };
        while let Some(mut slice) = self.until(next).await {
            let requests = self.node.reach.requests(source);
            // Nobody closes it.
            let turn = requests.acquire().await;
            if self.limit.is_some() {
                self.node.pace.until_paid(self.volume).await;
            }
            let received = |bytes| {
                if let Some(limit) = self.limit {
                    self.node.pace.came(self.volume, bytes, limit);
                }
            };
            let fetching = fetch_from(self.node, source, Lane::Bulk, &mut slice.gaps, false, &self.store, &received);
            let fetched = fetching.await;
            drop(turn);
            let is_busy = matches!(&fetched, Err(error) if error.is_busy());
            let ended = self.queue().ended(source, slice, fetched);
            self.changed.notify_waiters();
            ended?;
            if is_busy {
                tokio::time::sleep(BUSY).await;
            }
        }
        Ok(())
    }

    /// How many chunks one request is for: with a limit as many as come in half a second, more or less.
    fn slice(&self) -> usize {
        let chunks = |limit: ByteRate| usize::try_from(limit.0 / 2 / TYPICAL_CHUNK_BYTES).unwrap_or(SLICE);
        self.limit.map_or(SLICE, chunks).clamp(1, SLICE)
    }

    /// Waits until this can be said of the queue.
    async fn until<T>(&self, said: impl Fn(&mut Queue) -> Option<T>) -> T {
        loop {
            let mut changed = pin!(self.changed.notified());
            // Before it is looked at.
            changed.as_mut().enable();
            if let Some(said) = said(&mut self.queue()) {
                return said;
            }
            changed.await;
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Nothing panics while it is held.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn next_for(&mut self, source: NodeId) -> Next {
        if self.failed.contains(&source) {
            return Next::Nothing;
        }
        match self.slices.iter().position(|slice| !slice.asked.contains(&source)) {
            Some(place) => {
                self.under_way += 1;
                self.slices.remove(place).map_or(Next::Wait, Next::Slice)
            }
            // What is under way elsewhere may come back.
            None if self.is_closed && self.under_way == 0 => Next::Nothing,
            None => Next::Wait,
        }
    }

    /// A request for a slice has ended; what is left in that has not come.
    fn ended(&mut self, source: NodeId, mut slice: Slice, fetched: Result<(), PullError>) -> Result<(), PullError> {
        self.under_way -= 1;
        match fetched {
            Ok(()) => slice.asked.push(source),
            Err(error) if error.is_busy() => {}
            Err(error) if error.is_of_source() => {
                self.failed.push(source);
                self.failure = Some(error);
            }
            Err(error) => return Err(error),
        }
        if !slice.gaps.is_empty() {
            self.slices.push_front(slice);
        }
        Ok(())
    }
}

/// Chunks of one request: some MiB, a second of a slow link.
const SLICE: usize = 256;
/// With what the map needs.
const TYPICAL_CHUNK_BYTES: u64 = 32 << 10;
/// Requests that one source has under way at a time: what one of them carries is more than a link of 100 Mbit/s holds over 100 ms.
const REQUESTS: usize = 4;
/// Slices that wait before nothing more is looked for: as much as two groups have.
const MAX_WAITING: usize = 32;
/// How long a source that has too much to do is left alone.
const BUSY: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use sterna_storage_node::chunk_store::ChunkKind;
    use sterna_storage_node::gaps::Wanted;
    use sterna_types::ChunkId;
    use tonic::Status;

    use super::*;

    const ONE: NodeId = NodeId(1);
    const OTHER: NodeId = NodeId(2);

    fn slice(ids: &[u8]) -> Slice {
        let gap = |of: &u8| Gap::from(Wanted { id: ChunkId::from_bytes([*of; 32]), kind: ChunkKind::Data });
        Slice { gaps: ids.iter().map(gap).collect(), asked: Vec::new() }
    }

    fn next(queue: &mut Queue, source: NodeId) -> Option<Option<Slice>> {
        match queue.next_for(source) {
            Next::Slice(slice) => Some(Some(slice)),
            Next::Wait => None,
            Next::Nothing => Some(None),
        }
    }

    fn taken(queue: &mut Queue, source: NodeId) -> Slice {
        next(queue, source).flatten().expect("a slice")
    }

    fn failure(source: NodeId) -> PullError {
        PullError::Source { node: source, status: Box::new(Status::unavailable("a cut link")) }
    }

    #[test]
    fn what_one_source_does_not_have_the_other_is_asked_for() {
        let mut queue = Queue { slices: [slice(&[1, 2])].into(), ..Queue::default() };
        let first = taken(&mut queue, ONE);
        assert!(next(&mut queue, OTHER).is_none(), "it may come back");
        queue.is_closed = true;
        assert!(next(&mut queue, OTHER).is_none(), "it may come back all the same");
        queue.ended(ONE, first, Ok(())).expect("no error");
        assert!(matches!(next(&mut queue, ONE), Some(None)), "it has none of these");
        let mut second = taken(&mut queue, OTHER);
        assert!(next(&mut queue, ONE).is_none());
        second.gaps.clear();
        queue.ended(OTHER, second, Ok(())).expect("no error");
        assert!(matches!(next(&mut queue, ONE), Some(None)));
        assert!(matches!(next(&mut queue, OTHER), Some(None)));
    }

    #[test]
    fn a_source_that_fails_is_not_asked_again_and_what_it_had_to_bring_the_other_brings() {
        let mut queue = Queue { slices: [slice(&[1]), slice(&[2])].into(), ..Queue::default() };
        let (first, second) = (taken(&mut queue, ONE), taken(&mut queue, OTHER));
        queue.ended(ONE, first, Err(failure(ONE))).expect("there is another one");
        assert!(matches!(next(&mut queue, ONE), Some(None)));
        queue.ended(OTHER, second, Err(PullError::Panicked)).expect_err("that is no matter of a source");
        let first = taken(&mut queue, OTHER);
        assert_eq!(first.gaps, slice(&[1]).gaps);
    }

    #[test]
    fn a_source_that_is_busy_is_asked_again() {
        let mut queue = Queue { slices: [slice(&[1])].into(), ..Queue::default() };
        let first = taken(&mut queue, ONE);
        let busy = PullError::Source { node: ONE, status: Box::new(Status::resource_exhausted("busy")) };
        queue.ended(ONE, first, Err(busy)).expect("no error");
        assert_eq!(taken(&mut queue, ONE).gaps, slice(&[1]).gaps);
    }
}
