//! The bucket of a node: how it is reached, what of the node's volumes is there, and how it goes.
//!
//! * `duty`: the task that sends what the volumes of this node have published. `due`: what that is.
//! * here: the connection, which is made when it is first needed and kept, and what there is to tell.
//!
//! What administrators ask of it is in [`super::admin`], and how chunks come from it in [`super::replication`].

mod due;
mod duty;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use sterna_bucket::names::RecordKey;
use sterna_bucket::upload::Sent;
use sterna_bucket::{Bucket, BucketError, Credentials, Options, Usage, VolumeRecord, location};
use sterna_consensus::state::volume::Volume as VolumeEntry;
use sterna_types::{BLOCK_SIZE, VolumeId};
use tokio::time::Instant;

pub(super) use due::record_of;
pub(super) use duty::run;

use super::config::BucketConfig;

/// The bucket that a node is configured with.
pub(super) struct BucketLink {
    config: BucketConfig,
    credentials: Credentials,
    authority: Option<Vec<u8>>,
    catalogue: PathBuf,
    opened: tokio::sync::Mutex<Option<Arc<Bucket>>>,
    state: Mutex<State>,
}

impl fmt::Debug for BucketLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BucketLink").field("location", &self.config.location).finish_non_exhaustive()
    }
}

/// How it goes.
#[derive(Debug, Default)]
struct State {
    /// What is there of the volumes of this node, as far as it has been looked at.
    volumes: BTreeMap<VolumeId, There>,
    /// Since when the bucket fails, and how; of all that is not one volume's.
    failure: Option<String>,
    succeeded: Option<Instant>,
    is_sending: bool,
    sent: Sent,
    usage: Option<Usage>,
    /// Something that a record needs may be gone: the next pass looks at all chunks of all volumes, and not only at what is new.
    walks_all: bool,
}

/// What is there of a volume.
#[derive(Clone, Debug, Default)]
struct There {
    /// The newest record.
    record: Option<VolumeRecord>,
    /// Since when it has been known that there is something newer here.
    behind_since: Option<Instant>,
    /// Why it does not come further.
    failure: Option<String>,
}

/// How it goes, for people.
#[derive(Clone, Debug)]
pub(super) struct Report {
    /// Which bucket.
    pub(super) url: String,
    /// What keeps it from being used.
    pub(super) failure: Option<String>,
    /// How long ago all that was due had been sent.
    pub(super) succeeded: Option<Duration>,
    /// Whether something is being sent now.
    pub(super) is_sending: bool,
    /// By this node, since it was started.
    pub(super) sent: Sent,
    /// How much there is; `None` before it was looked at.
    pub(super) usage: Option<Usage>,
}

/// How far a volume is there, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lag {
    /// The epoch and the generation that are there.
    pub(super) there: Option<(u64, u64)>,
    /// Of the writes that are published, and not there.
    pub(super) behind_bytes: u64,
    /// How long it has been so.
    pub(super) behind: Duration,
    /// Whether all of it is there, its snapshots too.
    pub(super) is_current: bool,
    /// Why it does not come further.
    pub(super) failure: Option<String>,
}

impl BucketLink {
    /// That of a node whose data is in `directory`. Asks nothing of the bucket yet.
    ///
    /// # Errors
    /// Nobody says who asks, or a file cannot be read.
    pub(super) fn new(config: &BucketConfig, directory: &Path) -> Result<Self> {
        let credentials = config.credentials.load()?;
        let read = |path: &PathBuf| {
            fs::read(path).with_context(|| format!("cannot read 'ca' of [bucket], {}", path.display()))
        };
        let authority = config.authority.as_ref().map(read).transpose()?;
        // Wrong settings are told at the start; what the bucket says of them, when it is asked.
        location::connect(&config.location, &credentials, authority.as_deref()).context("[bucket] cannot be used")?;
        let (opened, state) = (tokio::sync::Mutex::default(), Mutex::default());
        Ok(Self { config: config.clone(), credentials, authority, catalogue: directory.join(CATALOGUE), opened, state })
    }

    /// The bucket, connected to.
    ///
    /// # Errors
    /// [`BucketError`]; the next call tries again.
    ///
    /// # Cancel safety
    /// May be dropped at any time.
    pub(super) async fn open(&self) -> Result<Arc<Bucket>, BucketError> {
        let mut opened = self.opened.lock().await;
        if let Some(bucket) = &*opened {
            return Ok(Arc::clone(bucket));
        }
        let BucketConfig { location, rate, grace, .. } = &self.config;
        let store = location::connect(location, &self.credentials, self.authority.as_deref())?;
        let options = Options { catalogue: self.catalogue.clone(), rate: *rate, grace: *grace };
        let bucket = Arc::new(Bucket::open(store, &location.prefix, options).await?);
        tracing::info!(bucket = %location, "the bucket answers");
        *opened = Some(Arc::clone(&bucket));
        Ok(bucket)
    }

    /// How it goes.
    pub(super) fn report(&self) -> Report {
        let state = self.state();
        Report {
            url: self.config.location.to_string(),
            failure: state.failure.clone(),
            succeeded: state.succeeded.map(|at| at.elapsed()),
            is_sending: state.is_sending,
            sent: state.sent,
            usage: state.usage,
        }
    }

    /// How far a volume of this node is there, of which `record` is to be.
    pub(super) fn lag(&self, entry: &VolumeEntry, record: &VolumeRecord) -> Lag {
        let there = self.state().volumes.get(&entry.id).cloned().unwrap_or_default();
        let published = entry.published;
        let written = there.record.as_ref().map_or(0, |record| record.written_blocks);
        let is_current = there.record.as_ref() == Some(record);
        let is_published = there
            .record
            .as_ref()
            .is_some_and(|record| (record.epoch, record.generation) == (entry.epoch, published.generation.0));
        Lag {
            there: there.record.as_ref().map(|record| (record.epoch.number(), record.generation)),
            behind_bytes: if is_published { 0 } else { published.written_blocks.saturating_sub(written) * BLOCK_SIZE },
            behind: there.behind_since.filter(|_| !is_current).map_or(Duration::ZERO, |since| since.elapsed()),
            is_current,
            failure: there.failure,
        }
    }

    /// Something that was there is gone, or damaged: what is here of it is sent again.
    pub(super) fn distrust(&self) {
        let mut state = self.state();
        state.walks_all = true;
        state.volumes.values_mut().for_each(|there| there.record = None);
    }

    /// Takes in what a look has seen: records that are gone are due again, and what only packs had that are damaged now.
    fn looked(&self, records: &BTreeSet<RecordKey>, usage: Usage) {
        let damaged_before = self.state().usage.map_or(0, |usage| usage.damaged_packs);
        if usage.damaged_packs > damaged_before {
            self.distrust();
        }
        let mut state = self.state();
        state.usage = Some(usage);
        let is_gone = |there: &There| there.record.as_ref().is_some_and(|record| !records.contains(&record.key()));
        state.volumes.values_mut().filter(|there| is_gone(there)).for_each(|there| there.record = None);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each field is right by itself.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where it is remembered what is in the bucket. It can be removed while the node does not run.
const CATALOGUE: &str = "bucket";
