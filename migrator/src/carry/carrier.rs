//! One end of what is carried: a socket to a QEMU beside it, and one connection after the other to the other end.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::inbox::Gap;
use super::outbox::NotSent;
use super::window::Sent;
use super::{Inbox, Offset, Outbox, Window};

/// What travels over a connection, in both directions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// How much of what was sent has been taken; the first frame in each direction.
    Taken(Offset),
    /// Bytes of the sequence, from this place on.
    Piece(Offset, Bytes),
}

/// What is done with bytes on their way from and to the socket. Without one they pass as they are.
pub trait Tap: Send + 'static {
    /// Bytes that have come from the socket: those that are to be sent are taken from the front. What is left is given again, with
    /// more behind it.
    fn outgoing(&mut self, read: &mut BytesMut) -> Bytes {
        read.split().freeze()
    }

    /// The same at the end of what comes from the socket: nothing follows.
    fn last(&mut self, read: &mut BytesMut) -> Bytes {
        read.split().freeze()
    }

    /// Bytes that have come over the connection: those that are to be written to the socket.
    ///
    /// # Errors
    /// The other end has sent what nobody sends.
    fn incoming(&mut self, piece: Bytes) -> Result<Bytes, TapError> {
        Ok(piece)
    }
}

/// What has come over a connection is not what it has to be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TapError(pub String);

/// Bytes pass as they are.
#[derive(Debug)]
pub struct Plain;

impl Tap for Plain {}

/// Why a connection carries nothing more.
#[derive(Debug, thiserror::Error)]
pub enum CarryEnd {
    /// The other end has closed it, or it has broken.
    #[error("the connection to the other migrator has ended")]
    Disconnected,
    /// The other end has sent something that it may not.
    #[error("the other migrator has sent what it may not: {0}")]
    Unexpected(String),
    /// QEMU beside this end takes nothing more.
    #[error("QEMU takes nothing more of the migration")]
    Socket,
}

impl From<Gap> for CarryEnd {
    fn from(gap: Gap) -> Self {
        Self::Unexpected(gap.to_string())
    }
}

impl From<NotSent> for CarryEnd {
    fn from(not_sent: NotSent) -> Self {
        Self::Unexpected(not_sent.to_string())
    }
}

/// How far it has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// What QEMU here has written, as it is sent, in bytes.
    pub written: Offset,
    /// What of it QEMU there has taken.
    pub taken: Offset,
    /// What QEMU there has written and QEMU here has taken.
    pub received: Offset,
    /// The link's rate as it was lately, in bytes a second; 0 before it was measured.
    pub rate: u64,
    /// Whether QEMU here has closed its end, and all that it wrote is counted in `written`.
    pub is_written: bool,
}

/// One end. Dropping it closes the socket.
///
/// What QEMU writes is read as long as less than a [`Window`] waits to be taken by the other end; so QEMU notices how fast the link is, and
/// nothing here grows. A connection that ends loses nothing: the next one begins where the other end's QEMU has come to.
#[derive(Debug)]
pub struct Carrier {
    shared: Arc<Shared>,
    reading: AbortOnDropHandle<()>,
    writing: AbortOnDropHandle<()>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Something is to be sent.
    pushed: Notify,
    /// Something was taken.
    room: Notify,
    progress: watch::Sender<Carried>,
    /// How far the other end's bytes have come. One connection has it at a time.
    sink: tokio::sync::Mutex<Sink>,
    /// What QEMU is to be given, in this order; closed once it takes nothing more.
    writes: mpsc::Sender<Write>,
    /// When time begins for the window.
    epoch: Instant,
}

struct Sink {
    inbox: Inbox,
    tap: Arc<Mutex<dyn Tap>>,
}

/// Bytes for QEMU, and who hears that it has taken them.
type Write = (Bytes, oneshot::Sender<()>);

/// Has bytes written, whatever becomes of what is returned; that ends when QEMU has them.
fn write(permit: mpsc::Permit<'_, Write>, bytes: Bytes) -> impl Future<Output = Result<(), CarryEnd>> + use<> {
    let (done, is_done) = oneshot::channel();
    permit.send((bytes, done));
    async { is_done.await.map_err(|_| CarryEnd::Socket) }
}

