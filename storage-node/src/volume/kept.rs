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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use sterna_types::{BLOCK_SIZE, ByteOffset, Epoch, Root};

    use super::*;
    use crate::chunking::ChunkingParameters;
    use crate::disk::simulated::CrashMode;
    use crate::volume::tests::{Machine, contents, spec};
    use crate::volume::{Volume, VolumeSpec};

    const ID: VolumeId = VolumeId(1);

    fn epoch(number: u64) -> Epoch {
        Epoch::from_number(number).expect("an epoch")
    }

    fn open(machine: &Machine, number: u64) -> Result<Arc<Volume>, VolumeError> {
        Volume::open(&machine.storage, &VolumeSpec { epoch: epoch(number), ..spec(1, 1 << 20, Root::EMPTY) })
    }

    fn kept(machine: &Machine) -> Option<VolumeRecord> {
        machine.storage.kept(ID).expect("an answer")
    }

    fn write(volume: &Volume, block: u64, byte: u8) {
        volume.write(ByteOffset(block * BLOCK_SIZE), &[byte; 4096]).expect("a write");
    }

    /// That the volume does not open in epoch `asked`, since what is here is of epoch `found`; and that nothing is changed by it.
    fn assert_refused(machine: &Machine, asked: u64, found: u64) {
        let before = (machine.disk.operations(), kept(machine));
        let error = open(machine, asked).expect_err("what is here is of another epoch");
        let VolumeError::OtherEpoch { volume: ID, kept: of, asked: by } = error else { panic!("{error}") };
        assert_eq!((of, by), (epoch(found), epoch(asked)));
        assert_eq!((machine.disk.operations(), kept(machine)), before);
    }

    #[test]
    fn of_a_volume_that_nobody_wrote_nothing_is_kept() {
        let machine = Machine::new();
        assert_eq!(kept(&machine), None);
        open(&machine, 1).expect("a volume").close();
        assert_eq!(kept(&machine), None, "an empty journal is none");
        let machine = machine.killed();
        open(&machine, 2).expect("another epoch");
    }

    #[test]
    fn a_journal_says_what_it_stands_on_until_there_is_a_record() {
        let machine = Machine::new();
        let base = VolumeSpec { generation: 5, written_blocks: 100, ..spec(1, 1 << 20, Root::EMPTY) };
        let volume = Volume::open(&machine.storage, &base).expect("a volume");
        write(&volume, 3, 3);
        let stood_on = kept(&machine).expect("a journal");
        assert_eq!((stood_on.generation, stood_on.written_blocks, stood_on.epoch), (5, 100, Epoch::FIRST));
        assert_eq!((stood_on.root, stood_on.checkpoint), (Root::EMPTY, None));
        assert_eq!((volume.seal().expect("a seal").written_blocks, volume.status().written_blocks), (101, 101));
        write(&volume, 3, 4);
        assert_eq!(volume.sealed().written_blocks, 101, "it is not sealed");
        let record = kept(&machine).expect("a record");
        assert_eq!((record.generation, record.written_blocks), (6, 101));
        let machine = machine.killed();
        assert_eq!(kept(&machine), Some(record));
        let volume = Volume::open(&machine.storage, &base).expect("a volume");
        assert_eq!(volume.seal().expect("a seal").written_blocks, 102);
    }

    #[test]
    fn what_another_epoch_has_left_is_kept_as_a_branch_before_the_volume_opens() {
        for is_sealed in [false, true] {
            let machine = Machine::new();
            let volume = open(&machine, 1).expect("a volume");
            write(&volume, 1, 1);
            if is_sealed {
                volume.seal().expect("a seal");
            }
            write(&volume, 2, 2);
            assert_refused(&machine, 2, 1);
            let machine = machine.killed();
            assert_refused(&machine, 2, 1);

            let left = kept(&machine).expect("something");
            let branch = VolumeSpec::of_kept(&left, ID, ChunkingParameters::default()).expect("a size");
            let volume = Volume::open(&machine.storage, &branch).expect("the branch");
            let sealed = volume.seal().expect("a seal");
            assert_eq!((volume.epoch(), sealed.written_blocks), (epoch(1), 2));
            volume.close();
            assert_refused(&machine, 2, 1);
            machine.storage.remove_volume(ID).expect("it is forgotten");
            assert_eq!(kept(&machine), None);

            let volume = open(&machine, 2).expect("the volume");
            assert_eq!(contents(&volume, 0, 4 * 4096), [0; 4 * 4096], "nothing of the branch is in it");
            write(&volume, 1, 7);
            assert_refused(&machine, 1, 2);
            let machine = machine.killed();
            assert_refused(&machine, 1, 2);
            assert_eq!(contents(&open(&machine, 2).expect("the volume"), 4096, 4096), [7; 4096]);
            let clone = machine.volume(9, 1 << 20, sealed.root);
            assert_eq!(contents(&clone, 4096, 2 * 4096), [[1; 4096], [2; 4096]].concat());
        }
    }

    #[test]
    fn an_epoch_that_is_over_is_told_from_one_that_has_begun() {
        let said =
            |kept, asked| VolumeError::OtherEpoch { volume: ID, kept: epoch(kept), asked: epoch(asked) }.to_string();
        assert!(
            said(1, 2)
                .ends_with("epoch 1, and the volume is in epoch 2: what is here has to be kept as a branch first")
        );
        assert!(
            said(2, 1).ends_with("it was to be opened in epoch 1, which is over: the metadata says whose it is now")
        );
    }

    #[test]
    fn a_volume_whose_size_is_none_does_not_open_as_it_was_left() {
        let machine = Machine::new();
        write(&open(&machine, 1).expect("a volume"), 1, 1);
        let left = VolumeRecord { size_bytes: 4097, ..kept(&machine).expect("a journal") };
        let refused = VolumeSpec::of_kept(&left, ID, ChunkingParameters::default());
        assert!(matches!(refused, Err(VolumeError::DamagedRecord { volume: ID, .. })), "{refused:?}");
    }

    /// A volume of epoch 1 with a record, files of its journal that were given back, and some that were not.
    fn with_a_history() -> Machine {
        let machine = Machine::new();
        let volume = open(&machine, 1).expect("a volume");
        for round in 1..=3 {
            (0..40).for_each(|block| write(&volume, block, round));
            volume.flush().expect("a flush");
            if round < 3 {
                volume.seal().expect("a seal");
            }
        }
        volume.close();
        machine
    }

    #[test]
    fn a_volume_that_is_being_forgotten_opens_in_no_other_epoch_whenever_power_is_lost() {
        let mut interrupted = 0;
        for cut in 0.. {
            let machine = with_a_history();
            machine.disk.crash_after(cut);
            let is_removed = machine.storage.remove_volume(ID).is_ok();
            for (seed, mode) in (0..).zip(CrashMode::ALL.into_iter().cycle().take(2 * CrashMode::ALL.len())) {
                let found = machine.without_power(seed ^ cut, mode);
                if kept(&found).is_some() {
                    assert!(!is_removed, "it was forgotten, and is here again");
                    interrupted += 1;
                    assert_refused(&found, 2, 1);
                    found.storage.remove_volume(ID).expect("it is forgotten");
                    assert_eq!(kept(&found), None);
                }
                let volume = open(&found, 2).expect("the volume");
                assert_eq!(contents(&volume, 0, 40 * 4096), [0; 40 * 4096], "nothing of the old epoch is in it");
                write(&volume, 1, 9);
                volume.flush().expect("a flush");
                let again = found.without_power(seed, mode);
                assert_refused(&again, 1, 2);
                assert_eq!(contents(&open(&again, 2).expect("the volume"), 4096, 4096), [9; 4096]);
            }
            if is_removed {
                break;
            }
        }
        assert!(interrupted > 10, "{interrupted} were found half forgotten");
    }
}
