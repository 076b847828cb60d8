//! What this node knows of the packs of a bucket: which chunk is where. A cache in a database on its disk, so that neither memory nor a
//! start depends on how much is in the bucket. Whatever is lost of it, or is wrong with it, the bucket gives again: a database that cannot be
//! opened, or is of another bucket, is made anew.
//!
//! | column | key | value |
//! |---|---|---|
//! | default | `bucket` | the id in the bucket's terms |
//! | `chunks` | id of a chunk, 32 bytes; pack, 16 bytes | number of the frame, where it begins, and its bytes: u32 each, little-endian |
//! | `packs` | pack, 16 bytes | for each frame the chunk's id and the frame's bytes (u32) |
//!
//! A chunk may be in several packs: two nodes may have sent it at the same time, or a collection has copied it.

use std::collections::HashSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, Direction, IteratorMode, Options, ReadOptions,
    WriteBatch,
};
use sterna_types::ChunkId;

use crate::error::BucketError;
use crate::names::PackId;
use crate::pack::Entry;

/// What is known of the packs.
pub(crate) struct Catalogue {
    database: DB,
    path: PathBuf,
    /// The packs that nothing needs, and that are going to go.
    doomed: RwLock<HashSet<PackId>>,
}

impl fmt::Debug for Catalogue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Catalogue").field("path", &self.path).finish()
    }
}

/// Where a chunk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// In which pack.
    pub(crate) pack: PackId,
    /// Where the frame begins.
    pub(crate) offset: u32,
    /// Bytes of the frame.
    pub(crate) bytes: u32,
    /// The number of the frame in the pack.
    pub(crate) frame: u32,
}

/// The chunks of a pack in their order, each with the bytes of its frame.
pub(crate) type Frames = Vec<(ChunkId, u32)>;

