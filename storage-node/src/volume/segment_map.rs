//! A segment's manifest with the places of its chunks, as reading wants it.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use sterna_types::{BLOCK_SIZE, ChunkId, SegmentIndex};

use super::error::VolumeError;
use crate::chunk_store::{ChunkKind, ChunkStore, Location};
use crate::gaps::Wanted;
use crate::map::Manifest;

/// The extents of one segment, each with the place of its chunk, where that is here.
#[derive(Debug, Default)]
pub(super) struct SegmentMap {
    extents: Box<[ResolvedExtent]>,
    locations: Box<[Place]>,
    /// Whether one of them is not here.
    is_lacking: bool,
    /// [`ChunkStore::moves`] before they were looked up.
    moves: u64,
    /// Whether a guest has read by it.
    is_read: AtomicBool,
}

/// A chunk.
#[derive(Clone, Debug)]
enum Place {
    Here(Location),
    /// It was not here when it was looked up.
    Absent(ChunkId),
}

#[derive(Debug)]
struct ResolvedExtent {
    first_block: u16,
    block_count: u16,
    first_in_chunk: u16,
    /// Which of the locations.
    location: u16,
}

/// A run of blocks of a segment.
#[derive(Debug)]
pub(super) struct SegmentPiece<'a> {
    /// Counted from the segment's first.
    pub(super) blocks: Range<u64>,
    pub(super) contents: Contents<'a>,
}

/// What a run of blocks holds.
#[derive(Debug)]
pub(super) enum Contents<'a> {
    Hole,
    /// A part of a chunk: from this byte of it on.
    Chunk(&'a Location, u32),
    /// A part of a chunk that was not here when it was looked up.
    Absent(ChunkId),
}

impl SegmentMap {
    /// Looks up where the chunks of a manifest are, as far as they are here: in what was `known` of the segment before, unless
    /// chunks have moved since, and in the store.
    pub(super) fn resolve(
        store: &dyn ChunkStore,
        segment: SegmentIndex,
        manifest: &Manifest,
        known: Option<&Self>,
    ) -> Result<Self, VolumeError> {
        let moves = store.moves();
        let known = known.filter(|known| known.moves == moves).map_or(&[][..], |known| &known.locations);
        let known: HashMap<_, _> = known.iter().filter_map(Place::here).map(|here| (here.id, here)).collect();
        let mut locations: Vec<Place> = Vec::new();
        let mut extents = Vec::with_capacity(manifest.extents().len());
        let mut places = HashMap::new();
        for extent in manifest.extents() {
            let index = match places.get(&extent.chunk) {
                Some(index) => *index,
                None => {
                    let location = match known.get(&extent.chunk) {
                        Some(location) => Some(Location::clone(location)),
                        None => store.locate(extent.chunk)?,
                    };
                    let location = location.map_or(Place::Absent(extent.chunk), Place::Here);
                    let index = u16::try_from(locations.len()).map_err(|_| VolumeError::DamagedSegment { segment })?;
                    locations.push(location);
                    places.insert(extent.chunk, index);
                    index
                }
            };
            let end = (u64::from(extent.first_in_chunk) + u64::from(extent.block_count)) * BLOCK_SIZE;
            let length = locations[usize::from(index)].here().map(|location| u64::from(location.length));
            if length.is_some_and(|length| end > length) {
                return Err(VolumeError::DamagedSegment { segment });
            }
            extents.push(ResolvedExtent {
                first_block: extent.first_block,
                block_count: extent.block_count,
                first_in_chunk: extent.first_in_chunk,
                location: index,
            });
        }
        let is_lacking = locations.iter().any(|place| place.here().is_none());
        let (extents, locations) = (extents.into(), locations.into());
        Ok(Self { extents, locations, is_lacking, moves, is_read: AtomicBool::new(false) })
    }

    /// Whether all is where it was when it was looked up.
    pub(super) fn is_current(&self, store: &dyn ChunkStore) -> bool {
        self.moves == store.moves()
    }

    /// Notes that a guest reads by it.
    pub(super) fn note_read(&self) {
        // Readers share it: it is written once.
        if !self.is_read() {
            self.is_read.store(true, Ordering::Relaxed);
        }
    }

    /// Whether a guest has read by it.
    pub(super) fn is_read(&self) -> bool {
        self.is_read.load(Ordering::Relaxed)
    }

