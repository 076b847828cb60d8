//! How an open volume is used: how often which part of it ([`crate::heat`]), and what is touched first after an attach
//! ([`crate::trace`]). By its clients, and by nobody else.

use std::ops::Range;
use std::sync::{Arc, MutexGuard};

use sterna_runtime::BootTime;
use sterna_types::{BLOCK_SIZE, ByteOffset, ByteRange, VolumeId};

use super::error::VolumeError;
use super::read::blocks_of;
use super::storage::{Storage, lock};
use super::volume::Volume;
use crate::chunk_store::StoreError;
use crate::trace::{Run, Seen, Trace, Traces};

/// The traces that an open volume has, beside that of the attach of now.
#[derive(Debug, Default)]
pub(super) struct Traced {
    /// Those of attaches before.
    before: Traces,
    /// How far the attach of now had come when it was kept last.
    kept_at: (u64, usize),
}

impl Volume {
    /// Counts a client's read.
    #[inline]
    pub(super) fn note_read(&self, range: ByteRange) {
        let (blocks, now) = (blocks_of(range), BootTime::now());
        self.heat.note_read(&blocks, now);
        self.touches.note(&blocks, now);
    }

    /// Counts a client's write of so many bytes. What it leaves of its first and last block is needed.
    #[inline]
    pub(super) fn note_write(&self, at: ByteOffset, bytes: usize) {
        if let Ok(range) = ByteRange::new(at, bytes as u64) {
            let (blocks, now) = (blocks_of(range), BootTime::now());
            self.heat.note_write(&blocks, now);
            let whole = range.start().0.div_ceil(BLOCK_SIZE)..range.end().0 / BLOCK_SIZE;
            if whole != blocks {
                self.note_edges(&blocks, &whole, now);
            }
            self.touches.note_overwritten(&whole, now);
        }
    }

    #[cold]
    fn note_edges(&self, blocks: &Range<u64>, whole: &Range<u64>, now: BootTime) {
        if whole.is_empty() {
            return self.touches.note(blocks, now);
        }
        for edge in [blocks.start..whole.start, whole.end..blocks.end] {
            self.touches.note(&edge, now);
        }
    }

    /// A client attaches where none was: what is touched from now on is a trace of its own.
    pub fn begin_attach(&self) {
        let mut traced = lock(&self.traced);
        traced.before.add(self.touches.trace());
        self.touches.begin(BootTime::now());
    }

    /// The traces of its latest attaches, that of now first.
    pub fn traces(&self) -> Traces {
        let mut traces = lock(&self.traced).before.clone();
        traces.add(self.touches.trace());
        traces
    }

    /// Those of attaches before the one of now, the newest first: what may come again.
    pub fn traces_before(&self) -> Vec<Arc<Trace>> {
        lock(&self.traced).before.iter().cloned().collect()
    }

    /// What was touched first since it was `seen` last: see [`Touches::news`](crate::trace::Touches::news).
    pub fn new_touches(&self, seen: &mut Seen) -> Vec<Run> {
        self.touches.news(seen)
    }

    /// What its clients read most, and overwrite less: see [`read_hot`](crate::heat::Heat::read_hot).
    pub fn read_hot(&self, max_runs: usize) -> Vec<Vec<Range<u64>>> {
        self.heat.read_hot(BootTime::now(), max_runs)
    }

    /// How many bytes are read lately: those of [`read_hot`](Self::read_hot), and the others.
    pub fn read_bytes(&self) -> (u64, u64) {
        let blocks = self.heat.read_blocks(BootTime::now());
        (blocks.0 * BLOCK_SIZE, blocks.1 * BLOCK_SIZE)
    }

    /// All of it in the order in which it is to be brought elsewhere, as far as it is known: see [`in_order`](crate::prefetch::in_order).
    pub fn in_order(&self, max_runs: usize) -> Vec<Vec<Range<u64>>> {
        let traces: Vec<_> = self.traces().iter().cloned().collect();
        let regions = self.heat.regions(BootTime::now());
        crate::prefetch::in_order(self.size().0 / BLOCK_SIZE, self.read_hot(max_runs), &traces, regions, max_runs)
    }

    /// How its parts are used, for where it goes: see [`Storage::put_heat`].
    pub fn encode_heat(&self) -> Vec<u8> {
        self.heat.encode(BootTime::now())
    }

