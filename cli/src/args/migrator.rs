//! `sterna migrator`: what moves the VMs of a host.

use std::path::PathBuf;

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum MigratorCommand {
    /// Run the migrator beside the node of a data directory, until it is stopped.
    ///
    /// Commands about VMs are taken on DIR/migrator.sock.
    Run(Run),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Run {
    /// The node's data directory.
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
}
