//! The servers with their disks, in a directory of their own that goes with them.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use tempfile::TempDir;

use crate::server::Server;
use crate::usage::device_written_bytes;
use crate::work::{Pattern, Work};
use crate::{data, fio};

/// Ours first, then its peers, each with a disk that holds the same.
pub(crate) struct Disks {
    pub(crate) servers: [Server; 3],
    _directory: TempDir,
}

impl Disks {
    /// Starts all servers, and fills their disks over NBD. All of it is sealed, on the disk and in the page cache.
    ///
    /// # Errors
    /// A server does not come to serve, or does not take the data; or the directory for it is in memory.
    pub(crate) fn new(size_mib: u32) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let path = directory.path();
        let is_memory = rustix::fs::statfs(path)?.f_type == TMPFS_MAGIC;
        ensure!(!is_memory, "{} is in memory: set TMPDIR to a directory on a disk", path.display());
        let [contents, nbdkit, qemu] = ["contents", "nbdkit.raw", "qemu.raw"].map(|name| path.join(name));
        data::write(&contents, size_mib)?;
        let size_bytes = u64::from(size_mib) << 20;
        let servers = [
            Server::sterna_volume(path, size_bytes)?,
            Server::nbdkit_file(path, sparse(&nbdkit, size_bytes)?)?,
            Server::qemu_nbd(path, sparse(&qemu, size_bytes)?)?,
        ];
        for server in &servers {
            server.disk().fill(&contents)?;
            server.settle()?;
        }
        std::fs::remove_file(&contents)?;
        let disks = Self { servers, _directory: directory };
        disks.warm()?;
        Ok(disks)
    }

    /// Reads everything, so that it is in memory.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn warm(&self) -> Result<()> {
        self.servers.iter().try_for_each(warm)
    }
}

/// Reads everything of one disk, so that it is in memory.
///
/// # Errors
/// It cannot be read.
pub(crate) fn warm(server: &Server) -> Result<()> {
    fio::run(server.disk(), Work::new(Pattern::Read, 1024, 4).once(), WARM_SECONDS).map(drop)
}

fn sparse(path: &Path, size_bytes: u64) -> Result<&Path> {
    std::fs::File::create(path)?.set_len(size_bytes)?;
    Ok(path)
}

/// How many bytes others write in a second to the device that the disks will be on, while nothing is measured; `None` where
/// they will be on none.
///
/// # Errors
/// The kernel does not say.
pub(crate) fn others_write() -> Result<Option<f64>> {
    let directory = std::env::temp_dir();
    rustix::fs::sync();
    let before = device_written_bytes(&directory)?;
    std::thread::sleep(OTHERS_TIME);
    let after = device_written_bytes(&directory)?;
    Ok(after.zip(before).map(|(after, before)| (after - before) / OTHERS_TIME.as_secs_f64()))
}

/// Whether this user may empty the page cache.
pub(crate) fn can_be_cold() -> bool {
    std::fs::File::options().write(true).open(DROP_CACHES).is_ok()
}

/// Empties the page cache of the machine, of what no process holds.
///
/// # Errors
/// Only root may.
pub(crate) fn empty_page_cache() -> Result<()> {
    rustix::fs::sync();
    Ok(std::fs::write(DROP_CACHES, "3")?)
}

const DROP_CACHES: &str = "/proc/sys/vm/drop_caches";

/// statfs(2).
const TMPFS_MAGIC: rustix::fs::FsWord = 0x0102_1994;

/// As long as a seal may wait, which is how long others write into a figure after its last request.
const OTHERS_TIME: Duration = Duration::from_secs(5);

/// Reading ends when all was read.
const WARM_SECONDS: u32 = 600;
