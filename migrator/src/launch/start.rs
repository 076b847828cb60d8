//! The start of a QEMU that waits for its state.

use std::path::{Path, PathBuf};
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

/// A program that is none of this host's QEMUs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} is none of the QEMUs that are started here: {}", program.display(), said(.directories))]
pub struct NoQemu {
    /// What was to be started.
    pub program: PathBuf,
    /// Where those are.
    pub directories: &'static [&'static str],
}

fn said(directories: &[&str]) -> String {
    format!("it has to be called {QEMU}…, and to be in {}", directories.join(" or "))
}

/// Whether a program may be started because another host says so: only QEMU, from where this host's administrator has installed it.
///
/// # Errors
/// [`NoQemu`].
pub fn check_program(program: &Path) -> Result<(), NoQemu> {
    let name = program.file_name().and_then(|name| name.to_str());
    let is_qemu = name.is_some_and(|name| name.starts_with(QEMU));
    let is_installed = DIRECTORIES.iter().any(|directory| program.parent() == Some(Path::new(directory)));
    let no_qemu = || NoQemu { program: program.to_owned(), directories: DIRECTORIES };
    (is_qemu && is_installed).then_some(()).ok_or_else(no_qemu)
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

/// How the programs are called.
const QEMU: &str = "qemu-system-";

/// Where they are.
const DIRECTORIES: &[&str] = &["/usr/bin", "/usr/local/bin", "/usr/libexec", "/opt/qemu/bin"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_an_installed_qemu_is_started() {
        for program in ["/usr/bin/qemu-system-x86_64", "/usr/local/bin/qemu-system-aarch64"] {
            check_program(Path::new(program)).unwrap();
        }
        for program in [
            "/bin/sh",
            "/usr/bin/sh",
            "/tmp/qemu-system-x86_64",
            "/usr/bin/../../tmp/qemu-system-x",
            "qemu-system-x",
            "",
        ] {
            let error = check_program(Path::new(program)).unwrap_err().to_string();
            assert!(error.contains("qemu-system-"), "{error}");
        }
    }
}
