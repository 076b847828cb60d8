//! `sterna vm`: the VMs of a host, and their migration.

use std::path::PathBuf;

use clap::Subcommand;
use sterna_types::{NodeName, SiteName, VmName, VolumeName};

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
    /// Exit code 1 says that it does not run there.
    Migrate(Migrate),
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

    /// Only say what stands against it, and what it would take: bytes, time, pause. The link is measured for two seconds.
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// Stop the VM before any of its memory is sent: each page travels once, and it stands for all of that time.
    #[arg(long)]
    pub(crate) offline: bool,
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
    }
}
