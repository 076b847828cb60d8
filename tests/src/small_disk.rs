//! A file system that is small, for tests of what happens when it is full.

use std::env;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::geteuid;

use crate::tool::Tool;

/// Longer than a test may take.
const TIME_LIMIT: Duration = Duration::from_secs(290);

/// Tells a test that it is run on its small disk.
const DIRECTORY: &str = "STERNA_TEST_SMALL_DISK";

/// Ends with whoever has started it; and with it ends all that is in its namespaces, and so what is mounted there.
const APART: [&str; 10] = [
    "--pdeathsig",
    "KILL",
    "unshare",
    "--mount",
    "--propagation",
    "private",
    "--pid",
    "--mount-proc",
    "--fork",
    "--kill-child=KILL",
];

/// Mounts `$1` on `$2`, and becomes what follows. The image has no name any more then: it goes with its loop device, which
/// `mount` makes such that it goes with the file system.
const MOUNT_AND_RUN: &str = "mount -o loop \"$1\" \"$2\" || exit 77; rm \"$1\"; shift 2; exec \"$@\"";

/// How [`MOUNT_AND_RUN`] says that it cannot mount.
const CANNOT_MOUNT: i32 = 77;

const NEEDS: &str = "this test makes a file system of its own: it needs root, namespaces for mounts and processes, and loop \
                     devices (in a container: a privileged one with /dev/loop-control)";

/// Runs the test `name` of this program on an ext4 file system of `size_bytes`; `body` gets a directory on it, and one beside
/// it that has room.
///
/// The test is run again, as a process with namespaces of its own for mounts and processes. However that ends, and however
/// the process that has started it does, the file system is gone with it, and so is the loop device.
///
/// # Errors
/// Those of `body`, or the file system cannot be made: that needs root, namespaces and loop devices.
pub fn on_a_small_disk(name: &str, size_bytes: u64, body: impl FnOnce(&Path, &Path) -> Result<()>) -> Result<()> {
    if let Some(directory) = env::var_os(DIRECTORY) {
        let directory = PathBuf::from(directory);
        return body(&directory.join("small"), &directory.join("large"));
    }
    ensure!(geteuid().is_root(), "{NEEDS}");
    Tool::new("setpriv").args(APART).args(["true"]).succeed().context(NEEDS)?;
    let directory = tempfile::tempdir()?;
    let [image, small, large] = ["image", "small", "large"].map(|name| directory.path().join(name));
    File::create(&image)?.set_len(size_bytes)?;
    fs::create_dir(&small)?;
    fs::create_dir(&large)?;
    Tool::new("mkfs.ext4").args(["-q", "-m", "0"]).args([&image]).succeed()?;
    let this = env::current_exe()?;
    let words = ["sh", "-c", MOUNT_AND_RUN, "sh"].map(OsStr::new);
    let run = [image.as_os_str(), small.as_os_str(), this.as_os_str(), "--exact".as_ref(), name.as_ref()];
    let again = Tool::new("setpriv").args(APART).args(words).args(run).args(["--nocapture"]);
    let ended = again.env(DIRECTORY, directory.path()).time_limit(TIME_LIMIT).run()?;
    ensure!(ended.status.code() != Some(CANNOT_MOUNT), "{NEEDS}: {ended}");
    ensure!(ended.status.success(), "it failed on its small disk: {ended}");
    ensure!(ended.stdout.contains("1 passed"), "there is no test '{name}': {ended}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tool::{signal, until};
    use rustix::process::Signal;

    /// Tells the test below that it is to be killed.
    const VICTIM: &str = "STERNA_TEST_VICTIM";

    /// How many loop devices have a file below this directory.
    fn loop_devices(directory: &Path) -> Result<usize> {
        let mut found = 0;
        for device in fs::read_dir("/sys/block")? {
            // Only one that is in use has this.
            let file = fs::read_to_string(device?.path().join("loop/backing_file")).unwrap_or_default();
            found += usize::from(Path::new(&file).starts_with(directory));
        }
        Ok(found)
    }

    #[test]
    fn heavy_a_test_that_is_killed_leaves_no_loop_device() -> Result<()> {
        let name = "small_disk::tests::heavy_a_test_that_is_killed_leaves_no_loop_device";
        if env::var_os(VICTIM).is_some() {
            return on_a_small_disk(name, 16 << 20, |_, _| Tool::new("sleep").args(["100"]).succeed().map(drop));
        }
        let directory = tempfile::tempdir()?;
        let victim =
            Tool::new(env::current_exe()?).args(["--exact", name]).env(VICTIM, "").env("TMPDIR", directory.path());
        let victim = victim.spawn()?;
        let limit = Duration::from_secs(60);
        let is_there = until(limit, || Ok(loop_devices(directory.path())? == 1))?;
        signal(victim.id(), Signal::KILL)?;
        let ended = victim.wait()?;
        ensure!(is_there, "there was no loop device: {ended}");
        ensure!(until(limit, || Ok(loop_devices(directory.path())? == 0))?, "the loop device is there still");
        Ok(())
    }
}
