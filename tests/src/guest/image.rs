//! What guests boot from: built, once for each machine, by `scripts/guest-image`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::tool::Tool;

/// Mostly the Debian mirror's and the processor's; a build takes about a minute on a machine with nothing else to do.
const BUILD_LIMIT: Duration = Duration::from_secs(270);

/// Which root disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Root {
    /// Debian 12 with systemd, sshd, SQLite.
    Debian,
    /// The same with more packages, made on its own: most of its content is in the other too, in other places.
    DebianExtra,
}

/// A kernel with what belongs to it.
#[derive(Clone, Debug)]
pub struct Image {
    directory: PathBuf,
    /// For QEMU's `-accel`: what really runs guests on this machine.
    pub accelerator: String,
}

impl Image {
    /// Finds the image in the cache, or builds it.
    ///
    /// # Errors
    /// It cannot be built; with what the script says.
    pub fn of(root: Root) -> Result<Self> {
        let variant = match root {
            Root::Debian => "debian",
            Root::DebianExtra => "debian-extra",
        };
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/guest-image");
        let told = Tool::new(script).args([variant]).time_limit(BUILD_LIMIT).succeed()?.stdout;
        let value = |name: &str| {
            let line = told.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            line.with_context(|| format!("scripts/guest-image says no {name}: {told}"))
        };
        Ok(Self { directory: value("directory")?.into(), accelerator: value("accelerator")?.to_owned() })
    }

    /// The kernel.
    pub fn kernel(&self) -> PathBuf {
        self.directory.join("kernel")
    }

    /// What Debian starts from.
    pub fn initrd(&self) -> PathBuf {
        self.directory.join("initrd")
    }

    /// The tiny guest, all of it.
    pub fn tiny(&self) -> PathBuf {
        self.directory.join("tiny")
    }

    /// The root disk, a raw file that nobody writes to.
    pub fn root(&self) -> PathBuf {
        self.directory.join("root.raw")
    }
}
