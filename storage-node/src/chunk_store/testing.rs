//! A pack store in a simulated machine, and small trees of chunks, for this module's tests.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use sterna_types::ChunkId;

use super::collect::{CollectError, CollectOptions, CollectReport, Reference, References};
use super::index::{IndexEntry, MemoryIndex};
use super::pack_store::io_at;
use super::{
    ChunkKind, ChunkStore, DamagedFrame, NewChunk, PackStore, PackStoreOptions, Room, ScrubOptions, ScrubReport,
    ScrubWatcher, StoreError,
};
use crate::disk::SimulatedDisk;
use crate::disk::simulated::CrashMode;
use crate::progress::Progress;

/// A store with the machine that it is in.
pub(super) struct Machine {
    pub(super) disk: SimulatedDisk,
    pub(super) index: Arc<MemoryIndex>,
    pub(super) store: PackStore,
}

/// Little of everything, so that little work meets every bound.
pub(super) const OPTIONS: PackStoreOptions =
    PackStoreOptions { reserve_bytes: 1 << 20, full_pack_bytes: 40_000, open_packs: 4, decompressed_bytes: 20_000 };

/// Compacts whatever has anything dead in it.
pub(super) const EAGER: CollectOptions =
    CollectOptions { dead_percent: 40, small_pack_bytes: 0, compress: true, bytes_per_second: None };

impl Machine {
    pub(super) fn new() -> Self {
        let disk = SimulatedDisk::new();
        let index = Arc::new(MemoryIndex::on(&disk));
        Self::with(disk, index)
    }

    fn with(disk: SimulatedDisk, index: Arc<MemoryIndex>) -> Self {
        Self::with_options(disk, index, OPTIONS)
    }

    pub(super) fn with_options(disk: SimulatedDisk, index: Arc<MemoryIndex>, options: PackStoreOptions) -> Self {
        let store = PackStore::open(Arc::new(disk.clone()), index.clone(), options).expect("a store");
        Self { disk, index, store }
    }

    /// The machine after power was lost.
    pub(super) fn after_crash(&self, seed: u64, mode: CrashMode) -> Self {
        let disk = self.disk.crash_image(seed, mode);
        let index = Arc::new(self.index.crash_image(seed, &disk));
        Self::with(disk, index)
    }

    /// The machine after `kill -9`.
    pub(super) fn after_kill(&self) -> Self {
        let disk = self.disk.after_kill();
        let index = Arc::new(self.index.after_kill(&disk));
        Self::with(disk, index)
    }

    pub(super) fn append(&self, chunks: &[NewChunk]) -> Result<(), StoreError> {
        self.store.append(chunks, Room::BesideReserve, &self.store.pin())
    }

    pub(super) fn collect(&self, roots: &[ChunkId], options: &CollectOptions) -> Result<CollectReport, CollectError> {
        let roots: Vec<_> = roots.iter().map(|id| root(*id)).collect();
        self.store.collect(|| Ok(roots), &references, options, &mut |_| {}, &AtomicBool::new(false))
    }

    /// What a scrub says.
    pub(super) fn scrub(&self) -> Heard {
        let mut heard = Heard::default();
        let scrubbed = self.store.scrub(&ScrubOptions::default(), &mut heard, &AtomicBool::new(false));
        heard.report = scrubbed.expect("a scrub");
        assert!(heard.report.finished && heard.report.damaged == heard.damaged.len() as u64, "{heard:?}");
        heard
    }

    /// Bytes of all packs.
    pub(super) fn pack_bytes(&self) -> u64 {
        let size =
            |pack| self.store.pack_file(pack).and_then(|file| file.size().map_err(io_at("a pack"))).expect("a size");
        self.store.packs().expect("packs").into_iter().map(size).sum()
    }

    /// Asserts that the totals are those of the entries.
    pub(super) fn check_totals(&self) {
        assert_eq!(self.store.totals(), self.store.count().expect("an index that can be read"));
    }

    /// Asserts the store's invariants: whatever the index names can be read, a scrub finds no damage, and it
    /// adds up.
    pub(super) fn check(&self) {
        let mut ids = Vec::new();
        let all = self.store.each_entry(|entries| {
            ids.extend(entries.iter().map(|IndexEntry { frame, .. }| frame.id));
            Ok(true)
        });
        all.expect("an index that can be read");
        for id in ids {
            assert!(self.store.get(id).expect("a chunk that the index names").is_some());
        }
        self.check_totals();
        assert_eq!(self.scrub().damaged, []);
    }

