//! A bucket: what is there, and what may be relied on.
//!
//! Whoever adds to a bucket relies on chunks that others have brought, and whoever collects takes what nothing needs. What keeps them apart
//! is time, and an order of looking that everybody keeps:
//!
//! 1. A [look](Bucket::look) reads first which packs are doomed, then which packs there are, then which records.
//! 2. A pack that no record needs is *doomed*: an object says so. It goes when that is a grace period old, and still no record needs it.
//! 3. Whoever writes a record relies on what a look has seen in packs that were not doomed, on what the records need that it has seen, and on
//!    what was sent since. None of that goes before a grace period has passed since the look. So a record is written within half of one, or
//!    not at all ([`BucketError::TooLate`]).
//!
//! The grace period is the bucket's own (`terms`), and all who use it go by it. Their clocks need not agree: ages are told by the server's,
//! and durations by each one's own.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use object_store::ObjectStore;
use sterna_runtime::work::blocking;
use sterna_types::ByteRate;
use tokio::time::Instant;

use crate::catalogue::Catalogue;
use crate::error::BucketError;
use crate::names::{DOOMED, PACKS, PackId, RecordKey, VOLUMES, VolumeKey};
use crate::objects::{Listed, Objects};
use crate::pace::Pace;
use crate::pack::{Entry, MAX_PACK_BYTES, TAIL_BYTES, TARGET_BYTES, parse_tail, where_index_begins};
use crate::record::{MAX_RECORD_BYTES, VolumeRecord};
use crate::terms::Terms;

/// How a bucket is used.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where it is remembered what is in it: a directory of its own.
    pub catalogue: PathBuf,
    /// How much is sent in a second.
    pub rate: Option<ByteRate>,
    /// How long what nothing needs is left, in a bucket that nobody has used yet.
    pub grace: Duration,
}

/// A bucket that is open.
pub struct Bucket {
    pub(crate) objects: Objects,
    pub(crate) catalogue: Arc<Catalogue>,
    terms: Terms,
    pub(crate) pace: Pace,
    /// When a pack is sent.
    pub(crate) target_bytes: usize,
    /// One look at a time, and the last one.
    looked: tokio::sync::Mutex<Option<Look>>,
    usage: Mutex<Usage>,
}

/// What a look has seen.
#[derive(Clone, Debug)]
pub struct Look {
    /// Before it began.
    pub at: Instant,
    /// The records.
    pub records: BTreeSet<RecordKey>,
}

/// How much there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Packs, and their bytes.
    pub packs: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// How many of them nothing needs.
    pub doomed_packs: u64,
    /// How many cannot be read.
    pub damaged_packs: u64,
    /// Records of volumes.
    pub records: u64,
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bucket").field("terms", &self.terms).finish_non_exhaustive()
    }
}

impl Bucket {
    /// Opens the bucket behind `store`, below `prefix`; one that nobody has used yet gets its terms.
    ///
    /// # Errors
    /// [`BucketError`]: it cannot be reached, refuses, or was written by a later program.
    ///
    /// # Cancel safety
    /// May be dropped at any time.
    pub async fn open(store: Arc<dyn ObjectStore>, prefix: &str, options: Options) -> Result<Self, BucketError> {
        let objects = Objects::new(store, prefix);
        let terms = Terms::of(&objects, options.grace).await?;
        let (path, id) = (options.catalogue, terms.id.clone());
        let catalogue = blocking(move || Catalogue::open(&path, &id)).await.map_err(|_| BucketError::Panicked)??;
        // With a limit, what is sent at once takes some seconds.
        let target_bytes = options.rate.map_or(TARGET_BYTES, |rate| {
            usize::try_from(rate.0 * SECONDS_OF_PACK).unwrap_or(TARGET_BYTES).clamp(LEAST_TARGET, TARGET_BYTES)
        });
        Ok(Self {
            objects,
            catalogue: Arc::new(catalogue),
            terms,
            pace: Pace::new(options.rate),
            target_bytes,
            looked: tokio::sync::Mutex::default(),
            usage: Mutex::default(),
        })
    }

    /// How long what nothing needs is left.
    pub fn grace(&self) -> Duration {
        self.terms.grace()
    }

