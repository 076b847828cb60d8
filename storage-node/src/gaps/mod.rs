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
//! Each group is as large as it can be, since it costs a round trip: all that is lacking of a node's children, of the
//! manifests of 64 segments, of their data up to 4,096 chunks. The walk goes down before it goes on, so that what it holds is
//! bounded: the children of three nodes (256 each), and the ids of the data of 64 segments (1,024 each), 2 MiB, and again as
//! much to tell which of them are the same. Nodes and manifests are read from the store, past the cache that guests' reads
//! go through.

use std::collections::HashSet;
use std::iter;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use sterna_types::{BLOCK_SIZE, BLOCKS_PER_SEGMENT, ChunkId, Root, SegmentIndex};

use crate::chunk_store::{ChunkKind, ChunkStore, MAX_CHUNK_BYTES, NewChunk, StoreError, StorePin, chunk_id};
use crate::chunk_writer::{MAX_PENDING_BYTES, MAX_PENDING_CHUNKS};
use crate::map::{self, Level, Manifest, MapError, Node, NodeCache, ReferencesError};

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

/// Walks the difference of two roots and names what is lacking of the new one; what the old one needs is here, held by a name
/// that the caller keeps.
#[derive(Debug)]
pub struct Gaps {
    store: Arc<dyn ChunkStore>,
    /// What it is of: in order, none overlaps another.
    blocks: Vec<Range<u64>>,
    /// Holds nothing: each part of a map is read once.
    nodes: NodeCache,
    /// The nodes from above the top to where the walk is.
    path: Vec<Row>,
    window: Window,
    /// What was named last.
    named: Vec<Wanted>,
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
    data: Vec<ChunkId>,
    seen: HashSet<ChunkId>,
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
        Self { store, blocks, nodes, path: vec![above], window, named: Vec::new() }
    }

    /// The next group of chunks that are lacking, at most [`MAX_WANTED`], each once; never an empty one. `None` at the end of
    /// the walk. The caller fetches and stores them ([`store_fetched`]), then calls again; what is still lacking of them is
    /// named again. All that is found to be here stays at least until `pin` is dropped. Blocks.
    ///
    /// # Errors
    /// [`MapError`] where a part of either map cannot be read, or is none, or a part of the old one is not here. The walk is
    /// where it was, and the call can be made again.
    pub fn next(&mut self, pin: &StorePin) -> Result<Option<Vec<Wanted>>, MapError> {
        let mut lacking = lacking(&*self.store, &self.named, pin)?;
        self.named.clear();
        while lacking.is_empty() {
            match self.step(pin)? {
                Some(found) => lacking = found,
                None => return Ok(None),
            }
        }
        self.named.clone_from(&lacking);
        Ok(Some(lacking))
    }

    /// One step of the walk: what is found lacking, which may be nothing; `None` at the end.
    fn step(&mut self, pin: &StorePin) -> Result<Option<Vec<Wanted>>, MapError> {
        if let Some(found) = self.window.step(&*self.store, &self.blocks, &self.nodes, pin)? {
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
            let found = lacking(&*self.store, &wanted(&row.places, ChunkKind::Node), pin)?;
            row.is_named = true;
            return Ok(Some(found));
        }
        let read = |id| map::tree::node(&*self.store, &self.nodes, id, level, place.first);
        let Some(new) = unless_lacking(read(place.new), place.new)? else {
            // It was here, and has been collected since.
            return Ok(Some(wanted(&[place], ChunkKind::Node)));
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
    ) -> Result<Option<Vec<Wanted>>, MapError> {
        if !self.is_named {
            let found = lacking(store, &wanted(&self.segments, ChunkKind::Manifest), pin)?;
            self.is_named = true;
            return Ok(Some(found));
        }
        if let Some(place) = self.segments.get(self.read) {
            let read = |id| map::manifest(store, nodes, id, place.first);
            let Some(new) = unless_lacking(read(place.new), place.new)? else {
                return Ok(Some(wanted(&[*place], ChunkKind::Manifest)));
            };
            let old = place.old.map(read).transpose()?;
            self.read += 1;
            self.add(&new, old.as_deref(), blocks, place.first);
            return Ok(Some(Vec::new()));
        }
        let mut found = Vec::new();
        let mut next = self.next;
        while let Some(&id) = self.data.get(next).filter(|_| found.len() < MAX_WANTED) {
            if !store.keep(id, pin)? {
                found.push(Wanted { id, kind: ChunkKind::Data });
            }
            next += 1;
        }
        self.next = next;
        Ok((!found.is_empty()).then_some(found))
    }

    /// Notes the data of a segment that is in `blocks`, but for what the old manifest names too.
    fn add(&mut self, new: &Manifest, old: Option<&Manifest>, blocks: &[Range<u64>], segment: SegmentIndex) {
        let held: HashSet<ChunkId> = old.map(Manifest::chunks).into_iter().flatten().collect();
        let first = blocks_from(segment, 1).start;
        for extent in new.extents() {
            let part = first + u64::from(extent.first_block)..first + u64::from(extent.end_block());
            if has_any(blocks, part) && !held.contains(&extent.chunk) && self.seen.insert(extent.chunk) {
                self.data.push(extent.chunk);
            }
        }
    }
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

/// Why fetched chunks were not stored.
#[derive(Debug, thiserror::Error)]
pub enum FetchedError {
    /// What came is not what was asked for: it was altered on its way, or where it is kept.
    #[error("chunk {id} came with the contents of {found}: it is to be fetched elsewhere")]
    Altered {
        /// The chunk that was wanted.
        id: ChunkId,
        /// What the bytes that came are called.
        found: ChunkId,
    },
    /// No store takes a chunk of such a length. It has the right id: the one who wrote it was wrong.
    #[error("chunk {id} came with {length} bytes, and no chunk of its kind has so many")]
    Length {
        /// The chunk.
        id: ChunkId,
        /// Its length in bytes.
        length: usize,
    },
    /// The chunk is not what the map has in its place. It has the right id: the one who wrote it was wrong.
    #[error("chunk {id} is not what the map says: {source}")]
    Kind {
        /// The chunk.
        id: ChunkId,
        /// What is wrong with it.
        source: ReferencesError,
    },
    /// The store could not take them.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Verifies each chunk against its id, and that a node or manifest is one, and stores them: durable on return, and kept at
/// least until `pin` is dropped. Blocks.
///
/// # Errors
/// [`FetchedError`]. Where one of the chunks is not what was wanted, it is named, and none of them is stored; where the store
/// fails, some may be.
pub fn store_fetched(
    store: &Arc<dyn ChunkStore>,
    pin: &StorePin,
    chunks: Vec<(Wanted, Bytes)>,
) -> Result<(), FetchedError> {
    let verified: Result<Vec<NewChunk>, _> =
        chunks.into_iter().map(|(wanted, bytes)| verified(wanted, bytes)).collect();
    let verified = verified?;
    let (mut begin, mut bytes) = (0, 0);
    for (at, chunk) in verified.iter().enumerate() {
        bytes += chunk.bytes.len();
        if bytes >= MAX_PENDING_BYTES || at + 1 - begin >= MAX_PENDING_CHUNKS || at + 1 == verified.len() {
            store.append(&verified[begin..=at], pin)?;
            (begin, bytes) = (at + 1, 0);
        }
    }
    Ok(())
}

fn verified(wanted: Wanted, bytes: Bytes) -> Result<NewChunk, FetchedError> {
    let Wanted { id, kind } = wanted;
    let found = chunk_id(&bytes);
    if found != id {
        return Err(FetchedError::Altered { id, found });
    }
    let length = bytes.len();
    let is_whole = kind != ChunkKind::Data || (length as u64).is_multiple_of(BLOCK_SIZE);
    if !(1..=MAX_CHUNK_BYTES).contains(&length) || !is_whole {
        return Err(FetchedError::Length { id, length });
    }
    map::children(kind, &bytes).map_err(|source| FetchedError::Kind { id, source })?;
    Ok(NewChunk { id, kind, bytes, read_soon: false })
}

/// Those that are not here, each once. Those that are stay.
fn lacking(store: &dyn ChunkStore, wanted: &[Wanted], pin: &StorePin) -> Result<Vec<Wanted>, StoreError> {
    let (mut seen, mut lacking) = (HashSet::new(), Vec::new());
    for &chunk in wanted {
        if seen.insert(chunk.id) && !store.keep(chunk.id, pin)? {
            lacking.push(chunk);
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

fn wanted(places: &[Place], kind: ChunkKind) -> Vec<Wanted> {
    places.iter().map(|place| Wanted { id: place.new, kind }).collect()
}

/// Segments whose data is looked for together: 256 MiB of a volume, so that a link of 1 Gbit/s has work for seconds.
const WINDOW_SEGMENTS: usize = 64;

#[cfg(test)]
mod tests;
