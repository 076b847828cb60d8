//! A running `sterna nbd serve`, with its files, its socket and its log in a directory of its own.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::client::{Client, READ_LIMIT, Style};
use crate::disk_server::{Disk, DiskServer};
use crate::node::Node;
use crate::{strace, tool};

/// From the start of the process to the line that says it serves; most of it is waiting for a processor.
const START_LIMIT: Duration = Duration::from_secs(60);

/// The drain takes up to thirty seconds, by the server's own limit.
const END_LIMIT: Duration = Duration::from_secs(60);

/// The program that is tested.
///
/// # Panics
/// It has not been built.
pub fn sterna() -> PathBuf {
    let this = std::env::current_exe().expect("a test knows its own path");
    // Tests are in `deps`, one further down than programs.
    let found = this.ancestors().skip(1).take(2).map(|directory| directory.join("sterna")).find(|path| path.exists());
    found.expect("sterna is built: by scripts/test, or by cargo build --workspace --bins")
}

/// What to serve, and how.
///
/// ```no_run
/// # use sterna_tests::server::Server;
/// let server = Server::builder().file("disk", 1 << 20).memory("scratch", "1G").start()?;
/// let uri = server.uri("disk");
/// # anyhow::Ok(())
/// ```
pub struct Builder {
    directory: TempDir,
    launch: Launch,
    volumes: Vec<(String, u64)>,
}

/// How the process is started, the first time and after it has been killed.
struct Launch {
    args: Vec<String>,
    exports: usize,
    socket: bool,
    strace: Vec<String>,
}

impl Builder {
    /// Serves a new, sparse file of this name and size.
    pub fn file(self, name: &str, size_bytes: u64) -> Self {
        let path = self.path(name);
        File::create(&path).and_then(|file| file.set_len(size_bytes)).expect("a sparse file for a test");
        self.existing_file(name, &path)
    }

    /// Serves a file that is there.
    pub fn existing_file(mut self, name: &str, path: &Path) -> Self {
        self.launch.exports += 1;
        self.arg("--file").arg(&format!("{name}={}", path.display()))
    }

    /// Serves a disk in memory.
    pub fn memory(mut self, name: &str, size: &str) -> Self {
        self.launch.exports += 1;
        self.arg("--memory").arg(&format!("{name}={size}"))
    }

    /// Serves a new volume beside them: of a node of its own, whose socket is another one.
    pub fn volume(mut self, name: &str, size_bytes: u64) -> Self {
        self.volumes.push((name.to_owned(), size_bytes));
        self
    }

    /// What clients may do: `read-write`, `read-only` or `standby`.
    pub fn mode(self, mode: &str) -> Self {
        self.arg("--mode").arg(mode)
    }

    /// Listens on a free port of the loopback address besides the socket.
    pub fn tcp(self) -> Self {
        self.arg("--listen").arg("127.0.0.1:0")
    }

    /// Has no Unix socket.
    pub fn no_socket(mut self) -> Self {
        self.launch.socket = false;
        self
    }

    /// Uses TLS with what the test has put into these files.
    pub fn tls(self, certificate: &Path, key: &Path) -> Self {
        self.arg("--tls-cert").arg(&certificate.display().to_string()).arg("--tls-key").arg(&key.display().to_string())
    }

    /// Has the server's system calls watched, or made to fail, by strace with these expressions (`trace=…`, `inject=…`);
    /// what it sees is in [`Server::system_calls`].
    pub fn strace(mut self, expressions: &[&str]) -> Self {
        self.launch.strace = expressions.iter().map(|&expression| expression.to_owned()).collect();
        self
    }

    /// One more argument.
    pub fn arg(mut self, arg: &str) -> Self {
        self.launch.args.push(arg.to_owned());
        self
    }

    /// A path in the server's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The command line behind `sterna`.
    pub fn command_line(&self) -> Vec<String> {
        self.launch.command_line(self.directory.path())
    }

    /// Starts the server and waits until it serves.
    ///
    /// # Errors
    /// It does not come to serve, with its log.
    pub fn start(self) -> Result<Server> {
        let (child, offers) = self.launch.start(self.directory.path())?;
        let mut server = Server { child, directory: self.directory, launch: self.launch, offers, node: None };
        if !self.volumes.is_empty() {
            let node = Node::start(server.directory.path())?;
            for (name, size_bytes) in &self.volumes {
                let uri = node.create(name, *size_bytes)?.uri();
                server.offers.push(json!({ "export": name, "uris": [uri] }));
            }
            server.node = Some(node);
        }
        Ok(server)
    }
}

