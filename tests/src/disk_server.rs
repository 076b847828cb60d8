//! What tests that kill need of a server, whatever it keeps its disks in: `sterna nbd serve` today ([`Server`]), and
//! whatever else comes to serve disks over a Unix socket.
//!
//! [`Server`]: crate::server::Server

use std::fs::File;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::client::{Client, Described, READ_LIMIT, Style};
use crate::tool::Tool;

/// A process that serves disks over NBD, and that can be killed and started again.
pub trait DiskServer {
    /// Where this export is found. It stays the same when the server is started again.
    fn disk(&self, export: &str) -> Disk;

    /// Ends the process where it stands (SIGKILL, by its id), and returns when it is gone.
    ///
    /// # Errors
    /// The operating system does not do it.
    fn kill(&mut self) -> Result<()>;

    /// Starts it again on the same disks and the same socket, and returns when it serves.
    ///
    /// # Errors
    /// It does not come to serve, with its log.
    fn restart(&mut self) -> Result<()>;

    /// What it has logged, in all of its lives.
    fn log(&self) -> String;
}

/// An export, and the Unix socket where it is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    socket: PathBuf,
    export: String,
}

impl Disk {
    /// The export of this name behind this socket.
    pub fn new(socket: impl Into<PathBuf>, export: &str) -> Self {
        Self { socket: socket.into(), export: export.to_owned() }
    }

    /// Its name.
    pub fn export(&self) -> &str {
        &self.export
    }

    /// Its URI, for other people's clients.
    pub fn uri(&self) -> String {
        format!("nbd+unix:///{}?socket={}", self.export, self.socket.display())
    }

    /// A raw client that is attached to it; and its size in bytes.
    ///
    /// # Errors
    /// The server does not accept it.
    pub fn attach(&self, style: Style) -> Result<(Client<UnixStream>, u64)> {
        let (client, described) = self.attach_described(style)?;
        Ok((client, described.size_bytes))
    }

    /// The same, with all that it says of itself.
    ///
    /// # Errors
    /// The server does not accept it.
    pub fn attach_described(&self, style: Style) -> Result<(Client<UnixStream>, Described)> {
        let stream = UnixStream::connect(&self.socket).context("cannot connect to the server")?;
        stream.set_read_timeout(Some(READ_LIMIT))?;
        let mut client = Client::greet(stream)?;
        let described = client.attach(style, &[], &self.export)?;
        Ok((client, described))
    }

    /// Fills it from a raw file, which is no longer than the disk, and flushes it.
    ///
    /// # Errors
    /// It does not take all of it.
    pub fn fill(&self, file: &Path) -> Result<()> {
        let file = file.display().to_string();
        Tool::new("nbdcopy").args(["--flush", &file, &self.uri()]).succeed()?;
        Ok(())
    }

    /// Copies all of it into a sparse raw file.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn save(&self, file: &Path) -> Result<()> {
        Tool::new("nbdcopy").args([&self.uri(), &file.display().to_string()]).succeed()?;
        Ok(())
    }

    /// How many of its bytes are not holes.
    ///
    /// # Errors
    /// It does not say.
    pub fn allocated_bytes(&self) -> Result<u64> {
        let map = Tool::new("qemu-img").args(["map", "-f", "raw", "--output=json", &self.uri()]).succeed()?.stdout;
        let map: Value = serde_json::from_str(&map)?;
        let runs = map.as_array().context("a map is a list")?.iter();
        Ok(runs.filter(|run| run["data"] == true).filter_map(|run| run["length"].as_u64()).sum())
    }

    /// Puts an empty ext4 file system on all of it.
    ///
    /// # Errors
    /// The disk does not take it.
    pub fn format(&self) -> Result<()> {
        let (_, size_bytes) = self.attach(Style::Simple)?;
        let directory = tempfile::tempdir()?;
        let empty = directory.path().join("empty");
        File::create(&empty)?.set_len(size_bytes)?;
        Tool::new("mkfs.ext4").args(["-q", &empty.display().to_string()]).succeed()?;
        self.fill(&empty)
    }

    /// Whether the ext4 file system on it, which is not mounted any more, is whole.
    ///
    /// # Errors
    /// It is not, with what e2fsck says.
    pub fn check_file_system(&self) -> Result<()> {
        let directory = tempfile::tempdir()?;
        let copy = directory.path().join("copy");
        self.save(&copy)?;
        let ended = Tool::new("e2fsck").args(["-fn", &copy.display().to_string()]).run()?;
        ensure!(ended.status.success(), "the file system on {} is not whole: {ended}", self.export);
        Ok(())
    }

    /// How QEMU's `-blockdev` finds it.
    pub fn block_device(&self, node_name: &str, reconnect_delay_s: u64) -> Value {
        json!({
            "driver": "nbd",
            "node-name": node_name,
            "server": { "type": "unix", "path": self.socket },
            "export": self.export,
            "reconnect-delay": reconnect_delay_s,
            "discard": "unmap",
            "detect-zeroes": "unmap",
        })
    }
}
