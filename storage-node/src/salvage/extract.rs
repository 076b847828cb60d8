//! Contents as an image, as far as they are here.
//!
//! The root is walked first, and of each of its extents the part is taken that no record of the journal covers; then come
//! the journal's own. Nothing is written twice, and nothing that was lost is written at all.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use bytes::Bytes;
use sterna_types::{BLOCK_SIZE, BLOCKS_PER_SEGMENT, ByteOffset, ByteRange, ChunkId, Root, SEGMENT_SIZE, SegmentIndex};

use super::chunks::FoundChunks;
use super::found::Contents;
use super::lost::{LostCause, LostRange, LostRanges};
use super::{ExtractError, Salvage};
use crate::chunk_store::ChunkStore;
use crate::journal::record::Sequence;
use crate::journal::survey;
use crate::map::{self, Extent, MAX_SEGMENTS};
use crate::progress::{Progress, Watcher};
use crate::verify::unreadable;
use crate::volume::overlay::{Overlay, Source};
use crate::volume::recover::overlay_of;
use crate::volume::storage::journal_directory;

/// What contents have come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extracted {
    /// Bytes of data, holes not counted.
    pub data_bytes: u64,
    /// What is lost, in the order of its bytes.
    pub lost: Vec<LostRange>,
    /// The newest journal record that is in them; `None` where the journal was not looked at. All that is not lost is as it
    /// was behind this record, unless strays were taken.
    pub through: Option<Sequence>,
}

impl Extracted {
    /// How many bytes are lost.
    pub fn lost_bytes(&self) -> u64 {
        self.lost.iter().map(|lost| lost.range.length()).sum()
    }
}

/// What is done with data.
#[derive(Clone, Copy, Debug)]
pub(super) enum Use<'a> {
    /// It is enough that something says where it is.
    Look,
    /// It is read.
    Verify,
    /// It is written to an image.
    Write(&'a File),
}

/// Goes through contents.
pub(super) fn go_through(
    salvage: &Salvage,
    contents: &Contents,
    data: Use<'_>,
    watcher: Watcher<'_>,
) -> Result<Extracted, ExtractError> {
    let (mut overlay, mut newer, mut through) = (Overlay::default(), Overlay::default(), None);
    if let Some(journal) = &contents.journal {
        let volume = journal.begin.volume;
        let survey = survey(&*salvage.disk, &journal_directory(volume), volume);
        let continued = survey.on(&journal.begin, journal.past_damage);
        (newer, _) = overlay_of(&continued.records);
        through = Some(continued.last);
    }
    // What a root has in the place of a tail is too old: it is left out.
    contents.tail.runs().iter().for_each(|run| overlay.insert(run.blocks.clone(), Source::Hole));
    overlay.put(&newer);
    let mut elsewhere = LostRanges::default();
    for gap in contents.tail.data().flat_map(|blocks| newer.pieces(blocks).filter(|piece| piece.source.is_none())) {
        elsewhere.push(bytes_of(&gap.blocks), LostCause::Elsewhere);
    }
    let end_block = contents.size.bytes().0 / BLOCK_SIZE;
    let (lost, last_chunk) = (LostRanges::default(), None);
    let mut walk =
        Walk { chunks: &salvage.chunks, overlay: &overlay, end_block, data, lost, last_chunk, data_bytes: 0 };
    walk.root(salvage, contents.root, watcher)?;
    let of_root = std::mem::take(&mut walk.lost);
    walk.journal()?;
    Ok(Extracted { data_bytes: walk.data_bytes, lost: of_root.with([walk.lost, elsewhere]), through })
}

struct Walk<'a> {
    chunks: &'a FoundChunks,
    overlay: &'a Overlay,
    /// What is behind it is no part of the volume.
    end_block: u64,
    data: Use<'a>,
    lost: LostRanges,
    /// The chunk that was read last; neighbouring extents are often in one. `None` in place of its bytes: it is not here.
    last_chunk: Option<(ChunkId, Option<Bytes>)>,
    data_bytes: u64,
}

