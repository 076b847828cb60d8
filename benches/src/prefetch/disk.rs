//! A disk as chunks: which of them each block is in, and what each costs on the way.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::Result;
use sterna_storage_node::chunking::{BLOCK_BYTES, ChunkingParameters, Run, cut, runs};

/// The chunks of a raw file.
pub(super) struct Disk {
    /// Of each block; none of blocks of zeroes.
    chunk_of: Vec<Option<u32>>,
    chunks: Vec<Chunk>,
}

/// One chunk.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Chunk {
    /// How many blocks it has.
    pub(super) blocks: u32,
    /// Its share of what a segment's chunks have when they are compressed together.
    pub(super) wire_bytes: f64,
}

impl Disk {
    /// Cuts a file as an import does.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn of(file: &Path) -> Result<Self> {
        let file = File::open(file)?;
        let length = file.metadata()?.len();
        let mut disk = Self { chunk_of: Vec::new(), chunks: Vec::new() };
        let mut segment = vec![0; SEGMENT_BYTES];
        for start in (0..length).step_by(SEGMENT_BYTES) {
            segment.fill(0);
            let bytes = usize::try_from((length - start).min(SEGMENT_BYTES as u64))?;
            file.read_exact_at(&mut segment[..bytes], start)?;
            disk.add(&segment)?;
        }
        Ok(disk)
    }

    /// Adds the chunks of a segment.
    fn add(&mut self, segment: &[u8]) -> Result<()> {
        let (first_block, first_chunk) = (self.chunk_of.len(), self.chunks.len());
        self.chunk_of.resize(first_block + segment.len() / BLOCK_BYTES, None);
        let (mut alone, mut together) = (0.0, zstd::Encoder::new(Vec::new(), ZSTD_LEVEL)?);
        for run in runs(segment) {
            let Run::Data(run) = run else { continue };
            for piece in cut(&ChunkingParameters::default(), &segment[run.clone()]) {
                let piece = run.start + piece.start..run.start + piece.end;
                let blocks = piece.start / BLOCK_BYTES..piece.end / BLOCK_BYTES;
                self.chunk_of[first_block + blocks.start..first_block + blocks.end]
                    .fill(Some(u32::try_from(self.chunks.len())?));
                let wire_bytes = float(zstd::encode_all(&segment[piece.clone()], ZSTD_LEVEL)?.len());
                alone += wire_bytes;
                std::io::Write::write_all(&mut together, &segment[piece])?;
                self.chunks.push(Chunk { blocks: u32::try_from(blocks.len())?, wire_bytes });
            }
        }
        let share = float(together.finish()?.len()) / f64::max(alone, 1.0);
        self.chunks[first_chunk..].iter_mut().for_each(|chunk| chunk.wire_bytes *= share);
        Ok(())
    }

    /// How many blocks it has.
    pub(super) fn block_count(&self) -> u64 {
        self.chunk_of.len() as u64
    }

    /// The chunk that a block is in; none where it is of zeroes, or behind the end.
    pub(super) fn chunk_of(&self, block: u64) -> Option<u32> {
        self.chunk_of.get(usize::try_from(block).ok()?).copied().flatten()
    }

    /// A chunk of this disk.
    pub(super) fn chunk(&self, number: u32) -> &Chunk {
        &self.chunks[number as usize]
    }

    /// How many there are.
    pub(super) fn chunk_count(&self) -> usize {
        self.chunks.len()
    }
}

#[expect(clippy::cast_precision_loss, reason = "a few MiB")]
fn float(bytes: usize) -> f64 {
    bytes as f64
}

const SEGMENT_BYTES: usize = 4 << 20;
/// As on the way.
const ZSTD_LEVEL: i32 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_block_of_data_is_in_one_chunk() -> Result<()> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("disk");
        let mut contents = vec![0; 5 << 20];
        let noise = (0..1_000_000_u64).map(|number| (number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8);
        contents.iter_mut().skip(8192).zip(noise).for_each(|(byte, noise)| *byte = noise | 1);
        std::fs::write(&path, &contents)?;
        let disk = Disk::of(&path)?;
        assert_eq!((disk.chunk_of(0), disk.chunk_of(1)), (None, None));
        assert_eq!(disk.block_count(), 2048, "whole segments");
        let mut blocks = vec![0; disk.chunk_count()];
        (0..disk.block_count()).filter_map(|block| disk.chunk_of(block)).for_each(|chunk| blocks[chunk as usize] += 1);
        for (number, blocks) in (0..).zip(blocks) {
            assert_eq!(disk.chunk(number).blocks, blocks);
            assert!(disk.chunk(number).wire_bytes > 0.0);
        }
        Ok(())
    }
}
