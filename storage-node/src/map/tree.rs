//! From a root to the manifest of a segment.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use sterna_types::{ChunkId, Root, SegmentIndex};

use super::cache::NodeCache;
use super::error::{MapError, Part};
use super::manifest::Manifest;
use super::node::{Level, Node};
use crate::chunk_store::{ChunkStore, StoreError};

/// Segments of the largest volume, 64 TiB: as many as a tree of three levels has places for.
pub const MAX_SEGMENTS: u64 = 1 << 24;

/// The id of the manifest of a segment; `None` where all of the segment is a hole.
///
/// # Errors
/// [`MapError`]. [`MapError::OutsideMap`] for a segment that no volume has.
pub fn manifest_of(
    store: &dyn ChunkStore,
    cache: &NodeCache,
    root: Root,
    segment: SegmentIndex,
) -> Result<Option<ChunkId>, MapError> {
    check_segment(segment)?;
    let mut below = root.top();
    let mut level = Some(Level::TOP);
    while let (Some(id), Some(at)) = (below, level) {
        let first = SegmentIndex(segment.0 - segment.0 % at.segments());
        below = node(store, cache, id, at, first)?.child(at.slot_of(segment));
        level = at.below();
    }
    Ok(below)
}

/// The manifest `id` of `segment`, from the cache or the store.
///
/// # Errors
/// [`MapError`].
pub fn manifest(
    store: &dyn ChunkStore,
    cache: &NodeCache,
    id: ChunkId,
    segment: SegmentIndex,
) -> Result<Arc<Manifest>, MapError> {
    if let Some(manifest) = cache.manifest(id) {
        return Ok(manifest);
    }
    let manifest = Arc::new(read_manifest(store, id, segment)?);
    cache.insert_manifest(id, &manifest);
    Ok(manifest)
}

/// The manifest `id` of `segment`, from the store.
pub(super) fn read_manifest(store: &dyn ChunkStore, id: ChunkId, segment: SegmentIndex) -> Result<Manifest, MapError> {
    let part = || Part { id, level: None, segments: segment..SegmentIndex(segment.0 + 1) };
    let bytes = present(store.get(id), part)?;
    Manifest::decode(&bytes).map_err(|source| MapError::CorruptManifest { part: part(), source })
}

/// The node `id` of a level, through which the segments from `first` on are found, from the cache or the store.
pub(crate) fn node(
    store: &dyn ChunkStore,
    cache: &NodeCache,
    id: ChunkId,
    level: Level,
    first: SegmentIndex,
) -> Result<Arc<Node>, MapError> {
    node_from(|| store.get(id), cache, id, level, first)
}

/// The same, from the cache or wherever `get` takes its bytes from.
pub(super) fn node_from(
    get: impl FnOnce() -> Result<Option<Bytes>, StoreError>,
    cache: &NodeCache,
    id: ChunkId,
    level: Level,
    first: SegmentIndex,
) -> Result<Arc<Node>, MapError> {
    let part = || Part { id, level: Some(level), segments: first..SegmentIndex(first.0 + level.segments()) };
    let node = match cache.node(id) {
        Some(node) => node,
        None => {
            let bytes = present(get(), part)?;
            let decoded = Node::decode(&bytes).map_err(|source| MapError::CorruptNode { part: part(), source })?;
            let node = Arc::new(decoded);
            cache.insert_node(id, &node);
            node
        }
    };
    if node.level() != level {
        return Err(MapError::WrongLevel { part: part(), found: node.level() });
    }
    Ok(node)
}

/// Whether a volume can have this segment.
pub(super) fn check_segment(segment: SegmentIndex) -> Result<(), MapError> {
    if segment.0 < MAX_SEGMENTS { Ok(()) } else { Err(MapError::OutsideMap { segment }) }
}

/// The segments of `range` that a volume can have.
pub(super) fn clipped(range: Range<SegmentIndex>) -> Range<SegmentIndex> {
    range.start..range.end.min(SegmentIndex(MAX_SEGMENTS))
}

fn present(answer: Result<Option<Bytes>, StoreError>, part: impl Fn() -> Part) -> Result<Bytes, MapError> {
    match answer {
        Ok(Some(bytes)) => Ok(bytes),
        Ok(None) => Err(MapError::Missing { part: part() }),
        Err(source) => Err(MapError::Unreadable { part: part(), source }),
    }
}

const _: () = assert!(MAX_SEGMENTS == sterna_types::VolumeSize::MAX.0 / sterna_types::SEGMENT_SIZE);
