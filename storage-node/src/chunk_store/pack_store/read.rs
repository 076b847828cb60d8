//! Reading a chunk where it is, verified.

use std::io;
use std::ops::Range;

use bytes::Bytes;
use quick_cache::Weighter;
use sterna_types::ChunkId;

use super::{Encoding, Location, StoreError};
use crate::cache::Cache;
use crate::chunk_store::pack::decompress;
use crate::chunk_store::{PIECE_BYTES, chunk_id};

/// Chunks that were decompressed lately.
pub(super) type Decompressed = Cache<ChunkId, Bytes, ByLength>;

#[derive(Clone, Debug)]
pub(super) struct ByLength;

impl Weighter<ChunkId, Bytes> for ByLength {
    fn weight(&self, _id: &ChunkId, bytes: &Bytes) -> u64 {
        bytes.len() as u64
    }
}

/// What chunks are cut to on average.
pub(super) const TYPICAL_CHUNK_BYTES: u64 = 32 << 10;

/// [`ChunkStore::read`](crate::chunk_store::ChunkStore::read).
pub(super) fn read(cache: &Decompressed, location: &Location, from: u32, into: &mut [u8]) -> Result<(), StoreError> {
    let range = range_of(location, from, into.len())?;
    match location.encoding {
        Encoding::Raw => read_raw(location, range, into, |at, into| {
            location.file.read_at(at, into).map(|()| true).map_err(|source| unreadable(location, source))
        })
        .map(drop),
        Encoding::Zstd { stored_length } => {
            if let Some(bytes) = cache.get(&location.id) {
                into.copy_from_slice(&bytes[range]);
                return Ok(());
            }
            let bytes = open(location, stored_length)?;
            into.copy_from_slice(&bytes[range]);
            cache.insert(location.id, bytes);
            Ok(())
        }
    }
}

/// [`ChunkStore::read_now`](crate::chunk_store::ChunkStore::read_now). To decompress is to wait, too.
pub(super) fn read_now(
    cache: &Decompressed,
    location: &Location,
    from: u32,
    into: &mut [u8],
) -> Option<Result<(), StoreError>> {
    let range = match range_of(location, from, into.len()) {
        Ok(range) => range,
        Err(error) => return Some(Err(error)),
    };
    match location.encoding {
        Encoding::Raw => {
            let read = read_raw(location, range, into, |at, into| Ok(location.file.read_at_now(at, into)));
            read.map(|done| done.then_some(())).transpose()
        }
        Encoding::Zstd { .. } => {
            let bytes = cache.get(&location.id)?;
            into.copy_from_slice(&bytes[range]);
            Some(Ok(()))
        }
    }
}

/// All of a chunk, verified against its id.
pub(super) fn whole(location: &Location) -> Result<Bytes, StoreError> {
    let bytes = match location.encoding {
        Encoding::Raw => stored(location, location.length)?.into(),
        Encoding::Zstd { stored_length } => open(location, stored_length)?,
    };
    if chunk_id(&bytes) == location.id { Ok(bytes) } else { Err(corrupt(location, "its bytes do not hash to its id")) }
}

fn range_of(location: &Location, from: u32, length: usize) -> Result<Range<usize>, StoreError> {
    let from = from as usize;
    match from.checked_add(length) {
        Some(end) if end <= location.length as usize => Ok(from..end),
        // Whoever refers to a chunk may be wrong about its length: that shows here.
        _ => Err(corrupt(location, "it is shorter than those who refer to it say")),
    }
}

/// Fills `into` with a range of what is stored, read by whole pieces with `read`, which says whether it could.
fn read_raw(
    location: &Location,
    range: Range<usize>,
    into: &mut [u8],
    read: impl Fn(u64, &mut [u8]) -> Result<bool, StoreError>,
) -> Result<bool, StoreError> {
    let stored_length = location.length as usize;
    let pieces = range.start / PIECE_BYTES..range.end.div_ceil(PIECE_BYTES);
    let whole = pieces.start * PIECE_BYTES..(pieces.end * PIECE_BYTES).min(stored_length);
    let at = location.offset + whole.start as u64;
    if whole == range {
        let done = read(at, into)?;
        return if done { verify(location, pieces.start, into).map(|()| true) } else { Ok(false) };
    }
    let mut bytes = vec![0; whole.len()];
    if !read(at, &mut bytes)? {
        return Ok(false);
    }
    verify(location, pieces.start, &bytes)?;
    into.copy_from_slice(&bytes[range.start - whole.start..][..range.len()]);
    Ok(true)
}

/// All that is stored, verified.
fn stored(location: &Location, stored_length: u32) -> Result<Vec<u8>, StoreError> {
    let mut bytes = vec![0; stored_length as usize];
    location.file.read_at(location.offset, &mut bytes).map_err(|source| unreadable(location, source))?;
    verify(location, 0, &bytes)?;
    Ok(bytes)
}

fn open(location: &Location, stored_length: u32) -> Result<Bytes, StoreError> {
    let stored = stored(location, stored_length)?;
    decompress(&stored, location.length).ok_or_else(|| corrupt(location, "it cannot be decompressed"))
}

/// Checks whole pieces, of which the first is piece `first` of what is stored.
fn verify(location: &Location, first: usize, bytes: &[u8]) -> Result<(), StoreError> {
    for (number, piece) in bytes.chunks(PIECE_BYTES).enumerate() {
        if location.checksums.get(first + number) != Some(&crc32c::crc32c(piece)) {
            let offset = location.offset + ((first + number) * PIECE_BYTES) as u64;
            return Err(corrupt(location, &format!("the checksum of 4 KiB at {offset:#x} of its pack differs")));
        }
    }
    Ok(())
}

fn corrupt(location: &Location, what: &str) -> StoreError {
    StoreError::Corrupt { id: location.id, what: what.to_owned() }
}

fn unreadable(location: &Location, source: io::Error) -> StoreError {
    match source.kind() {
        io::ErrorKind::UnexpectedEof => corrupt(location, "its pack ends before it"),
        _ => StoreError::Io { path: format!("the pack of chunk {}", location.id), source },
    }
}
