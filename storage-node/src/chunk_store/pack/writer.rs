//! Writing one pack, from its header on.

use std::io;
use std::sync::Arc;

use super::{ALIGNMENT, BatchLayout, FramePlace, PACK_DIRECTORY, PackId, StoredChunk, pack_header};
use crate::chunk_store::index::IndexEntry;
use crate::disk::{Disk, DiskFile};

/// A pack that is being written. Its name is durable; what was written is once [`PackWriter::sync`] has returned.
#[derive(Debug)]
pub(in crate::chunk_store) struct PackWriter {
    id: PackId,
    file: Arc<dyn DiskFile>,
    end: u64,
    frames: u32,
}

impl PackWriter {
    /// Makes the pack `id`. Where this fails there may be a file by its name, without anything that the index knows of.
    pub(in crate::chunk_store) fn create(disk: &dyn Disk, id: PackId) -> io::Result<Self> {
        let file = disk.create(&id.path())?;
        disk.sync_dir(PACK_DIRECTORY)?;
        file.write_at(0, &[&pack_header(id)])?;
        Ok(Self { id, file, end: ALIGNMENT as u64, frames: 0 })
    }

    pub(in crate::chunk_store) fn id(&self) -> PackId {
        self.id
    }

    pub(in crate::chunk_store) fn file(&self) -> &Arc<dyn DiskFile> {
        &self.file
    }

    /// How long the pack is, in bytes.
    pub(in crate::chunk_store) fn length(&self) -> u64 {
        self.end
    }

    /// Writes one batch, with one gathered write, and says where its chunks are. Where this fails the pack is not to be
    /// written any more.
    pub(in crate::chunk_store) fn append(&mut self, chunks: &[StoredChunk]) -> io::Result<Vec<IndexEntry>> {
        let batch = BatchLayout::new(self.id, self.end, self.frames, chunks);
        if is_mostly_read_soon(chunks) {
            self.file.write_at(self.end, &batch.parts())?;
        } else {
            // What a guest has written it has in its own memory; and all of it would push out what guests read.
            self.file.write_unkept_at(self.end, &batch.parts())?;
        }
        self.end += batch.length;
        let mut entries = Vec::with_capacity(batch.frames.len());
        for frame in batch.frames {
            entries.push(IndexEntry { place: FramePlace { pack: self.id, number: self.frames }, frame });
            self.frames += 1;
        }
        Ok(entries)
    }

    /// Makes all of it durable.
    pub(in crate::chunk_store) fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }
}

/// Whether at least half of the bytes are likely to be read soon.
fn is_mostly_read_soon(chunks: &[StoredChunk]) -> bool {
    let bytes = |read_soon| {
        let alike = chunks.iter().filter(|chunk| chunk.read_soon == read_soon);
        alike.map(|chunk| chunk.bytes.len()).sum::<usize>()
    };
    bytes(true) >= bytes(false)
}
