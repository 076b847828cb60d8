//! What is in a directory, to be compared with what is in it later.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

/// All files below a directory, with what is in them.
///
/// # Errors
/// One of them cannot be read.
pub fn files(directory: &Path) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(self::files(&path)?);
        } else if path.is_file() {
            files.insert(path.clone(), fs::read(&path)?);
        }
    }
    Ok(files)
}
