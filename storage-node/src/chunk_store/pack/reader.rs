//! Reading a pack without the index: for salvage, scrub and compaction.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::batch::{BatchHeader, InvalidBatch};
use super::{ALIGNMENT, Frame, FramePlace, PackId};
use crate::disk::DiskFile;

/// Walks through the batches of a pack and yields their frames. Where no batch begins it looks for the next one, 4 KiB by
/// 4 KiB, so that one damaged header costs the frames of its batch and no others.
#[derive(Debug)]
pub struct PackScanner {
    pack: PackId,
    file: Arc<dyn DiskFile>,
    size: u64,
    /// Where the next batch may begin.
    at: u64,
    skipped_bytes: u64,
    /// The frames of the batch that is being read, the next one last.
    frames: Vec<ScannedFrame>,
}

/// A frame of a pack, by its batch's header.
#[derive(Clone, Debug)]
pub struct ScannedFrame {
    /// What it is, its offset counted from the start of the pack.
    pub frame: Frame,
    pub(in crate::chunk_store) place: FramePlace,
}

/// What a frame turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The bytes of the chunk, which hash to its id.
    Sound(Bytes),
    /// They do not, or are cut off.
    Damaged,
}

impl PackScanner {
    /// Begins to read a pack. Its own header is not needed: each batch says what it is of.
    ///
    /// # Errors
    /// What the system says.
    pub fn new(pack: PackId, file: Arc<dyn DiskFile>) -> io::Result<Self> {
        let size = file.size()?;
        Ok(Self { pack, file, size, at: ALIGNMENT as u64, skipped_bytes: 0, frames: Vec::new() })
    }

    /// The next frame; `None` at the end.
    ///
    /// # Errors
    /// What the system says.
    pub fn next_frame(&mut self) -> io::Result<Option<ScannedFrame>> {
        while self.frames.is_empty() && self.at < self.size {
            match self.header_at(self.at)? {
                Ok(header) => self.enter(header),
                Err(_) => {
                    self.at += ALIGNMENT as u64;
                    self.skipped_bytes += ALIGNMENT as u64;
                }
            }
        }
        Ok(self.frames.pop())
    }

    /// How many bytes so far belong to no batch that can be read.
    pub fn skipped_bytes(&self) -> u64 {
        self.skipped_bytes
    }

    /// Reads a frame and verifies it.
    ///
    /// # Errors
    /// What the system says; that the pack ends too early is no error but [`Verdict::Damaged`].
    pub fn read(&self, frame: &Frame) -> io::Result<Verdict> {
        let stored = read_stored(&*self.file, frame)?;
        Ok(stored.and_then(|stored| frame.open(&stored)).map_or(Verdict::Damaged, Verdict::Sound))
    }

    fn header_at(&self, at: u64) -> io::Result<Result<BatchHeader, InvalidBatch>> {
        let mut bytes = vec![0; ALIGNMENT];
        if self.size - at < ALIGNMENT as u64 {
            return Ok(Err(InvalidBatch::Truncated(ALIGNMENT)));
        }
        self.file.read_at(at, &mut bytes)?;
        let length = match BatchHeader::length(&bytes) {
            Ok(length) => length,
            Err(invalid) => return Ok(Err(invalid)),
        };
        if self.size - at < length as u64 {
            return Ok(Err(InvalidBatch::Truncated(length)));
        }
        bytes.resize(length, 0);
        self.file.read_at(at + ALIGNMENT as u64, &mut bytes[ALIGNMENT..])?;
        let header = BatchHeader::parse(&bytes);
        Ok(header.and_then(|header| {
            let is_ours = header.pack == self.pack && header.offset == at;
            if is_ours { Ok(header) } else { Err(InvalidBatch::NoMagic) }
        }))
    }

    fn enter(&mut self, header: BatchHeader) {
        let payload_at = self.at + u64::from(header.header_bytes);
        let (pack, first) = (self.pack, header.first_frame);
        let place = |(number, frame): (u32, Frame)| {
            // What lies beyond 4 GiB nobody has written.
            let offset = u32::try_from(payload_at + u64::from(frame.offset)).ok()?;
            let place = FramePlace { pack, number: first + number };
            Some(ScannedFrame { frame: Frame { offset, ..frame }, place })
        };
        self.frames = (0..).zip(header.frames).filter_map(place).collect();
        self.frames.reverse();
        self.at = payload_at + u64::from(header.payload_bytes);
    }
}

/// The stored bytes of a frame; `None` where the pack ends before.
pub(in crate::chunk_store) fn read_stored(file: &dyn DiskFile, frame: &Frame) -> io::Result<Option<Bytes>> {
    let mut stored = vec![0; frame.stored_length() as usize];
    match file.read_at(u64::from(frame.offset), &mut stored) {
        Ok(()) => Ok(Some(stored.into())),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}
