//! How often the parts of an open volume are used: by its clients, and by nobody else ([`crate::heat`]).

use std::ops::Range;
use std::sync::MutexGuard;

use sterna_runtime::BootTime;
use sterna_types::{ByteOffset, ByteRange, VolumeId};

use super::error::VolumeError;
use super::read::blocks_of;
use super::storage::{Storage, lock};
use super::volume::Volume;
use crate::chunk_store::StoreError;

impl Volume {
    /// Counts a client's read.
    #[inline]
    pub(super) fn note_read(&self, range: ByteRange) {
        self.heat.note_read(&blocks_of(range), BootTime::now());
    }

    /// Counts a client's write of so many bytes.
    #[inline]
    pub(super) fn note_write(&self, at: ByteOffset, bytes: usize) {
        if let Ok(range) = ByteRange::new(at, bytes as u64) {
            self.heat.note_write(&blocks_of(range), BootTime::now());
        }
    }

    /// What its clients read most, and overwrite less: see [`read_hot`](crate::heat::Heat::read_hot).
    pub fn read_hot(&self, max_runs: usize) -> Vec<Vec<Range<u64>>> {
        self.heat.read_hot(BootTime::now(), max_runs)
    }

    /// How its parts are used, for where it goes: see [`Storage::put_heat`].
    pub fn encode_heat(&self) -> Vec<u8> {
        self.heat.encode(BootTime::now())
    }

    /// Keeps how its parts are used, where that has changed, as long as it is open.
    pub(super) fn keep_heat(&self) {
        let no_close = lock(&self.sealing);
        if !self.is_closed() {
            self.keep_heat_at(&no_close);
        }
    }

    /// Keeps how its parts are used, where that has changed. It is of no account: what fails is told, and no more.
    pub(super) fn keep_heat_at(&self, _no_close: &MutexGuard<'_, ()>) {
        if self.heat.take_changed()
            && let Err(error) = self.storage.put_heat(self.id, self.encode_heat())
        {
            tracing::warn!(volume = %self.id, %error, "how the parts of a volume are used is not kept");
        }
    }

    /// Goes on from what was kept.
    pub(super) fn adopt_heat(&self) {
        let kept = self.storage.records.heat(self.id).map_err(|error| error.to_string());
        let adopted = kept.and_then(|kept| match kept {
            Some(kept) => self.heat.adopt(&kept, BootTime::now()).map_err(|error| error.to_string()),
            None => Ok(()),
        });
        if let Err(error) = adopted {
            tracing::warn!(volume = %self.id, error, "how the parts of a volume were used is not known any more");
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
}
