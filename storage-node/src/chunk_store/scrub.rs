//! Scrub: reading everything again, to find what has gone bad while there are others to mend it from.
//!
//! First all packs, one after the other, each frame against its checksums and its id. Then all entries of the index: those
//! whose frame was found sound are done with, the others are read where the index says. What was read and has no entry is
//! left over, sound or not: a crash, a repair or a collection leaves such copies, and nobody has lost anything by them. Two
//! bits for each frame say all that.

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::sync::atomic::AtomicBool;

use sterna_types::ChunkId;

use super::bits::Bits;
use super::index::IndexEntry;
use super::pack::{PackId, PackScanner, Verdict};
use super::pack_store::{PackStore, io_at, location_of};
use super::{ChunkKind, ChunkStore, StoreError, Throttle};
use crate::progress::Progress;

/// How a scrub works.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScrubOptions {
    /// How much may be read in a second; `None`: as much as can be.
    pub bytes_per_second: Option<NonZeroU64>,
}

/// What a scrub has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScrubReport {
    /// Whether it came to its end; `false` where it was cancelled.
    pub finished: bool,
    /// Frames that it read.
    pub frames: u64,
    /// Bytes that these take.
    pub stored_bytes: u64,
    /// What it found, and reported, that was bad.
    pub damaged: u64,
    /// What is not damaged, but left over.
    pub leavings: Leavings,
}

/// What nothing names: collections remove it with its pack. What changes while a scrub runs may be among it, or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leavings {
    /// Frames that no entry of the index names.
    pub frames: u64,
    /// Bytes of these, and bytes of packs that belong to no batch.
    pub bytes: u64,
}

/// Something bad.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedFrame {
    /// The chunk.
    pub id: ChunkId,
    /// The pack that it is in.
    pub pack: PackId,
    /// Its first byte there.
    pub offset: u64,
    /// What is wrong with it.
    pub damage: Damage,
}

/// What is wrong with a chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Damage {
    /// Its bytes are not what was stored, and the index names them: the chunk is lost here.
    Lost,
    /// The index points to where it is not, or to a pack that is not here: the chunk is lost here.
    Dangling,
    /// It can be read, but the header of its batch is damaged: it could not be found without the index.
    Unlisted,
}

/// What a scrub says while it works.
pub trait ScrubWatcher {
    /// Hears how far it has come, in bytes of chunks as they are stored, many times a second.
    fn progress(&mut self, progress: Progress);

    /// Hears of something bad.
    fn damage(&mut self, bad: &DamagedFrame);
}

impl PackStore {
    /// What a chunk is that the index names, be it damaged or not.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn kind_of(&self, id: ChunkId) -> Result<Option<ChunkKind>, StoreError> {
        Ok(self.entry(id)?.map(|entry| entry.frame.kind))
    }

    /// Reads everything again, and says what is bad. It ends early once `cancel` is set.
    ///
    /// # Errors
    /// [`StoreError`]; that something is damaged is none.
    pub fn scrub(
        &self,
        options: &ScrubOptions,
        watcher: &mut dyn ScrubWatcher,
        cancel: &AtomicBool,
    ) -> Result<ScrubReport, StoreError> {
        let mut scrub = Scrub {
            store: self,
            throttle: Throttle::new(options.bytes_per_second, cancel),
            seen: HashMap::new(),
            report: ScrubReport::default(),
            total_bytes: self.totals().stored_bytes,
            watcher,
        };
        scrub.report.finished = scrub.packs()? && scrub.entries()?;
        Ok(scrub.report)
    }
}

struct Scrub<'a> {
    store: &'a PackStore,
    throttle: Throttle<'a>,
    seen: HashMap<PackId, Seen>,
    report: ScrubReport,
    /// What it expects to read, by the index. It finds more where there are frames that nobody uses.
    total_bytes: u64,
    watcher: &'a mut dyn ScrubWatcher,
}

/// Frames of a pack, by their numbers.
#[derive(Default)]
struct Seen {
    read: Bits,
    sound: Bits,
}

