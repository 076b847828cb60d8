//! What no record needs goes from a bucket.
//!
//! 1. A look, and all records. *One that cannot be read ends it: nobody knows what it needs.*
//! 2. All chunks that the records need are marked, each in one pack (`marks`).
//! 3. Packs without a mark are doomed, but for young ones: the record that needs them may take days to come. Doomed ones with a mark are so no more: somebody has relied on them.
//! 4. Packs that are mostly dead, and small ones, are copied together: what lives of them is in a new pack before they are doomed.
//! 5. Packs that were doomed a grace period ago, and still have no mark, are deleted; then what has doomed them. *A crash leaves a doom
//!    without a pack, which the next collection takes.*
//!
//! So nothing goes that anybody relies on ([`bucket`](crate::bucket)), also where several nodes collect at the same time: where a chunk is in
//! several packs, all mark it in the one that stays and has the least name, and none that is needed is deleted, because a chunk that is only
//! in doomed packs is marked there.

mod marks;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use sterna_storage_node::chunk_store::ChunkStore;
use sterna_types::ChunkId;

use crate::bucket::Bucket;
use crate::error::BucketError;
use crate::names::{CLOCK, DOOMED, PACKS, PackId};
use crate::pack::{PackWriter, TARGET_BYTES};
use crate::upload::send_pack;
use marks::Marks;

/// What a collection has come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Packs that stay, and their bytes.
    pub kept_packs: u64,
    /// Bytes of these.
    pub kept_bytes: u64,
    /// Packs that go when a grace period has passed.
    pub doomed_packs: u64,
    /// Bytes of these.
    pub doomed_bytes: u64,
    /// Packs that are gone.
    pub deleted_packs: u64,
    /// Bytes of these.
    pub deleted_bytes: u64,
    /// Packs whose living chunks were copied to others.
    pub copied_packs: u64,
    /// Chunks that records need, and no pack has.
    pub missing_chunks: u64,
}

/// How far a collection has come: chunks that were marked.
pub type Watcher<'a> = &'a mut (dyn FnMut(u64) + Send);

/// A pack as it is listed.
#[derive(Clone, Copy, Debug)]
struct Pack {
    id: PackId,
    bytes: u64,
    /// How long ago it was written.
    age: Duration,
    /// How long ago it was doomed.
    doomed: Option<Duration>,
    live_frames: u64,
    live_bytes: u64,
}

/// Collects once. Parts of maps are read from `store`, this node's, where they are there.
///
/// # Errors
/// [`BucketError`]; nothing that is needed has gone.
///
/// # Cancel safety
/// May be dropped at any time, as after an error.
pub async fn collect(
    bucket: &Arc<Bucket>,
    store: &Arc<dyn ChunkStore>,
    watcher: Watcher<'_>,
) -> Result<Collected, BucketError> {
    let look = bucket.look(Duration::ZERO).await?;
    let mut roots = Vec::new();
    for key in &look.records {
        match bucket.record(key).await {
            Ok(record) => roots.extend(record.roots()),
            // A newer one has taken its place since, and this look has not seen that: what both need is in the older as well.
            Err(BucketError::NotFound { .. }) => return Err(BucketError::TooLate),
            Err(error) => return Err(error),
        }
    }
    let marks = Marks::of(bucket, store, roots, watcher).await?;
    let mut collected = Collected { missing_chunks: marks.missing(), ..Collected::default() };
    let packs = list(bucket, &marks).await?;
    let (grace, young) = (bucket.grace(), bucket.grace() * YOUNG);
    let mut cramped = Vec::new();
    for pack in &packs {
        match (pack.live_frames, pack.doomed) {
            (0, Some(doomed)) if doomed > grace => {
                delete(bucket, pack.id).await?;
                collected.deleted_packs += 1;
                collected.deleted_bytes += pack.bytes;
                continue;
            }
            (0, None) if pack.age > young => doom(bucket, pack.id).await?,
            (0, _) => {}
            (_, Some(_)) => spare(bucket, pack.id).await?,
            (_, None) if pack.age > young && pack.is_cramped() => {
                cramped.push(*pack);
                continue;
            }
            (_, None) => {}
        }
        if pack.live_frames == 0 && (pack.doomed.is_some() || pack.age > young) {
            collected.doomed_packs += 1;
            collected.doomed_bytes += pack.bytes;
        } else {
            collected.kept_packs += 1;
            collected.kept_bytes += pack.bytes;
        }
    }
    copy(bucket, &marks, cramped, &mut collected).await?;
    bucket.forget_look().await;
    Ok(collected)
}

impl Pack {
    /// Whether most of it is dead, or it is so small that it is better part of another one.
    fn is_cramped(&self) -> bool {
        self.live_bytes < self.bytes / 2 || self.bytes < SMALL_BYTES
    }
}

