//! Work that waits for disks, and long work whose replies are a stream.
//!
//! Long work ends when its caller goes away, and when the node shuts down. It notices when it reports progress, or looks at
//! [`Reporter::stop`].

use std::future::Future;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Response, Status};

use crate::node::node::Node;

/// The replies of long work.
pub(super) type Replies<T> = ReceiverStream<Result<T, Status>>;

/// Runs something that may block, on a thread for it.
///
/// # Errors
/// It panicked.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Status> {
    sterna_runtime::work::blocking(work).await.map_err(|panic| Status::internal(panic.to_string()))
}

/// Runs something that may block and take long, and that no guest waits for, on a thread that gives way.
///
/// # Errors
/// It panicked.
pub(super) async fn upkeep<T: Send + 'static>(
    node: &Arc<Node>,
    work: impl FnOnce(Arc<Node>) -> T + Send + 'static,
) -> Result<T, Status> {
    let own = Arc::clone(node);
    let done = node.background.upkeep(move || work(own)).await;
    done.map_err(|panic| Status::internal(panic.to_string()))
}

/// Runs something to its end, even if its caller goes away: half of a change is worse than all of it.
///
/// # Errors
/// Its own, or that it panicked.
pub(super) async fn to_the_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, Status>> + Send + 'static,
) -> Result<T, Status> {
    tokio::spawn(work).await.map_err(|panic| Status::internal(panic.to_string()))?
}

/// Runs long work. What it reports, and its result at last where it has one, are the replies.
pub(super) fn long_work<T, F, R>(node: &Node, work: impl FnOnce(Reporter<T>) -> F) -> Response<Replies<T>>
where
    T: Send + 'static,
    F: Future<Output = Result<R, Status>> + Send + 'static,
    R: Into<Option<T>> + Send + 'static,
{
    Response::new(until(node.stopping.clone(), work))
}

/// The same, until `stopping` is cancelled.
fn until<T, F, R>(stopping: CancellationToken, work: impl FnOnce(Reporter<T>) -> F) -> Replies<T>
where
    T: Send + 'static,
    F: Future<Output = Result<R, Status>> + Send + 'static,
    R: Into<Option<T>> + Send + 'static,
{
    let (replies, stream) = mpsc::channel(REPLIES_IN_FLIGHT);
    let stop = Arc::new(AtomicBool::new(false));
    let work = work(Reporter { replies: replies.clone(), stop: Arc::clone(&stop), reported: None });
    tokio::spawn(async move {
        let mut work = std::pin::pin!(work);
        let result = tokio::select! {
            result = &mut work => result,
            () = replies.closed() => {
                stop.store(true, Ordering::Relaxed);
                work.await
            }
            () = stopping.cancelled() => {
                stop.store(true, Ordering::Relaxed);
                work.await.map_err(|_| Status::unavailable("the node is shutting down"))
            }
        };
        if let Some(last) = result.map(Into::into).transpose() {
            // Nobody is there to hear it, perhaps.
            let _ = replies.send(last).await;
        }
    });
    ReceiverStream::new(stream)
}

/// Tells the caller of long work how far it has come. For threads that may block.
#[derive(Debug)]
pub(super) struct Reporter<T> {
    replies: mpsc::Sender<Result<T, Status>>,
    stop: Arc<AtomicBool>,
    reported: Option<Instant>,
}

impl<T> Reporter<T> {
    /// Set when the work is to end.
    pub(super) fn stop(&self) -> &Arc<AtomicBool> {
        &self.stop
    }

    /// Ends when the caller goes away.
    pub(super) fn gone(&self) -> impl Future<Output = ()> + use<T> {
        let replies = self.replies.clone();
        async move { replies.closed().await }
    }

    /// For what may not be missed, sent by a task: it waits for the caller to take it.
    pub(super) fn sender(&self) -> mpsc::Sender<Result<T, Status>> {
        self.replies.clone()
    }

    /// Whether to go on.
    pub(super) fn go_on(&self) -> ControlFlow<()> {
        if self.stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// Reports progress, if it is time to and somebody waits for it, and says whether to go on.
    pub(super) fn progress(&mut self, progress: impl FnOnce() -> T) -> ControlFlow<()> {
        let is_due = self.reported.is_none_or(|reported| reported.elapsed() >= PROGRESS_INTERVAL);
        if is_due {
            self.reported = Some(Instant::now());
            // A caller who does not keep up misses some.
            let _ = self.replies.try_send(Ok(progress()));
        }
        self.go_on()
    }

    /// Sends what may not be missed, as soon as the caller takes it, and says whether to go on.
    pub(super) fn send(&self, item: T) -> ControlFlow<()> {
        match self.replies.blocking_send(Ok(item)) {
            Ok(()) => self.go_on(),
            Err(_) => ControlFlow::Break(()),
        }
    }
}

/// Between two reports of progress.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);
/// Lists are thousands of small replies: enough of them to be written together.
const REPLIES_IN_FLIGHT: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_stream::StreamExt;
    use tonic::Code;

    /// Works until it is told to stop.
    fn endless(mut reporter: Reporter<u32>) -> Result<u32, Status> {
        while reporter.progress(|| 1).is_continue() {
            std::thread::yield_now();
        }
        Err(Status::cancelled("it was stopped"))
    }

    #[tokio::test]
    async fn what_is_sent_arrives_in_order_and_the_result_is_last() {
        let replies = until(CancellationToken::new(), |reporter| async move {
            blocking(move || {
                for number in 0..1000 {
                    assert!(reporter.send(number).is_continue());
                }
                Ok(Some(1000))
            })
            .await?
        });
        let numbers: Vec<_> = replies.map(|reply| reply.expect("a number")).collect().await;
        assert!(numbers.into_iter().eq(0..=1000));
    }

    #[tokio::test]
    async fn work_ends_when_its_caller_goes_away() {
        let (ended, mut has_ended) = mpsc::channel(1);
        let mut replies = until(CancellationToken::new(), |reporter| async move {
            let result = blocking(move || endless(reporter)).await?;
            ended.send(()).await.expect("somebody who waits");
            result
        });
        assert_eq!(replies.next().await.expect("a report").expect("progress"), 1);
        drop(replies);
        assert_eq!(has_ended.recv().await, Some(()));
    }

    #[tokio::test]
    async fn work_ends_when_the_node_shuts_down_and_says_so() {
        let stopping = CancellationToken::new();
        let mut replies = until(stopping.clone(), |reporter| async move { blocking(move || endless(reporter)).await? });
        assert_eq!(replies.next().await.expect("a report").expect("progress"), 1);
        stopping.cancel();
        let last = replies.filter_map(Result::err).next().await.expect("an error");
        assert_eq!(last.code(), Code::Unavailable);
    }

    #[tokio::test]
    async fn progress_is_not_reported_each_time_that_there_is_some() {
        let replies = until(CancellationToken::new(), |mut reporter| async move {
            for _ in 0..1000 {
                assert!(reporter.progress(|| 0).is_continue());
            }
            Ok(Some(1))
        });
        assert!(replies.collect::<Vec<_>>().await.len() < 1000);
    }
}
