//! Work on several threads whose results come in the order in which it was given out. In a simulation it is done by whoever
//! takes the results, one after the other.

use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, Scope};

/// Calls `run` with a scope for [`in_order`]'s threads, and returns when all of them have ended.
pub fn scope<'env, T>(run: impl for<'scope> FnOnce(&'scope Scope<'scope, 'env>) -> T) -> T {
    #[expect(clippy::disallowed_methods, reason = "in a simulation, `in_order` starts none")]
    thread::scope(run)
}

/// Does `work` on each of `items`, on as many threads of `scope` as there are processors, and at most four. A single
/// item is not worth a thread.
///
/// Results come in the order of the items, whoever is done first. At most three for each thread are under way or wait to be
/// taken, so whoever takes none holds the rest up. Who drops the iterator has it end, as soon as what is under way is done.
///
/// # Panics
/// When a result is taken whose work has panicked.
pub fn in_order<'scope, T: Send + 'scope, R: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    mut items: impl Iterator<Item = T> + Send + 'scope,
    work: impl Fn(T) -> R + Send + Sync + 'scope,
) -> Box<dyn Iterator<Item = R> + 'scope> {
    #[cfg(feature = "simulation")]
    if crate::simulation::installed().is_some() {
        return Box::new(items.map(work));
    }
    let (first, second) = (items.next(), items.next());
    let is_worth_threads = second.is_some();
    let items = first.into_iter().chain(second).chain(items.fuse());
    let threads = thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS);
    let (queue, results) = mpsc::sync_channel::<Receiver<R>>(2 * threads);
    let source = Arc::new(Mutex::new(Some(Source { items, queue })));
    let work = Arc::new(work);
    if is_worth_threads {
        for _ in 0..threads {
            let (source, work) = (Arc::clone(&source), Arc::clone(&work));
            scope.spawn(move || do_all(&source, &*work));
        }
    } else {
        // There is room for one result.
        do_all(&source, &*work);
    }
    Box::new(results.into_iter().map(|result| result.recv().expect("a result, unless its work has panicked")))
}

fn do_all<T, R>(source: &Mutex<Option<Source<impl Iterator<Item = T>, R>>>, work: &impl Fn(T) -> R) {
    while let Some((item, result)) = next(source) {
        // Nobody takes it any more, perhaps.
        let _ = result.send(work(item));
    }
}

/// What is left to be done, and where results are announced in its order.
struct Source<I, R> {
    items: I,
    queue: SyncSender<Receiver<R>>,
}

/// The next item, and where its result goes; `None` when there are no more, or nobody takes results. Waits while many
/// results are waiting.
fn next<I: Iterator, R>(source: &Mutex<Option<Source<I, R>>>) -> Option<(I::Item, SyncSender<R>)> {
    let mut held = source.lock().unwrap_or_else(PoisonError::into_inner);
    let Source { items, queue } = held.as_mut()?;
    let (sender, receiver) = mpsc::sync_channel(1);
    let item = items.next().filter(|_| queue.send(receiver).is_ok());
    if item.is_none() {
        // Which ends the row of results.
        *held = None;
    }
    Some((item?, sender))
}

/// Beyond it a disk is the bound, and not the processors.
const MAX_THREADS: usize = 4;

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn results_come_in_order_whoever_is_done_first() {
        scope(|scope| {
            let results = in_order(scope, 0..1000_u64, |number| {
                (0..number * 7919 % 100).for_each(|_| thread::yield_now());
                number * 2
            });
            assert!(results.eq((0..1000).map(|number| number * 2)));
        });
    }

    #[test]
    fn who_takes_nothing_holds_it_up_and_who_goes_away_ends_it() {
        let begun = AtomicUsize::new(0);
        scope(|scope| {
            let mut results = in_order(scope, 0.., |number: usize| {
                begun.fetch_add(1, Ordering::Relaxed);
                number
            });
            assert_eq!(results.next(), Some(0));
            let bound = 1 + 3 * MAX_THREADS;
            for _ in 0..1000 {
                thread::yield_now();
            }
            assert!(begun.load(Ordering::Relaxed) <= bound, "{begun:?} were begun, and one was taken");
        });
    }

    #[test]
    fn nothing_to_do_is_done_at_once_and_one_thing_by_who_wants_it() {
        let here = thread::current().id();
        scope(|scope| {
            assert_eq!(in_order(scope, 0..0, |number: u32| number).count(), 0);
            assert!(in_order(scope, 0..1, |_| thread::current().id()).eq([here]));
            assert!(in_order(scope, 0..2, |_| thread::current().id()).all(|thread| thread != here));
        });
    }
}