    /// Keeps how its parts are used, where that has changed, as long as it is open.
    pub(super) fn keep_use(&self) {
        let no_close = lock(&self.sealing);
        if !self.is_closed() {
            self.keep_use_at(&no_close);
        }
    }

    /// Keeps how its parts are used, where that has changed. It is of no account: what fails is told, and no more.
    pub(super) fn keep_use_at(&self, _no_close: &MutexGuard<'_, ()>) {
        if self.heat.take_changed()
            && let Err(error) = self.storage.put_heat(self.id, self.encode_heat())
        {
            tracing::warn!(volume = %self.id, %error, "how the parts of a volume are used is not kept");
        }
        let progress = self.touches.progress();
        if std::mem::replace(&mut lock(&self.traced).kept_at, progress) == progress {
            return;
        }
        let traces = self.traces();
        if !traces.is_empty()
            && let Err(error) = self.storage.put_traces(self.id, &traces)
        {
            tracing::warn!(volume = %self.id, %error, "what is touched first of a volume is not kept");
        }
    }

    /// Goes on from what was kept.
    pub(super) fn adopt_use(&self) {
        let kept = self.storage.records.heat(self.id).map_err(|error| error.to_string());
        let adopted = kept.and_then(|kept| match kept {
            Some(kept) => self.heat.adopt(&kept, BootTime::now()).map_err(|error| error.to_string()),
            None => Ok(()),
        });
        if let Err(error) = adopted {
            tracing::warn!(volume = %self.id, error, "how the parts of a volume were used is not known any more");
        }
        match self.storage.traces(self.id) {
            Ok(traces) => lock(&self.traced).before = traces,
            Err(error) => {
                tracing::warn!(volume = %self.id, error, "what was touched first of a volume is not known any more");
            }
        }
    }
}

impl Storage {
    /// Keeps how the parts of a volume are used, for when it is opened. Not durable: a crash may leave what was kept before.
    ///
    /// # Errors
    /// [`VolumeError`].
    pub fn put_heat(&self, volume: VolumeId, heat: Vec<u8>) -> Result<(), VolumeError> {
        Ok(self.records.put_heat(volume, heat).map_err(StoreError::from)?)
    }

    /// Keeps the traces of a volume, for when it is opened. Not durable: a crash may leave what was kept before.
    ///
    /// # Errors
    /// [`VolumeError`].
    pub fn put_traces(&self, volume: VolumeId, traces: &Traces) -> Result<(), VolumeError> {
        Ok(self.records.put_traces(volume, traces.encode()).map_err(StoreError::from)?)
    }

