//! Nodes of several sites, each a host of VMs with a migrator, and small guests there.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::cluster::{Cluster, Options};
use crate::guest::{Builder, Guest, MIGRATORS};
use crate::migrator::Migrator;
use crate::node::Node;
use crate::tool::Tool;
use crate::wan::Wan;

/// Makes the identity of an administrator of this role, in a file of this directory.
///
/// # Errors
/// The node refuses it.
pub fn administrator(node: &Node, directory: &Path, role: &str) -> Result<PathBuf> {
    let file = directory.join(format!("{role}.pem"));
    node.sterna(["cluster", "admin", "create", role, "--role", role, "--out"]).args([&file]).succeed()?;
    Ok(file)
}

/// Hosts. Dropping them ends all that runs there.
pub struct Hosts {
    /// Beside the nodes, in their order. First, since VMs end with theirs.
    pub migrators: Vec<Migrator>,
    /// The nodes, of which the first is where guests are booted.
    pub cluster: Cluster,
    /// The identity of an operator, who issues migration tokens.
    pub operator: PathBuf,
    directory: PathBuf,
}

impl Hosts {
    /// Those of a cluster of one node at each of these sites, in the network that is given.
    ///
    /// # Errors
    /// Something does not come to be ready.
    pub fn start(directory: &Path, sites: &[&str], wan: Option<Arc<Wan>>) -> Result<Self> {
        Self::start_with(directory, sites, wan, Vec::new())
    }

    /// The same, with these lines in all nodes' settings, each with its section.
    ///
    /// # Errors
    /// As [`Hosts::start`].
    pub fn start_with(
        directory: &Path,
        sites: &[&str],
        wan: Option<Arc<Wan>>,
        settings: Vec<(&'static str, String)>,
    ) -> Result<Self> {
        let options = Options { migrators: true, wan, settings, ..Options::default() };
        let cluster = Cluster::start_as(directory, sites, options)?;
        let migrators = cluster.nodes.iter().map(Migrator::start).collect::<Result<_>>()?;
        let operator = administrator(&cluster.nodes[0], directory, "operator")?;
        Ok(Self { migrators, cluster, operator, directory: directory.to_owned() })
    }

    /// `sterna vm migrate`, at the first host, of a VM to the site `to`, by the word of an operator.
    pub fn migrate(&self, vm: &str, to: &str) -> Tool {
        self.migrate_from(0, vm, to)
    }

    /// The same with a VM of another host.
    pub fn migrate_from(&self, host: usize, vm: &str, to: &str) -> Tool {
        let migrate = ["--json", "vm", "migrate", vm, "--to", to, "--identity"];
        self.cluster.nodes[host].sterna(migrate).args([&self.operator])
    }

    /// The same, to its end: the report.
    ///
    /// # Errors
    /// It has not moved, with what the migrators have logged.
    pub fn moved(&self, vm: &str, to: &str) -> Result<Value> {
        let ended = self.migrate(vm, to).succeed().with_context(|| self.logs())?;
        serde_json::from_str(ended.stdout.trim()).with_context(|| format!("not JSON: {ended}"))
    }

    /// A small guest at the first host that is called `vm`, with new volumes of these names and sizes, each with a file system, and known
    /// to the migrator.
    ///
    /// # Errors
    /// It does not boot, or is refused.
    pub fn boot(&self, vm: &str, disks: &[(&str, u64)]) -> Result<Guest> {
        self.boot_as(Guest::tiny()?, vm, disks)
    }

    /// The same with another guest.
    ///
    /// # Errors
    /// As [`Hosts::boot`].
    pub fn boot_as(&self, mut guest: Builder, vm: &str, disks: &[(&str, u64)]) -> Result<Guest> {
        let (home, node) = (self.home(vm), &self.cluster.nodes[0]);
        fs::create_dir_all(&home)?;
        guest = guest.in_directory(&home);
        for &(name, size_bytes) in disks {
            let disk = node.create(name, size_bytes)?;
            disk.format()?;
            guest = guest.disk(&disk);
        }
        let guest = guest.boot()?;
        let mut add = ["vm", "add", vm, "--qmp"].map(str::to_owned).to_vec();
        add.push(home.join(MIGRATORS).display().to_string());
        for (disk, _) in disks {
            add.extend(["--volume".to_owned(), (*disk).to_owned()]);
        }
        node.sterna(add).succeed()?;
        Ok(guest)
    }

    /// Where the files of a guest are before it has moved.
    pub fn home(&self, vm: &str) -> PathBuf {
        self.directory.join(vm)
    }

    /// What a host's migrator says of a VM; nothing where it knows no such VM.
    ///
    /// # Errors
    /// It does not answer.
    pub fn vm(&self, host: usize, vm: &str) -> Result<Option<Value>> {
        let known = self.cluster.nodes[host].json(["vm", "list"])?;
        Ok(known.into_iter().find(|known| known["name"] == vm))
    }

    /// What all of them have logged.
    pub fn logs(&self) -> String {
        self.migrators.iter().map(Migrator::log).collect::<Vec<_>>().join("\n---\n")
    }
}
