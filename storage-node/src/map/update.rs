//! From a root to the next one.

use std::ops::Range;
use std::sync::Arc;

use sterna_types::{ChunkId, Root, SegmentIndex};

use super::cache::NodeCache;
use super::error::MapError;
use super::node::{FAN_OUT, Level, Node};
use super::tree::{MAX_SEGMENTS, check_segment, node_from};
use crate::chunk_store::{ChunkKind, NewChunk};
use crate::chunk_writer::ChunkWriter;

/// What is to become of segments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The segment has this manifest now.
    Set(SegmentIndex, ChunkId),
    /// All of these segments are holes now.
    Clear(Range<SegmentIndex>),
}

impl Change {
    /// The segments that change.
    pub fn segments(&self) -> Range<SegmentIndex> {
        match self {
            Self::Set(segment, _) => *segment..SegmentIndex(segment.0 + 1),
            Self::Clear(segments) => segments.clone(),
        }
    }
}

/// The root that `root` becomes by `changes`, which are in the order of their segments and touch none of them twice. Its
/// new nodes go to `writer`, where they are durable once that has finished; nodes below which nothing has changed are
/// those of the old root, and if nothing at all has changed so is the root.
///
/// Reads and writes only nodes on the way to a segment that is set, or to one of the two ends of a cleared range: what
/// lies within a cleared range is dropped without a look at it.
///
/// # Errors
/// [`MapError`]. [`MapError::ChangesOutOfOrder`] and [`MapError::OutsideMap`] before anything was done.
pub fn update(cache: &NodeCache, writer: &mut ChunkWriter, root: Root, changes: &[Change]) -> Result<Root, MapError> {
    check(changes)?;
    let subtree = Subtree { level: Some(Level::TOP), segments: SegmentIndex(0)..SegmentIndex(MAX_SEGMENTS) };
    let top = Update { cache, writer }.subtree(root.top(), &subtree, changes)?;
    Ok(top.map_or(Root::EMPTY, Root::at))
}

fn check(changes: &[Change]) -> Result<(), MapError> {
    let mut end = SegmentIndex(0);
    for (change, segments) in changes.iter().map(Change::segments).enumerate() {
        if segments.is_empty() || segments.start < end {
            return Err(MapError::ChangesOutOfOrder { change });
        }
        end = segments.end;
        check_segment(SegmentIndex(end.0 - 1))?;
    }
    Ok(())
}

/// A place in the tree: that of a node, or of a manifest.
struct Subtree {
    /// The node's level; `None` for a manifest.
    level: Option<Level>,
    /// The segments that are found through it.
    segments: Range<SegmentIndex>,
}

struct Update<'a> {
    cache: &'a NodeCache,
    writer: &'a mut ChunkWriter,
}

impl Update<'_> {
    /// What the subtree `old` becomes by `changes`, each of which touches at least one of its segments.
    fn subtree(
        &mut self,
        old: Option<ChunkId>,
        place: &Subtree,
        changes: &[Change],
    ) -> Result<Option<ChunkId>, MapError> {
        match (changes, place.level) {
            ([], _) => Ok(old),
            ([Change::Clear(cleared)], _) if covers(cleared, &place.segments) => Ok(None),
            ([Change::Set(_, manifest)], None) => Ok(Some(*manifest)),
            (_, Some(level)) if old.is_some() || sets_any(changes) => self.node(old, level, &place.segments, changes),
            _ => Ok(None),
        }
    }

    fn node(
        &mut self,
        old: Option<ChunkId>,
        level: Level,
        segments: &Range<SegmentIndex>,
        changes: &[Change],
    ) -> Result<Option<ChunkId>, MapError> {
        let mut slots = match old {
            Some(id) => node_from(|| self.writer.get(id), self.cache, id, level, segments.start)?.slots(),
            None => [None; FAN_OUT],
        };
        let before = slots;
        let mut rest = changes;
        let mut at = segments.start;
        while let Some(first) = rest.first().map(|change| change.segments().start.max(at))
            && first < segments.end
        {
            let slot = level.slot_of(first);
            let place = Subtree { level: level.below(), segments: level.child_segments(segments.start, slot) };
            let touching = rest.partition_point(|change| change.segments().start < place.segments.end);
            let child = &mut slots[usize::from(slot)];
            *child = self.subtree(*child, &place, &rest[..touching])?;
            at = place.segments.end;
            // The last of them may go on behind this child.
            rest = &rest[rest.partition_point(|change| change.segments().end <= at)..];
        }
        if slots == before { Ok(old) } else { self.write(Node::of(level, &slots)) }
    }

    fn write(&mut self, node: Option<Node>) -> Result<Option<ChunkId>, MapError> {
        let Some(node) = node.map(Arc::new) else { return Ok(None) };
        let id = self.writer.put(NewChunk::of(ChunkKind::Node, node.encode()))?;
        self.cache.insert_node(id, &node);
        Ok(Some(id))
    }
}

fn covers(outer: &Range<SegmentIndex>, inner: &Range<SegmentIndex>) -> bool {
    outer.start <= inner.start && inner.end <= outer.end
}

fn sets_any(changes: &[Change]) -> bool {
    changes.iter().any(|change| matches!(change, Change::Set(..)))
}