impl Launch {
    fn command_line(&self, directory: &Path) -> Vec<String> {
        let fixed = ["--json", "nbd", "serve"].map(str::to_owned);
        let socket = ["--socket".to_owned(), directory.join("socket").display().to_string()];
        let socket = socket.into_iter().filter(|_| self.socket);
        fixed.into_iter().chain(self.args.iter().cloned()).chain(socket).collect()
    }

    /// Starts the process, and waits for what it says about each of its exports.
    fn start(&self, directory: &Path) -> Result<(Child, Vec<Value>)> {
        let log = directory.join("log");
        let mut child = strace::command(&self.strace, &directory.join(STRACE))
            .args(self.command_line(directory))
            .env("STERNA_LOG", "debug")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::options().create(true).append(true).open(&log)?)
            .spawn()
            .context("cannot start sterna, or strace: run scripts/setup")?;
        match self.offers(&mut child) {
            Ok(offers) => Ok((child, offers)),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                let log = fs::read_to_string(&log).unwrap_or_default();
                Err(error.context(format!("the server did not come to serve: {log}")))
            }
        }
    }

    fn offers(&self, child: &mut Child) -> Result<Vec<Value>> {
        let stdout = child.stdout.take().context("the server's standard output is a pipe")?;
        let (lines, told) = mpsc::channel();
        // Reads on to the end, so that the server never writes into a closed pipe.
        std::thread::spawn(move || read_lines(stdout, &lines));
        let offer = |_| {
            let line = told.recv_timeout(START_LIMIT)?;
            serde_json::from_str(&line).with_context(|| format!("not JSON: {line}"))
        };
        (0..self.exports).map(offer).collect()
    }
}

fn read_lines(stdout: ChildStdout, lines: &mpsc::Sender<String>) {
    for line in BufReader::new(stdout).lines().map_while(Result::ok) {
        let _ = lines.send(line);
    }
}

/// A running server. Dropping it kills it, by its id, and removes its directory.
pub struct Server {
    child: Child,
    directory: TempDir,
    launch: Launch,
    offers: Vec<Value>,
    /// What serves the volumes, if there are any.
    node: Option<Node>,
}

/// A server that was asked to end, and did.
#[derive(Debug)]
pub struct Terminated {
    /// How it exited.
    pub status: ExitStatus,
    /// What it logged.
    pub log: String,
    /// What the node that served its volumes logged, if there was one.
    pub node_log: Option<String>,
}

impl Terminated {
    /// One of the server's counters, as it told them at the end; that of its node is added.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn counter(&self, name: &str) -> Result<u64> {
        [Some(&self.log), self.node_log.as_ref()].into_iter().flatten().map(|log| counter(log, name)).sum()
    }
}

fn counter(log: &str, name: &str) -> Result<u64> {
    let prefix = format!("{name}: ");
    let fields = log.rsplit("CounterValues {").next().context("counters")?.split([',', '}']);
    let value = fields.into_iter().find_map(|field| field.trim().strip_prefix(&prefix));
    Ok(value.with_context(|| format!("no counter {name}: {log}"))?.parse()?)
}

impl Server {
    /// A server that serves nothing yet.
    ///
    /// # Panics
    /// There is no place for its files.
    pub fn builder() -> Builder {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let launch = Launch { args: Vec::new(), exports: 0, socket: true, strace: Vec::new() };
        Builder { directory, launch, volumes: Vec::new() }
    }

    /// What the server said about its exports when it was ready, in their order.
    pub fn offers(&self) -> &[Value] {
        &self.offers
    }

    /// The URI of an export over the first socket, as the server told it.
    ///
    /// # Panics
    /// There is no such export.
    pub fn uri(&self, export: &str) -> String {
        self.uri_over(export, "nbd+unix:")
    }

    /// The URI of an export over TCP, as the server told it.
    ///
    /// # Panics
    /// There is no such export, or no TCP.
    pub fn tcp_uri(&self, export: &str) -> String {
        self.uri_over(export, "nbd:")
    }

