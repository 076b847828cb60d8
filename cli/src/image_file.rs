//! An image that is being written, under another name until it is complete.
//!
//! That name is the image's with [`SUFFIX`] behind it, and the file is locked (flock) by the process that writes it. So a
//! file of that name that nobody has locked was left by a process that was killed: it is removed, and begun anew. Invariants:
//! * what has the image's own name is complete;
//! * who writes to the other name has it locked, and has checked since that the name is still that of his file.

use std::fs::{File, Metadata, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::io::Errno;

/// An image that is being written. Dropped before it is kept, nothing is left of it, and a file that was to be overwritten is
/// as it was.
#[derive(Debug)]
pub(crate) struct ImageFile {
    file: File,
    path: PathBuf,
    partial: PathBuf,
    overwrite: bool,
}

/// Why an image cannot be made. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImageFileError {
    /// There is something of that name.
    #[error("{path} is there already", path = path.display())]
    Exists { path: PathBuf },
    /// Somebody writes it.
    #[error("{path} is being written by another command: wait for its end", path = path.display())]
    InUse { path: PathBuf },
    /// What has the name of an unfinished image is none.
    #[error("{path} is there already, and is not an image that was left unfinished: remove it, or give another path", path = path.display())]
    Foreign { path: PathBuf },
    /// The operating system refuses.
    #[error("cannot make {path}: {source}", path = path.display())]
    Io { path: PathBuf, source: io::Error },
}

impl ImageFile {
    /// Begins the image at `path`; with `overwrite`, in place of the file that is there.
    ///
    /// # Errors
    /// [`ImageFileError`].
    pub(crate) fn create(path: &Path, overwrite: bool) -> Result<Self, ImageFileError> {
        if !overwrite && path.symlink_metadata().is_ok() {
            return Err(ImageFileError::Exists { path: path.to_owned() });
        }
        let mut partial = path.as_os_str().to_owned();
        partial.push(SUFFIX);
        let partial = PathBuf::from(partial);
        for _ in 0..ATTEMPTS {
            if let Some(file) = begin(&partial)? {
                return Ok(Self { file, path: path.to_owned(), partial, overwrite });
            }
            remove_left(&partial)?;
        }
        Err(ImageFileError::InUse { path: partial })
    }

    /// What is written to; empty at first.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Gives it its name. Durable on return, where its contents are.
    ///
    /// # Errors
    /// [`ImageFileError::Exists`] where somebody else has made that file meanwhile, [`ImageFileError::Io`].
    pub(crate) fn keep(self) -> Result<(), ImageFileError> {
        let failed = |source| ImageFileError::Io { path: self.path.clone(), source };
        if self.overwrite {
            std::fs::rename(&self.partial, &self.path).map_err(failed)?;
        } else {
            // Fails where the name is taken, as a rename would not.
            std::fs::hard_link(&self.partial, &self.path).map_err(|error| match error.kind() {
                ErrorKind::AlreadyExists => ImageFileError::Exists { path: self.path.clone() },
                _ => failed(error),
            })?;
        }
        let directory = match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)
    }
}

impl Drop for ImageFile {
    fn drop(&mut self) {
        // After a rename it is no more, or somebody else's.
        if is_still(&self.file, &self.partial).unwrap_or(false) {
            let _ = std::fs::remove_file(&self.partial);
        }
    }
}

