//! The chunks that are being fetched because somebody waits for them, each by one fetch at a time.
//!
//! Who wants a chunk that is on its way waits for that fetch, until this chunk has come, and not for what is fetched along with it. A
//! fetch runs to its end, whether anybody still waits for it or not. However it ends, a panic included, the table no longer has what it
//! was to fetch, and whoever waits for something that has not come learns why: how it has ended is there to be seen before the table
//! says that it is over.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sterna_storage_node::gaps::Wanted;
use sterna_types::ChunkId;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::supply::FetchError;
use crate::node::replication::PullError;

/// The table of what is being fetched.
#[derive(Debug, Default)]
pub(super) struct InFlight(Mutex<HashMap<ChunkId, Fetching>>);

/// How a fetch has ended.
type End = Result<(), Arc<FetchError>>;

/// One fetch of some chunks, as those see it who wait for it: told whenever some of them have come, and how it has ended.
#[derive(Clone, Debug)]
pub(super) struct Fetching(watch::Receiver<Option<End>>);

/// One fetch of some chunks, as it sees itself.
pub(super) struct Fetch {
    in_flight: Arc<InFlight>,
    ids: Vec<ChunkId>,
    end: watch::Sender<Option<End>>,
}

impl InFlight {
    /// What fetches all of these, each once. `fetch` is asked for those that nobody fetches yet, and runs on `runtime`; it says of each
    /// chunk when it has come ([`Fetch::has_come`]).
    pub(super) fn all_of<F>(
        self: &Arc<Self>,
        runtime: &Handle,
        wanted: &[Wanted],
        fetch: impl FnOnce(Vec<Wanted>, Arc<Fetch>) -> F,
    ) -> Vec<Fetching>
    where
        F: Future<Output = Result<(), FetchError>> + Send + 'static,
    {
        let mut table = self.table();
        let (mut all, mut new) = (Vec::<Fetching>::new(), Vec::new());
        for chunk in wanted {
            match table.get(&chunk.id) {
                Some(fetching) if all.iter().any(|other| other.is(fetching)) => {}
                Some(fetching) => all.push(fetching.clone()),
                None => new.push(*chunk),
            }
        }
        if !new.is_empty() {
            let (end, told) = watch::channel(None);
            let fetching = Fetching(told);
            let ids: Vec<_> = new.iter().map(|chunk| chunk.id).collect();
            table.extend(ids.iter().map(|id| (*id, fetching.clone())));
            let own = Arc::new(Fetch { in_flight: Arc::clone(self), ids, end });
            let fetched = fetch(new, Arc::clone(&own));
            runtime.spawn(async move {
                let end = fetched.await.map_err(Arc::new);
                own.end.send_replace(Some(end));
            });
            all.push(fetching);
        }
        all
    }

    /// Waits until those of the chunks that this one fetches have come.
    ///
    /// # Errors
    /// Why they have not. Some of them may have come all the same.
    ///
    /// # Cancel safety
    /// May be dropped at any time: the fetch goes on.
    pub(super) async fn until_here(&self, chunks: &[Wanted], mut fetching: Fetching) -> End {
        loop {
            fetching.0.mark_unchanged();
            // In this order: what is no longer in the table has come, unless the end says otherwise.
            let is_awaited = {
                let table = self.table();
                chunks.iter().any(|chunk| table.get(&chunk.id).is_some_and(|other| other.is(&fetching)))
            };
            let end = fetching.0.borrow().clone();
            match end {
                Some(end) => return end,
                None if !is_awaited => return Ok(()),
                // Whoever could change it is gone only behind an end.
                None => drop(fetching.0.changed().await),
            }
        }
    }

    fn table(&self) -> MutexGuard<'_, HashMap<ChunkId, Fetching>> {
        // Whatever panicked while it was held has put in all of an entry or nothing.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Fetching {
    fn is(&self, other: &Self) -> bool {
        self.0.same_channel(&other.0)
    }
}