/// Gives QEMU what it is to be given, until it takes nothing more.
async fn write_all<S: AsyncWrite>(mut socket: WriteHalf<S>, mut writes: mpsc::Receiver<Write>) {
    while let Some((bytes, done)) = writes.recv().await {
        let written = async {
            socket.write_all(&bytes).await?;
            socket.flush().await
        };
        if written.await.is_err() {
            return;
        }
        // Whoever waited may have gone.
        let _ = done.send(());
    }
}

impl std::fmt::Debug for Sink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sink").field("inbox", &self.inbox).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct State {
    outbox: Outbox,
    window: Window,
    /// Where pieces end that were sent, and are not acknowledged.
    sent: VecDeque<(Offset, Sent)>,
    is_written: bool,
}

impl Carrier {
    /// Begins to take what QEMU writes to `socket`.
    pub fn start<S: AsyncRead + AsyncWrite + Send + 'static>(socket: S, tap: impl Tap) -> Self {
        let (read, write) = tokio::io::split(socket);
        let (writes, to_write) = mpsc::channel(WRITES);
        let tap: Arc<Mutex<dyn Tap>> = Arc::new(Mutex::new(tap));
        let state = State { outbox: Outbox::new(), window: Window::new(), sent: VecDeque::new(), is_written: false };
        let sink = Sink { inbox: Inbox::new(), tap: Arc::clone(&tap) };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            pushed: Notify::new(),
            room: Notify::new(),
            progress: watch::Sender::default(),
            sink: tokio::sync::Mutex::new(sink),
            writes,
            epoch: Instant::now(),
        });
        let reading = tokio::spawn(read_all(read, tap, Arc::clone(&shared)));
        let writing = tokio::spawn(write_all(write, to_write));
        Self { shared, reading: AbortOnDropHandle::new(reading), writing: AbortOnDropHandle::new(writing) }
    }

    /// How far it has come, now and whenever that changes.
    pub fn progress(&self) -> watch::Receiver<Carried> {
        self.shared.progress.subscribe()
    }

    /// Writes to QEMU what does not come from the other end, behind what has come from there. Returns when the socket has it.
    ///
    /// # Errors
    /// QEMU takes nothing more.
    ///
    /// # Cancel safety
    /// Dropped, it may have been written or not.
    pub async fn write(&self, bytes: Bytes) -> Result<(), CarryEnd> {
        let permit = self.shared.writes.reserve().await.map_err(|_| CarryEnd::Socket)?;
        write(permit, bytes).await
    }

    /// Closes the socket: QEMU waits for nobody any more who takes or sends something. What was carried stays known.
    pub fn close(&self) {
        self.reading.abort();
        self.writing.abort();
    }

    /// Carries over one connection, until that ends: frames that are to be sent go to `send`, those that come are taken from `receive`.
    /// Another connection may follow.
    ///
    /// # Cancel safety
    /// Dropped, it ends this connection like any other end of it.
    pub async fn carry(&self, send: mpsc::Sender<Frame>, mut receive: mpsc::Receiver<Frame>) -> CarryEnd {
        let mut sink = self.shared.sink.lock().await;
        if send.send(Frame::Taken(sink.inbox.received())).await.is_err() {
            return CarryEnd::Disconnected;
        }
        match receive.recv().await {
            Some(Frame::Taken(to)) => {
                if let Err(not_sent) = self.shared.resume(to) {
                    return not_sent.into();
                }
            }
            Some(Frame::Piece(..)) => return CarryEnd::Unexpected("bytes before it has said how far it is".to_owned()),
            None => return CarryEnd::Disconnected,
        }
        tokio::select! {
            end = self.shared.send_all(&send) => end,
            end = self.shared.receive_all(&mut sink, &send, &mut receive) => end,
        }
    }
}

