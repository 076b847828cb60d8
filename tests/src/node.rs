//! A running `sterna node`, with its data directory and its log in a directory of its own, and commands for it.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;

use crate::daemon::Daemon;
use crate::disk_server::{Disk, DiskServer};
use crate::server::sterna;
use crate::strace;
use crate::tool::{Ended, Tool};
use crate::wan::command_inside;

/// A node. Dropping it kills its process, by its id; its files belong to whoever made their directory.
///
/// ```no_run
/// # use sterna_tests::node::Node;
/// let directory = tempfile::tempdir()?;
/// let node = Node::start(directory.path())?;
/// node.sterna(["volume", "create", "disk", "--size", "1G"]).succeed()?;
/// let uri = node.uri("disk");
/// # anyhow::Ok(())
/// ```
pub struct Node {
    directory: PathBuf,
    log_level: &'static str,
    /// What strace is told; nothing where there is none.
    strace: Vec<String>,
    /// The network namespace that it runs in; that of this process where there is none.
    namespace: Option<String>,
    process: Daemon,
}

impl Node {
    /// Makes the data directory of a cluster of one in `directory`, and does not run it.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn init(directory: &Path) -> Result<Self> {
        Self::init_with(directory, ["--site", "ams", "--bootstrap"])
    }

    /// Makes the data directory of a node in `directory` as these arguments of `sterna node init` say, and does not run it.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn init_with(directory: &Path, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<Self> {
        Self::init_in(None, directory, args)
    }

    /// The same, in a network namespace, in which it runs as well.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn init_in(
        namespace: Option<&str>,
        directory: &Path,
        args: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> Result<Self> {
        let (directory, strace, namespace) = (directory.to_owned(), Vec::new(), namespace.map(str::to_owned));
        let process = Daemon::new("the node", directory.join("node.log"));
        let node = Self { directory, log_level: "debug", strace, namespace, process };
        let data = node.data();
        let tool = match &node.namespace {
            Some(namespace) => Tool::new("ip").args(["netns", "exec", namespace]).args([sterna()]),
            None => Tool::new(sterna()),
        };
        tool.args([OsStr::new("node"), "init".as_ref(), data.as_os_str()]).args(args).succeed()?;
        Ok(node)
    }

    /// The program, to be run where the node is.
    fn command(&self) -> Command {
        let program = strace::command(&self.strace, &self.strace_path());
        let Some(namespace) = &self.namespace else { return program };
        let mut command = command_inside(namespace, program.get_program());
        command.args(program.get_args());
        command
    }

    /// Has it log at this level from its next start on. Without it that is `debug`.
    pub fn log_level(mut self, level: &'static str) -> Self {
        self.log_level = level;
        self
    }

    /// Has its system calls watched from its next start on, by strace with these expressions (`trace=…`); what it sees is in
    /// [`Node::system_calls`].
    pub fn strace(mut self, expressions: &[&str]) -> Self {
        self.strace = expressions.iter().map(|&expression| expression.to_owned()).collect();
        self
    }

    /// The system calls that strace has seen since the last start, one in each line.
    ///
    /// # Errors
    /// They are not watched.
    pub fn system_calls(&self) -> Result<String> {
        fs::read_to_string(self.strace_path()).context("the node does not run under strace")
    }

    fn strace_path(&self) -> PathBuf {
        self.directory.join("node.strace")
    }

    /// Makes it, and runs it until it is ready.
    ///
    /// # Errors
    /// It does not come to be ready, with its log.
    pub fn start(directory: &Path) -> Result<Self> {
        let mut node = Self::init(directory)?;
        node.run()?;
        Ok(node)
    }

    /// Runs it until it is ready.
    ///
    /// # Errors
    /// It runs already, or does not come to be ready, with its log.
    pub fn run(&mut self) -> Result<()> {
        let mut command = self.command();
        command.args(["--json", "node", "run"]).arg(self.data()).env("STERNA_LOG", self.log_level);
        self.process.run(command)
    }

    /// Where its data directory and its log are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Its data directory.
    pub fn data(&self) -> PathBuf {
        self.directory.join("node")
    }

    /// Where it serves volumes.
    pub fn nbd_socket(&self) -> PathBuf {
        self.data().join("nbd.sock")
    }

    /// The URI of a volume.
    pub fn uri(&self, volume: &str) -> String {
        self.disk(volume).uri()
    }

    /// A command for it, to be run.
    pub fn sterna(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Tool {
        Tool::new(sterna()).env("STERNA_DIR", self.data()).args(args)
    }

    /// Runs a command for it; the values that it prints.
    ///
    /// # Errors
    /// It fails, or prints something else than JSON.
    pub fn json<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Result<Vec<Value>> {
        let ended = self.sterna(["--json"]).args(args).succeed()?;
        let value = |line: &str| serde_json::from_str(line).with_context(|| format!("not JSON: {ended}"));
        ended.stdout.lines().map(value).collect()
    }

    /// Runs a command for it that prints one value.
    ///
    /// # Errors
    /// It fails, or prints more or less than that.
    pub fn value<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Result<Value> {
        let [value] = <[Value; 1]>::try_from(self.json(args)?)
            .map_err(|values| anyhow::anyhow!("{} values, not one: {values:?}", values.len()))?;
        Ok(value)
    }

    /// Runs a command for it that has to be refused with exit code `code`, and with all of these words.
    ///
    /// # Errors
    /// It is not, or prints something on standard output, or tells a cause twice.
    pub fn refuses<A: AsRef<OsStr>>(
        &self,
        args: impl IntoIterator<Item = A>,
        code: i32,
        words: &[&str],
    ) -> Result<Ended> {
        let ended = self.sterna(args).run()?;
        is_refusal(&ended, code, words)?;
        Ok(ended)
    }

    /// Makes a volume.
    ///
    /// # Errors
    /// The node refuses it.
    pub fn create(&self, volume: &str, size_bytes: u64) -> Result<Disk> {
        self.sterna(["volume", "create", volume, "--size", &size_bytes.to_string()]).succeed()?;
        Ok(self.disk(volume))
    }

    /// The names of all volumes, in order.
    ///
    /// # Errors
    /// The node does not list them.
    pub fn volumes(&self) -> Result<Vec<String>> {
        let listed = self.json(["volume", "list"])?;
        let mut names: Vec<String> =
            listed.iter().filter_map(|volume| Some(volume["name"].as_str()?.to_owned())).collect();
        names.sort_unstable();
        Ok(names)
    }

    /// What the node has logged so far, in all of its lives.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// The network namespace that it runs in, if it has one of its own.
    pub fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    /// The id of its process.
    ///
    /// # Errors
    /// It does not run.
    pub fn id(&self) -> Result<u32> {
        self.process.id()
    }

    /// How it has ended, where it has done so by itself.
    ///
    /// # Errors
    /// The operating system does not know.
    pub fn has_ended(&mut self) -> Result<Option<ExitStatus>> {
        self.process.has_ended()
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// It does not run.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// Asks it to end (SIGTERM), waits for that, and expects it to be in good order.
    ///
    /// # Errors
    /// It does not end, or with an error, with its log.
    pub fn terminate(&mut self) -> Result<()> {
        self.process.terminate()
    }

    /// Waits for the end that something else has brought about.
    ///
    /// # Errors
    /// It does not end.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        self.process.wait()
    }

    /// Ends it where it stands (SIGKILL), if it runs.
    ///
    /// # Errors
    /// The operating system does not do it.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }
}

impl DiskServer for Node {
    fn disk(&self, export: &str) -> Disk {
        Disk::new(self.nbd_socket(), export)
    }

    fn kill(&mut self) -> Result<()> {
        Self::kill(self)
    }

    fn restart(&mut self) -> Result<()> {
        Self::kill(self)?;
        self.run()
    }

    fn log(&self) -> String {
        Self::log(self)
    }
}

/// Whether a command ended as one does that is refused: with this exit code, a message with all of these words, and nothing
/// on standard output.
///
/// # Errors
/// It did not.
pub fn is_refusal(ended: &Ended, code: i32, words: &[&str]) -> Result<()> {
    ensure!(ended.code()? == code, "not with exit code {code}: {ended}");
    for word in words {
        ensure!(ended.stderr.contains(word), "the message does not have '{word}': {ended}");
    }
    ensure!(ended.stdout.is_empty(), "something was printed: {ended}");
    ensure!(!ended.stderr.contains("panicked"), "{ended}");
    let parts: Vec<&str> = ended.stderr.trim().split(": ").collect();
    ensure!(parts.windows(2).all(|pair| pair[0] != pair[1]), "a cause is told twice: {ended}");
    Ok(())
}
