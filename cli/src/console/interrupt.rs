//! Ctrl-C in long work: it ends in good order, and people are told what remains.

use std::panic::resume_unwind;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

/// Work was ended before it was done.
#[derive(Debug, thiserror::Error)]
#[error("interrupted: {remains}")]
pub(crate) struct Interrupted {
    remains: String,
}

impl Interrupted {
    /// With what remains of it, and what to do about that.
    pub(crate) fn leaving(remains: impl Into<String>) -> Self {
        Self { remains: remains.into() }
    }
}

/// Does `work` until SIGINT or SIGTERM comes; then it is dropped, and the error says what `remains`.
///
/// # Errors
/// Those of `work`, and [`Interrupted`].
pub(crate) async fn interruptible<T>(work: impl Future<Output = Result<T>>, remains: &str) -> Result<T> {
    let mut ends = Ends::listen()?;
    let work = pin!(work);
    tokio::select! {
        result = work => result,
        () = ends.come() => Err(Interrupted::leaving(remains).into()),
    }
}

/// Does `work` that waits for nobody, on a thread of its own. Once SIGINT or SIGTERM comes, what it gets is set: it is to
/// look at that often, and to end with what it has to say then.
///
/// # Errors
/// Those of `work`.
pub(crate) fn stoppable<T: Send>(work: impl FnOnce(&AtomicBool) -> Result<T> + Send) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let mut ends = runtime.block_on(async { Ends::listen() })?;
    let stop = AtomicBool::new(false);
    #[expect(clippy::disallowed_methods, reason = "commands are in no simulation")]
    std::thread::scope(|scope| {
        let (working, ended) = oneshot::channel::<()>();
        let worker = scope.spawn(|| {
            // Dropped when the work ends, however it does.
            let _working = working;
            work(&stop)
        });
        runtime.block_on(async {
            tokio::select! {
                _ = ended => {}
                () = ends.come() => stop.store(true, Ordering::Relaxed),
            }
        });
        worker.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

/// The signals that end a command.
struct Ends {
    interrupt: Signal,
    terminate: Signal,
}

impl Ends {
    /// From now on they no longer end the process.
    fn listen() -> Result<Self> {
        let handler = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self { interrupt: handler(SignalKind::interrupt())?, terminate: handler(SignalKind::terminate())? })
    }

    /// Returns once one has come.
    async fn come(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
