//! What a node keeps of the volumes that it has, or once had: finding out what that is, and forgetting it.
//!
//! A volume that another node has taken over goes on elsewhere in a later epoch, and what is left of it here is a branch of its
//! history. [`Storage::kept`] says of which epoch that is; opened as it was left ([`VolumeSpec::of_kept`](super::VolumeSpec::of_kept)),
//! it is sealed and its root gets a name of its own; and only then it is forgotten ([`Storage::remove_volume`]). Until then
//! the volume does not open here in another epoch.
//!
//! The steps of forgetting a volume, and what a crash behind each of them leaves:
//! 1. Remove the record, durably. *What is left of the journal still says of which epoch it is, in the headers of its files:
//!    it does not open in another one.*
//! 2. Remove the files of the journal, the oldest first, and make that durable: those too which a seal has given back may have
//!    their names until then. *Any of them may be there: as before.*
//! 3. Remove the directories. *An empty one is nothing.*

use std::io;

use sterna_types::VolumeId;

use super::error::VolumeError;
use super::record::VolumeRecord;
use super::storage::{Storage, VOLUMES, journal_directory, volume_directory};
use super::tail::Tail;
use crate::chunk_store::{StoreError, chunk_id};
use crate::journal;

impl Storage {
    /// What this node keeps of a volume's own history: its record, or where nothing was ever sealed, what its journal stood on
    /// when its newest file was begun. `None` where there is neither: an empty journal is none.
    ///
    /// # Errors
    /// [`VolumeError`], also where a journal does not say what it stands on: nobody knows then what is here.
    pub fn kept(&self, volume: VolumeId) -> Result<Option<VolumeRecord>, VolumeError> {
        Ok(self.kept_with_tail(volume)?.map(|(record, _)| record))
    }

    /// The same, with the part of the volume that has not arrived.
    pub(super) fn kept_with_tail(&self, volume: VolumeId) -> Result<Option<(VolumeRecord, Tail)>, VolumeError> {
        if let Some(record) = self.record(volume)? {
            return Ok(Some(record));
        }
        let note = journal::newest_note(&*self.disk, &journal_directory(volume), volume)?;
        // A first seal may have put a record meanwhile, and given files of the journal back.
        if let Some(record) = self.record(volume)? {
            return Ok(Some(record));
        }
        let Some(note) = note else { return Ok(None) };
        match VolumeRecord::parse_checkpoint(&note, chunk_id(&note)) {
            // The note is no chunk of the store: what was never sealed has no checkpoint.
            Some((of, stood_on)) if of == volume => {
                Ok(Some((VolumeRecord { checkpoint: None, ..stood_on }, Tail::EMPTY)))
            }
            _ => Err(VolumeError::DamagedRecord { volume, what: "its journal does not say what it stands on" }),
        }
    }

    fn record(&self, volume: VolumeId) -> Result<Option<(VolumeRecord, Tail)>, VolumeError> {
        let bytes = self.records.get(volume).map_err(StoreError::from)?;
        bytes.map(|bytes| VolumeRecord::parse(volume, &bytes)).transpose()
    }

    /// The volumes that something is kept of here, in order: those with a record, and those with a journal.
    ///
    /// # Errors
    /// [`VolumeError`].
    pub fn kept_volumes(&self) -> Result<Vec<VolumeId>, VolumeError> {
        let mut volumes: Vec<_> =
            self.records.list().map_err(StoreError::from)?.into_iter().map(|(volume, _)| volume).collect();
        let failed = |source| StoreError::Io { path: VOLUMES.to_owned(), source };
        let names = self.disk.list(VOLUMES).map_err(failed)?;
        volumes.extend(names.iter().filter_map(|name| u64::from_str_radix(name, 16).ok()).map(VolumeId));
        volumes.sort_unstable();
        volumes.dedup();
        Ok(volumes)
    }

    /// The volumes that anything at all is kept of here, in order: those of [`Storage::kept_volumes`], and those about which something
    /// was promised.
    ///
    /// # Errors
    /// [`VolumeError`].
    pub fn known_volumes(&self) -> Result<Vec<VolumeId>, VolumeError> {
        let mut volumes = self.kept_volumes()?;
        volumes.extend(self.records.pledged().map_err(StoreError::from)?);
        volumes.sort_unstable();
        volumes.dedup();
        Ok(volumes)
    }

    /// Removes all that this node keeps of a volume that there is not any more and that is not open, what it has promised about it
    /// too. Durable on return. Its chunks go with the next collection.
    ///
    /// # Errors
    /// [`VolumeError`]; what is left then is found by [`Storage::known_volumes`].
    pub fn remove_deleted(&self, volume: VolumeId) -> Result<(), VolumeError> {
        self.remove_volume(volume)?;
        Ok(self.records.remove_pledge(volume).map_err(StoreError::from)?)
    }

    /// Removes what this node keeps of a volume that is not open: its record and its journal. Durable on return. Its chunks go
    /// with the next collection.
    ///
    /// # Errors
    /// [`VolumeError`]; then it may be partly there, and this can be called again. So it is after a crash.
    pub fn remove_volume(&self, volume: VolumeId) -> Result<(), VolumeError> {
        // The record first: a record without its journal would be taken for an older state of the volume.
        self.records.remove(volume).map_err(StoreError::from)?;
        self.forget_directory(volume);
        let directory = volume_directory(volume);
        let failed = |source| StoreError::Io { path: directory.clone(), source };
        let unless_absent = |done: io::Result<()>| match done {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
            _ => Ok(()),
        };
        let journal = journal_directory(volume);
        for name in self.disk.list(&journal).map_err(failed)? {
            self.disk.remove(&format!("{journal}/{name}")).map_err(failed)?;
        }
        unless_absent(self.disk.sync_dir(&journal))?;
        for path in [&journal, &directory] {
            unless_absent(self.disk.remove(path))?;
        }
        self.segments.forget(volume);
        Ok(())
    }
}
