//! The dirty blocks of a volume as chunks and manifests.
//!
//! Random writes cost what they write: no old chunk is read. What was written becomes new chunks ([`Draft`]), and the
//! extents of the segment's manifest are split around them.

use std::ops::Range;

use bytes::Bytes;
use sterna_runtime::in_order::{in_order, scope};
use sterna_types::{BLOCK_SIZE, BLOCKS_PER_SEGMENT, Root, SegmentIndex};

use super::draft::{Draft, Drafted};
use super::error::VolumeError;
use super::overlay::{Overlay, Skip, Source};
use super::read::per_segment;
use super::volume::Volume;
use crate::chunk_writer::ChunkWriter;
use crate::map::Change;

/// Stores the contents of `overlay` as chunks and manifests; how the map under `root` changes by it, in order.
///
/// Segments are read back, cut and hashed on several threads, and stored by this one.
pub(super) fn rewrite(
    volume: &Volume,
    root: Root,
    overlay: &Overlay,
    writer: &mut ChunkWriter,
) -> Result<Vec<Change>, VolumeError> {
    let mut changes = Vec::new();
    scope(|scope| {
        let draft = |dirty| match dirty {
            Dirty::Hole(segments) => Ok::<_, VolumeError>((segments, None)),
            Dirty::Blocks(segment) => {
                let index = segment.index;
                Ok((index..SegmentIndex(index.0 + 1), Some(segment.draft(volume, root)?)))
            }
        };
        for drafted in in_order(scope, dirty(overlay), draft) {
            match drafted? {
                (segments, None) => push_clear(&mut changes, segments),
                (segments, Some(drafted)) => {
                    volume.fragmented().note(segments.start, &drafted.manifest, volume.chunking.average_blocks());
                    changes.push(drafted.store(segments.start, writer)?);
                }
            }
        }
        Ok(changes)
    })
}

/// What was written, or made a hole.
enum Dirty {
    /// All of these.
    Hole(Range<SegmentIndex>),
    /// Blocks of one segment.
    Blocks(DirtySegment),
}

/// All that an overlay has, in order.
fn dirty(overlay: &Overlay) -> impl Iterator<Item = Dirty> {
    let mut parts = overlay.runs().flat_map(|(blocks, source)| parts(blocks, source)).peekable();
    std::iter::from_fn(move || {
        let (index, first) = parts.next()?;
        let mut runs = match first {
            Part::Segments(count) => return Some(Dirty::Hole(index..SegmentIndex(index.0 + count))),
            Part::Blocks(blocks, source) => vec![(blocks, source)],
        };
        let continues = |next: &(SegmentIndex, Part)| next.0 == index && matches!(next.1, Part::Blocks(..));
        while let Some((_, Part::Blocks(blocks, source))) = parts.next_if(continues) {
            runs.push((blocks, source));
        }
        Some(Dirty::Blocks(DirtySegment { index, runs }))
    })
}

/// The segments whose part of the map a rewrite of this overlay reads: those that blocks were written in, and of each run of
/// whole segments that are a hole now the first and the last one.
pub(super) fn touched(overlay: &Overlay) -> impl Iterator<Item = SegmentIndex> {
    dirty(overlay).flat_map(|dirty| match dirty {
        Dirty::Hole(segments) => [segments.start, SegmentIndex(segments.end.0 - 1)],
        Dirty::Blocks(DirtySegment { index, .. }) => [index, index],
    })
}

/// A part of a run of the overlay.
enum Part {
    /// So many whole segments are a hole.
    Segments(u64),
    /// Blocks of one segment, counted from its first.
    Blocks(Range<u16>, Source),
}

/// A run of the overlay, taken apart at the segments' ends; whole segments of a hole stay together.
fn parts(blocks: Range<u64>, source: &Source) -> Vec<(SegmentIndex, Part)> {
    let whole = blocks.start.div_ceil(BLOCKS_PER_SEGMENT)..blocks.end / BLOCKS_PER_SEGMENT;
    let within = |part: Range<u64>| {
        per_segment(part).map(|(segment, part)| {
            let first = segment.0 * BLOCKS_PER_SEGMENT;
            let source = source.skip(part.start - blocks.start);
            (segment, Part::Blocks(count(part.start - first)..count(part.end - first), source))
        })
    };
    if whole.is_empty() || !matches!(source, Source::Hole) {
        return within(blocks.clone()).collect();
    }
    let middle = (SegmentIndex(whole.start), Part::Segments(whole.end - whole.start));
    let head = within(blocks.start..whole.start * BLOCKS_PER_SEGMENT);
    let tail = within(whole.end * BLOCKS_PER_SEGMENT..blocks.end);
    head.chain([middle]).chain(tail).collect()
}

/// What was written to one segment.
struct DirtySegment {
    index: SegmentIndex,
    /// In order, counted from the segment's first block.
    runs: Vec<(Range<u16>, Source)>,
}

impl DirtySegment {
    fn draft(self, volume: &Volume, root: Root) -> Result<Drafted, VolumeError> {
        let is_whole =
            self.runs.iter().map(|(blocks, _)| u64::from(blocks.end - blocks.start)).sum::<u64>() == BLOCKS_PER_SEGMENT;
        let old = if is_whole { None } else { volume.manifest(root, self.index)? };
        // What is written from end to end is on its way through: few read it before it is written again.
        let read_soon = !is_whole && volume.storage.segments.is_read(volume.id, self.index);
        let mut draft = Draft::of(old.as_deref().cloned().unwrap_or_default()).read_soon(read_soon);
        let mut runs = self.runs.into_iter().peekable();
        while let Some((blocks, source)) = runs.next() {
            let Source::Journal { .. } = source else {
                draft.clear(blocks)?;
                continue;
            };
            let mut sources = vec![(blocks.clone(), source)];
            let mut end = blocks.end;
            let continues =
                |end: u16, next: &(Range<u16>, Source)| next.0.start == end && matches!(next.1, Source::Journal { .. });
            while let Some(next) = runs.next_if(|next| continues(end, next)) {
                end = next.0.end;
                sources.push(next);
            }
            let data = read_back(&sources)?;
            draft.write(&volume.chunking, blocks.start, &data)?;
        }
        Ok(draft.finish()?)
    }
}

/// The contents of neighbouring runs, one behind the other: at most a segment.
fn read_back(runs: &[(Range<u16>, Source)]) -> Result<Bytes, VolumeError> {
    let length = |blocks: &Range<u16>| usize::from(blocks.end - blocks.start) * BLOCK_BYTES;
    let mut data = vec![0; runs.iter().map(|(blocks, _)| length(blocks)).sum()];
    let mut rest = &mut data[..];
    for (blocks, source) in runs {
        let (into, behind) = rest.split_at_mut(length(blocks));
        if let Source::Journal { file, at } = source {
            file.read_at(*at, into).map_err(VolumeError::ReadBack)?;
        }
        rest = behind;
    }
    Ok(data.into())
}

fn push_clear(changes: &mut Vec<Change>, range: Range<SegmentIndex>) {
    match changes.last_mut() {
        Some(Change::Clear(last)) if last.end == range.start => last.end = range.end,
        _ => changes.push(Change::Clear(range)),
    }
}

/// A number of blocks within a segment.
fn count(blocks: u64) -> u16 {
    u16::try_from(blocks).expect("a segment has 1,024 blocks")
}

const BLOCK_BYTES: usize = 4096;
const _: () = assert!(BLOCK_BYTES as u64 == BLOCK_SIZE);
