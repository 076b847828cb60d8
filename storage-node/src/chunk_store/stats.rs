//! What a store holds, counted.

use super::index::{Batch, IndexEntry, Space};
use super::pack_store::PackStore;
use super::{ChunkKind, StoreError};

/// What a store holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Chunks that the index names.
    pub chunks: u64,
    /// Those of them that are blocks of volumes.
    pub data_chunks: u64,
    /// Bytes of all these chunks.
    pub raw_bytes: u64,
    /// Bytes that they take in the packs.
    pub stored_bytes: u64,
    /// Packs.
    pub packs: u64,
    /// Bytes of the packs.
    pub pack_bytes: u64,
}

impl StoreStats {
    /// Bytes of the packs that no chunk of the index needs: headers and padding, and what is to be compacted away.
    pub fn overhead_bytes(&self) -> u64 {
        self.pack_bytes.saturating_sub(self.stored_bytes)
    }
}

impl PackStore {
    /// Counts what the store holds. It reads all of the index.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn stats(&self) -> Result<StoreStats, StoreError> {
        let mut stats = StoreStats::default();
        for pack in self.packs()? {
            // One that a collection has just removed is none.
            let Ok(file) = self.pack_file(pack) else { continue };
            stats.packs += 1;
            stats.pack_bytes += file.size().map_err(super::pack_store::io_at(&pack.path()))?;
        }
        self.each_entry(|entries| {
            for IndexEntry { frame, .. } in entries {
                stats.chunks += 1;
                stats.data_chunks += u64::from(frame.kind == ChunkKind::Data);
                stats.raw_bytes += u64::from(frame.length);
                stats.stored_bytes += u64::from(frame.stored_length());
            }
            Ok(true)
        })?;
        Ok(stats)
    }

    /// Goes through the index, page by page, until `look` answers `false`. An entry that cannot be read ends it.
    pub(super) fn each_entry(
        &self,
        mut look: impl FnMut(&[IndexEntry]) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        let mut after: Option<Vec<u8>> = None;
        loop {
            let page = self.index.page(Space::Chunks, &[], after.as_deref(), ENTRIES_PER_PAGE)?;
            let entries: Result<Vec<_>, _> = page.iter().map(|(key, value)| IndexEntry::of_pair(key, value)).collect();
            if page.is_empty() || !look(&entries?)? {
                return Ok(());
            }
            after = page.into_iter().next_back().map(|(key, _)| key);
        }
    }

    /// Makes everything durable that was changed in the index.
    pub(super) fn settle_index(&self) -> Result<(), StoreError> {
        self.commit_durably(Batch::new())
    }
}

/// Bounds the memory of a walk through the index, and how long a sweep holds appends up.
const ENTRIES_PER_PAGE: usize = 1024;
