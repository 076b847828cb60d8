//! What a simulated disk holds: how it looks to those who use it, what is durable, and what lies in between.
//!
//! Invariant: `durable` with all of `pending` applied in order is `now`, for every directory, and for every file that has
//! seen no failed sync.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::ops::Range;

use super::contents::Contents;
use crate::disk::parent_and_name;

/// A file, whatever its names are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FileId(pub(super) u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    File(FileId),
    Directory,
}

impl Entry {
    fn file(self) -> Option<FileId> {
        match self {
            Self::File(id) => Some(id),
            Self::Directory => None,
        }
    }
}

pub(super) type Names = BTreeMap<String, Entry>;

#[derive(Clone, Debug)]
pub(super) enum NameChange {
    Add(String, Entry),
    Remove(String),
    Rename { from: String, to: String, entry: Entry },
}

impl NameChange {
    pub(super) fn apply(&self, names: &mut Names) {
        match self {
            Self::Add(name, entry) => {
                names.insert(name.clone(), *entry);
            }
            Self::Remove(name) => {
                names.remove(name);
            }
            Self::Rename { from, to, entry } => {
                names.remove(from);
                names.insert(to.clone(), *entry);
            }
        }
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Directory {
    pub(super) now: Names,
    pub(super) durable: Names,
    pub(super) pending: Vec<NameChange>,
}

impl Directory {
    fn change(&mut self, change: NameChange) {
        change.apply(&mut self.now);
        self.pending.push(change);
    }
}

#[derive(Clone, Debug)]
pub(super) enum Change {
    Write { at: u64, bytes: Vec<u8> },
    Allocate { length: u64 },
}

#[derive(Clone, Debug, Default)]
pub(super) struct FileState {
    pub(super) now: Contents,
    pub(super) durable: Contents,
    pub(super) pending: Vec<Change>,
    /// How many have it open.
    pub(super) handles: usize,
}

/// Directories by path, files by id.
#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) directories: BTreeMap<String, Directory>,
    pub(super) files: BTreeMap<FileId, FileState>,
    pub(super) next_file: u64,
    pub(super) capacity: Option<u64>,
}

impl State {
    pub(super) fn empty() -> Self {
        let directories = BTreeMap::from([(String::new(), Directory::default())]);
        Self { directories, files: BTreeMap::new(), next_file: 1, capacity: None }
    }

    pub(super) fn create_dir(&mut self, path: &str) -> io::Result<()> {
        let mut at = 0;
        while at < path.len() {
            let end = path[at..].find('/').map_or(path.len(), |slash| at + slash);
            let (parent, name) = parent_and_name(&path[..end])?;
            let parent = self.directory(parent)?;
            if matches!(parent.now.get(name), Some(Entry::File(_))) {
                return Err(ErrorKind::AlreadyExists.into());
            }
            parent.now.insert(name.to_owned(), Entry::Directory);
            sync_names(parent);
            self.directories.entry(path[..end].to_owned()).or_default();
            at = end + 1;
        }
        Ok(())
    }

    pub(super) fn list(&self, path: &str) -> Vec<String> {
        let names = self.existing(path).map(|directory| directory.now.keys().cloned().collect());
        names.unwrap_or_default()
    }

    pub(super) fn create(&mut self, path: &str) -> io::Result<FileId> {
        let (parent, name) = parent_and_name(path)?;
        let id = FileId(self.next_file);
        let parent = self.directory(parent)?;
        if parent.now.contains_key(name) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        parent.change(NameChange::Add(name.to_owned(), Entry::File(id)));
        self.next_file += 1;
        self.files.insert(id, FileState::default());
        Ok(id)
    }

    pub(super) fn lookup(&self, path: &str) -> io::Result<FileId> {
        let (parent, name) = parent_and_name(path)?;
        match self.existing(parent).and_then(|directory| directory.now.get(name)) {
            Some(Entry::File(id)) => Ok(*id),
            Some(Entry::Directory) => Err(ErrorKind::IsADirectory.into()),
            None => Err(ErrorKind::NotFound.into()),
        }
    }

    /// Between two directories it is two changes, and a crash may find either of them alone.
    pub(super) fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let entry = Entry::File(self.lookup(from)?);
        let ((from_dir, from), (to_dir, to)) = (parent_and_name(from)?, parent_and_name(to)?);
        let target = self.directory(to_dir)?;
        if target.now.get(to) == Some(&Entry::Directory) {
            return Err(ErrorKind::IsADirectory.into());
        }
        if from_dir == to_dir {
            target.change(NameChange::Rename { from: from.to_owned(), to: to.to_owned(), entry });
        } else {
            target.change(NameChange::Add(to.to_owned(), entry));
            self.directory(from_dir)?.change(NameChange::Remove(from.to_owned()));
        }
        Ok(())
    }

