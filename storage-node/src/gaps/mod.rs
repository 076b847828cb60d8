//! What a site lacks of a root, found by walking it beside an older root that is here and complete.
//!
//! Whoever follows a volume has all of an old root, held by a name, and wants a new one:
//! 1. [`Gaps::next`] names a group of chunks that are lacking; they are fetched from where they are, and stored with
//!    [`store_fetched`]. Again, until there is no next group. Each group has a [`StorePin`] of its own, so that no collection
//!    waits for the network.
//! 2. Between two groups a collection may take what was fetched: nothing refers to it yet. So [`complete`] walks once more,
//!    under one pin; where it finds a gap, go back to 1 with a new walk.
//! 3. Under the pin that it gives, the new root is recorded where collections look for roots.
//!
//! A crash, or giving up, at any moment leaves chunks that nobody needs; a new walk finds them here and does not name them,
//! or they are collected.
//!
//! That a chunk is here says nothing about the chunks that it refers to. So the walk descends into every node and manifest of
//! the new root, be it here or not, except for those that the old root has in the same place: below these everything is
//! here. Of a segment that differs, the chunks that its old manifest names are not looked up either. The cost is that of
//! the difference.
//!
//! A walk can be of some blocks of a root only ([`Gaps::within`]): of what else there is, it looks at what lies on the way.
//!
//! With each chunk that is lacking comes what the old root has in its place, its predecessors: whoever sends the chunk can say how it
//! differs from these ([`bundle`](crate::bundle)).
//!
//! Each group is as large as it can be, since it costs a round trip: all that is lacking of a node's children, of the
//! manifests of 64 segments, of their data up to 4,096 chunks. The walk goes down before it goes on, so that what it holds is
//! bounded: the children of three nodes (256 each), and the ids of the data of 64 segments (1,024 each), 2 MiB, again as much to
//! tell which of them are the same, and as many predecessors, 3 MiB. Nodes and manifests are read from the store, past the cache that guests' reads
//! go through.

mod fetched;

use std::collections::{HashMap, HashSet};
use std::iter;
use std::ops::Range;
use std::sync::Arc;

use sterna_types::{BLOCK_SIZE, BLOCKS_PER_SEGMENT, ChunkId, Root, SegmentIndex};

pub use fetched::{FetchedError, repair_fetched, store_fetched};

use crate::bundle::Excerpt;
use crate::chunk_store::{ChunkKind, ChunkStore, StoreError, StorePin};
use crate::map::{self, Extent, Level, Manifest, MapError, Node, NodeCache, Piece};

/// The most chunks in one group: ids of 128 KiB in one message, data of at most 512 MiB.
pub const MAX_WANTED: usize = 4096;

/// A chunk that is needed and not here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Wanted {
    /// Its name.
    pub id: ChunkId,
    /// What it has to be.
    pub kind: ChunkKind,
}

/// A chunk that is needed and not here, and what was in its place before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The chunk.
    pub wanted: Wanted,
    /// Parts of chunks that are here, in the order of the blocks that they held; of a node or manifest, the one that it takes the place
    /// of. None where there was nothing, or it is not known.
    pub predecessors: Vec<Excerpt>,
}

/// One without predecessors.
impl From<Wanted> for Gap {
    fn from(wanted: Wanted) -> Self {
        Self { wanted, predecessors: Vec::new() }
    }
}

/// Walks the difference of two roots and names what is lacking of the new one; what the old one needs is here, held by a name
/// that the caller keeps.
#[derive(Debug)]
pub struct Gaps {
    store: Arc<dyn ChunkStore>,
    /// What it is of: in order, none overlaps another.
    blocks: Vec<Range<u64>>,
    /// Whether data is not looked at.
    is_of_map: bool,
    /// Holds nothing: each part of a map is read once.
    nodes: NodeCache,
    /// The nodes from above the top to where the walk is.
    path: Vec<Row>,
    window: Window,
    /// What was named last.
    named: Vec<Gap>,
}

/// A place in two maps where they differ, and that is no hole in the new one.
#[derive(Clone, Copy, Debug)]
struct Place {
    old: Option<ChunkId>,
    new: ChunkId,
    /// The first segment that is found through it.
    first: SegmentIndex,
}

