//! Changing a volume: every change is a record of the journal first, then a run of the overlay.
//!
//! One writer at a time holds the turn from the append to the overlay, so that both have the same order. Whole blocks are
//! all that is ever written: a request that begins or ends within a block reads that block first, and is done again where
//! another write came in between.

use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{MutexGuard, PoisonError};

use sterna_types::{BLOCK_SIZE, ByteOffset, ByteRange, DeviceError};

use super::error::VolumeError;
use super::overlay::Source;
use super::read::blocks_of;
use super::volume::Volume;
use crate::journal::record::RecordKind;

/// The right to append: whoever holds [`Volume::writing`].
pub(super) type Turn<'a> = MutexGuard<'a, ()>;

impl Volume {
    /// Writes `data` at `at`. On return it survives the end of the process; power loss, after the next [`Volume::flush`].
    ///
    /// # Errors
    /// [`VolumeError`]; then each block of the range holds its old or its new content.
    pub fn write(&self, at: ByteOffset, data: &[u8]) -> Result<(), VolumeError> {
        let range = self.check_change(at, data.len() as u64)?;
        if range.is_empty() {
            return Ok(());
        }
        if range.is_aligned_to(BLOCK_SIZE) {
            let turn = self.turn()?;
            return self.append_data(&turn, blocks_of(range).start, data, RecordKind::Data);
        }
        let blocks = blocks_of(range);
        let whole = whole_range(&blocks);
        let length = usize::try_from(whole.length()).map_err(|_| DeviceError::NoSpace)?;
        let skip = usize::try_from(at.0 - whole.start().0).map_err(|_| DeviceError::NoSpace)?;
        let mut bytes = vec![0; length];
        bytes[skip..skip + data.len()].copy_from_slice(data);
        let edges = [0..skip, skip + data.len()..length];
        self.with_blocks_around(&whole, &edges, &mut bytes, |turn, bytes| {
            self.append_data(turn, blocks.start, bytes, RecordKind::Data)
        })
    }

    /// The same for whole blocks, if the journal has plenty of room for them now; `None` where it has not, and nothing has
    /// happened.
    pub fn write_now(&self, at: ByteOffset, data: &[u8]) -> Option<Result<(), VolumeError>> {
        if self.pace().is_zero() { self.write_paced(at, data) } else { None }
    }

    /// The same for who has waited for as long as [`Volume::wait_for_room`] has it.
    pub fn write_paced(&self, at: ByteOffset, data: &[u8]) -> Option<Result<(), VolumeError>> {
        let range = match self.check_change(at, data.len() as u64) {
            Ok(range) => range,
            Err(error) => return Some(Err(error)),
        };
        let is_one_record =
            range.length() <= self.journal.max_record_blocks() * BLOCK_SIZE && range.is_aligned_to(BLOCK_SIZE);
        if !is_one_record || !self.has_room() || !self.journal.has_room_for(range.length()) {
            return None;
        }
        let turn = self.writing.try_lock().ok()?;
        // Another writer may have taken the room, and then this one waits for a file; that is rare and short.
        Some(
            self.check_writable()
                .and_then(|()| self.append_data(&turn, blocks_of(range).start, data, RecordKind::Data)),
        )
    }

    /// Makes the bytes of a range read as zeroes, and gives their space back.
    ///
    /// # Errors
    /// [`VolumeError`]; then each byte of the range is what it was, or zero.
    pub fn zero(&self, range: ByteRange) -> Result<(), VolumeError> {
        self.check_change(range.start(), range.length())?;
        if range.is_empty() {
            return Ok(());
        }
        let whole = range.start().0.div_ceil(BLOCK_SIZE)..range.end().0 / BLOCK_SIZE;
        if whole.start > whole.end {
            return self.write(range.start(), &vec![0; usize::try_from(range.length()).unwrap_or_default()]);
        }
        // Each edge is less than a block.
        for edge in [range.start().0..whole.start * BLOCK_SIZE, whole.end * BLOCK_SIZE..range.end().0] {
            if !edge.is_empty() {
                let zeroes = vec![0; usize::try_from(edge.end - edge.start).unwrap_or_default()];
                self.write(ByteOffset(edge.start), &zeroes)?;
            }
        }
        let turn = self.turn()?;
        self.append_hole(&turn, whole)
    }

    /// Makes every change durable that was acknowledged before this call.
    ///
    /// # Errors
    /// [`VolumeError`]; after a failed sync, for good.
    pub fn flush(&self) -> Result<(), VolumeError> {
        self.check_open()?;
        self.journal.sync()?;
        Ok(())
    }

    /// The same, where little was written since the last flush and nobody else flushes; `None` where it is not so, and nothing
    /// has happened.
    pub fn flush_little(&self) -> Option<Result<(), VolumeError>> {
        if let Err(error) = self.check_open() {
            return Some(Err(error));
        }
        Some(self.journal.sync_little()?.map_err(VolumeError::from))
    }

    /// Whether the journal is below its limit.
    pub fn has_room(&self) -> bool {
        self.unsealed_bytes.load(Ordering::Acquire) < self.storage.options.journal_limit_bytes
    }

    /// Has the journal's next file ready in time; what [`Volume::write_now`] relies on.
    ///
    /// # Errors
    /// [`VolumeError`]; nothing is lost by it.
    pub fn prepare_journal(&self) -> Result<(), VolumeError> {
        self.check_open()?;
        Ok(self.journal.prepare()?)
    }

    pub(super) fn append_hole(&self, turn: &Turn<'_>, blocks: Range<u64>) -> Result<(), VolumeError> {
        if blocks.is_empty() {
            return Ok(());
        }
        let appended = self.journal.append(RecordKind::Hole, blocks.start, blocks.end - blocks.start, &[])?;
        self.feed(turn, appended.sequence, &blocks, &Source::Hole);
        self.note(turn, blocks, Source::Hole, 0, 0);
        Ok(())
    }

