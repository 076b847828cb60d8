//! The loop of the transmission phase.
//!
//! One task does everything for its connection: it takes all requests that have arrived, has the device answer at once
//! those that it can, and sends all replies with one system call. Only a request that has to wait for the device becomes
//! a future of its own; those are polled by the same task, and answered in the order in which they finish.
//!
//! ```text
//!   stream ──> Inbox ──> Transmission::step ──> device.try_read / try_write ──> Outbox ──> stream
//!                                         └───> Pending futures ── finished ──────┘
//! ```
//!
//! What bounds it: nothing is taken from the inbox while the outbox holds a batch, or while as many requests or bytes as
//! `limits` allows are in flight; nothing is received while the inbox holds a whole request that may not be taken.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures_util::stream::{FuturesUnordered, StreamExt};
use sterna_types::BlockDevice;
use sterna_types::device::{Inline, ReadOutcome};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::{Sleep, sleep};
use tokio_util::sync::WaitForCancellationFutureOwned;

use crate::counters::Counters;
use crate::handshake::Agreement;
use crate::limits::{
    DRAIN_LINGER, DRAIN_TIMEOUT, MAX_BYTES_IN_FLIGHT, MAX_INLINE_BYTES, MAX_REQUESTS_IN_FLIGHT, REPLY_BATCH_BYTES, SPIN,
};
use crate::transmission::{Command, Echo, Step, Transmission, reply};

use super::inbox::{Fill, Inbox};
use super::outbox::Outbox;
use super::perform::{self, Pending};
use super::{End, Neighbours, Shared};

/// Rounds of one poll before the lane's other connections have their turn.
const ROUNDS_PER_TURN: usize = 16;

/// Pauses of the processor between two looks at the event queue while a connection spins.
const SPIN_PAUSES: u32 = 16;

/// How long closing may take a peer that does not answer.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

pub(super) struct Service<S> {
    stream: S,
    machine: Transmission,
    device: Arc<dyn BlockDevice>,
    inbox: Inbox,
    outbox: Outbox,
    pending: FuturesUnordered<Pending>,
    pending_bytes: usize,
    /// Whether what is in the inbox cannot be used before more has arrived.
    starved: bool,
    /// Whether the client will send nothing more.
    input_over: bool,
    shutdown: Shutdown,
    /// When there was something to do last, while that is less than [`SPIN`] ago.
    last_active: Option<Instant>,
    counters: Arc<Counters>,
    neighbours: Neighbours,
}

