//! A bucket in memory, a node's store in memory, and what is put into both.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use sterna_storage_node::chunk_store::{ChunkKind, ChunkStore, MemoryChunkStore, NewChunk};
use sterna_storage_node::chunk_writer::ChunkWriter;
use sterna_storage_node::map::{self, Change, Extent, Manifest, NodeCache};
use sterna_types::{ByteSize, ClusterId, Epoch, Root, SegmentIndex, VolumeId, VolumeSize};
use tempfile::TempDir;

use crate::bucket::{Bucket, Options};
use crate::record::VolumeRecord;

/// A bucket, and directories for those who use it.
pub(crate) struct Fixture {
    pub(crate) objects: Arc<InMemory>,
    directory: TempDir,
    opened: std::sync::atomic::AtomicUsize,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        Self { objects: Arc::new(InMemory::new()), directory, opened: Default::default() }
    }

    /// As a node that knows nothing of it.
    pub(crate) async fn open(&self) -> Arc<Bucket> {
        self.open_with(Duration::from_secs(3600)).await
    }

    pub(crate) async fn open_with(&self, grace: Duration) -> Arc<Bucket> {
        let number = self.opened.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let catalogue = self.directory.path().join(number.to_string());
        let store: Arc<dyn ObjectStore> = Arc::clone(&self.objects) as _;
        let options = Options { catalogue, rate: None, grace };
        let mut bucket = Bucket::open(store, "of/tests", options).await.expect("a bucket");
        // Several packs of little data.
        bucket.target_bytes = 16 << 10;
        Arc::new(bucket)
    }

    /// An object below the prefix.
    pub(crate) async fn put(&self, name: &str, contents: &[u8]) {
        let path = Path::from(format!("of/tests/{name}"));
        self.objects.put(&path, contents.to_vec().into()).await.expect("written");
    }

    /// The names of all objects that begin with these parts, without the prefix.
    pub(crate) async fn names(&self, parts: &str) -> Vec<String> {
        let path = Path::from(format!("of/tests/{parts}"));
        let listed = self.objects.list(Some(&path));
        let name = |meta: object_store::Result<object_store::ObjectMeta>| {
            meta.expect("a list").location.as_ref()["of/tests/".len()..].to_owned()
        };
        let mut names: Vec<_> = listed.map(name).collect().await;
        names.sort();
        names
    }

    /// Changes a bit in the middle of an object.
    pub(crate) async fn damage(&self, name: &str, at: usize) {
        let path = Path::from(format!("of/tests/{name}"));
        let mut bytes = self.objects.get(&path).await.expect("it is there").bytes().await.expect("read").to_vec();
        bytes[at] ^= 16;
        self.objects.put(&path, bytes.into()).await.expect("written");
    }
}

/// Contents: of each segment some blocks, which are told apart by a number.
pub(crate) fn contents(store: &Arc<MemoryChunkStore>, old: Root, segments: &[(u64, &[u16])]) -> Root {
    let nodes = NodeCache::new(0);
    let mut writer = ChunkWriter::new(store.clone());
    let mut changes = Vec::new();
    for (segment, blocks) in segments {
        let mut extents = Vec::new();
        for (at, number) in (0..).zip(*blocks) {
            let chunk = block(*number);
            extents.push(Extent { first_block: at, block_count: 1, chunk: chunk.id, first_in_chunk: 0 });
            writer.put(chunk).expect("stored");
        }
        let manifest = Manifest::from_extents(extents).expect("a manifest").encode().expect("extents");
        let manifest = NewChunk::of(ChunkKind::Manifest, manifest);
        changes.push(Change::Set(SegmentIndex(*segment), manifest.id));
        writer.put(manifest).expect("stored");
    }
    let root = map::update(&nodes, &mut writer, old, &changes).expect("a root");
    drop(writer.finish().expect("stored"));
    root
}

/// A block that does not compress to nothing.
pub(crate) fn block(number: u16) -> NewChunk {
    let mut state = u64::from(number) + 1;
    let mut word = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 32) as u32
    };
    let bytes: Vec<u8> = (0..1024).flat_map(|_| word().to_le_bytes()).collect();
    NewChunk::of(ChunkKind::Data, bytes.into())
}

/// A record of volume 7 with these contents.
pub(crate) fn record(name: &str, root: Root, generation: u64) -> VolumeRecord {
    VolumeRecord {
        cluster: ClusterId::from_bytes([5; 16]),
        volume: VolumeId(7),
        name: name.parse().expect("a name"),
        size: VolumeSize::try_from(ByteSize(1 << 40)).expect("a size"),
        format: 1,
        durability: "local".to_owned(),
        attach: "manual".to_owned(),
        epoch: Epoch::FIRST,
        root,
        generation,
        written_blocks: generation,
        published_ms: Some(1),
        node: "ams-1".parse().expect("a name"),
        site: "ams".parse().expect("a site"),
        snapshots: BTreeMap::new(),
    }
}

/// Whether all of a root is in a bucket, as somebody finds it who has nothing else.
pub(crate) async fn is_complete(bucket: &Arc<Bucket>, root: Root) -> bool {
    let store = Arc::new(MemoryChunkStore::new());
    fetch_all(bucket, root, &store).await.is_ok()
}

/// Fetches all of a root into a store.
pub(crate) async fn fetch_all(
    bucket: &Arc<Bucket>,
    root: Root,
    store: &Arc<MemoryChunkStore>,
) -> Result<(), crate::BucketError> {
    bucket.look(Duration::ZERO).await?;
    let store: Arc<dyn ChunkStore> = Arc::clone(store) as _;
    let mut gaps = sterna_storage_node::gaps::Gaps::new(Arc::clone(&store), Root::EMPTY, root);
    while let Some(group) = gaps.next(&store.pin())? {
        let ids = group.iter().map(|gap| gap.wanted.id).collect();
        let mut arriving = std::pin::pin!(bucket.fetch(ids));
        while let Some(arrived) = arriving.next().await {
            let wanted = |id| group.iter().find(|gap| gap.wanted.id == id).expect("it was asked for").wanted;
            let chunks = arrived?.into_iter().map(|(id, bytes)| (wanted(id), bytes)).collect();
            sterna_storage_node::gaps::store_fetched(&store, &store.pin(), chunks).expect("stored");
        }
    }
    Ok(())
}
