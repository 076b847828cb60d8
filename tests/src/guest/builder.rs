//! What a guest is made of, and how QEMU is told.

use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::agent::Agent;
use super::image::Image;
use super::qmp::Qmp;
use super::{CONTROL, Directory, Guest, MIGRATORS, Process, Running};
use crate::disk_server::Disk;
use crate::migrator::PID_FILE;
use crate::wan::command_inside;

/// What to boot, and on which disks.
///
/// ```no_run
/// # use sterna_tests::{disk_server::DiskServer, guest::Guest, server::Server};
/// let server = Server::builder().memory("scratch", "64M").start()?;
/// let mut guest = Guest::tiny()?.disk(&server.disk("scratch")).boot()?;
/// guest.succeed("mkfs.ext2 /dev/vda && mount /dev/vda /mnt")?;
/// guest.shutdown()?;
/// # anyhow::Ok(())
/// ```
pub struct Builder {
    image: Image,
    is_tiny: bool,
    memory_mib: u64,
    disks: Vec<Drive>,
    reconnect_delay_s: u64,
    namespace: Option<String>,
    directory: Option<PathBuf>,
    tap: Option<String>,
    boot_limit: Duration,
}

/// Where a disk is served.
#[derive(Clone, Debug)]
enum Drive {
    /// On this machine.
    Here(Disk),
    /// At an address that is reached from where QEMU runs: the export without a name.
    At(SocketAddr),
    /// A raw file.
    Raw(PathBuf),
}

impl Builder {
    pub(super) fn new(image: Image, is_tiny: bool) -> Self {
        Self {
            image,
            is_tiny,
            memory_mib: if is_tiny { 192 } else { 512 },
            disks: Vec::new(),
            reconnect_delay_s: RECONNECT_DELAY_S,
            namespace: None,
            directory: None,
            tap: None,
            boot_limit: BOOT_LIMIT,
        }
    }

    /// One more disk: /dev/vda is the first, and the root of a Debian.
    pub fn disk(mut self, disk: &Disk) -> Self {
        self.disks.push(Drive::Here(disk.clone()));
        self
    }

    /// One more disk, which QEMU reaches over the network.
    pub fn disk_at(mut self, address: SocketAddr) -> Self {
        self.disks.push(Drive::At(address));
        self
    }

    /// One more disk, in a raw file.
    pub fn raw(mut self, file: &Path) -> Self {
        self.disks.push(Drive::Raw(file.to_owned()));
        self
    }

    /// Has a network card, on this tap where it runs.
    pub fn network(mut self, tap: &str) -> Self {
        self.tap = Some(tap.to_owned());
        self
    }

    /// Runs it in a network namespace.
    pub fn inside(mut self, namespace: &str) -> Self {
        self.namespace = Some(namespace.to_owned());
        self
    }

    /// Has its sockets and files in this directory, as a VM that is to move: others connect to it.
    pub fn in_directory(mut self, directory: &Path) -> Self {
        self.directory = Some(directory.to_owned());
        self
    }

    /// How long it may take to boot, where that is not as usual.
    pub fn boot_limit(mut self, limit: Duration) -> Self {
        self.boot_limit = limit;
        self
    }

    /// For how many seconds QEMU holds requests back while a disk's server is gone, before they fail.
    pub fn reconnect_delay_s(mut self, seconds: u64) -> Self {
        self.reconnect_delay_s = seconds;
        self
    }

    /// How much memory the machine has, in MiB.
    pub fn memory_mib(mut self, mib: u64) -> Self {
        self.memory_mib = mib;
        self
    }

    /// Starts the machine, and waits until its agent takes commands.
    ///
    /// # Errors
    /// It does not come to that, with the end of what its console shows.
    pub fn boot(self) -> Result<Guest> {
        let directory = match &self.directory {
            Some(directory) => Directory::Given(directory.clone()),
            None => Directory::Own(tempfile::tempdir()?),
        };
        let at = |name: &str| directory.path().join(name);
        let sockets = match directory {
            Directory::Own(_) => Some((UnixListener::bind(at("agent"))?, UnixListener::bind(at(CONTROL))?)),
            Directory::Given(_) => None,
        };
        let child = self.start(directory.path(), &[])?;
        let mut running = Running { process: Process::Ours(child), directory };
        let connected = match sockets {
            Some((agent, control)) => running.accept_both(&agent, &control, self.boot_limit),
            None => running.connect_both(self.boot_limit),
        };
        let greeted = connected.and_then(|(port, qmp)| Ok((Agent::greet(port, self.boot_limit)?, qmp)));
        match greeted {
            Ok((agent, qmp)) => {
                Ok(Guest { running, agent, qmp, is_tiny: self.is_tiny, disks: self.disks.len(), jobs: 0 })
            }
            Err(error) => Err(error.context(running.story())),
        }
    }