/// The packs, by the server's clock. What has doomed a pack that is gone goes too.
async fn list(bucket: &Bucket, marks: &Marks) -> Result<Vec<Pack>, BucketError> {
    bucket.objects.put(CLOCK, bytes::Bytes::from_static(b"sterna\n")).await?;
    let now = bucket.objects.modified_ms(CLOCK).await?;
    let age = |then: u64| Duration::from_millis(now.saturating_sub(then));
    let last = |name: &str| name.rsplit('/').next().and_then(|name| name.parse::<PackId>().ok());
    let doomed = bucket.objects.list(DOOMED).await?;
    let mut doomed: HashMap<PackId, Duration> =
        doomed.iter().filter_map(|doom| Some((last(&doom.name)?, age(doom.modified_ms)))).collect();
    let mut packs = Vec::new();
    for listed in bucket.objects.list(PACKS).await? {
        let Some(id) = last(&listed.name) else { continue };
        let (live_frames, live_bytes) = marks.live(bucket, id).await?;
        let (bytes, age) = (listed.bytes, age(listed.modified_ms));
        packs.push(Pack { id, bytes, age, doomed: doomed.remove(&id), live_frames, live_bytes });
    }
    for pack in doomed.into_keys() {
        bucket.objects.delete(&pack.doom()).await?;
    }
    packs.sort_by_key(|pack| pack.id);
    Ok(packs)
}

async fn doom(bucket: &Bucket, pack: PackId) -> Result<(), BucketError> {
    bucket.objects.put(&pack.doom(), bytes::Bytes::from_static(b"nothing needs this pack\n")).await?;
    bucket.catalogue.doom(pack, true);
    Ok(())
}

async fn spare(bucket: &Bucket, pack: PackId) -> Result<(), BucketError> {
    bucket.objects.delete(&pack.doom()).await?;
    bucket.catalogue.doom(pack, false);
    Ok(())
}

async fn delete(bucket: &Bucket, pack: PackId) -> Result<(), BucketError> {
    bucket.objects.delete(&pack.object()).await?;
    bucket.in_catalogue(move |catalogue| catalogue.remove(pack)).await?;
    spare(bucket, pack).await
}

/// Step 4. A pack of which something is damaged stays as it is.
async fn copy(
    bucket: &Arc<Bucket>,
    marks: &Marks,
    cramped: Vec<Pack>,
    collected: &mut Collected,
) -> Result<(), BucketError> {
    let is_worth_it = cramped.len() > 1 || cramped.iter().any(|pack| pack.live_bytes < pack.bytes / 2);
    let (mut writer, mut copied) = (PackWriter::new(TARGET_BYTES), Vec::new());
    for pack in cramped {
        if !writer.has_room_for(pack.live_frames, pack.live_bytes) {
            replace(bucket, std::mem::replace(&mut writer, PackWriter::new(TARGET_BYTES)), &mut copied, collected)
                .await?;
        }
        let chunks = if is_worth_it { living(bucket, marks, pack.id).await } else { Ok(None) };
        match chunks {
            Ok(Some(chunks)) => {
                for (id, kind, contents) in chunks {
                    writer.add(id, kind, &contents);
                }
                copied.push(pack);
            }
            kept => {
                if let Err(error) = kept {
                    tracing::warn!(%error, "a pack of the bucket stays as it is");
                }
                collected.kept_packs += 1;
                collected.kept_bytes += pack.bytes;
            }
        }
    }
    replace(bucket, writer, &mut copied, collected).await
}

type Living = Vec<(ChunkId, sterna_storage_node::chunk_store::ChunkKind, bytes::Bytes)>;

/// The marked chunks of a pack, verified; `None` where they have no kind, because nothing is known of the pack.
async fn living(bucket: &Arc<Bucket>, marks: &Marks, pack: PackId) -> Result<Option<Living>, BucketError> {
    let live = marks.chunks(bucket, pack).await?;
    let kinds: HashMap<_, _> = live.iter().copied().collect();
    let mut living = Vec::with_capacity(live.len());
    let mut arriving = std::pin::pin!(bucket.fetch(live.into_iter().map(|(id, _)| id).collect()));
    while let Some(arrived) = arriving.next().await {
        living.extend(arrived?.into_iter().filter_map(|(id, contents)| Some((id, *kinds.get(&id)?, contents))));
    }
    Ok((!living.is_empty()).then_some(living))
}

/// Sends a pack that takes the place of others, and dooms these.
async fn replace(
    bucket: &Arc<Bucket>,
    writer: PackWriter,
    copied: &mut Vec<Pack>,
    collected: &mut Collected,
) -> Result<(), BucketError> {
    if writer.is_empty() {
        return Ok(());
    }
    let (contents, entries) = writer.finish();
    collected.kept_packs += 1;
    collected.kept_bytes += contents.len() as u64;
    send_pack(bucket, contents, entries).await?;
    for pack in copied.drain(..) {
        doom(bucket, pack.id).await?;
        collected.copied_packs += 1;
        collected.doomed_packs += 1;
        collected.doomed_bytes += pack.bytes;
    }
    Ok(())
}

/// Below this a pack is copied together with others.
const SMALL_BYTES: u64 = (TARGET_BYTES / 4) as u64;
/// Of so many grace periods a pack is young: a volume whose first record takes longer to come than this, less what it takes to be
/// doomed and deleted, may have to send something twice.
const YOUNG: u32 = 4;
