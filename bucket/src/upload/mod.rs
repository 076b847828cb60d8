//! Chunks and records into a bucket.
//!
//! 1. A look says what is there. *Nothing has happened.*
//! 2. All that a root needs and the bucket does not have goes into packs, which are sent as they are full ([`Session::send`]). *Whoever
//!    goes on finds the packs that have come; those that no record ever needs are collected.*
//! 3. The last packs are sent, and have come ([`Session::finish`]). *The same.*
//! 4. The record is written, within half a grace period of the look ([`Session::record`]). *It is there, and all that it needs.*
//! 5. Records whose place it takes are removed. *They are removed after the next one.*
//!
//! What a root needs is found by walking it beside one whose record is there: below what both have in the same place everything is in
//! the bucket. The walk is that of a follower ([`Gaps`]), which is told of the bucket when it asks what
//! is here.

mod lacking;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use sterna_runtime::work::blocking_on;
use sterna_storage_node::chunk_store::{ChunkStore, StoreError};
use sterna_storage_node::gaps::{Gap, Gaps};
use sterna_types::Root;
use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::bucket::Bucket;
use crate::error::BucketError;
use crate::names::{PackId, RecordKey, VolumeKey};
use crate::pack::{Entry, PackWriter};
use crate::record::VolumeRecord;
use lacking::{Lacking, Pending};

/// Where the work of sending is done, and what it gives way to.
#[derive(Clone)]
pub struct Giving {
    /// Threads for what takes a disk's and a processor's time.
    pub upkeep: Handle,
    /// Waits until nothing more urgent wants the link.
    pub until_clear: Arc<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>,
}

/// What was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Chunks that were not there.
    pub chunks: u64,
    /// Packs that have come.
    pub packs: u64,
    /// Bytes of these.
    pub bytes: u64,
}

/// The sending of some volumes: they share packs, so that small changes of many volumes are few objects.
///
/// # Cancel safety
/// It may be dropped at any time, and so may its calls; after one that was dropped, or has failed, it is of no more use.
pub struct Session {
    bucket: Arc<Bucket>,
    store: Arc<dyn ChunkStore>,
    giving: Giving,
    lacking: Arc<Lacking>,
    /// The pack that is being filled.
    writer: Option<PackWriter>,
    /// Those that are on their way.
    sending: FuturesUnordered<BoxFuture<'static, Result<u64, BucketError>>>,
    /// When it was looked.
    looked: Instant,
    records: BTreeSet<RecordKey>,
    sent: Sent,
    watcher: Box<dyn FnMut(Sent) + Send>,
}

impl Session {
    /// Step 1: begins to send from a node's store.
    ///
    /// # Errors
    /// [`BucketError`].
    pub async fn begin(
        bucket: &Arc<Bucket>,
        store: &Arc<dyn ChunkStore>,
        giving: Giving,
        watcher: impl FnMut(Sent) + Send + 'static,
    ) -> Result<Self, BucketError> {
        let look = bucket.look(bucket.grace().mul_f64(LOOK_SHARE).min(LOOK_AGE)).await?;
        let lacking = Lacking::new(Arc::clone(store), Arc::clone(&bucket.catalogue));
        Ok(Self {
            bucket: Arc::clone(bucket),
            store: Arc::clone(store),
            giving,
            lacking: Arc::new(lacking),
            writer: None,
            sending: FuturesUnordered::new(),
            looked: look.at,
            records: look.records,
            sent: Sent::default(),
            watcher: Box::new(watcher),
        })
    }

    /// The newest record that is there of a volume: all that it needs is there.
    pub fn newest(&self, volume: VolumeKey) -> Option<RecordKey> {
        self.records.iter().rev().find(|key| key.of == volume).copied()
    }

    /// Step 2: has all of `new` sent; of `old` all is there, or was sent in this session. Where a part of the map of `old` is not in the
    /// store any more, all of `new` is walked.
    ///
    /// # Errors
    /// [`BucketError`]. [`BucketError::Map`] where `new` is not whole in the store: the caller holds it.
    pub async fn send(&mut self, old: Root, new: Root) -> Result<(), BucketError> {
        match self.walk(old, new).await {
            Err(BucketError::Map(error)) if old != Root::EMPTY => {
                tracing::debug!(%error, "what was sent before is not here any more: all is looked at");
                self.walk(Root::EMPTY, new).await
            }
            result => result,
        }
    }

    async fn walk(&mut self, old: Root, new: Root) -> Result<(), BucketError> {
        let lacking: Arc<dyn ChunkStore> = Arc::clone(&self.lacking) as _;
        let mut gaps = Gaps::new(Arc::clone(&lacking), old, new);
        loop {
            let walked = Arc::clone(&lacking);
            let step = move || {
                let group = gaps.next(&walked.pin());
                (gaps, group)
            };
            let (back, group) = on(&self.giving.upkeep, step).await?;
            gaps = back;
            let Some(group) = group? else { return Ok(()) };
            self.add(group).await?;
        }
    }

