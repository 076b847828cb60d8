//! A raw image as a root.

use std::fs::File;
use std::io;
use std::ops::{ControlFlow, Range};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use rustix::fs::SeekFrom;
use rustix::io::Errno;
use sterna_runtime::in_order::{in_order, scope};
use sterna_types::units::InvalidVolumeSize;
use sterna_types::{BLOCK_SIZE, Root, SEGMENT_SIZE, SegmentIndex, VolumeSize};

use crate::chunk_store::{StoreError, StorePin};
use crate::chunk_writer::ChunkWriter;
use crate::chunking::ChunkingParameters;
use crate::map::{self, Change, Manifest, MapError};
use crate::progress::{Progress, Watcher};
use crate::volume::{Draft, Drafted, Storage, VolumeError};

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

/// Stores the contents of a raw image. Segments are read, cut and hashed by several threads, a few at a time, and stored in
/// their order by this one, so that the same image is stored the same way. On return they are durable; record the root, then drop the pin.
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
        writer: ChunkWriter::new(Arc::clone(storage.store())),
        root: Root::EMPTY,
        changes: Vec::new(),
        data_bytes: 0,
    };
    scope(|scope| {
        let pieces = Pieces { image, at: 0, length };
        let drafts = in_order(scope, pieces, |piece| piece.and_then(|piece| draft(chunking, image, piece)));
        for drafted in drafts {
            let (segment, drafted) = drafted?;
            let done_bytes = segment.0 * SEGMENT_SIZE;
            if watcher(Progress { done_bytes, total_bytes: length }).is_break() {
                return Err(ImportError::Stopped);
            }
            import.segment(segment, drafted)?;
        }
        import.update()
    })?;
    let (root, data_bytes) = (import.root, import.data_bytes);
    let (pin, stats) = import.writer.finish()?;
    let _: ControlFlow<()> = watcher(Progress { done_bytes: length, total_bytes: length });
    Ok(Imported { root, size, data_bytes, new_bytes: stats.new_bytes, pin })
}

struct Import<'a> {
    storage: &'a Storage,
    writer: ChunkWriter,
    /// Of all segments before `changes`.
    root: Root,
    changes: Vec<Change>,
    data_bytes: u64,
}

impl Import<'_> {
    fn segment(&mut self, segment: SegmentIndex, drafted: Drafted) -> Result<(), ImportError> {
        let mapped_blocks = drafted.manifest.statistics().mapped_blocks;
        if mapped_blocks == 0 {
            return Ok(());
        }
        self.data_bytes += u64::from(mapped_blocks) * BLOCK_SIZE;
        self.changes.push(drafted.store(segment, &mut self.writer)?);
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

/// The segments of an image that may have data, in order; of each the bytes up to its end, or the image's.
struct Pieces<'a> {
    image: &'a File,
    at: u64,
    length: u64,
}

impl Iterator for Pieces<'_> {
    type Item = Result<Range<u64>, ImportError>;

    fn next(&mut self) -> Option<Self::Item> {
        let data = match next_data(self.image, self.at, self.length) {
            Ok(data) => data?,
            Err(error) => {
                self.at = self.length;
                return Some(Err(ImportError::Read(error)));
            }
        };
        let start = data / SEGMENT_SIZE * SEGMENT_SIZE;
        self.at = (start + SEGMENT_SIZE).min(self.length);
        Some(Ok(start..self.at))
    }
}

/// What a piece of an image, a segment, becomes.
fn draft(
    chunking: &ChunkingParameters,
    image: &File,
    piece: Range<u64>,
) -> Result<(SegmentIndex, Drafted), ImportError> {
    let segment = SegmentIndex(piece.start / SEGMENT_SIZE);
    let mut draft = Draft::of(Manifest::default());
    let extent = |error| ImportError::Volume(VolumeError::Extent(error));
    draft.write(chunking, 0, &read_segment(image, piece.start, piece.end)?.into()).map_err(extent)?;
    Ok((segment, draft.finish().map_err(extent)?))
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
