//! The segments of a root that are not holes.

use std::ops::Range;
use std::sync::Arc;

use sterna_types::{ChunkId, Root, SegmentIndex};

use super::cache::NodeCache;
use super::error::MapError;
use super::node::{Level, Node};
use super::tree::{clipped, node};
use crate::chunk_store::ChunkStore;

/// The segments of `range` that have a manifest, with its id, in order. Nodes are read as the iterator comes to them, and
/// only those through which a segment of `range` is found. An error is the last that it yields.
pub fn segments<'a>(
    store: &'a dyn ChunkStore,
    cache: &'a NodeCache,
    root: Root,
    range: Range<SegmentIndex>,
) -> Segments<'a> {
    let range = clipped(range);
    let pending = if range.is_empty() { None } else { root.top() };
    Segments { store, cache, next: range.start, end: range.end, top: pending, path: Vec::with_capacity(3) }
}

/// What [`segments`] returns.
#[derive(Debug)]
pub struct Segments<'a> {
    store: &'a dyn ChunkStore,
    cache: &'a NodeCache,
    /// Nothing before this segment is yielded any more, nor anything from `end` on.
    next: SegmentIndex,
    end: SegmentIndex,
    /// The top, as long as it has not been read.
    top: Option<ChunkId>,
    /// The nodes from the top to the one where the walk is, with the first segment found through each.
    path: Vec<(Arc<Node>, SegmentIndex)>,
}

impl Segments<'_> {
    fn step(&mut self) -> Result<Option<(SegmentIndex, ChunkId)>, MapError> {
        if let Some(top) = self.top.take() {
            self.descend(top, Level::TOP, SegmentIndex(0))?;
        }
        while let Some((parent, first)) = self.path.last() {
            let (level, first) = (parent.level(), *first);
            let is_behind = self.next.0 >= first.0 + level.segments();
            let from = if self.next <= first { 0 } else { level.slot_of(self.next) };
            let Some(slot) = parent.occupied_from(from).filter(|_| !is_behind) else {
                self.next = self.next.max(SegmentIndex(first.0 + level.segments()));
                self.path.pop();
                continue;
            };
            let found = level.child_segments(first, slot);
            if found.start >= self.end {
                self.path.clear();
                break;
            }
            let Some(child) = parent.child(slot) else { break };
            match level.below() {
                Some(below) => self.descend(child, below, found.start)?,
                None => {
                    self.next = found.end;
                    return Ok(Some((found.start, child)));
                }
            }
        }
        Ok(None)
    }

    fn descend(&mut self, id: ChunkId, level: Level, first: SegmentIndex) -> Result<(), MapError> {
        let node = node(self.store, self.cache, id, level, first)?;
        self.path.push((node, first));
        Ok(())
    }
}

impl Iterator for Segments<'_> {
    type Item = Result<(SegmentIndex, ChunkId), MapError>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.step();
        if step.is_err() {
            self.path.clear();
        }
        step.transpose()
    }
}
