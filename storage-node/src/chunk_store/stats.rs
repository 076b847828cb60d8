//! What a store holds, counted.

use super::StoreError;
use super::index::{IndexEntry, Space, Totals};
use super::pack_store::PackStore;

/// What a store holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Chunks that the index names.
    pub chunks: u64,
    /// Bytes of these chunks.
    pub chunk_bytes: u64,
    /// Bytes that they take in the packs.
    pub stored_bytes: u64,
    /// Packs.
    pub packs: u64,
}

impl PackStore {
    /// What the store holds. Its packs are listed; the chunks are counted as they come and go, and are not looked at.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn stats(&self) -> Result<StoreStats, StoreError> {
        let Totals { chunks, chunk_bytes, stored_bytes } = self.totals();
        Ok(StoreStats { chunks, chunk_bytes, stored_bytes, packs: self.packs()?.len() as u64 })
    }

    /// What the entries of the index come to, counted one by one.
    pub(super) fn count(&self) -> Result<Totals, StoreError> {
        let mut totals = Totals::default();
        self.each_entry(|entries| {
            entries.iter().for_each(|entry| totals.add(&entry.frame));
            Ok(true)
        })?;
        Ok(totals)
    }

    /// Goes through the index, page by page, until `look` answers `false`. An entry that cannot be read ends it.
    pub(super) fn each_entry(
        &self,
        mut look: impl FnMut(&[IndexEntry]) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        let mut after: Option<Vec<u8>> = None;
        loop {
            let page = self.index.page(Space::Chunks, &[], after.as_deref(), ENTRIES_PER_PAGE)?;
            let entries: Result<Vec<_>, _> = page.iter().map(|(key, value)| IndexEntry::of_pair(key, value)).collect();
            if page.is_empty() || !look(&entries?)? {
                return Ok(());
            }
            after = page.into_iter().next_back().map(|(key, _)| key);
        }
    }
}

/// Bounds the memory of a walk through the index, and how long a sweep holds appends up.
const ENTRIES_PER_PAGE: usize = 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::{Strategy, any, prop_oneof, proptest};

    use crate::chunk_store::ChunkStore;
    use crate::chunk_store::collect::CollectOptions;
    use crate::chunk_store::index::{Batch, Index, Space, Totals};
    use crate::chunk_store::testing::{EAGER, Machine, data, root_of, tree};
    use crate::disk::simulated::CrashMode;

    #[derive(Clone, Debug)]
    enum Step {
        Append(Vec<u64>),
        /// Stores a chunk anew that is here, or a new one.
        Repair(u64),
        /// Keeps the roots whose bit is set.
        Collect(u8, u8),
        /// The operation so many from now on fails.
        Fail(u64),
        /// The machine stops after so many operations more.
        Stop(u64),
        LosePower(u64),
        Kill,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => proptest::collection::vec(0u64..30, 1..8).prop_map(Step::Append),
            1 => (0u64..30).prop_map(Step::Repair),
            3 => (any::<u8>(), 1u8..100).prop_map(|(roots, percent)| Step::Collect(roots, percent)),
            1 => (1u64..12).prop_map(Step::Fail),
            1 => (0u64..12).prop_map(Step::Stop),
            1 => any::<u64>().prop_map(Step::LosePower),
            1 => proptest::strategy::Just(Step::Kill),
        ];
        proptest::collection::vec(step, 1..30)
    }

    proptest! {
        #[test]
        fn totals_are_what_a_count_would_find_whatever_has_happened(steps in steps()) {
            let (mut machine, mut roots) = (Machine::new(), Vec::new());
            for step in steps {
                // What fails, fails: the totals have to be right all the same.
                match step {
                    Step::Append(seeds) => {
                        let chunks = tree(&[&seeds]);
                        if machine.append(&chunks).is_ok() {
                            roots.push(root_of(&chunks));
                        }
                    }
                    Step::Repair(seed) => drop(machine.store.repair(&data(seed, 1), &machine.store.pin())),
                    Step::Collect(kept, dead_percent) => {
                        let mut bits = (0..8).cycle();
                        roots.retain(|_| bits.next().is_some_and(|bit| kept >> bit & 1 == 1));
                        drop(machine.collect(&roots, &CollectOptions { dead_percent, ..EAGER }));
                    }
                    Step::Fail(operation) => machine.disk.fail_operation(operation),
                    Step::Stop(operations) => machine.disk.crash_after(operations),
                    Step::LosePower(seed) => machine = machine.after_crash(seed, CrashMode::Scramble),
                    Step::Kill => machine = machine.after_kill(),
                }
                if machine.disk.has_crashed() {
                    machine = machine.after_crash(roots.len() as u64, CrashMode::Scramble);
                }
                machine.check_totals();
            }
        }
    }

    #[test]
    fn chunks_of_an_index_without_totals_are_counted_once() {
        let machine = Machine::new();
        machine.append(&tree(&[&[1, 2, 3], &[4, 5]])).expect("chunks");
        let mut batch = Batch::new();
        batch.delete(Space::Records, b"t");
        machine.index.commit(batch, true).expect("an index as it was before there were totals");
        let reopened = machine.after_kill();
        assert_eq!(reopened.store.stats().expect("figures"), machine.store.stats().expect("figures"));
        assert_eq!(Totals::load(&*reopened.index).expect("an answer"), Some(machine.store.totals()));
        reopened.append(&[data(7, 1)]).expect("a chunk");
        reopened.check();
    }
}
