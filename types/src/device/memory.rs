//! A sparse disk in memory: for tests, for measuring a server without a disk behind it, and for scratch disks.
//!
//! It keeps the segments that were written, each with one bit per block that says whether the block is there. Invariant:
//! the bytes of a block whose bit is clear are zero. Nothing of it survives the process, so `flush` has nothing to do.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;

use super::{
    Allocation, BlockDevice, DeviceError, DeviceFuture, Geometry, Inline, Persistence, ReadData, ReadOutcome,
    StatusRun, ZeroRequest, check_range, checked_range, push_run,
};
use crate::units::{BLOCK_SIZE, ByteOffset, ByteRange, ByteSize, SEGMENT_SIZE, SegmentIndex};

const BITMAP_WORDS: usize = BLOCKS_IN_SEGMENT / 64;
const BLOCKS_IN_SEGMENT: usize = 1024;
const BLOCK_BYTES: usize = 4096;
const SEGMENT_BYTES: usize = BLOCKS_IN_SEGMENT * BLOCK_BYTES;
const _: () = assert!(SEGMENT_BYTES as u64 == SEGMENT_SIZE && BLOCK_BYTES as u64 == BLOCK_SIZE);

/// A sparse disk in memory. It takes as much memory as the segments that were written have pages touched.
///
/// ```
/// use sterna_types::device::{BlockDevice, Inline, MemoryDevice, Persistence, ReadOutcome};
/// use sterna_types::{ByteOffset, ByteSize};
///
/// let disk = MemoryDevice::new(ByteSize(20 << 30));
/// assert!(matches!(disk.try_write(ByteOffset(512), b"some bytes", Persistence::AtNextFlush), Inline::Done(Ok(()))));
/// let mut bytes = [0; 10];
/// assert!(matches!(disk.try_read(ByteOffset(512), &mut bytes), Inline::Done(Ok(ReadOutcome::Filled))));
/// assert_eq!(&bytes, b"some bytes");
/// ```
#[derive(Debug)]
pub struct MemoryDevice {
    size: ByteSize,
    minimum_io_bytes: u32,
    segments: RwLock<BTreeMap<SegmentIndex, RwLock<Segment>>>,
}

impl MemoryDevice {
    /// A disk of `size` bytes that reads as zeroes.
    pub fn new(size: ByteSize) -> Self {
        Self { size, minimum_io_bytes: 1, segments: RwLock::new(BTreeMap::new()) }
    }

    /// The same disk, which asks for requests aligned to `bytes`, a power of two up to 64 KiB; it takes others still.
    #[must_use]
    pub fn with_minimum_io(self, bytes: u32) -> Self {
        Self { minimum_io_bytes: bytes, ..self }
    }

    fn segments(&self) -> RwLockReadGuard<'_, BTreeMap<SegmentIndex, RwLock<Segment>>> {
        // No panic can leave a segment half changed in a way that its invariant forbids: bits are set after bytes.
        self.segments.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_into(&self, range: ByteRange, into: &mut [u8]) -> ReadOutcome {
        let segments = self.segments();
        let anything = range.per_segment().any(|(index, part)| {
            segments.get(&index).is_some_and(|segment| shared(segment).any_present(within(index, part)))
        });
        if !anything {
            return ReadOutcome::Zeroes;
        }
        let mut rest = into;
        for (index, part) in range.per_segment() {
            let place = within(index, part);
            let (here, behind) = rest.split_at_mut(place.end - place.start);
            match segments.get(&index) {
                Some(segment) => here.copy_from_slice(&shared(segment).data[place]),
                None => here.fill(0),
            }
            rest = behind;
        }
        ReadOutcome::Filled
    }

    fn change(&self, index: SegmentIndex, change: impl FnOnce(&mut Segment)) {
        if let Some(segment) = self.segments().get(&index) {
            return change(&mut exclusive(segment));
        }
        let mut segments = self.segments.write().unwrap_or_else(PoisonError::into_inner);
        let segment = segments.entry(index).or_insert_with(|| RwLock::new(Segment::new()));
        change(segment.get_mut().unwrap_or_else(PoisonError::into_inner));
    }

