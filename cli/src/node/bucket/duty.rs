//! Sending what the volumes of this node have published to its bucket, again and again.
//!
//! One pass after the other: what is due is found, chunks go first and records after them ([`sterna_bucket::upload`]). A pass that fails
//! is repeated after longer and longer pauses, and what it has sent is found again. Where one volume cannot be sent, the others are.

use std::sync::Arc;
use std::time::Duration;

use sterna_bucket::upload::{Giving, Sent, Session};
use sterna_bucket::{Bucket, BucketError, VolumeRecord};
use sterna_storage_node::chunk_store::ChunkStore;
use sterna_types::Root;
use tokio::time::{Instant, sleep_until};

use super::due::{Due, due};
use super::{BucketLink, There};
use crate::node::node::Node;

/// Sends what is due, until the node shuts down. Without a bucket there is nothing to do.
pub(in crate::node) async fn run(node: Arc<Node>) {
    let Some(link) = node.bucket.clone() else { return node.stopping.cancelled().await };
    let (mut next, mut pause) = (Instant::now(), SHORTEST_PAUSE);
    loop {
        tokio::select! {
            () = node.stopping.cancelled() => return,
            () = sleep_until(next) => {}
        }
        let passed = tokio::select! {
            // What has come is found again.
            () = node.stopping.cancelled() => return,
            passed = pass(&node, &link) => passed,
        };
        let is_done = passed.is_ok();
        let failure = match passed {
            Ok(()) => {
                (next, pause) = (Instant::now() + link.config.interval, SHORTEST_PAUSE);
                None
            }
            // All that was sent is there: the next one is short.
            Err(BucketError::TooLate) => {
                next = Instant::now();
                None
            }
            Err(error) => {
                next = Instant::now() + pause;
                pause = (pause * 2).min(LONGEST_PAUSE);
                Some(error.to_string())
            }
        };
        let mut state = link.state();
        state.is_sending = false;
        match &failure {
            None if is_done => state.succeeded = Some(Instant::now()),
            None => {}
            Some(failure) if state.failure.is_none() => {
                tracing::warn!(bucket = %link.config.location, "the bucket cannot be used; it is tried again: {failure}");
            }
            Some(_) => {}
        }
        if failure.is_none() && state.failure.is_some() {
            tracing::info!(bucket = %link.config.location, "the bucket can be used again");
        }
        state.failure = failure;
    }
}

/// Sends all that is due.
async fn pass(node: &Arc<Node>, link: &Arc<BucketLink>) -> Result<(), BucketError> {
    let is_there = |record: &VolumeRecord| {
        let state = link.state();
        state.volumes.get(&record.volume).is_some_and(|there| there.record.as_ref() == Some(record))
    };
    // It shows what is behind, whether the bucket answers or not.
    note_due(node, link, &due(node, is_there).await);
    let bucket = link.open().await?;
    let look = bucket.look(LOOK_AGE).await?;
    link.looked(&look.records, bucket.usage());
    let due = due(node, is_there).await;
    note_due(node, link, &due);
    let walks_all = link.state().walks_all;
    link.state().is_sending = !due.is_empty();
    let store: Arc<dyn ChunkStore> = Arc::clone(&node.engine.store) as _;
    let (watched, before) = (Arc::clone(link), link.state().sent);
    let watcher = move |sent: Sent| watched.state().sent = sum(before, sent);
    let mut session = Session::begin(&bucket, &store, giving(node), watcher).await?;
    let (mut sent, mut result) = (Vec::new(), Ok(()));
    for due in due {
        match send(&bucket, &mut session, link, &due, walks_all).await {
            Ok(()) => sent.push(due),
            Err(error @ (BucketError::Map(_) | BucketError::Store(_) | BucketError::Damaged { .. })) => {
                tracing::warn!(volume = %due.record.name, %error, "a volume could not be sent to the bucket");
                link.state().volumes.entry(due.volume()).or_default().failure = Some(error.to_string());
            }
            Err(error) => {
                result = Err(error);
                break;
            }
        }
        if sent.len() >= RECORDS_AT_ONCE {
            record(link, &mut session, &mut sent).await?;
        }
    }
    // What is complete is recorded, whatever came after it.
    record(link, &mut session, &mut sent).await?;
    let mut state = link.state();
    state.usage = Some(bucket.usage());
    state.walks_all &= result.is_err();
    result
}

/// Has all chunks that a volume needs be there, or on their way.
async fn send(
    bucket: &Arc<Bucket>,
    session: &mut Session,
    link: &BucketLink,
    due: &Due,
    walks_all: bool,
) -> Result<(), BucketError> {
    let known = link.state().volumes.get(&due.volume()).and_then(|there| there.record.clone());
    let newest = session.newest(due.key()).filter(|_| !walks_all);
    let base = match (newest, known) {
        (None, _) => None,
        (Some(newest), Some(known)) if known.key() == newest => Some(known),
        // Of a former life of this node, or of the volume's former owner.
        (Some(newest), _) => match bucket.record(&newest).await {
            Ok(record) => Some(record),
            Err(BucketError::NotFound { .. } | BucketError::Damaged { .. }) => None,
            Err(error) => return Err(error),
        },
    };
    let old = base.as_ref().map_or(Root::EMPTY, |base| base.root);
    session.send(old, due.record.root).await?;
    for (name, snapshot) in &due.record.snapshots {
        let is_there =
            base.as_ref().is_some_and(|base| base.snapshots.get(name).is_some_and(|it| it.root == snapshot.root));
        if !is_there {
            session.send(due.record.root, snapshot.root).await?;
        }
    }
    Ok(())
}

/// Waits until all that was sent has come, and says so.
async fn record(link: &BucketLink, session: &mut Session, sent: &mut Vec<Due>) -> Result<(), BucketError> {
    session.finish().await?;
    for due in sent.drain(..) {
        session.record(&due.record).await?;
        let record = due.record.clone();
        tracing::debug!(volume = %record.name, generation = record.generation, "what a volume has published is in the bucket");
        let there = There { record: Some(record), ..There::default() };
        link.state().volumes.insert(due.volume(), there);
    }
    Ok(())
}

/// Notes since when what is due is not there. What is not this node's any more is not told of.
fn note_due(node: &Node, link: &BucketLink, due: &[Due]) {
    let (metadata, own) = (node.metadata.read(), node.metadata.id());
    let mut state = link.state();
    state.volumes.retain(|id, _| metadata.volume(*id).is_some_and(|entry| entry.owner == own));
    for due in due {
        state.volumes.entry(due.volume()).or_default().behind_since.get_or_insert_with(Instant::now);
    }
}

/// Where the work is done: behind all that guests wait for.
pub(super) fn giving(node: &Arc<Node>) -> Giving {
    let own = Arc::clone(node);
    let until_clear = move || {
        let own = Arc::clone(&own);
        let clear: futures_util::future::BoxFuture<'static, ()> =
            Box::pin(async move { own.precedence.until_clear().await });
        clear
    };
    Giving { upkeep: node.background.upkeep_threads().clone(), until_clear: Arc::new(until_clear) }
}

fn sum(one: Sent, other: Sent) -> Sent {
    Sent { chunks: one.chunks + other.chunks, packs: one.packs + other.packs, bytes: one.bytes + other.bytes }
}

/// Volumes that share their last packs: more of them are recorded as they come, so that little is held and little is late.
const RECORDS_AT_ONCE: usize = 256;
/// How often it is looked whether what was sent is still there.
const LOOK_AGE: Duration = Duration::from_secs(600);
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
/// A bucket that is back is noticed soon.
const LONGEST_PAUSE: Duration = Duration::from_secs(120);
