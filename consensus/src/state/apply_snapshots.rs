//! What the commands about snapshots do. Each one first finds every reason to refuse, and only then changes anything.

use std::collections::BTreeSet;
use std::sync::Arc;

use sterna_types::{SnapshotName, VolumeId, VolumeSize};

use super::Metadata;
use super::apply_volumes::check_epoch;
use super::command::NewSnapshot;
use super::outcome::Outcome;
use super::refusal::Refusal;
use super::volume::{Snapshot, Volume};
use crate::limits::{MAX_SNAPSHOTS, MAX_SNAPSHOTS_PER_VOLUME};

impl Metadata {
    pub(super) fn create_snapshot(&mut self, new: &NewSnapshot) -> Result<Outcome, Refusal> {
        let id = new.volume;
        let volume = self.ready_volume(id)?;
        check_epoch(volume, new.epoch)?;
        self.check_snapshot(volume, &new.name, new.size)?;
        let published = volume.published;
        if new.generation == published.generation && new.root != published.root {
            return Err(Refusal::OtherRoot { volume: id, generation: new.generation });
        }
        let snapshot = Snapshot {
            root: new.root,
            size: new.size,
            generation: new.generation,
            created: new.at,
            holders: BTreeSet::new(),
        };
        self.insert_snapshot(id, &new.name, snapshot)
    }

    /// Whether a volume can have one more snapshot, of this name and size.
    pub(super) fn check_snapshot(&self, volume: &Volume, name: &SnapshotName, size: VolumeSize) -> Result<(), Refusal> {
        let id = volume.id;
        if volume.snapshots.contains(name) {
            return Err(Refusal::SnapshotNameTaken { volume: id, name: name.clone() });
        }
        if volume.snapshots.len() >= MAX_SNAPSHOTS_PER_VOLUME {
            return Err(Refusal::TooManySnapshotsOfVolume { volume: id });
        }
        if self.snapshots >= MAX_SNAPSHOTS {
            return Err(Refusal::TooManySnapshots);
        }
        if size > volume.size {
            let (given, current) = (size.bytes(), volume.size.bytes());
            return Err(Refusal::SnapshotTooLarge { volume: id, given, current });
        }
        Ok(())
    }

    /// Adds one that [`Metadata::check_snapshot`] has found acceptable.
    pub(super) fn insert_snapshot(
        &mut self,
        id: VolumeId,
        name: &SnapshotName,
        snapshot: Snapshot,
    ) -> Result<Outcome, Refusal> {
        self.snapshots += 1;
        self.change_volume(id, |volume| {
            volume.snapshots.insert(name.clone(), Arc::new(snapshot));
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
