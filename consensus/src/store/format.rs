//! The file `FORMAT`, which says that a directory holds Sterna's metadata and in which version it is written. It is read before
//! the database is opened, so that a program that is too old changes nothing.
//!
//! One line of text: `sterna-metadata 6`.
//!
//! | version | since | what |
//! |---|---|---|
//! | 6 | 0.7 | commands and fields about caches; what is written of the versions before is written as before |
//! | 5 | 0.6 | commands and fields about limits; what is written of the versions before is written as before |
//! | 4 | 0.5 | commands and fields about handoffs; what is written of the versions before is written as before |
//! | 3 | 0.4 | commands and fields about replicas; snapshots may be compressed; what is written of the versions before is written as before |
//! | 2 | 0.3 | commands and fields about several nodes; what is written of version 1 is written as before |
//! | 1 | 0.2 | the first: see `docs/on-disk-format.md` |
//!
//! A directory of an earlier version is raised when it is opened to be written to, before anything else is: the line is replaced
//! as it was made, so that there is the old one or the new one. From then on programs that know only the old one refuse it.
//!
//! How it comes to be:
//! 1. the directory is made, in one that is there;
//! 2. `FORMAT.new` is written and synced;
//! 3. it is renamed to `FORMAT`, and the directory is synced;
//! 4. the database is made, and the directory synced once more.
//!
//! What `open` does after a crash: before 3 there is no `FORMAT`, and the database directory is not there either; the next
//! one that may begins anew. After 3 the database is made, or finished, by the next one that may.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::path::Path;

use super::database::DATABASE_DIR;
use super::{Absent, StoreError};

/// The version that this program writes, and the highest that it reads.
pub(super) const FORMAT_VERSION: u32 = 6;

/// Whether there was something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Metadata that we can read.
    Known,
    /// Nothing; the directory has its `FORMAT` now.
    Made,
}

/// Checks the format of the metadata in `dir`, or writes it down where there is nothing and `absent` allows it.
///
/// # Errors
/// [`StoreError`]; nothing has changed, unless it is an [`StoreError::Io`] while writing.
pub(super) fn check_or_make(dir: &Path, absent: Absent) -> Result<Found, StoreError> {
    let failed = |source| StoreError::Io { dir: dir.to_owned(), source };
    match File::open(dir.join(FILE)) {
        Ok(mut file) => {
            let mut text = Vec::new();
            (&mut file).take(MAX_BYTES).read_to_end(&mut text).map_err(failed)?;
            check(dir, &text).map(|()| Found::Known)
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            if dir.join(DATABASE_DIR).exists() {
                let what = format!("there is a database, but no file {FILE} that says what it is");
                return Err(StoreError::Damaged { dir: dir.to_owned(), what });
            }
            if absent == Absent::Refuse {
                return Err(StoreError::NotThere { dir: dir.to_owned() });
            }
            make(dir).map_err(failed).map(|()| Found::Made)
        }
        Err(error) => Err(failed(error)),
    }
}

/// Raises the format of metadata that [`check_or_make`] has found to the one that this program writes. Durable on return.
///
/// # Errors
/// [`StoreError::Io`]; then the format is the old one or the new one.
pub(super) fn raise(dir: &Path) -> Result<(), StoreError> {
    let failed = |source| StoreError::Io { dir: dir.to_owned(), source };
    let text = fs::read(dir.join(FILE)).map_err(failed)?;
    match version_of(&text) {
        Some(version) if version < FORMAT_VERSION => write(dir).map_err(failed),
        _ => Ok(()),
    }
}

fn version_of(text: &[u8]) -> Option<u32> {
    let line = std::str::from_utf8(text).ok()?.strip_suffix('\n')?;
    line.strip_prefix(MAGIC)?.strip_prefix(' ')?.parse().ok()
}

fn check(dir: &Path, text: &[u8]) -> Result<(), StoreError> {
    match version_of(text) {
        None | Some(0) => {
            let what = format!("its file {FILE} is not '{MAGIC}' and a version");
            Err(StoreError::Damaged { dir: dir.to_owned(), what })
        }
        Some(found) if found > FORMAT_VERSION => {
            Err(StoreError::NewerFormat { dir: dir.to_owned(), found, known: FORMAT_VERSION })
        }
        Some(_) => Ok(()),
    }
}

fn make(dir: &Path) -> io::Result<()> {
    match fs::create_dir(dir) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        File::open(parent)?.sync_all()?;
    }
    write(dir)
}

fn write(dir: &Path) -> io::Result<()> {
    let new = dir.join(NEW_FILE);
    let mut file = File::create(&new)?;
    writeln!(file, "{MAGIC} {FORMAT_VERSION}")?;
    file.sync_all()?;
    fs::rename(&new, dir.join(FILE))?;
    File::open(dir)?.sync_all()
}

const FILE: &str = "FORMAT";
const NEW_FILE: &str = "FORMAT.new";
const MAGIC: &str = "sterna-metadata";
/// More than any version's line.
const MAX_BYTES: u64 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_made_only_where_it_may_be_and_known_from_then_on() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("metadata");
        assert!(matches!(check_or_make(&dir, Absent::Refuse), Err(StoreError::NotThere { .. })));
        assert!(!dir.exists());
        assert_eq!(check_or_make(&dir, Absent::Create).unwrap(), Found::Made);
        assert_eq!(check_or_make(&dir, Absent::Refuse).unwrap(), Found::Known);
        assert_eq!(fs::read_to_string(dir.join(FILE)).unwrap(), "sterna-metadata 6\n");
    }

    #[test]
    fn what_an_earlier_version_wrote_is_known_and_raised_only_to_be_written_to() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(FILE);
        for earlier in 1..FORMAT_VERSION {
            let line = format!("sterna-metadata {earlier}\n");
            fs::write(&file, &line).unwrap();
            assert_eq!(check_or_make(dir.path(), Absent::Refuse).unwrap(), Found::Known);
            assert_eq!(fs::read_to_string(&file).unwrap(), line);
            raise(dir.path()).unwrap();
            assert_eq!(fs::read_to_string(&file).unwrap(), "sterna-metadata 6\n");
            raise(dir.path()).unwrap();
            assert_eq!(check_or_make(dir.path(), Absent::Refuse).unwrap(), Found::Known);
        }
    }

    #[test]
    fn what_a_newer_version_wrote_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), "sterna-metadata 7\n").unwrap();
        let error = check_or_make(dir.path(), Absent::Create).expect_err("a newer format");
        assert!(matches!(error, StoreError::NewerFormat { found: 7, known: 6, .. }), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_no_format_file_is_called_damaged() {
        let dir = tempfile::tempdir().unwrap();
        for text in ["", "sterna-metadata 1", "sterna-metadata 0\n", "something 1\n", "sterna-metadata x\n"] {
            fs::write(dir.path().join(FILE), text).unwrap();
            let error = check_or_make(dir.path(), Absent::Create).expect_err(text);
            assert!(error.to_string().contains(dir.path().to_str().unwrap()), "{error}");
            assert!(matches!(error, StoreError::Damaged { .. }), "{text}: {error}");
        }
    }

    #[test]
    fn a_database_without_its_format_file_is_called_damaged() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(DATABASE_DIR)).unwrap();
        let error = check_or_make(dir.path(), Absent::Create).expect_err("a database of nobody");
        assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    }
}
