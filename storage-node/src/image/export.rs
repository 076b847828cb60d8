//! A root as a raw image.

use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;

use sterna_runtime::in_order::{in_order, scope};
use sterna_types::{BLOCK_SIZE, Root, SEGMENT_SIZE, SegmentIndex, VolumeSize};

use crate::chunk_store::{ChunkStore, StoreError};
use crate::map::{self, MAX_SEGMENTS, Manifest, MapError};
use crate::progress::{Progress, Watcher};
use crate::volume::Storage;

/// What an export has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exported {
    /// Bytes that were written; the others are holes of the file.
    pub data_bytes: u64,
}

/// Why a root could not be exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The image could not be written.
    #[error("the image cannot be written: {0}")]
    Write(#[source] io::Error),
    /// The map could not be read.
    #[error(transparent)]
    Map(#[from] MapError),
    /// A chunk could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It was told to stop.
    #[error("the export was stopped; the image is not complete")]
    Stopped,
}

/// Writes the contents of `root`, as those of a volume of `size`, to `image`, an empty file; several threads do, a
/// few segments at a time. Durable on return.
///
/// The caller holds a pin that is older than the root, or knows otherwise that nothing of it is collected meanwhile.
///
/// # Errors
/// [`ExportError`]; then the image is not complete.
pub fn export(
    storage: &Storage,
    root: Root,
    size: VolumeSize,
    image: &File,
    watcher: Watcher<'_>,
) -> Result<Exported, ExportError> {
    let total_bytes = size.bytes().0;
    image.set_len(total_bytes).map_err(ExportError::Write)?;
    let (store, nodes) = (&**storage.store(), storage.nodes());
    let mut data_bytes = 0;
    scope(|scope| {
        let segments = map::segments(store, nodes, root, SegmentIndex(0)..SegmentIndex(MAX_SEGMENTS));
        let written = in_order(scope, segments, |found| {
            let (segment, id) = found?;
            let manifest = map::manifest(store, nodes, id, segment)?;
            write(store, segment, &manifest, image, total_bytes).map(|bytes| (segment, bytes))
        });
        for written in written {
            let (segment, bytes) = written?;
            data_bytes += bytes;
            if watcher(Progress { done_bytes: segment.0 * SEGMENT_SIZE, total_bytes }).is_break() {
                return Err(ExportError::Stopped);
            }
        }
        Ok(())
    })?;
    image.sync_all().map_err(ExportError::Write)?;
    let _: ControlFlow<()> = watcher(Progress { done_bytes: total_bytes, total_bytes });
    Ok(Exported { data_bytes })
}

/// Writes what the manifest of a segment names to an image of `total_bytes`; how many bytes.
fn write(
    store: &dyn ChunkStore,
    segment: SegmentIndex,
    manifest: &Manifest,
    image: &File,
    total_bytes: u64,
) -> Result<u64, ExportError> {
    let (mut data, mut data_bytes) = (Vec::new(), 0);
    for extent in manifest.extents() {
        let location = store.locate(extent.chunk)?.ok_or(StoreError::Missing { id: extent.chunk })?;
        data.resize(usize::from(extent.block_count) * BLOCK_BYTES, 0);
        store.read(&location, u32::from(extent.first_in_chunk) * BLOCK_BYTES_U32, &mut data)?;
        let at = segment.0 * SEGMENT_SIZE + u64::from(extent.first_block) * BLOCK_SIZE;
        // A volume that was made smaller may still have something behind its end.
        let within = usize::try_from(total_bytes.saturating_sub(at)).unwrap_or(usize::MAX).min(data.len());
        image.write_all_at(&data[..within], at).map_err(ExportError::Write)?;
        data_bytes += within as u64;
    }
    Ok(data_bytes)
}

const BLOCK_BYTES: usize = 4096;
const BLOCK_BYTES_U32: u32 = 4096;
const _: () = assert!(BLOCK_BYTES as u64 == BLOCK_SIZE && BLOCK_BYTES_U32 as u64 == BLOCK_SIZE);