    pub(super) fn append_data(
        &self,
        turn: &Turn<'_>,
        first_block: u64,
        data: &[u8],
        kind: RecordKind,
    ) -> Result<(), VolumeError> {
        let mut first = first_block;
        // At most 1 MiB, a constant.
        for part in data.chunks(usize::try_from(self.journal.max_record_blocks() * BLOCK_SIZE).unwrap_or(usize::MAX)) {
            let count = part.len() as u64 / BLOCK_SIZE;
            let appended = self.journal.append(kind, first, count, part)?;
            let source = Source::Journal { file: appended.file, at: appended.payload_at };
            let counted = if kind == RecordKind::Data { count } else { 0 };
            self.feed(turn, appended.sequence, &(first..first + count), &source);
            self.note(turn, first..first + count, source, part.len() as u64, counted);
            first += count;
        }
        Ok(())
    }

    fn note(&self, _turn: &Turn<'_>, blocks: Range<u64>, source: Source, payload_bytes: u64, written_blocks: u64) {
        {
            let mut layers = self.layers_mut();
            layers.written_blocks += written_blocks;
            layers.active.insert(blocks, source);
        }
        self.changes.fetch_add(1, Ordering::Release);
        let bytes = crate::journal::record::HEADER_BYTES as u64 + payload_bytes;
        let before = self.unsealed_bytes.fetch_add(bytes, Ordering::AcqRel);
        let much = self.storage.options.seal_after_bytes;
        if before == 0 || (before < much && before + bytes >= much) {
            self.seal_wanted.notify_one();
        }
    }

    /// Fills the `edges` of `bytes`, the blocks of `whole`, with what the volume holds there, and hands them to `append`
    /// with the turn, no write having come in between.
    fn with_blocks_around(
        &self,
        whole: &ByteRange,
        edges: &[Range<usize>; 2],
        bytes: &mut [u8],
        append: impl Fn(&Turn<'_>, &[u8]) -> Result<(), VolumeError>,
    ) -> Result<(), VolumeError> {
        for _ in 0..OPTIMISTIC_TRIES {
            // Not what is in the journal: a record can be there that the overlay does not know yet.
            let seen = self.changes.load(Ordering::Acquire);
            self.fill_edges(whole, edges, bytes)?;
            let turn = self.turn()?;
            if self.changes.load(Ordering::Acquire) == seen {
                return append(&turn, bytes);
            }
        }
        // Others write all the time: what is read now is in memory after so many tries, and they wait for it.
        let turn = self.turn()?;
        self.fill_edges(whole, edges, bytes)?;
        append(&turn, bytes)
    }

    fn fill_edges(&self, whole: &ByteRange, edges: &[Range<usize>; 2], bytes: &mut [u8]) -> Result<(), VolumeError> {
        for edge in edges.iter().filter(|edge| !edge.is_empty()) {
            let start = ByteOffset(whole.start().0 + edge.start as u64);
            let range = ByteRange::new(start, edge.len() as u64).map_err(|_| DeviceError::NoSpace)?;
            let into = &mut bytes[edge.clone()];
            if self.read(range, into)? == sterna_types::device::ReadOutcome::Zeroes {
                into.fill(0);
            }
        }
        Ok(())
    }

    fn check_change(&self, at: ByteOffset, length: u64) -> Result<ByteRange, VolumeError> {
        self.check_writable()?;
        let size = self.size();
        let whole = ByteRange::between(at, ByteOffset(u64::MAX));
        let range = ByteRange::new(at, length).map_err(|_| DeviceError::OutOfRange { range: whole, size })?;
        if range.is_within(size) { Ok(range) } else { Err(DeviceError::OutOfRange { range, size }.into()) }
    }

    pub(super) fn turn(&self) -> Result<Turn<'_>, VolumeError> {
        let turn = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        // It may have been closed, or released, while this one waited.
        self.check_writable()?;
        Ok(turn)
    }

    fn check_writable(&self) -> Result<(), VolumeError> {
        self.check_open()?;
        if self.is_released() { Err(DeviceError::NotOwner.into()) } else { Ok(()) }
    }
}

fn whole_range(blocks: &Range<u64>) -> ByteRange {
    ByteRange::between(ByteOffset(blocks.start * BLOCK_SIZE), ByteOffset(blocks.end * BLOCK_SIZE))
}

/// How often a partial write reads its blocks without keeping other writers waiting.
const OPTIMISTIC_TRIES: usize = 3;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::volume::tests::{Machine, contents};
    use sterna_types::Root;

    #[test]
    fn a_record_that_is_not_in_the_overlay_yet_is_not_overwritten_with_what_was_there_before() {
        let machine = Machine::new();
        let volume = machine.volume(1, 1 << 20, Root::EMPTY);
        std::thread::scope(|scope| {
            let turn = volume.turn().expect("a turn");
            let appended = volume.journal.append(RecordKind::Data, 0, 1, &[1; 4096]).expect("a record");
            let partial = scope.spawn(|| volume.write(ByteOffset(0), &[2; 100]));
            // Time enough for the other to read the block as it was. Where that takes longer, nothing is tested.
            std::thread::sleep(Duration::from_millis(100));
            let source = Source::Journal { file: appended.file, at: appended.payload_at };
            volume.note(&turn, 0..1, source, 4096, 1);
            drop(turn);
            partial.join().expect("no panic").expect("a write");
        });
        let expected = [vec![2; 100], vec![1; 3996]].concat();
        assert!(contents(&volume, 0, 4096) == expected, "one write has undone the other");
    }
}