/// What differs among the children of a node.
#[derive(Debug)]
struct Row {
    /// The level of the children; `None` where they are manifests.
    level: Option<Level>,
    places: Vec<Place>,
    /// Whether those that are lacking have been named.
    is_named: bool,
    /// The children before this one are done with.
    next: usize,
}

/// Some segments that differ.
#[derive(Debug, Default)]
struct Window {
    segments: Vec<Place>,
    /// Whether the manifests that are lacking have been named.
    is_named: bool,
    /// The manifests before this one have been read.
    read: usize,
    /// The data that these name and their old ones do not, each chunk once.
    data: Vec<Gap>,
    /// Where each of them is there.
    places: HashMap<ChunkId, usize>,
    /// The data before this one is done with.
    next: usize,
}

impl Gaps {
    /// A walk from `old`, all of which is in `store`, to `new`. Reads nothing yet.
    pub fn new(store: Arc<dyn ChunkStore>, old: Root, new: Root) -> Self {
        Self::within(store, old, new, iter::once(0..u64::MAX))
    }

    /// The same of these blocks, which are in order, and none of which overlaps another.
    pub fn within(
        store: Arc<dyn ChunkStore>,
        old: Root,
        new: Root,
        blocks: impl IntoIterator<Item = Range<u64>>,
    ) -> Self {
        let blocks = blocks.into_iter().collect();
        let top = new.top().filter(|_| new != old);
        let place = top.map(|new| Place { old: old.top(), new, first: SegmentIndex(0) });
        let above = Row { level: Some(Level::TOP), places: place.into_iter().collect(), is_named: false, next: 0 };
        let (nodes, window) = (NodeCache::new(0), Window::default());
        Self { store, blocks, is_of_map: false, nodes, path: vec![above], window, named: Vec::new() }
    }

    /// A walk over the maps only: of `old` all of the map is in `store`, and of `new` no data is named.
    pub fn of_map(store: Arc<dyn ChunkStore>, old: Root, new: Root) -> Self {
        Self { is_of_map: true, ..Self::new(store, old, new) }
    }

    /// The next group of chunks that are lacking, at most [`MAX_WANTED`], each once; never an empty one. `None` at the end of
    /// the walk. The caller fetches and stores them ([`store_fetched`]), then calls again; what is still lacking of them is
    /// named again. All that is found to be here stays at least until `pin` is dropped. Blocks.
    ///
    /// # Errors
    /// [`MapError`] where a part of either map cannot be read, or is none, or a part of the old one is not here. The walk is
    /// where it was, and the call can be made again.
    pub fn next(&mut self, pin: &StorePin) -> Result<Option<Vec<Gap>>, MapError> {
        let mut lacking = lacking(&*self.store, std::mem::take(&mut self.named), pin)?;
        while lacking.is_empty() {
            match self.step(pin)? {
                Some(found) => lacking = found,
                None => return Ok(None),
            }
        }
        self.named.clone_from(&lacking);
        Ok(Some(lacking))
    }

    /// Goes on without what was named last: the next call does not name it again, whether it is here by then or not. Only for data, through
    /// which no walk leads.
    ///
    /// # Panics
    /// Where parts of the map were named last.
    pub fn leave(&mut self) {
        assert!(self.named.iter().all(|gap| gap.wanted.kind == ChunkKind::Data), "a walk leads through the map");
        self.named.clear();
    }

