//! Changing entries of the index, and with them, in one batch, what all of them come to.

use std::sync::{MutexGuard, PoisonError};

use super::{Marking, PackStore};
use crate::chunk_store::StoreError;
use crate::chunk_store::index::{Batch, IndexEntry, Space, Totals};

/// The lock under which entries are changed. See [`PackStore::marking`].
pub(in crate::chunk_store) type EntryLock<'a> = MutexGuard<'a, Option<Marking>>;

/// Changes of entries, no two of one chunk, with the totals that they make. Who holds the lock makes one at a time.
pub(in crate::chunk_store) struct EntryChanges<'a> {
    store: &'a PackStore,
    batch: Batch,
    totals: Totals,
}

impl<'a> EntryChanges<'a> {
    /// None yet.
    pub(in crate::chunk_store) fn new(store: &'a PackStore, _lock: &'a EntryLock<'_>) -> Self {
        Self { store, batch: Batch::new(), totals: store.totals() }
    }

    /// The entry of a chunk, in place of the one that it has now.
    pub(in crate::chunk_store) fn put(&mut self, entry: &IndexEntry, replaced: Option<&IndexEntry>) {
        if let Some(replaced) = replaced {
            self.totals.subtract(&replaced.frame);
        }
        self.totals.add(&entry.frame);
        self.batch.put(Space::Chunks, entry.frame.id.as_bytes(), entry.encode());
    }

    /// The entry that a chunk has now goes.
    pub(in crate::chunk_store) fn remove(&mut self, entry: &IndexEntry) {
        self.totals.subtract(&entry.frame);
        self.batch.delete(Space::Chunks, entry.frame.id.as_bytes());
    }

    /// Makes the changes, if there are any, for good if `durable`; or poisons the store.
    pub(in crate::chunk_store) fn commit(mut self, durable: bool) -> Result<(), StoreError> {
        if self.batch.is_empty() {
            return Ok(());
        }
        self.totals.put_into(&mut self.batch);
        self.store.commit(self.batch, durable)?;
        self.store.set_totals(self.totals);
        Ok(())
    }
}

impl PackStore {
    /// What the entries of the index come to.
    pub(in crate::chunk_store) fn totals(&self) -> Totals {
        *self.totals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_totals(&self, totals: Totals) {
        *self.totals.lock().unwrap_or_else(PoisonError::into_inner) = totals;
    }

    /// Takes the totals from the index. Where a program has written it that kept none, they are counted, this once.
    pub(super) fn load_totals(&self) -> Result<(), StoreError> {
        let totals = match Totals::load(&*self.index)? {
            Some(totals) => totals,
            None => {
                let (counted, mut batch) = (self.count()?, Batch::new());
                counted.put_into(&mut batch);
                self.commit(batch, true)?;
                counted
            }
        };
        self.set_totals(totals);
        Ok(())
    }
}
