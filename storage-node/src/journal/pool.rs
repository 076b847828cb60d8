//! Journal files between two uses.
//!
//! A file is put to use in these steps; whatever a crash leaves of them, [`super::replay()`] finds a header that is not of
//! its volume, or a file without a record:
//! 1. take a file from the pool, or make one in its directory and allocate it;
//! 2. write its new header, with a salt that no record in it has, and sync it;
//! 3. give it its name in the journal of its volume;
//! 4. sync that directory. Only now is a record written to it.
//!
//! Nothing in the pool's directory is needed after a crash: opening the pool empties it.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use sterna_types::{BLOCK_SIZE, VolumeId};

use super::MAX_RECORD_BLOCKS;
use super::file::{FIRST_RECORD, FileHeader, FileNumber, JournalFile, JournalNote};
use super::log::JournalError;
use crate::disk::{Disk, DiskFile};

/// Salts that nobody can guess who does not know the seed.
#[derive(Debug)]
pub struct SaltSource {
    seed: [u8; 32],
    drawn: AtomicU64,
}

impl SaltSource {
    /// Salts from a seed that is random, and another one for each run of the process; in a simulation, the run's own.
    pub fn new(seed: [u8; 32]) -> Self {
        Self { seed, drawn: AtomicU64::new(0) }
    }

    fn draw(&self) -> u64 {
        let count = self.drawn.fetch_add(1, Ordering::Relaxed);
        let hash = blake3::keyed_hash(&self.seed, &count.to_le_bytes());
        let mut salt = [0; 8];
        salt.copy_from_slice(&hash.as_bytes()[..8]);
        u64::from_le_bytes(salt)
    }
}

/// The journal files of a data directory that no volume uses, and the making of new ones.
#[derive(Debug)]
pub struct JournalPool {
    disk: Arc<dyn Disk>,
    salts: SaltSource,
    /// Bytes that a new journal file leaves free in the data directory, for sealing and for collecting garbage.
    reserve_bytes: u64,
    /// Bytes of each file.
    file_bytes: u64,
    idle: Mutex<Idle>,
}

#[derive(Debug, Default)]
struct Idle {
    files: Vec<(String, Arc<dyn DiskFile>)>,
    /// For names in the pool's directory.
    made: u64,
}

impl JournalPool {
    /// The pool of a data directory, empty at first. Its files have `file_bytes`; making one leaves `reserve_bytes` free.
    ///
    /// # Panics
    /// Where a file would not have room for a record of one block.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(disk: Arc<dyn Disk>, salts: SaltSource, file_bytes: u64, reserve_bytes: u64) -> io::Result<Self> {
        assert!(file_bytes >= MIN_FILE_BYTES, "a journal's file has room for a record");
        disk.create_dir(DIRECTORY)?;
        for name in disk.list(DIRECTORY)? {
            disk.remove(&format!("{DIRECTORY}/{name}"))?;
        }
        Ok(Self { disk, salts, reserve_bytes, file_bytes, idle: Mutex::default() })
    }

    /// Bytes of each file, from before it gets its name.
    pub(super) fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// The disk that the files are on.
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// A file for `volume`, empty and durable under its name in `directory`, with `note` in its header.
    ///
    /// # Errors
    /// [`JournalError::Full`] where the reserve would be touched, [`JournalError::Io`].
    pub fn take(
        &self,
        volume: VolumeId,
        directory: &str,
        number: FileNumber,
        note: JournalNote,
    ) -> Result<JournalFile, JournalError> {
        let (pooled, file) = match self.take_idle() {
            Some(idle) => idle,
            None => self.make()?,
        };
        let header = FileHeader { volume, number, salt: self.salts.draw(), note };
        let path = format!("{directory}/{}", number.file_name());
        let failed = |path: &str| {
            let path = path.to_owned();
            move |source| JournalError::from_io(path, source)
        };
        // The first page is written whole, so that it is not read before it. Records of an earlier use, which have been
        // sealed since, need never reach the disk.
        file.write_durably_at(0, &[&header.encode_page()]).map_err(failed(&pooled))?;
        self.disk.rename(&pooled, &path).map_err(failed(&pooled))?;
        self.disk.sync_dir(directory).map_err(failed(directory))?;
        Ok(JournalFile { file, header, length: self.file_bytes, path })
    }

    /// Has a file ready for the next volume that takes one.
    ///
    /// # Errors
    /// As [`JournalPool::take`].
    pub fn stock(&self) -> Result<(), JournalError> {
        if self.idle().files.is_empty() {
            let made = self.make()?;
            self.idle().files.push(made);
        }
        Ok(())
    }

    /// Takes a file back that no overlay, reader or replay knows any more.
    ///
    /// # Errors
    /// What the system says; then the file stays where it is, and the next opening of its volume removes it.
    pub fn give_back(&self, file: JournalFile) -> io::Result<()> {
        let keep = self.idle().files.len() < MAX_IDLE && file.file.size()? == self.file_bytes;
        if !keep {
            return self.disk.remove(&file.path);
        }
        let pooled = self.new_path();
        self.disk.rename(&file.path, &pooled)?;
        self.idle().files.push((pooled, file.file));
        Ok(())
    }

    /// The most blocks that one record may have, so that it fits a file.
    pub fn max_record_blocks(&self) -> u64 {
        MAX_RECORD_BLOCKS.min((self.file_bytes - FIRST_RECORD - RECORD_HEADER_BYTES) / BLOCK_SIZE)
    }

    /// Removes the files that nobody uses, to make space.
    ///
    /// # Errors
    /// [`JournalError::Io`].
    pub fn shrink(&self) -> Result<(), JournalError> {
        while let Some((path, _)) = self.take_idle() {
            self.disk.remove(&path).map_err(|source| JournalError::Io { path, source })?;
        }
        Ok(())
    }

    fn take_idle(&self) -> Option<(String, Arc<dyn DiskFile>)> {
        self.idle().files.pop()
    }

    fn make(&self) -> Result<(String, Arc<dyn DiskFile>), JournalError> {
        let path = self.new_path();
        let failed = |source| JournalError::from_io(path.clone(), source);
        if self.disk.available_bytes().map_err(failed)? < self.reserve_bytes + self.file_bytes {
            return Err(JournalError::Full);
        }
        let file = self.disk.create(&path).map_err(failed)?;
        match file.allocate(self.file_bytes) {
            Ok(()) => Ok((path, file)),
            Err(source) => {
                // What it got of the space is needed elsewhere; where even that fails, the next start removes it.
                let _ = self.disk.remove(&path);
                Err(failed(source))
            }
        }
    }

    fn new_path(&self) -> String {
        let mut idle = self.idle();
        idle.made += 1;
        format!("{DIRECTORY}/{:016x}", idle.made)
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Room for a record of one block.
const MIN_FILE_BYTES: u64 = FIRST_RECORD + RECORD_HEADER_BYTES + BLOCK_SIZE;

/// Bytes of a record beside its blocks.
const RECORD_HEADER_BYTES: u64 = super::record::HEADER_BYTES as u64;

const DIRECTORY: &str = "journal-pool";

/// The most files kept for later use: 1 GiB, as much as a burst of writing on one volume needs by itself, or several share.
const MAX_IDLE: usize = 64;
