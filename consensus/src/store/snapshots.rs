//! The last snapshot of the metadata, in pieces, and replaced in one step.
//!
//! How one replaces another:
//! 1. its pieces are written under the next serial number, without a sync;
//! 2. one synced batch names that serial number in `meta/snapshot` and takes the pieces of the one before out.
//!
//! What `open` does after a crash: before 2 the old one is named, and pieces of any other number are taken out; after 2 there
//! is nothing to do.
//!
//! Invariant: a snapshot that is named is complete, and was not made earlier in the log than the one before.

use std::sync::{Arc, Mutex, PoisonError};

use super::database::{Batch, Column, Database, Sync};
use super::record::{SnapshotRecord, from_json, to_json};
use super::{StoreError, blocking};
use crate::limits::SNAPSHOT_PIECE_BYTES;
use crate::raft::SnapshotMeta;

/// The last snapshot in a database. Its copies are the same.
#[derive(Clone, Debug)]
pub(super) struct Snapshots {
    database: Arc<Database>,
    /// The serial number of the next one. Held while one is written, so that two never mix.
    next_serial: Arc<Mutex<u64>>,
}

impl Snapshots {
    /// The snapshot in the database. Takes the remains of an unfinished one out. Blocks.
    pub(super) fn open(database: Arc<Database>) -> Result<Self, StoreError> {
        let current = read_record(&database)?.map(|record| record.serial);
        let mut remains = Batch::default();
        let mut highest = current.unwrap_or(0);
        for stored in database.iter_from(Column::Snapshot, &[]) {
            let (key, _) = stored?;
            let serial = serial_of(&database, &key)?;
            if Some(serial) != current {
                remains.delete(Column::Snapshot, &key);
            }
            highest = highest.max(serial);
        }
        database.write(remains, Sync::Later)?;
        Ok(Self { database, next_serial: Arc::new(Mutex::new(highest + 1)) })
    }

    /// The snapshot in a database that is only read: remains stay where they are.
    pub(super) fn unaltered(database: Arc<Database>) -> Self {
        Self { database, next_serial: Arc::default() }
    }

    /// The snapshot and its contents; `None` where there is none yet. Blocks.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] where the contents are not those that were written.
    pub(super) fn read(&self) -> Result<Option<(SnapshotMeta, Vec<u8>)>, StoreError> {
        let database = &self.database;
        let Some(record) = read_record(database)? else { return Ok(None) };
        let mut contents = Vec::new();
        for stored in database.iter_from(Column::Snapshot, &piece_key(record.serial, 0)) {
            let (key, piece) = stored?;
            if serial_of(database, &key)? != record.serial {
                break;
            }
            contents.extend_from_slice(&piece);
        }
        if contents.len() as u64 != record.bytes || crc32c::crc32c(&contents) != record.crc32c {
            let what = format!(
                "its snapshot has {} bytes, or a checksum, other than the {} that were written",
                contents.len(),
                record.bytes
            );
            return Err(StoreError::Damaged { dir: database.dir().to_owned(), what });
        }
        Ok(Some((record.meta(), contents)))
    }

    /// The same, where it is in nobody's way.
    ///
    /// # Errors
    /// As [`Snapshots::read`].
    pub(super) async fn load(&self) -> Result<Option<(SnapshotMeta, Vec<u8>)>, StoreError> {
        let own = self.clone();
        blocking(&self.database, move |_| own.read()).await
    }

    /// Replaces the snapshot, unless the one that is there is as new. Durable on return. Blocks.
    ///
    /// # Errors
    /// [`StoreError`]; then the one before is still there.
    pub(super) fn save(&self, meta: &SnapshotMeta, contents: &[u8]) -> Result<(), StoreError> {
        let mut next_serial = self.next_serial.lock().unwrap_or_else(PoisonError::into_inner);
        let current = read_record(&self.database)?;
        if current.as_ref().is_some_and(|current| current.meta().last_log_id > meta.last_log_id) {
            return Ok(());
        }
        let serial = *next_serial;
        *next_serial += 1;
        for (number, piece) in (0u32..).zip(contents.chunks(SNAPSHOT_PIECE_BYTES)) {
            let mut batch = Batch::default();
            batch.put(Column::Snapshot, &piece_key(serial, number), piece);
            self.database.write(batch, Sync::Later)?;
        }
        let mut batch = Batch::default();
        batch.put(Column::Meta, SNAPSHOT_KEY, to_json(&SnapshotRecord::new(serial, meta, contents)));
        batch.delete_range(Column::Snapshot, &piece_key(0, 0), &piece_key(serial, 0));
        self.database.write(batch, Sync::Durable)
    }

    /// The database that it is in.
    pub(super) fn database(&self) -> &Arc<Database> {
        &self.database
    }
}

fn read_record(database: &Database) -> Result<Option<SnapshotRecord>, StoreError> {
    let json = database.get(Column::Meta, SNAPSHOT_KEY)?;
    json.map(|json| from_json(database.dir(), "the snapshot's record", &json)).transpose()
}

fn piece_key(serial: u64, number: u32) -> [u8; PIECE_KEY_BYTES] {
    let mut key = [0; PIECE_KEY_BYTES];
    key[..8].copy_from_slice(&serial.to_be_bytes());
    key[8..].copy_from_slice(&number.to_be_bytes());
    key
}

fn serial_of(database: &Database, key: &[u8]) -> Result<u64, StoreError> {
    let serial = key.first_chunk().filter(|_| key.len() == PIECE_KEY_BYTES).copied().map(u64::from_be_bytes);
    serial.ok_or_else(|| StoreError::Damaged {
        dir: database.dir().to_owned(),
        what: format!("a key of its snapshot has {} bytes", key.len()),
    })
}

const SNAPSHOT_KEY: &[u8] = b"snapshot";
/// A serial number and the number of a piece.
const PIECE_KEY_BYTES: usize = 12;
