//! Opening a volume, after a clean end as after a crash.
//!
//! 1. Read the volume's record: the root, and from which journal file on there is more. Without a record nothing was ever
//!    sealed here; then the journal says what it stands on, and without a journal the metadata what the volume holds. Where
//!    record or journal are of another epoch: refuse, and change nothing ([`VolumeError::OtherEpoch`]). Unless this node has
//!    reclaimed the volume, or kept a mirror of it, and it is the epoch in which it was left here: then the record is put anew,
//!    durably, in the epoch of now, with a generation that is none of those that were published.
//!    *It was left as before, or is here as if it had always been of the new epoch: the record counts, not the journal's notes.*
//! 2. Replay the journal from there ([`crate::journal::replay()`]), and put every record into the overlay, over the holes of a
//!    tail that came with a handoff and were not sealed yet.
//! 3. Go on writing in a new file of the journal, behind the newest record.
//!
//! Nothing is sealed here: that is left to the sealer, so that opening takes no longer than reading the journal.

use std::sync::Arc;

use sterna_types::Epoch;

use super::error::VolumeError;
use super::overlay::{BlockSet, Overlay, Source};
use super::record::VolumeRecord;
use super::storage::{Slot, Storage, lock};
use super::tail::Tail;
use super::volume::{Layers, Volume, VolumeSpec};
use crate::chunk_store::StoreError;
use crate::journal::record::{HEADER_BYTES, RecordHeader, RecordKind, Sequence};
use crate::journal::{FileNumber, Journal, JournalFile, Replay, replay};

impl Volume {
    /// Opens a volume; the one that is open already, where it is. Waits for whoever is opening the same one, and for nobody
    /// else.
    ///
    /// # Errors
    /// [`VolumeError`]; then nothing of it has been changed.
    pub fn open(storage: &Arc<Storage>, spec: &VolumeSpec) -> Result<Arc<Self>, VolumeError> {
        let slot = storage.slot(spec.id);
        let opened = Self::open_in(&slot, storage, spec);
        if opened.is_err() {
            storage.tidy(spec.id, &slot);
        }
        opened
    }

    fn open_in(slot: &Slot, storage: &Arc<Storage>, spec: &VolumeSpec) -> Result<Arc<Self>, VolumeError> {
        let mut slot = lock(slot);
        if let Some(volume) = slot.upgrade() {
            check_epoch(spec, volume.epoch())?;
            return Ok(volume);
        }
        let volume = Self::recover(storage, spec)?;
        *slot = Arc::downgrade(&volume);
        Ok(volume)
    }

    fn recover(storage: &Arc<Storage>, spec: &VolumeSpec) -> Result<Arc<Self>, VolumeError> {
        let (sealed, tail) = match storage.kept_with_tail(spec.id)? {
            Some((left, tail)) if spec.reclaimed == Some(left.epoch) => {
                // What a mirror has sealed has numbers of its own, and the owner may have published more of them.
                let next = if left.root == spec.root { spec.generation } else { spec.generation + 1 };
                let generation = left.generation.max(next);
                let record = VolumeRecord { epoch: spec.epoch, generation, is_mirror: false, ..left };
                storage.records.put(spec.id, record.encode(&tail)).map_err(StoreError::from)?;
                (record, tail)
            }
            Some((kept, tail)) => {
                check_epoch(spec, kept.epoch)?;
                (kept, tail)
            }
            None => (first_record(spec), Tail::EMPTY),
        };
        let directory = storage.make_directory(spec.id)?;
        let begin = Replay { volume: spec.id, sealed_through: sealed.sealed_through, from: sealed.replay_from };
        let replayed = replay(&storage.pool, &directory, begin)?;
        // What a mirror was about to begin anew with, and has not: nobody has relied on it.
        let counts = |header: &RecordHeader| {
            !header.kind.is_anew() || sealed.anew.is_some_and(|anew| header.sequence <= anew.through)
        };
        let (records, idle): (Vec<_>, Vec<_>) = replayed.records.iter().partition(|(header, ..)| counts(header));
        let (newer, mut unsealed_bytes) = overlay_of(records.iter().copied());
        unsealed_bytes += idle.iter().map(|(header, ..)| header.record_bytes()).sum::<u64>();
        let (mut active, mut absent) = (Overlay::default(), BlockSet::default());
        for hole in tail.holes() {
            active.insert(hole, Source::Hole);
            unsealed_bytes += HEADER_BYTES as u64;
        }
        active.put(&newer);
        tail.data().for_each(|data| absent.insert(data, ()));
        let journal = Journal::behind(spec.id, directory, Arc::clone(&storage.pool), &replayed);
        journal.set_note(VolumeRecord { size_bytes: spec.size.bytes().0, ..sealed }.encode_checkpoint(spec.id));
        let data = records.iter().filter(|(header, ..)| header.kind == RecordKind::Data);
        let anew_blocks = sealed.anew.map_or(0, |anew| anew.written_blocks);
        let written_blocks =
            sealed.written_blocks + anew_blocks + data.map(|(header, ..)| header.block_count).sum::<u64>();
        let layers = Layers { active, frozen: None, tail: absent, sealed, written_blocks };
        let volume = Self::assemble(spec, Arc::clone(storage), journal, layers, unsealed_bytes);
        volume.adopt_use();
        Ok(volume)
    }
}