    /// One step of the walk: what is found lacking, which may be nothing; `None` at the end.
    fn step(&mut self, pin: &StorePin) -> Result<Option<Vec<Gap>>, MapError> {
        let with_data = if self.is_of_map { &[][..] } else { &self.blocks };
        if let Some(found) = self.window.step(&*self.store, with_data, &self.nodes, pin)? {
            return Ok(Some(found));
        }
        let Some(row) = self.path.last_mut() else { return Ok(None) };
        let Some(&place) = row.places.get(row.next) else {
            self.path.pop();
            return Ok(Some(Vec::new()));
        };
        let Some(level) = row.level else {
            let end = row.places.len().min(row.next + WINDOW_SEGMENTS);
            self.window = Window { segments: row.places[row.next..end].to_vec(), ..Window::default() };
            row.next = end;
            return Ok(Some(Vec::new()));
        };
        if !row.is_named {
            let found = lacking(&*self.store, gaps(&row.places, ChunkKind::Node), pin)?;
            row.is_named = true;
            return Ok(Some(found));
        }
        let read = |id| map::tree::node(&*self.store, &self.nodes, id, level, place.first);
        let Some(new) = unless_lacking(read(place.new), place.new)? else {
            // It was here, and has been collected since.
            return Ok(Some(gaps(&[place], ChunkKind::Node)));
        };
        let old = place.old.map(read).transpose()?;
        row.next += 1;
        let mut places = differing(old.as_deref(), &new, place.first);
        let segments = level.segments_per_child();
        places.retain(|place| has_any(&self.blocks, blocks_from(place.first, segments)));
        self.path.push(Row { level: level.below(), places, is_named: false, next: 0 });
        Ok(Some(Vec::new()))
    }
}

impl Window {
    /// What is found lacking, which may be nothing; `None` where the window is done with.
    fn step(
        &mut self,
        store: &dyn ChunkStore,
        blocks: &[Range<u64>],
        nodes: &NodeCache,
        pin: &StorePin,
    ) -> Result<Option<Vec<Gap>>, MapError> {
        if !self.is_named {
            let found = lacking(store, gaps(&self.segments, ChunkKind::Manifest), pin)?;
            self.is_named = true;
            return Ok(Some(found));
        }
        if let Some(place) = self.segments.get(self.read) {
            let read = |id| map::manifest(store, nodes, id, place.first);
            let Some(new) = unless_lacking(read(place.new), place.new)? else {
                return Ok(Some(gaps(&[*place], ChunkKind::Manifest)));
            };
            let old = place.old.map(read).transpose()?;
            self.read += 1;
            self.add(&new, old.as_deref(), blocks, place.first);
            return Ok(Some(Vec::new()));
        }
        let mut found = Vec::new();
        let mut next = self.next;
        while let Some(gap) = self.data.get(next).filter(|_| found.len() < MAX_WANTED) {
            if !store.keep(gap.wanted.id, pin)? {
                found.push(gap.clone());
            }
            next += 1;
        }
        self.next = next;
        Ok((!found.is_empty()).then_some(found))
    }

    /// Notes the data of a segment that is in `blocks`, but for what the old manifest names too.
    fn add(&mut self, new: &Manifest, old: Option<&Manifest>, blocks: &[Range<u64>], segment: SegmentIndex) {
        let first = blocks_from(segment, 1).start;
        for (extent, before) in new_data(new, old) {
            let part = first + u64::from(extent.first_block)..first + u64::from(extent.end_block());
            if !has_any(blocks, part) {
                continue;
            }
            let place = *self.places.entry(extent.chunk).or_insert_with(|| {
                self.data.push(Wanted { id: extent.chunk, kind: ChunkKind::Data }.into());
                self.data.len() - 1
            });
            // A chunk that is in many places has what was in the first ones.
            let predecessors = &mut self.data[place].predecessors;
            predecessors.extend(before.take(MAX_PREDECESSORS.saturating_sub(predecessors.len())));
        }
    }
}

/// The extents of a manifest in chunks that the one before it does not name, each with what is in its place there.
pub(crate) fn new_data<'a>(
    new: &'a Manifest,
    old: Option<&'a Manifest>,
) -> impl Iterator<Item = (&'a Extent, impl Iterator<Item = Excerpt>)> {
    let held: HashSet<ChunkId> = old.map(Manifest::chunks).into_iter().flatten().collect();
    new.extents().iter().filter(move |extent| !held.contains(&extent.chunk)).map(move |extent| {
        let before = old.map(|old| old.lookup(extent.first_block, extent.block_count));
        (extent, before.into_iter().flatten().filter_map(excerpt))
    })
}

