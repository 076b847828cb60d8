//! The replies that wait to be sent.
//!
//! Short ones, and the data of reads that are answered at once, stand one behind the other in one buffer that is written
//! with one system call. Long data that a device hands over is kept where it is, and written from there.
//!
//! There are two such [`Batch`]es: one that is being sent and takes nothing more, and one that is being filled. So a client
//! that never lets the outbox run empty does not have it grow: each buffer starts again from its front.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::AsyncWrite;

use crate::counters::Counters;

/// Data shorter than this is copied next to its header: cheaper than one more piece in a vectored write.
const COPY_BELOW_BYTES: usize = 16 << 10;

/// Pieces of one vectored write.
const MAX_PIECES: usize = 32;

/// Zeroes to send.
static ZEROES: [u8; 64 << 10] = [0; 64 << 10];

#[derive(Debug, Default)]
pub(super) struct Outbox {
    sending: Batch,
    filling: Batch,
    /// Whether the stream may still hold what it was given.
    unflushed: bool,
}

impl Outbox {
    /// Bytes that wait to be sent.
    pub(super) fn pending(&self) -> usize {
        self.sending.pending() + self.filling.pending()
    }

    /// Whether everything has left this process.
    pub(super) fn is_clear(&self) -> bool {
        self.pending() == 0 && !self.unflushed
    }

    /// Appends a short piece.
    pub(super) fn push(&mut self, piece: &[u8]) {
        self.room(piece.len()).copy_from_slice(piece);
        self.commit(piece.len());
    }

    /// Room for `length` more bytes; they count once [`Outbox::commit`] is called.
    pub(super) fn room(&mut self, length: usize) -> &mut [u8] {
        self.filling.room(length)
    }

    /// The first `length` bytes of the room are to be sent.
    pub(super) fn commit(&mut self, length: usize) {
        self.filling.filled += length;
        debug_assert!(self.filling.filled <= self.filling.staging.len());
    }

    /// Appends data that somebody else holds.
    pub(super) fn push_data(&mut self, data: Bytes, counters: &Counters) {
        if data.len() < COPY_BELOW_BYTES {
            counters.bytes_moved.add(data.len() as u64);
            self.push(&data);
        } else {
            self.filling.push_long(data);
        }
    }

    /// Appends zeroes. Long runs are sent from one place again and again, and take no memory of this connection.
    pub(super) fn push_zeroes(&mut self, length: usize) {
        let mut left = length;
        while left >= COPY_BELOW_BYTES {
            let piece = &ZEROES[..left.min(ZEROES.len())];
            self.filling.push_long(Bytes::from_static(piece));
            left -= piece.len();
        }
        self.room(left).fill(0);
        self.commit(left);
    }

    /// Sends until nothing is left, or the stream takes no more.
    pub(super) fn poll_send<S: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        counters: &Counters,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while self.pending() > 0 {
            if self.sending.pending() == 0 {
                mem::swap(&mut self.sending, &mut self.filling);
            }
            let taken = ready!(self.sending.poll_write(stream, cx))?;
            if taken == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            counters.sends.add(1);
            counters.bytes_sent.add(taken as u64);
            self.unflushed = true;
            self.sending.advance(taken);
        }
        if self.unflushed {
            ready!(Pin::new(stream).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Bytes of memory that it has for itself.
    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        self.sending.staging.capacity() + self.filling.staging.capacity()
    }
}

/// Replies that are sent together.
#[derive(Debug, Default)]
struct Batch {
    /// Initialised memory; what is to be sent stands in `sent..filled`.
    staging: Vec<u8>,
    filled: usize,
    sent: usize,
    /// Long data, each with the place in `staging` that it is to be sent at.
    long: VecDeque<(usize, Bytes)>,
    long_bytes: usize,
}

impl Batch {
    fn pending(&self) -> usize {
        self.filled - self.sent + self.long_bytes
    }

    fn room(&mut self, length: usize) -> &mut [u8] {
        let end = self.filled + length;
        if self.staging.len() < end {
            self.staging.resize(end, 0);
        }
        &mut self.staging[self.filled..end]
    }

    fn push_long(&mut self, data: Bytes) {
        self.long_bytes += data.len();
        self.long.push_back((self.filled, data));
    }

    fn poll_write<S: AsyncWrite + Unpin>(&self, stream: &mut S, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.long.is_empty() {
            return Pin::new(stream).poll_write(cx, &self.staging[self.sent..self.filled]);
        }
        let mut pieces = [IoSlice::new(&[]); MAX_PIECES];
        let mut count = 0;
        let mut at = self.sent;
        let ends = self.long.iter().map(|(place, data)| (*place, &data[..])).chain([(self.filled, &[][..])]);
        for (place, data) in ends {
            for piece in [&self.staging[at..place], data] {
                if !piece.is_empty() && count < MAX_PIECES {
                    pieces[count] = IoSlice::new(piece);
                    count += 1;
                }
            }
            at = place;
        }
        Pin::new(stream).poll_write_vectored(cx, &pieces[..count])
    }

    fn advance(&mut self, mut taken: usize) {
        while taken > 0 {
            let until = self.long.front().map_or(self.filled, |(place, _)| *place);
            let staged = taken.min(until - self.sent);
            self.sent += staged;
            taken -= staged;
            if let Some((_, data)) = self.long.front_mut().filter(|_| taken > 0) {
                let part = taken.min(data.len());
                bytes::Buf::advance(data, part);
                self.long_bytes -= part;
                taken -= part;
                if data.is_empty() {
                    self.long.pop_front();
                }
            }
        }
        if self.pending() == 0 {
            (self.filled, self.sent) = (0, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::REPLY_BATCH_BYTES;

    /// Takes so many bytes, then none before it is asked again.
    struct Slow {
        taken: Vec<u8>,
        at_once: usize,
        is_full: bool,
    }

    impl AsyncWrite for Slow {
        fn poll_write(mut self: Pin<&mut Self>, _cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            self.is_full = !self.is_full;
            if !self.is_full {
                return Poll::Pending;
            }
            let part = &bytes[..bytes.len().min(self.at_once)];
            self.taken.extend_from_slice(part);
            Poll::Ready(Ok(part.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn an_outbox_that_never_runs_empty_stays_small_and_sends_everything_in_order() {
        let (mut outbox, counters) = (Outbox::default(), Counters::default());
        let mut stream = Slow { taken: Vec::new(), at_once: 10_000, is_full: false };
        let cx = &mut Context::from_waker(std::task::Waker::noop());
        let mut expected = Vec::new();
        for number in 0..5000_u32 {
            while outbox.pending() < REPLY_BATCH_BYTES {
                let reply = number.to_le_bytes().repeat(1024);
                let long = if number % 7 == 0 { reply.repeat(8) } else { Vec::new() };
                expected.extend_from_slice(&[&reply[..], &long, &reply[..4]].concat());
                outbox.push(&reply);
                outbox.push_data(long.into(), &counters);
                outbox.push(&reply[..4]);
            }
            assert!(outbox.poll_send(&mut stream, &counters, cx).is_pending(), "it has run empty");
        }
        assert!(stream.taken.len() > 20 * REPLY_BATCH_BYTES);
        assert!(expected.starts_with(&stream.taken), "something else was sent");
        assert!(outbox.memory() <= 4 * REPLY_BATCH_BYTES, "{} bytes", outbox.memory());
    }
}
