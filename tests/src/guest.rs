//! A real machine: QEMU with a Linux kernel, disks over NBD, a console in a file, and an agent that runs commands.
//!
//! * [`image`]: what it boots from. * `agent`: how commands get in. * [`qmp`]: QEMU's own view of the machine.

mod agent;
pub mod image;
pub mod qmp;

use std::fs::{self, File};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use agent::Agent;
pub use agent::Output;
use image::{Image, Root};
use qmp::Qmp;

use crate::disk_server::Disk;
use crate::tool;

/// From the start of QEMU to the agent's first word. Debian does it in fifteen seconds on two idle cores without KVM.
const BOOT_LIMIT: Duration = Duration::from_secs(150);

/// What a command may take that is not given another limit.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);

/// From `poweroff` to the end of QEMU.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(90);

/// How long QEMU waits for a server that is gone, unless the test says otherwise. Longer than any server takes to start.
const RECONNECT_DELAY_S: u64 = 100;

/// How much of the console goes into a message.
const CONSOLE_TAIL_BYTES: usize = 4000;

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
    disks: Vec<Disk>,
    reconnect_delay_s: u64,
}

impl Builder {
    /// One more disk: /dev/vda is the first, and the root of a Debian.
    pub fn disk(mut self, disk: &Disk) -> Self {
        self.disks.push(disk.clone());
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
        let directory = tempfile::tempdir()?;
        let at = |name: &str| directory.path().join(name);
        let (agent, control) = (UnixListener::bind(at("agent"))?, UnixListener::bind(at("qmp"))?);
        let child = Command::new("qemu-system-x86_64")
            .args(self.arguments(directory.path()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(at("qemu"))?)
            .spawn()
            .context("cannot start QEMU: run scripts/setup")?;
        let mut running = Running { child, directory };
        match running.connect(&agent, &control) {
            Ok((agent, qmp)) => {
                Ok(Guest { running, agent, qmp, is_tiny: self.is_tiny, disks: self.disks.len(), jobs: 0 })
            }
            Err(error) => Err(error.context(running.story())),
        }
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
        // QEMU connects to us, so that nothing that the guest says is lost before there is someone to hear it.
        say("-chardev", format!("socket,id=agent,path={}", at("agent")));
        say("-serial", "chardev:agent".to_owned());
        say("-chardev", format!("socket,id=qmp,path={}", at("qmp")));
        say("-mon", "chardev=qmp,mode=control".to_owned());
        say("-device", "virtio-rng-pci".to_owned());
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
        Ok(Self::builder(Image::of(Root::Debian)?, true))
    }

    /// Debian, on its root disk; the first disk has to hold a copy of the image's.
    pub fn debian(image: &Image) -> Builder {
        Self::builder(image.clone(), false)
    }

    fn builder(image: Image, is_tiny: bool) -> Builder {
        let memory_mib = if is_tiny { 192 } else { 512 };
        Builder { image, is_tiny, memory_mib, disks: Vec::new(), reconnect_delay_s: RECONNECT_DELAY_S }
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
    fn connect(&mut self, agent: &UnixListener, control: &UnixListener) -> Result<(Agent, Qmp)> {
        let port = self.accept(agent)?;
        let qmp = Qmp::greet(self.accept(control)?)?;
        Ok((Agent::greet(port, BOOT_LIMIT)?, qmp))
    }

    /// QEMU's connection to this socket, which it makes as soon as it starts.
    fn accept(&mut self, listener: &UnixListener) -> Result<UnixStream> {
        listener.set_nonblocking(true)?;
        let mut accepted = None;
        tool::until(BOOT_LIMIT, || {
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

fn node_name(index: usize) -> String {
    format!("disk{index}")
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
