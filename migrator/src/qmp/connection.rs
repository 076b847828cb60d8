//! The task that owns a socket: it writes commands, gives answers to who waits for them, and events to who wants them.
//!
//! One task, so that nothing is shared and no order is to be thought about but that of its steps. It waits for no caller: an answer
//! that nobody wants any more is dropped, and a receiver of events that is behind loses the oldest, and is told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, broadcast, mpsc, oneshot, watch};

use super::error::{End, QmpError};
use super::events::Event;
use super::lines::Lines;
use super::message::{CommandId, Message};

/// A command on its way.
pub(super) struct Request {
    pub(super) id: CommandId,
    pub(super) command: String,
    pub(super) line: Bytes,
    pub(super) claim: Claim,
    pub(super) answer: oneshot::Sender<Result<Value, QmpError>>,
    /// Its place among those that wait for QEMU's answer; given back when that is there.
    pub(super) place: OwnedSemaphorePermit,
}

/// Who decides about a command: the one who sends it, or the one who gives up. The first to take it does, so that a command of which
/// the caller was told that it was not sent is never sent.
#[derive(Clone, Debug, Default)]
pub(super) struct Claim(Arc<AtomicBool>);

impl Claim {
    /// Takes it; true for the first.
    pub(super) fn take(&self) -> bool {
        // Nothing else is published by it.
        !self.0.swap(true, Ordering::Relaxed)
    }
}

/// One end of a socket, with all that is underway on it.
///
/// What is never false: `waiting` has every command of which a byte may have been sent and whose answer has not come, with its place.
/// So it is bounded by the places.
pub(super) struct Connection<R, W> {
    lines: Lines<R>,
    writer: W,
    requests: mpsc::Receiver<Request>,
    events: broadcast::Sender<Event>,
    waiting: BTreeMap<CommandId, Waiting>,
    /// What is left to write of the command that was taken last. One at a time: a command that is not written yet can be given up.
    unwritten: Bytes,
    /// Whether QEMU still reads, as far as we know.
    writable: bool,
}

/// Who waits for an answer.
struct Waiting {
    command: String,
    answer: oneshot::Sender<Result<Value, QmpError>>,
    _place: OwnedSemaphorePermit,
}

/// What happens next.
enum Step {
    Line(Result<Bytes, End>),
    Written(std::io::Result<usize>),
    Request(Option<Request>),
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Connection<R, W> {
    pub(super) fn new(
        lines: Lines<R>,
        writer: W,
        requests: mpsc::Receiver<Request>,
        events: broadcast::Sender<Event>,
    ) -> Self {
        let (waiting, unwritten) = (BTreeMap::new(), Bytes::new());
        Self { lines, writer, requests, events, waiting, unwritten, writable: true }
    }

    /// Works until the connection has ended, and says how.
    pub(super) async fn run(mut self, ended: watch::Sender<Option<End>>) {
        let end = loop {
            if let Err(end) = self.step().await {
                break end;
            }
        };
        tracing::debug!(%end, unanswered = self.waiting.len(), "a connection to QEMU has ended");
        // Before those who wait are dropped with us, and wonder why.
        ended.send_replace(Some(end));
    }

    async fn step(&mut self) -> Result<(), End> {
        let idle = self.unwritten.is_empty();
        let step = tokio::select! {
            // In this order nothing starves: what is to be written is bounded by the places, and those come back with lines.
            biased;
            written = self.writer.write_buf(&mut self.unwritten), if !idle => Step::Written(written),
            request = self.requests.recv(), if idle && self.writable => Step::Request(request),
            line = self.lines.next() => Step::Line(line),
        };
        match step {
            Step::Line(line) => self.received(&line?),
            Step::Request(request) => {
                self.begin(request.ok_or(End::LetGo)?);
                Ok(())
            }
            Step::Written(written) => {
                self.written(written);
                Ok(())
            }
        }
    }

    /// Takes a command, unless its caller has given it up.
    fn begin(&mut self, request: Request) {
        if request.answer.is_closed() || !request.claim.take() {
            return;
        }
        let Request { id, command, line, answer, place, .. } = request;
        self.unwritten = line;
        self.waiting.insert(id, Waiting { command, answer, _place: place });
    }

    fn written(&mut self, written: std::io::Result<usize>) {
        let failed = match written {
            Ok(0) => None,
            Ok(_) => return,
            Err(error) => Some(error),
        };
        // What QEMU has said before it went is still to be read, and that ends too. So this is not the end.
        tracing::debug!(error = failed.as_ref().map(tracing::field::display), "QEMU does not read any more");
        self.unwritten.clear();
        self.writable = false;
    }

    fn received(&mut self, line: &[u8]) -> Result<(), End> {
        match Message::parse(line)? {
            Message::Answer { id, outcome } => {
                let Some(Waiting { command, answer, .. }) = self.waiting.remove(&id) else {
                    tracing::debug!(id = id.0, "QEMU answers what was not asked");
                    return Ok(());
                };
                let outcome = outcome.map_err(|refusal| QmpError::Refused {
                    command: command.clone(),
                    class: refusal.class,
                    desc: refusal.desc,
                });
                if answer.send(outcome).is_err() {
                    tracing::debug!(command, "QEMU's answer comes after the caller has given up");
                }
            }
            // An error would say that nobody wants events.
            Message::Event(event) => drop(self.events.send(event)),
            Message::Other => tracing::debug!(message = super::error::excerpt(line), "QEMU says what we do not know"),
        }
        Ok(())
    }
}
