//! A real machine: QEMU with a Linux kernel, disks over NBD, a console in a file, and an agent that runs commands.
//!
//! * [`image`]: what it boots from. * `builder`: of which parts it is made, and where it runs. * `agent`: how commands get in.
//! * [`qmp`]: QEMU's own view of the machine.

mod agent;
mod builder;
pub mod image;
pub mod qmp;

use std::fs;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use agent::Agent;
pub use agent::Output;
pub use builder::Builder;
use image::{Image, Root};
use qmp::Qmp;

use crate::migrator::process_in;
use crate::tool;

/// QEMU's control socket, for tests.
pub const CONTROL: &str = "control";

/// The same for a migrator.
pub const MIGRATORS: &str = "qmp";

/// How often the console is looked at.
const CONSOLE_LOOK: Duration = Duration::from_millis(10);

/// What a command may take that is not given another limit.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);

/// From `poweroff` to the end of QEMU.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(90);

/// How much of the console goes into a message.
const CONSOLE_TAIL_BYTES: usize = 4000;

/// A running machine. Dropping it ends it, by its process id.
pub struct Guest {
    running: Running,
    agent: Agent,
    qmp: Qmp,
    is_tiny: bool,
    disks: usize,
    jobs: u64,
}

/// A command that a guest runs in the background.
#[derive(Debug)]
pub struct Job {
    number: u64,
}

impl Guest {
    /// A machine without a root disk: up in two or three seconds, with busybox and /dev/vda, /dev/vdb…
    ///
    /// # Errors
    /// There is no image and none can be built.
    pub fn tiny() -> Result<Builder> {
        Ok(Builder::new(Image::of(Root::Debian)?, true))
    }

    /// Debian, on its root disk; the first disk has to hold a copy of the image's.
    pub fn debian(image: &Image) -> Builder {
        Builder::new(image.clone(), false)
    }

    /// Runs a shell command in the guest.
    ///
    /// # Errors
    /// It does not end in a minute, or the guest is gone.
    pub fn run(&mut self, command: &str) -> Result<Output> {
        self.run_within(command, COMMAND_LIMIT)
    }

    /// Runs a shell command that may take this long.
    ///
    /// # Errors
    /// It takes longer, or the guest is gone.
    pub fn run_within(&mut self, command: &str, limit: Duration) -> Result<Output> {
        self.agent.run(command, limit).with_context(|| self.running.story())
    }

    /// Runs a shell command, and expects it to succeed; what it printed.
    ///
    /// # Errors
    /// Those of [`Guest::run`], and a bad exit status.
    pub fn succeed(&mut self, command: &str) -> Result<String> {
        self.succeed_within(command, COMMAND_LIMIT)
    }

    /// Runs a shell command that may take this long, and expects it to succeed; what it printed.
    ///
    /// # Errors
    /// Those of [`Guest::run_within`], and a bad exit status.
    pub fn succeed_within(&mut self, command: &str, limit: Duration) -> Result<String> {
        let output = self.run_within(command, limit)?;
        ensure!(output.status == 0, "in the guest, `{command}`: {output}");
        Ok(output.text)
    }

    /// Starts a shell command in the background.
    ///
    /// # Errors
    /// The guest does not answer.
    pub fn start(&mut self, command: &str) -> Result<Job> {
        self.jobs += 1;
        let number = self.jobs;
        // The status appears when all of it has been written.
        let job = format!(
            "cat >/run/job{number} <<'END-OF-JOB'\n{command}\nEND-OF-JOB\n\
             (sh /run/job{number} >/run/job{number}.output 2>&1; echo $? >/run/job{number}.new; \
             mv /run/job{number}.new /run/job{number}.status) </dev/null >/dev/null 2>&1 &"
        );
        self.succeed(&job)?;
        Ok(Job { number })
    }

    /// Waits for the end of what was started.
    ///
    /// # Errors
    /// It does not end within this time, or the guest is gone.
    pub fn finish(&mut self, job: &Job, limit: Duration) -> Result<Output> {
        let number = job.number;
        let seconds = limit.as_secs();
        let wait = format!(
            "for i in $(seq {seconds}); do [ -e /run/job{number}.status ] && break; sleep 1; done; \
             cat /run/job{number}.output; exit $(cat /run/job{number}.status || echo 124)"
        );
        self.run_within(&wait, limit + COMMAND_LIMIT)
    }

    /// QEMU's control socket.
    pub fn qmp(&mut self) -> &mut Qmp {
        &mut self.qmp
    }

