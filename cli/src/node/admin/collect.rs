//! CollectGarbage: chunks that nothing names go, and their space with them.

use std::sync::Arc;
use std::time::Duration;

use sterna_proto::admin::collect_garbage_reply::Step;
use sterna_proto::admin::{CollectGarbageReply, CollectGarbageResult};
use sterna_storage_node::chunk_store::collect::CollectOptions;
use tokio::sync::OwnedRwLockWriteGuard;
use tonic::{Response, Status};

use super::lookup::metadata;
use super::reply;
use super::status::IntoStatus;
use super::work::{Replies, long_work, upkeep};
use crate::node::node::Node;

/// Collects once.
pub(super) fn collect(node: &Arc<Node>) -> Response<Replies<CollectGarbageReply>> {
    let own = Arc::clone(node);
    long_work(node, move |mut reporter| async move {
        let nothing_in_transit = nothing_in_transit(&own).await?;
        let metadata = metadata(&own).await?;
        upkeep(&own, move |own| {
            let engine = &own.engine;
            let roots = || {
                let roots = own.named_roots(&metadata);
                drop(nothing_in_transit);
                Ok(roots)
            };
            let options = CollectOptions::default();
            let stop = Arc::clone(reporter.stop());
            let mut on_progress = |now| {
                // The collection looks itself at what says whether to go on.
                let _ = reporter.progress(|| step(Step::Progress(reply::progress(now))));
            };
            let report = engine.storage.collect(&engine.store, roots, &options, &mut on_progress, &stop);
            let report = report.map_err(|error| error.about("garbage collection"))?;
            if !report.finished {
                return Err(Status::cancelled("the collection was stopped; what it has freed by then stays free"));
            }
            let result = CollectGarbageResult {
                live_chunks: report.marked_chunks,
                dead_chunks: report.dead_chunks,
                freed_bytes: report.removed_bytes.saturating_sub(report.moved_bytes),
                removed_packs: report.removed_packs,
                compacted_packs: report.compacted_packs,
                cramped_packs: report.cramped_packs,
                cramped_bytes: report.cramped_bytes,
                waiting_bytes: report.waiting_bytes,
            };
            Ok(step(Step::Result(result)))
        })
        .await?
    })
}

fn step(step: Step) -> CollectGarbageReply {
    CollectGarbageReply { step: Some(step) }
}

/// Waits for the moment at which no root is on its way. An import is for all its time: it is not waited for.
async fn nothing_in_transit(node: &Node) -> Result<OwnedRwLockWriteGuard<()>, Status> {
    for _ in 0..LOOKS {
        if let Ok(guard) = Arc::clone(&node.in_transit).try_write_owned() {
            return Ok(guard);
        }
        tokio::time::sleep(PAUSE).await;
    }
    Err(Status::failed_precondition("volumes are being imported: wait for their end, or stop them, and repeat this"))
}

/// Ten seconds: a snapshot of a volume with a full journal takes as long.
const LOOKS: usize = 200;
const PAUSE: Duration = Duration::from_millis(50);
