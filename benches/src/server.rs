//! The servers that are measured, as processes, and what they cost.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::usage::Usage;

/// From the start of a server until it takes connections.
const START_LIMIT: Duration = Duration::from_secs(20);

/// A running server of one disk, which is its default export.
#[derive(Debug)]
pub(crate) struct Server {
    /// The name in the report.
    pub(crate) name: &'static str,
    child: Child,
    socket: PathBuf,
}

impl Server {
    /// Our server with a disk in memory.
    pub(crate) fn sterna_memory(directory: &Path, size: &str) -> Result<Self> {
        let program = std::env::current_exe()?.with_file_name("sterna");
        ensure!(program.exists(), "{} is not built: run scripts/bench", program.display());
        let socket = directory.join("sterna");
        let mut command = Command::new(program);
        command.args(["nbd", "serve", "--memory", size, "--socket"]).arg(&socket).env("STERNA_LOG", "warn");
        Self::start("sterna", command, socket)
    }

    /// nbdkit with a disk in memory.
    pub(crate) fn nbdkit_memory(directory: &Path, size: &str) -> Result<Self> {
        let socket = directory.join("nbdkit");
        let mut command = Command::new("nbdkit");
        command.args(["--foreground", "--unix"]).arg(&socket).args(["memory", size]);
        Self::start("nbdkit", command, socket)
    }

    fn start(name: &'static str, mut command: Command, socket: PathBuf) -> Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.spawn().with_context(|| format!("cannot start {name}: run scripts/setup"))?;
        let mut server = Self { name, child, socket };
        let started = Instant::now();
        while std::os::unix::net::UnixStream::connect(&server.socket).is_err() {
            if let Some(status) = server.child.try_wait()? {
                bail!("{name} ended before it served: {status}");
            }
            ensure!(started.elapsed() < START_LIMIT, "{name} does not serve after {START_LIMIT:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(server)
    }

    /// Where it listens.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// The URI of its disk.
    pub(crate) fn uri(&self) -> String {
        format!("nbd+unix:///?socket={}", self.socket.display())
    }

    /// What it has used so far.
    pub(crate) fn usage(&self) -> Result<Usage> {
        Usage::of(self.child.id())
    }

    /// Counts its system calls while `work` runs, by `perf`; `None` where there is no perf, or it may not count.
    pub(crate) fn count_system_calls<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<(Option<u64>, T)> {
        let mut command = Command::new("perf");
        command.args(["stat", "--no-big-num", "-x", ",", "-e", "raw_syscalls:sys_enter", "-p"]);
        command.arg(self.child.id().to_string()).stdin(Stdio::null()).stderr(Stdio::piped());
        let Ok(perf) = command.spawn() else { return Ok((None, work()?)) };
        // perf says nothing when it has begun; what it misses at the start is small beside seconds of load.
        std::thread::sleep(Duration::from_millis(200));
        let done = work();
        let id = rustix::process::Pid::from_child(&perf);
        let _ = rustix::process::kill_process(id, rustix::process::Signal::INT);
        let output = perf.wait_with_output()?;
        let text = String::from_utf8_lossy(&output.stderr);
        let count = text.lines().find_map(|line| line.split(',').next()?.parse().ok());
        Ok((count, done?))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
