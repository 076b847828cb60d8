//! Which contents need chunks that are lost, and for which of their ranges.
//!
//! The maps of all contents are walked, one after the other. Most of what they name they share: a part of a map below which
//! nothing is lost is remembered, and passed by wherever it is met again; one below which something is lost is walked anew
//! for each of the contents, since each has ranges of its own there.

use std::collections::{HashMap, HashSet};

use sterna_types::{BLOCKS_PER_SEGMENT, ByteOffset, ByteRange, ByteSize, ChunkId, Root, SegmentIndex};

use crate::chunk_store::{ChunkStore, Throttle};
use crate::map::{self, Level, Manifest, MapError, NodeCache};
use crate::verify::{bytes_of, range};

/// What needs a chunk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needed {
    /// The first [`Needed::MAX_RANGES`] ranges that cannot be read without it, each with the number of the contents that it
    /// is of. Neighbours are joined.
    pub ranges: Vec<(usize, ByteRange)>,
    /// How many there are beside these.
    pub more: u64,
    /// Where the newest of all of these ends.
    end: Option<(usize, ByteOffset)>,
}

impl Needed {
    /// A chunk of data that all sorts of disks have in common is in any number of ranges.
    pub const MAX_RANGES: usize = 64;

    fn note(&mut self, contents: usize, range: ByteRange) {
        let continues = self.end.replace((contents, range.end())) == Some((contents, range.start()));
        if !continues && self.ranges.len() < Self::MAX_RANGES {
            self.ranges.push((contents, range));
        } else if !continues {
            self.more += 1;
        } else if let Some((_, last)) = self.ranges.last_mut().filter(|_| self.more == 0) {
            *last = ByteRange::between(last.start(), range.end());
        }
    }
}

/// What a search has found.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The chunks that were looked for, each with what needs it.
    pub chunks: HashMap<ChunkId, Needed>,
    /// Whether all maps were walked to their end. Otherwise the search was called off, or a part of a map that is not among
    /// the lost chunks could not be read, and what is found through that is not known.
    pub is_complete: bool,
}

/// Looks for what needs the chunks in `lost`, in contents that are given by their root and their size. Reads the nodes and
/// manifests of each root, as fast as `throttle` lets it, and those that several roots share once, as far as
/// `MAX_REMEMBERED` goes.
pub fn find(
    store: &dyn ChunkStore,
    lost: impl IntoIterator<Item = ChunkId>,
    contents: &[(Root, ByteSize)],
    throttle: &mut Throttle<'_>,
) -> Found {
    let found = Found { chunks: lost.into_iter().map(|id| (id, Needed::default())).collect(), is_complete: true };
    // A cache of its own: what guests read again and again is not pushed out by this.
    let nodes = NodeCache::new(CACHE_BYTES);
    let mut search = Search { store, nodes, throttle, found, whole: HashSet::new(), contents: 0, size: ByteSize(0) };
    if !search.found.chunks.is_empty() {
        for (number, (root, size)) in contents.iter().enumerate() {
            (search.contents, search.size) = (number, *size);
            root.top().map(|top| search.node(top, Level::TOP, SegmentIndex(0)));
        }
    }
    search.found.is_complete &= !search.throttle.is_cancelled();
    search.found
}

struct Search<'a, 'b> {
    store: &'a dyn ChunkStore,
    nodes: NodeCache,
    throttle: &'a mut Throttle<'b>,
    found: Found,
    /// Parts of maps below which nothing is lost.
    whole: HashSet<ChunkId>,
    /// What is being walked.
    contents: usize,
    size: ByteSize,
}

impl Search<'_, '_> {
    /// Looks at a node, through which the segments from `first` on are found, and at what is below it; whether nothing is
    /// lost there.
    fn node(&mut self, id: ChunkId, level: Level, first: SegmentIndex) -> bool {
        let segments = first..SegmentIndex(first.0 + level.segments());
        if let Some(is_whole) = self.is_known(id, bytes_of(&segments)) {
            return is_whole;
        }
        let node = map::tree::node(self.store, &self.nodes, id, level, first);
        let Some(node) = self.readable(node, |node| size_of_val(node.children())) else { return false };
        let (mut is_whole, mut slot) = (true, node.occupied_from(0));
        while let Some(at) = slot {
            let below = level.child_segments(first, at).start;
            is_whole &= node.child(at).is_none_or(|child| match level.below() {
                Some(level) => self.node(child, level, below),
                None => self.manifest(child, below),
            });
            slot = at.checked_add(1).and_then(|next| node.occupied_from(next));
        }
        self.remember_if(is_whole, id)
    }

