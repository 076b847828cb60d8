//! The start of a QEMU that waits for its state.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use sterna_proto::migrator as wire;
use tokio::net::UnixStream;
use tokio::process::Command;
use tokio::time::sleep;

use crate::carry::{Carrier, Plain};
use crate::examine::at_destination;
use crate::monitor::{Monitor, PATIENCE};
use crate::qmp::{Commands, ConnectError, QmpClient, QmpError};

/// What is to be started for a VM that comes in.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The program's file.
    pub program: PathBuf,
    /// Its arguments, its name the first.
    pub arguments: Vec<String>,
    /// The directory of its own sockets and files, which is made.
    pub directory: PathBuf,
    /// Its control socket.
    pub qmp: PathBuf,
}

/// Why a VM cannot be taken in.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// Its QEMU cannot be started.
    #[error("{} cannot be started: {source}", program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// It has ended at once.
    #[error("QEMU has ended with {status} before it could be told anything: {said}")]
    Ended {
        /// How.
        status: String,
        /// The end of what it has said.
        said: String,
    },
    /// Its control socket does not answer.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// It does not do what it is told.
    #[error(transparent)]
    Qmp(#[from] QmpError),
    /// QEMU's stream cannot be given.
    #[error("QEMU does not take its stream: {0}")]
    Socket(std::io::Error),
}

/// A QEMU that waits for its state.
pub struct Waiting {
    /// Its control socket.
    pub monitor: Monitor,
    /// What it is.
    pub machine: wire::Machine,
    /// The end of its stream.
    pub carrier: Arc<Carrier>,
}

impl Launch {
    /// Starts QEMU, and has it wait for its state. It outlives this process.
    ///
    /// # Errors
    /// [`LaunchError`]; it does not run then.
    ///
    /// # Cancel safety
    /// Not cancel safe: it may run then.
    pub async fn start(&self) -> Result<Waiting, LaunchError> {
        let failed = |source| LaunchError::Start { program: self.program.clone(), source };
        std::fs::create_dir_all(&self.directory).map_err(failed)?;
        let said = self.directory.join("qemu.log");
        let log = std::fs::File::create(&said).map_err(failed)?;
        let mut child = Command::new(&self.program)
            .arg0(self.arguments.first().map_or("qemu", String::as_str))
            .args(self.arguments.iter().skip(1))
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            // A signal to this process is not for it.
            .process_group(0)
            .kill_on_drop(false)
            .spawn()
            .map_err(failed)?;
        let waiting = async {
            let client = loop {
                if let Some(status) = child.try_wait().map_err(failed)? {
                    let said = std::fs::read_to_string(&said).unwrap_or_default();
                    let said = said.lines().last().unwrap_or("it has said nothing").to_owned();
                    return Err(LaunchError::Ended { status: status.to_string(), said });
                }
                match QmpClient::connect(&self.qmp, PATIENCE).await {
                    Ok(client) => break client,
                    Err(ConnectError::Unreachable { .. }) => sleep(SOCKET_RETRY).await,
                    Err(error) => return Err(error.into()),
                }
            };
            let qmp = Commands::new(client.clone(), PATIENCE);
            let machine = at_destination(&qmp).await?;
            qmp.set_capabilities(&DESTINATION_CAPABILITIES).await?;
            let stream = self.directory.join("migration.sock");
            let _ = std::fs::remove_file(&stream);
            qmp.migrate_incoming(&format!("unix:{}", stream.display())).await?;
            let socket = UnixStream::connect(&stream).await.map_err(LaunchError::Socket)?;
            let carrier = Arc::new(Carrier::start(socket, Plain));
            Ok(Waiting { monitor: Monitor::of(&self.qmp, client), machine, carrier })
        };
        let waiting = waiting.await;
        if waiting.is_err() {
            let _ = child.kill().await;
        } else {
            // Somebody has to hear of its end, or it stays as a zombie.
            tokio::spawn(async move { child.wait().await });
        }
        waiting
    }
}

/// As the source's, where both have to agree.
const DESTINATION_CAPABILITIES: [(&str, bool); 5] = [
    ("events", true),
    ("return-path", true),
    ("switchover-ack", true),
    ("late-block-activate", true),
    ("multifd", false),
];

/// Until QEMU has made its socket.
const SOCKET_RETRY: Duration = Duration::from_millis(10);
