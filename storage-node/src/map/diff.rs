//! The segments in which two roots differ.

use std::sync::Arc;

use sterna_types::{ChunkId, Root, SegmentIndex};

use super::cache::NodeCache;
use super::error::MapError;
use super::node::{Level, Node};
use super::tree::node;
use crate::chunk_store::ChunkStore;

/// A segment that has another manifest in one root than in the other. At least one of them has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentChange {
    /// The segment.
    pub segment: SegmentIndex,
    /// Its manifest in the old root; `None` where it was a hole.
    pub old: Option<ChunkId>,
    /// Its manifest in the new root; `None` where it is a hole.
    pub new: Option<ChunkId>,
}

/// The segments in which two roots differ, in order. Nodes are read as the iterator comes to them, and only those that the
/// two roots do not share: the cost is that of the difference. An error is the last that it yields.
pub fn diff<'a>(store: &'a dyn ChunkStore, cache: &'a NodeCache, old: Root, new: Root) -> Diff<'a> {
    let top = (old != new).then_some((old.top(), new.top()));
    Diff { store, cache, top, path: Vec::with_capacity(3) }
}

/// What [`diff`] returns.
#[derive(Debug)]
pub struct Diff<'a> {
    store: &'a dyn ChunkStore,
    cache: &'a NodeCache,
    /// The two tops, as long as they have not been read.
    top: Option<(Option<ChunkId>, Option<ChunkId>)>,
    /// The pairs of nodes from the top to where the walk is.
    path: Vec<Pair>,
}

/// Two nodes in the same place of two trees.
#[derive(Debug)]
struct Pair {
    old: Option<Arc<Node>>,
    new: Option<Arc<Node>>,
    level: Level,
    /// The first segment that is found through them.
    first: SegmentIndex,
    /// The slots before this one have been compared; beyond the last where all have.
    next: u16,
}

impl Pair {
    /// The next slot whose children differ, with the children.
    fn next_difference(&mut self) -> Option<(u8, Option<ChunkId>, Option<ChunkId>)> {
        loop {
            let from = u8::try_from(self.next).ok()?;
            let occupied = |node: &Option<Arc<Node>>| node.as_ref().and_then(|node| node.occupied_from(from));
            let slot = [occupied(&self.old), occupied(&self.new)].into_iter().flatten().min()?;
            self.next = u16::from(slot) + 1;
            let child = |node: &Option<Arc<Node>>| node.as_ref().and_then(|node| node.child(slot));
            let (old, new) = (child(&self.old), child(&self.new));
            if old != new {
                return Some((slot, old, new));
            }
        }
    }
}

impl Diff<'_> {
    /// Makes it yield nothing more.
    pub(super) fn stop(&mut self) {
        self.top = None;
        self.path.clear();
    }

    fn step(&mut self) -> Result<Option<SegmentChange>, MapError> {
        if let Some((old, new)) = self.top.take() {
            self.descend(old, new, Level::TOP, SegmentIndex(0))?;
        }
        while let Some(pair) = self.path.last_mut() {
            let Some((slot, old, new)) = pair.next_difference() else {
                self.path.pop();
                continue;
            };
            let first = pair.level.child_segments(pair.first, slot).start;
            match pair.level.below() {
                Some(below) => self.descend(old, new, below, first)?,
                None => return Ok(Some(SegmentChange { segment: first, old, new })),
            }
        }
        Ok(None)
    }

    fn descend(
        &mut self,
        old: Option<ChunkId>,
        new: Option<ChunkId>,
        level: Level,
        first: SegmentIndex,
    ) -> Result<(), MapError> {
        let read = |id: Option<ChunkId>| id.map(|id| node(self.store, self.cache, id, level, first)).transpose();
        let (old, new) = (read(old)?, read(new)?);
        self.path.push(Pair { old, new, level, first, next: 0 });
        Ok(())
    }
}

impl Iterator for Diff<'_> {
    type Item = Result<SegmentChange, MapError>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.step();
        if step.is_err() {
            self.stop();
        }
        step.transpose()
    }
}