    /// What QEMU has counted for the disk of this number: reads, writes, flushes, failures.
    ///
    /// # Errors
    /// QEMU does not say.
    pub fn disk_statistics(&mut self, index: usize) -> Result<Value> {
        let all = self.qmp.execute("query-blockstats", json!({}))?;
        let name = format!("/machine/peripheral/device{index}/");
        let devices = all.as_array().context("statistics are a list")?;
        let device = devices.iter().find(|device| device["qdev"].as_str().is_some_and(|path| path.starts_with(&name)));
        Ok(device.with_context(|| format!("no disk {index}: {all}"))?["stats"].clone())
    }

    /// That no request to any disk has failed: not in QEMU's eyes, and not in the guest's.
    ///
    /// # Errors
    /// One has.
    pub fn expect_no_disk_error(&mut self) -> Result<()> {
        let errors = self.qmp.events("BLOCK_IO_ERROR");
        ensure!(errors.is_empty(), "QEMU has told the guest of errors: {errors:?}");
        let status = self.qmp.execute("query-status", json!({}))?;
        ensure!(status["status"] == "running", "the machine does not run: {status}");
        for index in 0..self.disks {
            let counted = self.disk_statistics(index)?;
            for kind in ["failed_rd_operations", "failed_wr_operations", "failed_flush_operations"] {
                ensure!(counted[kind] == 0, "disk {index}: {kind}: {counted}");
            }
        }
        let said = self.succeed("dmesg")?;
        let complaint = said.lines().find(|line| COMPLAINTS.iter().any(|complaint| line.contains(complaint)));
        ensure!(complaint.is_none(), "the guest's kernel complains: {complaint:?}");
        Ok(())
    }

    /// What the console has shown so far.
    pub fn console(&self) -> String {
        self.running.read("console")
    }

    /// Waits until the console has shown this, and looks every few milliseconds.
    ///
    /// # Errors
    /// It does not in this time, or the guest is gone.
    pub fn until_console_shows(&mut self, text: &str, limit: Duration) -> Result<()> {
        let begun = Instant::now();
        while !self.console().contains(text) {
            let has_ended = self.running.process.has_ended()?;
            let is_in_time = begun.elapsed() < limit && !has_ended;
            ensure!(is_in_time, "the console does not show '{text}'\n{}", self.running.story());
            thread::sleep(CONSOLE_LOOK);
        }
        Ok(())
    }

    /// QEMU's process id.
    pub fn id(&self) -> u32 {
        self.running.process.id()
    }

    /// Shuts the guest down as its own `poweroff` does, and waits for the end of QEMU. All that the guest has written
    /// has been flushed when it returns.
    ///
    /// # Errors
    /// It does not end, or otherwise than by having been shut down.
    pub fn shutdown(mut self) -> Result<()> {
        let poweroff = if self.is_tiny { "umount -a -r; sync; poweroff -f" } else { "systemctl poweroff" };
        // The tiny guest is gone before it could answer.
        let _ = self.agent.run(poweroff, COMMAND_LIMIT);
        let limit = SHUTDOWN_LIMIT;
        let has_ended = tool::until(limit, || self.running.process.has_ended())?;
        ensure!(has_ended, "the guest does not shut down\n{}", self.running.story());
        if let Process::Ours(child) = &mut self.running.process {
            let status = child.wait()?;
            ensure!(status.success(), "QEMU ended with {status}\n{}", self.running.story());
        }
        // The exit status after a panic is a good one too.
        let event = self.qmp.event("SHUTDOWN", COMMAND_LIMIT)?;
        let reason = &event["data"]["reason"];
        ensure!(reason == "guest-shutdown", "the guest ended by {reason}\n{}", self.running.story());
        Ok(())
    }

    /// Ends it where it stands, as a power cut would.
    ///
    /// # Errors
    /// The operating system does not do it.
    pub fn kill(mut self) -> Result<()> {
        self.running.process.kill()
    }

    /// Ends it where it stands, if it has not ended.
    ///
    /// # Errors
    /// The operating system does not do it.
    pub fn kill_if_it_runs(mut self) -> Result<()> {
        if self.running.process.has_ended()? { Ok(()) } else { self.kill() }
    }

    /// Whether its QEMU has ended.
    ///
    /// # Errors
    /// The operating system does not know.
    pub fn has_ended(&mut self) -> Result<bool> {
        self.running.process.has_ended()
    }

