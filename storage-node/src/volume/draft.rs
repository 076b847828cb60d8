//! New contents of a segment on their way into the store: its manifest in the making, and the chunks that this needs.
//!
//! Nothing here reads or writes: a segment can be drafted on any thread, and is stored by whoever has the
//! [`ChunkWriter`]. A long run of blocks is cut by content; runs of a single block, too short for that, share chunks with
//! their neighbours in the segment. Blocks of zeroes become holes, whoever wrote them.

use std::ops::Range;

use bytes::Bytes;
use sterna_types::{BLOCK_SIZE, ChunkId, SegmentIndex};

use crate::chunk_store::{ChunkKind, NewChunk, StoreError};
use crate::chunk_writer::ChunkWriter;
use crate::chunking::{self, ChunkingParameters, Run};
use crate::map::{Change, InvalidExtent, Manifest};

/// A segment in the making.
#[derive(Debug)]
pub(crate) struct Draft {
    manifest: Manifest,
    /// In the order in which they are to be stored.
    chunks: Vec<NewChunk>,
    short: ShortRuns,
    /// See [`NewChunk::read_soon`].
    read_soon: bool,
}

/// A segment that is ready to be stored.
#[derive(Debug)]
pub(crate) struct Drafted {
    pub(crate) manifest: Manifest,
    chunks: Vec<NewChunk>,
    /// The manifest as a chunk; none where it has no extents.
    encoded: Option<NewChunk>,
}

impl Draft {
    /// Begins with what the segment holds now.
    pub(crate) fn of(manifest: Manifest) -> Self {
        Self { manifest, chunks: Vec::new(), short: ShortRuns::default(), read_soon: false }
    }

    /// The same for a segment that is being read, or not.
    pub(crate) fn read_soon(self, read_soon: bool) -> Self {
        Self { read_soon, ..self }
    }

    /// Puts a hole in place of the blocks, counted from the segment's first.
    pub(crate) fn clear(&mut self, blocks: Range<u16>) -> Result<(), InvalidExtent> {
        self.manifest.replace(blocks.start, blocks.end - blocks.start, None)
    }

    /// Puts `data`, whole blocks, in place of those from `first_block` on, counted from the segment's first.
    pub(crate) fn write(
        &mut self,
        parameters: &ChunkingParameters,
        first_block: u16,
        data: &Bytes,
    ) -> Result<(), InvalidExtent> {
        for run in chunking::runs(data) {
            match run {
                Run::Zero(bytes) => self.replace(first_block, &bytes, None)?,
                Run::Data(bytes) if bytes.len() == chunking::BLOCK_BYTES => {
                    self.short.blocks.push(first_block + blocks_in(bytes.start));
                    self.short.data.extend_from_slice(&data[bytes]);
                    if self.short.blocks.len() == SHARED_CHUNK_BLOCKS {
                        self.share()?;
                    }
                }
                Run::Data(run) => {
                    for cut in chunking::cut(parameters, &data[run.clone()]) {
                        let bytes = run.start + cut.start..run.start + cut.end;
                        let id = self.push(data.slice(bytes.clone()));
                        self.replace(first_block, &bytes, Some(id))?;
                    }
                }
            }
        }
        Ok(())
    }

    /// All of it.
    pub(crate) fn finish(mut self) -> Result<Drafted, InvalidExtent> {
        self.share()?;
        let new = |bytes| NewChunk { read_soon: self.read_soon, ..NewChunk::of(ChunkKind::Manifest, bytes) };
        let encoded = self.manifest.encode().map(new);
        Ok(Drafted { manifest: self.manifest, chunks: self.chunks, encoded })
    }

    /// The single blocks so far, as a chunk.
    fn share(&mut self) -> Result<(), InvalidExtent> {
        let ShortRuns { blocks, data } = std::mem::take(&mut self.short);
        if blocks.is_empty() {
            return Ok(());
        }
        let id = self.push(data.into());
        for (place, block) in (0..).zip(blocks) {
            self.manifest.replace(block, 1, Some((id, place)))?;
        }
        Ok(())
    }

    fn push(&mut self, bytes: Bytes) -> ChunkId {
        let chunk = NewChunk { read_soon: self.read_soon, ..NewChunk::of(ChunkKind::Data, bytes) };
        let id = chunk.id;
        self.chunks.push(chunk);
        id
    }

    /// Enters a run of blocks, given as bytes behind `first_block`.
    fn replace(&mut self, first_block: u16, bytes: &Range<usize>, chunk: Option<ChunkId>) -> Result<(), InvalidExtent> {
        let blocks = blocks_in(bytes.start)..blocks_in(bytes.end);
        let chunk = chunk.map(|id| (id, 0));
        self.manifest.replace(first_block + blocks.start, blocks.end - blocks.start, chunk)
    }
}

impl Drafted {
    /// Hands it to `writer`; how the map changes by it.
    pub(crate) fn store(self, segment: SegmentIndex, writer: &mut ChunkWriter) -> Result<Change, StoreError> {
        for chunk in self.chunks {
            writer.put(chunk)?;
        }
        Ok(match self.encoded {
            Some(manifest) => Change::Set(segment, writer.put(manifest)?),
            None => Change::Clear(segment..SegmentIndex(segment.0 + 1)),
        })
    }
}

/// Runs of a single block, collected into chunks of their own.
#[derive(Debug, Default)]
struct ShortRuns {
    /// Counted from the segment's first block.
    blocks: Vec<u16>,
    data: Vec<u8>,
}

/// How many blocks of a segment these bytes are.
fn blocks_in(bytes: usize) -> u16 {
    u16::try_from(bytes / chunking::BLOCK_BYTES).expect("a segment has 1,024 blocks")
}

/// Blocks of a chunk that is made of single ones: the average size of those that are cut by content, so that the index has
/// as many entries as for these, and a chunk that is dead in part wastes no more than they do.
const SHARED_CHUNK_BLOCKS: usize = 8;

const _: () = assert!(chunking::BLOCK_BYTES as u64 == BLOCK_SIZE);
