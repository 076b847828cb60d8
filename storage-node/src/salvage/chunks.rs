//! The chunks that the packs of a data directory hold, found by reading the packs.
//!
//! The table of what was found is in memory: 32 bytes for each frame and at most an eighth more, which is 1.1 GiB for each
//! TiB of data in chunks of 32 KiB. It keeps half of each id; whatever is read has to hash to all of it.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use sterna_types::ChunkId;

use crate::chunk_store::index::{Index, frame_of};
use crate::chunk_store::pack::{Frame, PackId, decompress};
use crate::chunk_store::{
    ChunkStore, Encoding, Location, MAX_CHUNK_BYTES, NewChunk, Room, StoreError, StorePin, chunk_id, piece_checksums,
};
use crate::disk::{Disk, DiskFile};

/// Chunks found in packs; nothing can be stored. A chunk that is in several places is read from the first that is sound; one
/// that no pack lists, from where the index says, where there is one.
pub(super) struct FoundChunks {
    disk: Arc<dyn Disk>,
    index: Option<Arc<dyn Index>>,
    packs: Vec<PackId>,
    /// By the first byte of the id; each in order once all packs have been read.
    shards: Vec<Vec<Entry>>,
    count: u64,
    open: Mutex<HashMap<u32, Arc<dyn DiskFile>>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    prefix: Prefix,
    /// The newest pack first.
    pack: Reverse<u32>,
    offset: u32,
    length: u32,
    stored_length: u32,
}

type Prefix = [u8; 16];

/// There are more frames than the table may hold.
#[derive(Debug)]
pub(super) struct TooMany;

impl FoundChunks {
    pub(super) fn new(disk: Arc<dyn Disk>, index: Option<Arc<dyn Index>>) -> Self {
        Self { disk, index, packs: Vec::new(), shards: vec![Vec::new(); SHARDS], count: 0, open: Mutex::default() }
    }

    /// Begins a pack; the frames that are added next are in it.
    pub(super) fn begin_pack(&mut self, pack: PackId) {
        self.packs.push(pack);
    }

    /// Adds a frame of the pack that was begun last. The table takes at most `limit_bytes`.
    pub(super) fn add(&mut self, frame: &Frame, limit_bytes: u64) -> Result<(), TooMany> {
        let pack = u32::try_from(self.packs.len().saturating_sub(1)).map_err(|_| TooMany)?;
        let prefix = prefix_of(frame.id);
        let shard = &mut self.shards[usize::from(prefix[0])];
        self.count += 1;
        if self.count.saturating_mul(BYTES_PER_ENTRY) > limit_bytes {
            return Err(TooMany);
        }
        if shard.len() == shard.capacity() {
            // Not twice as much each time: an eighth.
            shard.reserve_exact(shard.len() / 8 + 64);
        }
        let (offset, length, stored_length) = (frame.offset, frame.length, frame.stored_length());
        shard.push(Entry { prefix, pack: Reverse(pack), offset, length, stored_length });
        Ok(())
    }

    /// Ends the reading of packs.
    pub(super) fn finish(&mut self) {
        self.shards.iter_mut().for_each(|shard| shard.sort_unstable());
    }

    /// Whether a pack lists the chunk, or the index names it: nothing was read.
    pub(super) fn lists(&self, id: ChunkId) -> bool {
        !self.entries(id).is_empty() || self.in_index(id).is_some()
    }

    fn entries(&self, id: ChunkId) -> &[Entry] {
        let prefix = prefix_of(id);
        let shard = &self.shards[usize::from(prefix[0])];
        let first = shard.partition_point(|entry| entry.prefix < prefix);
        let behind = shard.partition_point(|entry| entry.prefix <= prefix);
        &shard[first..behind]
    }

    fn in_index(&self, id: ChunkId) -> Option<(PackId, Frame)> {
        self.index.as_ref().and_then(|index| frame_of(&**index, id))
    }

    /// The chunk with the place that it was read from, verified.
    fn find(&self, id: ChunkId) -> Result<Option<(Location, Bytes)>, StoreError> {
        let listed = self.entries(id).iter().map(|entry| {
            let number = entry.pack.0;
            let pack = usize::try_from(number).ok().and_then(|number| self.packs.get(number)).copied();
            (pack.unwrap_or(PackId(0)), entry.offset, entry.length, entry.stored_length)
        });
        let indexed = self.in_index(id).into_iter();
        let indexed = indexed.map(|(pack, frame)| (pack, frame.offset, frame.length, frame.stored_length()));
        let mut failure = None;
        // The index may well be wrong about what no pack lists: then the chunk is missing.
        for (number, (pack, offset, length, stored_length)) in listed.chain(indexed).enumerate() {
            match self.read_place(id, pack, offset, (length, stored_length)) {
                Ok(found) => return Ok(Some(found)),
                Err(error) if number == 0 => failure = Some(error),
                Err(_) => {}
            }
        }
        failure.map_or(Ok(None), Err)
    }

