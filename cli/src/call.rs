//! Calls to a program that runs on a data directory of this machine: the connection over its socket, and what its errors mean to people,
//! also those of a node that is elsewhere.

use std::error::Error;
use std::fmt;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::node::ADMIN_SOCKET;
use crate::node::migrator::SOCKET as MIGRATOR_SOCKET;

/// Who is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Callee {
    /// The node of a data directory.
    Node,
    /// The migrator beside it.
    Migrator,
}

impl Callee {
    /// Its socket, in the data directory.
    fn socket(self) -> &'static str {
        match self {
            Self::Node => ADMIN_SOCKET,
            Self::Migrator => MIGRATOR_SOCKET,
        }
    }
}

impl fmt::Display for Callee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Node => "node",
            Self::Migrator => "migrator",
        })
    }
}

/// What calls are made on.
///
/// # Errors
/// The machine has no thread for it.
pub(crate) fn runtime() -> io::Result<Runtime> {
    // A thread beside the caller's for the connection: who is called over the network wants to hear that we are there, also while the
    // caller waits for whoever reads what is printed.
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()
}

/// The absolute path of a data directory that is there.
///
/// # Errors
/// It is not, or has none.
pub(crate) fn data_directory(directory: &Path) -> Result<PathBuf> {
    let shown = directory.display();
    ensure!(
        directory.exists(),
        "there is no data directory {shown}: give the one of a node with --dir or STERNA_DIR, or make one with \
         `sterna node init`"
    );
    std::path::absolute(directory).with_context(|| format!("{shown} has no absolute path"))
}

/// Connects to the one that runs on a data directory.
///
/// # Errors
/// It is not there, or does not let us in.
pub(crate) async fn connect(callee: Callee, directory: &Path) -> Result<Channel> {
    let socket = directory.join(callee.socket());
    // One attempt of our own first: its error says more than what a channel makes of it.
    let stream = match UnixStream::connect(&socket).await {
        Ok(stream) => stream,
        Err(error) => bail!(no_connection(callee, &error, &socket, directory)),
    };
    let mut stream = Some(TokioIo::new(stream));
    let connector = tower::service_fn(move |_| {
        // A second connection would be to another life of it: nothing is sent again behind the caller's back.
        std::future::ready(stream.take().ok_or_else(|| io::Error::from(ErrorKind::ConnectionReset)))
    });
    // The address is never used; HTTP asks for one.
    let channel = Endpoint::from_static("http://node.invalid").connect_with_connector(connector).await;
    channel.with_context(|| format!("what listens on {} is no {callee} of sterna", socket.display()))
}

fn no_connection(callee: Callee, error: &io::Error, socket: &Path, directory: &Path) -> String {
    let (socket, directory) = (socket.display(), directory.display());
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => format!(
            "no {callee} runs on {directory} (nothing listens on {socket}): start it with `sterna {callee} run {directory}`"
        ),
        ErrorKind::PermissionDenied => {
            format!(
                "this user may not talk to the {callee} on {socket}: run this as the user that the {callee} runs as"
            )
        }
        _ => format!("cannot connect to the {callee} on {socket}: {error}"),
    }
}

/// Why somebody did not do what they were asked to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// They said why.
    #[error("{message}")]
    Refused { code: Code, message: String },
    /// They are another version.
    #[error("the {0} does not know this command: it runs another version of sterna")]
    NotKnown(Callee),
    /// They did not say anything.
    #[error(
        "the {callee} went away before it had answered, so it is not known whether it did what it was asked to: see whether \
         it runs, and look before trying again ({cause})"
    )]
    Gone { callee: Callee, cause: String },
}

impl CallError {
    /// What a call to `callee` has ended with.
    pub(crate) fn of(callee: Callee, status: Status) -> Self {
        match (status.source(), status.code()) {
            // Only what was made on this side of the connection has a cause.
            (Some(cause), _) => Self::Gone { callee, cause: innermost(cause) },
            (None, Code::Unimplemented) if status.message().is_empty() => Self::NotKnown(callee),
            (None, code) if status.message().is_empty() => {
                Self::Refused { code, message: code.description().to_owned() }
            }
            (None, code) => Self::Refused { code, message: status.message().to_owned() },
        }
    }

    /// Whether it was said that there is no such thing.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { code: Code::NotFound, .. })
    }
}

/// Of a node.
impl From<Status> for CallError {
    fn from(status: Status) -> Self {
        Self::of(Callee::Node, status)
    }
}

fn innermost(error: &dyn Error) -> String {
    let mut error = error;
    while let Some(cause) = error.source() {
        error = cause;
    }
    error.to_string()
}

/// A text of a message, which is empty where there is none.
pub(crate) fn if_any(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_says_is_told_as_it_is() {
        let error = CallError::from(Status::not_found("there is no volume 'web'"));
        assert!(error.is_not_found());
        assert_eq!(error.to_string(), "there is no volume 'web'");
        assert!(matches!(CallError::from(Status::unimplemented("")), CallError::NotKnown(Callee::Node)));
        assert!(!CallError::from(Status::internal("")).to_string().is_empty());
    }

    #[test]
    fn a_connection_that_breaks_leaves_the_outcome_open() {
        let broken = Status::from_error(Box::new(io::Error::from(ErrorKind::BrokenPipe)));
        let error = CallError::of(Callee::Migrator, broken);
        assert!(matches!(error, CallError::Gone { .. }));
        assert!(error.to_string().starts_with("the migrator went away"), "{error}");
    }

    #[test]
    fn who_does_not_run_is_named_with_what_starts_it() {
        let (socket, directory) = (Path::new("/d/migrator.sock"), Path::new("/d"));
        assert_eq!(
            no_connection(Callee::Migrator, &ErrorKind::NotFound.into(), socket, directory),
            "no migrator runs on /d (nothing listens on /d/migrator.sock): start it with `sterna migrator run /d`"
        );
    }
}
