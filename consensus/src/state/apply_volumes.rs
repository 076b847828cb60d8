//! What the commands about volumes do. Each one first finds every reason to refuse, and only then changes anything.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sterna_types::{Epoch, Root, VolumeId, VolumeName, VolumeSize};

use super::Metadata;
use super::command::{NewVolume, Origin, RootPublication};
use super::in_sync::InSyncRevision;
use super::outcome::Outcome;
use super::ownership::{CannotPass, HandoffNumber};
use super::policy::DegradedPolicy;
use super::refusal::Refusal;
use super::shared_map::SharedMap;
use super::volume::{ClonedFrom, Generation, Published, Volume, VolumeFormat, VolumeState};
use crate::limits::{MAX_ROOTS_PER_COMMAND, MAX_VOLUMES};

/// What a clone takes over.
struct Original {
    root: Root,
    size: VolumeSize,
    format: VolumeFormat,
    record: ClonedFrom,
}

impl Metadata {
    pub(super) fn create_volume(&mut self, new: &NewVolume) -> Result<Outcome, Refusal> {
        self.check_name_is_free(&new.name)?;
        if self.node(new.owner).is_none() {
            return Err(Refusal::NoSuchNode { node: new.owner });
        }
        if self.layout.draining.contains(&new.owner) {
            return Err(Refusal::Draining { node: new.owner });
        }
        if self.volumes.len() >= MAX_VOLUMES {
            return Err(Refusal::TooManyVolumes);
        }
        let original = self.original(&new.origin)?;
        if let Some(original) = &original {
            check_fits(new, original)?;
        }
        let number = self.last_volume.checked_add(1).ok_or(Refusal::NoIdsLeft)?;
        let (id, epoch) = (VolumeId(number), Epoch::FIRST);
        let root = original.as_ref().map_or(Root::EMPTY, |original| original.root);
        let state = if new.origin == Origin::Import { VolumeState::Importing } else { VolumeState::Ready };
        let volume = Volume {
            id,
            name: new.name.clone(),
            size: new.size,
            format: new.format,
            durability: new.durability,
            attach: new.attach,
            state,
            owner: new.owner,
            epoch,
            published: Published::of(root, Generation::FIRST),
            origin: original.map(|original| original.record),
            snapshots: SharedMap::default(),
            replicas: BTreeMap::new(),
            superseded: Vec::new(),
            last_handoff: HandoffNumber::NONE,
            moving_to: None,
            sources: Vec::new(),
            reclaimed: None,
            limit: None,
            degraded: DegradedPolicy::default(),
            in_sync: BTreeSet::new(),
            in_sync_revision: InSyncRevision::default(),
        };
        self.last_volume = number;
        self.names.insert(new.name.clone(), id);
        let replaced = self.volumes.insert(id, Arc::new(volume));
        assert!(replaced.is_none(), "the id {id} was given out twice");
        Ok(Outcome::Created { volume: id, epoch })
    }

    fn original(&self, origin: &Origin) -> Result<Option<Original>, Refusal> {
        let (from, snapshot) = match origin {
            Origin::Blank | Origin::Import => return Ok(None),
            Origin::Snapshot { volume, name } => (self.known_volume(*volume)?, Some(name)),
            Origin::Published { volume, root } => {
                let from = self.ready_volume(*volume)?;
                if from.published.root != *root {
                    return Err(Refusal::RootHasMoved { volume: *volume });
                }
                (from, None)
            }
        };
        let (root, size, generation) = match snapshot {
            None => (from.published.root, from.size, from.published.generation),
            Some(name) => {
                let missing = || Refusal::NoSuchSnapshot { volume: from.id, name: name.clone() };
                let snapshot = from.snapshots.get(name).ok_or_else(missing)?;
                (snapshot.root, snapshot.size, snapshot.generation)
            }
        };
        let record = ClonedFrom { volume: from.id, name: from.name.clone(), snapshot: snapshot.cloned(), generation };
        Ok(Some(Original { root, size, format: from.format, record }))
    }

    pub(super) fn finish_import(
        &mut self,
        id: VolumeId,
        epoch: Epoch,
        root: Root,
        generation: Generation,
    ) -> Result<Outcome, Refusal> {
        let volume = self.known_volume(id)?;
        if volume.state != VolumeState::Importing {
            return Err(Refusal::NotImporting { volume: id });
        }
        check_epoch(volume, epoch)?;
        check_generation(volume, root, generation)?;
        self.change_volume(id, |volume| {
            volume.publish(Published::of(root, generation));
            volume.state = VolumeState::Ready;
        })
    }

    pub(super) fn delete_volume(&mut self, id: VolumeId, with_snapshots: bool) -> Result<Outcome, Refusal> {
        let volume = Arc::clone(self.known_volume(id)?);
        check_stays(&volume)?;
        let count = volume.snapshots.len();
        if count > 0 && !with_snapshots {
            return Err(Refusal::HasSnapshots { volume: id, count });
        }
        self.volumes.remove(&id);
        self.names.remove(&volume.name);
        self.snapshots -= count;
        Ok(Outcome::Done)
    }