    fn write_from(&self, range: ByteRange, data: &[u8]) {
        let mut rest = data;
        for (index, part) in range.per_segment() {
            let place = within(index, part);
            let (here, behind) = rest.split_at(place.end - place.start);
            self.change(index, |segment| segment.write(place, here));
            rest = behind;
        }
    }

    /// Makes holes: O(segments of the range that exist).
    fn punch(&self, range: ByteRange) {
        let whole_from = SegmentIndex(range.start().0.div_ceil(SEGMENT_SIZE));
        let whole_to = range.end().segment();
        let mut segments = self.segments.write().unwrap_or_else(PoisonError::into_inner);
        if whole_from < whole_to {
            let mut behind = segments.split_off(&whole_from);
            segments.append(&mut behind.split_off(&whole_to));
        }
        let edges = [range.start().segment(), range.end().segment()];
        let distinct = if edges[0] == edges[1] { &edges[..1] } else { &edges[..] };
        for &index in distinct {
            let bounds = ByteRange::between(
                range.start().max(index.start()),
                range.end().min(ByteOffset(index.start().0.saturating_add(SEGMENT_SIZE))),
            );
            if let Some(segment) = segments.get_mut(&index).filter(|_| !bounds.is_empty()) {
                segment.get_mut().unwrap_or_else(PoisonError::into_inner).punch(within(index, bounds));
            }
        }
    }

    fn status(&self, range: ByteRange, max_runs: usize) -> Vec<StatusRun<Allocation>> {
        let segments = self.segments();
        let mut runs = Vec::new();
        let mut at = range.start();
        while at < range.end() && runs.len() <= max_runs {
            let end = match segments.range(at.segment()..).next() {
                Some((&index, segment)) if index == at.segment() => {
                    let end = range.end().min(ByteOffset(index.start().0 + SEGMENT_SIZE));
                    shared(segment).status(within(index, ByteRange::between(at, end)), &mut runs);
                    end
                }
                next => {
                    let end = next.map_or(range.end(), |(index, _)| index.start().min(range.end()));
                    push_run(&mut runs, end.0 - at.0, Allocation::Hole);
                    end
                }
            };
            at = end;
        }
        runs.truncate(max_runs);
        runs
    }
}

impl BlockDevice for MemoryDevice {
    fn geometry(&self) -> Geometry {
        Geometry {
            size: self.size,
            minimum_io_bytes: self.minimum_io_bytes,
            preferred_io_bytes: 4096,
            read_only: false,
            can_judge_fast_zeroes: true,
            rotational: false,
        }
    }

    fn try_read(&self, at: ByteOffset, into: &mut [u8]) -> Inline<ReadOutcome> {
        Inline::Done(checked_range(at, into.len(), self.size).map(|range| self.read_into(range, into)))
    }

    fn try_write(&self, at: ByteOffset, data: &[u8], _persistence: Persistence) -> Inline<()> {
        Inline::Done(checked_range(at, data.len(), self.size).map(|range| self.write_from(range, data)))
    }

    fn read(&self, range: ByteRange) -> DeviceFuture<'_, ReadData> {
        Box::pin(async move {
            check_range(range, self.size)?;
            let length = usize::try_from(range.length()).map_err(|_| DeviceError::NoSpace)?;
            let mut bytes = vec![0; length];
            Ok(match self.read_into(range, &mut bytes) {
                ReadOutcome::Filled => ReadData::Bytes(bytes.into()),
                ReadOutcome::Zeroes => ReadData::Zeroes,
            })
        })
    }

    fn write(&self, at: ByteOffset, data: Bytes, _persistence: Persistence) -> DeviceFuture<'_, ()> {
        Box::pin(async move {
            let range = checked_range(at, data.len(), self.size)?;
            self.write_from(range, &data);
            Ok(())
        })
    }

    fn write_zeroes(&self, request: ZeroRequest) -> DeviceFuture<'_, ()> {
        Box::pin(async move {
            check_range(request.range, self.size)?;
            self.punch(request.range);
            if request.keep_allocated {
                for (index, part) in request.range.per_segment() {
                    self.change(index, |segment| segment.mark_present(within(index, part)));
                }
            }
            Ok(())
        })
    }

    fn trim(&self, range: ByteRange, _persistence: Persistence) -> DeviceFuture<'_, ()> {
        Box::pin(async move {
            check_range(range, self.size)?;
            self.punch(range);
            Ok(())
        })
    }

    fn flush(&self) -> DeviceFuture<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    fn prefetch(&self, range: ByteRange) -> DeviceFuture<'_, ()> {
        Box::pin(async move { check_range(range, self.size) })
    }

    fn allocation(&self, range: ByteRange, max_runs: usize) -> DeviceFuture<'_, Vec<StatusRun<Allocation>>> {
        Box::pin(async move {
            check_range(range, self.size)?;
            let runs = self.status(range, max_runs);
            if runs.is_empty() { Err(DeviceError::OutOfRange { range, size: self.size }) } else { Ok(runs) }
        })
    }
}

