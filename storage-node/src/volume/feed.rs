//! What is written to a volume, record by record, for whoever keeps a mirror of it at another node (design section 4, `sync:N`).
//!
//! ```text
//! owner                                                   member
//! ─────                                                   ──────
//! follow: a root, what is newer, and from there on ─────> has all of the root, then: rebase (mirror.rs)
//! each append, in the order of the journal ─────────────> append, in the same order
//! a flush waits for Copies ────── wanted ───────────────> sync
//!                          <───── durable through s ─────
//! ```
//!
//! A [`Feed`] says where in the journal each record is, and holds its file, so that it is read when it is sent and not copied when it is
//! written. Whoever is too slow for what a feed holds is cut off, and begins anew: what is not sealed stays bounded by the journal's
//! limit, and what is held beyond that by [`MAX_BEHIND_BYTES`].
//!
//! Who has to have a flush before it is acknowledged is not known here: that is [`Copies`].

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, Weak};

use sterna_types::{BLOCK_SIZE, ByteSize, DeviceError};
use tokio::sync::Notify;

use super::absence::Absence;
use super::error::VolumeError;
use super::overlay::{Overlay, Skip, Source};
use super::storage::lock;
use super::volume::{SealedState, Volume};
use super::write::Turn;
use crate::journal::record::{HEADER_BYTES, Sequence};

/// Those who hold copies of what is flushed.
pub trait Copies: fmt::Debug + Send + Sync + 'static {
    /// Whether a flush may have to wait for any of them now. Does not block.
    fn are_needed(&self) -> bool;

    /// Has each of them that counts make all records through this one durable, from this call on, and waits until they have.
    ///
    /// # Errors
    /// What the volume's client is to be told: this node does not answer for the volume any more.
    ///
    /// # Cancel safety
    /// May be dropped at any time.
    fn durable(&self, through: Sequence) -> Copied<'_>;
}

/// See [`Copies::durable`].
pub type Copied<'a> = Pin<Box<dyn Future<Output = Result<(), DeviceError>> + Send + 'a>>;

/// One change of a volume.
#[derive(Clone, Debug)]
pub struct FeedRecord {
    /// Its place in the history of the owner's journal.
    pub sequence: Sequence,
    /// Which blocks it changes.
    pub blocks: Range<u64>,
    source: Source,
}

impl FeedRecord {
    /// Whether the blocks are a hole from then on.
    pub fn is_hole(&self) -> bool {
        matches!(self.source, Source::Hole)
    }

    /// What the blocks hold from then on; nothing of a hole. Blocks.
    ///
    /// # Errors
    /// What the system says.
    ///
    /// # Panics
    /// Where there are more of them than fit the memory: a record has at most 1 MiB.
    pub fn data(&self) -> io::Result<Vec<u8>> {
        let Source::Journal { file, at } = &self.source else { return Ok(Vec::new()) };
        let bytes = (self.blocks.end - self.blocks.start) * BLOCK_SIZE;
        let mut data = vec![0; usize::try_from(bytes).expect("a record is in memory")];
        file.read_at(*at, &mut data)?;
        Ok(data)
    }

    /// Bytes of the journal that it is.
    pub fn bytes(&self) -> u64 {
        let payload = if self.is_hole() { 0 } else { (self.blocks.end - self.blocks.start) * BLOCK_SIZE };
        HEADER_BYTES as u64 + payload
    }
}

/// Where a mirror begins.
#[derive(Clone, Debug)]
pub struct Beginning {
    /// How large the volume is.
    pub size: ByteSize,
    /// What is sealed.
    pub sealed: SealedState,
    /// What is newer: the changes that came of it, in the order of the blocks.
    pub newer: Vec<FeedRecord>,
    /// Blocks of data writes in all of that: see [`super::VolumeRecord::written_blocks`].
    pub written_blocks: u64,
    /// The newest change in it.
    pub through: Sequence,
}

/// The changes of a volume from one moment on.
#[derive(Debug, Default)]
pub struct Feed {
    queue: Mutex<Queue>,
    news: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    records: VecDeque<FeedRecord>,
    bytes: u64,
    is_cut: bool,
}

/// A feed says nothing more: the volume was closed, or there was more than a feed holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "what is written to the volume is not passed on any more: it was closed, or more was written than could be sent"
)]
pub struct FeedCut;

impl Feed {
    /// The next changes, at least one of them and about `bytes` of data at most. Waits for the first.
    ///
    /// # Errors
    /// [`FeedCut`], for good.
    ///
    /// # Cancel safety
    /// Nothing is lost where it is dropped.
    pub async fn take(&self, bytes: u64) -> Result<Vec<FeedRecord>, FeedCut> {
        loop {
            let news = self.news.notified();
            {
                let mut queue = lock(&self.queue);
                if queue.is_cut {
                    return Err(FeedCut);
                }
                if !queue.records.is_empty() {
                    return Ok(queue.take(bytes));
                }
            }
            news.await;
        }
    }

