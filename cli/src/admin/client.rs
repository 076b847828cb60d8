//! The connection to a node, on its admin socket or over the network, and what its errors mean to people.

use std::error::Error;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use hyper_util::rt::TokioIo;
use sterna_proto::admin::admin_client::AdminClient;
use sterna_proto::cluster::cluster_client::ClusterClient;
use sterna_transport::{connect_as_administrator, load_administrator};
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};

use crate::args::target::Target;
use crate::nbd_uri;

/// A node that answers.
pub(crate) struct Node {
    /// What can be asked of it.
    pub(crate) client: AdminClient<Channel>,
    /// What can be asked of it about its cluster.
    pub(crate) cluster: ClusterClient<Channel>,
    /// Where NBD clients of this machine connect; nothing where the node is elsewhere.
    nbd_socket: Option<PathBuf>,
}

impl Node {
    /// Connects to a node.
    ///
    /// # Errors
    /// It is not there, or does not let us in.
    pub(crate) async fn connect(target: &Target) -> Result<Self> {
        match target {
            Target::Here(directory) => Self::connect_here(directory).await,
            Target::Remote { identity, address } => Self::connect_remote(identity, address.as_deref()).await,
        }
    }

    /// Connects to a node over the network, at `address` or where the administrator's file says.
    async fn connect_remote(identity: &Path, address: Option<&str>) -> Result<Self> {
        let (credentials, named) = load_administrator(identity)?;
        let left = credentials.not_after().duration_since(sterna_runtime::clock::wall_time());
        ensure!(
            left.is_ok(),
            "the certificate in {} has expired: have another one made (sterna cluster admin create)",
            identity.display()
        );
        let address = match address {
            None => named,
            Some(given) => {
                let found = tokio::net::lookup_host(given).await;
                let found = found.with_context(|| format!("'{given}' is no HOST:PORT that can be found"))?.next();
                found.with_context(|| format!("'{given}' has no address"))?
            }
        };
        let channel = connect_as_administrator(&credentials, address).await?;
        Ok(Self::over(channel, None))
    }

    fn over(channel: Channel, nbd_socket: Option<PathBuf>) -> Self {
        let cluster = ClusterClient::new(channel.clone()).max_decoding_message_size(MAX_REPLY_BYTES);
        let client = AdminClient::new(channel).max_decoding_message_size(MAX_REPLY_BYTES);
        Self { client, cluster, nbd_socket }
    }

    /// Connects to the node that runs on a data directory.
    async fn connect_here(directory: &Path) -> Result<Self> {
        let shown = directory.display();
        ensure!(
            directory.exists(),
            "there is no data directory {shown}: give the one of a node with --dir or STERNA_DIR, or make one with \
             `sterna node init`"
        );
        let directory = std::path::absolute(directory).with_context(|| format!("{shown} has no absolute path"))?;
        let socket = directory.join(ADMIN_SOCKET);
        // One attempt of our own first: its error says more than what a channel makes of it.
        let stream = match UnixStream::connect(&socket).await {
            Ok(stream) => stream,
            Err(error) => bail!(no_connection(&error, &socket, directory.as_path())),
        };
        let mut stream = Some(TokioIo::new(stream));
        let connector = tower::service_fn(move |_| {
            // A second connection would be to another life of the node: nothing is sent again behind the caller's back.
            std::future::ready(stream.take().ok_or_else(|| io::Error::from(ErrorKind::ConnectionReset)))
        });
        // The address is never used; HTTP asks for one.
        let channel = Endpoint::from_static("http://node.invalid").connect_with_connector(connector).await;
        let channel = channel.with_context(|| format!("what listens on {} is no node of sterna", socket.display()))?;
        Ok(Self::over(channel, Some(directory.join(NBD_SOCKET))))
    }

    /// The URI of a volume's export on this machine; nothing where the node is elsewhere.
    pub(crate) fn uri(&self, volume: &str) -> Option<String> {
        self.nbd_socket.as_deref().map(|socket| nbd_uri::unix(socket, volume))
    }

    /// For work with files of the node's machine.
    ///
    /// # Errors
    /// The node is elsewhere.
    pub(crate) fn is_here(&self, what: &str) -> Result<()> {
        ensure!(
            self.nbd_socket.is_some(),
            "{what} is about a file of the node's machine, and cannot be asked for over the network: give the command \
             there, with --dir"
        );
        Ok(())
    }
}

fn no_connection(error: &io::Error, socket: &Path, directory: &Path) -> String {
    let (socket, directory) = (socket.display(), directory.display());
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => format!(
            "no node runs on {directory} (nothing listens on {socket}): start it with `sterna node run {directory}`"
        ),
        ErrorKind::PermissionDenied => {
            format!("this user may not talk to the node on {socket}: run this as the user that the node runs as")
        }
        _ => format!("cannot connect to the node on {socket}: {error}"),
    }
}

/// Why a node did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// It said why.
    #[error("{message}")]
    Refused { code: Code, message: String },
    /// It is another version.
    #[error("the node does not know this command: it runs another version of sterna")]
    NotKnown,
    /// It did not say anything.
    #[error(
        "the node went away before it had answered, so it is not known whether it did what it was asked to: see whether \
         it runs, and look before trying again ({cause})"
    )]
    Gone { cause: String },
}

impl CallError {
    /// Whether the node says that there is no such thing.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { code: Code::NotFound, .. })
    }
}

impl From<Status> for CallError {
    fn from(status: Status) -> Self {
        match (status.source(), status.code()) {
            // Only what was made on this side of the connection has a cause.
            (Some(cause), _) => Self::Gone { cause: innermost(cause) },
            (None, Code::Unimplemented) if status.message().is_empty() => Self::NotKnown,
            (None, code) if status.message().is_empty() => {
                Self::Refused { code, message: code.description().to_owned() }
            }
            (None, code) => Self::Refused { code, message: status.message().to_owned() },
        }
    }
}

fn innermost(error: &dyn Error) -> String {
    let mut error = error;
    while let Some(cause) = error.source() {
        error = cause;
    }
    error.to_string()
}

/// Hands each message of long work on, until there are no more.
///
/// # Errors
/// Those of the node, and those of `each`, which end it.
pub(crate) async fn for_each<T>(mut messages: Streaming<T>, mut each: impl FnMut(T) -> Result<()>) -> Result<()> {
    while let Some(message) = messages.message().await.map_err(CallError::from)? {
        each(message)?;
    }
    Ok(())
}

const ADMIN_SOCKET: &str = "admin.sock";
const NBD_SOCKET: &str = "nbd.sock";

/// The longest reply: a list of as many volumes as a cluster can have, with the longest names, takes half of this.
const MAX_REPLY_BYTES: usize = 128 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_says_is_told_as_it_is() {
        let error = CallError::from(Status::not_found("there is no volume 'web'"));
        assert!(error.is_not_found());
        assert_eq!(error.to_string(), "there is no volume 'web'");
        assert!(matches!(CallError::from(Status::unimplemented("")), CallError::NotKnown));
        assert!(!CallError::from(Status::internal("")).to_string().is_empty());
    }

    #[test]
    fn a_connection_that_breaks_leaves_the_outcome_open() {
        let broken = Status::from_error(Box::new(io::Error::from(ErrorKind::BrokenPipe)));
        assert!(matches!(CallError::from(broken), CallError::Gone { .. }));
    }
}