    /// Adds chunks to packs, and has those sent that are full.
    async fn add(&mut self, group: Vec<Gap>) -> Result<(), BucketError> {
        let mut left = group.into_iter();
        loop {
            let mut writer = self.writer.take().unwrap_or_else(|| PackWriter::new(self.bucket.target_bytes));
            let (store, pending) = (Arc::clone(&self.store), self.lacking.pending());
            let filling = move || {
                let filled = fill(&*store, &pending, &mut writer, &mut left);
                filled.map(|()| (writer, left))
            };
            let (writer, rest) = on(&self.giving.upkeep, filling).await??;
            left = rest;
            if !writer.is_full() {
                self.writer = Some(writer);
                return Ok(());
            }
            self.dispatch(writer).await?;
        }
    }

    /// Has a pack sent, as soon as there are not too many on their way.
    async fn dispatch(&mut self, writer: PackWriter) -> Result<(), BucketError> {
        while self.sending.len() >= PACKS_AT_ONCE {
            self.one_has_come().await?;
        }
        let (contents, entries) = on(&self.giving.upkeep, move || writer.finish()).await?;
        (self.giving.until_clear)().await;
        self.sent.chunks += entries.len() as u64;
        let (bucket, pending) = (Arc::clone(&self.bucket), self.lacking.pending());
        self.sending.push(Box::pin(async move {
            let bytes = contents.len() as u64;
            send_pack(&bucket, contents, entries.clone()).await?;
            pending.have_come(entries.iter().map(|entry| entry.id));
            Ok(bytes)
        }));
        Ok(())
    }

    async fn one_has_come(&mut self) -> Result<(), BucketError> {
        if let Some(came) = self.sending.next().await {
            self.sent.bytes += came?;
            self.sent.packs += 1;
            (self.watcher)(self.sent);
        }
        Ok(())
    }

    /// Step 3: has all that was added come. Durable on return.
    ///
    /// # Errors
    /// [`BucketError`].
    pub async fn finish(&mut self) -> Result<Sent, BucketError> {
        if let Some(writer) = self.writer.take().filter(|writer| !writer.is_empty()) {
            self.dispatch(writer).await?;
        }
        while !self.sending.is_empty() {
            self.one_has_come().await?;
        }
        Ok(self.sent)
    }

    /// Steps 4 and 5: writes the record of a volume, all roots of which were sent, and have come. Durable on return.
    ///
    /// # Errors
    /// [`BucketError`]; [`BucketError::TooLate`]: nothing of it is written, and what was sent is found by the next session.
    ///
    /// # Panics
    /// Where something has not come yet.
    pub async fn record(&mut self, record: &VolumeRecord) -> Result<(), BucketError> {
        assert!(self.writer.is_none() && self.sending.is_empty(), "a record comes after all that it needs");
        let key = record.key();
        let contents = record.seal()?;
        if self.looked.elapsed() > self.bucket.grace() / 2 {
            self.bucket.forget_look().await;
            return Err(BucketError::TooLate);
        }
        self.bucket.objects.put(&key.object(), contents).await?;
        self.records.insert(key);
        let former: HashSet<_> =
            self.records.iter().filter(|other| other.of == key.of && **other < key).copied().collect();
        for former in &former {
            if let Err(error) = self.bucket.objects.delete(&former.object()).await {
                tracing::debug!(%error, "a record whose place another one has taken stays for now");
            }
        }
        self.records.retain(|key| !former.contains(key));
        self.bucket.note_record(key, &former).await;
        Ok(())
    }
}

async fn on<T: Send + 'static>(upkeep: &Handle, work: impl FnOnce() -> T + Send + 'static) -> Result<T, BucketError> {
    blocking_on(upkeep, work).await.map_err(|_| BucketError::Panicked)
}

/// Sends a pack, and notes what is in it. Durable on return.
pub(crate) async fn send_pack(bucket: &Bucket, contents: Bytes, entries: Vec<Entry>) -> Result<PackId, BucketError> {
    let (pack, bytes) = (PackId::new()?, contents.len() as u64);
    bucket.pace.send(bytes).await;
    let name = pack.object();
    bucket.objects.put(&name, contents).await?;
    bucket.in_catalogue(move |catalogue| catalogue.add(pack, &entries)).await?;
    bucket.note_pack(bytes);
    Ok(pack)
}

/// Adds chunks of a node's store until the pack is full, or there are no more. Blocks.
fn fill(
    store: &dyn ChunkStore,
    pending: &Pending,
    writer: &mut PackWriter,
    left: &mut std::vec::IntoIter<Gap>,
) -> Result<(), BucketError> {
    while !writer.is_full()
        && let Some(Gap { wanted, .. }) = left.next()
    {
        let contents = store.get(wanted.id)?.ok_or(StoreError::Missing { id: wanted.id })?;
        writer.add(wanted.id, wanted.kind, &contents);
        pending.is_coming(wanted.id);
    }
    Ok(())
}

/// Packs that are on their way: one is sent while the next one is filled, and a long way is filled.
const PACKS_AT_ONCE: usize = 3;
/// How old a look may be at the beginning; much less than the time in which a record has to be written.
const LOOK_SHARE: f64 = 0.125;
const LOOK_AGE: Duration = Duration::from_secs(600);