    /// The same for the manifest of a segment.
    fn manifest(&mut self, id: ChunkId, segment: SegmentIndex) -> bool {
        if let Some(is_whole) = self.is_known(id, bytes_of(&(segment..SegmentIndex(segment.0 + 1)))) {
            return is_whole;
        }
        let manifest = map::manifest(self.store, &self.nodes, id, segment);
        let Some(manifest) = self.readable(manifest, |manifest| size_of_val(manifest.extents())) else { return false };
        let is_whole = self.extents(&manifest, segment);
        self.remember_if(is_whole, id)
    }

    fn extents(&mut self, manifest: &Manifest, segment: SegmentIndex) -> bool {
        let mut is_whole = true;
        for extent in manifest.extents() {
            let first = segment.0 * BLOCKS_PER_SEGMENT + u64::from(extent.first_block);
            is_whole &= !self.note_if_lost(extent.chunk, range(first, extent.block_count.into()));
        }
        is_whole
    }

    /// What there is to say without a look at a part of a map: that nothing is lost below it, or that the part itself is,
    /// and with it all of these bytes. Nothing is looked at any more once the search is called off.
    fn is_known(&mut self, id: ChunkId, bytes: ByteRange) -> Option<bool> {
        if self.throttle.is_cancelled() {
            return Some(false);
        }
        if self.whole.contains(&id) {
            return Some(true);
        }
        self.note_if_lost(id, bytes).then_some(false)
    }

    fn note_if_lost(&mut self, id: ChunkId, bytes: ByteRange) -> bool {
        let Some(needed) = self.found.chunks.get_mut(&id) else { return false };
        let end = bytes.end().min(ByteOffset(self.size.0));
        // What a larger size has left behind the end is nobody's.
        if bytes.start() < end {
            needed.note(self.contents, ByteRange::between(bytes.start(), end));
        }
        true
    }

    /// A part of a map that could be read, of about so many bytes; `None` where it could not, or the search is called off.
    fn readable<T>(&mut self, part: Result<T, MapError>, bytes: impl FnOnce(&T) -> usize) -> Option<T> {
        match part {
            Ok(part) => self.throttle.pass(bytes(&part) as u64).then_some(part),
            Err(error) => {
                tracing::warn!(%error, "what needs the lost chunks is not known in full");
                self.found.is_complete = false;
                None
            }
        }
    }

    fn remember_if(&mut self, is_whole: bool, id: ChunkId) -> bool {
        if is_whole && self.whole.len() < MAX_REMEMBERED {
            self.whole.insert(id);
        }
        is_whole
    }
}

