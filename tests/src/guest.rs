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
use std::path::PathBuf;
use std::process::Child;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use agent::Agent;
pub use agent::Output;
pub use builder::Builder;
use image::{Image, Root};
use qmp::Qmp;

use crate::tool;

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
            let ended = self.running.child.try_wait()?;
            let is_in_time = begun.elapsed() < limit && ended.is_none();
            ensure!(is_in_time, "the console does not show '{text}'\n{}", self.running.story());
            thread::sleep(CONSOLE_LOOK);
        }
        Ok(())
    }

    /// QEMU's process id.
    pub fn id(&self) -> u32 {
        self.running.child.id()
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
        let Some(status) = tool::wait(&mut self.running.child, SHUTDOWN_LIMIT)? else {
            bail!("the guest does not shut down\n{}", self.running.story());
        };
        ensure!(status.success(), "QEMU ended with {status}\n{}", self.running.story());
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
        self.running.child.kill()?;
        self.running.child.wait()?;
        Ok(())
    }
}

/// The QEMU process and its files.
struct Running {
    child: Child,
    directory: TempDir,
}

impl Running {
    fn connect(&mut self, agent: &UnixListener, control: &UnixListener, limit: Duration) -> Result<(Agent, Qmp)> {
        let port = self.accept(agent, limit)?;
        let qmp = Qmp::greet(self.accept(control, limit)?)?;
        Ok((Agent::greet(port, limit)?, qmp))
    }

    /// QEMU's connection to this socket, which it makes as soon as it starts.
    fn accept(&mut self, listener: &UnixListener, limit: Duration) -> Result<UnixStream> {
        listener.set_nonblocking(true)?;
        let mut accepted = None;
        tool::until(limit, || {
            accepted = listener.accept().ok();
            let ended = self.child.try_wait()?;
            ensure!(accepted.is_some() || ended.is_none(), "QEMU does not start");
            Ok(accepted.is_some())
        })?;
        let (stream, _) = accepted.context("QEMU does not connect")?;
        stream.set_nonblocking(false)?;
        Ok(stream)
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

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
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
