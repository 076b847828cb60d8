//! BucketStatus, ListBucket, ForgetVolume and CollectBucket: what is kept in the bucket besides.

use std::sync::Arc;
use std::time::Duration;

use sterna_bucket::names::{RecordKey, VolumeKey};
use sterna_bucket::{Bucket, BucketError, VolumeRecord, collect as collecting};
use sterna_consensus::state::volume::Volume as VolumeEntry;
use sterna_proto::admin;
use sterna_proto::admin::collect_bucket_reply::Step;
use sterna_storage_node::chunk_store::ChunkStore;
use sterna_types::VolumeName;
use tonic::{Code, Response, Status};

use super::lookup::metadata;
use super::request::parsed;
use super::status::IntoStatus;
use super::work::{Replies, long_work};
use crate::node::bucket::{BucketLink, record_of};
use crate::node::node::Node;

impl IntoStatus for BucketError {
    fn code(&self) -> Code {
        match self {
            Self::Request { .. } | Self::TooLate => Code::Unavailable,
            Self::NotFound { .. } | Self::Damaged { .. } | Self::Gone { .. } | Self::Kind { .. } => Code::DataLoss,
            Self::Version { .. } => Code::FailedPrecondition,
            Self::Store(error) => error.code(),
            Self::Map(error) => error.code(),
            Self::Catalogue { .. } | Self::Chance(_) | Self::Panicked => Code::Internal,
        }
    }
}

/// The bucket of a node that has one.
pub(super) fn configured(node: &Node) -> Result<&Arc<BucketLink>, Status> {
    let none =
        || Status::failed_precondition("this node has no bucket: set [bucket] in its sterna.toml, and start it anew");
    node.bucket.as_ref().ok_or_else(none)
}

/// The bucket, connected to.
pub(super) async fn opened(node: &Node) -> Result<Arc<Bucket>, Status> {
    let link = configured(node)?;
    link.open().await.map_err(|error| failed(node, error))
}

/// What is said of an error of the bucket.
pub(super) fn failed(node: &Node, error: BucketError) -> Status {
    let url = node.bucket.as_ref().map(|link| link.report().url).unwrap_or_default();
    error.about(&format!("the bucket {url}"))
}

/// BucketStatus. Asks nothing of the bucket.
pub(super) fn status(node: &Arc<Node>) -> Result<admin::BucketStatusReply, Status> {
    configured(node)?;
    let metadata = node.metadata.read();
    let mut volumes: Vec<_> = metadata.volumes().filter_map(|entry| lag(node, entry)).collect();
    volumes.sort_unstable_by(|one, other| one.volume.cmp(&other.volume));
    Ok(admin::BucketStatusReply { report: report(node), volumes })
}

/// How it goes with the bucket, where there is one.
pub(super) fn report(node: &Arc<Node>) -> Option<admin::BucketReport> {
    let link = node.bucket.as_ref()?;
    let report = link.report();
    let metadata = node.metadata.read();
    let behind = metadata.volumes().filter_map(|entry| lag(node, entry)).filter(|volume| !volume.is_current).count();
    Some(admin::BucketReport {
        url: report.url,
        failure: report.failure.unwrap_or_default(),
        succeeded_ms_ago: report.succeeded.map(milliseconds),
        is_sending: report.is_sending,
        sent_packs: report.sent.packs,
        sent_bytes: report.sent.bytes,
        usage: report.usage.map(|usage| admin::BucketUsage {
            packs: usage.packs,
            bytes: usage.bytes,
            doomed_packs: usage.doomed_packs,
            damaged_packs: usage.damaged_packs,
            records: usage.records,
        }),
        volumes_behind: behind as u64,
    })
}

/// How far a volume of this node is in its bucket.
pub(super) fn lag(node: &Arc<Node>, entry: &VolumeEntry) -> Option<admin::BucketVolume> {
    let link = node.bucket.as_ref().filter(|_| entry.owner == node.metadata.id())?;
    let lag = link.lag(entry, &record_of(node, entry));
    Some(admin::BucketVolume {
        volume: entry.name.to_string(),
        epoch: lag.there.map(|(epoch, _)| epoch),
        generation: lag.there.map(|(_, generation)| generation),
        behind_bytes: lag.behind_bytes,
        behind_ms: milliseconds(lag.behind),
        is_current: lag.is_current,
        failure: lag.failure.unwrap_or_default(),
    })
}

/// ListBucket.
pub(super) async fn list(node: &Arc<Node>) -> Result<admin::ListBucketReply, Status> {
    let bucket = opened(node).await?;
    let records = bucket.newest_records().await.map_err(|error| failed(node, error))?;
    let mut records: Vec<_> = records.into_iter().map(|(key, record)| message(node, &key, record)).collect();
    records.sort_by(|one, other| (&one.name, &one.key).cmp(&(&other.name, &other.key)));
    Ok(admin::ListBucketReply { records })
}

