//! Opening a volume, after a clean end as after a crash.
//!
//! 1. Read the volume's record: the root, and from which journal file on there is more. Without a record nothing was ever
//!    sealed here, and the metadata says what the volume holds.
//! 2. Replay the journal from there ([`crate::journal::replay()`]), and put every record into the overlay.
//! 3. Go on writing in a new file of the journal, behind the newest record.
//!
//! Nothing is sealed here: that is left to the sealer, so that opening takes no longer than reading the journal.

use std::sync::Arc;
use std::sync::Weak;

use super::error::VolumeError;
use super::overlay::{Overlay, Source};
use super::record::VolumeRecord;
use super::storage::{Storage, journal_directory};
use super::volume::{Layers, Volume, VolumeSpec};
use crate::chunk_store::StoreError;
use crate::journal::record::{RecordHeader, RecordKind, Sequence};
use crate::journal::{FileNumber, Journal, JournalFile, Replay, replay};

impl Volume {
    /// Opens a volume; the one that is open already, where it is.
    ///
    /// # Errors
    /// [`VolumeError`]; then nothing of it has been changed.
    pub fn open(storage: &Arc<Storage>, spec: &VolumeSpec) -> Result<Arc<Self>, VolumeError> {
        let mut open = storage.open();
        if let Some(volume) = open.get(&spec.id).and_then(Weak::upgrade) {
            return Ok(volume);
        }
        let volume = Self::recover(storage, spec)?;
        open.insert(spec.id, Arc::downgrade(&volume));
        Ok(volume)
    }

    fn recover(storage: &Arc<Storage>, spec: &VolumeSpec) -> Result<Arc<Self>, VolumeError> {
        let sealed = match storage.records.get(spec.id).map_err(StoreError::from)? {
            Some(bytes) => VolumeRecord::parse(spec.id, &bytes)?,
            None => VolumeRecord {
                root: spec.root,
                generation: spec.generation,
                epoch: spec.epoch,
                size_bytes: spec.size.bytes().0,
                sealed_through: Sequence(0),
                replay_from: FileNumber(1),
                checkpoint: None,
            },
        };
        let directory = journal_directory(spec.id);
        let failed = |source| StoreError::Io { path: directory.clone(), source };
        storage.disk.create_dir(&directory).map_err(failed)?;
        let begin = Replay { volume: spec.id, sealed_through: sealed.sealed_through, from: sealed.replay_from };
        let replayed = replay(&storage.pool, &directory, begin)?;
        let (active, unsealed_bytes) = overlay_of(&replayed.records);
        let journal = Journal::behind(spec.id, directory, Arc::clone(&storage.pool), &replayed);
        journal.set_note(VolumeRecord { size_bytes: spec.size.bytes().0, ..sealed }.encode_checkpoint(spec.id));
        let layers = Layers { active, frozen: None, sealed };
        Ok(Self::assemble(spec, Arc::clone(storage), journal, layers, unsealed_bytes))
    }
}

/// The overlay that these records make, and how many bytes of the journal they take.
pub(crate) fn overlay_of(records: &[(RecordHeader, Arc<JournalFile>, u64)]) -> (Overlay, u64) {
    let (mut overlay, mut bytes) = (Overlay::default(), 0);
    for (header, file, payload_at) in records {
        let source = match header.kind {
            RecordKind::Data => Source::Journal { file: Arc::clone(file), at: *payload_at },
            RecordKind::Hole => Source::Hole,
        };
        overlay.insert(header.first_block..header.first_block + header.block_count, source);
        bytes += header.record_bytes();
    }
    (overlay, bytes)
}
