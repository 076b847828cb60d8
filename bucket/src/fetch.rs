//! Chunks out of a bucket: by ranges of packs, neighbours together, several at a time.
//!
//! What comes is verified against its id. Where a frame is damaged or gone, the next pack that has the chunk is asked, if any has it.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use sterna_runtime::work::blocking;
use sterna_types::ChunkId;

use crate::bucket::Bucket;
use crate::catalogue::{Catalogue, Place};
use crate::error::BucketError;
use crate::pack::decode_frame;

/// Chunks that have come, each what its id says.
pub type Arrived = Vec<(ChunkId, Bytes)>;

impl Bucket {
    /// Fetches chunks, in any order, some at a time. Those that come before an error are whole. What the last look has not seen is
    /// not found: who misses something looks again.
    ///
    /// Ends with an error about one of those that have not come: [`BucketError::Gone`], [`BucketError::Damaged`], or whatever has
    /// kept the bucket from answering. At most [`RANGES`] times [`RANGE_BYTES`] are on their way or wait to be taken.
    pub fn fetch(
        self: &Arc<Self>,
        ids: Vec<ChunkId>,
    ) -> impl Stream<Item = Result<Arrived, BucketError>> + Send + use<> {
        let bucket = Arc::clone(self);
        let fetching = Fetching { bucket, attempt: 0, wanted: ids, ranges: None, failed: HashMap::new(), lost: None };
        stream::unfold(Some(fetching), |fetching| async move {
            let mut fetching = fetching?;
            match fetching.next().await {
                Ok(Some(arrived)) => Some((Ok(arrived), Some(fetching))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })
    }
}

type Ranges = std::pin::Pin<Box<dyn Stream<Item = (Range, Result<Decoded, BucketError>)> + Send>>;

struct Fetching {
    bucket: Arc<Bucket>,
    /// Which of the places of each chunk is asked.
    attempt: usize,
    /// What is asked for in the next attempt.
    wanted: Vec<ChunkId>,
    /// Those of this attempt.
    ranges: Option<Ranges>,
    /// What is wrong with those that have not come.
    failed: HashMap<ChunkId, BucketError>,
    /// Why one of those that cannot come does not: told when all others have.
    lost: Option<BucketError>,
}

impl Fetching {
    async fn next(&mut self) -> Result<Option<Arrived>, BucketError> {
        loop {
            if self.ranges.is_none() {
                if self.wanted.is_empty() {
                    return self.lost.take().map_or(Ok(None), Err);
                }
                self.begin().await?;
            }
            let Some(ranges) = &mut self.ranges else { continue };
            match ranges.next().await {
                None => {
                    self.ranges = None;
                    self.attempt += 1;
                }
                Some((_, Ok(decoded))) => {
                    for (id, error) in decoded.damaged {
                        tracing::warn!(%error, "a chunk of the bucket is not used");
                        self.failed.insert(id, error);
                        self.wanted.push(id);
                    }
                    if !decoded.whole.is_empty() {
                        return Ok(Some(decoded.whole));
                    }
                }
                Some((range, Err(error @ (BucketError::NotFound { .. } | BucketError::Damaged { .. })))) => {
                    let what = error.to_string();
                    let name = range.frames[0].1.pack.object();
                    for (id, _) in range.frames {
                        self.failed.insert(id, BucketError::damaged(&name, &what));
                        self.wanted.push(id);
                    }
                }
                Some((_, Err(error))) => return Err(error),
            }
        }
    }

    /// Begins to ask for all that is wanted.
    async fn begin(&mut self) -> Result<(), BucketError> {
        let (wanted, attempt) = (std::mem::take(&mut self.wanted), self.attempt);
        let (ranges, nowhere) = self.bucket.in_catalogue(move |catalogue| plan(catalogue, &wanted, attempt)).await?;
        if let Some(id) = nowhere {
            self.lost = Some(self.failed.remove(&id).unwrap_or(BucketError::Gone { id }));
        }
        let bucket = Arc::clone(&self.bucket);
        let asking = stream::iter(ranges).map(move |range| {
            let bucket = Arc::clone(&bucket);
            async move {
                let read = read(&bucket, &range).await;
                (range, read)
            }
        });
        self.ranges = Some(Box::pin(asking.buffer_unordered(RANGES)));
        Ok(())
    }
}

/// Neighbours in a pack.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Range {
    /// In their order there; never none.
    frames: Vec<(ChunkId, Place)>,
}

impl Range {
    fn begin(&self) -> u64 {
        self.frames.first().map_or(0, |(_, place)| u64::from(place.offset))
    }

    fn end(&self) -> u64 {
        self.frames.last().map_or(0, |(_, place)| u64::from(place.offset) + u64::from(place.bytes))
    }
}

/// What came of a range.
#[derive(Default)]
struct Decoded {
    whole: Arrived,
    damaged: Vec<(ChunkId, BucketError)>,
}

/// The ranges that these chunks are in, and one of those that are not anywhere. Blocks.
fn plan(catalogue: &Catalogue, ids: &[ChunkId], attempt: usize) -> Result<(Vec<Range>, Option<ChunkId>), BucketError> {
    let (mut places, mut nowhere) = (Vec::with_capacity(ids.len()), None);
    for id in ids {
        match catalogue.places(*id)?.get(attempt) {
            Some(place) => places.push((*place, *id)),
            None => nowhere = Some(*id),
        }
    }
    places.sort_unstable_by_key(|(place, _)| (place.pack, place.offset));
    places.dedup();
    let mut ranges = Vec::<Range>::new();
    for (place, id) in places {
        if let Some(range) = ranges.last_mut()
            && range.frames[0].1.pack == place.pack
            && u64::from(place.offset) <= range.end() + GAP_BYTES
            && u64::from(place.offset) + u64::from(place.bytes) - range.begin() <= RANGE_BYTES
        {
            range.frames.push((id, place));
        } else {
            ranges.push(Range { frames: vec![(id, place)] });
        }
    }
    Ok((ranges, nowhere))
}

async fn read(bucket: &Bucket, range: &Range) -> Result<Decoded, BucketError> {
    let Some((_, first)) = range.frames.first() else { return Ok(Decoded::default()) };
    let (name, begin) = (first.pack.object(), range.begin());
    let bytes = bucket.objects.get_range(&name, begin..range.end()).await?;
    let frames = range.frames.clone();
    let decoding = blocking(move || {
        let mut decoded = Decoded::default();
        for (id, place) in frames {
            // It is within what was asked for, and has come.
            let at = usize::try_from(u64::from(place.offset) - begin).unwrap_or(usize::MAX);
            let frame = bytes.slice(at..at + place.bytes as usize);
            match decode_frame(id, &frame) {
                Ok(contents) => decoded.whole.push((id, contents)),
                Err(error) => decoded.damaged.push((id, BucketError::damaged(&name, error))),
            }
        }
        decoded
    });
    decoding.await.map_err(|_| BucketError::Panicked)
}

/// Requests at a time: what they carry is more than a link of 1 Gbit/s holds over 100 ms.
pub const RANGES: usize = 8;
/// The most that one of them is for.
pub const RANGE_BYTES: u64 = 4 << 20;
/// What is read along with it rather than asking twice.
const GAP_BYTES: u64 = 128 << 10;
