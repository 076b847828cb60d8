//! Other people's programs, and our own: run with a time limit, their output kept.
//!
//! A program that is missing is a failure and never a reason to skip a test: a test that was not run proves nothing.

use std::ffi::OsStr;
use std::fmt;
use std::io::{ErrorKind, Read};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

/// No tool that a test runs needs longer on any machine that can run the tests at all.
const TIME_LIMIT: Duration = Duration::from_secs(120);

/// How often a process is asked whether it has ended.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// A command to run.
///
/// ```no_run
/// # use sterna_tests::tool::Tool;
/// let size = Tool::new("nbdinfo").args(["--size", "nbd://localhost"]).succeed()?.stdout;
/// # anyhow::Ok(())
/// ```
pub struct Tool {
    command: Command,
    what: String,
    time_limit: Duration,
}

/// How a tool ended.
#[derive(Debug)]
pub struct Ended {
    /// The command line, for messages.
    pub what: String,
    /// How it exited.
    pub status: ExitStatus,
    /// All of its standard output.
    pub stdout: String,
    /// All of its standard error output.
    pub stderr: String,
}

impl Tool {
    /// The program of this name, or at this path.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        let mut command = Command::new(&program);
        // Messages are compared in one language, and no build of ours makes other people's programs print more.
        command.env("LC_ALL", "C").env_remove("RUST_LOG").env_remove("STERNA_DIR").stdin(Stdio::null());
        Self { command, what: program.as_ref().to_string_lossy().into_owned(), time_limit: TIME_LIMIT }
    }

    /// Appends arguments.
    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        for arg in args {
            self.what = format!("{} {}", self.what, arg.as_ref().to_string_lossy());
            self.command.arg(arg);
        }
        self
    }

    /// Sets a variable of the environment.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Lets it run this long, where it needs longer than tools do.
    pub fn time_limit(mut self, time_limit: Duration) -> Self {
        self.time_limit = time_limit;
        self
    }

    /// Runs it to its end, whatever that is.
    ///
    /// # Errors
    /// It cannot be started, or runs too long; then it is killed.
    pub fn run(self) -> Result<Ended> {
        self.spawn()?.wait()
    }

    /// Runs it, and expects it to succeed.
    ///
    /// # Errors
    /// Those of [`Tool::run`], and a bad exit status, with all that the tool printed.
    pub fn succeed(self) -> Result<Ended> {
        let ended = self.run()?;
        ensure!(ended.status.success(), "a tool failed: {ended}");
        Ok(ended)
    }

    /// Starts it.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn(mut self) -> Result<Running> {
        let spawned = self.command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = spawned.map_err(|error| match error.kind() {
            ErrorKind::NotFound => anyhow::anyhow!("`{}` is not there: run scripts/setup", self.what),
            _ => anyhow::anyhow!("cannot start `{}`: {error}", self.what),
        })?;
        let stdout = child.stdout.take().map(collect);
        let stderr = child.stderr.take().map(collect);
        Ok(Running { child, what: self.what, time_limit: self.time_limit, stdout, stderr })
    }
}

/// A tool that is running. Dropping it kills it.
pub struct Running {
    child: Child,
    what: String,
    time_limit: Duration,
    stdout: Option<JoinHandle<String>>,
    stderr: Option<JoinHandle<String>>,
}

impl Running {
    /// The process's id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It runs too long; then it is killed.
    pub fn wait(mut self) -> Result<Ended> {
        let status = wait(&mut self.child, self.time_limit)?;
        let status = status.with_context(|| format!("`{}` was not done in {:?}", self.what, self.time_limit))?;
        let text = |thread: Option<JoinHandle<String>>| thread.and_then(|t| t.join().ok()).unwrap_or_default();
        let (stdout, stderr) = (text(self.stdout.take()), text(self.stderr.take()));
        Ok(Ended { what: self.what.clone(), status, stdout, stderr })
    }

    /// Asks it to end, and waits for that.
    ///
    /// # Errors
    /// Those of [`Running::wait`].
    pub fn terminate(self) -> Result<Ended> {
        signal(self.id(), Signal::TERM)?;
        self.wait()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, status, stdout, stderr } = self;
        write!(f, "`{what}`: {status}\n--- stdout\n{stdout}\n--- stderr\n{stderr}\n---")
    }
}

impl Ended {
    /// The exit code; an error where a signal ended it.
    ///
    /// # Errors
    /// There is none.
    pub fn code(&self) -> Result<i32> {
        match (self.status.code(), self.status.signal()) {
            (Some(code), _) => Ok(code),
            (None, signal) => bail!("ended by signal {signal:?}: {self}"),
        }
    }
}

/// Waits for a child's end, at most this long; `None` where it is still running then.
///
/// # Errors
/// The operating system does not know.
pub fn wait(child: &mut Child, at_most: Duration) -> Result<Option<ExitStatus>> {
    let mut status = None;
    until(at_most, || {
        status = child.try_wait()?;
        Ok(status.is_some())
    })?;
    Ok(status)
}

/// Asks again and again, at most this long, whether something is so; whether it came to be so.
///
/// # Errors
/// The first error of `is_so`.
pub fn until(at_most: Duration, mut is_so: impl FnMut() -> Result<bool>) -> Result<bool> {
    let start = Instant::now();
    loop {
        if is_so()? {
            return Ok(true);
        }
        if start.elapsed() > at_most {
            return Ok(false);
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// Sends a signal to a process that a test has started.
///
/// # Errors
/// There is no such process.
pub fn signal(id: u32, signal: Signal) -> Result<()> {
    let pid = i32::try_from(id).ok().and_then(Pid::from_raw).context("a process id is a positive number")?;
    Ok(kill_process(pid, signal)?)
}

fn collect(mut pipe: impl Read + Send + 'static) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
