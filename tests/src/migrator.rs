//! A running `sterna migrator` beside a node, and the VMs that have come to it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use rustix::process::Signal;

use crate::daemon::Daemon;
use crate::node::Node;
use crate::server::sterna;
use crate::tool;
use crate::wan::command_inside;

/// A migrator. Dropping it kills its process and those of the VMs that have come to its host, by their ids.
#[derive(Debug)]
pub struct Migrator {
    data: PathBuf,
    namespace: Option<String>,
    process: Daemon,
}

impl Migrator {
    /// Runs one beside this node until it is ready.
    ///
    /// # Errors
    /// It does not come to be ready, with its log.
    pub fn start(node: &Node) -> Result<Self> {
        let process = Daemon::new("the migrator", node.directory().join("migrator.log"));
        let mut migrator = Self { data: node.data(), namespace: node.namespace().map(str::to_owned), process };
        migrator.run()?;
        Ok(migrator)
    }

    /// Runs it again until it is ready.
    ///
    /// # Errors
    /// It runs already, or does not come to be ready, with its log.
    pub fn run(&mut self) -> Result<()> {
        let mut command = match &self.namespace {
            Some(namespace) => command_inside(namespace, sterna()),
            None => Command::new(sterna()),
        };
        command.args(["--json", "migrator", "run"]).arg(&self.data).env("STERNA_LOG", "debug,h2=info,hyper=info");
        self.process.run(command)
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Daemon {
        &mut self.process
    }

    /// What it has logged so far, in all of its lives.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// The file of that.
    pub fn log_path(&self) -> PathBuf {
        self.process.log_path()
    }

    /// Whether a migration to here is under way, by what it has written down.
    ///
    /// # Errors
    /// That cannot be read.
    pub fn has_incoming(&self) -> Result<bool> {
        let incoming = fs::read_dir(self.data.join("migrator/incoming"))?;
        for record in incoming {
            // One that is being replaced is gone in between.
            let text = fs::read_to_string(record?.path()).unwrap_or_default();
            if !text.contains("\"is_over\":true") {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The directory of a VM that has come here.
    pub fn directory_of(&self, vm: &str) -> PathBuf {
        self.vms().join(vm)
    }

    fn vms(&self) -> PathBuf {
        self.data.join("migrator/run")
    }
}

impl Drop for Migrator {
    fn drop(&mut self) {
        // Nobody else comes, then.
        let _ = self.process.kill();
        let directories = fs::read_dir(self.vms()).into_iter().flatten().flatten();
        for process in directories.filter_map(|directory| process_in(&directory.path()).ok()) {
            // It may have ended.
            let _ = tool::signal(process, Signal::KILL);
        }
    }
}

/// The process of the QEMU in this directory, by the file that it has written.
///
/// # Errors
/// There is none, or its process has ended.
pub fn process_in(directory: &Path) -> Result<u32> {
    let file = directory.join(PID_FILE);
    let text = fs::read_to_string(&file).with_context(|| format!("no {}", file.display()))?;
    let process: u32 = text.trim().parse()?;
    // Its number may be another's by now.
    let command = fs::read(format!("/proc/{process}/cmdline"))?;
    let is_it = String::from_utf8_lossy(&command).contains(&directory.display().to_string());
    is_it.then_some(process).with_context(|| format!("process {process} is not the QEMU in {}", directory.display()))
}

/// Where a VM in a directory of its own says which process it is.
pub const PID_FILE: &str = "pid";