    /// Asserts that all that these chunks reach is here.
    pub(super) fn check_reachable(&self, roots: impl IntoIterator<Item = ChunkId>) {
        for id in reachable(|id| self.store.get(id).expect("a sound chunk"), roots) {
            assert!(self.store.get(id).expect("a sound chunk").is_some(), "{id} is lost");
        }
    }
}

/// What a scrub has said.
#[derive(Debug, Default)]
pub(super) struct Heard {
    pub(super) damaged: Vec<DamagedFrame>,
    pub(super) progress: Vec<Progress>,
    pub(super) report: ScrubReport,
}

impl ScrubWatcher for Heard {
    fn progress(&mut self, progress: Progress) {
        self.progress.push(progress);
    }

    fn damage(&mut self, bad: &DamagedFrame) {
        self.damaged.push(bad.clone());
    }
}

/// Collects eagerly and to the end.
pub(super) fn collected<R>(
    store: &PackStore,
    roots: impl FnOnce() -> Result<R, StoreError>,
    references: References<'_>,
) -> CollectReport
where
    R: IntoIterator<Item = Result<Reference, StoreError>>,
{
    store.collect(roots, references, &EAGER, &mut |_| {}, &AtomicBool::new(false)).expect("a report")
}

/// Blocks that do not compress if the seed is odd.
pub(super) fn data(seed: u64, blocks: usize) -> NewChunk {
    let mut bytes = vec![u8::try_from(seed % 251).expect("small"); blocks * 4096];
    if !seed.is_multiple_of(2) {
        blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    }
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    NewChunk::of(ChunkKind::Data, bytes.into())
}

/// A piece of the map that refers to these.
pub(super) fn parent(kind: ChunkKind, children: &[ChunkId]) -> NewChunk {
    NewChunk::of(kind, children.iter().flat_map(|id| *id.as_bytes()).collect::<Vec<u8>>().into())
}

/// A root for a collection.
pub(super) fn root(id: ChunkId) -> Result<Reference, StoreError> {
    Ok(Reference { kind: ChunkKind::Node, id })
}

/// What [`parent`]s refer to.
pub(super) fn references(kind: ChunkKind, bytes: &[u8]) -> Result<Vec<Reference>, String> {
    let (ids, rest) = bytes.as_chunks::<32>();
    let below = if kind == ChunkKind::Manifest { ChunkKind::Data } else { ChunkKind::Manifest };
    let referred = ids.iter().map(|id| Reference { kind: below, id: ChunkId::from_bytes(*id) });
    if rest.is_empty() { Ok(referred.collect()) } else { Err("odd".to_owned()) }
}

/// A root over one manifest for each of these lists of seeds, each over data; the root is the last of the chunks.
pub(super) fn tree(manifests: &[&[u64]]) -> Vec<NewChunk> {
    let (mut chunks, mut top) = (Vec::new(), Vec::new());
    for seeds in manifests {
        let blocks: Vec<NewChunk> = seeds.iter().map(|seed| data(*seed, 1 + usize::from(*seed % 3 == 0))).collect();
        let ids: Vec<ChunkId> = blocks.iter().map(|chunk| chunk.id).collect();
        chunks.extend(blocks);
        let manifest = parent(ChunkKind::Manifest, &ids);
        top.push(manifest.id);
        chunks.push(manifest);
    }
    chunks.push(parent(ChunkKind::Node, &top));
    chunks
}

pub(super) fn root_of(chunks: &[NewChunk]) -> ChunkId {
    chunks.last().expect("a root").id
}

/// Everything that roots reach; data is what has whole blocks.
pub(super) fn reachable(
    get: impl Fn(ChunkId) -> Option<Bytes>,
    roots: impl IntoIterator<Item = ChunkId>,
) -> Vec<ChunkId> {
    let mut open: Vec<ChunkId> = roots.into_iter().collect();
    let mut seen = BTreeMap::new();
    while let Some(id) = open.pop() {
        if seen.contains_key(&id) {
            continue;
        }
        let bytes = get(id);
        seen.insert(id, ());
        match bytes {
            Some(bytes) if bytes.len() % 4096 != 0 => {
                open.extend(references(ChunkKind::Node, &bytes).expect("ids").into_iter().map(|child| child.id));
            }
            _ => (),
        }
    }
    seen.into_keys().collect()
}
