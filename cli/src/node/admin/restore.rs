//! RestoreVolume: a volume made again from the bucket alone.
//!
//! The steps, and what is there after a crash behind each of them:
//! 1. The metadata learns of the volume, as one that is being imported. *Nobody can use it. The same command goes on with it, and it can
//!    be deleted.*
//! 2. All that its contents and its snapshots need is fetched, verified and stored. *The same; what has come is found, and not
//!    fetched again.*
//! 3. The metadata learns of the root: the volume is complete. *It is, without its snapshots; the same command makes them.*
//! 4. The metadata learns of the snapshots. *They are there.*
//!
//! A restoration that fails or is stopped before step 3 takes the volume back; what it has fetched stays until the next garbage collection.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use sterna_bucket::{Bucket, BucketError, VolumeRecord};
use sterna_consensus::state::command::{Command, NewSnapshot, NewVolume, Origin};
use sterna_consensus::state::policy::Durability;
use sterna_consensus::state::volume::{Generation, UnixTime, Volume as VolumeEntry, VolumeFormat, VolumeState};
use sterna_proto::admin::restore_volume_reply::Step;
use sterna_proto::admin::{Progress, RestoreResult, RestoreVolumeReply, RestoreVolumeRequest};
use sterna_storage_node::chunk_store::{ChunkStore, StorePin};
use sterna_storage_node::gaps::{Gap, Gaps, Wanted, store_fetched};
use sterna_storage_node::map::MapError;
use sterna_types::{ChunkId, Root, VolumeName};
use tonic::{Code, Response, Status};

use super::bucket::{chosen, failed, opened};
use super::create::{blank, shown};
use super::import::{announced, take_back};
use super::lookup::{metadata, spec, subject};
use super::request::{attach, can_keep, parsed};
use super::status::IntoStatus;
use super::work::{Replies, Reporter, blocking, long_work, upkeep};
use crate::node::node::Node;

/// Restores a volume.
pub(super) fn restore(node: &Arc<Node>, request: RestoreVolumeRequest) -> Response<Replies<RestoreVolumeReply>> {
    let own = Arc::clone(node);
    long_work(node, move |reporter| async move {
        let name: VolumeName = parsed(&request.name)?;
        let new_name = if request.new_name.is_empty() { name.clone() } else { parsed(&request.new_name)? };
        let bucket = opened(&own).await?;
        let record = chosen(&own, &bucket, &name, &request.key).await?;
        let _turn = own.imports.begin(&new_name).ok_or_else(|| {
            Status::failed_precondition(format!("volume '{new_name}' is being made already: wait for that"))
        })?;
        let entry = begun(&own, &record, new_name).await?;
        let gone = reporter.gone();
        let filling = fill(&own, &bucket, &record, &entry, reporter);
        let filled = tokio::select! {
            filled = filling => filled,
            () = gone => Err(stopped()),
            () = own.stopping.cancelled() => Err(stopped()),
        };
        if filled.as_ref().is_err_and(|status| status.code() != Code::Unknown) {
            take_back(&own, &entry).await;
        }
        filled
    })
}

/// Step 1: the volume that is to be filled. One that this has made before is gone on with.
async fn begun(node: &Arc<Node>, record: &VolumeRecord, name: VolumeName) -> Result<Arc<VolumeEntry>, Status> {
    // What this cluster cannot keep would have every flush wait for ever.
    let durability: Durability = parsed(&record.durability)?;
    let durability = can_keep(&node.metadata.read(), durability).map_or(Durability::Local, |()| durability);
    let new = NewVolume {
        durability,
        attach: attach(&record.attach)?,
        format: VolumeFormat(record.format),
        origin: Origin::Import,
        ..blank(node, name.clone(), record.size)
    };
    if let Some(known) = metadata(node).await?.volume_named(&name).filter(|known| known.state == VolumeState::Ready) {
        let is_same = known.owner == node.metadata.id()
            && known.published.root == record.root
            && known.published.generation == generation_of(record);
        let lacks = record.snapshots.keys().any(|snapshot| !known.snapshots.contains(snapshot));
        if is_same && lacks {
            return Ok(Arc::clone(known));
        }
        return Err(Status::already_exists(format!(
            "there is a volume '{name}' already: give the new one another name with --as"
        )));
    }
    let entry = announced(node, new).await?;
    // Whether this program knows how it is cut is told by what it would be opened with.
    let ready = VolumeEntry { state: VolumeState::Ready, ..(*entry).clone() };
    if let Err(status) = spec(&ready) {
        take_back(node, &entry).await;
        return Err(status);
    }
    Ok(entry)
}

