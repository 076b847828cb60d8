//! Credentials and the authority as files, which survive a crash at any moment.
//!
//! | file | holds | who has it |
//! |---|---|---|
//! | `identity.pem` | a key, the certificate for it, the trusted authorities | every node |
//! | `authority.pem` | the authority's key and certificate | the nodes that may sign |
//!
//! A key and what belongs to it are in *one* file, so that no crash leaves a pair that does not match. Each file is
//! replaced in these steps, and so is an administrator's, which is the same file under another name, with a node's address in it:
//!
//! 1. `.NAME.new` is removed, if a crash left one, and made anew with mode 0600; the contents are written to it.
//! 2. It is synced.
//! 3. It is renamed to `NAME`.
//! 4. The directory is synced.
//!
//! | crash after | what a load finds |
//! |---|---|
//! | 1, 2 | the old file; the new one beside it is never read, and removed by the next store |
//! | 3 | the old file or the new one, each whole |
//! | 4 | the new file |
//!
//! A file that others may read is refused, rather than mended: whoever read it has the key.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::authority::{Authority, InvalidAuthorityText};
use crate::credentials::{Credentials, InvalidCredentials};
use crate::limits::MAX_FILE_BYTES;

/// The directory in which a node keeps its credentials. One user at a time may store into it.
#[derive(Clone, Debug)]
pub struct CredentialFiles {
    directory: PathBuf,
}

/// Why a file cannot be stored or loaded.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// It is not there.
    #[error("there is no {path}", path = path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The system does not let us.
    #[error("{path} cannot be {what}", path = path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was to be done with it.
        what: &'static str,
        /// Why it cannot.
        source: io::Error,
    },
    /// Others may read the key, or put another one there.
    #[error(
        "{path} holds a private key and others may read or change it (its mode is {mode:04o}); if nobody has, \
         `chmod 600 {path}`",
        path = path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its mode: the lowest twelve bits.
        mode: u32,
    },
    /// It is too long.
    #[error("{path} is longer than {MAX_FILE_BYTES} bytes, and nothing that belongs there is", path = path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// It holds no credentials.
    #[error("{path} holds no credentials that can be used", path = path.display())]
    Credentials {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: InvalidCredentials,
    },
    /// It does not say where a node is.
    #[error("{path} has no line '{NODE_LINE}ADDRESS:PORT': it is no administrator's identity", path = path.display())]
    NoNode {
        /// The file.
        path: PathBuf,
    },
    /// It holds no authority.
    #[error("{path} holds no authority that can be used", path = path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: InvalidAuthorityText,
    },
}