    /// The same guest in the QEMU that it has moved to, which runs in `directory`, and whose control socket somebody may be connected to
    /// already. The one that it has left has to have ended.
    ///
    /// # Errors
    /// It has not, or the other one does not let us in.
    pub fn follow(mut self, directory: &Path, control: Option<Qmp>) -> Result<Self> {
        let has_ended = tool::until(SHUTDOWN_LIMIT, || self.running.process.has_ended())?;
        ensure!(has_ended, "the QEMU that it has left still runs\n{}", self.running.story());
        let process = Process::Others(process_in(directory)?);
        let mut running = Running { process, directory: Directory::Given(directory.to_owned()) };
        let port = running.connect("agent", COMMAND_LIMIT)?;
        let qmp = match control {
            Some(qmp) => qmp,
            None => Qmp::greet(running.connect(CONTROL, COMMAND_LIMIT)?)?,
        };
        Ok(Self { agent: self.agent.moved_to(port), running, qmp, ..self })
    }
}

/// The QEMU process and its files.
struct Running {
    process: Process,
    directory: Directory,
}

/// A QEMU process, which ends with this.
enum Process {
    /// One that we have started.
    Ours(Child),
    /// One that a migrator has.
    Others(u32),
}

/// Where a QEMU's sockets and files are.
enum Directory {
    /// Gone with it.
    Own(TempDir),
    /// Somebody else's.
    Given(PathBuf),
}

impl Directory {
    fn path(&self) -> &Path {
        match self {
            Self::Own(directory) => directory.path(),
            Self::Given(directory) => directory,
        }
    }
}

impl Process {
    fn id(&self) -> u32 {
        match self {
            Self::Ours(child) => child.id(),
            Self::Others(id) => *id,
        }
    }

    fn has_ended(&mut self) -> Result<bool> {
        match self {
            Self::Ours(child) => Ok(child.try_wait()?.is_some()),
            Self::Others(id) => Ok(!Path::new(&format!("/proc/{id}/exe")).exists()),
        }
    }

    fn kill(&mut self) -> Result<()> {
        match self {
            Self::Ours(child) => {
                child.kill()?;
                child.wait()?;
                Ok(())
            }
            Self::Others(id) => tool::signal(*id, Signal::KILL),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended, and then it is another's number.
        if matches!(self.has_ended(), Ok(false)) {
            let _ = self.kill();
        }
    }
}

impl Running {
    /// QEMU's connections to these sockets, which it makes as soon as it starts.
    fn accept_both(
        &mut self,
        agent: &UnixListener,
        control: &UnixListener,
        limit: Duration,
    ) -> Result<(UnixStream, Qmp)> {
        let port = self.accept(agent, limit)?;
        Ok((port, Qmp::greet(self.accept(control, limit)?)?))
    }

    /// The same where QEMU listens.
    fn connect_both(&mut self, limit: Duration) -> Result<(UnixStream, Qmp)> {
        let port = self.connect("agent", limit)?;
        Ok((port, Qmp::greet(self.connect(CONTROL, limit)?)?))
    }

    fn accept(&mut self, listener: &UnixListener, limit: Duration) -> Result<UnixStream> {
        listener.set_nonblocking(true)?;
        let stream = self.until_some(limit, || Ok(listener.accept().ok().map(|(stream, _)| stream)))?;
        stream.set_nonblocking(false)?;
        Ok(stream)
    }

    fn connect(&mut self, name: &str, limit: Duration) -> Result<UnixStream> {
        let path = self.path(name);
        self.until_some(limit, || Ok(UnixStream::connect(&path).ok()))
    }

    fn until_some<T>(&mut self, limit: Duration, mut find: impl FnMut() -> Result<Option<T>>) -> Result<T> {
        let mut found = None;
        tool::until(limit, || {
            found = find()?;
            let has_ended = self.process.has_ended()?;
            ensure!(found.is_some() || !has_ended, "QEMU does not start");
            Ok(found.is_some())
        })?;
        found.context("QEMU does not connect")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read(self.path(name)).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// For messages: what QEMU has said, and the end of what is on the console.
    fn story(&self) -> String {
        let console = self.read("console");
        let mut from = console.len().saturating_sub(CONSOLE_TAIL_BYTES);
        while !console.is_char_boundary(from) {
            from += 1;
        }
        format!("--- QEMU\n{}\n--- console\n{}\n---", self.read("qemu"), &console[from..])
    }
}

/// What the kernel says of a disk that fails it, or of a file system that it finds damaged.
const COMPLAINTS: [&str; 6] = [
    "I/O error",
    "Buffer I/O",
    "EXT4-fs error",
    "EXT4-fs warning",
    "JBD2: Detected",
    "Remounting filesystem read-only",
];