    fn push(&self, record: FeedRecord) {
        let mut queue = lock(&self.queue);
        if !queue.is_cut {
            queue.bytes += record.bytes();
            queue.records.push_back(record);
            if queue.bytes > MAX_BEHIND_BYTES || queue.records.len() > MAX_BEHIND_RECORDS {
                queue.cut();
            }
        }
        drop(queue);
        self.news.notify_waiters();
    }

    fn cut(&self) {
        lock(&self.queue).cut();
        self.news.notify_waiters();
    }
}

impl Queue {
    fn take(&mut self, bytes: u64) -> Vec<FeedRecord> {
        let (mut taken, mut sum) = (Vec::new(), 0);
        while let Some(record) = self.records.pop_front() {
            sum += record.bytes();
            taken.push(record);
            if sum >= bytes {
                break;
            }
        }
        self.bytes -= sum;
        taken
    }

    /// Lets go of the journal's files.
    fn cut(&mut self) {
        *self = Self { is_cut: true, ..Self::default() };
    }
}

impl Volume {
    /// Where a mirror begins now, and every change from there on.
    ///
    /// # Errors
    /// [`VolumeError`]; [`VolumeError::Absent`] where something of the tail that the volume came with has not arrived.
    pub fn follow(&self) -> Result<(Beginning, Arc<Feed>), VolumeError> {
        let tail = self.tail();
        if !tail.is_empty() {
            let absence = Absence { blocks: tail.data().collect(), ..Absence::default() };
            return Err(VolumeError::Absent(Box::new(absence)));
        }
        let turn = self.turn()?;
        let layers = self.layers();
        let mut newer = Overlay::default();
        layers.frozen.iter().for_each(|frozen| newer.put(&frozen.overlay));
        newer.put(&layers.active);
        let through = self.journal.appended();
        let record = |(blocks, source): (Range<u64>, Source)| {
            parts(blocks, source).map(move |(blocks, source)| FeedRecord { sequence: through, blocks, source })
        };
        let beginning = Beginning {
            size: self.size(),
            sealed: layers.sealed.state(),
            newer: newer.runs().map(|(blocks, source)| (blocks, source.clone())).flat_map(record).collect(),
            written_blocks: layers.written_blocks,
            through,
        };
        drop(layers);
        let feed = Arc::new(Feed::default());
        let mut feeds = lock(&self.feeds);
        feeds.retain(|feed| feed.strong_count() > 0);
        feeds.push(Arc::downgrade(&feed));
        self.is_fed.store(true, Ordering::Release);
        drop(feeds);
        drop(turn);
        Ok((beginning, feed))
    }

    /// Passes a change on, in the turn in which it was appended.
    pub(super) fn feed(&self, _turn: &Turn<'_>, sequence: Sequence, blocks: &Range<u64>, source: &Source) {
        if !self.is_fed.load(Ordering::Acquire) {
            return;
        }
        let mut feeds = lock(&self.feeds);
        feeds.retain(|feed| match feed.upgrade() {
            Some(feed) => {
                feed.push(FeedRecord { sequence, blocks: blocks.clone(), source: source.clone() });
                true
            }
            None => false,
        });
        self.is_fed.store(!feeds.is_empty(), Ordering::Release);
    }

    /// Ends all feeds: nothing more is written.
    pub(super) fn cut_feeds(&self) {
        for feed in lock(&self.feeds).drain(..).filter_map(|feed: Weak<Feed>| feed.upgrade()) {
            feed.cut();
        }
    }

    /// Has flushes wait for these copies from now on; for none, where that is `None`.
    pub fn set_copies(&self, copies: Option<Arc<dyn Copies>>) {
        *lock(&self.copies) = copies;
    }

    /// Those that flushes wait for.
    pub(super) fn copies(&self) -> Option<Arc<dyn Copies>> {
        lock(&self.copies).clone()
    }

    /// The newest change that is in the sealed contents.
    pub fn sealed_through(&self) -> Sequence {
        self.layers().sealed.sealed_through
    }

    /// The newest change.
    pub fn appended(&self) -> Sequence {
        self.journal.appended()
    }
}

/// A run of the overlay, in parts that fit a record.
fn parts(blocks: Range<u64>, source: Source) -> impl Iterator<Item = (Range<u64>, Source)> {
    // A hole has no contents, however long it is.
    let step = if matches!(source, Source::Hole) { u64::MAX } else { MAX_PART_BLOCKS };
    let (first, end) = (blocks.start, blocks.end);
    let count = (end - first).div_ceil(step);
    (0..count).map(move |part| {
        let start = first + part * step;
        (start..end.min(start.saturating_add(step)), source.skip(start - first))
    })
}

/// What a member may be behind before it is cut off: two seconds at 1 Gbit/s; as much of the disk is held by it beyond the journal's
/// limit.
const MAX_BEHIND_BYTES: u64 = 256 << 20;
/// The same of small changes: some MiB of memory.
const MAX_BEHIND_RECORDS: usize = 1 << 16;
/// 1 MiB.
const MAX_PART_BLOCKS: u64 = 256;