    /// The data that was not here among `blocks`, counted from the segment's first.
    pub(super) fn absent(&self, blocks: Range<u64>) -> impl Iterator<Item = Wanted> {
        // Every read asks; few segments lack anything.
        let blocks = if self.is_lacking { blocks } else { 0..0 };
        self.pieces(blocks).filter_map(|piece| match piece.contents {
            Contents::Absent(id) => Some(Wanted { id, kind: ChunkKind::Data }),
            Contents::Hole | Contents::Chunk(..) => None,
        })
    }

    /// All of `blocks`, counted from the segment's first, in order.
    pub(super) fn pieces(&self, blocks: Range<u64>) -> impl Iterator<Item = SegmentPiece<'_>> {
        let ends_before = |extent: &ResolvedExtent| extent.end() <= blocks.start;
        let mut next = self.extents.partition_point(ends_before);
        let (mut at, end) = (blocks.start, blocks.end);
        std::iter::from_fn(move || {
            if at >= end {
                return None;
            }
            let extent = self.extents.get(next).filter(|extent| u64::from(extent.first_block) < end);
            let piece = match extent {
                None => SegmentPiece { blocks: at..end, contents: Contents::Hole },
                Some(extent) if u64::from(extent.first_block) > at => {
                    SegmentPiece { blocks: at..u64::from(extent.first_block), contents: Contents::Hole }
                }
                Some(extent) => {
                    next += 1;
                    let skipped = at - u64::from(extent.first_block);
                    let from = (u64::from(extent.first_in_chunk) + skipped) * BLOCK_SIZE;
                    // Within a chunk's length, which is a `u32`, as `resolve` has checked.
                    let from = u32::try_from(from).unwrap_or(u32::MAX);
                    let contents = match &self.locations[usize::from(extent.location)] {
                        Place::Here(location) => Contents::Chunk(location, from),
                        Place::Absent(id) => Contents::Absent(*id),
                    };
                    SegmentPiece { blocks: at..extent.end().min(end), contents }
                }
            };
            at = piece.blocks.end;
            Some(piece)
        })
    }

    /// Bytes of memory that it takes, roughly.
    pub(super) fn weight_bytes(&self) -> u64 {
        let here = self.locations.iter().filter_map(Place::here);
        let checksums: usize = here.map(|location| location.checksums.len() * 4).sum();
        let fixed = self.extents.len() * size_of::<ResolvedExtent>() + self.locations.len() * size_of::<Place>();
        (fixed + checksums + size_of::<Self>()) as u64
    }
}

impl Place {
    fn here(&self) -> Option<&Location> {
        match self {
            Self::Here(location) => Some(location),
            Self::Absent(_) => None,
        }
    }
}

impl ResolvedExtent {
    fn end(&self) -> u64 {
        u64::from(self.first_block) + u64::from(self.block_count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk_store::{MemoryChunkStore, NewChunk, Room};

    /// What each run of `blocks` holds: a chunk that is here with a byte of it, one that is not, or nothing.
    fn found(map: &SegmentMap, blocks: Range<u64>) -> Vec<Option<(ChunkId, Option<u32>)>> {
        let found = map.pieces(blocks).map(|piece| match piece.contents {
            Contents::Hole => None,
            Contents::Chunk(location, from) => Some((location.id, Some(from))),
            Contents::Absent(id) => Some((id, None)),
        });
        found.collect()
    }

    #[test]
    fn what_was_known_is_not_looked_up_again_until_chunks_move() {
        let store = MemoryChunkStore::new();
        let [old, new] = [1, 2].map(|byte| NewChunk::of(ChunkKind::Data, vec![byte; 8192].into()));
        store.append(&[old.clone(), new.clone()], Room::BesideReserve, &store.pin()).expect("chunks");
        let mut manifest = Manifest::default();
        manifest.replace(4, 2, Some((old.id, 0))).expect("an extent");
        let segment = SegmentIndex(0);
        let mut known = SegmentMap::resolve(&store, segment, &manifest, None).expect("a map");
        manifest.replace(5, 2, Some((new.id, 0))).expect("an extent");
        assert!(store.lose(old.id), "it was there");
        let map = SegmentMap::resolve(&store, segment, &manifest, Some(&known)).expect("a map");
        assert_eq!(found(&map, 4..8), [Some((old.id, Some(0))), Some((new.id, Some(0))), None]);
        known.moves += 1;
        let moved = SegmentMap::resolve(&store, segment, &manifest, Some(&known)).expect("a map");
        assert_eq!(found(&moved, 4..8), [Some((old.id, None)), Some((new.id, Some(0))), None]);
        assert_eq!(moved.absent(4..8).collect::<Vec<_>>(), [Wanted { id: old.id, kind: ChunkKind::Data }]);
        assert_eq!(moved.absent(5..8).count(), 0);
    }
}