/// The places in a segment, in bytes, that a range within that segment has.
type Place = std::ops::Range<usize>;

#[expect(clippy::cast_possible_truncation, reason = "a place in a segment is below 4 MiB")]
fn within(index: SegmentIndex, part: ByteRange) -> Place {
    let start = (part.start().0 - index.start().0) as usize;
    start..start + part.length() as usize
}

fn shared(segment: &RwLock<Segment>) -> RwLockReadGuard<'_, Segment> {
    segment.read().unwrap_or_else(PoisonError::into_inner)
}

fn exclusive(segment: &RwLock<Segment>) -> RwLockWriteGuard<'_, Segment> {
    segment.write().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug)]
struct Segment {
    data: Box<[u8]>,
    present: [u64; BITMAP_WORDS],
}

impl Segment {
    fn new() -> Self {
        // Zeroed pages come from the operating system one by one as they are touched.
        Self { data: vec![0; SEGMENT_BYTES].into_boxed_slice(), present: [0; BITMAP_WORDS] }
    }

    fn blocks(place: &Place) -> std::ops::Range<usize> {
        place.start / BLOCK_BYTES..place.end.div_ceil(BLOCK_BYTES)
    }

    fn is_present(&self, block: usize) -> bool {
        self.present[block / 64] & 1 << (block % 64) != 0
    }

    fn any_present(&self, place: Place) -> bool {
        Self::blocks(&place).any(|block| self.is_present(block))
    }

    fn mark_present(&mut self, place: Place) {
        Self::blocks(&place).for_each(|block| self.present[block / 64] |= 1 << (block % 64));
    }

    fn write(&mut self, place: Place, data: &[u8]) {
        self.data[place.clone()].copy_from_slice(data);
        self.mark_present(place);
    }

    fn punch(&mut self, place: Place) {
        let whole = place.start.div_ceil(BLOCK_BYTES)..place.end / BLOCK_BYTES;
        self.data[place].fill(0);
        whole.for_each(|block| self.present[block / 64] &= !(1 << (block % 64)));
    }

    fn status(&self, place: Place, runs: &mut Vec<StatusRun<Allocation>>) {
        let mut at = place.start;
        while at < place.end {
            let block = at / BLOCK_BYTES;
            let end = ((block + 1) * BLOCK_BYTES).min(place.end);
            let status = if self.is_present(block) { Allocation::Data } else { Allocation::Hole };
            push_run(runs, (end - at) as u64, status);
            at = end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::conformance;

    #[tokio::test]
    async fn a_memory_device_keeps_the_contract() {
        conformance::run(MemoryDevice::new).await;
    }

    #[tokio::test]
    async fn trimming_a_huge_range_costs_what_is_there() {
        let device = MemoryDevice::new(ByteSize(64 << 40));
        device.write_from(ByteRange::between(ByteOffset(40 << 40), ByteOffset((40 << 40) + 4096)), &[7; 4096]);
        let all = ByteRange::between(ByteOffset(0), ByteOffset(64 << 40));
        assert_eq!(device.status(all, 10).len(), 3);
        device.trim(all, Persistence::AtNextFlush).await.expect("a trim of everything");
        assert_eq!(device.status(all, 10), vec![StatusRun { length: 64 << 40, status: Allocation::Hole }]);
        assert!(device.segments().is_empty());
    }
}
