//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Parser, Subcommand};
use sterna_tests::wan::{Change, Delay, Loss, Prefix, Rate, Size};

/// An emulated wide-area network between network namespaces of this machine. Needs root.
#[derive(Debug, Parser)]
#[command(name = "wan", arg_required_else_help = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Makes the sites of a topology, and carries packets between them until SIGINT or SIGTERM.
    Up(Up),
    /// Changes a wan that is running, or shows what it does.
    Ctl {
        /// The socket that it was given.
        socket: PathBuf,
        #[command(subcommand)]
        command: Ctl,
    },
    /// Runs a command at a site.
    Exec {
        /// The wan's, if it has another than this.
        #[arg(long, default_value = DEFAULT_PREFIX)]
        prefix: Prefix,
        /// The site's name.
        site: String,
        /// The command, behind `--`.
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
    /// Removes the namespaces that a wan which was killed has left.
    Clean {
        /// The wan's, if it had another than this.
        #[arg(long, default_value = DEFAULT_PREFIX)]
        prefix: Prefix,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct Up {
    /// A TOML file; docs/wan.md has its fields.
    pub(crate) topology: PathBuf,
    /// Listen on this Unix socket for `wan ctl`.
    #[arg(long, value_name = "SOCK")]
    pub(crate) control: Option<PathBuf>,
    /// Name the namespaces PREFIX-SITE, whatever the file says. If that says nothing: wan.
    #[arg(long)]
    pub(crate) prefix: Option<Prefix>,
    /// Carry packets of the MTU's size only, whatever the file says.
    #[arg(long)]
    pub(crate) no_offload: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Ctl {
    /// Cuts what lies between two sites: no packet passes.
    Cut(Ends),
    /// Heals it.
    Heal(Ends),
    /// Sets something anew, for what is sent from now on.
    Set {
        #[command(flatten)]
        ends: Ends,
        #[command(flatten)]
        settings: Settings,
    },
    /// Shows what is set of each direction, and what has happened there.
    Show {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct Ends {
    /// A site.
    #[arg(value_name = "A")]
    pub(crate) one: String,
    /// Another one.
    #[arg(value_name = "B")]
    pub(crate) other: String,
    /// Only from A to B.
    #[arg(long)]
    pub(crate) one_way: bool,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = true)]
pub(crate) struct Settings {
    /// One way, such as 50ms.
    #[arg(long)]
    delay: Option<Delay>,
    /// Bits per second, such as 100M, or unlimited.
    #[arg(long)]
    rate: Option<Rate>,
    /// The share of packets that are dropped at random, such as 0.1%.
    #[arg(long)]
    loss: Option<Loss>,
    /// How much may wait to leave, such as 2MiB.
    #[arg(long)]
    queue: Option<Size>,
}

impl Settings {
    pub(crate) fn change(&self) -> Change {
        Change { delay: self.delay, rate: self.rate, loss: self.loss, queue: self.queue }
    }
}

/// What the namespaces' names begin with where nothing is said.
pub(crate) const DEFAULT_PREFIX: &str = "wan";

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn setting_nothing_is_refused() {
        assert!(Args::try_parse_from(["wan", "ctl", "s", "set", "a", "b"]).is_err());
        assert!(Args::try_parse_from(["wan", "ctl", "s", "set", "a", "b", "--loss", "0.1"]).is_err());
        assert!(Args::try_parse_from(["wan", "ctl", "s", "set", "a", "b", "--loss", "0.1%", "--delay", "5ms"]).is_ok());
    }
}