/// What is true of a volume that was never sealed here.
pub(super) fn first_record(spec: &VolumeSpec) -> VolumeRecord {
    VolumeRecord {
        root: spec.root,
        generation: spec.generation,
        written_blocks: spec.written_blocks,
        epoch: spec.epoch,
        size_bytes: spec.size.bytes().0,
        sealed_through: Sequence(0),
        replay_from: FileNumber(1),
        checkpoint: None,
        is_mirror: false,
        anew: None,
    }
}

/// What another epoch has left stands on contents of its own: it is not for this one.
fn check_epoch(spec: &VolumeSpec, kept: Epoch) -> Result<(), VolumeError> {
    let VolumeSpec { id: volume, epoch: asked, .. } = *spec;
    if kept == asked { Ok(()) } else { Err(VolumeError::OtherEpoch { volume, kept, asked }) }
}

/// The overlay that these records make, and how many bytes of the journal they take.
pub(crate) fn overlay_of<'a>(
    records: impl IntoIterator<Item = &'a (RecordHeader, Arc<JournalFile>, u64)>,
) -> (Overlay, u64) {
    let (mut overlay, mut bytes) = (Overlay::default(), 0);
    for (header, file, payload_at) in records {
        let source = if header.kind.has_data() {
            Source::Journal { file: Arc::clone(file), at: *payload_at }
        } else {
            Source::Hole
        };
        overlay.insert(header.first_block..header.first_block + header.block_count, source);
        bytes += header.record_bytes();
    }
    (overlay, bytes)
}

#[cfg(test)]
mod tests {
    use sterna_types::{ByteOffset, Root, VolumeId};

    use super::*;
    use crate::chunk_store::StoreError;
    use crate::volume::storage::journal_directory;
    use crate::volume::tests::{Machine, contents, spec};

    #[test]
    fn an_open_that_is_stuck_holds_up_those_of_its_own_volume_only() {
        let machine = Machine::new();
        machine.disk.hold(&journal_directory(VolumeId(1)));
        let (one, other) = std::thread::scope(|scope| {
            let open = || machine.volume(1, 1 << 20, Root::EMPTY);
            let (one, other) = (scope.spawn(open), scope.spawn(open));
            while machine.disk.waiting() == 0 {
                std::thread::yield_now();
            }
            let elsewhere = machine.volume(2, 1 << 20, Root::EMPTY);
            elsewhere.write(ByteOffset(0), &[2; 4096]).expect("a write");
            elsewhere.close();
            assert!(contents(&machine.volume(2, 1 << 20, Root::EMPTY), 0, 4096) == [2; 4096]);
            assert!(!one.is_finished() && !other.is_finished());
            assert_eq!(
                machine.disk.waiting(),
                1,
                "the other waits for the first, and does not read the journal itself"
            );
            machine.disk.release();
            (one.join().expect("a volume"), other.join().expect("a volume"))
        });
        assert!(Arc::ptr_eq(&one, &other), "it is open twice");
    }

    #[test]
    fn a_volume_that_is_closed_again_does_not_make_room_for_a_second_one() {
        let machine = Machine::new();
        let old = machine.volume(1, 1 << 20, Root::EMPTY);
        old.close();
        let new = machine.volume(1, 1 << 20, Root::EMPTY);
        assert!(!Arc::ptr_eq(&old, &new));
        old.close();
        assert!(Arc::ptr_eq(&new, &machine.volume(1, 1 << 20, Root::EMPTY)));
    }

    #[test]
    fn a_volume_that_could_not_be_opened_can_be_opened_later() {
        let machine = Machine::new();
        machine.disk.fail_operation(1);
        let refused = Volume::open(&machine.storage, &spec(1, 1 << 20, Root::EMPTY));
        assert!(matches!(refused, Err(VolumeError::Store(StoreError::Io { .. }))), "{refused:?}");
        machine.volume(1, 1 << 20, Root::EMPTY).write(ByteOffset(0), &[1; 4096]).expect("a write");
    }
}
