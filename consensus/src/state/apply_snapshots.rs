//! What the commands about snapshots do. Each one first finds every reason to refuse, and only then changes anything.

use std::sync::Arc;

use sterna_types::{SnapshotName, VolumeId};

use super::Metadata;
use super::apply_volumes::check_epoch;
use super::command::NewSnapshot;
use super::outcome::{Outcome, Refusal};
use super::volume::Snapshot;
use crate::limits::{MAX_SNAPSHOTS, MAX_SNAPSHOTS_PER_VOLUME};

impl Metadata {
    pub(super) fn create_snapshot(&mut self, new: &NewSnapshot) -> Result<Outcome, Refusal> {
        let id = new.volume;
        let volume = self.ready_volume(id)?;
        check_epoch(volume, new.epoch)?;
        if volume.snapshots.contains(&new.name) {
            return Err(Refusal::SnapshotNameTaken { volume: id, name: new.name.clone() });
        }
        if volume.snapshots.len() >= MAX_SNAPSHOTS_PER_VOLUME {
            return Err(Refusal::TooManySnapshotsOfVolume { volume: id });
        }
        if self.snapshots >= MAX_SNAPSHOTS {
            return Err(Refusal::TooManySnapshots);
        }
        if new.size > volume.size {
            let (given, current) = (new.size.bytes(), volume.size.bytes());
            return Err(Refusal::SnapshotTooLarge { volume: id, given, current });
        }
        let published = volume.published;
        if new.generation == published.generation && new.root != published.root {
            return Err(Refusal::OtherRoot { volume: id, generation: new.generation });
        }
        let snapshot = Snapshot { root: new.root, size: new.size, generation: new.generation, created: new.at };
        self.snapshots += 1;
        self.change_volume(id, |volume| {
            volume.snapshots.insert(new.name.clone(), Arc::new(snapshot));
        })
    }

    pub(super) fn delete_snapshot(&mut self, id: VolumeId, name: &SnapshotName) -> Result<Outcome, Refusal> {
        let volume = self.known_volume(id)?;
        if !volume.snapshots.contains(name) {
            return Err(Refusal::NoSuchSnapshot { volume: id, name: name.clone() });
        }
        self.snapshots -= 1;
        self.change_volume(id, |volume| {
            volume.snapshots.remove(name);
        })
    }
}