impl CredentialFiles {
    /// The files in this directory; nothing is looked at or made yet.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into() }
    }

    /// Where the credentials are.
    pub fn identity_path(&self) -> PathBuf {
        self.directory.join("identity.pem")
    }

    /// Where the authority is, on a node that may sign.
    pub fn authority_path(&self) -> PathBuf {
        self.directory.join("authority.pem")
    }

    /// Replaces the credentials; they are durable when this returns. The directory is made (mode 0700), if it is not
    /// there; what it is in has to be.
    ///
    /// # Errors
    /// [`FilesError`]; then the old ones or the new ones are there.
    pub fn store(&self, credentials: &Credentials) -> Result<(), FilesError> {
        self.make_directory()?;
        replace(&self.identity_path(), credentials.to_pem().as_bytes())
    }

    /// Reads the credentials.
    ///
    /// # Errors
    /// [`FilesError`]; [`FilesError::Missing`] where there are none.
    pub fn load(&self) -> Result<Credentials, FilesError> {
        let path = self.identity_path();
        Credentials::from_pem(&read(&path)?).map_err(|source| FilesError::Credentials { path, source })
    }

    /// Replaces the authority; it is durable when this returns. The directory is made as by [`CredentialFiles::store`].
    ///
    /// # Errors
    /// [`FilesError`]; then the old one or the new one is there.
    pub fn store_authority(&self, authority: &Authority) -> Result<(), FilesError> {
        self.make_directory()?;
        replace(&self.authority_path(), authority.to_pem().as_bytes())
    }

    /// Reads the authority; `None` on a node that has none.
    ///
    /// # Errors
    /// [`FilesError`].
    pub fn load_authority(&self) -> Result<Option<Authority>, FilesError> {
        let path = self.authority_path();
        match read(&path) {
            Ok(text) => match Authority::from_pem(&text) {
                Ok(authority) => Ok(Some(authority)),
                Err(source) => Err(FilesError::Authority { path, source }),
            },
            Err(FilesError::Missing { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes the authority, if there is one; it is gone for good when this returns, as far as a file system promises.
    ///
    /// # Errors
    /// [`FilesError::Io`]; then it is there, or not.
    pub fn remove_authority(&self) -> Result<(), FilesError> {
        let path = self.authority_path();
        match fs::remove_file(&path) {
            Ok(()) => sync_directory(&self.directory),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(FilesError::Io { path, what: "removed", source }),
        }
    }

    fn make_directory(&self) -> Result<(), FilesError> {
        let path = &self.directory;
        match DirBuilder::new().mode(0o700).create(path) {
            Ok(()) => sync_directory(parent(path)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(source) => Err(FilesError::Io { path: path.clone(), what: "made", source }),
        }
    }
}

/// Writes an administrator's credentials, and where a node is, to a file of any name; they are durable when this returns.
///
/// # Errors
/// [`FilesError`]; then what was there before or the new file is there.
pub fn store_administrator(path: &Path, credentials: &Credentials, node: SocketAddr) -> Result<(), FilesError> {
    let head = format!("# {}: a secret, for `sterna --identity`.\n{NODE_LINE}{node}\n", credentials.identity());
    replace(path, (head + &credentials.to_pem()).as_bytes())
}

/// Reads what [`store_administrator`] has written.
///
/// # Errors
/// [`FilesError`]; so where others may read the file.
pub fn load_administrator(path: &Path) -> Result<(Credentials, SocketAddr), FilesError> {
    let text = read(path)?;
    let node = text.lines().find_map(|line| line.strip_prefix(NODE_LINE)?.parse().ok());
    let node = node.ok_or_else(|| FilesError::NoNode { path: path.to_owned() })?;
    let credentials =
        Credentials::from_pem(&text).map_err(|source| FilesError::Credentials { path: path.to_owned(), source })?;
    Ok((credentials, node))
}

fn read(path: &Path) -> Result<String, FilesError> {
    let failed = |what| move |source| FilesError::Io { path: path.to_owned(), what, source };
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(FilesError::Missing { path: path.to_owned() });
        }
        other => other.map_err(failed("opened"))?,
    };
    // Of the open file: the name may be another one's by now.
    let mode = file.metadata().map_err(failed("looked at"))?.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(FilesError::Exposed { path: path.to_owned(), mode });
    }
    let mut text = String::new();
    file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text).map_err(failed("read"))?;
    if text.len() as u64 > MAX_FILE_BYTES { Err(FilesError::TooLong { path: path.to_owned() }) } else { Ok(text) }
}

/// All steps, in order.
fn replace(path: &Path, contents: &[u8]) -> Result<(), FilesError> {
    let new = beside(path);
    let file = write_new(&new, contents)?;
    file.sync_all().map_err(|source| FilesError::Io { path: new.clone(), what: "synced", source })?;
    fs::rename(&new, path).map_err(|source| FilesError::Io { path: path.to_owned(), what: "replaced", source })?;
    sync_directory(parent(path))
}

/// Step 1.
fn write_new(new: &Path, contents: &[u8]) -> Result<File, FilesError> {
    let failed = |what| move |source| FilesError::Io { path: new.to_owned(), what, source };
    match fs::remove_file(new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("removed")(error)),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(new).map_err(failed("made"))?;
    file.write_all(contents).map_err(failed("written"))?;
    Ok(file)
}

fn sync_directory(path: &Path) -> Result<(), FilesError> {
    let failed = |source| FilesError::Io { path: path.to_owned(), what: "synced", source };
    File::open(path).and_then(|directory| directory.sync_all()).map_err(failed)
}

/// `.NAME.new`, in the same directory.
fn beside(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".new");
    path.with_file_name(name)
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// What stands before the address of a node.
const NODE_LINE: &str = "node ";

#[cfg(test)]
mod tests;