impl Fetch {
    /// Tells those who wait for this chunk that it is here.
    pub(super) fn has_come(&self, id: ChunkId) {
        self.take_out(&[id]);
        self.end.send_modify(|_| {});
    }

    fn take_out(&self, ids: &[ChunkId]) {
        let own = Fetching(self.end.subscribe());
        let mut table = self.in_flight.table();
        for id in ids {
            // It may have been collected since, and be fetched again.
            if table.get(id).is_some_and(|other| other.is(&own)) {
                table.remove(id);
            }
        }
    }
}

impl Drop for Fetch {
    fn drop(&mut self) {
        // It has panicked, or its runtime has ended.
        let broken = || Err(Arc::new(FetchError::Pull(PullError::Panicked)));
        self.end.send_modify(|end| {
            end.get_or_insert_with(broken);
        });
        self.take_out(&self.ids);
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use futures_util::future::join_all;
    use sterna_storage_node::chunk_store::ChunkKind;
    use tokio::sync::oneshot;

    use super::*;

    fn chunk(of: u8) -> Wanted {
        Wanted { id: ChunkId::from_bytes([of; 32]), kind: ChunkKind::Data }
    }

    /// What all who ask for `wanted` are told, by fetches that `fetch` makes.
    async fn told<F>(
        in_flight: &Arc<InFlight>,
        wanted: &[Wanted],
        fetch: impl FnOnce(Vec<Wanted>, Arc<Fetch>) -> F,
    ) -> Vec<End>
    where
        F: Future<Output = Result<(), FetchError>> + Send + 'static,
    {
        let fetching = in_flight.all_of(&Handle::current(), wanted, fetch);
        join_all(fetching.into_iter().map(|fetching| in_flight.until_here(wanted, fetching))).await
    }

    #[tokio::test]
    async fn who_waits_for_what_does_not_come_learns_why() {
        let in_flight = Arc::new(InFlight::default());
        // Many times: it ends and is looked at from different threads.
        for _ in 0..200 {
            let ends = told(&in_flight, &[chunk(1), chunk(2)], |_, _| async { Err(FetchError::Ended) }).await;
            assert!(matches!(&ends[..], [Err(error)] if matches!(**error, FetchError::Ended)), "{ends:?}");
        }
    }

    #[tokio::test]
    async fn a_fetch_that_panics_is_not_waited_for() {
        let in_flight = Arc::new(InFlight::default());
        let ends = told(&in_flight, &[chunk(1)], |_, _| async { panic!("a defect that the test makes") }).await;
        let is_told = |error: &FetchError| matches!(error, FetchError::Pull(PullError::Panicked));
        assert!(matches!(&ends[..], [Err(error)] if is_told(error)), "{ends:?}");
        // The next one fetches it itself.
        let ends = told(&in_flight, &[chunk(1)], |new, fetch| async move {
            fetch.has_come(new[0].id);
            Ok(())
        })
        .await;
        assert!(matches!(&ends[..], [Ok(())]), "{ends:?}");
    }

    #[tokio::test]
    async fn a_chunk_that_has_come_is_not_held_up_by_what_has_not() {
        let in_flight = Arc::new(InFlight::default());
        let (wanted, later) = ([chunk(1), chunk(2)], [chunk(2), chunk(3)]);
        let (come, comes) = oneshot::channel::<()>();
        let first = in_flight.all_of(&Handle::current(), &wanted, |new, fetch| async move {
            let _ = comes.await;
            fetch.has_come(new[0].id);
            pending().await
        });
        // Of what is on its way already, nothing is fetched again.
        let both = in_flight.all_of(&Handle::current(), &later, |new, _| {
            assert_eq!(new, [chunk(3)]);
            pending()
        });
        assert_eq!((first.len(), both.len()), (1, 2));
        come.send(()).expect("it waits");
        in_flight.until_here(&wanted[..1], first[0].clone()).await.expect("it has come");
        assert!(futures_util::poll!(std::pin::pin!(in_flight.until_here(&wanted, first[0].clone()))).is_pending());
    }
}
