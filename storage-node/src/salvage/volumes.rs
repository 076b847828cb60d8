//! Which volumes there were, and what is known of each.
//!
//! What speaks of a volume's contents: checkpoints in the packs, its record in the index, the headers of its journal's files,
//! the metadata. Checkpoints are ordered by their places in the packs. Generations are not enough: behind a seal that was cut
//! off there may be another one with the same. The other sources are put where their generations belong.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sterna_types::{BLOCK_SIZE, ByteSize, VolumeId, VolumeSize};

use super::choice::{Choice, on};
use super::chunks::FoundChunks;
use super::found::{FoundDamage, FoundJournal, FoundVolume, NamedVolume, Source, Version};
use super::scan::MAX_VERSIONS;
use crate::chunk_store::chunk_id;
use crate::chunk_store::index::{Index, VolumeRecords};
use crate::disk::Disk;
use crate::journal::{Continued, Survey, survey};
use crate::map::NodeCache;
use crate::volume::storage::{VOLUMES, journal_directory};
use crate::volume::{Tail, VolumeRecord};

/// What is known of volumes, by where it is from.
pub(super) struct Sources<'a> {
    pub(super) disk: &'a Arc<dyn Disk>,
    pub(super) checkpoints: BTreeMap<VolumeId, Vec<Version>>,
    pub(super) records: BTreeMap<VolumeId, Recorded>,
    pub(super) names: &'a [NamedVolume],
}

/// What a record says.
pub(super) struct Recorded {
    version: Version,
    /// What has not arrived from where the volume was handed over.
    tail: Tail,
}

/// The records in an index, as far as they can be read.
pub(super) fn records(index: &Arc<dyn Index>, damages: &mut Vec<FoundDamage>) -> BTreeMap<VolumeId, Recorded> {
    let listed = VolumeRecords::new(Arc::clone(index)).list().unwrap_or_else(|error| {
        damages.push(FoundDamage::Index { what: error.to_string() });
        Vec::new()
    });
    let mut records = BTreeMap::new();
    for (volume, bytes) in listed {
        match VolumeRecord::parse(volume, &bytes).map(|(record, tail)| (Version::of(&record, Source::Index), tail)) {
            Ok((Some(version), tail)) => _ = records.insert(volume, Recorded { version, tail }),
            Ok((None, _)) => {
                damages.push(FoundDamage::Index { what: format!("volume {volume} cannot be of its size") });
            }
            Err(error) => damages.push(FoundDamage::Index { what: error.to_string() }),
        }
    }
    records
}

impl Sources<'_> {
    /// All volumes that anything speaks of, by id.
    pub(super) fn volumes(
        mut self,
        chunks: &FoundChunks,
        nodes: &NodeCache,
        damages: &mut Vec<FoundDamage>,
    ) -> Vec<FoundVolume> {
        let journals = self.disk.list(VOLUMES).unwrap_or_else(|error| {
            damages.push(FoundDamage::Unreadable { path: VOLUMES.to_owned(), what: error.to_string() });
            Vec::new()
        });
        let journals = journals.iter().filter_map(|name| u64::from_str_radix(name, 16).ok()).map(VolumeId);
        let mut ids: BTreeSet<VolumeId> = journals.collect();
        ids.extend(self.checkpoints.keys());
        ids.extend(self.records.keys());
        ids.extend(self.names.iter().map(|named| named.id));
        ids.into_iter().filter_map(|id| self.volume(id, chunks, nodes)).collect()
    }

    /// `None` where nothing is left of it, as of a volume that was removed.
    fn volume(&mut self, id: VolumeId, chunks: &FoundChunks, nodes: &NodeCache) -> Option<FoundVolume> {
        let survey = survey(&**self.disk, &journal_directory(id), id);
        let named = self.names.iter().find(|named| named.id == id);
        let record = self.records.remove(&id);
        let recorded = record.as_ref().map(|record| record.version);
        let versions = self.versions(id, &survey, named, recorded);
        if versions.is_empty() && survey.is_empty() && survey.damages.is_empty() {
            return None;
        }
        let choice = Choice { id, versions: &versions, survey: &survey, chunks, nodes, recorded };
        let newest = choice.newest();
        let lost_a_newer_one = newest.is_some_and(|newest| choice.lost_a_newer_one(newest));
        let continued = newest.map(|newest| on(&survey, id, &versions[newest]));
        let size = size_of_image(newest.map(|newest| &versions[newest]), named, continued.as_ref());
        let mut journal = FoundJournal { damages: survey.damages, ..FoundJournal::default() };
        if let Some(continued) = continued {
            journal.records = continued.records.len() as u64;
            journal.last = continued.last;
            journal.durable_once = continued.durable_once;
            journal.strays = continued.strays;
        }
        let (name, snapshots) = match named {
            Some(named) => (Some(named.name.clone()), named.snapshots.clone()),
            None => (None, Vec::new()),
        };
        // What was not here of the volume in this epoch. What came before it was complete.
        let epoch = newest.map(|newest| versions[newest].epoch);
        let tail =
            record.filter(|record| Some(record.version.epoch) == epoch).map_or(Tail::EMPTY, |record| record.tail);
        Some(FoundVolume { id, name, size, versions, newest, lost_a_newer_one, tail, journal, snapshots })
    }

    /// What is known of its sealed contents, newest first.
    fn versions(
        &mut self,
        id: VolumeId,
        survey: &Survey,
        named: Option<&NamedVolume>,
        recorded: Option<Version>,
    ) -> Vec<Version> {
        let mut versions = self.checkpoints.remove(&id).unwrap_or_default();
        for other in recorded.into_iter().chain(notes(id, survey)) {
            if !versions.iter().any(|known| known.is(&other)) {
                insert_by_age(&mut versions, other);
            }
        }
        if let Some(named) = named {
            let published = Version::of_metadata(named);
            if !versions.iter().any(|known| known.root == published.root) {
                insert_by_age(&mut versions, published);
            }
        }
        versions.reverse();
        versions.truncate(MAX_VERSIONS);
        versions
    }
}

/// What the headers of a journal's files say.
pub(super) fn notes(id: VolumeId, survey: &Survey) -> impl Iterator<Item = Version> {
    let notes = survey.notes().filter_map(|note| VolumeRecord::parse_checkpoint(note, chunk_id(note)));
    notes.filter(move |(volume, _)| *volume == id).filter_map(|(_, record)| Version::of(&record, Source::Journal))
}

/// Puts a version behind the last one that is not newer.
fn insert_by_age(versions: &mut Vec<Version>, version: Version) {
    let older = versions.iter().rposition(|known| known.age() <= version.age());
    versions.insert(older.map_or(0, |older| older + 1), version);
}

/// The size of the newest version, or of what the metadata or the journal say where that is larger: volumes grow.
fn size_of_image(
    version: Option<&Version>,
    named: Option<&NamedVolume>,
    continued: Option<&Continued>,
) -> Option<VolumeSize> {
    let ends = continued.into_iter().flat_map(|continued| &continued.records);
    let ends = ends.map(|(header, _, _)| ByteSize((header.first_block + header.block_count) * BLOCK_SIZE));
    let sizes = version.map(|version| version.size).into_iter().chain(named.map(|named| named.size));
    sizes.chain(ends.filter_map(|end| VolumeSize::try_from(end).ok())).max()
}
