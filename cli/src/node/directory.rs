//! The data directory of a node: its making, and its taking into use.
//!
//! | name | what |
//! |---|---|
//! | `format` | version and identity ([`super::format`]); there from the moment on at which the directory is complete |
//! | `LOCK` | locked by the process that uses the directory |
//! | `sterna.toml` | settings, the administrator's ([`super::config`]) |
//! | `pki` | the node's key and certificate ([`super::credentials`]) |
//! | `metadata` | Raft's log and state, the consensus crate's |
//! | `index`, `packs`, `journal-pool`, `volumes` | the storage engine's |
//! | `bucket` | what is known of the bucket, a cache ([`super::bucket`]) |
//! | `nbd.sock`, `admin.sock` | sockets of the running node |
//! | `migrator`, `migrator.sock` | what the migrator beside it remembers, and its socket ([`super::migrator`]) |
//!
//! How a directory is made, and what is done about one whose making was interrupted behind each step:
//! 1. It is made, and locked. *It is empty but for `LOCK`: as good as new.*
//! 2. `format.new` is written and synced. *It is told by this file: `run` refuses it, `init` removes what was made after
//!    it, and begins anew. Nothing in it was ever acknowledged to anybody.*
//! 3. The parts are made, each durable. *The same.*
//! 4. `format.new` is renamed to `format`, and the directory synced. *It is complete.*

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sterna_storage_node::disk::{OpenDiskError, SystemDisk};

use super::credentials::PKI;
use super::format::{Identity, InvalidFormat};

/// A complete data directory, taken for this process alone.
#[derive(Debug)]
pub(crate) struct DataDirectory {
    root: PathBuf,
    identity: Identity,
    disk: Arc<SystemDisk>,
}

/// Why a directory cannot be used, or made. Nothing in it was changed, unless another thing is said.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DirectoryError {
    /// It is not there.
    #[error("there is no directory {path}: make a node with `sterna node init {path} …`", path = path.display())]
    NotThere { path: PathBuf },
    /// It is something else.
    #[error("{path} is not the data directory of a node: make one with `sterna node init`, in a new directory", path = path.display())]
    Foreign { path: PathBuf },
    /// Its making came to no end.
    #[error("the making of {path} was interrupted, nothing is in it yet: repeat `sterna node init`", path = path.display())]
    Interrupted { path: PathBuf },
    /// There is a node already.
    #[error("{path} is the data directory of node '{node}' already: give another directory", path = path.display())]
    Complete { path: PathBuf, node: String },
    /// A node is to be made where there is something else.
    #[error("{path} is not empty, and '{name}' in it is none of a node's: give an empty directory, or a new one", path = path.display())]
    NotEmpty { path: PathBuf, name: String },
    /// Its file `format` does not make sense to this program.
    #[error("{path}: {what}", path = path.display())]
    Format { path: PathBuf, what: InvalidFormat },
    /// It is in use, or cannot be locked.
    #[error(transparent)]
    Disk(#[from] OpenDiskError),
    /// The operating system refused.
    #[error("cannot use {path}", path = path.display())]
    Io { path: PathBuf, source: io::Error },
}

impl DataDirectory {
    /// Takes the complete directory at `path` for this process.
    ///
    /// # Errors
    /// [`DirectoryError`].
    pub(crate) fn open(path: &Path) -> Result<Self, DirectoryError> {
        let (root, identity) = Self::find(path)?;
        let disk = Arc::new(SystemDisk::open(&root)?);
        Ok(Self { root, identity, disk })
    }

    /// Where the complete directory at `path` is, and whose; for what runs beside the node that uses it.
    ///
    /// # Errors
    /// [`DirectoryError`].
    pub(crate) fn find(path: &Path) -> Result<(PathBuf, Identity), DirectoryError> {
        let root = fs::canonicalize(path).map_err(|source| match source.kind() {
            ErrorKind::NotFound => DirectoryError::NotThere { path: path.to_owned() },
            _ => DirectoryError::Io { path: path.to_owned(), source },
        })?;
        // Before the lock: where there is no node, no file of ours is left behind.
        let identity = read_format(&root)?.ok_or_else(|| match root.join(UNFINISHED).exists() {
            true => DirectoryError::Interrupted { path: root.clone() },
            false => DirectoryError::Foreign { path: root.clone() },
        })?;
        Ok((root, identity))
    }

    /// Which node it belongs to.
    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Where it is; absolute.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Its files, for the storage engine.
    pub(crate) fn disk(&self) -> &Arc<SystemDisk> {
        &self.disk
    }

    /// The directory of the metadata.
    pub(crate) fn metadata(&self) -> PathBuf {
        self.root.join(METADATA)
    }

    /// The directory of the index.
    pub(crate) fn index(&self) -> PathBuf {
        self.root.join(INDEX)
    }

    /// The settings.
    pub(crate) fn config(&self) -> PathBuf {
        self.root.join(CONFIG)
    }

