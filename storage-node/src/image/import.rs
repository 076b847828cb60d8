//! A raw image as a root.

use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::SeekFrom;
use rustix::io::Errno;
use sterna_types::units::InvalidVolumeSize;
use sterna_types::{BLOCK_SIZE, Root, SEGMENT_SIZE, SegmentIndex, VolumeSize};

use crate::chunk_store::{ChunkKind, StoreError, StorePin};
use crate::chunk_writer::ChunkWriter;
use crate::chunking::ChunkingParameters;
use crate::map::{self, Change, Manifest, MapError};
use crate::progress::{Progress, Watcher};
use crate::volume::{Storage, VolumeError, store_run};

/// What an import has come to.
#[derive(Debug)]
pub struct Imported {
    /// The contents of the image, padded with zeroes to whole blocks. Its chunks are durable.
    pub root: Root,
    /// The size of a volume that holds them.
    pub size: VolumeSize,
    /// Bytes of the image that are not zero blocks.
    pub data_bytes: u64,
    /// Bytes of chunks that were not here before, map included.
    pub new_bytes: u64,
    /// Keeps the chunks until the root is recorded.
    pub pin: StorePin,
}

/// Why an image could not be imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The image could not be read.
    #[error("the image cannot be read: {0}")]
    Read(#[source] io::Error),
    /// The image has become shorter.
    #[error("the image ends at byte {at}, though it had {expected} bytes when the import began")]
    Truncated {
        /// Where it ends now.
        at: u64,
        /// Where it ended before.
        expected: u64,
    },
    /// No volume can be of the image's size.
    #[error("the image cannot be a volume: {0}")]
    Size(#[from] InvalidVolumeSize),
    /// The contents could not be stored.
    #[error(transparent)]
    Volume(#[from] VolumeError),
    /// It was told to stop.
    #[error("the import was stopped; what it has stored is found again by the next one")]
    Stopped,
}

impl From<StoreError> for ImportError {
    fn from(error: StoreError) -> Self {
        Self::Volume(error.into())
    }
}

impl From<MapError> for ImportError {
    fn from(error: MapError) -> Self {
        Self::Volume(error.into())
    }
}

/// Stores the contents of a raw image. On return they are durable; record the root, then drop the pin.
///
/// # Errors
/// [`ImportError`]; what was stored by then is found again by the next import, or collected.
pub fn import(
    storage: &Storage,
    chunking: &ChunkingParameters,
    image: &File,
    watcher: Watcher<'_>,
) -> Result<Imported, ImportError> {
    let length = image.metadata().map_err(ImportError::Read)?.len();
    let padded = length.checked_next_multiple_of(BLOCK_SIZE).unwrap_or(u64::MAX);
    let size = VolumeSize::try_from(sterna_types::ByteSize(padded))?;
    storage.make_room(padded)?;
    let mut import = Import {
        storage,
        chunking,
        writer: ChunkWriter::new(Arc::clone(storage.store())),
        root: Root::EMPTY,
        changes: Vec::new(),
        data_bytes: 0,
    };
    let mut at = 0;
    while let Some(data) = next_data(image, at, length).map_err(ImportError::Read)? {
        let segment = SegmentIndex(data / SEGMENT_SIZE);
        let end = ((segment.0 + 1) * SEGMENT_SIZE).min(length);
        if watcher(Progress { done_bytes: data, total_bytes: length }).is_break() {
            return Err(ImportError::Stopped);
        }
        import.segment(segment, read_segment(image, segment.0 * SEGMENT_SIZE, end)?)?;
        at = end;
    }
    import.update()?;
    let (root, data_bytes) = (import.root, import.data_bytes);
    let (pin, stats) = import.writer.finish()?;
    let _: ControlFlow<()> = watcher(Progress { done_bytes: length, total_bytes: length });
    Ok(Imported { root, size, data_bytes, new_bytes: stats.new_bytes, pin })
}

struct Import<'a> {
    storage: &'a Storage,
    chunking: &'a ChunkingParameters,
    writer: ChunkWriter,
    /// Of all segments before `changes`.
    root: Root,
    changes: Vec<Change>,
    data_bytes: u64,
}

impl Import<'_> {
    fn segment(&mut self, segment: SegmentIndex, data: Vec<u8>) -> Result<(), ImportError> {
        let mut manifest = Manifest::default();
        store_run(self.chunking, &mut self.writer, &mut manifest, 0, &Bytes::from(data))?;
        let Some(bytes) = manifest.encode() else {
            return Ok(());
        };
        self.data_bytes += u64::from(manifest.statistics().mapped_blocks) * BLOCK_SIZE;
        let id = self.writer.put(ChunkKind::Manifest, bytes)?;
        self.changes.push(Change::Set(segment, id));
        if self.changes.len() >= CHANGES_AT_ONCE {
            self.update()?;
        }
        Ok(())
    }

    fn update(&mut self) -> Result<(), ImportError> {
        let changes = std::mem::take(&mut self.changes);
        self.root = map::update(self.storage.nodes(), &mut self.writer, self.root, &changes)?;
        Ok(())
    }
}

/// The first byte at or behind `at` that may be data; `None` where only holes are left.
fn next_data(image: &File, at: u64, length: u64) -> io::Result<Option<u64>> {
    if at >= length {
        return Ok(None);
    }
    match rustix::fs::seek(image, SeekFrom::Data(at)) {
        Ok(data) => Ok((data < length).then_some(data)),
        Err(Errno::NXIO) => Ok(None),
        // A file system that knows no holes: all of it is data.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(Some(at)),
        Err(errno) => Err(errno.into()),
    }
}

/// The bytes from `start` to `end`, padded with zeroes to whole blocks.
fn read_segment(image: &File, start: u64, end: u64) -> Result<Vec<u8>, ImportError> {
    let too_large = |_| ImportError::Read(io::ErrorKind::FileTooLarge.into());
    let length = usize::try_from(end - start).map_err(too_large)?;
    let padded = usize::try_from((end - start).next_multiple_of(BLOCK_SIZE)).map_err(too_large)?;
    let mut data = vec![0; padded];
    match image.read_exact_at(&mut data[..length], start) {
        Ok(()) => Ok(data),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            let at = image.metadata().map_err(ImportError::Read)?.len();
            Err(ImportError::Truncated { at, expected: end })
        }
        Err(error) => Err(ImportError::Read(error)),
    }
}

/// Segments after which the tree is made up to there: 16 GiB of disk, so that the list of changes stays small.
const CHANGES_AT_ONCE: usize = 4096;
