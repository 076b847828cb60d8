//! Which chunk holds which block of one segment.

mod format;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::iter;

use sterna_types::ChunkId;

use super::extent::{Extent, InvalidExtent, Piece, SEGMENT_BLOCKS, check_blocks};

pub use format::ManifestFormatError;

/// The extents of one segment. Invariants:
/// * each keeps the invariants of [`Extent`], and begins where the one before it ends or later;
/// * none continues the one before it in the same chunk: equal contents of the map have equal manifests, and equal bytes.
///
/// ```
/// use sterna_storage_node::chunk_store::chunk_id;
/// use sterna_storage_node::map::{Extent, Manifest, Piece};
///
/// let (old, new) = (chunk_id(b"old"), chunk_id(b"new"));
/// let mut manifest = Manifest::default();
/// manifest.replace(0, 8, Some((old, 0)))?;
/// manifest.replace(2, 1, Some((new, 0)))?;
/// manifest.replace(4, 4, None)?;
/// let pieces: Vec<_> = manifest.lookup(1, 4).collect();
/// assert_eq!(pieces, [
///     Piece::Mapped(Extent { first_block: 1, block_count: 1, chunk: old, first_in_chunk: 1 }),
///     Piece::Mapped(Extent { first_block: 2, block_count: 1, chunk: new, first_in_chunk: 0 }),
///     Piece::Mapped(Extent { first_block: 3, block_count: 1, chunk: old, first_in_chunk: 3 }),
///     Piece::Hole { first_block: 4, block_count: 1 },
/// ]);
/// # Ok::<(), sterna_storage_node::map::InvalidExtent>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Manifest {
    extents: Vec<Extent>,
}

/// What a manifest amounts to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct ManifestStatistics {
    /// Blocks that are in a chunk; the others are holes.
    pub mapped_blocks: u16,
    /// Extents.
    pub extents: u16,
    /// Chunks, each counted once.
    pub distinct_chunks: u16,
}

impl Manifest {
    /// The manifest with these extents. Those that continue one another in a chunk become one.
    ///
    /// # Errors
    /// [`InvalidExtent`] where one of them cannot be, or begins before the one in front of it has ended.
    pub fn from_extents(extents: impl IntoIterator<Item = Extent>) -> Result<Self, InvalidExtent> {
        let mut merged: Vec<Extent> = Vec::new();
        for extent in extents {
            extent.check()?;
            let previous_end = merged.last().map_or(0, Extent::end_block);
            if extent.first_block < previous_end {
                return Err(InvalidExtent::Disorder { first_block: extent.first_block, previous_end });
            }
            match merged.last_mut() {
                Some(last) if last.is_continued_by(&extent) => last.block_count += extent.block_count,
                _ => merged.push(extent),
            }
        }
        Ok(Self { extents: merged })
    }

    /// Its extents, in the order of their blocks.
    pub fn extents(&self) -> &[Extent] {
        &self.extents
    }

    /// Whether all of the segment is a hole. Such a segment has no manifest in a map: it is cleared there.
    pub fn is_empty(&self) -> bool {
        self.extents.is_empty()
    }

    /// Where the `block_count` blocks from `first_block` on are: pieces that cover the range, in order, without a gap.
    ///
    /// # Panics
    /// Where these are no blocks of the segment.
    pub fn lookup(&self, first_block: u16, block_count: u16) -> impl Iterator<Item = Piece> {
        assert_eq!(check_blocks(first_block, block_count), Ok(()), "blocks are looked up in the segment they are in");
        let end = first_block + block_count;
        let mut at = first_block;
        let mut rest = &self.extents[self.extents.partition_point(|extent| extent.end_block() <= first_block)..];
        iter::from_fn(move || {
            if at >= end {
                return None;
            }
            let piece = match rest.split_first() {
                Some((extent, later)) if extent.first_block <= at => {
                    rest = later;
                    Piece::Mapped(extent.part(at, end)?)
                }
                next => {
                    let until = next.map_or(end, |(extent, _)| extent.first_block.min(end));
                    Piece::Hole { first_block: at, block_count: until - at }
                }
            };
            at = piece.end_block();
            Some(piece)
        })
    }

