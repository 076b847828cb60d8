//! Sending: what was sent is all there before a record says so, nothing is sent twice, and what was cut off goes on.

use std::sync::Arc;
use std::time::Duration;

use proptest::collection::{btree_map, vec};
use proptest::prelude::{ProptestConfig, prop_assert, prop_assert_eq, proptest};
use sterna_storage_node::chunk_store::{ChunkStore, MemoryChunkStore};
use sterna_types::Root;
use tokio::runtime::Handle;

use super::{Giving, Sent, Session};
use crate::bucket::Bucket;
use crate::error::BucketError;
use crate::testing::{Fixture, contents, fetch_all, is_complete, record};

pub(crate) fn giving() -> Giving {
    Giving { upkeep: Handle::current(), until_clear: Arc::new(|| Box::pin(std::future::ready(()))) }
}

async fn session(bucket: &Arc<Bucket>, store: &Arc<MemoryChunkStore>) -> Session {
    let store: Arc<dyn ChunkStore> = Arc::clone(store) as _;
    Session::begin(bucket, &store, giving(), |_| {}).await.expect("a session")
}

/// Sends contents as those of volume 7, and says how much that was.
pub(crate) async fn send(
    bucket: &Arc<Bucket>,
    store: &Arc<MemoryChunkStore>,
    old: Root,
    new: Root,
    generation: u64,
) -> Sent {
    let mut session = session(bucket, store).await;
    session.send(old, new).await.expect("sent");
    let sent = session.finish().await.expect("come");
    session.record(&record("disk", new, generation)).await.expect("recorded");
    sent
}

#[tokio::test]
async fn what_was_sent_is_there_and_is_not_sent_again() {
    let (fixture, store) = (Fixture::new(), Arc::new(MemoryChunkStore::new()));
    let first = contents(&store, Root::EMPTY, &[(0, &[1, 2, 3, 4, 5, 6, 7, 8]), (700, &[9, 1])]);
    let bucket = fixture.open().await;
    let sent = send(&bucket, &store, Root::EMPTY, first, 1).await;
    // Nine blocks, two manifests, and the nodes above them.
    assert!(sent.chunks >= 9 + 2 + 3 && sent.packs > 1, "{sent:?}");
    assert!(is_complete(&fixture.open().await, first).await);

    let second = contents(&store, first, &[(700, &[9, 10])]);
    let more = send(&bucket, &store, first, second, 2).await;
    // A block, a manifest, and the nodes above it.
    assert_eq!((more.chunks, more.packs), (1 + 1 + 3, 1));
    assert!(is_complete(&fixture.open().await, second).await);
    let names = fixture.names("volumes").await;
    assert_eq!(names.len(), 1, "the first record has made place: {names:?}");

    // Another node, which knows nothing of what was sent before, and begins with nothing.
    let other = fixture.open().await;
    assert_eq!(send(&other, &store, Root::EMPTY, second, 3).await, Sent::default());
}

#[tokio::test]
async fn an_upload_that_was_cut_off_goes_on_where_it_was() {
    let (fixture, store) = (Fixture::new(), Arc::new(MemoryChunkStore::new()));
    let blocks: Vec<u16> = (0..200).collect();
    let root = contents(&store, Root::EMPTY, &[(0, &blocks)]);
    let all = {
        let elsewhere = Fixture::new();
        send(&elsewhere.open().await, &store, Root::EMPTY, root, 1).await
    };
    let bucket = fixture.open().await;
    let mut cut = session(&bucket, &store).await;
    cut.send(Root::EMPTY, root).await.expect("sent");
    // The last packs are on their way, or not even full.
    drop(cut);
    let came = fixture.names("packs").await.len() as u64;
    assert!(came > 10 && came < all.packs, "{came} of {all:?}");
    assert!(fixture.names("volumes").await.is_empty());
    let rest = send(&fixture.open().await, &store, Root::EMPTY, root, 1).await;
    assert!(rest.packs <= all.packs - came + 1, "{rest:?} beside {came} of {all:?}");
    assert!(is_complete(&fixture.open().await, root).await);
}