/// Bounds the memory of a search: 32 MiB of ids. They are the parts of the maps of 2 TiB that nobody shares; a larger map
/// is walked again for each of its snapshots, as far as it goes beyond that.
const MAX_REMEMBERED: usize = 1 << 19;
const CACHE_BYTES: u64 = 8 << 20;

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    use sterna_types::BLOCK_SIZE;

    use super::*;
    use crate::chunk_store::{ChunkKind, MemoryChunkStore, NewChunk};
    use crate::chunk_writer::ChunkWriter;
    use crate::map::{Change, Extent};

    /// A store with roots: each is a list of segments, each of these a list of chunks of one block.
    struct Fixture {
        store: Arc<MemoryChunkStore>,
        roots: Vec<Root>,
    }

    fn block(number: u8) -> NewChunk {
        NewChunk::of(ChunkKind::Data, vec![number; 4096].into())
    }

    fn manifest(blocks: &[u8]) -> NewChunk {
        let extent = |(at, number): (u16, &u8)| Extent {
            first_block: at,
            block_count: 1,
            chunk: block(*number).id,
            first_in_chunk: 0,
        };
        let manifest = Manifest::from_extents((0..).zip(blocks).map(extent)).expect("a manifest");
        NewChunk::of(ChunkKind::Manifest, manifest.encode().expect("extents"))
    }

    impl Fixture {
        fn new(roots: &[&[(u64, &[u8])]]) -> Self {
            let store = Arc::new(MemoryChunkStore::new());
            let nodes = NodeCache::new(0);
            let root = |segments: &&[(u64, &[u8])]| {
                let mut writer = ChunkWriter::new(store.clone());
                let mut changes = Vec::new();
                for (segment, blocks) in *segments {
                    let manifest = manifest(blocks);
                    changes.push(Change::Set(SegmentIndex(*segment), manifest.id));
                    writer.put(manifest).expect("a manifest");
                }
                let root = map::update(&nodes, &mut writer, Root::EMPTY, &changes).expect("a root");
                drop(writer.finish().expect("stored chunks"));
                root
            };
            let roots = roots.iter().map(root).collect();
            Self { store, roots }
        }

        fn find(&self, lost: &[ChunkId], size: ByteSize) -> Found {
            let contents: Vec<_> = self.roots.iter().map(|root| (*root, size)).collect();
            let never = AtomicBool::new(false);
            find(&*self.store, lost.iter().copied(), &contents, &mut Throttle::new(None, &never))
        }
    }

    /// Ranges in blocks.
    fn ranges(found: &Found, id: ChunkId) -> Vec<(usize, u64, u64)> {
        let blocks = |(contents, range): &(usize, ByteRange)| {
            (*contents, range.start().0 / BLOCK_SIZE, range.length() / BLOCK_SIZE)
        };
        found.chunks[&id].ranges.iter().map(blocks).collect()
    }

    const LARGE: ByteSize = ByteSize(64 << 40);

    #[test]
    fn every_range_of_all_contents_is_found_and_neighbours_are_joined() {
        let shared: &[u8] = &[1, 7, 7, 2];
        let fixture = Fixture::new(&[&[(0, shared), (9, &[3])], &[(0, shared), (70_000, shared)], &[(5, &[1, 2])]]);
        let found = fixture.find(&[block(7).id, block(3).id, block(99).id], LARGE);
        assert!(found.is_complete);
        assert_eq!(ranges(&found, block(7).id), [(0, 1, 2), (1, 1, 2), (1, 70_000 * 1024 + 1, 2)]);
        assert_eq!(ranges(&found, block(3).id), [(0, 9 * 1024, 1)]);
        assert_eq!(ranges(&found, block(99).id), []);
    }

    #[test]
    fn a_part_of_the_map_is_needed_by_all_that_is_found_through_it() {
        let fixture = Fixture::new(&[&[(3, &[1]), (300, &[2])], &[(3, &[1])]]);
        let (lost, top) = (manifest(&[1]).id, fixture.roots[1].top().expect("a top"));
        fixture.store.lose(lost);
        fixture.store.lose(top);
        let found = fixture.find(&[lost, top], ByteSize((4 << 20) + 3 * (4 << 20)));
        assert!(found.is_complete);
        assert_eq!(ranges(&found, lost), [(0, 3 * 1024, 1024)], "what is below a lost top cannot be seen");
        assert_eq!(ranges(&found, top), [(1, 0, 4 * 1024)], "up to the volume's end");
    }

    #[test]
    fn what_is_too_much_to_be_listed_is_counted() {
        let blocks: Vec<u8> = (0..200).map(|at| if at % 2 == 0 { 7 } else { 8 }).collect();
        let fixture = Fixture::new(&[&[(0, &blocks)]]);
        let found = fixture.find(&[block(7).id], LARGE);
        let needed = &found.chunks[&block(7).id];
        assert_eq!((needed.ranges.len(), needed.more), (Needed::MAX_RANGES, 100 - Needed::MAX_RANGES as u64));
    }

    #[test]
    fn what_cannot_be_looked_at_makes_the_answer_incomplete() {
        let fixture = Fixture::new(&[&[(0, &[1]), (1, &[2])]]);
        fixture.store.lose(manifest(&[1]).id);
        let found = fixture.find(&[block(2).id], LARGE);
        assert_eq!((found.is_complete, ranges(&found, block(2).id)), (false, vec![(0, 1024, 1)]));
        let cancelled = AtomicBool::new(true);
        let contents = [(fixture.roots[0], LARGE)];
        let found = find(&*fixture.store, [block(2).id], &contents, &mut Throttle::new(None, &cancelled));
        assert!(!found.is_complete);
    }

    #[test]
    fn what_several_contents_share_and_is_whole_is_read_once() {
        let shared: &[(u64, &[u8])] = &[(0, &[1]), (1, &[2]), (300, &[3])];
        let fixture = Fixture::new(&[shared, shared]);
        let never = AtomicBool::new(false);
        let mut throttle = Throttle::new(None, &never);
        let once = find(&*fixture.store, [block(9).id], &[(fixture.roots[0], LARGE)], &mut throttle);
        assert!(once.is_complete && once.chunks[&block(9).id] == Needed::default());
        let read = throttle.passed_bytes();
        let both: Vec<_> = fixture.roots.iter().map(|root| (*root, LARGE)).collect();
        find(&*fixture.store, [block(9).id], &both, &mut throttle);
        assert_eq!(throttle.passed_bytes(), 2 * read);
    }
}
