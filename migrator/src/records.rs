//! What a migrator remembers: small files, one for each VM and each migration, which survive a crash at any moment.
//!
//! ```text
//! DIR/migrator/
//!   vms/NAME          a VM of this host
//!   outgoing/ID       a migration from here
//!   incoming/ID       a migration to here
//!   tokens/ID         a migration token that was used up here
//! ```
//!
//! Each is one line of JSON behind a line that says what it is: `sterna-migrator 1`. It is replaced in these steps:
//!
//! 1. `.new` is removed, if a crash left one, and made anew; the contents are written to it.
//! 2. It is synced.
//! 3. It is renamed.
//! 4. The directory is synced.
//!
//! After 1 and 2 there is the old file; `.new` is never read. After 3 there is the old one or the new one, each whole, and after 4 the new
//! one.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Records of one kind, in a directory of their own. One process at a time may use it.
#[derive(Debug)]
pub struct Records<T> {
    directory: PathBuf,
    of: PhantomData<fn() -> T>,
}

/// Why a record cannot be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The system does not let us.
    #[error("{} cannot be {what}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was to be done with it.
        what: &'static str,
        /// Why it cannot.
        source: io::Error,
    },
    /// A later version of Sterna has written it.
    #[error("{} is of format {found}, and this program knows {FORMAT}: use the program that wrote it", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// It is not what was written.
    #[error("{} is damaged: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
}

impl<T: Serialize + DeserializeOwned> Records<T> {
    /// Those in this directory, which is made if it is not there.
    ///
    /// # Errors
    /// [`RecordError::Io`].
    pub fn open(directory: impl Into<PathBuf>) -> Result<Self, RecordError> {
        let directory = directory.into();
        fs::create_dir_all(&directory).map_err(failed(&directory, "made"))?;
        if let Some(parent) = directory.parent() {
            sync(parent)?;
        }
        Ok(Self { directory, of: PhantomData })
    }

    /// All of them, by their names.
    ///
    /// # Errors
    /// [`RecordError`]: one cannot be read.
    pub fn all(&self) -> Result<BTreeMap<String, T>, RecordError> {
        let entries = fs::read_dir(&self.directory).map_err(failed(&self.directory, "listed"))?;
        let mut all = BTreeMap::new();
        for entry in entries {
            let entry = entry.map_err(failed(&self.directory, "listed"))?;
            let Some(name) = entry.file_name().to_str().filter(|name| *name != NEW).map(str::to_owned) else {
                continue;
            };
            let record = read(&entry.path())?;
            all.insert(name, record);
        }
        Ok(all)
    }

    /// Keeps a record, in place of the one of this name if there is one. Durable on return.
    ///
    /// # Errors
    /// [`RecordError::Io`]; it is not known then which of the two there is.
    pub fn put(&self, name: &str, record: &T) -> Result<(), RecordError> {
        let (new, path) = (self.directory.join(NEW), self.directory.join(name));
        let mut text = format!("{MAGIC} {FORMAT}\n").into_bytes();
        serde_json::to_writer(&mut text, record).expect("a record has nothing that JSON cannot say");
        text.push(b'\n');
        let written = || {
            let mut file = File::create(&new)?;
            file.write_all(&text)?;
            file.sync_all()
        };
        written().map_err(failed(&new, "written"))?;
        fs::rename(&new, &path).map_err(failed(&path, "replaced"))?;
        sync(&self.directory)
    }

    /// Forgets a record, if there is one. Durable on return.
    ///
    /// # Errors
    /// [`RecordError::Io`].
    pub fn remove(&self, name: &str) -> Result<(), RecordError> {
        let path = self.directory.join(name);
        match fs::remove_file(&path) {
            Ok(()) => sync(&self.directory),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(failed(&path, "removed")(error)),
        }
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T, RecordError> {
    let damaged = |what: String| RecordError::Damaged { path: path.to_owned(), what };
    let length = fs::metadata(path).map_err(failed(path, "read"))?.len();
    if length > MAX_BYTES {
        return Err(damaged(format!("it has {length} bytes")));
    }
    let text = fs::read_to_string(path).map_err(failed(path, "read"))?;
    let (first, rest) = text.split_once('\n').ok_or_else(|| damaged("it has no first line".to_owned()))?;
    let version = first.strip_prefix(MAGIC).and_then(|version| version.trim_start().parse().ok());
    match version {
        Some(FORMAT) => serde_json::from_str(rest).map_err(|error| damaged(error.to_string())),
        Some(found) if found > FORMAT => Err(RecordError::Newer { path: path.to_owned(), found }),
        _ => Err(damaged(format!("it begins with '{}'", first.escape_debug()))),
    }
}

fn sync(directory: &Path) -> Result<(), RecordError> {
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(failed(directory, "synced"))
}

fn failed(path: &Path, what: &'static str) -> impl FnOnce(io::Error) -> RecordError + use<> {
    let path = path.to_owned();
    move |source| RecordError::Io { path, what, source }
}

const MAGIC: &str = "sterna-migrator";

/// The version that this program writes.
const FORMAT: u32 = 1;

/// A name that no record has.
const NEW: &str = ".new";

/// A record has a command line at most: 128 KiB for each argument are Linux's own bound, and no machine has so long ones.
const MAX_BYTES: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn what_is_kept_is_there_for_the_next_one_who_looks() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("vms");
        let records = Records::<Value>::open(&path).unwrap();
        assert!(records.all().unwrap().is_empty());
        records.put("web", &json!({ "volumes": ["a"] })).unwrap();
        records.put("db", &json!({ "volumes": [] })).unwrap();
        records.put("web", &json!({ "volumes": ["a", "b"] })).unwrap();
        // A crash between the first step and the third.
        fs::write(path.join(NEW), "half of").unwrap();
        let records = Records::<Value>::open(&path).unwrap();
        let all = records.all().unwrap();
        assert_eq!(all.keys().collect::<Vec<_>>(), ["db", "web"]);
        assert_eq!(all["web"], json!({ "volumes": ["a", "b"] }));
        records.remove("db").unwrap();
        records.remove("db").unwrap();
        assert_eq!(records.all().unwrap().len(), 1);
        assert_eq!(fs::read_to_string(path.join("web")).unwrap(), "sterna-migrator 1\n{\"volumes\":[\"a\",\"b\"]}\n");
    }

    #[test]
    fn what_is_not_what_was_written_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let records = Records::<Value>::open(directory.path()).unwrap();
        for (text, expected) in [
            ("sterna-migrator 2\n{}\n", "is of format 2, and this program knows 1"),
            ("sterna-migrator 1\n{\n", "is damaged"),
            ("", "it has no first line"),
            ("other 1\n{}", "it begins with 'other 1'"),
        ] {
            fs::write(directory.path().join("web"), text).unwrap();
            let error = records.all().unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("web"), "{error}");
        }
    }
}