impl Catalogue {
    /// Opens it for the bucket of this id. Blocks.
    pub(crate) fn open(path: &Path, bucket: &str) -> Result<Self, BucketError> {
        let opened = Self::open_database(path).ok().filter(|catalogue| catalogue.is_of(bucket));
        if let Some(catalogue) = opened {
            return Ok(catalogue);
        }
        let failed = |what: String| BucketError::Catalogue { path: path.display().to_string(), what };
        match std::fs::remove_dir_all(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error.to_string())),
            _ => {}
        }
        let catalogue = Self::open_database(path).map_err(|error| failed(error.to_string()))?;
        catalogue.database.put(BUCKET, bucket).map_err(|error| failed(error.to_string()))?;
        Ok(catalogue)
    }

    fn open_database(path: &Path) -> Result<Self, rocksdb::Error> {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options.set_max_open_files(MAX_FILES);
        options.set_keep_log_file_num(2);
        let cache = Cache::new_lru_cache(CACHE_BYTES);
        let family = |name: &str| {
            let mut table = BlockBasedOptions::default();
            table.set_block_cache(&cache);
            table.set_bloom_filter(10.0, false);
            table.set_cache_index_and_filter_blocks(true);
            let mut options = Options::default();
            options.set_block_based_table_factory(&table);
            options.set_write_buffer_size(WRITE_BUFFER_BYTES);
            if name == CHUNKS {
                // Lookups are for a chunk, wherever it is.
                options.set_prefix_extractor(rocksdb::SliceTransform::create_fixed_prefix(ID_BYTES));
                options.set_memtable_prefix_bloom_ratio(0.1);
            }
            ColumnFamilyDescriptor::new(name, options)
        };
        let database = DB::open_cf_descriptors(&options, path, [family(DEFAULT), family(CHUNKS), family(PACKS)])?;
        Ok(Self { database, path: path.to_owned(), doomed: RwLock::default() })
    }

    fn is_of(&self, bucket: &str) -> bool {
        self.database.get(BUCKET).is_ok_and(|found| found.as_deref() == Some(bucket.as_bytes()))
    }

    fn family(&self, name: &'static str) -> Result<&ColumnFamily, BucketError> {
        self.database.cf_handle(name).ok_or_else(|| self.failed(format!("it has no column '{name}'")))
    }

    fn failed(&self, what: impl ToString) -> BucketError {
        BucketError::Catalogue { path: self.path.display().to_string(), what: what.to_string() }
    }

    /// Notes a pack that is in the bucket. Not durable: what is lost is learnt again.
    pub(crate) fn add(&self, pack: PackId, entries: &[Entry]) -> Result<(), BucketError> {
        let (chunks, packs) = (self.family(CHUNKS)?, self.family(PACKS)?);
        let (mut batch, mut frames) = (WriteBatch::default(), Vec::with_capacity(entries.len() * FRAME_BYTES));
        for (frame, entry) in (0_u32..).zip(entries) {
            let value = [frame, entry.offset, entry.frame_bytes()].map(u32::to_le_bytes).concat();
            batch.put_cf(chunks, key(entry.id, pack), value);
            frames.extend_from_slice(entry.id.as_bytes());
            frames.extend_from_slice(&entry.frame_bytes().to_le_bytes());
        }
        batch.put_cf(packs, pack.as_bytes(), frames);
        self.database.write(batch).map_err(|error| self.failed(error))
    }

    /// Forgets a pack that is gone.
    pub(crate) fn remove(&self, pack: PackId) -> Result<(), BucketError> {
        let Some(frames) = self.frames(pack)? else { return Ok(()) };
        let (chunks, packs) = (self.family(CHUNKS)?, self.family(PACKS)?);
        let mut batch = WriteBatch::default();
        frames.iter().for_each(|(id, _)| batch.delete_cf(chunks, key(*id, pack)));
        batch.delete_cf(packs, pack.as_bytes());
        self.database.write(batch).map_err(|error| self.failed(error))
    }

    /// What is in a pack; `None` for one that is not known.
    pub(crate) fn frames(&self, pack: PackId) -> Result<Option<Frames>, BucketError> {
        let found = self.database.get_cf(self.family(PACKS)?, pack.as_bytes()).map_err(|error| self.failed(error))?;
        found
            .map(|value| parse_frames(&value).ok_or_else(|| self.failed(format!("pack {pack} cannot be read"))))
            .transpose()
    }

    /// The packs that are known.
    pub(crate) fn packs(&self) -> Result<HashSet<PackId>, BucketError> {
        let mut found = HashSet::new();
        for item in self.database.iterator_cf(self.family(PACKS)?, IteratorMode::Start) {
            let (key, _) = item.map_err(|error| self.failed(error))?;
            found.extend(<[u8; PackId::BYTES]>::try_from(&key[..]).map(PackId::from_bytes));
        }
        Ok(found)
    }

    /// Notes which packs are going to go.
    pub(crate) fn set_doomed(&self, doomed: HashSet<PackId>) {
        *self.doomed.write().unwrap_or_else(PoisonError::into_inner) = doomed;
    }

    /// Notes whether one pack is going to go.
    pub(crate) fn doom(&self, pack: PackId, is_doomed: bool) {
        let mut doomed = self.doomed.write().unwrap_or_else(PoisonError::into_inner);
        let _ = if is_doomed { doomed.insert(pack) } else { doomed.remove(&pack) };
    }

    fn is_doomed(&self, pack: PackId) -> bool {
        self.doomed.read().unwrap_or_else(PoisonError::into_inner).contains(&pack)
    }

    /// Where a chunk is: first the packs that stay, in the order of their names, then those that are going to go.
    pub(crate) fn places(&self, id: ChunkId) -> Result<Vec<Place>, BucketError> {
        let mut options = ReadOptions::default();
        options.set_prefix_same_as_start(true);
        let mode = IteratorMode::From(id.as_bytes(), Direction::Forward);
        let mut places = Vec::new();
        for item in self.database.iterator_cf_opt(self.family(CHUNKS)?, options, mode) {
            let (key, value) = item.map_err(|error| self.failed(error))?;
            if !key.starts_with(id.as_bytes()) {
                break;
            }
            places.push(parse_place(&key, &value).ok_or_else(|| self.failed(format!("chunk {id} cannot be read")))?);
        }
        places.sort_by_key(|place| (self.is_doomed(place.pack), place.pack));
        Ok(places)
    }

    /// Whether a chunk is in a pack that stays.
    pub(crate) fn holds(&self, id: ChunkId) -> Result<bool, BucketError> {
        Ok(self.places(id)?.first().is_some_and(|place| !self.is_doomed(place.pack)))
    }
}