    /// Starts a machine in its directory that waits for a migration to come in, and runs then; its process, which ends with what is returned, and its
    /// control socket.
    ///
    /// # Errors
    /// It has no directory, or does not start.
    pub fn await_migration(self) -> Result<(impl Sized, Qmp)> {
        let directory = self.directory.clone().context("a machine that is waited for has a directory of its own")?;
        let child = self.start(&directory, &["-incoming", "defer"])?;
        let mut running = Running { process: Process::Ours(child), directory: Directory::Given(directory) };
        let qmp = Qmp::greet(running.connect(CONTROL, self.boot_limit)?)?;
        Ok((running, qmp))
    }

    fn start(&self, directory: &Path, more: &[&str]) -> Result<Child> {
        let mut command = match &self.namespace {
            Some(namespace) => command_inside(namespace, PROGRAM),
            None => Command::new(PROGRAM),
        };
        let started = command
            .args(self.arguments(directory))
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(directory.join("qemu"))?)
            .spawn();
        started.context("cannot start QEMU: run scripts/setup")
    }

    fn arguments(&self, directory: &Path) -> Vec<String> {
        let at = |name: &str| directory.join(name).display().to_string();
        let initrd = if self.is_tiny { self.image.tiny() } else { self.image.initrd() };
        let root = if self.is_tiny { "" } else { "root=/dev/vda rw fsck.mode=skip" };
        let processor = if self.image.accelerator == "kvm" { "host" } else { "max" };
        let mut arguments: Vec<String> =
            ["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-machine", "q35", "-smp", "2"]
                .map(str::to_owned)
                .into();
        let mut say = |option: &str, value: String| arguments.extend([option.to_owned(), value]);
        say("-accel", self.image.accelerator.clone());
        say("-cpu", processor.to_owned());
        say("-m", self.memory_mib.to_string());
        say("-kernel", self.image.kernel().display().to_string());
        say("-initrd", initrd.display().to_string());
        say("-append", format!("console=ttyS0 panic=-1 quiet {root}"));
        say("-chardev", format!("file,id=console,path={}", at("console")));
        say("-serial", "chardev:console".to_owned());
        // QEMU connects to us, so that nothing that the guest says is lost before there is someone to hear it; or we are quicker than the guest.
        let serve = if self.directory.is_some() { ",server=on,wait=off" } else { "" };
        say("-chardev", format!("socket,id=agent,path={}{serve}", at("agent")));
        say("-serial", "chardev:agent".to_owned());
        say("-chardev", format!("socket,id=control,path={}{serve}", at(CONTROL)));
        say("-mon", "chardev=control,mode=control".to_owned());
        if self.directory.is_some() {
            // QEMU serves one client at a time: this one is for the migrator.
            say("-qmp", format!("unix:{},server=on,wait=off", at(MIGRATORS)));
            say("-pidfile", at(PID_FILE));
        }
        say("-device", "virtio-rng-pci".to_owned());
        if let Some(tap) = &self.tap {
            say("-netdev", format!("tap,id=net,ifname={tap},script=no,downscript=no"));
            say("-device", "virtio-net-pci,netdev=net,mac=52:54:00:99:00:02".to_owned());
        }
        for (index, disk) in self.disks.iter().enumerate() {
            say("-blockdev", disk.block_device(&node_name(index), self.reconnect_delay_s).to_string());
            let device = json!({
                "driver": "virtio-blk-pci",
                "id": format!("device{index}"),
                "drive": node_name(index),
                // An error stops the machine, and so does not get lost in it.
                "werror": "stop",
                "rerror": "stop",
            });
            say("-device", device.to_string());
        }
        arguments
    }
}

impl Drive {
    /// How QEMU's `-blockdev` finds it.
    fn block_device(&self, node_name: &str, reconnect_delay_s: u64) -> Value {
        match self {
            Self::Here(disk) => disk.block_device(node_name, reconnect_delay_s),
            Self::Raw(file) => json!({
                "driver": "file",
                "node-name": node_name,
                "filename": file,
                "discard": "unmap",
                "detect-zeroes": "unmap",
            }),
            Self::At(address) => json!({
                "driver": "nbd",
                "node-name": node_name,
                "server": { "type": "inet", "host": address.ip().to_string(), "port": address.port().to_string() },
                "export": "",
                "reconnect-delay": reconnect_delay_s,
                "discard": "unmap",
                "detect-zeroes": "unmap",
            }),
        }
    }
}

fn node_name(index: usize) -> String {
    format!("disk{index}")
}

const PROGRAM: &str = "qemu-system-x86_64";

/// From the start of QEMU to the agent's first word. Debian does it in fifteen seconds on two idle cores without KVM.
const BOOT_LIMIT: Duration = Duration::from_secs(150);

/// How long QEMU waits for a server that is gone, unless the test says otherwise. Longer than any server takes to start.
const RECONNECT_DELAY_S: u64 = 100;
