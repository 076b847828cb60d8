//! A program of ours that runs until it is ended: it says on standard output that it is ready, and logs on standard error.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;

use crate::tool;

/// From the start of the process to the line that says it is ready: a node has to read its store, and to become the leader of
/// its own metadata.
const START_LIMIT: Duration = Duration::from_secs(60);

/// What is left to be sealed at the end takes a moment; the drain up to thirty seconds.
const END_LIMIT: Duration = Duration::from_secs(90);

/// Such a program, in all of its lives. Dropping it kills its process, by its id.
#[derive(Debug)]
pub struct Daemon {
    /// What it is, for messages.
    what: &'static str,
    log: PathBuf,
    child: Option<Child>,
}

impl Daemon {
    /// One that does not run yet, and logs to this file.
    pub fn new(what: &'static str, log: PathBuf) -> Self {
        Self { what, log, child: None }
    }

    /// Runs it by this command until it is ready.
    ///
    /// # Errors
    /// It runs already, or does not come to be ready, with its log.
    pub fn run(&mut self, mut command: Command) -> Result<()> {
        let what = self.what;
        ensure!(self.child.is_none(), "{what} runs already");
        let child = command
            .env_remove("STERNA_DIR")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::options().create(true).append(true).open(&self.log)?)
            .spawn()
            .context("cannot start sterna, or strace: run scripts/setup")?;
        let stdout = self.child.insert(child).stdout.take().context("its standard output is a pipe")?;
        let (lines, told) = mpsc::channel();
        // Reads on to the end, so that it never writes into a closed pipe.
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = lines.send(line);
            }
        });
        if told.recv_timeout(START_LIMIT).is_err() {
            self.kill()?;
            bail!("{what} did not come to be ready: {}", self.log());
        }
        Ok(())
    }

    /// What it has logged so far, in all of its lives.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The file of that.
    pub fn log_path(&self) -> PathBuf {
        self.log.clone()
    }

    /// The id of its process.
    ///
    /// # Errors
    /// It does not run.
    pub fn id(&self) -> Result<u32> {
        let what = self.what;
        Ok(self.child.as_ref().with_context(|| format!("{what} does not run"))?.id())
    }

    /// How it has ended, where it has done so by itself.
    ///
    /// # Errors
    /// The operating system does not know.
    pub fn has_ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(match &mut self.child {
            Some(child) => child.try_wait()?,
            None => None,
        })
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// It does not run.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        tool::signal(self.id()?, signal)
    }

    /// Asks it to end (SIGTERM), waits for that, and expects it to be in good order.
    ///
    /// # Errors
    /// It does not end, or with an error, with its log.
    pub fn terminate(&mut self) -> Result<()> {
        self.signal(Signal::TERM)?;
        let status = self.wait()?;
        ensure!(status.success(), "{} ended with {status}: {}", self.what, self.log());
        Ok(())
    }

    /// Waits for the end that something else has brought about.
    ///
    /// # Errors
    /// It does not end.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        let what = self.what;
        let child = self.child.as_mut().with_context(|| format!("{what} does not run"))?;
        let status = tool::wait(child, END_LIMIT)?;
        let status = status.with_context(|| format!("{what} did not end: {}", self.log()))?;
        self.child = None;
        Ok(status)
    }

    /// Ends it where it stands (SIGKILL), if it runs.
    ///
    /// # Errors
    /// The operating system does not do it.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}
