//! Reading a pack: its index from its end, and frames from anywhere.

use bytes::Bytes;
use sterna_storage_node::chunk_store::chunk_id;
use sterna_types::ChunkId;

use super::{
    END_MAGIC, ENTRY_BYTES, Encoding, Entry, HEAD_BYTES, HEADER_BYTES, MAX_FRAMES, TRAILER_BYTES, VERSION, take_fields,
    u32_at,
};

/// How much of a pack's end is asked for at first: the index of most packs.
pub(crate) const TAIL_BYTES: u64 = 64 << 10;

/// Why the end of a pack says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TailError {
    /// It ends with something else.
    #[error("it does not end as a pack does")]
    Trailer,
    /// A later program has written it.
    #[error("it has version {found}")]
    Version {
        /// Its version.
        found: u32,
    },
    /// The index is another one than was written.
    #[error("its index is damaged")]
    Index,
}

/// Why a frame is of no use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    /// Its header does not check.
    #[error("the frame of chunk {id} has a damaged header")]
    Header {
        /// The chunk that is to be there.
        id: ChunkId,
    },
    /// What is kept does not check.
    #[error("chunk {id} does not have its checksum")]
    Checksum {
        /// The chunk.
        id: ChunkId,
    },
    /// It is not what is written beside it.
    #[error("what is kept as chunk {id} is something else")]
    Contents {
        /// The chunk.
        id: ChunkId,
    },
}

/// Where the index of a pack of `pack_bytes` begins, by its last bytes.
pub(crate) fn where_index_begins(tail: &[u8], pack_bytes: u64) -> Result<u64, TailError> {
    parse_trailer(tail, pack_bytes).map(|trailer| trailer.begin)
}

struct Trailer {
    count: usize,
    crc: u32,
    begin: u64,
}

fn parse_trailer(tail: &[u8], pack_bytes: u64) -> Result<Trailer, TailError> {
    let trailer = tail.len().checked_sub(TRAILER_BYTES).map(|at| &tail[at..]).ok_or(TailError::Trailer)?;
    let field = |at| u32_at(trailer, at).ok_or(TailError::Trailer);
    if trailer[24..] != END_MAGIC[..] || crc32c::crc32c(&trailer[..20]) != field(20)? {
        return Err(TailError::Trailer);
    }
    let found = field(16)?;
    if found > VERSION {
        return Err(TailError::Version { found });
    }
    let begin = u64::from(field(8)?) | u64::from(field(12)?) << 32;
    let count = field(0)? as usize;
    let is_sound = (1..=MAX_FRAMES).contains(&count)
        && begin >= HEAD_BYTES as u64
        && begin.checked_add((count * ENTRY_BYTES + TRAILER_BYTES) as u64) == Some(pack_bytes);
    if is_sound { Ok(Trailer { count, crc: field(4)?, begin }) } else { Err(TailError::Trailer) }
}

/// The index of a pack of `pack_bytes`, from its last bytes, all of the index among them.
pub(crate) fn parse_tail(tail: &[u8], pack_bytes: u64) -> Result<Vec<Entry>, TailError> {
    let Trailer { count, crc, begin } = parse_trailer(tail, pack_bytes)?;
    let index = tail.len().checked_sub(count * ENTRY_BYTES + TRAILER_BYTES).ok_or(TailError::Index)?;
    let index = &tail[index..tail.len() - TRAILER_BYTES];
    if crc32c::crc32c(index) != crc {
        return Err(TailError::Index);
    }
    let entry = |bytes: &[u8]| {
        let offset = u32_at(bytes, 44)?;
        let entry = take_fields(bytes.first_chunk()?, offset)?;
        let end = u64::from(offset) + u64::from(entry.frame_bytes());
        (offset as usize >= HEAD_BYTES && end <= begin).then_some(entry)
    };
    index.chunks_exact(ENTRY_BYTES).map(|bytes| entry(bytes).ok_or(TailError::Index)).collect()
}

/// The chunk of a frame, which has to be this one: its checksums and its id are verified.
pub(crate) fn decode_frame(id: ChunkId, frame: &Bytes) -> Result<Bytes, FrameError> {
    let header = frame.get(..HEADER_BYTES).ok_or(FrameError::Header { id })?;
    let is_whole = u32_at(header, 48) == Some(crc32c::crc32c(&header[..48]));
    let fields = header.first_chunk().and_then(|fields| take_fields(fields, 0));
    let entry = fields.filter(|entry| is_whole && entry.id == id).ok_or(FrameError::Header { id })?;
    let stored = frame.slice(HEADER_BYTES..);
    if stored.len() != entry.stored_length as usize || u32_at(header, 44) != Some(crc32c::crc32c(&stored)) {
        return Err(FrameError::Checksum { id });
    }
    let length = entry.length as usize;
    let contents = match entry.encoding {
        Encoding::Raw => stored,
        Encoding::Zstd => {
            let decompressed = zstd::bulk::decompress(&stored, length).map_err(|_| FrameError::Contents { id })?;
            Bytes::from(decompressed)
        }
    };
    if contents.len() == length && chunk_id(&contents) == id { Ok(contents) } else { Err(FrameError::Contents { id }) }
}
