//! Reading a volume: overlay, then what is being sealed, then what has not arrived of a tail, then map and chunks.
//!
//! A reader holds the layers only while it looks things up. What it has found stays readable without them: a piece of the
//! journal holds its file, and the place of a chunk holds its pack. Only the lookup in the map can come too late, when a
//! seal has replaced the root and a collection has removed the old one's nodes; it is done again then, with the new root.
//!
//! What is not here of what a request needs is all named together ([`Absence`]), level by level of the map.

use std::ops::Range;
use std::sync::Arc;

use sterna_types::device::{Allocation, ReadOutcome, StatusRun, push_run};
use sterna_types::{BLOCK_SIZE, BLOCKS_PER_SEGMENT, ByteRange, DeviceError, Root, SegmentIndex};

use super::absence::Absence;
use super::error::VolumeError;
use super::filler::{Filler, within};
use super::overlay::Source;
use super::segment_map::{Contents, SegmentMap};
use super::volume::{Layers, Volume};
use crate::chunk_store::StoreError;
use crate::map::{self, Manifest};

/// A run of blocks, and where it is.
pub(super) enum Place {
    Journal(Source),
    /// Where the volume was handed over from.
    Elsewhere,
    Map,
}

impl Volume {
    /// Fills `into` with the bytes of `range`, which is as long.
    ///
    /// # Errors
    /// [`VolumeError`]; then `into` holds anything.
    pub fn read(&self, range: ByteRange, into: &mut [u8]) -> Result<ReadOutcome, VolumeError> {
        self.check_request(range, into.len())?;
        let mut filler = Filler::new(range, into);
        let mut absence = Absence::default();
        for (blocks, place) in self.places(blocks_of(range)) {
            match place {
                Place::Journal(source) => filler.journal(&blocks, &source)?,
                Place::Elsewhere => absence.blocks.push(blocks),
                Place::Map => self.read_map(blocks, &mut filler, &mut absence)?,
            }
        }
        absence.into_result()?;
        Ok(filler.outcome())
    }

    /// The same if it can be answered without waiting for anything; `None` where it cannot, and then `into` holds anything.
    pub fn read_now(&self, range: ByteRange, into: &mut [u8]) -> Option<Result<ReadOutcome, VolumeError>> {
        if let Err(error) = self.check_request(range, into.len()) {
            return Some(Err(error));
        }
        let mut filler = Filler::new(range, into);
        let layers = self.layers.try_read().ok()?;
        for (blocks, place) in look_up(&layers, blocks_of(range)) {
            match place {
                Place::Journal(source) => filler.journal_now(&blocks, &source)?,
                Place::Elsewhere => return None,
                Place::Map => {
                    for (segment, blocks) in per_segment(blocks) {
                        let map = self.storage.segments.get(self.id, segment)?;
                        if map.absent(within(segment, &blocks)).next().is_some() {
                            return None;
                        }
                        map.note_read();
                        let mut parts = filler.segment(segment, &map, blocks);
                        match self.storage.store.read_parts_now(&mut parts)? {
                            // It may be whole in another place.
                            Err(StoreError::Corrupt { .. }) => return None,
                            Err(error) => return Some(Err(error.into())),
                            Ok(()) => {}
                        }
                    }
                }
            }
        }
        Some(Ok(filler.outcome()))
    }

    /// Which parts of a range hold data: at most `max_runs` runs from its start on, together not longer than it.
    ///
    /// # Errors
    /// [`DeviceError::OutOfRange`] for an empty range too.
    pub fn allocation(&self, range: ByteRange, max_runs: usize) -> Result<Vec<StatusRun<Allocation>>, VolumeError> {
        self.check_open()?;
        if range.is_empty() || !range.is_within(self.size()) {
            return Err(DeviceError::OutOfRange { range, size: self.size() }.into());
        }
        let mut runs = AllocationRuns { range, max_runs, runs: Vec::new() };
        for (blocks, place) in self.places(blocks_of(range)) {
            match place {
                Place::Journal(Source::Hole) => runs.push(&blocks, Allocation::Hole),
                Place::Journal(Source::Journal { .. }) | Place::Elsewhere => runs.push(&blocks, Allocation::Data),
                Place::Map => self.map_allocation(blocks, &mut runs)?,
            }
            if runs.is_full() {
                break;
            }
        }
        runs.runs.truncate(max_runs);
        Ok(runs.runs)
    }