    /// How much there was at the last look, and has been sent since.
    pub fn usage(&self) -> Usage {
        *self.usage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What there is, as of a look that is at most so old; a new one is had where the last one is older.
    ///
    /// # Errors
    /// [`BucketError`].
    ///
    /// # Cancel safety
    /// May be dropped at any time.
    pub async fn look(&self, max_age: Duration) -> Result<Look, BucketError> {
        let mut looked = self.looked.lock().await;
        if let Some(look) = &*looked
            && look.at.elapsed() < max_age
        {
            return Ok(look.clone());
        }
        *looked = None;
        let at = Instant::now();
        let parsed =
            |listed: Vec<Listed>| listed.into_iter().filter_map(|listed| Some((last_part(&listed.name)?, listed)));
        let doomed: HashSet<PackId> = parsed(self.objects.list(DOOMED).await?).map(|(pack, _)| pack).collect();
        let packs: HashMap<PackId, Listed> = parsed(self.objects.list(PACKS).await?).collect();
        let mut usage = Usage {
            packs: packs.len() as u64,
            bytes: packs.values().map(|pack| pack.bytes).sum(),
            doomed_packs: doomed.iter().filter(|pack| packs.contains_key(pack)).count() as u64,
            ..Usage::default()
        };
        usage.damaged_packs = self.learn(&packs).await?;
        self.catalogue.set_doomed(doomed);
        let records = self.objects.list(VOLUMES).await?;
        let records: BTreeSet<_> = records.iter().filter_map(|listed| listed.name.parse::<RecordKey>().ok()).collect();
        usage.records = records.len() as u64;
        *self.usage.lock().unwrap_or_else(PoisonError::into_inner) = usage;
        let look = Look { at, records };
        *looked = Some(look.clone());
        Ok(look)
    }

    /// Has the catalogue know these packs and no others; how many of them cannot be read.
    async fn learn(&self, packs: &HashMap<PackId, Listed>) -> Result<u64, BucketError> {
        let known = self.in_catalogue(Catalogue::packs).await?;
        let gone: Vec<_> = known.iter().copied().filter(|pack| !packs.contains_key(pack)).collect();
        self.in_catalogue(move |catalogue| gone.into_iter().try_for_each(|pack| catalogue.remove(pack))).await?;
        let is_new = |(pack, _): &(&PackId, &Listed)| !known.contains(pack);
        let new: Vec<_> = packs.iter().filter(is_new).map(|(pack, listed)| (*pack, listed.clone())).collect();
        let mut indexes = stream::iter(new)
            .map(|(pack, listed)| async move { (pack, self.read_index(&listed).await) })
            .buffer_unordered(REQUESTS);
        let mut damaged = 0;
        while let Some((pack, entries)) = indexes.next().await {
            match entries {
                Ok(entries) => {
                    self.in_catalogue(move |catalogue| catalogue.add(pack, &entries)).await?;
                }
                // It has gone since it was listed.
                Err(BucketError::NotFound { .. }) => {}
                Err(error @ BucketError::Damaged { .. }) => {
                    damaged += 1;
                    tracing::warn!(%error, "what is in a pack of the bucket is not used");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(damaged)
    }

    async fn read_index(&self, listed: &Listed) -> Result<Vec<Entry>, BucketError> {
        let (name, bytes) = (&listed.name, listed.bytes);
        if bytes > MAX_PACK_BYTES {
            return Err(BucketError::damaged(name, format!("no pack has {bytes} bytes")));
        }
        let damaged = |error| BucketError::damaged(name, error);
        let mut tail = self.objects.get_range(name, bytes.saturating_sub(TAIL_BYTES)..bytes).await?;
        let begin = where_index_begins(&tail, bytes).map_err(damaged)?;
        if bytes - begin > tail.len() as u64 {
            tail = self.objects.get_range(name, begin..bytes).await?;
        }
        parse_tail(&tail, bytes).map_err(damaged)
    }

    /// Does something with the catalogue, which blocks.
    pub(crate) async fn in_catalogue<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Catalogue) -> Result<T, BucketError> + Send + 'static,
    ) -> Result<T, BucketError> {
        let catalogue = Arc::clone(&self.catalogue);
        blocking(move || work(&catalogue)).await.map_err(|_| BucketError::Panicked)?
    }

    /// Reads a record.
    ///
    /// # Errors
    /// [`BucketError`]; [`BucketError::NotFound`] where a newer one has taken its place.
    pub async fn record(&self, key: &RecordKey) -> Result<VolumeRecord, BucketError> {
        VolumeRecord::unseal(key, &self.objects.get(&key.object(), MAX_RECORD_BYTES).await?)
    }

    /// The newest record of each volume, or why it cannot be read, by its key.
    ///
    /// # Errors
    /// [`BucketError`]: what is there cannot be listed.
    pub async fn newest_records(&self) -> Result<Vec<(RecordKey, Result<VolumeRecord, BucketError>)>, BucketError> {
        let look = self.look(Duration::ZERO).await?;
        let mut newest = HashMap::<VolumeKey, RecordKey>::new();
        // The later ones are greater.
        newest.extend(look.records.iter().map(|key| (key.of, *key)));
        let reading = stream::iter(newest.into_values()).map(|key| async move { (key, self.record(&key).await) });
        let mut records: Vec<_> = reading.buffer_unordered(REQUESTS).collect().await;
        records.sort_by_key(|(key, _)| *key);
        Ok(records)
    }

    /// Removes all records of a volume; how many there were. What only they needed goes with the collections that follow. Durable on return.
    ///
    /// # Errors
    /// [`BucketError`]: some of them may be gone.
    pub async fn forget(&self, volume: VolumeKey) -> Result<u64, BucketError> {
        let look = self.look(Duration::ZERO).await?;
        let records: Vec<_> = look.records.into_iter().filter(|key| key.of == volume).collect();
        // The oldest first: what is left after an interruption is the newest.
        for key in &records {
            self.objects.delete(&key.object()).await?;
        }
        self.forget_look().await;
        Ok(records.len() as u64)
    }

    /// The next who looks has a new look.
    pub(crate) async fn forget_look(&self) {
        *self.looked.lock().await = None;
    }

    /// Notes a record that was written, and those that it has taken the place of.
    pub(crate) async fn note_record(&self, key: RecordKey, gone: &HashSet<RecordKey>) {
        if let Some(look) = &mut *self.looked.lock().await {
            look.records.insert(key);
            look.records.retain(|key| !gone.contains(key));
        }
    }

    /// Notes a pack that was sent.
    pub(crate) fn note_pack(&self, bytes: u64) {
        let mut usage = self.usage.lock().unwrap_or_else(PoisonError::into_inner);
        usage.packs += 1;
        usage.bytes += bytes;
    }
}

/// What the last part of a name names.
fn last_part<T: FromStr>(name: &str) -> Option<T> {
    name.rsplit('/').next()?.parse().ok()
}

/// Small requests at a time: of a site that is rebuilt, tens of thousands of indexes.
pub(crate) const REQUESTS: usize = 16;
/// With a limit, a pack has as much as may be sent in so long.
const SECONDS_OF_PACK: u64 = 4;
const LEAST_TARGET: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Fixture;

    #[tokio::test]
    async fn who_comes_first_says_what_the_grace_period_is() {
        let fixture = Fixture::new();
        let first = fixture.open_with(Duration::from_secs(7)).await;
        let second = fixture.open_with(Duration::from_secs(9)).await;
        assert_eq!((first.grace(), second.grace()), (Duration::from_secs(7), Duration::from_secs(7)));
    }

    #[tokio::test]
    async fn what_is_not_ours_is_passed_over_and_what_is_damaged_is_counted() {
        let fixture = Fixture::new();
        let bucket = fixture.open().await;
        fixture.put("packs/readme", b"not ours").await;
        fixture.put("volumes/readme", b"not ours").await;
        fixture.put(&format!("packs/{}", "7".repeat(32)), b"STRNBPAK and nothing of use").await;
        let look = bucket.look(Duration::ZERO).await.expect("a look");
        assert!(look.records.is_empty());
        assert_eq!(bucket.usage(), Usage { packs: 1, bytes: 27, damaged_packs: 1, ..Usage::default() });
    }
}