/// A new file of this name, locked; `None` where there is one.
fn begin(partial: &Path) -> Result<Option<File>, ImageFileError> {
    let failed = |source| ImageFileError::Io { path: partial.to_owned(), source };
    let file = match OpenOptions::new().read(true).write(true).create_new(true).mode(FILE_MODE).open(partial) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    // Between the two steps somebody may have taken it for one that was left, and removed it.
    match file.try_lock() {
        Ok(()) => Ok(is_still(&file, partial).map_err(failed)?.then_some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => {
            let _ = std::fs::remove_file(partial);
            Err(failed(error))
        }
    }
}

/// Removes what a process that was killed has left under this name.
fn remove_left(partial: &Path) -> Result<(), ImageFileError> {
    let failed = |source| ImageFileError::Io { path: partial.to_owned(), source };
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let opened = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(partial);
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => {
            return Err(ImageFileError::Foreign { path: partial.to_owned() });
        }
        Err(error) => return Err(failed(error)),
    };
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() || metadata.uid() != rustix::process::geteuid().as_raw() {
        return Err(ImageFileError::Foreign { path: partial.to_owned() });
    }
    match file.try_lock() {
        // Never emptied, but removed: it may have been given the image's name, too.
        Ok(()) if is_still(&file, partial).map_err(failed)? => std::fs::remove_file(partial).map_err(failed),
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(ImageFileError::InUse { path: partial.to_owned() }),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// Whether a path is that of this file.
fn is_still(file: &File, path: &Path) -> io::Result<bool> {
    let identity = |metadata: Metadata| (metadata.dev(), metadata.ino());
    match path.symlink_metadata() {
        Ok(there) => Ok(identity(there) == identity(file.metadata()?)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Nobody else calls a file like this.
const SUFFIX: &str = ".sterna-partial";
/// How often others may come in between.
const ATTEMPTS: usize = 8;
/// The contents of a disk are nobody else's business.
const FILE_MODE: u32 = 0o600;

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Write;

    fn path() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("disk.raw");
        (directory, path)
    }

    fn partial(path: &Path) -> PathBuf {
        PathBuf::from(format!("{}{SUFFIX}", path.display()))
    }

    fn write(path: &Path, overwrite: bool, text: &str) -> Result<(), ImageFileError> {
        let image = ImageFile::create(path, overwrite)?;
        image.file().write_all(text.as_bytes()).expect("a write");
        image.keep()
    }

    #[test]
    fn an_image_has_its_name_once_it_is_kept_and_leaves_nothing_before() {
        let (directory, path) = path();
        let image = ImageFile::create(&path, false).expect("a new image");
        assert!(!path.exists() && partial(&path).exists());
        drop(image);
        assert_eq!(fs::read_dir(directory.path()).expect("a directory").count(), 0);
        write(&path, false, "one").expect("an image");
        assert!(matches!(write(&path, false, "two"), Err(ImageFileError::Exists { .. })));
        write(&path, true, "two").expect("an image in place of the other");
        assert_eq!(fs::read(&path).expect("an image"), b"two");
        assert_eq!(fs::read_dir(directory.path()).expect("a directory").count(), 1);
    }

    #[test]
    fn an_image_is_written_by_one_at_a_time() {
        let (_directory, path) = path();
        let image = ImageFile::create(&path, false).expect("a new image");
        assert!(matches!(ImageFile::create(&path, false), Err(ImageFileError::InUse { .. })));
        assert!(matches!(ImageFile::create(&path, true), Err(ImageFileError::InUse { .. })));
        image.keep().expect("the first one goes on");
    }

    #[test]
    fn what_was_left_is_replaced() {
        let (directory, path) = path();
        fs::write(partial(&path), "half of an image, and longer than the next").expect("a file");
        write(&path, false, "whole").expect("an image");
        assert_eq!(fs::read(&path).expect("an image"), b"whole");
        // Killed between the two steps of `keep`, both names are those of the complete image.
        fs::hard_link(&path, partial(&path)).expect("a second name");
        let other = directory.path().join("other.raw");
        fs::hard_link(&path, &other).expect("a third name");
        write(&path, true, "next").expect("an image");
        assert_eq!(fs::read(&path).expect("an image"), b"next");
        assert_eq!(fs::read(&other).expect("what was complete"), b"whole");
        assert!(!partial(&path).exists());
    }

    #[test]
    fn what_is_no_image_is_refused_and_left_alone() {
        let (directory, path) = path();
        fs::create_dir(partial(&path)).expect("a directory");
        assert!(matches!(ImageFile::create(&path, false), Err(ImageFileError::Foreign { .. })));
        fs::remove_dir(partial(&path)).expect("a directory");
        let mine = directory.path().join("mine");
        fs::write(&mine, "mine").expect("a file");
        std::os::unix::fs::symlink(&mine, partial(&path)).expect("a link");
        assert!(matches!(ImageFile::create(&path, false), Err(ImageFileError::Foreign { .. })));
        assert_eq!(fs::read(&mine).expect("a file"), b"mine");
    }
}
