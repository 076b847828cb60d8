//! Ctrl-C in long work: the node is told to stop by the end of the call, and people what remains.

use std::pin::pin;

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};

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
    let handler = |kind| signal(kind).context("cannot listen for signals");
    let (mut interrupt, mut terminate) = (handler(SignalKind::interrupt())?, handler(SignalKind::terminate())?);
    let work = pin!(work);
    tokio::select! {
        result = work => result,
        _ = interrupt.recv() => Err(Interrupted::leaving(remains).into()),
        _ = terminate.recv() => Err(Interrupted::leaving(remains).into()),
    }
}