    /// The socket for NBD clients.
    pub(crate) fn nbd_socket(&self) -> PathBuf {
        self.root.join(NBD_SOCKET)
    }

    /// The socket for administrators.
    pub(crate) fn admin_socket(&self) -> PathBuf {
        self.root.join(ADMIN_SOCKET)
    }
}

/// A data directory that is being made, and locked. Dropped before it was completed, it leaves nothing behind, as far as
/// that is possible.
#[derive(Debug)]
pub(crate) struct UnfinishedDirectory {
    directory: DataDirectory,
    was_made: bool,
    is_complete: bool,
}

impl UnfinishedDirectory {
    /// Steps 1 and 2: makes the directory at `path`, or takes it if it is empty or its making was interrupted.
    ///
    /// # Errors
    /// [`DirectoryError`].
    pub(crate) fn begin(path: &Path, identity: Identity) -> Result<Self, DirectoryError> {
        let failed = |source| DirectoryError::Io { path: path.to_owned(), source };
        let was_made = match DirBuilder::new().mode(DIRECTORY_MODE).create(path) {
            Ok(()) => true,
            Err(error) if error.kind() == ErrorKind::AlreadyExists && path.is_dir() => false,
            Err(error) => return Err(failed(error)),
        };
        let root = fs::canonicalize(path).map_err(failed)?;
        check_unused(&root)?;
        let disk = Arc::new(SystemDisk::open(&root)?);
        // Again, now that nobody else makes one here.
        check_unused(&root)?;
        let mut unfinished = Self { directory: DataDirectory { root, identity, disk }, was_made, is_complete: false };
        unfinished.restart().map_err(failed)?;
        Ok(unfinished)
    }

    /// What is there of it.
    pub(crate) fn directory(&self) -> &DataDirectory {
        &self.directory
    }

    /// Writes the settings. Durable once it is complete.
    ///
    /// # Errors
    /// [`DirectoryError::Io`].
    pub(crate) fn write_config(&self, text: &str) -> Result<(), DirectoryError> {
        let path = self.directory.config();
        write_synced(&path, text).map_err(|source| DirectoryError::Io { path, source })
    }

    /// Step 4: all parts are there, and durable. So is this, on return.
    ///
    /// # Errors
    /// [`DirectoryError::Io`].
    pub(crate) fn complete(mut self) -> Result<(), DirectoryError> {
        let root = self.directory.root.clone();
        let rename = || {
            sync_directory(&root)?;
            fs::rename(root.join(UNFINISHED), root.join(FORMAT))?;
            sync_directory(&root)?;
            sync_directory(root.parent().unwrap_or(&root))
        };
        rename().map_err(|source| DirectoryError::Io { path: root.clone(), source })?;
        self.is_complete = true;
        Ok(())
    }

    fn restart(&mut self) -> io::Result<()> {
        let root = &self.directory.root;
        remove_parts(root)?;
        write_synced(&root.join(UNFINISHED), &self.directory.identity.to_string())?;
        sync_directory(root)
    }
}

impl Drop for UnfinishedDirectory {
    fn drop(&mut self) {
        let root = &self.directory.root;
        // Where it was renamed and only the sync failed, it is complete for all that anybody knows.
        if self.is_complete || root.join(FORMAT).exists() {
            return;
        }
        // What cannot be removed is told from a node by the missing `format`.
        let removed = remove_parts(root).and_then(|()| fs::remove_file(root.join(UNFINISHED)));
        if removed.is_ok() && fs::remove_file(root.join(SystemDisk::LOCK)).is_ok() && self.was_made {
            let _ = fs::remove_dir(root);
        }
    }
}

/// The identity of the node whose directory `root` is; `None` where it is no complete one.
fn read_format(root: &Path) -> Result<Option<Identity>, DirectoryError> {
    let path = root.join(FORMAT);
    match fs::read(&path) {
        Ok(bytes) => {
            let text = String::from_utf8_lossy(&bytes);
            Identity::parse(&text).map(Some).map_err(|what| DirectoryError::Format { path, what })
        }
        Err(source) if source.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(DirectoryError::Io { path, source }),
    }
}

/// Refuses where there is a node, or anything that is none of an unfinished node's.
fn check_unused(root: &Path) -> Result<(), DirectoryError> {
    if let Some(identity) = read_format(root)? {
        return Err(DirectoryError::Complete { path: root.to_owned(), node: identity.node.to_string() });
    }
    let failed = |source| DirectoryError::Io { path: root.to_owned(), source };
    let was_interrupted = root.join(UNFINISHED).exists();
    for entry in fs::read_dir(root).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
        let is_ours = name == SystemDisk::LOCK || name == UNFINISHED || (was_interrupted && PARTS.contains(&&*name));
        if !is_ours {
            return Err(DirectoryError::NotEmpty { path: root.to_owned(), name });
        }
    }
    Ok(())
}

