//! Garbage collection: mark what the roots reach, sweep the rest, compact what is mostly dead.
//!
//! 1. Begin, while there is no [`StorePin`](super::StorePin): the pack being written is closed, and the packs that there are
//!    now are the ones to be swept. Only then is it asked for the roots.
//! 2. Mark: from the roots down, each chunk once. Data is marked without being read. A chunk that somebody keeps meanwhile is
//!    marked as well, and its references are followed. *A crash in 1 or 2 has changed nothing.*
//! 3. Sweep the index: entries of frames in these packs without a mark are removed, page by page. From here on a chunk
//!    without a mark counts as absent, so that who appends it stores it anew; an entry is removed only if it still names
//!    the frame that was judged, with the lock held under which appends change the index. Then all of it is made durable.
//!    *A crash leaves some dead entries, which can be read still, or frames without entries.*
//! 4. Packs in which no entry points are removed. *A crash leaves some of them: open does nothing about them, the next
//!    collection finds nothing alive in them.*
//! 5. Packs that are mostly dead are compacted, and so are small ones if there are many. What lives in them is copied,
//!    verified, to a new pack, which is synced; then the index points there, durably, in batches. *A crash leaves each chunk
//!    where the index says; the rest of the copies are frames without entries.*
//!    One for which there is no room, beside what the index needs, is passed over: its turn comes when there is.
//! 6. A pack from which all that the index had in it has moved is removed. One that has damaged frames stays, for repair.
//!
//! What nobody needs is not removed in the order of references: after a collection that was interrupted a chunk may be here
//! without those that it refers to. That is why a chunk that is here says nothing about them.

mod compact;
mod marks;
mod run;
mod sweep;
#[cfg(test)]
mod tests;

use std::num::NonZeroU64;
use std::sync::TryLockError;
use std::sync::atomic::AtomicBool;

use sterna_types::ChunkId;

use super::pack_store::PackStore;
use super::{ChunkKind, ChunkStore, StoreError};
use crate::progress::Progress;
pub(super) use marks::Marking;
use run::Run;

/// How a collection works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CollectOptions {
    /// A pack is compacted when at least this much of it is dead, in percent.
    pub dead_percent: u8,
    /// Packs shorter than this, in bytes, are joined once there are [`CollectOptions::SMALL_PACKS`] of them: each process
    /// and each collection begins a new one.
    pub small_pack_bytes: u64,
    /// Whether data that is moved is compressed if that saves an eighth of it.
    pub compress: bool,
    /// How much may be read and written in a second; `None`: as much as can be.
    pub bytes_per_second: Option<NonZeroU64>,
}

impl CollectOptions {
    /// So many small packs are worth joining.
    pub const SMALL_PACKS: usize = 8;
}

impl Default for CollectOptions {
    /// Half dead: each byte that is freed costs at most one that is copied.
    fn default() -> Self {
        Self { dead_percent: 50, small_pack_bytes: 32 << 20, compress: true, bytes_per_second: None }
    }
}

/// What a collection did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CollectReport {
    /// Whether it came to its end; `false` where it was cancelled.
    pub finished: bool,
    /// Chunks that the roots reach, or that somebody kept meanwhile.
    pub marked_chunks: u64,
    /// Bytes that these took when they were marked.
    pub marked_bytes: u64,
    /// Ids that the roots reach, and which are not here: the site does not hold all of every volume.
    pub absent_chunks: u64,
    /// Chunks that were removed from the index.
    pub dead_chunks: u64,
    /// Bytes that these took.
    pub dead_bytes: u64,
    /// Packs that were removed, those that were compacted among them.
    pub removed_packs: u64,
    /// Packs from which all that lived was moved, and which were removed then.
    pub compacted_packs: u64,
    /// Bytes of the packs that were removed.
    pub removed_bytes: u64,
    /// Chunks that were moved to another pack.
    pub moved_chunks: u64,
    /// Bytes that these take now.
    pub moved_bytes: u64,
    /// Packs that were to be compacted and stay, because something in them is damaged, or was repaired meanwhile.
    pub damaged_packs: u64,
    /// Packs that were to be compacted and stay, because there is no room for what lives in them.
    pub cramped_packs: u64,
    /// Bytes of these that would go with them.
    pub cramped_bytes: u64,
    /// Dead bytes of packs that stay because too little of them is dead.
    pub waiting_bytes: u64,
}

/// Why a collection stopped. What it had done by then stays done, and nothing is lost by it.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// Another one is running.
    #[error("a collection is running")]
    Running,
    /// A chunk of the map is damaged: what it refers to cannot be known, so that nothing may be removed.
    #[error("nothing can be collected while chunk {id} is damaged: {what}")]
    Unreadable {
        /// The chunk.
        id: ChunkId,
        /// What is wrong with it.
        what: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A chunk that is referred to, and as what. Who refers to a piece of the map knows that it is one, whatever it was stored
/// as: a guest can write what will be a manifest into a block of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// What it is to whoever refers to it.
    pub kind: ChunkKind,
    /// The chunk.
    pub id: ChunkId,
}

