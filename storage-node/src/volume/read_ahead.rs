//! Reading ahead of a guest that reads on and on through what has not arrived: having brought what
//! [`ReadAhead`](crate::prefetch::ReadAhead) says.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use sterna_types::{BLOCK_SIZE, ByteOffset, ByteRange};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::read::blocks_of;
use super::storage::lock;
use super::volume::Volume;
use crate::prefetch::ReadAhead;

/// What is read ahead in one volume.
#[derive(Debug)]
pub(super) struct Ahead {
    readers: Mutex<ReadAhead>,
    /// The block at which the reader of now is to be noticed; none has this number where there is none.
    mark: AtomicU64,
    /// What is asked for at a time.
    turns: Arc<Semaphore>,
}

impl Default for Ahead {
    fn default() -> Self {
        let (readers, mark) = (Mutex::default(), AtomicU64::new(u64::MAX));
        Self { readers, mark, turns: Arc::new(Semaphore::new(MAX_AT_ONCE)) }
    }
}

impl Volume {
    /// Whether a read of this range comes to the mark. Costs a look at one number in memory.
    #[inline]
    pub(super) fn comes_to_mark(&self, range: ByteRange) -> bool {
        let mark = self.ahead.mark.load(Ordering::Relaxed);
        mark != u64::MAX && blocks_of(range).contains(&mark)
    }

    /// What is to be brought beside a range that is read, some of which is not here, or which comes to the mark: in the order in which it
    /// is needed, each part with the right to have it brought.
    pub(super) fn reads_ahead(&self, range: ByteRange, is_missed: bool) -> Vec<(OwnedSemaphorePermit, ByteRange)> {
        let room = self.ahead.turns.available_permits() as u64 * MAX_ASKED;
        let (ahead, mark) = {
            let mut readers = lock(&self.ahead.readers);
            let ahead = readers.comes(&blocks_of(range), is_missed, self.size().0 / BLOCK_SIZE, room);
            (ahead, readers.mark())
        };
        self.ahead.mark.store(mark.unwrap_or(u64::MAX), Ordering::Relaxed);
        let Some(ahead) = ahead else { return Vec::new() };
        let at = |block: u64| ByteOffset(block * BLOCK_SIZE);
        let part = |from: u64| {
            let turn = Arc::clone(&self.ahead.turns).try_acquire_owned().ok()?;
            Some((turn, ByteRange::between(at(from), at((from + MAX_ASKED).min(ahead.end)))))
        };
        (ahead.start..ahead.end).step_by(usize::try_from(MAX_ASKED).expect("a few")).map_while(part).collect()
    }
}

/// Parts that are asked for at a time, of one volume: 32 MiB together.
const MAX_AT_ONCE: usize = 8;
/// 4 MiB: what is asked for together arrives together.
const MAX_ASKED: u64 = 1024;