    /// The traces that are kept of a volume, which may be none.
    ///
    /// # Errors
    /// Why they are not known, for people.
    pub fn traces(&self, volume: VolumeId) -> Result<Traces, String> {
        match self.records.traces(volume).map_err(|error| error.to_string())? {
            Some(kept) => Traces::parse(&kept).map_err(|error| error.to_string()),
            None => Ok(Traces::default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use sterna_types::device::{Inline, Persistence};
    use sterna_types::{BlockDevice, Root};

    use super::*;
    use crate::volume::VolumeDevice;
    use crate::volume::tests::Machine;

    const SIZE: u64 = 64 << 20;

    fn reads(volume: &Volume) -> Vec<(Range<u64>, u32)> {
        volume.heat.regions(BootTime::now()).map(|region| (region.blocks, region.reads)).collect()
    }

    #[tokio::test]
    async fn what_clients_read_and_write_is_counted_once_and_kept() {
        let machine = Machine::new();
        let volume = machine.volume(1, SIZE, Root::EMPTY);
        let device = VolumeDevice::new(volume.clone());
        let block = |number: u64| ByteOffset(number * 4096);
        let range = ByteRange::between(block(64), block(65));
        // As a server does it: what is not done at once is asked for again.
        for _ in 0..3 {
            if matches!(device.try_read(range.start(), &mut [0; 4096]), Inline::Later) {
                device.read(range).await.expect("a read");
            }
        }
        for _ in 0..2 {
            if matches!(device.try_write(block(128), &[1; 4096], Persistence::AtNextFlush), Inline::Later) {
                let written = device.write(block(128), vec![1; 4096].into(), Persistence::AtNextFlush);
                written.await.expect("a write");
            }
        }
        assert_eq!(volume.heat.regions(BootTime::now()).map(|region| region.writes).sum::<u32>(), 32);
        volume.seal().expect("a seal");
        assert_eq!(reads(&volume), [(64..128, 48), (128..192, 0)]);
        assert_eq!(volume.read_hot(10).concat().first(), Some(&(64..128)));
        let kept = volume.encode_heat();
        volume.close();
        assert_eq!(reads(&machine.volume(1, SIZE, Root::EMPTY)), [(64..128, 48), (128..192, 0)]);
        // It goes with the volume, and comes with it.
        machine.storage.remove_volume(VolumeId(1)).expect("it is removed");
        let volume = machine.volume(1, SIZE, Root::EMPTY);
        assert_eq!(reads(&volume), []);
        volume.close();
        machine.storage.put_heat(VolumeId(1), kept).expect("heat");
        assert_eq!(reads(&machine.volume(1, SIZE, Root::EMPTY)), [(64..128, 48), (128..192, 0)]);
    }

    #[test]
    fn a_volume_whose_heat_is_damaged_opens_without() {
        let machine = Machine::new();
        machine.storage.put_heat(VolumeId(1), vec![7]).expect("bytes");
        assert_eq!(reads(&machine.volume(1, SIZE, Root::EMPTY)), []);
    }

    fn read(volume: &Volume, block: u64, blocks: u64) {
        let range = ByteRange::between(ByteOffset(block * BLOCK_SIZE), ByteOffset((block + blocks) * BLOCK_SIZE));
        volume.note_read(range);
    }

    fn touched(traces: &Traces) -> Vec<Vec<Range<u64>>> {
        let blocks = |trace: &Arc<Trace>| trace.runs().iter().map(|run| run.blocks.clone()).collect();
        traces.iter().map(blocks).collect()
    }

    #[test]
    fn what_is_touched_first_after_an_attach_is_kept_and_handed_on() {
        let machine = Machine::new();
        let volume = machine.volume(1, SIZE, Root::EMPTY);
        let boot: Vec<_> = (0..20).map(|number| number * 700 % 15_000..number * 700 % 15_000 + 4).collect();
        // Nobody is attached yet.
        read(&volume, 9_000, 1);
        volume.begin_attach();
        boot.iter().chain(&boot).for_each(|run| read(&volume, run.start, 4));
        assert_eq!(touched(&volume.traces()), [&boot[..]]);
        assert_eq!(volume.traces_before(), [], "it has not ended");
        volume.close();
        assert_eq!(touched(&machine.storage.traces(VolumeId(1)).expect("traces")), [&boot[..]]);
        let volume = machine.volume(1, SIZE, Root::EMPTY);
        assert_eq!(touched(&volume.traces()), [&boot[..]]);
        // The next attach does something else.
        volume.begin_attach();
        (0..20).for_each(|number| read(&volume, number * 300 + 5, 1));
        volume.keep_use();
        assert_eq!(machine.storage.traces(VolumeId(1)).expect("traces").iter().count(), 2);
        volume.begin_attach();
        assert_eq!(volume.traces_before().len(), 2);
        let traces = volume.traces();
        volume.close();
        machine.storage.remove_volume(VolumeId(1)).expect("it is removed");
        assert!(machine.storage.traces(VolumeId(1)).expect("none").is_empty());
        machine.storage.put_traces(VolumeId(1), &traces).expect("traces");
        assert_eq!(machine.volume(1, SIZE, Root::EMPTY).traces(), traces);
    }

    #[test]
    fn of_a_write_only_what_it_leaves_of_a_block_is_needed() {
        let machine = Machine::new();
        let volume = machine.volume(1, SIZE, Root::EMPTY);
        volume.begin_attach();
        for (at, bytes) in [(4096 * 10, 8192), (4096 * 20 + 1, 100), (4096 * 30 - 1, 4098), (4096 * 40, 0)] {
            volume.note_write(ByteOffset(at), bytes);
        }
        let touched = || volume.touches.trace().runs().iter().flat_map(|run| run.blocks.clone()).collect::<Vec<_>>();
        assert_eq!(touched(), [20, 29, 31], "what is left of them");
        read(&volume, 8, 34);
        let (touched, overwritten) = (touched(), [10, 11, 30]);
        assert!((8..42).all(|block| touched.contains(&block) != overwritten.contains(&block)), "{touched:?}");
    }

    #[test]
    fn a_volume_whose_traces_are_damaged_opens_without() {
        let machine = Machine::new();
        machine.storage.records.put_traces(VolumeId(1), vec![7]).expect("bytes");
        assert!(machine.volume(1, SIZE, Root::EMPTY).traces().is_empty());
    }
}
