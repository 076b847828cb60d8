//! A program that serves a disk on a Unix socket until it is told to end.

use std::fs::File;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use sterna_tests::tool;

/// From the start of a server until it takes connections, and from the signal to its end.
const LIMIT: Duration = Duration::from_secs(60);

/// The program. Dropping it kills its process, by its id.
#[derive(Debug)]
pub(crate) struct Program {
    command: Command,
    socket: PathBuf,
    log: PathBuf,
    child: Option<Child>,
}

impl Program {
    /// Starts it, and waits until it takes connections.
    ///
    /// # Errors
    /// It does not come to that, with its log.
    pub(crate) fn start(command: Command, socket: &Path) -> Result<Self> {
        let (socket, log) = (socket.to_owned(), socket.with_extension("log"));
        let mut program = Self { command, socket, log, child: None };
        program.run()?;
        Ok(program)
    }

    /// Starts it again.
    ///
    /// # Errors
    /// It runs already, or does not come to take connections, with its log.
    pub(crate) fn run(&mut self) -> Result<()> {
        ensure!(self.child.is_none(), "{:?} runs already", self.command.get_program());
        let _ = std::fs::remove_file(&self.socket);
        let log = File::options().create(true).append(true).open(&self.log)?;
        self.command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let spawned = self.command.spawn();
        let child =
            spawned.with_context(|| format!("cannot start {:?}: run scripts/setup", self.command.get_program()))?;
        let child = self.child.insert(child);
        let mut ended = None;
        let serves = tool::until(LIMIT, || {
            ended = child.try_wait()?;
            Ok(ended.is_some() || UnixStream::connect(&self.socket).is_ok())
        })?;
        if ended.is_some() || !serves {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            bail!("{:?} does not serve (ended: {ended:?}): {log}", self.command.get_program());
        }
        Ok(())
    }

    /// Asks it to end (SIGTERM), and waits for that.
    ///
    /// # Errors
    /// It does not run, or does not end.
    pub(crate) fn end(&mut self) -> Result<()> {
        tool::signal(self.id()?, Signal::TERM)?;
        let child = self.child.as_mut().context("it runs")?;
        ensure!(tool::wait(child, LIMIT)?.is_some(), "{:?} does not end", self.command.get_program());
        self.child = None;
        Ok(())
    }

    /// The id of its process.
    ///
    /// # Errors
    /// It does not run.
    pub(crate) fn id(&self) -> Result<u32> {
        Ok(self.child.as_ref().with_context(|| format!("{:?} does not run", self.command.get_program()))?.id())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