    /// Says that the `block_count` blocks from `first_block` on are now `with`: in this chunk, from this block of it on,
    /// or nowhere. Extents that reach into the range are split around it.
    ///
    /// # Errors
    /// [`InvalidExtent`] where these are no blocks of the segment, or end beyond the chunk; then nothing has changed.
    pub fn replace(
        &mut self,
        first_block: u16,
        block_count: u16,
        with: Option<(ChunkId, u16)>,
    ) -> Result<(), InvalidExtent> {
        check_blocks(first_block, block_count)?;
        let new = with.map(|(chunk, first_in_chunk)| Extent { first_block, block_count, chunk, first_in_chunk });
        new.as_ref().map_or(Ok(()), Extent::check)?;

        let end = first_block + block_count;
        let from = self.extents.partition_point(|extent| extent.end_block() <= first_block);
        let to = self.extents.partition_point(|extent| extent.first_block < end);
        let touched = &self.extents[from..to];
        let before = touched.first().and_then(|extent| extent.part(0, first_block));
        let after = touched.last().and_then(|extent| extent.part(end, SEGMENT_BLOCKS));
        let fresh = [before, new, after].into_iter().flatten();
        let behind = from + fresh.clone().count();
        self.extents.splice(from..to, fresh);
        self.merge(from.saturating_sub(1), behind);
        debug_assert!(self.is_canonical(), "replacing blocks keeps the invariants: {self:?}");
        Ok(())
    }

    /// The chunks that its extents are in, each once, in the order of their first use.
    pub fn chunks(&self) -> Vec<ChunkId> {
        self.table().0
    }

    /// What it amounts to.
    pub fn statistics(&self) -> ManifestStatistics {
        let count = |number: usize| u16::try_from(number).unwrap_or(SEGMENT_BLOCKS);
        ManifestStatistics {
            mapped_blocks: self.extents.iter().map(|extent| extent.block_count).sum(),
            extents: count(self.extents.len()),
            distinct_chunks: count(self.chunks().len()),
        }
    }

    /// How many extents it has more than if its segment were cut anew into chunks of `average_blocks`: what rewriting the
    /// segment would save. Close to 0 for a segment that was written in one go.
    pub fn excess_extents(&self, average_blocks: u16) -> u16 {
        let average = average_blocks.max(1);
        let mut ideal = 0;
        let mut run = 0;
        let mut previous_end = 0;
        for extent in &self.extents {
            if extent.first_block != previous_end {
                ideal += u16::div_ceil(run, average);
                run = 0;
            }
            run += extent.block_count;
            previous_end = extent.end_block();
        }
        ideal += u16::div_ceil(run, average);
        u16::try_from(self.extents.len()).unwrap_or(SEGMENT_BLOCKS).saturating_sub(ideal)
    }

    /// Makes one of neighbours that continue one another, among the extents at `first..=last` and the next ones.
    fn merge(&mut self, first: usize, last: usize) {
        for at in (first..=last).rev() {
            let Some(&next) = self.extents.get(at + 1) else { continue };
            if self.extents[at].is_continued_by(&next) {
                self.extents[at].block_count += next.block_count;
                self.extents.remove(at + 1);
            }
        }
    }

    /// The distinct chunks in the order of their first use, and for each extent the place of its chunk among them.
    fn table(&self) -> (Vec<ChunkId>, Vec<u16>) {
        let mut chunks = Vec::new();
        let mut places = HashMap::new();
        let mut indices = Vec::with_capacity(self.extents.len());
        for extent in &self.extents {
            let index = *places.entry(extent.chunk).or_insert_with(|| {
                chunks.push(extent.chunk);
                u16::try_from(chunks.len() - 1).expect("a segment has at most 1,024 extents")
            });
            indices.push(index);
        }
        (chunks, indices)
    }

    fn is_canonical(&self) -> bool {
        self.extents.iter().all(|extent| extent.check().is_ok())
            && self.extents.is_sorted_by(|a, b| a.end_block() <= b.first_block && !a.is_continued_by(b))
    }
}