    fn read_place(
        &self,
        id: ChunkId,
        pack: PackId,
        offset: u32,
        (length, stored_length): (u32, u32),
    ) -> Result<(Location, Bytes), StoreError> {
        let failed = |source| StoreError::Io { path: pack.path(), source };
        let corrupt =
            || StoreError::Corrupt { id, what: format!("its bytes at {offset:#x} of pack {pack} are others") };
        let file = self.file(pack).map_err(failed)?;
        let bytes = usize::try_from(stored_length).ok().filter(|length| *length <= MAX_CHUNK_BYTES);
        let mut stored = vec![0; bytes.ok_or_else(corrupt)?];
        match file.read_at(offset.into(), &mut stored) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(corrupt()),
            read => read.map_err(failed)?,
        }
        let checksums = piece_checksums(&stored).into();
        let (encoding, contents) = match stored_length == length {
            true => (Encoding::Raw, Bytes::from(stored)),
            false => (Encoding::Zstd { stored_length }, decompress(&stored, length).ok_or_else(corrupt)?),
        };
        if chunk_id(&contents) != id {
            return Err(corrupt());
        }
        Ok((Location { file, offset: offset.into(), length, encoding, checksums, id }, contents))
    }

    fn file(&self, pack: PackId) -> io::Result<Arc<dyn DiskFile>> {
        let number = self.packs.binary_search(&pack).ok().and_then(|number| u32::try_from(number).ok());
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = number.and_then(|number| open.get(&number)) {
            return Ok(Arc::clone(file));
        }
        let file = self.disk.open(&pack.path())?;
        if let Some(number) = number {
            if open.len() >= OPEN_PACKS {
                open.clear();
            }
            open.insert(number, Arc::clone(&file));
        }
        Ok(file)
    }
}

impl fmt::Debug for FoundChunks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FoundChunks").field("packs", &self.packs.len()).finish_non_exhaustive()
    }
}

impl ChunkStore for FoundChunks {
    fn pin(&self) -> StorePin {
        StorePin::holding(())
    }

    fn keep(&self, id: ChunkId, _pin: &StorePin) -> Result<bool, StoreError> {
        Ok(self.lists(id))
    }

    fn append(&self, _chunks: &[NewChunk], _room: Room, _pin: &StorePin) -> Result<(), StoreError> {
        Err(StoreError::Io { path: String::new(), source: io::ErrorKind::ReadOnlyFilesystem.into() })
    }

    fn locate(&self, id: ChunkId) -> Result<Option<Location>, StoreError> {
        Ok(self.find(id)?.map(|(location, _)| location))
    }

    fn read(&self, location: &Location, from: u32, into: &mut [u8]) -> Result<(), StoreError> {
        let id = location.id;
        let contents = self.get(id)?.ok_or(StoreError::Missing { id })?;
        let part = usize::try_from(from).ok().and_then(|from| contents.get(from..)?.get(..into.len()));
        let part = part.ok_or_else(|| StoreError::Corrupt { id, what: "it ends before".to_owned() })?;
        into.copy_from_slice(part);
        Ok(())
    }

    fn read_now(&self, _location: &Location, _from: u32, _into: &mut [u8]) -> Option<Result<(), StoreError>> {
        None
    }

    fn get(&self, id: ChunkId) -> Result<Option<Bytes>, StoreError> {
        Ok(self.find(id)?.map(|(_, contents)| contents))
    }
}

fn prefix_of(id: ChunkId) -> Prefix {
    let mut prefix = [0; 16];
    prefix.copy_from_slice(&id.as_bytes()[..16]);
    prefix
}

const _: () = assert!(size_of::<Entry>() == 32);
/// With the eighth that a shard has in reserve.
const BYTES_PER_ENTRY: u64 = 36;
/// One for each first byte.
const SHARDS: usize = 256;
/// Packs that are open at once: neighbours in a volume are mostly in few packs.
const OPEN_PACKS: usize = 128;
