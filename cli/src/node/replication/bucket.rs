//! What no node has, from the bucket: it is asked last.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use sterna_bucket::{Bucket, BucketError};
use sterna_storage_node::gaps::{Gap, Wanted};
use sterna_types::ChunkId;

use super::error::PullError;
use super::fetch::Storing;
use crate::node::node::Node;

/// Fetches from the bucket what it has of some chunks; what it does not have, or what it has damaged, stays in `gaps`, also after an error.
/// Without a bucket that is all.
///
/// # Errors
/// [`PullError::Bucket`]: it cannot be reached. [`PullError`]: what came could not be stored.
///
/// # Cancel safety
/// May be dropped at any time; what was stored by then stays.
pub(super) async fn fetch_from_bucket(
    node: &Arc<Node>,
    gaps: &mut Vec<Gap>,
    store: &Storing<'_>,
) -> Result<(), PullError> {
    let Some(link) = node.bucket.as_ref().filter(|_| !gaps.is_empty()) else { return Ok(()) };
    let bucket = link.open().await?;
    let first = fetch_known(&bucket, gaps, store).await;
    if gaps.is_empty() {
        return first;
    }
    // It may have come there since it was looked.
    bucket.look(LOOK_AGE).await?;
    match fetch_known(&bucket, gaps, store).await {
        Err(PullError::Bucket(error @ (BucketError::Gone { .. } | BucketError::Damaged { .. }))) => {
            tracing::debug!(%error, "the bucket does not have it either");
            Ok(())
        }
        result => result,
    }
}

/// The same, of what the last look has seen.
async fn fetch_known(bucket: &Arc<Bucket>, gaps: &mut Vec<Gap>, store: &Storing<'_>) -> Result<(), PullError> {
    let wanted: HashMap<ChunkId, Wanted> = gaps.iter().map(|gap| (gap.wanted.id, gap.wanted)).collect();
    let mut arriving = std::pin::pin!(bucket.fetch(gaps.iter().map(|gap| gap.wanted.id).collect()));
    while let Some(arrived) = arriving.next().await {
        let chunks = arrived?.into_iter().filter_map(|(id, contents)| Some((*wanted.get(&id)?, contents)));
        let chunks: Vec<_> = chunks.collect();
        let come: Vec<_> = chunks.iter().map(|(wanted, _)| wanted.id).collect();
        store.put(chunks).await?;
        gaps.retain(|gap| !come.contains(&gap.wanted.id));
    }
    Ok(())
}

/// A bucket is looked at no more often than that because of what it does not have.
const LOOK_AGE: Duration = Duration::from_secs(10);