    pub(super) fn rename_volume(&mut self, id: VolumeId, name: &VolumeName) -> Result<Outcome, Refusal> {
        let volume = Arc::clone(self.known_volume(id)?);
        if volume.name == *name {
            return Ok(Outcome::Done);
        }
        self.check_name_is_free(name)?;
        self.names.remove(&volume.name);
        self.names.insert(name.clone(), id);
        self.change_volume(id, |volume| volume.name = name.clone())
    }

    pub(super) fn resize_volume(&mut self, id: VolumeId, size: VolumeSize) -> Result<Outcome, Refusal> {
        let volume = self.ready_volume(id)?;
        check_stays(volume)?;
        if size < volume.size {
            let (given, current) = (size.bytes(), volume.size.bytes());
            return Err(Refusal::WouldShrink { volume: id, given, current });
        }
        self.change_volume(id, |volume| volume.size = size)
    }

    pub(super) fn publish_roots(&mut self, publications: &[RootPublication]) -> Result<Outcome, Refusal> {
        if publications.len() > MAX_ROOTS_PER_COMMAND {
            return Err(Refusal::TooManyRoots { given: publications.len() });
        }
        let mut refused = Vec::new();
        for publication in publications {
            if let Err(refusal) = self.publish_root(publication) {
                refused.push((publication.volume, refusal));
            }
        }
        Ok(Outcome::Published { refused })
    }

    fn publish_root(&mut self, publication: &RootPublication) -> Result<(), Refusal> {
        let RootPublication { volume: id, epoch, root, generation, written_blocks, at } = *publication;
        let volume = self.known_volume(id)?;
        check_epoch(volume, epoch)?;
        check_generation(volume, root, generation)?;
        let published = Published { root, generation, written_blocks, at };
        self.change_volume(id, |volume| volume.publish(published)).map(|_| ())
    }

    /// Changes a volume in its place.
    pub(super) fn change_volume(&mut self, id: VolumeId, change: impl FnOnce(&mut Volume)) -> Result<Outcome, Refusal> {
        if self.volumes.update(&id, |volume| change(Arc::make_mut(volume))) {
            Ok(Outcome::Done)
        } else {
            Err(Refusal::NoSuchVolume { volume: id })
        }
    }

    pub(super) fn known_volume(&self, id: VolumeId) -> Result<&Arc<Volume>, Refusal> {
        self.volume(id).ok_or(Refusal::NoSuchVolume { volume: id })
    }

    pub(super) fn ready_volume(&self, id: VolumeId) -> Result<&Arc<Volume>, Refusal> {
        let volume = self.known_volume(id)?;
        match volume.state {
            VolumeState::Ready => Ok(volume),
            VolumeState::Importing => Err(Refusal::StillImporting { volume: id }),
        }
    }

    fn check_name_is_free(&self, name: &VolumeName) -> Result<(), Refusal> {
        match self.names.get(name) {
            None => Ok(()),
            Some(&volume) => Err(Refusal::VolumeNameTaken { name: name.clone(), volume }),
        }
    }
}

impl Volume {
    /// Takes a root that [`check_generation`] has found acceptable.
    pub(super) fn publish(&mut self, published: Published) {
        let falls = published.generation < self.published.generation;
        assert!(!falls, "the generation of volume {} would fall", self.id);
        // The same once more says nothing new.
        if published.generation > self.published.generation {
            self.published = published;
        }
    }
}

fn check_fits(new: &NewVolume, original: &Original) -> Result<(), Refusal> {
    if new.size < original.size {
        return Err(Refusal::SmallerThanOrigin { given: new.size.bytes(), origin: original.size.bytes() });
    }
    if new.format != original.format {
        return Err(Refusal::OtherFormat { given: new.format, origin: original.format });
    }
    Ok(())
}

pub(super) fn check_epoch(volume: &Volume, given: Epoch) -> Result<(), Refusal> {
    volume.ownership().check_epoch(given).map_err(|why| Refusal::passing(volume.id, why))
}

/// Whether no handoff of it is under way: what its two nodes have agreed on stays as it is.
fn check_stays(volume: &Volume) -> Result<(), Refusal> {
    match volume.moving_to {
        None => Ok(()),
        Some(to) => Err(Refusal::passing(volume.id, CannotPass::HandoffUnderWay { to })),
    }
}

/// Whether a root may be published: it is newer, or the published one once more (a retry).
pub(super) fn check_generation(volume: &Volume, root: Root, given: Generation) -> Result<(), Refusal> {
    let published = volume.published;
    if given < published.generation {
        return Err(Refusal::OldGeneration { volume: volume.id, given, published: published.generation });
    }
    if given == published.generation && root != published.root {
        return Err(Refusal::OtherRoot { volume: volume.id, generation: given });
    }
    Ok(())
}
