//! Which chunks the records of a bucket need: a bit for each frame of each pack, so that what is held is a five-hundredth of what the
//! catalogue takes on the disk.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use sterna_runtime::work::blocking;
use sterna_storage_node::chunk_store::{ChunkKind, ChunkStore};
use sterna_storage_node::map::{self, Node};
use sterna_types::{ChunkId, Root};

use super::Watcher;
use crate::bucket::Bucket;
use crate::catalogue::Catalogue;
use crate::error::BucketError;
use crate::names::PackId;

/// The marks.
#[derive(Debug, Default)]
pub(super) struct Marks {
    packs: HashMap<PackId, Marked>,
    marked: u64,
    missing: u64,
}

/// Those of a pack: of each frame whether it is needed, and as what.
#[derive(Debug, Default)]
struct Marked {
    /// A byte for four frames: 0 for one that is dead, or the number of its kind.
    kinds: Vec<u8>,
}

impl Marks {
    /// Marks all that these roots need.
    pub(super) async fn of(
        bucket: &Arc<Bucket>,
        store: &Arc<dyn ChunkStore>,
        roots: Vec<Root>,
        watcher: Watcher<'_>,
    ) -> Result<Self, BucketError> {
        let mut marks = Self::default();
        // The parts of maps that are marked, and not followed yet. What is found last is followed first, so these are few.
        let mut left: Vec<_> = roots.iter().filter_map(|root| root.top()).map(|id| (id, ChunkKind::Node)).collect();
        left = marks.mark(bucket, left).await?;
        while !left.is_empty() {
            let group = left.split_off(left.len().saturating_sub(AT_ONCE));
            for (id, kind, contents) in read(bucket, store, group).await? {
                let children = map::children(kind, &contents).map_err(|source| BucketError::Kind { id, source })?;
                let of_kind = match kind {
                    ChunkKind::Node => {
                        let node =
                            Node::decode(&contents).map_err(|error| BucketError::Kind { id, source: error.into() })?;
                        map::kind_of_children(&node)
                    }
                    _ => ChunkKind::Data,
                };
                let children = children.into_iter().map(|child| (child, of_kind)).collect();
                left.extend(marks.mark(bucket, children).await?);
            }
            watcher(marks.marked);
        }
        Ok(marks)
    }

    /// Marks these; those of them that were not marked before and lead further.
    async fn mark(
        &mut self,
        bucket: &Bucket,
        chunks: Vec<(ChunkId, ChunkKind)>,
    ) -> Result<Vec<(ChunkId, ChunkKind)>, BucketError> {
        let places = bucket.in_catalogue(move |catalogue: &Catalogue| {
            let place = |(id, kind)| Ok((id, kind, catalogue.places(id)?.first().copied()));
            chunks.into_iter().map(place).collect::<Result<Vec<_>, BucketError>>()
        });
        let mut new = Vec::new();
        for (id, kind, place) in places.await? {
            let Some(place) = place else {
                if kind != ChunkKind::Data {
                    return Err(BucketError::Gone { id });
                }
                self.missing += 1;
                continue;
            };
            if self.packs.entry(place.pack).or_default().mark(place.frame as usize, kind) {
                self.marked += 1;
                if kind != ChunkKind::Data {
                    new.push((id, kind));
                }
            }
        }
        Ok(new)
    }

    /// Chunks that are needed, and in no pack.
    pub(super) fn missing(&self) -> u64 {
        self.missing
    }

    /// How many frames of a pack are needed, and their bytes.
    pub(super) async fn live(&self, bucket: &Bucket, pack: PackId) -> Result<(u64, u64), BucketError> {
        let Some(marked) = self.packs.get(&pack) else { return Ok((0, 0)) };
        let frames = bucket.in_catalogue(move |catalogue| catalogue.frames(pack)).await?.unwrap_or_default();
        let live = frames.iter().enumerate().filter(|(frame, _)| marked.kind(*frame).is_some());
        Ok(live.fold((0, 0), |(frames, bytes), (_, (_, frame_bytes))| (frames + 1, bytes + u64::from(*frame_bytes))))
    }

    /// The chunks of a pack that are needed.
    pub(super) async fn chunks(&self, bucket: &Bucket, pack: PackId) -> Result<Vec<(ChunkId, ChunkKind)>, BucketError> {
        let Some(marked) = self.packs.get(&pack) else { return Ok(Vec::new()) };
        let frames = bucket.in_catalogue(move |catalogue| catalogue.frames(pack)).await?.unwrap_or_default();
        let live = frames.into_iter().enumerate().filter_map(|(frame, (id, _))| Some((id, marked.kind(frame)?)));
        Ok(live.collect())
    }
}

impl Marked {
    /// Whether it was not marked before.
    fn mark(&mut self, frame: usize, kind: ChunkKind) -> bool {
        let (byte, shift) = (frame / 4, frame % 4 * 2);
        if self.kinds.len() <= byte {
            self.kinds.resize(byte + 1, 0);
        }
        let is_new = self.kinds[byte] >> shift & 3 == 0;
        if is_new {
            self.kinds[byte] |= number(kind) << shift;
        }
        is_new
    }

    /// As what it is needed.
    fn kind(&self, frame: usize) -> Option<ChunkKind> {
        let number = self.kinds.get(frame / 4)? >> (frame % 4 * 2) & 3;
        [ChunkKind::Data, ChunkKind::Manifest, ChunkKind::Node].get(usize::from(number).checked_sub(1)?).copied()
    }
}

fn number(kind: ChunkKind) -> u8 {
    match kind {
        ChunkKind::Data => 1,
        ChunkKind::Manifest => 2,
        ChunkKind::Node | ChunkKind::Checkpoint => 3,
    }
}

/// Parts of maps, from this node's store where they are there, and else from the bucket.
async fn read(
    bucket: &Arc<Bucket>,
    store: &Arc<dyn ChunkStore>,
    group: Vec<(ChunkId, ChunkKind)>,
) -> Result<Vec<(ChunkId, ChunkKind, Bytes)>, BucketError> {
    let local = Arc::clone(store);
    let reading = blocking(move || {
        let (mut here, mut absent) = (Vec::new(), Vec::new());
        for (id, kind) in group {
            // What is damaged here may be whole there.
            match local.get(id).ok().flatten() {
                Some(contents) => here.push((id, kind, contents)),
                None => absent.push((id, kind)),
            }
        }
        (here, absent)
    });
    let (mut read, absent) = reading.await.map_err(|_| BucketError::Panicked)?;
    let kinds: HashMap<_, _> = absent.iter().copied().collect();
    let mut arriving = std::pin::pin!(bucket.fetch(absent.into_iter().map(|(id, _)| id).collect()));
    while let Some(arrived) = arriving.next().await {
        read.extend(arrived?.into_iter().filter_map(|(id, contents)| Some((id, *kinds.get(&id)?, contents))));
    }
    Ok(read)
}

/// Parts of maps that are read together: at most some MiB.
const AT_ONCE: usize = 256;