    /// Makes sure that the maps of the segments in `range` are in memory, as far as there is room for them, and that their data
    /// is here.
    ///
    /// # Errors
    /// [`VolumeError`].
    pub fn prefetch(&self, range: ByteRange) -> Result<(), VolumeError> {
        self.check_request(range, usize::try_from(range.length()).unwrap_or(usize::MAX))?;
        let mut absence = Absence::default();
        for (segment, blocks) in per_segment(blocks_of(range)).take(MAX_PREFETCHED_SEGMENTS) {
            unless_absent(self.map_with(segment, within(segment, &blocks)), &mut absence)?;
        }
        absence.into_result()
    }

    fn check_request(&self, range: ByteRange, length: usize) -> Result<(), VolumeError> {
        self.check_open()?;
        if range.is_within(self.size()) && range.length() == length as u64 {
            Ok(())
        } else {
            Err(DeviceError::OutOfRange { range, size: self.size() }.into())
        }
    }

    /// The blocks of a range that have not arrived of a tail, in order.
    pub(super) fn absent_blocks(&self, blocks: Range<u64>) -> Vec<Range<u64>> {
        let places = self.places(blocks).into_iter();
        places.filter(|(_, place)| matches!(place, Place::Elsewhere)).map(|(blocks, _)| blocks).collect()
    }

    pub(super) fn places(&self, blocks: Range<u64>) -> Vec<(Range<u64>, Place)> {
        look_up(&self.layers(), blocks).collect()
    }

    /// Reads what only the map knows. What a write has put over it meanwhile may be missed: it was not acknowledged when
    /// the read began.
    fn read_map(&self, blocks: Range<u64>, filler: &mut Filler<'_>, absence: &mut Absence) -> Result<(), VolumeError> {
        for (segment, blocks) in per_segment(blocks) {
            let map = self.map_with(segment, within(segment, &blocks));
            if let Some(map) = unless_absent(map, absence)? {
                map.note_read();
                self.read_chunks(segment, &map, blocks, filler)?;
            }
        }
        Ok(())
    }

    /// Reads what a segment has in chunks, by this map. What is damaged where the map has it may have been mended since, and be elsewhere.
    fn read_chunks(
        &self,
        segment: SegmentIndex,
        map: &SegmentMap,
        blocks: Range<u64>,
        filler: &mut Filler<'_>,
    ) -> Result<(), VolumeError> {
        let store = &self.storage.store;
        match store.read_parts(&mut filler.segment(segment, map, blocks.clone())) {
            Err(StoreError::Corrupt { .. }) if !map.is_current(&**store) => {
                let map = self.look_up_map(segment, within(segment, &blocks))?;
                Ok(store.read_parts(&mut filler.segment(segment, &map, blocks))?)
            }
            read => Ok(read?),
        }
    }

    /// Fills `into` with what the sealed root has in a whole segment. No guest has asked for it.
    pub(super) fn read_sealed(&self, segment: SegmentIndex, into: &mut [u8]) -> Result<ReadOutcome, VolumeError> {
        let range = ByteRange::between(segment.start(), SegmentIndex(segment.0 + 1).start());
        let mut filler = Filler::new(range, into);
        let map = self.map_with(segment, 0..BLOCKS_PER_SEGMENT)?;
        self.read_chunks(segment, &map, blocks_of(range), &mut filler)?;
        Ok(filler.outcome())
    }