fn remove_parts(root: &Path) -> io::Result<()> {
    for part in PARTS {
        let path = root.join(part);
        let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        match removed {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn write_synced(path: &Path, text: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(FILE_MODE).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

const FORMAT: &str = "format";
const UNFINISHED: &str = "format.new";
pub(super) const CONFIG: &str = "sterna.toml";
/// The socket for administrators.
pub(crate) const ADMIN_SOCKET: &str = "admin.sock";
/// The socket for NBD clients.
pub(crate) const NBD_SOCKET: &str = "nbd.sock";
const METADATA: &str = "metadata";
const INDEX: &str = "index";
/// What may be in an unfinished directory beside `LOCK` and `format.new`.
const PARTS: [&str; 7] = [CONFIG, METADATA, INDEX, PKI, "packs", "journal-pool", "volumes"];
/// Disks of virtual machines are nobody else's business.
const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

#[cfg(test)]
mod tests {
    use super::*;
    use sterna_types::ClusterId;

    fn identity() -> Identity {
        let (node, site) = ("ams-1".parse().expect("a name"), "ams".parse().expect("a name"));
        Identity { cluster: ClusterId::from_bytes([7; 16]), node, site }
    }

    fn names(path: &Path) -> Vec<String> {
        let entries = fs::read_dir(path).expect("a directory");
        let mut names: Vec<_> =
            entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    fn make(path: &Path) {
        let unfinished = UnfinishedDirectory::begin(path, identity()).expect("a new directory");
        unfinished.write_config("# nothing\n").expect("settings");
        unfinished.complete().expect("a complete directory");
    }

    #[test]
    fn a_directory_that_was_completed_can_be_opened_by_one_at_a_time() {
        let temp = tempfile::tempdir().expect("a directory");
        let path = temp.path().join("node");
        make(&path);
        let directory = DataDirectory::open(&path).expect("a complete directory");
        assert_eq!(directory.identity(), &identity());
        assert!(matches!(DataDirectory::open(&path), Err(DirectoryError::Disk(OpenDiskError::InUse { .. }))));
        drop(directory);
        assert!(matches!(UnfinishedDirectory::begin(&path, identity()), Err(DirectoryError::Complete { .. })));
        DataDirectory::open(&path).expect("the same directory");
    }

    #[test]
    fn what_is_given_up_leaves_nothing() {
        let temp = tempfile::tempdir().expect("a directory");
        let (new, empty) = (temp.path().join("new"), temp.path().join("empty"));
        fs::create_dir(&empty).expect("an empty directory");
        for path in [&new, &empty] {
            let unfinished = UnfinishedDirectory::begin(path, identity()).expect("a new directory");
            unfinished.write_config("# nothing\n").expect("settings");
            fs::create_dir(unfinished.directory().metadata()).expect("a part");
        }
        assert!(!new.exists());
        assert_eq!(names(&empty), [""; 0]);
    }

    #[test]
    fn what_was_interrupted_is_told_and_begun_anew() {
        let temp = tempfile::tempdir().expect("a directory");
        let path = temp.path().join("node");
        let mut unfinished = UnfinishedDirectory::begin(&path, identity()).expect("a new directory");
        fs::create_dir(unfinished.directory().metadata()).expect("a part");
        // As a crash leaves it.
        unfinished.is_complete = true;
        drop(unfinished);
        assert!(matches!(DataDirectory::open(&path), Err(DirectoryError::Interrupted { .. })));
        make(&path);
        assert_eq!(names(&path), ["LOCK", "format", "sterna.toml"]);
        DataDirectory::open(&path).expect("a complete directory");
    }

    #[test]
    fn other_peoples_directories_are_refused_and_left_alone() {
        let temp = tempfile::tempdir().expect("a directory");
        let path = temp.path();
        assert!(matches!(DataDirectory::open(&path.join("none")), Err(DirectoryError::NotThere { .. })));
        fs::write(path.join("metadata"), "mine").expect("a file");
        assert!(matches!(DataDirectory::open(path), Err(DirectoryError::Foreign { .. })));
        assert!(matches!(UnfinishedDirectory::begin(path, identity()), Err(DirectoryError::NotEmpty { .. })));
        assert_eq!(names(path), ["metadata"]);
    }

    #[test]
    fn a_directory_of_a_newer_version_is_refused_and_left_alone() {
        let temp = tempfile::tempdir().expect("a directory");
        let path = temp.path();
        fs::write(path.join(FORMAT), "STERNA-NODE 9\n").expect("a file");
        for error in [
            DataDirectory::open(path).expect_err("a newer version"),
            UnfinishedDirectory::begin(path, identity()).expect_err("a newer version"),
        ] {
            assert!(error.to_string().contains("it has version 9, and this program knows versions up to 1"), "{error}");
        }
        assert_eq!(names(path), [FORMAT]);
    }
}