fn message(node: &Node, key: &RecordKey, record: Result<VolumeRecord, BucketError>) -> admin::BucketRecord {
    let is_own = key.of.cluster == node.identity.cluster && node.metadata.read().volume(key.of.volume).is_some();
    let known = admin::BucketRecord { key: key.of.to_string(), is_own, ..admin::BucketRecord::default() };
    match record {
        Err(error) => admin::BucketRecord { problem: error.to_string(), ..known },
        Ok(record) => admin::BucketRecord {
            name: record.name.to_string(),
            size_bytes: record.size.bytes().0,
            root: record.root.to_string(),
            epoch: record.epoch.number(),
            generation: record.generation,
            published_at_ms: record.published_ms,
            node: record.node.to_string(),
            site: record.site.to_string(),
            snapshots: record.snapshots.keys().map(ToString::to_string).collect(),
            ..known
        },
    }
}

/// The newest record of the volume that is called so in the bucket, or of `key` where that is given.
pub(super) async fn chosen(node: &Node, bucket: &Bucket, name: &VolumeName, key: &str) -> Result<VolumeRecord, Status> {
    let key = (!key.is_empty()).then(|| parsed::<VolumeKey>(key)).transpose()?;
    let mut found = Vec::new();
    let mut problem = None;
    for (of, record) in bucket.newest_records().await.map_err(|error| failed(node, error))? {
        match record {
            Ok(record) if key.is_none_or(|key| key == of.of) && record.name == *name => found.push(record),
            Ok(_) => {}
            Err(error) if key.is_none_or(|key| key == of.of) => problem = Some(error),
            Err(_) => {}
        }
    }
    match (found.pop(), problem) {
        (Some(record), _) if found.is_empty() => Ok(record),
        (Some(record), _) => {
            let all = found.iter().chain([&record]);
            let keys: Vec<_> =
                all.map(|record| format!("{} (of {} at {})", record.key().of, record.node, record.site)).collect();
            let keys = keys.join(", ");
            Err(Status::failed_precondition(format!(
                "several volumes are called '{name}' in the bucket: choose with --from one of {keys}"
            )))
        }
        (None, Some(error)) => Err(failed(node, error)),
        (None, None) => {
            Err(Status::not_found(format!("the bucket has no volume '{name}': 'sterna bucket list' shows what it has")))
        }
    }
}

/// ForgetVolume.
pub(super) async fn forget(
    node: Arc<Node>,
    request: admin::ForgetVolumeRequest,
) -> Result<admin::ForgetVolumeReply, Status> {
    let name: VolumeName = parsed(&request.name)?;
    let bucket = opened(&node).await?;
    let record = chosen(&node, &bucket, &name, &request.key).await?;
    let of = record.key().of;
    if of.cluster == node.identity.cluster && metadata(&node).await?.volume(of.volume).is_some() {
        return Err(Status::failed_precondition(format!(
            "volume '{name}' is a volume of this cluster, and would be sent again: delete it first, or take [bucket] out of its owner's \
             sterna.toml"
        )));
    }
    let records = bucket.forget(of).await.map_err(|error| failed(&node, error))?;
    tracing::info!(volume = %name, %of, "what the bucket had of a volume was given up");
    Ok(admin::ForgetVolumeReply { records })
}

/// CollectBucket.
pub(super) fn collect(node: &Arc<Node>) -> Response<Replies<admin::CollectBucketReply>> {
    let own = Arc::clone(node);
    long_work(node, move |mut reporter| async move {
        let bucket = opened(&own).await?;
        let store: Arc<dyn ChunkStore> = Arc::clone(&own.engine.store) as _;
        let gone = reporter.gone();
        let mut watcher = |marked| {
            // Its caller's going away ends it below.
            let _ = reporter.progress(|| step(Step::MarkedChunks(marked)));
        };
        let collected = tokio::select! {
            collected = collecting::collect(&bucket, &store, &mut watcher) => collected.map_err(|error| failed(&own, error))?,
            () = gone => return Err(stopped()),
            () = own.stopping.cancelled() => return Err(stopped()),
        };
        if collected.missing_chunks > 0
            && let Some(link) = &own.bucket
        {
            link.distrust();
        }
        let result = admin::CollectBucketResult {
            kept_packs: collected.kept_packs,
            kept_bytes: collected.kept_bytes,
            doomed_packs: collected.doomed_packs,
            doomed_bytes: collected.doomed_bytes,
            deleted_packs: collected.deleted_packs,
            deleted_bytes: collected.deleted_bytes,
            copied_packs: collected.copied_packs,
            missing_chunks: collected.missing_chunks,
            grace_seconds: bucket.grace().as_secs(),
        };
        Ok(step(Step::Result(result)))
    })
}

fn stopped() -> Status {
    Status::cancelled("the collection was stopped; what it has done by then stays done")
}

fn step(step: Step) -> admin::CollectBucketReply {
    admin::CollectBucketReply { step: Some(step) }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
