//! `sterna vm`: the VMs of a host, and their migration.

use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;
use sterna_migrator::token::MAX_WINDOW;
use sterna_types::{ByteRate, NodeName, SiteName, VmName, VolumeName};

use super::cluster::{InvalidLifetime, lifetime_up_to};

#[derive(Debug, Subcommand)]
pub(crate) enum VmCommand {
    /// Make a VM known to its host's migrator.
    Add(Add),
    /// Have the migrator know nothing of a VM any more; it runs on.
    Remove(OneVm),
    /// List the VMs that the migrator knows.
    List,
    /// Show a VM, and how its last migration has ended.
    Show(OneVm),
    /// Move a VM to another site, with its volumes, while it runs.
    ///
    /// Exit code 1 says that it does not run there. It takes a migration token: that of --token, or else one that is issued for this by the
    /// operator of --identity.
    Migrate(Migrate),
    /// Issue a migration token: whoever has it can move the one VM once, from where it is to the site that is named.
    ///
    /// It is printed, for `sterna vm migrate --token FILE`, and signed by the operator of --identity.
    Token(Token),
    /// Give up a VM's migration, as far as that is open still, and wait for its end.
    Cancel(OneVm),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Add {
    /// What the VM is to be called; the name is given once in a cluster.
    pub(crate) name: VmName,

    /// The control socket of its QEMU (-qmp unix:PATH,server=on,wait=off).
    #[arg(long, value_name = "PATH")]
    pub(crate) qmp: PathBuf,

    /// A volume that is one of its disks; once for each of them.
    #[arg(long = "volume", value_name = "VOLUME", required = true)]
    pub(crate) volumes: Vec<VolumeName>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct OneVm {
    /// The VM.
    pub(crate) name: VmName,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Migrate {
    /// The VM.
    pub(crate) name: VmName,

    /// The site to go on at.
    #[arg(long, value_name = "SITE")]
    pub(crate) to: SiteName,

    /// The node there; without it whichever has a migrator beside it.
    #[arg(long)]
    pub(crate) node: Option<NodeName>,

    /// Only say what stands against it, and what it would take: bytes, time, pause. The link is measured for two seconds. That takes no
    /// token.
    #[arg(long, conflicts_with_all = ["token", "rate"])]
    pub(crate) dry_run: bool,

    /// Stop the VM before any of its memory is sent: each page travels once, and it stands for all of that time.
    #[arg(long)]
    pub(crate) offline: bool,

    /// The migration token that allows it (sterna vm token); without it the operator of --identity issues one.
    #[arg(long, value_name = "FILE")]
    pub(crate) token: Option<PathBuf>,

    /// How fast memory is sent at most while the VM runs, such as 400Mbit; without it as the token says, or as fast as the link is.
    #[arg(long, value_name = "RATE")]
    pub(crate) rate: Option<ByteRate>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Token {
    /// The VM.
    pub(crate) name: VmName,

    /// The site that it may go to.
    #[arg(long, value_name = "SITE")]
    pub(crate) to: SiteName,

    /// The site that it may leave; without it where its volumes are.
    #[arg(long, value_name = "SITE")]
    pub(crate) from: Option<SiteName>,

    /// A volume that is one of its disks, once for each of them; without it those that its host's migrator knows.
    #[arg(long = "volume", value_name = "VOLUME")]
    pub(crate) volumes: Vec<VolumeName>,

    /// How long it is valid, such as 1h: by then it has to have begun to move.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = window)]
    pub(crate) expires: Duration,

    /// From when it is valid, counted from now, such as 2h; without it at once.
    #[arg(long, value_name = "TIME", value_parser = window)]
    pub(crate) starts_in: Option<Duration>,

    /// How fast memory may be sent at most while the VM runs, such as 400Mbit; without it as fast as the link is.
    #[arg(long, value_name = "RATE")]
    pub(crate) rate: Option<ByteRate>,
}

fn window(text: &str) -> Result<Duration, InvalidLifetime> {
    lifetime_up_to(MAX_WINDOW, text)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Args, Command};

    fn parsed(line: &[&str]) -> Result<VmCommand, clap::Error> {
        let args = Args::try_parse_from(["sterna", "vm"].iter().chain(line))?;
        match args.command {
            Command::Vm { command } => Ok(command),
            other => panic!("{other:?} is about no VM"),
        }
    }

    #[test]
    fn a_vm_has_a_control_socket_and_at_least_one_volume() {
        let line = ["add", "web-1", "--qmp", "qmp.sock", "--volume", "web-1", "--volume", "web-1-data"];
        let Ok(VmCommand::Add(add)) = parsed(&line) else { panic!("{line:?} is refused") };
        assert_eq!((add.name.as_str(), add.qmp), ("web-1", PathBuf::from("qmp.sock")));
        assert_eq!(add.volumes.iter().map(VolumeName::as_str).collect::<Vec<_>>(), ["web-1", "web-1-data"]);
        for fewer in
            [&line[..4], &["add", "web-1", "--volume", "web-1"], &["add", "Web", "--qmp", "q", "--volume", "w"]]
        {
            assert!(parsed(fewer).is_err(), "{fewer:?}");
        }
    }

    #[test]
    fn a_migration_goes_to_a_site_and_perhaps_to_one_of_its_nodes() {
        let Ok(VmCommand::Migrate(migrate)) = parsed(&["migrate", "web-1", "--to", "chi", "--dry-run"]) else {
            panic!("a migration without a node is refused")
        };
        assert!(migrate.to.as_str() == "chi" && migrate.node.is_none() && migrate.dry_run && !migrate.offline);
        let Ok(VmCommand::Migrate(migrate)) = parsed(&["migrate", "web-1", "--to", "chi", "--node", "chi-2"]) else {
            panic!("a migration to a node is refused")
        };
        assert!(migrate.node.is_some_and(|node| node.as_str() == "chi-2") && !migrate.dry_run);
        assert!(parsed(&["migrate", "web-1"]).is_err());
        let line = ["migrate", "web-1", "--to", "chi", "--token", "t", "--rate", "400Mbit"];
        let Ok(VmCommand::Migrate(migrate)) = parsed(&line) else { panic!("{line:?} is refused") };
        assert_eq!((migrate.token, migrate.rate), (Some(PathBuf::from("t")), Some(ByteRate(50_000_000))));
        assert!(parsed(&["migrate", "web-1", "--to", "chi", "--dry-run", "--token", "t"]).is_err());
    }

    #[test]
    fn a_token_lasts_an_hour_unless_it_is_said_otherwise() {
        let Ok(VmCommand::Token(token)) = parsed(&["token", "web-1", "--to", "chi"]) else { panic!("it is refused") };
        assert_eq!((token.expires, token.starts_in), (Duration::from_secs(3600), None));
        assert!(token.from.is_none() && token.volumes.is_empty() && token.rate.is_none());
        let line = ["token", "web-1", "--to", "chi", "--from", "ams", "--expires", "2d", "--starts-in", "8h"];
        let Ok(VmCommand::Token(token)) = parsed(&line) else { panic!("{line:?} is refused") };
        assert_eq!(token.expires, Duration::from_secs(2 * 86_400));
        assert_eq!(token.starts_in, Some(Duration::from_secs(8 * 3600)));
        for wrong in ["31d", "0s", "1", "week"] {
            assert!(parsed(&["token", "web-1", "--to", "chi", "--expires", wrong]).is_err(), "{wrong}");
        }
    }
}
