//! Which operations of a simulated disk go wrong, and the record of them all.

use std::collections::VecDeque;
use std::io;

/// One change asked of a simulated disk. Reads are not counted: they leave nothing behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// [`Disk::create_dir`](crate::disk::Disk::create_dir).
    CreateDir(String),
    /// [`Disk::create`](crate::disk::Disk::create).
    Create(String),
    /// [`Disk::rename`](crate::disk::Disk::rename).
    Rename {
        /// The old name.
        from: String,
        /// The new name.
        to: String,
    },
    /// [`Disk::remove`](crate::disk::Disk::remove).
    Remove(String),
    /// [`Disk::sync_dir`](crate::disk::Disk::sync_dir).
    SyncDir(String),
    /// [`DiskFile::write_at`](crate::disk::DiskFile::write_at) or one of its kind, to the file that was opened by this name.
    Write {
        /// The file.
        path: String,
        /// Its first byte.
        at: u64,
        /// Bytes of all the parts.
        length: u64,
        /// `false` for [`DiskFile::write_unkept_at`](crate::disk::DiskFile::write_unkept_at).
        is_kept: bool,
    },
    /// [`DiskFile::sync`](crate::disk::DiskFile::sync).
    Sync(String),
    /// [`DiskFile::allocate`](crate::disk::DiskFile::allocate).
    Allocate {
        /// The file.
        path: String,
        /// How long it is to be.
        length: u64,
    },
    /// Of something else in the same machine: [`SimulatedDisk::count`](super::SimulatedDisk::count).
    Other(&'static str),
}

impl Operation {
    fn is_sync(&self) -> bool {
        matches!(self, Self::SyncDir(_) | Self::Sync(_))
    }
}

/// What becomes of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is done.
    Done,
    /// It fails, and the disk goes on.
    Refused,
    /// It is begun, and the machine stops before it has answered.
    Interrupted,
    /// It is not even begun: the machine has stopped.
    Dead,
}

impl Fate {
    /// Turns the result of what was done into the answer.
    pub(super) fn answer<T>(self, result: io::Result<T>) -> io::Result<T> {
        match self {
            Self::Done => result,
            Self::Refused => Err(io::Error::other("a fault that was asked for")),
            Self::Interrupted | Self::Dead => Err(io::Error::other("the simulated machine has stopped")),
        }
    }
}

/// The plan of faults, and what has been asked so far.
#[derive(Debug, Default)]
pub(super) struct Faults {
    pub(super) operations: u64,
    pub(super) log: VecDeque<Operation>,
    pub(super) crash_after: Option<u64>,
    pub(super) refuse: Option<u64>,
    pub(super) refuse_next_sync: bool,
    pub(super) refuse_next_read: bool,
    /// How many operations and reads have failed because they were told to.
    pub(super) refusals: u64,
    /// The directory whose listing waits, and how many do.
    pub(super) held: Option<String>,
    pub(super) waiting: usize,
}

impl Faults {
    /// Counts an operation and decides about it.
    pub(super) fn begin(&mut self, operation: Operation) -> Fate {
        let number = self.operations + 1;
        if self.is_dead() {
            self.refusals += 1;
            return Fate::Dead;
        }
        let fate = if self.crash_after.is_some_and(|last| number > last) {
            Fate::Interrupted
        } else if self.refuse == Some(number) || (self.refuse_next_sync && operation.is_sync()) {
            self.refuse_next_sync &= !operation.is_sync();
            Fate::Refused
        } else {
            Fate::Done
        };
        self.operations = number;
        self.refusals += u64::from(fate != Fate::Done);
        if self.log.len() == LOGGED_OPERATIONS {
            self.log.pop_front();
        }
        self.log.push_back(operation);
        fate
    }

    /// Whether a read is one that was told to fail.
    pub(super) fn take_read(&mut self) -> bool {
        let is_refused = std::mem::take(&mut self.refuse_next_read);
        self.refusals += u64::from(is_refused);
        is_refused
    }

    /// Whether the machine has stopped.
    pub(super) fn is_dead(&self) -> bool {
        self.crash_after.is_some_and(|last| self.operations > last)
    }
}

/// The record is for people who look at one failure: older operations than these do not explain it.
const LOGGED_OPERATIONS: usize = 1 << 16;
