//! A connection to QEMU's control socket.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::sync::{Semaphore, broadcast, mpsc, oneshot, watch};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::connection::{Claim, Connection, Request};
use super::error::{ConnectError, End, QmpError, excerpt};
use super::events::{Event, Events};
use super::limits::{EVENTS_KEPT, MAX_COMMAND_BYTES, MAX_COMMANDS, MAX_COMMANDS_OUT_OF_BAND};
use super::lines::Lines;
use super::message::{Band, CommandId, command_line, offers_out_of_band};

/// A connection to one QEMU. Cloning shares it; when the last clone is dropped it is closed.
///
/// Any number of callers may execute commands at a time. QEMU carries them out in the order in which they come to it.
///
/// ```no_run
/// use std::{path::Path, time::Duration};
/// use sterna_migrator::qmp::QmpClient;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let patience = Duration::from_secs(10);
/// let qemu = QmpClient::connect(Path::new("/run/vm/qmp.sock"), patience).await?;
/// let mut events = qemu.subscribe();
/// qemu.execute("stop", serde_json::Value::Null, patience).await?;
/// assert_eq!(events.next().await?.name, "STOP");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct QmpClient(Arc<Shared>);

struct Shared {
    /// To the task. As many fit as there are places, so nobody waits here.
    requests: mpsc::Sender<Request>,
    /// The places of commands that wait for QEMU's answer.
    places: Arc<Semaphore>,
    places_out_of_band: Arc<Semaphore>,
    /// Whether commands can be carried out out of band.
    out_of_band: bool,
    last_id: AtomicU64,
    /// Weak, so that events end with the connection.
    events: broadcast::WeakSender<Event>,
    ended: watch::Receiver<Option<End>>,
    _task: AbortOnDropHandle<()>,
}

impl QmpClient {
    /// Connects to the QEMU that listens at this path, and begins to execute commands, all within `patience`.
    ///
    /// # Errors
    /// [`ConnectError`].
    ///
    /// # Cancel safety
    /// Dropped, it leaves no connection behind.
    pub async fn connect(path: &Path, patience: Duration) -> Result<Self, ConnectError> {
        let begun = async {
            let connected = UnixStream::connect(path).await;
            let stream = connected.map_err(|source| ConnectError::Unreachable { path: path.to_owned(), source })?;
            Self::begin(stream).await
        };
        timeout(patience, begun).await.unwrap_or(Err(ConnectError::Silent { patience }))
    }

