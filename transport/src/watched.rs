//! A connection that is looked at while HTTP/2 goes over it: whether that is what comes, whether it comes in time, and whether this
//! end took its leave because the other broke the rules.
//!
//! The library that speaks HTTP/2 knows all of it, and tells nobody whose log a person reads; nor does it wait for a bounded time.
//! So the first bytes are compared with what they have to be (RFC 9113, 3.4), and of what is sent the heads of the frames are
//! read for a GOAWAY (6.8), whose code says what the other end did.

use std::error::Error;
use std::fmt::{self, Display};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::transport::server::Connected;

use crate::limits::PREFACE_TIMEOUT;
use crate::refusals::{RefusalReason, Refusals};

/// A connection with bytes of HTTP/2 in it.
///
/// What it finds wrong it counts and logs, once; reading it then fails.
pub struct Watched<S> {
    stream: S,
    /// Whose it is, for the log.
    origin: Box<str>,
    refusals: Arc<Refusals>,
    /// How much of the preface has come.
    preface: usize,
    frames: Frames,
    /// Until when the preface has to be there; gone once it is.
    silence: Option<Pin<Box<Sleep>>>,
    /// When it ends, whatever goes over it, and why.
    end: Option<(Pin<Box<Sleep>>, Cut)>,
    /// Its place among others, where those are counted.
    _place: Option<OwnedSemaphorePermit>,
}

/// Why a connection was cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Cut {
    #[error("behind the handshake came something else than HTTP/2")]
    NotHttp2,
    #[error("nothing was asked within {} s", PREFACE_TIMEOUT.as_secs())]
    Silent,
    #[error("the peer broke the rules of HTTP/2: {0}")]
    BrokeHttp2(Code),
    #[error("a connection without a certificate has lasted as long as it may")]
    StrangerStayed,
    #[error("the peer's certificate has expired since it connected")]
    Outlived,
}

impl Cut {
    fn reason(self) -> Option<RefusalReason> {
        match self {
            Self::NotHttp2 => Some(RefusalReason::NotHttp2),
            Self::Silent => Some(RefusalReason::Silent),
            Self::BrokeHttp2(_) => Some(RefusalReason::BrokeHttp2),
            Self::Outlived => Some(RefusalReason::Outlived),
            // Whoever has joined, and waits: that is in order.
            Self::StrangerStayed => None,
        }
    }
}

/// A code of RFC 9113, 7.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Code(u32);

impl Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let index = usize::try_from(self.0).unwrap_or(usize::MAX);
        match CODES.get(index) {
            Some(name) => f.write_str(name),
            None => write!(f, "code {:#x}", self.0),
        }
    }
}