fn key(id: ChunkId, pack: PackId) -> [u8; ID_BYTES + PackId::BYTES] {
    let mut key = [0; ID_BYTES + PackId::BYTES];
    key[..ID_BYTES].copy_from_slice(id.as_bytes());
    key[ID_BYTES..].copy_from_slice(pack.as_bytes());
    key
}

fn parse_place(key: &[u8], value: &[u8]) -> Option<Place> {
    let pack = PackId::from_bytes(key.get(ID_BYTES..)?.try_into().ok()?);
    let number = |at: usize| value.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes);
    Some(Place { pack, frame: number(0)?, offset: number(4)?, bytes: number(8)? })
}

fn parse_frames(value: &[u8]) -> Option<Frames> {
    let frame = |bytes: &[u8]| {
        let id = ChunkId::from_bytes(bytes.get(..ID_BYTES)?.try_into().ok()?);
        Some((id, u32::from_le_bytes(bytes.get(ID_BYTES..)?.try_into().ok()?)))
    };
    value.chunks(FRAME_BYTES).map(frame).collect()
}

const BUCKET: &str = "bucket";
const DEFAULT: &str = "default";
const CHUNKS: &str = "chunks";
const PACKS: &str = "packs";
const ID_BYTES: usize = 32;
const FRAME_BYTES: usize = ID_BYTES + 4;
/// The filters and indexes of 100 GiB of disks, and what was looked up last.
const CACHE_BYTES: usize = 32 << 20;
const WRITE_BUFFER_BYTES: usize = 8 << 20;
const MAX_FILES: i32 = 128;

#[cfg(test)]
mod tests {
    use sterna_storage_node::chunk_store::{ChunkKind, chunk_id};

    use super::*;
    use crate::pack::{PackWriter, TARGET_BYTES};

    fn entries(contents: &[&str]) -> Vec<Entry> {
        let mut writer = PackWriter::new(TARGET_BYTES);
        contents.iter().for_each(|text| writer.add(chunk_id(text.as_bytes()), ChunkKind::Node, text.as_bytes()));
        writer.finish().1
    }

    fn id(text: &str) -> ChunkId {
        chunk_id(text.as_bytes())
    }

    #[test]
    fn chunks_are_found_as_long_as_a_pack_has_them() {
        let directory = tempfile::tempdir().expect("a directory");
        let catalogue = Catalogue::open(directory.path(), "one").expect("a catalogue");
        let [first, second] = [[1; 16], [2; 16]].map(PackId::from_bytes);
        catalogue.add(first, &entries(&["a", "b"])).expect("noted");
        catalogue.add(second, &entries(&["b", "c"])).expect("noted");
        assert_eq!(catalogue.packs().expect("packs"), HashSet::from([first, second]));
        let packs = |text| catalogue.places(id(text)).expect("places").iter().map(|at| at.pack).collect::<Vec<_>>();
        assert_eq!(
            (packs("a"), packs("b"), packs("c"), packs("d")),
            (vec![first], vec![first, second], vec![second], vec![])
        );
        catalogue.set_doomed(HashSet::from([first]));
        assert_eq!(packs("b"), [second, first], "what stays is preferred");
        let holds = |text| catalogue.holds(id(text)).expect("an answer");
        assert!(!holds("a") && holds("b") && holds("c"));
        catalogue.remove(first).expect("removed");
        assert_eq!((packs("a"), packs("b")), (vec![], vec![second]));
        assert_eq!(catalogue.frames(first).expect("an answer"), None);
        let frames = catalogue.frames(second).expect("an answer").expect("a pack");
        assert_eq!(frames.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [id("b"), id("c")]);
    }

    #[test]
    fn what_is_of_another_bucket_or_damaged_is_made_anew() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("db");
        let pack = PackId::from_bytes([1; 16]);
        let opened = |bucket| Catalogue::open(&path, bucket).expect("a catalogue");
        opened("one").add(pack, &entries(&["a"])).expect("noted");
        assert!(opened("one").holds(id("a")).expect("an answer"), "it stays");
        assert!(!opened("other").holds(id("a")).expect("an answer"));
        opened("other").add(pack, &entries(&["a"])).expect("noted");
        std::fs::write(path.join("CURRENT"), "nonsense").expect("damaged");
        assert!(!opened("other").holds(id("a")).expect("an answer"));
    }
}
