//! The bytes that have arrived and were not used yet.
//!
//! A payload is received into the place that the device reads it from: the buffer is filled up to the end of a long
//! request and no further, so that the next one begins at its front, and nothing has to be moved. Of short requests as
//! many as fit are received at once; only the piece of one that is cut off at the end moves.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::AsyncRead;
use tokio_util::io::poll_read_buf;

use crate::counters::Counters;
use crate::limits::{INPUT_BYTES_MAX, INPUT_BYTES_MIN};

#[derive(Debug)]
pub(super) struct Inbox {
    buffer: BytesMut,
    /// Bytes that the request at the front takes in all, as far as it is known.
    wanted: usize,
    /// How much is received at once when nothing in particular is awaited.
    batch: usize,
}

/// How a fill ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fill {
    Received,
    EndOfStream,
}

impl Inbox {
    pub(super) fn new(buffer: BytesMut) -> Self {
        Self { buffer, wanted: 0, batch: INPUT_BYTES_MIN }
    }

    /// What is there.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.buffer
    }

    /// The front is a request, or what will be one when there are `total` bytes.
    pub(super) fn want(&mut self, total: usize) {
        self.wanted = total;
    }

    /// The first `count` bytes are done with.
    pub(super) fn consume(&mut self, count: usize) {
        self.wanted = 0;
        self.buffer.advance(count);
    }

    /// Takes the first `count` bytes out, without a copy, for somebody who needs them for longer.
    pub(super) fn take(&mut self, count: usize) -> Bytes {
        self.wanted = 0;
        self.buffer.split_to(count).freeze()
    }

    /// Receives once, if there is something to receive.
    pub(super) fn poll_fill<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
        counters: &Counters,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Fill>> {
        let goal = self.wanted.max(self.batch);
        let room = goal.saturating_sub(self.buffer.len()).max(1);
        self.make_room(room, counters);
        let mut part = (&mut self.buffer).limit(room);
        let received = ready!(poll_read_buf(Pin::new(stream), cx, &mut part))?;
        counters.receives.add(1);
        counters.bytes_received.add(received as u64);
        if received == room && self.wanted <= self.batch {
            self.batch = (self.batch * 2).min(INPUT_BYTES_MAX);
        }
        Poll::Ready(Ok(if received == 0 { Fill::EndOfStream } else { Fill::Received }))
    }

    fn make_room(&mut self, room: usize, counters: &Counters) {
        if self.buffer.is_empty() && self.buffer.capacity() > 16 * INPUT_BYTES_MAX && self.wanted <= self.batch {
            // One long payload is no reason to keep that much for good.
            self.buffer = BytesMut::new();
        }
        let (before, pending) = (self.buffer.as_ptr(), self.buffer.len());
        self.buffer.reserve(room);
        if pending > 0 && self.buffer.as_ptr() != before {
            counters.bytes_moved.add(pending as u64);
        }
    }
}
