//! Collecting what no volume needs any more.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

use sterna_types::{Root, VolumeId};

use super::record::VolumeRecord;
use super::storage::Storage;
use crate::chunk_store::collect::{CollectError, CollectOptions, CollectReport, Reference};
use crate::chunk_store::index::IndexError;
use crate::chunk_store::{ChunkKind, PackStore, StoreError};
use crate::map::{self, Node};
use crate::progress::Progress;

impl Storage {
    /// Removes from `store`, this storage's own, every chunk that nobody needs: not the roots that `published` gives (those
    /// that the metadata names: snapshots, and volumes that have not been opened here), nor any volume's sealed contents.
    ///
    /// `published` is asked once the collection has begun, and after the volumes' records were read. Whoever has taken a root
    /// from a volume to record it elsewhere keeps `published` from answering until that is done. `on_progress` hears what that of
    /// [`PackStore::collect`] does. It ends early once `cancel` is set.
    ///
    /// # Errors
    /// [`CollectError`]; what was removed by then was not needed.
    pub fn collect(
        &self,
        store: &PackStore,
        published: impl FnOnce() -> Result<Vec<Root>, StoreError>,
        options: &CollectOptions,
        on_progress: &mut dyn FnMut(Progress),
        cancel: &AtomicBool,
    ) -> Result<CollectReport, CollectError> {
        let roots = || {
            let reference = |kind| move |id| Reference { kind, id };
            let mut roots: Vec<Reference> = Vec::new();
            // A record that does not make sense may name anything: nothing is collected until it has been looked at.
            for record in self.sealed()?.into_values() {
                roots.extend(record.root.top().map(reference(ChunkKind::Node)));
                roots.extend(record.checkpoint.map(reference(ChunkKind::Checkpoint)));
            }
            roots.extend(published()?.into_iter().filter_map(Root::top).map(reference(ChunkKind::Node)));
            Ok(roots.into_iter().map(Ok))
        };
        store.collect(roots, &references, options, on_progress, cancel)
    }

    /// What has been sealed of each volume here, be it open or not.
    ///
    /// # Errors
    /// [`StoreError::Index`], also where a record is damaged.
    pub fn sealed(&self) -> Result<BTreeMap<VolumeId, VolumeRecord>, StoreError> {
        let parse = |(volume, bytes): (VolumeId, Vec<u8>)| {
            let parsed = VolumeRecord::parse(volume, &bytes);
            let (record, _) = parsed.map_err(|error| IndexError::Damaged { what: error.to_string() })?;
            Ok((volume, record))
        };
        self.records.list()?.into_iter().map(parse).collect()
    }
}

/// What a chunk refers to. A checkpoint refers to nothing: its root is the record's, as long as that is the newest.
pub(super) fn references(kind: ChunkKind, bytes: &[u8]) -> Result<Vec<Reference>, String> {
    let below = match kind {
        ChunkKind::Data | ChunkKind::Checkpoint => return Ok(Vec::new()),
        ChunkKind::Manifest => ChunkKind::Data,
        ChunkKind::Node => map::kind_of_children(&Node::decode(bytes).map_err(|error| error.to_string())?),
    };
    let children = map::children(kind, bytes).map_err(|error| error.to_string())?;
    Ok(children.into_iter().map(|id| Reference { kind: below, id }).collect())
}