    pub(super) fn remove(&mut self, path: &str) -> io::Result<()> {
        let (parent, name) = parent_and_name(path)?;
        if self.existing(path).is_some_and(|directory| !directory.now.is_empty()) {
            return Err(ErrorKind::DirectoryNotEmpty.into());
        }
        let parent = self.directory(parent)?;
        if !parent.now.contains_key(name) {
            return Err(ErrorKind::NotFound.into());
        }
        parent.change(NameChange::Remove(name.to_owned()));
        Ok(())
    }

    pub(super) fn sync_dir(&mut self, path: &str) -> io::Result<()> {
        sync_names(self.directory(path)?);
        self.forget_unreachable();
        Ok(())
    }

    /// Writes as much as there is space for.
    pub(super) fn write(&mut self, id: FileId, at: u64, bytes: &[u8]) -> io::Result<()> {
        let free = self.available();
        let file = self.file(id)?;
        let mut fits = bytes.len();
        while file.now.space_for(at, fits) > free {
            fits = fits.saturating_sub(512);
        }
        file.now.write(at, &bytes[..fits]);
        file.pending.push(Change::Write { at, bytes: bytes[..fits].to_vec() });
        if fits == bytes.len() { Ok(()) } else { Err(ErrorKind::StorageFull.into()) }
    }

    pub(super) fn allocate(&mut self, id: FileId, length: u64) -> io::Result<()> {
        let free = self.available();
        let file = self.file(id)?;
        let mut larger = file.now.clone();
        if length <= larger.size() {
            return Ok(());
        }
        if length - larger.size() > free {
            return Err(ErrorKind::StorageFull.into());
        }
        larger.allocate(length);
        file.now = larger;
        file.pending.push(Change::Allocate { length });
        Ok(())
    }

    pub(super) fn sync(&mut self, id: FileId) -> io::Result<()> {
        self.sync_some(id, |_| true)
    }

    /// Makes a range of bytes durable, and the size of the file.
    pub(super) fn sync_range(&mut self, id: FileId, range: &Range<u64>) -> io::Result<()> {
        self.sync_some(id, |change| match change {
            Change::Write { at, bytes } => *at < range.end && at + bytes.len() as u64 > range.start,
            Change::Allocate { .. } => true,
        })
    }

    fn sync_some(&mut self, id: FileId, is_synced: impl Fn(&Change) -> bool) -> io::Result<()> {
        let file = self.file(id)?;
        for change in file.pending.extract_if(.., |change| is_synced(change)) {
            match change {
                Change::Write { at, bytes } => file.durable.write(at, &bytes),
                Change::Allocate { length } => file.durable.allocate(length),
            }
        }
        Ok(())
    }

    /// Space that is left; a disk without a limit has very much.
    pub(super) fn available(&self) -> u64 {
        let Some(capacity) = self.capacity else { return 1 << 50 };
        capacity.saturating_sub(self.taken())
    }

    /// How much space is taken.
    pub(super) fn taken(&self) -> u64 {
        let listed = self.directories.values().flat_map(|directory| directory.now.values());
        let named: BTreeSet<FileId> = listed.filter_map(|entry| entry.file()).collect();
        let taken = self.files.iter().filter(|(id, file)| file.handles > 0 || named.contains(id));
        taken.map(|(_, file)| file.now.used_bytes()).sum()
    }

    pub(super) fn file(&mut self, id: FileId) -> io::Result<&mut FileState> {
        self.files.get_mut(&id).ok_or_else(|| ErrorKind::NotFound.into())
    }

    /// Drops files that nobody has open and that have no name, now or after a crash.
    pub(super) fn forget_unreachable(&mut self) {
        let mut named = BTreeSet::new();
        for directory in self.directories.values() {
            named.extend(directory.now.values().chain(directory.durable.values()).filter_map(|entry| entry.file()));
            named.extend(directory.pending.iter().filter_map(|change| match change {
                NameChange::Add(_, entry) | NameChange::Rename { entry, .. } => entry.file(),
                NameChange::Remove(_) => None,
            }));
        }
        self.files.retain(|id, file| file.handles > 0 || named.contains(id));
    }

    fn existing(&self, path: &str) -> Option<&Directory> {
        let here = match parent_and_name(path) {
            Ok((parent, name)) => self.directories.get(parent)?.now.get(name) == Some(&Entry::Directory),
            Err(_) => path.is_empty(),
        };
        self.directories.get(path).filter(|_| here)
    }

    fn directory(&mut self, path: &str) -> io::Result<&mut Directory> {
        if self.existing(path).is_none() {
            return Err(ErrorKind::NotFound.into());
        }
        self.directories.get_mut(path).ok_or_else(|| ErrorKind::NotFound.into())
    }
}

fn sync_names(directory: &mut Directory) {
    directory.durable = directory.now.clone();
    directory.pending.clear();
}