/// Whether all of `new` is here, walked from `old` under one pin without a gap. If it is, the pin is returned: record the root
/// where collections look for roots, then drop it. Blocks; no collection begins meanwhile, and whoever wants a pin waits
/// for one that is about to.
///
/// # Errors
/// As [`Gaps::next`].
pub fn complete(store: &Arc<dyn ChunkStore>, old: Root, new: Root) -> Result<Option<StorePin>, MapError> {
    let pin = store.pin();
    let gap = Gaps::new(Arc::clone(store), old, new).next(&pin)?;
    Ok(gap.is_none().then_some(pin))
}

/// The same of the map of `new`, walked from that of `old`.
///
/// # Errors
/// As [`Gaps::next`].
pub fn complete_map(store: &Arc<dyn ChunkStore>, old: Root, new: Root) -> Result<Option<StorePin>, MapError> {
    let pin = store.pin();
    let gap = Gaps::of_map(Arc::clone(store), old, new).next(&pin)?;
    Ok(gap.is_none().then_some(pin))
}

/// Those that are not here, each once. Those that are stay.
fn lacking(store: &dyn ChunkStore, gaps: Vec<Gap>, pin: &StorePin) -> Result<Vec<Gap>, StoreError> {
    let (mut seen, mut lacking) = (HashSet::new(), Vec::new());
    for gap in gaps {
        if seen.insert(gap.wanted.id) && !store.keep(gap.wanted.id, pin)? {
            lacking.push(gap);
        }
    }
    Ok(lacking)
}

/// A part of a map; `None` where it is itself what is not here.
fn unless_lacking<T>(read: Result<T, MapError>, id: ChunkId) -> Result<Option<T>, MapError> {
    match read {
        Ok(part) => Ok(Some(part)),
        Err(MapError::Missing { part }) if part.id == id => Ok(None),
        Err(error) => Err(error),
    }
}

/// The blocks of so many segments.
fn blocks_from(first: SegmentIndex, segments: u64) -> Range<u64> {
    first.0 * BLOCKS_PER_SEGMENT..(first.0 + segments) * BLOCKS_PER_SEGMENT
}

/// Whether any of `part` is in `blocks`, which are in order.
fn has_any(blocks: &[Range<u64>], part: Range<u64>) -> bool {
    let next = blocks.partition_point(|range| range.end <= part.start);
    blocks.get(next).is_some_and(|range| range.start < part.end)
}

/// The slots in which `new` has a child, and `old` not the same; the segments from `first` on are found through both.
fn differing(old: Option<&Node>, new: &Node, first: SegmentIndex) -> Vec<Place> {
    let place = |slot| {
        let first = new.level().child_segments(first, slot).start;
        let (old, new) = (old.and_then(|old| old.child(slot)), new.child(slot)?);
        (old != Some(new)).then_some(Place { old, new, first })
    };
    (0..=u8::MAX).filter_map(place).collect()
}

fn gaps(places: &[Place], kind: ChunkKind) -> Vec<Gap> {
    let gap = |place: &Place| Gap {
        wanted: Wanted { id: place.new, kind },
        predecessors: place.old.map(Excerpt::all_of).into_iter().collect(),
    };
    places.iter().map(gap).collect()
}

/// What a piece of a manifest has of its chunk; none of a hole.
fn excerpt(piece: Piece) -> Option<Excerpt> {
    let Piece::Mapped(extent) = piece else { return None };
    let bytes = |blocks: u16| u32::from(blocks) * BLOCK_BYTES;
    let start = bytes(extent.first_in_chunk);
    Some(Excerpt { chunk: extent.chunk, bytes: start..start + bytes(extent.block_count) })
}

/// The most predecessors of a chunk: as many as an extent has blocks at most.
pub const MAX_PREDECESSORS: usize = 32;
const BLOCK_BYTES: u32 = 4096;
const _: () = assert!(BLOCK_BYTES as u64 == BLOCK_SIZE);
/// Segments whose data is looked for together: 256 MiB of a volume, so that a link of 1 Gbit/s has work for seconds.
const WINDOW_SEGMENTS: usize = 64;

#[cfg(test)]
mod tests;
