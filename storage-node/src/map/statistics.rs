//! What a root amounts to.

use std::collections::HashSet;

use sterna_types::{ChunkId, Root, SegmentIndex};

use super::cache::NodeCache;
use super::error::MapError;
use super::segments::segments;
use super::tree::{MAX_SEGMENTS, read_manifest};
use crate::chunk_store::ChunkStore;

/// What a root amounts to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct MapStatistics {
    /// Segments that have a manifest.
    pub segments: u64,
    /// Blocks that are in a chunk.
    pub mapped_blocks: u64,
    /// Extents of all segments.
    pub extents: u64,
    /// Chunks of data, each counted once; exact up to [`MAX_EXACT_CHUNKS`], and beyond that right within 1 % or so.
    pub distinct_chunks: u64,
}

/// Counts what `root` amounts to. Reads each node and each manifest of it, and keeps the manifests out of the cache.
///
/// # Errors
/// [`MapError`].
pub fn statistics(store: &dyn ChunkStore, cache: &NodeCache, root: Root) -> Result<MapStatistics, MapError> {
    let mut statistics = MapStatistics::default();
    let mut chunks = DistinctIds::new(MAX_EXACT_CHUNKS);
    for found in segments(store, cache, root, SegmentIndex(0)..SegmentIndex(MAX_SEGMENTS)) {
        let (segment, id) = found?;
        let manifest = read_manifest(store, id, segment)?;
        statistics.segments += 1;
        for extent in manifest.extents() {
            statistics.mapped_blocks += u64::from(extent.block_count);
            statistics.extents += 1;
            chunks.insert(extent.chunk);
        }
    }
    statistics.distinct_chunks = chunks.count();
    Ok(statistics)
}

/// How many chunks are counted exactly. With 32 KiB each they are 8 GiB of data, and their ids some 16 MiB of memory.
pub const MAX_EXACT_CHUNKS: usize = 1 << 18;

/// Counts distinct ids in bounded memory. Ids are hashes, so each value of their first bits is as frequent as any other:
/// when there are too many to keep, only those are kept whose first `level` bits are 0, and stand for 2^level each.
struct DistinctIds {
    kept: HashSet<ChunkId>,
    limit: usize,
    level: u32,
}

impl DistinctIds {
    fn new(limit: usize) -> Self {
        Self { kept: HashSet::new(), limit, level: 0 }
    }

    fn insert(&mut self, id: ChunkId) {
        if leading_zeros(id) < self.level {
            return;
        }
        self.kept.insert(id);
        while self.kept.len() > self.limit && self.level < u64::BITS - 1 {
            self.level += 1;
            self.kept.retain(|id| leading_zeros(*id) >= self.level);
        }
    }

    fn count(&self) -> u64 {
        (self.kept.len() as u64) << self.level
    }
}

fn leading_zeros(id: ChunkId) -> u32 {
    id.as_bytes().first_chunk().map_or(0, |first| u64::from_be_bytes(*first).leading_zeros())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk_store::chunk_id;

    fn counted(ids: u64, limit: usize) -> (u64, usize) {
        let mut distinct = DistinctIds::new(limit);
        let mut most_kept = 0;
        for number in (0..ids).chain(0..ids) {
            distinct.insert(chunk_id(&number.to_le_bytes()));
            most_kept = most_kept.max(distinct.kept.len());
        }
        (distinct.count(), most_kept)
    }

    #[test]
    fn few_ids_are_counted_exactly() {
        assert_eq!(counted(0, 1000), (0, 0));
        assert_eq!(counted(1000, 1000), (1000, 1000));
    }

    #[test]
    fn many_ids_are_counted_nearly_in_bounded_memory() {
        let (count, kept) = counted(100_000, 4096);
        assert!((95_000..105_000).contains(&count), "{count} of 100,000");
        assert!(kept <= 4096, "{kept} kept");
    }
}
