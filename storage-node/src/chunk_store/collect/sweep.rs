//! Steps 3, 4 and 6: dead entries, and packs in which nothing lives.

use std::collections::BTreeMap;

use super::{CollectOptions, Run};
use crate::chunk_store::StoreError;
use crate::chunk_store::index::IndexEntry;
use crate::chunk_store::pack::{PACK_DIRECTORY, PackId};
use crate::chunk_store::pack_store::{EntryChanges, PackStore, io_at};

/// What lives in a pack.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Living {
    pub(super) chunks: u64,
    pub(super) stored_bytes: u64,
}

/// A pack that is to be compacted.
struct MostlyDead {
    pack: PackId,
    living: Living,
    /// Bytes of it that go with it.
    dead_bytes: u64,
}

/// What lives in each pack that is swept.
type LivingByPack = BTreeMap<PackId, Living>;

impl PackStore {
    /// Steps 3 to 6; `false` where it was cancelled.
    pub(super) fn sweep_and_compact(&self, run: &mut Run<'_>) -> Result<bool, StoreError> {
        let Some(living) = self.sweep_index(run)? else { return Ok(false) };
        self.settle_index()?;
        let dead: Vec<PackId> = living.iter().filter(|(_, living)| living.chunks == 0).map(|(pack, _)| *pack).collect();
        self.remove_packs(&dead, run)?;
        let mut writer = None;
        let mut worth_it = self.worth_compacting(&living, run)?;
        // Those that take the least space first: on a full disk they make room for the others.
        worth_it.sort_by_key(|mostly_dead| mostly_dead.living.stored_bytes);
        run.will_copy(worth_it.iter().map(|mostly_dead| mostly_dead.living.stored_bytes).sum());
        for MostlyDead { pack, living, dead_bytes } in worth_it {
            if !self.has_room_to_move(living.chunks, living.stored_bytes)? {
                run.report.cramped_packs += 1;
                run.report.cramped_bytes += dead_bytes;
                run.copied(living.stored_bytes);
            } else if !self.compact(pack, living, &mut writer, run)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Step 3. What lives in each pack that is swept; `None` where it was cancelled.
    fn sweep_index(&self, run: &mut Run<'_>) -> Result<Option<LivingByPack>, StoreError> {
        let swept = self.packs()?;
        let mut living: LivingByPack = {
            let marking = self.marking();
            let sweeps = |pack: &PackId| marking.as_ref().is_some_and(|marking| marking.sweeps(*pack));
            swept.into_iter().filter(sweeps).map(|pack| (pack, Living::default())).collect()
        };
        let mut finished = true;
        self.each_entry(|entries| {
            self.sweep_page(entries, &mut living, run)?;
            finished = run.pass(0);
            Ok(finished)
        })?;
        Ok(finished.then_some(living))
    }

    fn sweep_page(
        &self,
        entries: &[IndexEntry],
        living: &mut LivingByPack,
        run: &mut Run<'_>,
    ) -> Result<(), StoreError> {
        let guard = self.marking();
        let Some(marking) = guard.as_ref() else { return Ok(()) };
        let mut changes = EntryChanges::new(self, &guard);
        for entry in entries {
            let stored_bytes = u64::from(entry.frame.stored_length());
            if !marking.sweeps(entry.place.pack) {
                continue;
            }
            if marking.is_marked(entry.place) {
                let living = living.entry(entry.place.pack).or_default();
                living.chunks += 1;
                living.stored_bytes += stored_bytes;
            } else if self.entry(entry.frame.id)?.is_some_and(|now| now.place == entry.place) {
                changes.remove(entry);
                run.report.dead_chunks += 1;
                run.report.dead_bytes += stored_bytes;
            }
        }
        changes.commit(false)
    }

    /// Steps 4 and 6: removes packs that no entry points to.
    pub(super) fn remove_packs(&self, packs: &[PackId], run: &mut Run<'_>) -> Result<(), StoreError> {
        for pack in packs {
            let size = self.pack_file(*pack)?.size().map_err(io_at(&pack.path()))?;
            self.remove_pack(*pack)?;
            run.report.removed_packs += 1;
            run.report.removed_bytes += size;
        }
        if packs.is_empty() { Ok(()) } else { self.disk.sync_dir(PACK_DIRECTORY).map_err(io_at(PACK_DIRECTORY)) }
    }

    fn worth_compacting(&self, living: &LivingByPack, run: &mut Run<'_>) -> Result<Vec<MostlyDead>, StoreError> {
        let (mut mostly_dead, mut small, options) = (Vec::new(), Vec::new(), run.options);
        for (pack, living) in living.iter().filter(|(_, living)| living.chunks > 0) {
            // A pack that the index names and that is not here: scrub reports it.
            let Ok(file) = self.pack_file(*pack) else { continue };
            let size = file.size().map_err(io_at(&pack.path()))?;
            let dead_bytes = size.saturating_sub(living.stored_bytes);
            let pack = MostlyDead { pack: *pack, living: *living, dead_bytes };
            if dead_bytes.saturating_mul(100) >= size.saturating_mul(u64::from(options.dead_percent)) {
                mostly_dead.push(pack);
            } else if size < options.small_pack_bytes {
                small.push(pack);
            } else {
                run.report.waiting_bytes += dead_bytes;
            }
        }
        if small.len() >= CollectOptions::SMALL_PACKS {
            mostly_dead.append(&mut small);
        }
        run.report.waiting_bytes += small.iter().map(|pack| pack.dead_bytes).sum::<u64>();
        Ok(mostly_dead)
    }
}
