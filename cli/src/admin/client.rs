//! The connection to a node, on its admin socket or over the network.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use sterna_proto::admin::admin_client::AdminClient;
use sterna_proto::cluster::cluster_client::ClusterClient;
use sterna_transport::{connect_as_administrator, load_administrator};
use tonic::Streaming;
use tonic::transport::Channel;

use crate::args::target::Target;
pub(super) use crate::call::CallError;
use crate::call::{Callee, connect, data_directory};
use crate::nbd_uri;
use crate::node::NBD_SOCKET;

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
        let directory = data_directory(directory)?;
        let channel = connect(Callee::Node, &directory).await?;
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

/// The longest reply: a list of as many volumes as a cluster can have, with the longest names, takes half of this.
const MAX_REPLY_BYTES: usize = 128 << 20;
