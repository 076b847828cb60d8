//! Collections: what is needed stays, what is not goes when its time has come, and whoever sends meanwhile loses nothing.

use std::sync::Arc;
use std::time::Duration;

use sterna_storage_node::chunk_store::{ChunkStore, MemoryChunkStore};
use sterna_types::Root;

use super::{Collected, collect};
use crate::bucket::Bucket;
use crate::testing::{Fixture, contents, is_complete, record};
use crate::upload::Session;
use crate::upload::tests::{giving, send};

async fn collected(bucket: &Arc<Bucket>) -> Collected {
    let nothing: Arc<dyn ChunkStore> = Arc::new(MemoryChunkStore::new());
    collect(bucket, &nothing, &mut |_| {}).await.expect("a collection")
}

/// Objects in memory have the time of day: something is older than a grace period only when that has passed.
async fn pass(grace: Duration) {
    let begun = std::time::Instant::now();
    while begun.elapsed() <= grace + Duration::from_millis(20) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

const GRACE: Duration = Duration::from_millis(1000);

/// Two states of a volume that share nothing, the first of which nothing needs any more.
async fn replaced(fixture: &Fixture, store: &Arc<MemoryChunkStore>) -> (Arc<Bucket>, Root) {
    let blocks: Vec<u16> = (0..40).collect();
    let other: Vec<u16> = (100..140).collect();
    let first = contents(store, Root::EMPTY, &[(0, &blocks)]);
    let second = contents(store, Root::EMPTY, &[(0, &other)]);
    let bucket = fixture.open_with(GRACE).await;
    send(&bucket, store, Root::EMPTY, first, 1).await;
    send(&bucket, store, Root::EMPTY, second, 2).await;
    (bucket, second)
}

#[tokio::test]
async fn heavy_what_nothing_needs_goes_when_its_time_has_come_and_not_before() {
    let (fixture, store) = (Fixture::new(), Arc::new(MemoryChunkStore::new()));
    let (bucket, second) = replaced(&fixture, &store).await;
    let all = fixture.names("packs").await.len() as u64;
    let young = collected(&bucket).await;
    assert_eq!((young.kept_packs, young.doomed_packs, young.deleted_packs), (all, 0, 0), "all of it is young");
    pass(4 * GRACE).await;
    let doomed = collected(&bucket).await;
    assert!(doomed.doomed_packs > 5 && doomed.deleted_packs == 0, "{doomed:?}");
    assert!(is_complete(&fixture.open().await, second).await);
    let again = collected(&bucket).await;
    assert_eq!(again.deleted_packs, 0, "they were doomed only now");
    pass(GRACE).await;
    let deleted = collected(&fixture.open().await).await;
    assert!(deleted.deleted_packs >= doomed.doomed_packs, "{deleted:?} after {doomed:?}");
    assert_eq!(deleted.missing_chunks, 0);
    assert!(is_complete(&fixture.open().await, second).await);
    assert!(fixture.names("doomed").await.len() as u64 <= deleted.doomed_packs);
}

#[tokio::test]
async fn heavy_small_packs_become_large_ones() {
    let (fixture, store) = (Fixture::new(), Arc::new(MemoryChunkStore::new()));
    let (bucket, second) = replaced(&fixture, &store).await;
    pass(4 * GRACE).await;
    let copied = collected(&bucket).await;
    assert!(copied.copied_packs > 5 && copied.kept_packs == 1, "{copied:?}");
    pass(GRACE).await;
    let last = collected(&bucket).await;
    assert_eq!((fixture.names("packs").await.len(), last.kept_packs, last.doomed_packs), (1, 1, 0));
    assert!(is_complete(&fixture.open().await, second).await);
}

#[tokio::test]
async fn heavy_a_node_that_sends_while_another_one_collects_loses_nothing() {
    let (fixture, store) = (Fixture::new(), Arc::new(MemoryChunkStore::new()));
    let (sender, _) = replaced(&fixture, &store).await;
    pass(4 * GRACE).await;
    // It relies on what the first state has brought, which nothing needs.
    let blocks: Vec<u16> = (0..40).chain([500]).collect();
    let third = contents(&store, Root::EMPTY, &[(0, &blocks)]);
    sender.look(Duration::ZERO).await.expect("a look");
    let here: Arc<dyn ChunkStore> = Arc::clone(&store) as _;
    let mut session = Session::begin(&sender, &here, giving(), |_| {}).await.expect("a session");
    session.send(Root::EMPTY, third).await.expect("sent");
    let sent = session.finish().await.expect("come");
    assert!(sent.chunks < 10, "{sent:?}");
    let collector = fixture.open().await;
    assert!(collected(&collector).await.doomed_packs > 5);
    session.record(&record("disk", third, 3)).await.expect("recorded");
    pass(GRACE).await;
    let after = collected(&collector).await;
    assert!(is_complete(&fixture.open().await, third).await, "{after:?}");
    pass(GRACE).await;
    collected(&collector).await;
    assert!(is_complete(&fixture.open().await, third).await);
}

#[tokio::test]
async fn heavy_what_is_doomed_is_not_relied_on() {
    let (fixture, store) = (Fixture::new(), Arc::new(MemoryChunkStore::new()));
    let (bucket, _) = replaced(&fixture, &store).await;
    pass(4 * GRACE).await;
    collected(&bucket).await;
    let blocks: Vec<u16> = (0..40).collect();
    let first = contents(&store, Root::EMPTY, &[(0, &blocks)]);
    let sent = send(&fixture.open().await, &store, Root::EMPTY, first, 3).await;
    assert!(sent.chunks > 40, "all of it is sent again: {sent:?}");
}

#[tokio::test]
async fn nothing_is_collected_where_a_record_cannot_be_read() {
    let (fixture, store) = (Fixture::new(), Arc::new(MemoryChunkStore::new()));
    let (bucket, _) = replaced(&fixture, &store).await;
    let records = fixture.names("volumes").await;
    fixture.damage(&records[0], 40).await;
    let nothing: Arc<dyn ChunkStore> = Arc::new(MemoryChunkStore::new());
    let error = collect(&bucket, &nothing, &mut |_| {}).await.expect_err("nobody knows what it needs");
    assert!(error.to_string().contains(&records[0]), "{error}");
    assert!(fixture.names("doomed").await.is_empty());
}

#[tokio::test]
async fn heavy_what_is_forgotten_goes() {
    let (fixture, store) = (Fixture::new(), Arc::new(MemoryChunkStore::new()));
    let (bucket, second) = replaced(&fixture, &store).await;
    let of = record("disk", second, 2).key().of;
    assert_eq!(bucket.forget(of).await.expect("forgotten"), 1);
    assert_eq!(bucket.forget(of).await.expect("nothing to forget"), 0);
    for periods in [4, 1] {
        pass(periods * GRACE).await;
        collected(&bucket).await;
    }
    assert!(fixture.names("packs").await.is_empty());
}
