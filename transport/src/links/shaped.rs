//! A connection below TLS that asks its link before it writes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::link::Member;
use crate::lane::Lane;
use crate::socket::TcpStream;

/// A connection that may be on a link. While it is on none, it writes as it likes.
#[derive(Debug)]
pub(crate) struct Shaped<S> {
    stream: S,
    place: Place,
}

#[derive(Debug)]
enum Place {
    /// Whose it is is not known yet, or nobody's that counts; so much went over it.
    Nowhere {
        sent_bytes: usize,
        received_bytes: usize,
    },
    On(Member),
}

impl<S> Shaped<S> {
    /// A connection that is on no link.
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, place: Place::Nowhere { sent_bytes: 0, received_bytes: 0 } }
    }

    /// From now on it is this member of a link, where what went over it before is counted too.
    pub(crate) fn join(&mut self, member: Member) {
        if let Place::Nowhere { sent_bytes, received_bytes } = self.place {
            member.count_sent(sent_bytes);
            member.count_received(received_bytes);
        }
        self.place = Place::On(member);
    }
}

impl Shaped<TcpStream> {
    /// Sends as it suits a lane.
    pub(crate) fn suit(&self, lane: Lane) {
        match lane {
            Lane::Control => {}
            Lane::Demand => self.stream.answer_at_once(),
            Lane::Tail | Lane::Sync | Lane::Prefetch | Lane::Bulk => self.stream.keep_queues_short(),
        }
    }
}

impl<S: AsyncWrite + Unpin> Shaped<S> {
    /// Writes by `write` when it is this connection's turn, no more than it is told.
    fn poll_in_turn(
        &mut self,
        context: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut S>, &mut Context<'_>, usize) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let at_most_bytes = match &mut self.place {
            Place::Nowhere { .. } => usize::MAX,
            Place::On(member) => ready!(member.poll_turn(context)),
        };
        let written = write(Pin::new(&mut self.stream), context, at_most_bytes);
        let bytes = match &written {
            Poll::Ready(Ok(bytes)) => Some(*bytes),
            Poll::Ready(Err(_)) => Some(0),
            Poll::Pending => None,
        };
        match &mut self.place {
            Place::Nowhere { sent_bytes, .. } => *sent_bytes += bytes.unwrap_or_default(),
            Place::On(member) => member.wrote(bytes),
        }
        written
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Shaped<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        let bytes = buffer.filled().len() - before;
        match &mut self.place {
            Place::Nowhere { received_bytes, .. } => *received_bytes += bytes,
            Place::On(member) => member.count_received(bytes),
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Shaped<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_in_turn(context, |stream, context, at_most_bytes| {
            stream.poll_write(context, &bytes[..bytes.len().min(at_most_bytes)])
        })
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_in_turn(context, |stream, context, at_most_bytes| {
            if slices.iter().map(|slice| slice.len()).sum::<usize>() <= at_most_bytes {
                return stream.poll_write_vectored(context, slices);
            }
            // A slice is a TLS record, so the first is about as much as may be written.
            let first = slices.iter().find(|slice| !slice.is_empty()).map_or(&[][..], |slice| slice);
            stream.poll_write(context, &first[..first.len().min(at_most_bytes)])
        })
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