#[tokio::test(start_paused = true)]
async fn no_record_is_written_that_relies_on_an_old_look() {
    let (fixture, store) = (Fixture::new(), Arc::new(MemoryChunkStore::new()));
    let root = contents(&store, Root::EMPTY, &[(0, &[1])]);
    let bucket = fixture.open_with(Duration::from_secs(100)).await;
    let mut late = session(&bucket, &store).await;
    late.send(Root::EMPTY, root).await.expect("sent");
    late.finish().await.expect("come");
    tokio::time::advance(Duration::from_secs(51)).await;
    assert!(matches!(late.record(&record("disk", root, 1)).await, Err(BucketError::TooLate)));
    assert!(fixture.names("volumes").await.is_empty());
    assert_eq!(send(&bucket, &store, Root::EMPTY, root, 1).await, Sent::default(), "it is all there");
}

#[tokio::test]
async fn what_the_node_does_not_have_is_no_upload() {
    let (fixture, store) = (Fixture::new(), Arc::new(MemoryChunkStore::new()));
    let root = contents(&store, Root::EMPTY, &[(0, &[1, 2])]);
    store.lose(crate::testing::block(2).id);
    let bucket = fixture.open().await;
    let error = session(&bucket, &store).await.send(Root::EMPTY, root).await.expect_err("it is not here");
    assert!(error.to_string().contains(&crate::testing::block(2).id.to_string()), "{error}");
}

#[tokio::test]
async fn a_damaged_object_is_noticed_and_never_served() {
    let (fixture, store) = (Fixture::new(), Arc::new(MemoryChunkStore::new()));
    let root = contents(&store, Root::EMPTY, &[(0, &[1, 2, 3])]);
    send(&fixture.open().await, &store, Root::EMPTY, root, 1).await;
    let packs = fixture.names("packs").await;
    // Within a frame, found when that is read; and in the index, found when the pack is looked at.
    fixture.damage(&packs[0], 16 + 52 + 20).await;
    let fetched = Arc::new(MemoryChunkStore::new());
    let error = fetch_all(&fixture.open().await, root, &fetched).await.expect_err("it is damaged");
    assert!(matches!(&error, BucketError::Damaged { name, .. } if *name == packs[0]), "{error}");
    fixture.damage(&packs[0], 16 + 52 + 20).await;
    assert!(is_complete(&fixture.open().await, root).await, "it was only that");
    fixture.put(&packs[0], b"nothing of use").await;
    let error = fetch_all(&fixture.open().await, root, &fetched).await.expect_err("it is gone");
    assert!(matches!(error, BucketError::Gone { .. }), "{error}");
    // And what is lost is sent again.
    let again = send(&fixture.open().await, &store, Root::EMPTY, root, 2).await;
    assert!(again.chunks > 0 && is_complete(&fixture.open().await, root).await);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever is written in whatever order, sent or not, by one node or another: what a record says is there.
    #[test]
    fn every_record_has_all_that_it_needs(
        states in vec((btree_map(0..600_u64, vec(0..50_u16, 1..12), 0..4), proptest::bool::ANY, proptest::bool::ANY), 1..6),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let (fixture, store) = (Fixture::new(), Arc::new(MemoryChunkStore::new()));
            let (mut bucket, mut root, mut recorded) = (fixture.open().await, Root::EMPTY, Root::EMPTY);
            for (generation, (segments, is_sent, is_other)) in (1..).zip(states) {
                let segments: Vec<_> = segments.iter().map(|(segment, blocks)| (*segment, blocks.as_slice())).collect();
                root = contents(&store, root, &segments);
                if is_other {
                    bucket = fixture.open().await;
                }
                if is_sent {
                    send(&bucket, &store, recorded, root, generation).await;
                    recorded = root;
                }
            }
            let fresh = fixture.open().await;
            prop_assert!(is_complete(&fresh, recorded).await);
            let records = fresh.newest_records().await.expect("records");
            let newest = records.first().map(|(_, record)| record.as_ref().expect("a record").root);
            prop_assert_eq!(newest.unwrap_or(Root::EMPTY), recorded);
            Ok(())
        })?;
    }
}
