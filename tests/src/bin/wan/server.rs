//! What a wan that is running does beside carrying: it answers on its control socket, and ends when it is told to.

use std::fs::{self, Permissions};
use std::future;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use sterna_tests::wan::Wan;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{interval, timeout};

use crate::control::{Answer, REQUEST_LIMIT, Request, ways};

/// The signals that end a wan in good order.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

/// A socket for `wan ctl`. Its file goes with it.
pub(crate) struct Control {
    listener: UnixListener,
    path: PathBuf,
}

impl Signals {
    /// From now on they do not end the process.
    ///
    /// # Errors
    /// The system refuses.
    pub(crate) fn catch() -> Result<Self> {
        let (terminate, interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        Ok(Self { terminate, interrupt, hang_up: signal(SignalKind::hangup())? })
    }

    async fn any(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = self.hang_up.recv() => {}
        }
    }
}

impl Control {
    /// Listens at a path. A socket on which nobody listens any more gives way.
    ///
    /// # Errors
    /// Somebody listens there, or no socket can be made.
    pub(crate) fn listen(path: &Path) -> Result<Self> {
        match StdUnixStream::connect(path) {
            Ok(_) => bail!("another program listens on {}: choose another socket", path.display()),
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path)?,
            Err(_) => {}
        }
        let listener = UnixListener::bind(path).with_context(|| format!("cannot listen on {}", path.display()))?;
        fs::set_permissions(path, Permissions::from_mode(0o600))?;
        Ok(Self { listener, path: path.to_owned() })
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Answers until a signal arrives.
///
/// # Errors
/// The wan has failed, or the socket has.
pub(crate) async fn serve(wan: &Wan, control: Option<&Control>, signals: &mut Signals) -> Result<()> {
    let mut look = interval(FAILURE_INTERVAL);
    loop {
        let client = tokio::select! {
            () = signals.any() => return Ok(()),
            client = accept(control) => Some(client?),
            _ = look.tick() => None,
        };
        if let Some(client) = client {
            // A client that says nothing, or is gone, is its own affair.
            let _ = timeout(CLIENT_LIMIT, answer(wan, client)).await;
        }
        if let Some(failure) = wan.failure() {
            bail!("{failure}");
        }
    }
}

async fn accept(control: Option<&Control>) -> Result<UnixStream> {
    let Some(control) = control else { return future::pending().await };
    let (client, _) = control.listener.accept().await.context("cannot accept on the control socket")?;
    Ok(client)
}

async fn answer(wan: &Wan, mut client: UnixStream) -> Result<()> {
    let (reader, mut writer) = client.split();
    let mut line = String::new();
    BufReader::new(reader.take(REQUEST_LIMIT)).read_line(&mut line).await?;
    let answer = match serde_json::from_str(&line) {
        Ok(request) => match obey(wan, request) {
            Ok(answer) => answer,
            Err(error) => Answer::Failed(format!("{error:#}")),
        },
        Err(error) => Answer::Failed(format!("this is not a request: {error}")),
    };
    let mut line = serde_json::to_vec(&answer)?;
    line.push(b'\n');
    writer.write_all(&line).await?;
    Ok(())
}

/// Takes some milliseconds at most, so that nothing else needs to go on meanwhile.
fn obey(wan: &Wan, request: Request) -> Result<Answer> {
    match request {
        Request::Cut { one, other, one_way } => wan.cut(&one, &other, ways(one_way))?,
        Request::Heal { one, other, one_way } => wan.heal(&one, &other, ways(one_way))?,
        Request::Set { one, other, one_way, change } => wan.set(&one, &other, ways(one_way), &change)?,
        Request::Show {} => {}
    }
    Ok(Answer::Done(wan.report()?))
}

/// How late it is noticed that the wan has failed.
const FAILURE_INTERVAL: Duration = Duration::from_millis(200);
/// One client keeps others waiting no longer than this.
const CLIENT_LIMIT: Duration = Duration::from_secs(2);