/// Takes what QEMU writes, as fast as the other end takes it.
async fn read_all<S: AsyncRead>(mut socket: ReadHalf<S>, tap: Arc<Mutex<dyn Tap>>, shared: Arc<Shared>) {
    let mut buffer = BytesMut::new();
    loop {
        shared.wait_for_room().await;
        buffer.reserve(READ_BYTES);
        // An error is an end too: what has become of the migration QEMU says itself.
        let read = socket.read_buf(&mut buffer).await.unwrap_or(0);
        let mut tap = tap.lock().unwrap_or_else(PoisonError::into_inner);
        let piece = if read == 0 { tap.last(&mut buffer) } else { tap.outgoing(&mut buffer) };
        drop(tap);
        shared.push(piece, read == 0);
        if read == 0 {
            return;
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn wait_for_room(&self) {
        loop {
            let room = self.room.notified();
            {
                let state = self.state();
                if state.outbox.kept_bytes() < state.window.limit_bytes() {
                    return;
                }
            }
            room.await;
        }
    }

    fn push(&self, piece: Bytes, is_written: bool) {
        let mut state = self.state();
        state.outbox.push(piece);
        state.is_written = is_written;
        let written = state.outbox.end();
        drop(state);
        self.pushed.notify_one();
        self.progress.send_modify(|carried| (carried.written, carried.is_written) = (written, is_written));
    }

    fn resume(&self, to: Offset) -> Result<(), NotSent> {
        let mut state = self.state();
        state.outbox.resume(to)?;
        // How long it took says nothing about the link.
        state.sent.clear();
        drop(state);
        self.note_taken(to);
        Ok(())
    }

    fn acknowledge(&self, to: Offset) -> Result<(), NotSent> {
        let now = self.epoch.elapsed();
        let mut state = self.state();
        let bytes = to.since(state.outbox.acknowledged()).unwrap_or(0);
        state.outbox.acknowledge(to)?;
        let mut last = None;
        while let Some((_, sent)) = state.sent.front().copied().filter(|(end, _)| *end <= to) {
            last = Some(sent);
            state.sent.pop_front();
        }
        if let Some(sent) = last {
            state.window.acknowledged(bytes, sent, now);
        }
        drop(state);
        self.note_taken(to);
        Ok(())
    }

    fn note_taken(&self, to: Offset) {
        let rate = self.state().window.rate();
        self.room.notify_one();
        self.progress.send_modify(|carried| (carried.taken, carried.rate) = (to, rate));
    }

    async fn send_all(&self, send: &mpsc::Sender<Frame>) -> CarryEnd {
        loop {
            let pushed = self.pushed.notified();
            let next = {
                let mut state = self.state();
                let next = state.outbox.next(PIECE_BYTES);
                if let Some((at, piece)) = &next {
                    let end = at.behind(piece.len());
                    // With room for more, QEMU has written no more.
                    let has_room = state.outbox.kept_bytes() + PIECE_BYTES as u64 <= state.window.limit_bytes();
                    let sent = state.window.sent(has_room && end == state.outbox.end(), self.epoch.elapsed());
                    state.sent.push_back((end, sent));
                }
                next
            };
            match next {
                Some((at, piece)) => {
                    if send.send(Frame::Piece(at, piece)).await.is_err() {
                        return CarryEnd::Disconnected;
                    }
                }
                None => pushed.await,
            }
        }
    }

    async fn receive_all(
        &self,
        sink: &mut Sink,
        send: &mpsc::Sender<Frame>,
        receive: &mut mpsc::Receiver<Frame>,
    ) -> CarryEnd {
        loop {
            let end = match receive.recv().await {
                None => return CarryEnd::Disconnected,
                Some(Frame::Taken(to)) => self.acknowledge(to).err().map(CarryEnd::from),
                Some(Frame::Piece(at, piece)) => self.take(sink, send, at, piece).await.err(),
            };
            if let Some(end) = end {
                return end;
            }
        }
    }

    /// Hands a piece to QEMU, and says so.
    async fn take(
        &self,
        sink: &mut Sink,
        send: &mpsc::Sender<Frame>,
        at: Offset,
        piece: Bytes,
    ) -> Result<(), CarryEnd> {
        // From the first step to the last there is nothing to wait for: all of it is done, or nothing.
        let permit = self.writes.reserve().await.map_err(|_| CarryEnd::Socket)?;
        let piece = sink.inbox.take(at, piece)?;
        let altered = sink.tap.lock().unwrap_or_else(PoisonError::into_inner).incoming(piece);
        let written = write(permit, altered.map_err(|error| CarryEnd::Unexpected(error.to_string()))?);
        written.await?;
        let received = sink.inbox.received();
        self.progress.send_modify(|carried| carried.received = received);
        send.send(Frame::Taken(received)).await.map_err(|_| CarryEnd::Disconnected)
    }
}

/// How much is read from QEMU at once: a few of its buffers.
const READ_BYTES: usize = 64 << 10;

/// The longest piece: what is on the way before something else can be said.
const PIECE_BYTES: usize = 64 << 10;

/// Each is a piece: QEMU has the next one at hand when it has read this.
const WRITES: usize = 2;