    fn uri_over(&self, export: &str, scheme: &str) -> String {
        let offer = self.offers.iter().find(|offer| offer["export"] == export).expect("the export is served");
        let mut uris = offer["uris"].as_array().expect("an offer has URIs").iter().filter_map(Value::as_str);
        uris.find(|uri| uri.starts_with(scheme)).expect("the export is served over that").to_owned()
    }

    /// The Unix socket.
    pub fn socket(&self) -> PathBuf {
        self.path("socket")
    }

    /// A path in the server's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A new connection over the Unix socket.
    ///
    /// # Errors
    /// It is not accepted.
    pub fn connect(&self) -> Result<UnixStream> {
        let stream = UnixStream::connect(self.socket()).context("cannot connect to the server")?;
        stream.set_read_timeout(Some(READ_LIMIT))?;
        Ok(stream)
    }

    /// A new connection over TCP.
    ///
    /// # Errors
    /// It is not accepted.
    pub fn connect_tcp(&self, export: &str) -> Result<TcpStream> {
        let uri = self.tcp_uri(export);
        let address = uri.split('/').nth(2).context("a URI has an address")?;
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(READ_LIMIT))?;
        Ok(stream)
    }

    /// A new connection over the Unix socket where this export is served.
    ///
    /// # Errors
    /// It is not accepted.
    pub fn connect_for(&self, export: &str) -> Result<UnixStream> {
        let is_volume = |node: &&Node| node.uri(export) == self.uri(export);
        let socket = self.node.as_ref().filter(is_volume).map_or_else(|| self.socket(), Node::nbd_socket);
        let stream = UnixStream::connect(socket).context("cannot connect to the server")?;
        stream.set_read_timeout(Some(READ_LIMIT))?;
        Ok(stream)
    }

    /// A raw client of this export over its Unix socket, attached.
    ///
    /// # Errors
    /// It is not accepted.
    pub fn attach(&self, style: Style, export: &str) -> Result<Client<UnixStream>> {
        let mut client = Client::greet(self.connect_for(export)?)?;
        client.attach(style, &[], export)?;
        Ok(client)
    }

    /// A raw client over the Unix socket, behind the greeting.
    ///
    /// # Errors
    /// There is no greeting.
    pub fn client(&self) -> Result<Client<UnixStream>> {
        Client::greet(self.connect()?)
    }

    /// What the server has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// The system calls that strace has seen so far, one in each line.
    ///
    /// # Errors
    /// They are not watched.
    pub fn system_calls(&self) -> Result<String> {
        fs::read_to_string(self.path(STRACE)).context("the server does not run under strace")
    }

    /// The server's process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How much memory the server has in use now, in bytes.
    ///
    /// # Errors
    /// The server is gone.
    pub fn resident_bytes(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("the server is gone")?;
        let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kib << 10)
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// The server is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        tool::signal(self.id(), signal)
    }

    /// Waits for the end that something else has brought about.
    ///
    /// # Errors
    /// It does not end.
    pub fn wait(mut self) -> Result<Terminated> {
        let status = tool::wait(&mut self.child, END_LIMIT)?;
        let log = self.log();
        let node_log = self.node.as_ref().map(Node::log);
        Ok(Terminated { status: status.with_context(|| format!("the server did not end: {log}"))?, log, node_log })
    }

    /// Asks it to end (SIGTERM), waits for that, and expects it to be in good order.
    ///
    /// # Errors
    /// It does not end, or with an error.
    pub fn terminate(mut self) -> Result<Terminated> {
        self.node.as_mut().map_or(Ok(()), Node::terminate)?;
        self.signal(Signal::TERM)?;
        let ended = self.wait()?;
        ensure!(ended.status.success(), "the server ended with {}: {}", ended.status, ended.log);
        Ok(ended)
    }

    /// Ends it where it stands (SIGKILL), and keeps its directory.
    ///
    /// # Errors
    /// The operating system does not do it.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl DiskServer for Server {
    fn disk(&self, export: &str) -> Disk {
        Disk::new(self.socket(), export)
    }

    fn kill(&mut self) -> Result<()> {
        Self::kill(self)
    }

    fn restart(&mut self) -> Result<()> {
        Self::kill(self)?;
        (self.child, self.offers) = self.launch.start(self.directory.path())?;
        Ok(())
    }

    fn log(&self) -> String {
        Self::log(self)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What strace has seen, in the server's directory.
const STRACE: &str = "strace";
