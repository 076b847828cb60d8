//! The command line, parsed into what the rest of the program works with: a value that can never be right is refused
//! here, with exit code 2, and nothing behind this sees it.
//!
//! One file for each family of commands: [`bucket`], [`cluster`], [`migrator`], [`nbd`], [`node`], [`vm`], [`volume`]. [`values`] has what
//! they share. [`target`]: which node is meant.

pub(crate) mod bucket;
pub(crate) mod cluster;
pub(crate) mod migrator;
pub(crate) mod nbd;
pub(crate) mod node;
pub(crate) mod target;
pub(crate) mod values;
pub(crate) mod vm;
pub(crate) mod volume;

use std::fmt::Display;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use clap_complete::Shell;

pub(crate) use bucket::BucketCommand;
pub(crate) use cluster::ClusterCommand;
pub(crate) use migrator::MigratorCommand;
pub(crate) use nbd::NbdCommand;
pub(crate) use node::NodeCommand;
pub(crate) use vm::VmCommand;
pub(crate) use volume::VolumeCommand;

use target::{NoTarget, Target};
use values::Rate;

/// A geo-replicated store for virtual-machine disks.
#[derive(Debug, Parser)]
#[command(name = "sterna", version, arg_required_else_help = true)]
pub(crate) struct Args {
    /// Print for programs: JSON, one value per line.
    #[arg(long, global = true)]
    pub(crate) json: bool,

    /// The data directory of the node to talk to.
    #[arg(long, global = true, value_name = "DIR", env = "STERNA_DIR")]
    pub(crate) dir: Option<PathBuf>,

    /// A node to talk to over the network, with --identity; without it the one that the identity names.
    #[arg(long, global = true, value_name = "HOST:PORT", env = "STERNA_REMOTE")]
    pub(crate) remote: Option<String>,

    /// Talk to a node over the network, as the administrator of this file (sterna cluster admin create). With --dir, for 'vm': issue
    /// migration tokens as that one.
    #[arg(long, global = true, value_name = "FILE", env = "STERNA_IDENTITY")]
    pub(crate) identity: Option<PathBuf>,

    /// What --dir, --remote and --identity amount to.
    #[arg(skip)]
    pub(crate) target: Option<Result<Target, NoTarget>>,

    /// Whose identity signs what is to be signed.
    #[arg(skip)]
    pub(crate) signer: Option<PathBuf>,

    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Args {
    /// The command line that the program was called with. One that is wrong ends the program, with exit code 2.
    pub(crate) fn read() -> Self {
        let matches = Self::command().get_matches();
        let mut args = Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
        let is_typed = |arg| matches.value_source(arg) == Some(ValueSource::CommandLine);
        args.signer.clone_from(&args.identity);
        if matches!(args.command, Command::Vm { .. }) && args.dir.is_some() {
            // It signs, and does not say which node is meant.
            args.identity = None;
        }
        args.target = Some(target::choose(
            args.dir.take().map(|dir| (dir, is_typed("dir"))),
            args.identity.take().map(|identity| (identity, is_typed("identity"))),
            args.remote.take().map(|remote| (remote, is_typed("remote"))),
        ));
        if let Command::Volume { command: VolumeCommand::Delete(delete) } = &args.command
            && delete.with_snapshots
            && delete.what.snapshot.is_some()
        {
            let message =
                format!("'{}' is a snapshot, and has none of its own: leave out --with-snapshots", delete.what);
            Self::wrong(ErrorKind::ArgumentConflict, message);
        }
        args
    }

    /// Ends the program because of a wrong command line.
    pub(crate) fn wrong(kind: ErrorKind, message: impl Display) -> ! {
        Self::command().error(kind, message).exit()
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a node, and run it.
    Node {
        #[command(subcommand)]
        command: NodeCommand,
    },
    /// The cluster that the node belongs to.
    Cluster {
        #[command(subcommand)]
        command: ClusterCommand,
    },
    /// Volumes and their snapshots.
    Volume {
        #[command(subcommand)]
        command: VolumeCommand,
    },
    /// VMs of this host, and their migration to other sites.
    Vm {
        #[command(subcommand)]
        command: VmCommand,
    },
    /// What moves the VMs of this host.
    Migrator {
        #[command(subcommand)]
        command: MigratorCommand,
    },
    /// What the node keeps in its bucket besides, and volumes made again from that.
    Bucket {
        #[command(subcommand)]
        command: BucketCommand,
    },
    /// Free the space of chunks that nothing needs any more.
    Gc,
    /// Get volumes out of the data directory of a node that cannot run any more.
    ///
    /// Without a choice it lists what is there. The directory is read and never altered, and no node may run on it. It
    /// needs neither a cluster nor an index that is whole. Exit code 1 says that something is lost.
    Salvage(crate::salvage::SalvageArgs),
    /// Read everything that the node holds, and report what is damaged.
    Scrub(Scrub),
    /// Disks over NBD, without a node.
    Nbd {
        #[command(subcommand)]
        command: NbdCommand,
    },
    /// Print a script that completes commands in a shell.
    ///
    /// For bash: sterna completions bash > /etc/bash_completion.d/sterna
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Write the manual, a page for each command, to a directory.
    Man {
        /// Where to; it is made if it is not there.
        directory: PathBuf,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct Scrub {
    /// Read at most so many bytes in a second, such as 50M; without it as fast as the disk is.
    #[arg(long, value_name = "SIZE")]
    pub(crate) rate: Option<Rate>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Args::command().debug_assert();
    }

    #[test]
    fn the_directory_of_the_node_may_stand_in_front_or_behind() {
        for line in [["sterna", "--dir", "/d", "volume", "list"], ["sterna", "volume", "list", "--dir", "/d"]] {
            let args = Args::try_parse_from(line).expect("a command line");
            assert_eq!(args.dir, Some(PathBuf::from("/d")));
        }
    }
}