impl<S> Watched<S> {
    /// Watches a connection that has just come from `origin`, and counts there what is wrong with it.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn new(stream: S, origin: &dyn Display, refusals: Arc<Refusals>) -> Self {
        Self {
            stream,
            origin: origin.to_string().into(),
            refusals,
            preface: 0,
            frames: Frames::default(),
            silence: Some(Box::pin(sleep_until(Instant::now() + PREFACE_TIMEOUT))),
            end: None,
            _place: None,
        }
    }

    /// The same, which gives this place back when it is dropped.
    pub fn holding(mut self, place: OwnedSemaphorePermit) -> Self {
        self._place = Some(place);
        self
    }

    /// The same, which ends at `end` for this reason.
    pub(crate) fn until(mut self, end: Instant, cut: Cut) -> Self {
        self.end = Some((Box::pin(sleep_until(end)), cut));
        self
    }

    fn cut(&self, cut: Cut) -> io::Error {
        if let Some(reason) = cut.reason() {
            let error: &(dyn Error + 'static) = &cut;
            self.refusals.record(reason, &self.origin, error);
        }
        let kind = match cut {
            Cut::NotHttp2 | Cut::BrokeHttp2(_) => io::ErrorKind::InvalidData,
            Cut::Silent | Cut::StrangerStayed | Cut::Outlived => io::ErrorKind::TimedOut,
        };
        io::Error::new(kind, cut)
    }

    /// Why it is to be cut now, if it is; else the task is woken when it is.
    fn overdue(&mut self, context: &mut Context<'_>) -> Option<Cut> {
        if self.silence.as_mut().is_some_and(|silence| silence.as_mut().poll(context).is_ready()) {
            return Some(Cut::Silent);
        }
        let (end, cut) = self.end.as_mut()?;
        end.as_mut().poll(context).is_ready().then_some(*cut)
    }

    /// Compares what has come with the preface, as far as that is not over.
    fn received(&mut self, bytes: &[u8]) -> io::Result<()> {
        let left = &PREFACE[self.preface..];
        let compared = left.len().min(bytes.len());
        if left[..compared] != bytes[..compared] {
            return Err(self.cut(Cut::NotHttp2));
        }
        self.preface += compared;
        if compared > 0 && self.preface == PREFACE.len() {
            self.silence = None;
        }
        Ok(())
    }

    fn sent(&mut self, bytes: &[u8]) {
        if let Some(code) = self.frames.sent(bytes) {
            self.cut(Cut::BrokeHttp2(code));
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // Whoever serves a connection reads it all the time, so this is looked at when the time comes.
        if let Some(cut) = self.overdue(context) {
            (self.silence, self.end) = (None, None);
            return Poll::Ready(Err(self.cut(cut)));
        }
        let before = buffer.filled().len();
        match Pin::new(&mut self.stream).poll_read(context, buffer) {
            Poll::Ready(Ok(())) => {
                let compared = self.received(&buffer.filled()[before..]);
                if compared.is_err() {
                    // A read that fails has read nothing.
                    buffer.set_filled(before);
                }
                Poll::Ready(compared)
            }
            other => other,
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        if let Poll::Ready(Ok(written)) = &written {
            self.sent(&bytes[..*written]);
        }
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        if let Poll::Ready(Ok(mut left)) = written {
            for slice in slices {
                let here = slice.len().min(left);
                self.sent(&slice[..here]);
                left -= here;
            }
        }
        written
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

/// It says nothing about its peer: that is for what is around it.
impl<S> Connected for Watched<S> {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl<S> fmt::Debug for Watched<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Watched({})", self.origin)
    }
}

/// Where in a row of frames the bytes are.
#[derive(Default)]
struct Frames {
    /// The head of the frame that is being sent; of a GOAWAY, the eight bytes behind it too.
    head: [u8; HEAD_BYTES + GOAWAY_BYTES],
    filled: usize,
    /// Bytes left of its payload.
    left: usize,
}

impl Frames {
    /// The code of a GOAWAY that ends in these bytes, and says that something is wrong.
    fn sent(&mut self, mut bytes: &[u8]) -> Option<Code> {
        let mut code = None;
        while let Some((&byte, rest)) = bytes.split_first() {
            if self.left > 0 {
                let passed = self.left.min(bytes.len());
                self.left -= passed;
                bytes = &bytes[passed..];
                continue;
            }
            self.head[self.filled] = byte;
            (self.filled, bytes) = (self.filled + 1, rest);
            let is_goaway = self.filled >= HEAD_BYTES && self.head[3] == GOAWAY;
            let wanted = if is_goaway { HEAD_BYTES + GOAWAY_BYTES } else { HEAD_BYTES };
            if self.filled < wanted {
                continue;
            }
            let [high, middle, low, ..] = self.head;
            let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
            self.left = length.saturating_sub(wanted - HEAD_BYTES);
            self.filled = 0;
            if is_goaway {
                let said = u32::from_be_bytes([self.head[13], self.head[14], self.head[15], self.head[16]]);
                code = code.or((said != 0).then_some(Code(said)));
            }
        }
        code
    }
}

/// What every client of HTTP/2 begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Length, type, flags, stream.
const HEAD_BYTES: usize = 9;
/// The last stream, and the code.
const GOAWAY_BYTES: usize = 8;
const GOAWAY: u8 = 7;
const CODES: [&str; 14] = [
    "NO_ERROR",
    "PROTOCOL_ERROR",
    "INTERNAL_ERROR",
    "FLOW_CONTROL_ERROR",
    "SETTINGS_TIMEOUT",
    "STREAM_CLOSED",
    "FRAME_SIZE_ERROR",
    "REFUSED_STREAM",
    "CANCEL",
    "COMPRESSION_ERROR",
    "CONNECT_ERROR",
    "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY",
    "HTTP_1_1_REQUIRED",
];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, prop_assert_eq, proptest};
    use tokio::io::{AsyncReadExt, duplex};

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).expect("a short one").to_be_bytes();
        [&length[1..], &[kind, 0, 0, 0, 0, 1], payload].concat()
    }

    fn goaway(code: u32) -> Vec<u8> {
        frame(GOAWAY, &[&[0, 0, 0, 1], &code.to_be_bytes()[..], b"too long"].concat())
    }

    proptest! {
        #[test]
        fn a_farewell_is_found_however_the_bytes_are_cut(
            before in proptest::collection::vec(any::<u8>(), 0..40), cuts in proptest::collection::vec(1_usize..30, 0..20),
        ) {
            let bytes = [frame(0, &before), goaway(0), frame(1, &[GOAWAY; 20]), goaway(6)].concat();
            let (mut frames, mut rest, mut found) = (Frames::default(), &bytes[..], Vec::new());
            for cut in cuts.into_iter().chain([bytes.len()]) {
                let (now, later) = rest.split_at(cut.min(rest.len()));
                found.extend(frames.sent(now));
                rest = later;
            }
            prop_assert_eq!(found, [Code(6)]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_http2_or_does_not_come_is_cut_and_counted_once() {
        let refusals = Arc::new(Refusals::default());
        let watch = |stream| Watched::new(stream, &"here", Arc::clone(&refusals));
        let (other, stream) = duplex(64);
        let mut silent = watch(stream);
        assert_eq!(silent.read_u8().await.expect_err("nothing comes").kind(), io::ErrorKind::TimedOut);
        assert_eq!(refusals.count(RefusalReason::Silent), 1);
        drop(other);

        let (mut other, stream) = duplex(64);
        let mut garbage = watch(stream);
        tokio::io::AsyncWriteExt::write_all(&mut other, b"PRI * HTTP/1.1\r\n").await.expect("it is sent");
        let mut bytes = Vec::new();
        let error = garbage.read_to_end(&mut bytes).await.expect_err("no HTTP/2");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert_eq!(refusals.count(RefusalReason::NotHttp2), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_has_begun_lasts_until_its_end_and_no_longer() {
        // Before and after the time by which the preface has to be there.
        for lasts in [PREFACE_TIMEOUT / 2, PREFACE_TIMEOUT * 3] {
            let refusals = Arc::new(Refusals::default());
            let (mut other, stream) = duplex(64);
            let end = Instant::now() + lasts;
            let mut watched = Watched::new(stream, &"here", Arc::clone(&refusals)).until(end, Cut::Outlived);
            tokio::io::AsyncWriteExt::write_all(&mut other, PREFACE).await.expect("it is sent");
            let mut preface = [0; PREFACE.len()];
            watched.read_exact(&mut preface).await.expect("the preface");
            let ended = tokio::time::timeout(PREFACE_TIMEOUT * 4, watched.read_u8()).await.expect("it ends");
            assert_eq!(ended.expect_err("it is cut").kind(), io::ErrorKind::TimedOut);
            assert!(Instant::now() >= end);
            assert_eq!((refusals.count(RefusalReason::Outlived), refusals.count(RefusalReason::Silent)), (1, 0));
        }
    }
}
