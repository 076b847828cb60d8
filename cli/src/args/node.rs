//! `sterna node`: make a data directory, and run the node that it belongs to.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Subcommand;
use sterna_transport::JoinToken;
use sterna_transport::token::InvalidToken;
use sterna_types::{NodeName, SiteName};

#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// Make the data directory of a new node, with a commented sterna.toml in it.
    Init(Init),
    /// Run the node of a data directory, until SIGTERM or SIGINT.
    ///
    /// Volumes are served over NBD on DIR/nbd.sock and where sterna.toml says; commands are taken on DIR/admin.sock.
    Run(Run),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Init {
    /// The directory to make; an empty one will do.
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,

    /// The site that the node stands at, such as ams.
    #[arg(long)]
    pub(crate) site: SiteName,

    /// What the node is called; without it as its site, with -1 behind it.
    #[arg(long)]
    pub(crate) name: Option<NodeName>,

    /// Where other nodes reach this one, such as 10.77.0.1:7400: an address of this machine, which it listens on. Without
    /// it the node stays the only one of its cluster.
    #[arg(long, value_name = "ADDRESS:PORT", required_unless_present = "bootstrap")]
    pub(crate) listen: Option<SocketAddr>,

    #[command(flatten)]
    pub(crate) cluster: WhichCluster,
}

/// The cluster that a new node is in.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub(crate) struct WhichCluster {
    /// Begin a new cluster, with this node in it.
    #[arg(long)]
    pub(crate) bootstrap: bool,

    /// Join the cluster that has given out this token (sterna cluster token create).
    #[arg(long, value_name = "TOKEN", value_parser = join_token)]
    pub(crate) join: Option<JoinToken>,
}

/// Its text is a secret: what is wrong is said without it.
fn join_token(text: &str) -> Result<JoinToken, InvalidToken> {
    text.parse()
}

#[derive(Debug, clap::Args)]
pub(crate) struct Run {
    /// The data directory.
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
}