impl Scrub<'_> {
    fn packs(&mut self) -> Result<bool, StoreError> {
        for pack in self.store.packs()? {
            // A collection may have removed it by now.
            let Ok(file) = self.store.pack_file(pack) else { continue };
            let io = io_at(&pack.path());
            let mut scanner = PackScanner::new(pack, file).map_err(&io)?;
            while let Some(scanned) = scanner.next_frame().map_err(&io)? {
                let frame = &scanned.frame;
                let stored_bytes = u64::from(frame.stored_length());
                self.report.frames += 1;
                self.report.stored_bytes += stored_bytes;
                self.report.leavings.frames += 1;
                self.report.leavings.bytes += stored_bytes;
                let seen = self.seen.entry(pack).or_default();
                seen.read.set(scanned.place.number);
                if let Verdict::Sound(_) = scanner.read(frame).map_err(&io)? {
                    seen.sound.set(scanned.place.number);
                }
                self.tell_progress();
                if !self.throttle.pass(stored_bytes) {
                    return Ok(false);
                }
            }
            self.report.leavings.bytes += scanner.skipped_bytes();
        }
        Ok(true)
    }

    fn entries(&mut self) -> Result<bool, StoreError> {
        let mut finished = true;
        self.store.each_entry(|entries| {
            for entry in entries {
                if !self.claim(entry) {
                    self.entry(entry)?;
                }
            }
            finished = self.throttle.pass(0);
            Ok(finished)
        })?;
        Ok(finished)
    }

    /// An entry names a frame: if that was read, it is not left over. Whether it was found sound.
    fn claim(&mut self, entry: &IndexEntry) -> bool {
        let Some(seen) = self.seen.get(&entry.place.pack) else { return false };
        if seen.read.get(entry.place.number) {
            let leavings = &mut self.report.leavings;
            leavings.frames = leavings.frames.saturating_sub(1);
            leavings.bytes = leavings.bytes.saturating_sub(entry.frame.stored_length().into());
        }
        seen.sound.get(entry.place.number)
    }

    /// Looks at a chunk whose frame was not found sound, where the index says that it is now.
    fn entry(&mut self, entry: &IndexEntry) -> Result<(), StoreError> {
        let id = entry.frame.id;
        // It may have moved, or gone, or be newer than the walk through the packs.
        let Some(entry) = self.store.entry(id)? else { return Ok(()) };
        let pack = entry.place.pack;
        let damage = match self.store.get(id) {
            Ok(_) if self.is_listed(&entry)? => return Ok(()),
            Ok(_) => {
                // It lies where no batch is found, and is needed all the same.
                let leavings = &mut self.report.leavings;
                leavings.bytes = leavings.bytes.saturating_sub(entry.frame.stored_length().into());
                Damage::Unlisted
            }
            Err(StoreError::Corrupt { .. }) => {
                let ends = u64::from(entry.frame.offset) + u64::from(entry.frame.stored_length());
                let size = self.store.pack_file(pack).and_then(|file| file.size().map_err(io_at(&pack.path())));
                if size.is_ok_and(|size| size >= ends) { Damage::Lost } else { Damage::Dangling }
            }
            Err(error) => return Err(error),
        };
        self.bad(id, pack, entry.frame.offset.into(), damage);
        self.throttle.pass(entry.frame.stored_length().into());
        Ok(())
    }

    /// Whether a frame is in the header of a batch of its pack. It reads the headers of the pack: for few frames only.
    fn is_listed(&self, entry: &IndexEntry) -> Result<bool, StoreError> {
        let pack = entry.place.pack;
        let location = location_of(entry, self.store.pack_file(pack)?);
        let io = io_at(&pack.path());
        let mut scanner = PackScanner::new(pack, location.file).map_err(&io)?;
        while let Some(scanned) = scanner.next_frame().map_err(&io)? {
            if scanned.place == entry.place {
                return Ok(scanned.frame.id == entry.frame.id);
            }
        }
        Ok(false)
    }

    fn tell_progress(&mut self) {
        let done_bytes = self.report.stored_bytes;
        self.watcher.progress(Progress { done_bytes, total_bytes: self.total_bytes.max(done_bytes) });
    }

    fn bad(&mut self, id: ChunkId, pack: PackId, offset: u64, damage: Damage) {
        self.report.damaged += 1;
        self.watcher.damage(&DamagedFrame { id, pack, offset, damage });
    }
}
