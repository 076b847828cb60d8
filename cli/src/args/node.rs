//! `sterna node`: make a data directory, and run the node that it belongs to.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Subcommand;
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

    /// Where the nodes of other sites reach this one, such as 10.77.0.1:7400.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) listen: Option<SocketAddr>,

    /// Begin a new cluster, with this node in it.
    #[arg(long, required = true)]
    pub(crate) bootstrap: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Run {
    /// The data directory.
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
}