    fn map_allocation(&self, blocks: Range<u64>, runs: &mut AllocationRuns) -> Result<(), VolumeError> {
        let mut at = blocks.start;
        while at < blocks.end && !runs.is_full() {
            let root = self.layers().sealed.root;
            let first = SegmentIndex(at / BLOCKS_PER_SEGMENT);
            let last = SegmentIndex(blocks.end.div_ceil(BLOCKS_PER_SEGMENT));
            // Whole subtrees may be absent: the next segment that has a manifest can be far away.
            let next = self.again_if_replaced(root, |root| {
                map::segments(&*self.storage.store, &self.storage.nodes, root, first..last).next().transpose()
            })?;
            let Some((segment, _)) = next else {
                runs.push(&(at..blocks.end), Allocation::Hole);
                return Ok(());
            };
            let segment_start = (segment.0 * BLOCKS_PER_SEGMENT).max(at);
            if segment_start > at {
                runs.push(&(at..segment_start), Allocation::Hole);
            }
            let base = segment.0 * BLOCKS_PER_SEGMENT;
            let end = (base + BLOCKS_PER_SEGMENT).min(blocks.end);
            let map = self.segment_map(segment)?;
            for piece in map.pieces(segment_start - base..end - base) {
                let status = match piece.contents {
                    Contents::Hole => Allocation::Hole,
                    Contents::Chunk(..) | Contents::Absent(_) => Allocation::Data,
                };
                runs.push(&(base + piece.blocks.start..base + piece.blocks.end), status);
            }
            at = end;
        }
        Ok(())
    }

    /// The map of a segment as the root of now has it. Some of its data may not be here, or have come since.
    pub(super) fn segment_map(&self, segment: SegmentIndex) -> Result<Arc<SegmentMap>, VolumeError> {
        match self.storage.segments.get(self.id, segment) {
            Some(map) => Ok(map),
            None => self.look_up_map(segment, 0..0),
        }
    }

    /// The same, with all data of `blocks`, counted from the segment's first, here.
    pub(super) fn map_with(&self, segment: SegmentIndex, blocks: Range<u64>) -> Result<Arc<SegmentMap>, VolumeError> {
        let known = self.storage.segments.get(self.id, segment);
        match known.filter(|known| known.absent(blocks.clone()).next().is_none()) {
            Some(map) => Ok(map),
            None => self.look_up_map(segment, blocks),
        }
    }

    /// Looks a segment's map up in the root of now, and keeps it. The data of `needed` has to be here.
    fn look_up_map(&self, segment: SegmentIndex, needed: Range<u64>) -> Result<Arc<SegmentMap>, VolumeError> {
        let root = self.layers().sealed.root;
        self.again_if_replaced(root, |root| {
            let segments = &self.storage.segments;
            let lacking = segments.get(self.id, segment);
            let was_read = lacking.as_ref().is_some_and(|lacking| lacking.is_read());
            let known = lacking.or_else(|| segments.superseded(self.id, segment));
            let map = Arc::new(self.resolve(root, segment, known.as_deref())?);
            if was_read {
                map.note_read();
            }
            {
                let layers = self.layers();
                if layers.sealed.root == root && !self.is_closed() {
                    segments.put(self.id, segment, Arc::clone(&map));
                }
            }
            Absence::of_chunks(map.absent(needed.clone())).into_result()?;
            Ok::<_, VolumeError>(map)
        })
    }

    fn resolve(
        &self,
        root: Root,
        segment: SegmentIndex,
        known: Option<&SegmentMap>,
    ) -> Result<SegmentMap, VolumeError> {
        match self.manifest(root, segment)? {
            Some(manifest) => SegmentMap::resolve(&*self.storage.store, segment, &manifest, known),
            None => Ok(SegmentMap::default()),
        }
    }

    /// The manifest of a segment under a root; `None` where the segment is a hole.
    pub(super) fn manifest(&self, root: Root, segment: SegmentIndex) -> Result<Option<Arc<Manifest>>, VolumeError> {
        let (store, nodes) = (&*self.storage.store, &self.storage.nodes);
        let id = map::manifest_of(store, nodes, root, segment)?;
        Ok(id.map(|id| map::manifest(store, nodes, id, segment)).transpose()?)
    }

