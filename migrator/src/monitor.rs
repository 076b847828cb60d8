//! The control socket of a QEMU, over connections that may end before it does.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::UnixStream;

use crate::launch::process::ProcessId;
use crate::qmp::{Commands, ConnectError, QmpClient, QmpError, VmStatus};

/// A QEMU, and how it is spoken to. It counts as ended once nobody listens at its socket any more: a connection that has ended says
/// nothing about that.
#[derive(Debug)]
pub struct Monitor {
    path: PathBuf,
    commands: Option<Commands>,
}

impl Monitor {
    /// Whatever is at this path now, and which process that is; `None` where the system does not say.
    ///
    /// # Errors
    /// [`ConnectError`]: nobody is there, or not QEMU.
    ///
    /// # Cancel safety
    /// Dropped, it leaves no connection behind.
    pub async fn connect(path: &Path) -> Result<(Self, Option<ProcessId>), ConnectError> {
        let unreachable = |source| ConnectError::Unreachable { path: path.to_owned(), source };
        let stream = UnixStream::connect(path).await.map_err(unreachable)?;
        let process = stream.peer_cred().ok().and_then(|peer| u32::try_from(peer.pid()?).ok()).map(ProcessId);
        let client = QmpClient::over(stream, PATIENCE).await?;
        Ok((Self::of(path, client), process))
    }

    /// The one that this connection is to.
    pub fn of(path: &Path, client: QmpClient) -> Self {
        Self { path: path.to_owned(), commands: Some(Commands::new(client, PATIENCE)) }
    }

    /// One that is said to be at this path: it is looked for when it is spoken to.
    pub fn at(path: &Path) -> Self {
        Self { path: path.to_owned(), commands: None }
    }

    /// What can be asked of it; `None` once it has ended.
    ///
    /// # Errors
    /// [`ConnectError`]: it does not speak to us now.
    ///
    /// # Cancel safety
    /// May be dropped at any time.
    pub async fn commands(&mut self) -> Result<Option<&Commands>, ConnectError> {
        if self.commands.is_none() {
            match Self::connect(&self.path).await {
                Ok((found, _)) => self.commands = found.commands,
                Err(ConnectError::Unreachable { source, .. }) if is_nobody(source.kind()) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        Ok(self.commands.as_ref())
    }

    /// Whether the VM runs, by QEMU; `None` once that has ended.
    ///
    /// # Errors
    /// [`MonitorError`]: it is not known.
    ///
    /// # Cancel safety
    /// May be dropped at any time.
    pub async fn status(&mut self) -> Result<Option<VmStatus>, MonitorError> {
        loop {
            let Some(commands) = self.commands().await? else { return Ok(None) };
            match commands.query_status().await {
                // The next look is for a new connection.
                Err(QmpError::Ended { .. }) => self.commands = None,
                status => return Ok(Some(status?)),
            }
        }
    }

    /// Waits until the connection that there is has ended, if there is one.
    ///
    /// # Cancel safety
    /// May be dropped at any time.
    pub async fn closed(&mut self) {
        if let Some(commands) = self.commands.take() {
            commands.client().closed().await;
        }
    }
}

/// It is not known how it is with a QEMU.
#[derive(Debug, thiserror::Error)]
pub enum MonitorError {
    /// It does not speak to us.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// It does not answer.
    #[error(transparent)]
    Qmp(#[from] QmpError),
}

fn is_nobody(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::NotFound | ErrorKind::ConnectionRefused)
}

/// QEMU answers at once, unless its main loop waits for a disk.
pub const PATIENCE: Duration = Duration::from_secs(10);
