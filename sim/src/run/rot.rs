//! The end of a run: a bit of a pack changes, and whatever is read then is right or an error.

use std::sync::atomic::AtomicBool;

use sterna_storage_node::chunk_store::{DamagedFrame, ScrubWatcher};
use sterna_storage_node::disk::Disk;
use sterna_storage_node::progress::Progress;
use sterna_storage_node::volume::Volume;

use super::{OpenDisk, Run, Violated, contents};
use crate::site::Stop;

impl Run<'_> {
    /// A byte of a pack becomes another one, and the machine starts anew.
    pub(super) fn rot(&mut self) -> Result<(), Violated> {
        let failed = |error| format!("the packs cannot be looked at: {error}");
        let packs = self.site.disk.list(PACKS).map_err(failed)?;
        if packs.is_empty() {
            return Ok(());
        }
        let path = format!("{PACKS}/{}", packs[usize::try_from(self.random.below(packs.len() as u64)).unwrap_or(0)]);
        let pack = self.site.disk.open(&path).map_err(failed)?;
        let size = pack.size().map_err(failed)?;
        if size == 0 {
            return Ok(());
        }
        let at = self.random.below(size);
        let mut byte = [0];
        pack.read_at(at, &mut byte).map_err(failed)?;
        byte[0] ^= 1 << self.random.below(8);
        pack.write_at(at, &[&byte]).and_then(|()| pack.sync()).map_err(failed)?;
        self.story.tell(format!("a bit of byte {at} of {path} has changed"));
        self.site = match self.site.after(Stop::Kill) {
            Ok(site) => site,
            Err(error) => {
                self.story.tell(format!("the disk cannot be opened: {error}"));
                return Ok(());
            }
        };
        let unreadable = self.read_what_can_be_read()?;
        let (never, mut damages) = (AtomicBool::new(false), Damages(0));
        let scrubbed = self.site.scrub(&mut damages, &never);
        self.story.tell(format!("{unreadable} blocks cannot be read; a scrub finds {} chunks damaged", damages.0));
        match scrubbed {
            Ok(_) if unreadable > 0 && damages.0 == 0 => {
                Err("a scrub finds nothing where blocks cannot be read".to_owned())
            }
            Ok(_) => Ok(()),
            Err(error) => Err(format!("a scrub of what is damaged: {error}")),
        }
    }

    /// Reads every block by itself; how many are answered with an error. All others are right.
    fn read_what_can_be_read(&mut self) -> Result<u64, Violated> {
        let mut unreadable = 0;
        for at in 0..self.disks.len() {
            let OpenDisk { spec, oracle, .. } = &mut self.disks[at];
            let count = oracle.block_count();
            match Volume::open(&self.site.storage, spec) {
                Ok(volume) => {
                    for block in 0..count {
                        match contents(&volume, block, 1) {
                            Ok(bytes) => {
                                oracle.read(block, &bytes).map_err(|wrong| format!("volume {}: {wrong}", at + 1))?;
                            }
                            Err(_) => unreadable += 1,
                        }
                    }
                }
                Err(error) => {
                    self.story.tell(format!("volume {} cannot be opened: {error}", at + 1));
                    unreadable += count;
                }
            }
        }
        Ok(unreadable)
    }
}

/// Counts what a scrub finds.
struct Damages(u64);

impl ScrubWatcher for Damages {
    fn progress(&mut self, _: Progress) {}

    fn damage(&mut self, _: &DamagedFrame) {
        self.0 += 1;
    }
}

/// Where packs are.
const PACKS: &str = "packs";
