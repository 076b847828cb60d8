//! Reading a chunk where it is, verified.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use quick_cache::Weighter;
use sterna_types::ChunkId;

use super::{ChunkPart, Encoding, Location, StoreError};
use crate::cache::Cache;
use crate::chunk_store::pack::decompress;
use crate::chunk_store::{PIECE_BYTES, chunk_id};
use crate::disk::DiskFile;

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

/// [`ChunkStore::read_parts`](crate::chunk_store::ChunkStore::read_parts).
pub(super) fn read(cache: &Decompressed, parts: &mut [ChunkPart<'_>]) -> Result<(), StoreError> {
    in_runs(parts, |run| match run {
        Run::Raw(parts) => read_run(parts, |file, at, places| file.read_parts_at(at, places).map(|()| true)).map(drop),
        Run::Cut(ChunkPart { location, from, into }) => {
            read_cut(location, *from, into, |at, bytes| read_at(location, at, bytes).map(|()| true)).map(drop)
        }
        Run::Compressed(ChunkPart { location, from, into }, stored_length) => {
            let range = range_of(location, *from, into.len())?;
            let known = cache.get(&location.id);
            let bytes = match &known {
                Some(bytes) => bytes.clone(),
                None => open(location, stored_length)?,
            };
            into.copy_from_slice(&bytes[range]);
            if known.is_none() {
                cache.insert(location.id, bytes);
            }
            Ok(())
        }
    })
}

/// [`ChunkStore::read_parts_now`](crate::chunk_store::ChunkStore::read_parts_now). To decompress is to wait, too.
pub(super) fn read_now(cache: &Decompressed, parts: &mut [ChunkPart<'_>]) -> Option<Result<(), StoreError>> {
    let done = in_runs(parts, |run| {
        let is_done = match run {
            Run::Raw(parts) => read_run(parts, |file, at, places| Ok(file.read_parts_at_now(at, places))),
            Run::Cut(ChunkPart { location, from, into }) => {
                read_cut(location, *from, into, |at, bytes| Ok(location.file.read_at_now(at, bytes)))
            }
            Run::Compressed(ChunkPart { location, from, into }, _) => {
                let range = range_of(location, *from, into.len())?;
                let known = cache.get(&location.id);
                if let Some(bytes) = &known {
                    into.copy_from_slice(&bytes[range]);
                }
                Ok(known.is_some())
            }
        };
        if is_done? { Ok(()) } else { Err(Unread::Waits) }
    });
    match done {
        Ok(()) => Some(Ok(())),
        Err(Unread::Waits) => None,
        Err(Unread::Failed(error)) => Some(Err(error)),
    }
}

/// Why something was not read by who may not wait.
enum Unread {
    Waits,
    Failed(StoreError),
}

impl From<StoreError> for Unread {
    fn from(error: StoreError) -> Self {
        Self::Failed(error)
    }
}

/// What is read at once.
enum Run<'r, 'p> {
    /// Whole pieces that are stored raw, in one pack, with little or nothing between them.
    Raw(&'r mut [ChunkPart<'p>]),
    /// A part of something raw that begins or ends within a piece.
    Cut(&'r mut ChunkPart<'p>),
    /// A part of something compressed to so many bytes.
    Compressed(&'r mut ChunkPart<'p>, u32),
}

/// Sorts the parts by where they are, and has them read in as few runs as that takes.
fn in_runs<E: From<StoreError>>(
    mut parts: &mut [ChunkPart<'_>],
    mut read: impl FnMut(Run<'_, '_>) -> Result<(), E>,
) -> Result<(), E> {
    sort_by_place(parts);
    while let Some(first) = parts.first_mut() {
        let range = range_of(first.location, first.from, first.into.len())?;
        if let Encoding::Zstd { stored_length } = first.location.encoding {
            read(Run::Compressed(first, stored_length))?;
        } else if !is_whole(first.location, &range) {
            read(Run::Cut(first))?;
        } else {
            let length = 1 + parts.windows(2).take_while(|pair| continues(&pair[0], &pair[1])).count();
            let (run, rest) = std::mem::take(&mut parts).split_at_mut(length);
            read(Run::Raw(run))?;
            parts = rest;
            continue;
        }
        parts = &mut std::mem::take(&mut parts)[1..];
    }
    Ok(())
}

/// Pack by pack, in the order in which the packs come first: nothing of it depends on where in memory something is.
fn sort_by_place(parts: &mut [ChunkPart<'_>]) {
    let pack_of = |part: &ChunkPart<'_>| Arc::as_ptr(&part.location.file).addr();
    let first = parts.first().map(pack_of);
    // Most reads are of one pack, and need no list of them.
    if parts.iter().all(|part| Some(pack_of(part)) == first) {
        return parts.sort_unstable_by_key(place_of);
    }
    let mut packs = Vec::new();
    for pack in parts.iter().map(pack_of) {
        if !packs.contains(&pack) {
            packs.push(pack);
        }
    }
    parts.sort_unstable_by_key(|part| (packs.iter().position(|pack| *pack == pack_of(part)), place_of(part)));
}

/// Where in its pack a part begins, if it is stored raw.
fn place_of(part: &ChunkPart<'_>) -> u64 {
    part.location.offset + u64::from(part.from)
}

/// Whether `next`, which lies behind `part` or at the same place, can be read together with it: `part` is whole pieces that are
/// stored raw, and so is `next`, and it is cheaper to read what lies between them than to ask the system twice.
fn continues(part: &ChunkPart<'_>, next: &ChunkPart<'_>) -> bool {
    let is_raw = || {
        let range = range_of(next.location, next.from, next.into.len());
        next.location.encoding == Encoding::Raw && range.is_ok_and(|range| is_whole(next.location, &range))
    };
    Arc::ptr_eq(&part.location.file, &next.location.file)
        && gap_between(part, next).is_some_and(|gap| gap <= MAX_GAP_BYTES)
        && is_raw()
}

/// Bytes between the end of a part and the beginning of another; `None` where it begins before that.
fn gap_between(part: &ChunkPart<'_>, next: &ChunkPart<'_>) -> Option<usize> {
    let gap = place_of(next).checked_sub(place_of(part) + part.into.len() as u64)?;
    usize::try_from(gap).ok()
}

/// Whether a range of a chunk is whole pieces.
fn is_whole(location: &Location, range: &Range<usize>) -> bool {
    range.start.is_multiple_of(PIECE_BYTES)
        && (range.end.is_multiple_of(PIECE_BYTES) || range.end == location.length as usize)
}

/// Reads a run with `read`, which says whether it could, and verifies it.
fn read_run(
    parts: &mut [ChunkPart<'_>],
    read: impl FnOnce(&dyn DiskFile, u64, &mut [&mut [u8]]) -> io::Result<bool>,
) -> Result<bool, StoreError> {
    let (location, at) = (parts[0].location, place_of(&parts[0]));
    let is_read = match &mut *parts {
        [part] => read(&*location.file, at, &mut [&mut *part.into]),
        parts => {
            let gaps: Vec<_> =
                parts.windows(2).map(|pair| gap_between(&pair[0], &pair[1]).unwrap_or_default()).collect();
            let mut unwanted = vec![0; gaps.iter().sum()];
            let mut unwanted = unwanted.as_mut_slice();
            let mut places: Vec<&mut [u8]> = Vec::with_capacity(2 * parts.len());
            for (part, gap) in parts.iter_mut().zip(gaps.into_iter().chain([0])) {
                places.push(part.into);
                places.extend(unwanted.split_off_mut(..gap).filter(|gap| !gap.is_empty()));
            }
            read(&*location.file, at, &mut places)
        }
    };
    if !is_read.map_err(|source| unreadable(location, source))? {
        return Ok(false);
    }
    for part in parts {
        verify(part.location, part.from as usize / PIECE_BYTES, part.into)?;
    }
    Ok(true)
}

/// Reads a part that begins or ends within a piece, by way of the whole pieces, with `read`, which says whether it could.
fn read_cut(
    location: &Location,
    from: u32,
    into: &mut [u8],
    read: impl Fn(u64, &mut [u8]) -> Result<bool, StoreError>,
) -> Result<bool, StoreError> {
    let range = range_of(location, from, into.len())?;
    let first = range.start / PIECE_BYTES;
    let end = range.end.next_multiple_of(PIECE_BYTES).min(location.length as usize);
    let mut bytes = vec![0; end - first * PIECE_BYTES];
    if !read(location.offset + (first * PIECE_BYTES) as u64, &mut bytes)? {
        return Ok(false);
    }
    verify(location, first, &bytes)?;
    into.copy_from_slice(&bytes[range.start - first * PIECE_BYTES..][..range.len()]);
    Ok(true)
}

fn read_at(location: &Location, at: u64, into: &mut [u8]) -> Result<(), StoreError> {
    location.file.read_at(at, into).map_err(|source| unreadable(location, source))
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

/// All that is stored, verified.
fn stored(location: &Location, stored_length: u32) -> Result<Vec<u8>, StoreError> {
    let mut bytes = vec![0; stored_length as usize];
    read_at(location, location.offset, &mut bytes)?;
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

/// The longest gap that is read over: two blocks, which are copied in the time that a system call takes.
const MAX_GAP_BYTES: usize = 8 << 10;