/// Which chunks a chunk refers to; or why its contents do not say.
pub type References<'a> = &'a dyn Fn(ChunkKind, &[u8]) -> Result<Vec<Reference>, String>;

impl PackStore {
    /// Removes what `roots` do not reach, and gives its space back. `roots` is asked once the collection has begun: whoever
    /// had a pin before has recorded his root by then. `on_progress` hears, many times a second, of how many bytes of chunks,
    /// as they are stored, it is known whether they live, and how many of those that are to be moved have been. It ends early
    /// once `cancel` is set.
    ///
    /// # Errors
    /// [`CollectError`].
    pub fn collect<R>(
        &self,
        roots: impl FnOnce() -> Result<R, StoreError>,
        references: References<'_>,
        options: &CollectOptions,
        on_progress: &mut dyn FnMut(Progress),
        cancel: &AtomicBool,
    ) -> Result<CollectReport, CollectError>
    where
        R: IntoIterator<Item = Result<Reference, StoreError>>,
    {
        self.check_sound()?;
        let _turn = match self.collecting.try_lock() {
            Ok(turn) => turn,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Err(CollectError::Running),
        };
        let mut run = Run::new(options, self.totals().stored_bytes, on_progress, cancel);
        let Some(begun) = self.gate().without_pins(cancel, || self.begin()) else { return Ok(run.report) };
        let _end = begun?;
        run.report.finished = self.mark_all(roots()?, references, &mut run)? && self.sweep_and_compact(&mut run)?;
        Ok(run.report)
    }

    fn begin(&self) -> Result<Collecting<'_>, StoreError> {
        self.close_pack();
        *self.marking() = Some(Marking::of(&self.packs()?));
        Ok(Collecting { store: self })
    }

    /// Marks what the roots reach, and what was kept meanwhile; `false` where it was cancelled.
    fn mark_all(
        &self,
        roots: impl IntoIterator<Item = Result<Reference, StoreError>>,
        references: References<'_>,
        run: &mut Run<'_>,
    ) -> Result<bool, CollectError> {
        for root in roots {
            if let Some(root) = self.mark(root?, run)?
                && !self.follow(root, references, run)?
            {
                return Ok(false);
            }
        }
        loop {
            let kept = self.marking().as_mut().map(Marking::take_kept_or_sweep).unwrap_or_default();
            if kept.is_empty() {
                return Ok(!run.is_cancelled());
            }
            for id in kept {
                let Some(entry) = self.entry(id)? else { continue };
                run.marked(&entry);
                let kept = Reference { kind: entry.frame.kind, id };
                if !self.follow(kept, references, run)? {
                    return Ok(false);
                }
            }
        }
    }

    /// Marks what a chunk reaches that is marked itself; `false` where it was cancelled.
    fn follow(&self, from: Reference, references: References<'_>, run: &mut Run<'_>) -> Result<bool, CollectError> {
        let mut open = vec![from];
        while let Some(Reference { kind, id }) = open.pop() {
            let unreadable = |what| CollectError::Unreadable { id, what };
            let bytes = match self.get(id) {
                Ok(bytes) => bytes.ok_or(StoreError::Missing { id })?,
                Err(StoreError::Corrupt { id, what }) => return Err(CollectError::Unreadable { id, what }),
                Err(error) => return Err(error.into()),
            };
            for child in references(kind, &bytes).map_err(unreadable)? {
                open.extend(self.mark(child, run)?);
            }
            if !run.pass(bytes.len() as u64) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Marks a chunk; what it is, if it has to be followed.
    fn mark(&self, reference: Reference, run: &mut Run<'_>) -> Result<Option<Reference>, StoreError> {
        let mut marking = self.marking();
        let Some(entry) = self.entry(reference.id)? else {
            run.report.absent_chunks += 1;
            return Ok(None);
        };
        let Some(marking) = marking.as_mut() else { return Ok(None) };
        let is_new = marking.mark(entry.place);
        if is_new {
            run.marked(&entry);
        }
        Ok(match (entry.frame.kind, reference.kind) {
            (ChunkKind::Data, ChunkKind::Data) => None,
            (ChunkKind::Data, _) => marking.unmask(reference.id).then_some(reference),
            (kind, _) => is_new.then_some(Reference { kind, ..reference }),
        })
    }
}

/// Ends a collection, however it ends: chunks without a mark are here again, unless they have been removed.
struct Collecting<'a> {
    store: &'a PackStore,
}

impl Drop for Collecting<'_> {
    fn drop(&mut self) {
        *self.store.marking() = None;
    }
}