    /// Does it, and does it again where something was absent because a seal has replaced the root meanwhile.
    fn again_if_replaced<T, E: Into<VolumeError>>(
        &self,
        mut root: Root,
        mut work: impl FnMut(Root) -> Result<T, E>,
    ) -> Result<T, VolumeError> {
        loop {
            let error = match work(root) {
                Ok(done) => return Ok(done),
                Err(error) => error.into(),
            };
            let now = self.layers().sealed.root;
            if error.absence().is_none() || now == root {
                return Err(error);
            }
            root = now;
        }
    }
}

/// What was found; `None` where something is absent, which is noted.
pub(super) fn unless_absent<T>(found: Result<T, VolumeError>, absence: &mut Absence) -> Result<Option<T>, VolumeError> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) => {
            absence.add(error.absence().ok_or(error)?);
            Ok(None)
        }
    }
}

/// Where each run of `blocks` is, in order.
fn look_up(layers: &Layers, blocks: Range<u64>) -> impl Iterator<Item = (Range<u64>, Place)> {
    journal_places(layers, blocks).flat_map(move |(blocks, source)| match source {
        Some(source) => Found::One(Some((blocks, Place::Journal(source)))),
        None if layers.tail.is_empty() => Found::One(Some((blocks, Place::Map))),
        None => Found::Below(layers.tail.pieces(blocks).map(|piece| {
            let place = if piece.source.is_some() { Place::Elsewhere } else { Place::Map };
            (piece.blocks, place)
        })),
    })
}

/// Where each run of `blocks` is in the journal, in order; `None` where it is not there.
fn journal_places(layers: &Layers, blocks: Range<u64>) -> impl Iterator<Item = (Range<u64>, Option<Source>)> {
    let below = layers.frozen.as_ref().map(|frozen| &*frozen.overlay);
    layers.active.pieces(blocks).flat_map(move |piece| match (piece.source, below) {
        (None, Some(frozen)) => Found::Below(frozen.pieces(piece.blocks).map(|piece| (piece.blocks, piece.source))),
        (source, _) => Found::One(Some((piece.blocks, source))),
    })
}

/// One thing that is found, or those of the layer below.
enum Found<I: Iterator> {
    One(Option<I::Item>),
    Below(I),
}

impl<I: Iterator> Iterator for Found<I> {
    type Item = I::Item;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::One(place) => place.take(),
            Self::Below(places) => places.next(),
        }
    }
}

/// The blocks that a range touches.
pub(super) fn blocks_of(range: ByteRange) -> Range<u64> {
    if range.is_empty() {
        return range.start().0 / BLOCK_SIZE..range.start().0 / BLOCK_SIZE;
    }
    range.start().0 / BLOCK_SIZE..range.end().0.div_ceil(BLOCK_SIZE)
}

/// The part of `blocks` in each segment, in order.
pub(super) fn per_segment(blocks: Range<u64>) -> impl Iterator<Item = (SegmentIndex, Range<u64>)> {
    let mut at = blocks.start;
    std::iter::from_fn(move || {
        if at >= blocks.end {
            return None;
        }
        let segment = SegmentIndex(at / BLOCKS_PER_SEGMENT);
        let part = at..((segment.0 + 1) * BLOCKS_PER_SEGMENT).min(blocks.end);
        at = part.end;
        Some((segment, part))
    })
}

/// The answer to a question for allocation, as it grows.
struct AllocationRuns {
    range: ByteRange,
    max_runs: usize,
    runs: Vec<StatusRun<Allocation>>,
}

impl AllocationRuns {
    fn is_full(&self) -> bool {
        // One more may still be joined to the last.
        self.runs.len() > self.max_runs
    }

    fn push(&mut self, blocks: &Range<u64>, status: Allocation) {
        let start = (blocks.start * BLOCK_SIZE).max(self.range.start().0);
        let end = (blocks.end * BLOCK_SIZE).min(self.range.end().0);
        if !self.is_full() && end > start {
            push_run(&mut self.runs, end - start, status);
        }
    }
}

/// The most segments whose maps one hint brings in: 4 GiB of disk.
const MAX_PREFETCHED_SEGMENTS: usize = 1024;