enum Shutdown {
    /// Not begun: this is done when it is.
    Awaited(Pin<Box<WaitForCancellationFutureOwned>>),
    /// Until the first timer fires the connection stays open to refuse requests, until the second those in flight may
    /// finish and the client may take its replies.
    Draining { linger: Pin<Box<Sleep>>, limit: Pin<Box<Sleep>> },
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Service<S> {
    pub(super) fn new(stream: S, agreement: &Agreement, input: BytesMut, shared: &Shared) -> Self {
        Self {
            stream,
            machine: Transmission::new(agreement),
            device: Arc::clone(&agreement.export.device),
            inbox: Inbox::new(input),
            outbox: Outbox::default(),
            pending: FuturesUnordered::new(),
            pending_bytes: 0,
            starved: false,
            input_over: false,
            shutdown: Shutdown::Awaited(Box::pin(shared.drain.clone().cancelled_owned())),
            last_active: None,
            counters: Arc::clone(&shared.counters),
            neighbours: shared.neighbours.clone(),
        }
    }

    /// Serves until the connection ends.
    pub(super) async fn run(&mut self) -> End {
        std::future::poll_fn(|cx| self.poll(cx)).await
    }

    /// Says good-bye, where the peer still listens.
    pub(super) async fn close(&mut self) {
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, self.stream.shutdown()).await;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        if let Poll::Ready(end) = self.poll_shutdown(cx) {
            return Poll::Ready(end);
        }
        for round in 0..ROUNDS_PER_TURN {
            match self.round(cx) {
                Ok(true) => {}
                Ok(false) if round > 0 => return self.rest(Some(Instant::now()), cx),
                Ok(false) => return self.rest(self.last_active, cx),
                Err(end) => return Poll::Ready(end),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Gives the lane back; for good until something happens, unless the client was served a moment ago.
    fn rest(&mut self, last_active: Option<Instant>, cx: &mut Context<'_>) -> Poll<End> {
        self.last_active = last_active.filter(|active| active.elapsed() < SPIN);
        if self.last_active.is_some() {
            (0..SPIN_PAUSES).for_each(|_| std::hint::spin_loop());
            cx.waker().wake_by_ref();
        }
        self.poll_shutdown(cx)
    }

    /// Does everything once that can be done; `false` where nothing could.
    fn round(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        let mut progress = self.collect(cx);
        progress |= self.take_requests(cx)?;
        let waiting = self.outbox.pending();
        if let Poll::Ready(sent) = self.outbox.poll_send(&mut self.stream, &self.counters, cx) {
            sent?;
        }
        progress |= self.outbox.pending() < waiting;
        if self.input_over {
            return if self.is_idle() { Err(End::Orderly) } else { Ok(progress) };
        }
        if self.starved
            && let Poll::Ready(filled) = self.inbox.poll_fill(&mut self.stream, &self.counters, cx)
        {
            match filled? {
                Fill::Received => self.starved = false,
                Fill::EndOfStream => self.input_over = true,
            }
            progress = true;
        }
        Ok(progress)
    }

    /// Watches for the server's shutdown; `Ready` where nothing is left to do after it, or no time.
    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        if let Shutdown::Awaited(shutdown) = &mut self.shutdown {
            ready!(shutdown.as_mut().poll(cx));
            self.machine.drain();
            let (linger, limit) = (Box::pin(sleep(DRAIN_LINGER)), Box::pin(sleep(DRAIN_TIMEOUT)));
            self.shutdown = Shutdown::Draining { linger, limit };
        }
        let idle = self.is_idle();
        if let Shutdown::Draining { linger, limit } = &mut self.shutdown {
            if limit.as_mut().poll(cx).is_ready() {
                return Poll::Ready(End::DrainTimeout);
            }
            let lingered = linger.is_elapsed() || linger.as_mut().poll(cx).is_ready();
            if lingered && idle {
                return Poll::Ready(End::Orderly);
            }
        }
        Poll::Pending
    }

    /// Whether every request taken was answered, and every answer sent.
    fn is_idle(&self) -> bool {
        self.pending.is_empty() && self.outbox.is_clear()
    }

    /// Answers the requests that the device is done with.
    fn collect(&mut self, cx: &mut Context<'_>) -> bool {
        let mut any = false;
        while !self.pending.is_empty() && self.outbox.pending() < REPLY_BATCH_BYTES {
            let Poll::Ready(Some(finished)) = self.pending.poll_next_unpin(cx) else { break };
            self.pending_bytes -= finished.held_bytes;
            perform::answer(self.machine.style(), finished, &mut self.outbox, &self.counters);
            any = true;
        }
        any
    }

    /// Takes requests from the inbox, as many as the bounds allow.
    fn take_requests(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        let mut any = false;
        while !self.starved && self.may_take() {
            match self.machine.step(self.inbox.bytes()) {
                Step::NeedMore(total) => {
                    self.inbox.want(total);
                    self.starved = true;
                    return Ok(any);
                }
                Step::Skipped { consumed } => self.inbox.consume(consumed),
                Step::Perform { echo, command, payload_at, consumed } => {
                    self.perform(echo, command, payload_at, consumed, cx);
                }
                Step::Refuse { echo, error, text, consumed } => {
                    self.inbox.consume(consumed);
                    self.counters.requests.add(1);
                    perform::refuse(self.machine.style(), echo, error, text, &mut self.outbox, &self.counters);
                }
                Step::Disconnect => {
                    self.input_over = true;
                    return Ok(true);
                }
                Step::Violation(violation) => return Err(End::Violation(violation)),
            }
            any = true;
        }
        Ok(any)
    }

    fn may_take(&self) -> bool {
        let waiting = self.outbox.pending();
        !self.input_over
            && waiting < REPLY_BATCH_BYTES
            && self.pending.len() < MAX_REQUESTS_IN_FLIGHT
            && self.pending_bytes + waiting < MAX_BYTES_IN_FLIGHT
    }

    /// Answers a request at once where the device can; starts it otherwise.
    fn perform(&mut self, echo: Echo, command: Command, payload_at: usize, consumed: usize, cx: &mut Context<'_>) {
        if self.perform_inline(echo, command, payload_at..consumed) {
            self.inbox.consume(consumed);
            self.counters.requests.add(1);
            return;
        }
        let payload = if consumed > payload_at {
            self.inbox.take(consumed).slice(payload_at..)
        } else {
            self.inbox.consume(consumed);
            Bytes::new()
        };
        let mut request = perform::start(&self.device, echo, command, payload);
        match request.as_mut().poll(cx) {
            Poll::Ready(finished) => {
                perform::answer(self.machine.style(), finished, &mut self.outbox, &self.counters);
            }
            Poll::Pending => {
                self.counters.deferred.add(1);
                self.pending_bytes += perform::held_bytes(command);
                self.pending.push(request);
            }
        }
    }

    /// Whether, but for the request of so many bytes at the front of the inbox, nothing is to be done on this lane.
    fn waits_for_nothing_else(&self, request_bytes: usize) -> bool {
        self.neighbours.are_none()
            && self.pending.is_empty()
            && self.outbox.pending() == 0
            && self.inbox.bytes().len() == request_bytes
    }

    fn perform_inline(&mut self, echo: Echo, command: Command, payload: std::ops::Range<usize>) -> bool {
        let style = self.machine.style();
        let answer = match command {
            Command::Read(range) | Command::Write(range, _) if range.is_empty() => Inline::Done(Ok(())),
            Command::Read(range) if range.length() <= MAX_INLINE_BYTES => {
                let length = perform::read_length(range);
                let head = reply::data(style, echo, length);
                let head = head.as_bytes();
                let (front, data) = self.outbox.room(head.len() + length as usize).split_at_mut(head.len());
                match self.device.try_read(range.start(), data) {
                    Inline::Done(Ok(ReadOutcome::Filled)) => {
                        front.copy_from_slice(head);
                        self.outbox.commit(head.len() + length as usize);
                        return true;
                    }
                    Inline::Done(Ok(ReadOutcome::Zeroes)) => {
                        perform::answer_zeroes(style, echo, range, &mut self.outbox);
                        return true;
                    }
                    Inline::Done(Err(error)) => Inline::Done(Err(error)),
                    Inline::Later => Inline::Later,
                }
            }
            Command::Write(range, persistence) if range.length() <= MAX_INLINE_BYTES => {
                self.device.try_write(range.start(), &self.inbox.bytes()[payload], persistence)
            }
            // To hand it over would take two wake-ups, and meanwhile nobody else wants this thread.
            Command::Flush if self.waits_for_nothing_else(payload.end) => self.device.try_flush(),
            _ => Inline::Later,
        };
        match answer {
            Inline::Done(Ok(())) => self.outbox.push(reply::done(style, echo).as_bytes()),
            Inline::Done(Err(error)) => {
                let code = perform::error_code(&error, command);
                perform::refuse(style, echo, code, &error.to_string(), &mut self.outbox, &self.counters);
            }
            Inline::Later => return false,
        }
        true
    }
}
