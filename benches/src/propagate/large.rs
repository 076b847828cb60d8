//! A large image of real files: what this machine has of programs, sources and what was built of them.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use sterna_tests::tool::Tool;

/// Makes an image of a file system, half as large again as what is used of it: `used_mb` MB of files.
pub(super) fn make(directory: &Path, used_mb: u64) -> Result<PathBuf> {
    let (tree, image) = (directory.join("files"), directory.join("large.raw"));
    fs::create_dir(&tree)?;
    let mut gathering = Gathering { left_bytes: used_mb * 1_000_000, tree: tree.clone(), count: 0 };
    for variable in ["RUSTUP_HOME", "CARGO_HOME", "CARGO_TARGET_DIR"] {
        if let Some(root) = std::env::var_os(variable) {
            gathering.take(Path::new(&root))?;
        }
    }
    let home = PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| OsString::from("/root")));
    for root in [home.join(".rustup"), home.join(".cargo"), PathBuf::from("/usr")] {
        gathering.take(&root)?;
    }
    ensure!(gathering.left_bytes == 0, "this machine has {} bytes too few of files", gathering.left_bytes);
    File::create(&image)?.set_len(used_mb * 1_000_000 * 3 / 2 / (4 << 20) * (4 << 20))?;
    let made = Tool::new("mkfs.ext4").args(["-q", "-F", "-m", "0", "-d"]).args([&tree, &image]);
    made.time_limit(std::time::Duration::from_secs(600)).succeed()?;
    fs::remove_dir_all(&tree)?;
    Ok(image)
}

struct Gathering {
    left_bytes: u64,
    tree: PathBuf,
    count: u64,
}

impl Gathering {
    /// Links or copies the files below `root`, in the order of their names, as far as they are wanted.
    fn take(&mut self, root: &Path) -> Result<()> {
        let mut open = vec![root.to_owned()];
        while let Some(path) = open.pop() {
            if self.left_bytes == 0 {
                return Ok(());
            }
            // What goes away meanwhile is not taken.
            let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
            if metadata.is_dir() {
                let entries = fs::read_dir(&path).with_context(|| path.display().to_string())?;
                let mut below: Vec<_> =
                    entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
                below.sort_unstable();
                open.extend(below.into_iter().rev());
            } else if metadata.is_file() && (1..=self.left_bytes).contains(&metadata.len()) {
                // In directories of a thousand.
                let directory = self.tree.join((self.count / 1000).to_string());
                fs::create_dir_all(&directory)?;
                let file = directory.join(self.count.to_string());
                if fs::hard_link(&path, &file).is_err() {
                    fs::copy(&path, &file)?;
                }
                self.count += 1;
                self.left_bytes -= metadata.len();
                // The rest of what is wanted is less than most files have.
                self.left_bytes = if self.left_bytes < LITTLE_BYTES { 0 } else { self.left_bytes };
            }
        }
        Ok(())
    }
}

const LITTLE_BYTES: u64 = 1_000_000;
