//! The servers that are measured, as processes, and what they cost.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use sterna_tests::disk_server::Disk;
use sterna_tests::node::Node;
use sterna_tests::server::sterna;

use crate::program::Program;
use crate::usage::{self, Usage};

/// From the last write until all of it is sealed. A seal begins after five seconds at the latest.
const SETTLE_LIMIT: Duration = Duration::from_secs(300);

/// How often a node is asked whether it is done; seldom, since the question costs it something too.
const SETTLE_INTERVAL: Duration = Duration::from_millis(250);

/// A running server of one disk.
pub(crate) struct Server {
    /// The name in the report.
    pub(crate) name: &'static str,
    /// Where its files are.
    directory: PathBuf,
    disk: Disk,
    process: Process,
}

enum Process {
    Program(Box<Program>),
    Node(Node),
}

impl Server {
    /// Our server with a disk in memory.
    pub(crate) fn sterna_memory(directory: &Path, size: &str) -> Result<Self> {
        let mut command = Command::new(sterna());
        command.args(["nbd", "serve", "--memory", size, "--socket"]).arg(directory.join(STERNA));
        command.env("STERNA_LOG", "warn");
        Self::program(STERNA, command, directory, &directory.join(STERNA))
    }

    /// nbdkit with a disk in memory.
    pub(crate) fn nbdkit_memory(directory: &Path, size: &str) -> Result<Self> {
        let socket = directory.join("nbdkit");
        let mut command = Command::new("nbdkit");
        command.args(["--foreground", "--unix"]).arg(&socket).args(["memory", size]);
        Self::program("nbdkit", command, directory, &socket)
    }

    /// A node of ours, with the settings that it has by itself, and one new volume.
    pub(crate) fn sterna_volume(directory: &Path, size_bytes: u64) -> Result<Self> {
        let mut node = Node::init(directory)?.log_level("warn");
        node.run()?;
        let disk = node.create("disk", size_bytes)?;
        Ok(Self { name: STERNA, directory: directory.to_owned(), disk, process: Process::Node(node) })
    }

    /// nbdkit with a file.
    pub(crate) fn nbdkit_file(directory: &Path, file: &Path) -> Result<Self> {
        let socket = directory.join("nbdkit");
        let mut command = Command::new("nbdkit");
        command.args(["--foreground", "--unix"]).arg(&socket).arg("file").arg(file);
        Self::program("nbdkit file", command, directory, &socket)
    }

    /// qemu-nbd with a file, as it is mostly run: through the page cache, with threads.
    pub(crate) fn qemu_nbd(directory: &Path, file: &Path) -> Result<Self> {
        let socket = directory.join("qemu-nbd");
        let mut command = Command::new("qemu-nbd");
        command.args(["--persistent", "--shared=8", "--format=raw", "--cache=writeback", "--aio=threads"]);
        command.arg("--socket").arg(&socket).arg(file);
        Self::program("qemu-nbd", command, directory, &socket)
    }

    fn program(name: &'static str, command: Command, directory: &Path, socket: &Path) -> Result<Self> {
        let process = Process::Program(Box::new(Program::start(command, socket)?));
        Ok(Self { name, directory: directory.to_owned(), disk: Disk::new(socket, ""), process })
    }

    /// Its disk.
    pub(crate) fn disk(&self) -> &Disk {
        &self.disk
    }

    /// The node, where it is one of ours.
    pub(crate) fn node(&self) -> Option<&Node> {
        if let Process::Node(node) = &self.process { Some(node) } else { None }
    }

    /// What it has used so far.
    pub(crate) fn usage(&self) -> Result<Usage> {
        Usage::of(self.id()?)
    }

    /// What anyone has written so far to the device that its files are on.
    pub(crate) fn device_written_bytes(&self) -> Result<Option<f64>> {
        usage::device_written_bytes(&self.directory)
    }

    /// The most memory that it has had counts from now on.
    pub(crate) fn forget_peak(&self) -> Result<()> {
        Usage::forget_peak(self.id()?)
    }

    /// Returns when all that was written is where it stays: sealed, and on the disk.
    pub(crate) fn settle(&self) -> Result<()> {
        if let Some(node) = self.node() {
            let started = Instant::now();
            while !is_sealed(node)? {
                ensure!(started.elapsed() < SETTLE_LIMIT, "not all is sealed after {SETTLE_LIMIT:?}: {}", node.log());
                std::thread::sleep(SETTLE_INTERVAL);
            }
        }
        rustix::fs::sync();
        Ok(())
    }

    /// Ends it in good order, does something, and starts it again.
    pub(crate) fn restart(&mut self, meanwhile: impl FnOnce() -> Result<()>) -> Result<()> {
        match &mut self.process {
            Process::Program(program) => program.end()?,
            Process::Node(node) => node.terminate()?,
        }
        meanwhile()?;
        match &mut self.process {
            Process::Program(program) => program.run(),
            Process::Node(node) => node.run(),
        }
    }

    /// Counts its system calls while `work` runs, by `perf`; `None` where there is no perf, or it may not count.
    pub(crate) fn count_system_calls<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<(Option<u64>, T)> {
        let mut command = Command::new("perf");
        command.args(["stat", "--no-big-num", "-x", ",", "-e", "raw_syscalls:sys_enter", "-p"]);
        command.arg(self.id()?.to_string()).stdin(Stdio::null()).stderr(Stdio::piped());
        let Ok(perf) = command.spawn() else { return Ok((None, work()?)) };
        // perf says nothing when it has begun; what it misses at the start is small beside seconds of load.
        std::thread::sleep(Duration::from_millis(200));
        let done = work();
        let _ = kill_process(Pid::from_child(&perf), Signal::INT);
        let output = perf.wait_with_output()?;
        let text = String::from_utf8_lossy(&output.stderr);
        let count = text.lines().find_map(|line| line.split(',').next()?.parse().ok());
        Ok((count, done?))
    }

    fn id(&self) -> Result<u32> {
        match &self.process {
            Process::Program(program) => program.id(),
            Process::Node(node) => node.id(),
        }
    }
}

/// Whether none of the node's volumes has anything in its journal.
fn is_sealed(node: &Node) -> Result<bool> {
    for volume in node.volumes()? {
        let open = &node.value(["volume", "show", &volume])?["open"];
        ensure!(open["seal_failure"].is_null(), "{volume} cannot be sealed: {}", open["seal_failure"]);
        if !open.is_null() && open["unsealed_bytes"] != 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

const STERNA: &str = "sterna";
