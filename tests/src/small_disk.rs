//! A file system that is small, for tests of what happens when it is full.

use std::env;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::tool::Tool;

/// Longer than a test may take.
const TIME_LIMIT: Duration = Duration::from_secs(290);

/// Tells a test that it is run on its small disk.
const DIRECTORY: &str = "STERNA_TEST_SMALL_DISK";

/// Mounts `$1` on `$2`, and becomes what follows.
const MOUNT_AND_RUN: &str = "mount -o loop \"$1\" \"$2\" && shift 2 && exec \"$@\"";

/// Runs the test `name` of this program on an ext4 file system of `size_bytes`; `body` gets a directory on it, and one beside
/// it that has room.
///
/// The test is run again, as a process with a mount namespace of its own. However that ends, the file system is gone with
/// it, and so is the loop device. It needs root.
///
/// # Errors
/// Those of `body`, or the file system cannot be made.
pub fn on_a_small_disk(name: &str, size_bytes: u64, body: impl FnOnce(&Path, &Path) -> Result<()>) -> Result<()> {
    if let Some(directory) = env::var_os(DIRECTORY) {
        let directory = PathBuf::from(directory);
        return body(&directory.join("small"), &directory.join("large"));
    }
    let directory = tempfile::tempdir()?;
    let [image, small, large] = ["image", "small", "large"].map(|name| directory.path().join(name));
    File::create(&image)?.set_len(size_bytes)?;
    fs::create_dir(&small)?;
    fs::create_dir(&large)?;
    Tool::new("mkfs.ext4").args(["-q", "-m", "0"]).args([&image]).succeed()?;
    let this = env::current_exe()?;
    let words = ["--mount", "--propagation", "private", "sh", "-c", MOUNT_AND_RUN, "sh"].map(OsStr::new);
    let run = [image.as_os_str(), small.as_os_str(), this.as_os_str(), "--exact".as_ref(), name.as_ref()];
    let again = Tool::new("unshare").args(words).args(run).args(["--nocapture"]);
    let ended = again.env(DIRECTORY, directory.path()).time_limit(TIME_LIMIT).succeed()?;
    ensure!(ended.stdout.contains("1 passed"), "there is no test '{name}': {ended}");
    Ok(())
}