    /// The same over a fresh connection of any kind, which sends what is written without being flushed.
    ///
    /// # Errors
    /// [`ConnectError`].
    ///
    /// # Cancel safety
    /// Dropped, it has closed the connection.
    pub async fn over<S>(stream: S, patience: Duration) -> Result<Self, ConnectError>
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        timeout(patience, Self::begin(stream)).await.unwrap_or(Err(ConnectError::Silent { patience }))
    }

    async fn begin<S>(stream: S) -> Result<Self, ConnectError>
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (reader, writer) = tokio::io::split(stream);
        let mut lines = Lines::new(reader);
        let greeting = lines.next().await.map_err(ConnectError::Ended)?;
        let Some(out_of_band) = offers_out_of_band(&greeting) else {
            return Err(ConnectError::NotQmp { greeting: excerpt(&greeting) });
        };
        tracing::debug!(greeting = excerpt(&greeting), "QEMU greets");
        let client = Self::start(lines, writer, out_of_band);
        let arguments = if out_of_band { json!({ "enable": ["oob"] }) } else { Value::Null };
        // Whoever calls us has a limit around all of it.
        client.execute("qmp_capabilities", arguments, Duration::MAX).await.map_err(ConnectError::NoCommands)?;
        Ok(client)
    }

    fn start<R, W>(lines: Lines<R>, writer: W, out_of_band: bool) -> Self
    where
        R: AsyncRead + Unpin + Send + 'static,
        W: AsyncWrite + Unpin + Send + 'static,
    {
        let (requests, received) = mpsc::channel(MAX_COMMANDS + MAX_COMMANDS_OUT_OF_BAND);
        let (events, _) = broadcast::channel(EVENTS_KEPT);
        let (says_end, ended) = watch::channel(None);
        Self(Arc::new(Shared {
            requests,
            places: Arc::new(Semaphore::new(MAX_COMMANDS)),
            places_out_of_band: Arc::new(Semaphore::new(MAX_COMMANDS_OUT_OF_BAND)),
            out_of_band,
            last_id: AtomicU64::new(0),
            events: events.downgrade(),
            ended,
            _task: AbortOnDropHandle::new(tokio::spawn(Connection::new(lines, writer, received, events).run(says_end))),
        }))
    }

    /// Has QEMU carry out a command, and gives what it returns. Arguments that are null are left out.
    ///
    /// `patience` is for all of it: while [`MAX_COMMANDS`] others wait for QEMU's answer, this one waits to be sent.
    ///
    /// # Errors
    /// [`QmpError`]. After [`QmpError::NoAnswer`] and [`QmpError::Ended`] QEMU may have carried out the command, or may still; after
    /// [`QmpError::NotSent`] it has not, and does not.
    ///
    /// # Cancel safety
    /// Dropped, it leaves open whether QEMU carries out the command; the answer is dropped.
    pub async fn execute(&self, command: &str, arguments: Value, patience: Duration) -> Result<Value, QmpError> {
        self.request(Band::In, command, arguments, patience).await
    }

    /// The same out of band: QEMU carries it out before all others, even if its main loop hangs. Few commands can be,
    /// such as `yank`.
    ///
    /// # Errors
    /// As of [`execute`](Self::execute); and [`QmpError::NoOutOfBand`] if this QEMU does not offer it.
    ///
    /// # Cancel safety
    /// As of [`execute`](Self::execute).
    pub async fn execute_oob(&self, command: &str, arguments: Value, patience: Duration) -> Result<Value, QmpError> {
        if !self.0.out_of_band {
            return Err(QmpError::NoOutOfBand { command: command.to_owned() });
        }
        self.request(Band::Out, command, arguments, patience).await
    }

    /// The events from now on: whatever a command causes comes, if this was called before.
    pub fn subscribe(&self) -> Events {
        // Without a sender the connection has ended, and so have its events.
        let received = self.0.events.upgrade().map_or_else(|| broadcast::channel(1).1, |events| events.subscribe());
        Events { received, ended: self.0.ended.clone() }
    }

    /// Waits for the end of the connection, and says how it has ended.
    ///
    /// # Cancel safety
    /// Dropped, it changes nothing.
    pub async fn closed(&self) -> End {
        end_of(&mut self.0.ended.clone()).await
    }

    async fn request(
        &self,
        band: Band,
        command: &str,
        arguments: Value,
        patience: Duration,
    ) -> Result<Value, QmpError> {
        let claim = Claim::default();
        let outcome = timeout(patience, self.exchange(band, command, arguments, claim.clone())).await;
        let command = || command.to_owned();
        match outcome {
            Ok(outcome) => outcome,
            Err(_) if claim.take() => Err(QmpError::NotSent { command: command(), patience }),
            Err(_) => Err(QmpError::NoAnswer { command: command(), patience }),
        }
    }

    async fn exchange(&self, band: Band, command: &str, arguments: Value, claim: Claim) -> Result<Value, QmpError> {
        let id = CommandId(self.0.last_id.fetch_add(1, Ordering::Relaxed) + 1);
        let line = command_line(band, command, arguments, id);
        if line.len() > MAX_COMMAND_BYTES {
            return Err(QmpError::TooLong { command: command.to_owned(), bytes: line.len() });
        }
        let places = match band {
            Band::In => &self.0.places,
            Band::Out => &self.0.places_out_of_band,
        };
        let place = tokio::select! {
            biased;
            end = self.closed() => return Err(QmpError::Ended { command: command.to_owned(), end }),
            place = Arc::clone(places).acquire_owned() => place.expect("nobody closes it"),
        };
        let (answer, mut answered) = oneshot::channel();
        let request = Request { id, command: command.to_owned(), line, claim, answer, place };
        // If it cannot be sent, the connection has ended, which is seen below.
        drop(self.0.requests.send(request).await);
        let outcome = tokio::select! {
            biased;
            outcome = &mut answered => outcome.ok(),
            // All answers were given before the end was told; one may have come between the two looks.
            _ = self.closed() => answered.try_recv().ok(),
        };
        match outcome {
            Some(outcome) => outcome,
            None => Err(QmpError::Ended { command: command.to_owned(), end: self.closed().await }),
        }
    }
}

impl fmt::Debug for QmpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shared { out_of_band, ended, .. } = &*self.0;
        f.debug_struct("QmpClient").field("out_of_band", out_of_band).field("ended", &*ended.borrow()).finish()
    }
}

/// How a connection has ended, once it has.
pub(super) async fn end_of(ended: &mut watch::Receiver<Option<End>>) -> End {
    match ended.wait_for(Option::is_some).await {
        Ok(end) => end.clone().unwrap_or(End::LetGo),
        // The task is gone without a word: it was aborted.
        Err(_) => End::LetGo,
    }
}