/// Steps 2 to 4.
async fn fill(
    node: &Arc<Node>,
    bucket: &Arc<Bucket>,
    record: &VolumeRecord,
    entry: &VolumeEntry,
    reporter: Reporter<RestoreVolumeReply>,
) -> Result<RestoreVolumeReply, Status> {
    // From the first chunk to the record of the root: no collection begins meanwhile, and none is waited for.
    let _in_transit = node.in_transit.read().await;
    let store: Arc<dyn ChunkStore> = Arc::clone(&node.engine.store) as _;
    let pinned = Arc::clone(&store);
    let pin = blocking(move || pinned.pin()).await?;
    let mut filling = Filling { node, bucket, store, pin: Some(pin), fetched_bytes: 0, reporter };
    filling.root(Root::EMPTY, record.root).await?;
    for snapshot in record.snapshots.values() {
        filling.root(record.root, snapshot.root).await?;
    }
    let name = &entry.name;
    if entry.state == VolumeState::Importing {
        let (volume, epoch, generation) = (entry.id, entry.epoch, generation_of(record));
        let finish = Command::FinishImport { volume, epoch, root: record.root, generation };
        node.metadata.propose(finish).await.map_err(|error| error.about(&subject(name)))?;
    }
    let mut snapshots = Vec::new();
    for (snapshot, kept) in record.snapshots.iter().filter(|(snapshot, _)| !entry.snapshots.contains(snapshot)) {
        let new = NewSnapshot {
            volume: entry.id,
            epoch: entry.epoch,
            name: snapshot.clone(),
            root: kept.root,
            generation: Generation(kept.generation),
            size: kept.size,
            at: UnixTime { unix_ms: kept.created_ms },
        };
        let created = node.metadata.propose(Command::CreateSnapshot(new)).await;
        created.map_err(|error| error.about(&format!("snapshot '{name}@{snapshot}'")))?;
        snapshots.push(snapshot.to_string());
    }
    tracing::info!(volume = %name, fetched_bytes = filling.fetched_bytes, "a volume was restored from the bucket");
    let result = RestoreResult {
        volume: Some(shown(node, name).await?),
        snapshots,
        fetched_bytes: filling.fetched_bytes,
        published_at_ms: record.published_ms,
    };
    Ok(RestoreVolumeReply { step: Some(Step::Result(result)) })
}

fn stopped() -> Status {
    Status::cancelled("the restoration was stopped; the same command goes on with it")
}

/// What the metadata has made a volume with has generation 0.
fn generation_of(record: &VolumeRecord) -> Generation {
    Generation(record.generation.max(1))
}

/// Fetching, all of it under one pin: what is found or stored stays until the metadata names it.
struct Filling<'a> {
    node: &'a Arc<Node>,
    bucket: &'a Arc<Bucket>,
    store: Arc<dyn ChunkStore>,
    /// Lent to those who work on other threads.
    pin: Option<StorePin>,
    fetched_bytes: u64,
    reporter: Reporter<RestoreVolumeReply>,
}

impl Filling<'_> {
    /// Has all of a root be here; of `old` everything is.
    async fn root(&mut self, old: Root, new: Root) -> Result<(), Status> {
        let mut gaps = Gaps::new(Arc::clone(&self.store), old, new);
        loop {
            let step = move |pin: &StorePin| {
                let group = gaps.next(pin);
                (gaps, group)
            };
            let (back, group) = self.pinned(step).await?;
            gaps = back;
            let group = group.map_err(|error: MapError| error.about("the map of the volume"))?;
            let Some(group) = group else { return Ok(()) };
            self.group(&group).await?;
        }
    }

    async fn group(&mut self, group: &[Gap]) -> Result<(), Status> {
        let wanted: HashMap<ChunkId, Wanted> = group.iter().map(|gap| (gap.wanted.id, gap.wanted)).collect();
        let bucket = Arc::clone(self.bucket);
        let mut arriving = std::pin::pin!(bucket.fetch(wanted.keys().copied().collect()));
        let (mut batch, mut bytes) = (Vec::<(Wanted, Bytes)>::new(), 0);
        while let Some(arrived) = arriving.next().await {
            let arrived = arrived.map_err(|error| self.lost(error))?;
            for (id, contents) in arrived {
                bytes += contents.len();
                batch.extend(wanted.get(&id).map(|wanted| (*wanted, contents)));
            }
            if bytes >= BATCH_BYTES {
                self.keep(std::mem::take(&mut batch), std::mem::take(&mut bytes)).await?;
            }
        }
        self.keep(batch, bytes).await
    }

    async fn keep(&mut self, batch: Vec<(Wanted, Bytes)>, bytes: usize) -> Result<(), Status> {
        let store = Arc::clone(&self.store);
        let stored = self.pinned(move |pin| store_fetched(&store, pin, batch)).await?;
        stored.map_err(|error| match error {
            sterna_storage_node::gaps::FetchedError::Store(error) => error.about("the data directory"),
            error => Status::data_loss(format!("what the bucket has of the volume is of no use: {error}")),
        })?;
        self.fetched_bytes += bytes as u64;
        let progress = Progress { done_bytes: self.fetched_bytes, total_bytes: 0 };
        let told = self.reporter.progress(|| RestoreVolumeReply { step: Some(Step::Progress(progress)) });
        if told.is_break() {
            return Err(stopped());
        }
        Ok(())
    }

    /// Of a chunk that does not come.
    fn lost(&self, error: BucketError) -> Status {
        failed(self.node, error)
    }

    /// Does something that takes a disk's time, under the pin.
    async fn pinned<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&StorePin) -> T + Send + 'static,
    ) -> Result<T, Status> {
        let pin = self.pin.take().ok_or_else(|| Status::internal("the work before this one has ended in a panic"))?;
        let (done, pin) = upkeep(self.node, move |_| (work(&pin), pin)).await?;
        self.pin = Some(pin);
        Ok(done)
    }
}

/// Bytes of chunks that are stored together: each time costs a sync.
const BATCH_BYTES: usize = 16 << 20;