impl Walk<'_> {
    fn root(&mut self, salvage: &Salvage, root: Root, watcher: Watcher<'_>) -> Result<(), ExtractError> {
        let total_bytes = self.end_block * BLOCK_SIZE;
        let mut from = SegmentIndex(0);
        while from.0 < self.end_block.div_ceil(BLOCKS_PER_SEGMENT) {
            // Begun anew behind each damage, which ends it.
            let mut segments = map::segments(&salvage.chunks, &salvage.nodes, root, from..SegmentIndex(MAX_SEGMENTS));
            let Some(next) = segments.next() else { break };
            let done_bytes = (from.0 * SEGMENT_SIZE).min(total_bytes);
            if watcher(Progress { done_bytes, total_bytes }).is_break() {
                return Err(ExtractError::Stopped);
            }
            match next {
                Ok((segment, id)) => {
                    self.segment(salvage, segment, id)?;
                    from = SegmentIndex(segment.0 + 1);
                }
                Err(error) => {
                    let segments = unreadable(&error, from);
                    self.lose_map(&segments);
                    from = segments.end;
                }
            }
        }
        let _: std::ops::ControlFlow<()> = watcher(Progress { done_bytes: total_bytes, total_bytes });
        Ok(())
    }

    fn segment(&mut self, salvage: &Salvage, segment: SegmentIndex, id: ChunkId) -> Result<(), ExtractError> {
        // A segment is read once, so that its manifest need not be kept.
        let Ok(manifest) = map::manifest(&salvage.chunks, &salvage.nodes, id, segment) else {
            self.lose_map(&(segment..SegmentIndex(segment.0 + 1)));
            return Ok(());
        };
        manifest.extents().iter().try_for_each(|extent| self.extent(segment, extent))
    }

    fn extent(&mut self, segment: SegmentIndex, extent: &Extent) -> Result<(), ExtractError> {
        let first = segment.0 * BLOCKS_PER_SEGMENT + u64::from(extent.first_block);
        let blocks = first..(first + u64::from(extent.block_count)).min(self.end_block);
        for gap in self.below_journal(blocks) {
            let from = u64::from(extent.first_in_chunk) + gap.start - first;
            match self.data_of(extent.chunk, from, gap.end - gap.start) {
                Some(data) => self.take(&gap, data.as_deref())?,
                None => self.lost.push(bytes_of(&gap), LostCause::Data),
            }
        }
        Ok(())
    }

    /// The blocks of a range that no record of the journal covers.
    fn below_journal(&self, blocks: Range<u64>) -> Vec<Range<u64>> {
        self.overlay.pieces(blocks).filter(|piece| piece.source.is_none()).map(|piece| piece.blocks).collect()
    }

    /// Blocks of a chunk; `None` where they are not here. Without bytes where these are not looked at.
    fn data_of(&mut self, id: ChunkId, first_block: u64, block_count: u64) -> Option<Option<Bytes>> {
        if matches!(self.data, Use::Look) {
            return self.chunks.lists(id).then_some(None);
        }
        let known = self.last_chunk.take().filter(|(known, _)| *known == id);
        let (_, chunk) = self.last_chunk.insert(known.unwrap_or_else(|| (id, self.chunks.get(id).ok().flatten())));
        let chunk = chunk.as_ref()?;
        let start = usize::try_from(first_block * BLOCK_SIZE).ok()?;
        let end = usize::try_from((first_block + block_count) * BLOCK_SIZE).ok()?;
        // The map may be wrong about how long a chunk is.
        (end <= chunk.len()).then(|| Some(chunk.slice(start..end)))
    }

    fn journal(&mut self) -> Result<(), ExtractError> {
        for (blocks, source) in self.overlay.runs() {
            let Source::Journal { file, at } = source else { continue };
            let blocks = blocks.start..blocks.end.min(self.end_block);
            if blocks.is_empty() {
                continue;
            }
            if matches!(self.data, Use::Look) {
                self.take(&blocks, None)?;
                continue;
            }
            let mut data = vec![0; usize::try_from(bytes_of(&blocks).length()).unwrap_or_default()];
            match file.read_at(*at, &mut data) {
                Ok(()) => self.take(&blocks, Some(&data))?,
                Err(_) => self.lost.push(bytes_of(&blocks), LostCause::Journal),
            }
        }
        Ok(())
    }

    fn take(&mut self, blocks: &Range<u64>, data: Option<&[u8]>) -> Result<(), ExtractError> {
        self.data_bytes += bytes_of(blocks).length();
        match (self.data, data) {
            (Use::Write(image), Some(data)) => {
                image.write_all_at(data, blocks.start * BLOCK_SIZE).map_err(ExtractError::Write)
            }
            _ => Ok(()),
        }
    }

    fn lose_map(&mut self, segments: &Range<SegmentIndex>) {
        let blocks = segments.start.0 * BLOCKS_PER_SEGMENT..segments.end.0 * BLOCKS_PER_SEGMENT;
        for gap in self.below_journal(blocks.start..blocks.end.min(self.end_block)) {
            self.lost.push(bytes_of(&gap), LostCause::Map);
        }
    }
}

fn bytes_of(blocks: &Range<u64>) -> ByteRange {
    ByteRange::between(ByteOffset(blocks.start * BLOCK_SIZE), ByteOffset(blocks.end * BLOCK_SIZE))
}
