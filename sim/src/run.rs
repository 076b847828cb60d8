//! A seed, played: requests and faults by chance, one after the other, and after each stop a look at everything.
//!
//! What is promised, and looked for:
//! * what was acknowledged is there after a kill, and what was flushed after a loss of power; nothing is invented ([`crate::oracle`]);
//! * what a snapshot holds never changes, whatever is written, collected or lost behind it;
//! * nothing fails but what the disk has refused, or has no space for, and that fails with an error; with space again it goes on;
//! * whatever a disk was left like, it can be opened;
//! * where a byte of a pack is another one, what is read is right or an error, and a scrub finds it.

mod rot;

use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use sterna_storage_node::chunking::ChunkingParameters;
use sterna_storage_node::disk::simulated::CrashMode;
use sterna_storage_node::volume::{Volume, VolumeError, VolumeSpec};
use sterna_tests::oracle::block::BLOCK_BYTES;
use sterna_tests::random::Random;
use sterna_types::device::ReadOutcome;
use sterna_types::{ByteOffset, ByteRange, ByteSize, Epoch, Root, VolumeId, VolumeSize};

use crate::ended::Ended;
use crate::oracle::Oracle;
use crate::site::{Site, Stop};
use crate::story::Story;
use crate::surroundings;

/// Plays a seed.
pub fn play(seed: u64) -> Ended {
    surroundings::install();
    surroundings::begin(seed);
    let mut story = Story::default();
    let mut stops = 0;
    // A panic of the product is a violation as well, and its story is what is wanted.
    let played = catch_unwind(AssertUnwindSafe(|| {
        let mut run = Run::begin(seed, &mut story)?;
        let done = run.play();
        stops = run.stops;
        done
    }));
    let violation = match played {
        Ok(Ok(())) => None,
        Ok(Err(what)) => Some(what),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            Some(text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default())
        }
    };
    Ended { seed, stops, story, violation, ..Ended::default() }
}

struct Run<'a> {
    random: Random,
    story: &'a mut Story,
    site: Site,
    disks: Vec<OpenDisk>,
    snapshots: Vec<Snapshot>,
    /// Writes so far.
    writes: u64,
    stops: u32,
    /// Whether the disk has space for little more.
    is_full: bool,
}

struct OpenDisk {
    spec: VolumeSpec,
    volume: Arc<Volume>,
    oracle: Oracle,
}

/// What a volume held, by its root.
struct Snapshot {
    of: VolumeSpec,
    contents: Vec<u8>,
}

/// What went wrong, in words.
type Violated = String;

impl<'a> Run<'a> {
    fn begin(seed: u64, story: &'a mut Story) -> Result<Self, Violated> {
        let site = Site::new().map_err(|error| format!("an empty disk cannot be used: {error}"))?;
        let mut disks = Vec::new();
        for (id, blocks) in (1..).zip(DISK_BLOCKS) {
            let spec = spec(id, blocks);
            let volume = Volume::open(&site.storage, &spec).map_err(|error| format!("a new volume: {error}"))?;
            let blocks = usize::try_from(blocks).unwrap_or(0);
            disks.push(OpenDisk { spec, volume, oracle: Oracle::new(seed << 8 | id, blocks) });
        }
        let random = Random::new(seed);
        Ok(Self { random, story, site, disks, snapshots: Vec::new(), writes: 0, stops: 0, is_full: false })
    }

    fn play(&mut self) -> Result<(), Violated> {
        for _ in 0..STEPS {
            self.step()?;
        }
        self.stop(Stop::Kill)?;
        let seed = self.random.bits();
        self.stop(Stop::PowerLoss(seed, CrashMode::Scramble))?;
        self.rot()
    }

    fn step(&mut self) -> Result<(), Violated> {
        let at = usize::try_from(self.random.below(self.disks.len() as u64)).unwrap_or(0);
        match self.random.below(100) {
            0..40 => self.write(at),
            40..46 => self.zero(at),
            46..60 => self.flush(at),
            60..70 => self.read(at),
            70..78 => self.seal(at),
            78..81 => self.snapshot(at),
            81..83 => self.collect(),
            83..85 => self.prepare_journal(at),
            85..87 => self.stop(Stop::Kill),
            87..90 => {
                let mode = CrashMode::ALL[usize::try_from(self.random.below(3)).unwrap_or(0)];
                let seed = self.random.bits();
                self.stop(Stop::PowerLoss(seed, mode))
            }
            90..94 => {
                let operations = self.random.below(60);
                self.story.tell(format!("power goes after {operations} more operations of the disk"));
                self.site.disk.crash_after(operations);
                Ok(())
            }
            94..96 => {
                let operation = 1 + self.random.below(20);
                self.story.tell(format!("operation {operation} of the disk from now on fails"));
                self.site.disk.fail_operation(operation);
                Ok(())
            }
            96..97 => {
                self.story.tell("the next sync fails");
                self.site.disk.fail_next_sync();
                Ok(())
            }
            97..98 => {
                self.story.tell("the next read of the disk fails");
                self.site.disk.fail_next_read();
                Ok(())
            }
            _ if self.is_full => self.make_room(),
            _ => {
                let bytes = self.random.below(MOST_LEFT_BYTES);
                self.story.tell(format!("the disk has space for {bytes} bytes more"));
                self.site.disk.leave(bytes);
                self.is_full = true;
                Ok(())
            }
        }
    }

    fn write(&mut self, at: usize) -> Result<(), Violated> {
        let (first, count) = self.some_blocks(at);
        self.writes += 1;
        let number = self.writes;
        let disk = &mut self.disks[at];
        let bytes = disk.oracle.bytes(first, count, number);
        let done = disk.volume.write(ByteOffset(first * BLOCK), &bytes);
        disk.oracle.write(first, count, number, done.is_ok());
        self.answered(format!("write {number} to {count} blocks from {first} on of volume {}", at + 1), done)
    }

    fn zero(&mut self, at: usize) -> Result<(), Violated> {
        let (first, count) = self.some_blocks(at);
        let disk = &mut self.disks[at];
        let done = disk.volume.zero(range(first, count));
        disk.oracle.write(first, count, 0, done.is_ok());
        self.answered(format!("zero {count} blocks from {first} on of volume {}", at + 1), done)
    }

    fn flush(&mut self, at: usize) -> Result<(), Violated> {
        let disk = &mut self.disks[at];
        let done = disk.volume.flush();
        // One that has failed does not succeed by being asked for again.
        if done.is_err() && disk.volume.flush().is_ok() {
            disk.oracle.flush();
        }
        if done.is_ok() {
            disk.oracle.flush();
        }
        self.answered(format!("flush volume {}", at + 1), done)
    }

    fn read(&mut self, at: usize) -> Result<(), Violated> {
        let (first, count) = self.some_blocks(at);
        let what = format!("read {count} blocks from {first} on of volume {}", at + 1);
        match contents(&self.disks[at].volume, first, count) {
            Ok(bytes) => {
                let right = self.disks[at].oracle.read(first, &bytes);
                self.story.tell(&what);
                right.map_err(|wrong| format!("{what}: {wrong}"))
            }
            Err(error) => self.answered(what, Err::<(), _>(error)),
        }
    }

    fn seal(&mut self, at: usize) -> Result<(), Violated> {
        let sealed = self.disks[at].volume.seal().map(|state| state.generation);
        let generation = sealed.as_ref().map_or(0, |generation| *generation);
        self.answered(format!("seal volume {}: generation {generation}", at + 1), sealed)
    }

    /// Seals it, and remembers the root and what it is the root of.
    fn snapshot(&mut self, at: usize) -> Result<(), Violated> {
        let volume = Arc::clone(&self.disks[at].volume);
        let what = format!("snapshot volume {}", at + 1);
        let sealed = match volume.seal() {
            Ok(sealed) => sealed,
            Err(error) => return self.answered(what, Err::<(), _>(error)),
        };
        let blocks = self.disks[at].oracle.block_count();
        match contents(&volume, 0, blocks) {
            Ok(contents) => {
                self.snapshots.truncate(MOST_SNAPSHOTS - 1);
                let of = VolumeSpec { root: sealed.root, generation: sealed.generation, ..self.disks[at].spec };
                self.snapshots.insert(0, Snapshot { of, contents });
                self.answered(what, Ok(()))
            }
            Err(error) => self.answered(what, Err::<(), _>(error)),
        }
    }

    fn collect(&mut self) -> Result<(), Violated> {
        let roots: Vec<Root> = self.snapshots.iter().map(|snapshot| snapshot.of.root).collect();
        let done = self.site.collect(&roots);
        let what = format!("collect, and keep {} snapshots", roots.len());
        match done {
            Ok(()) => self.answered(what, Ok(())),
            Err(error) => self.failed(&what, &error),
        }
    }

    fn prepare_journal(&mut self, at: usize) -> Result<(), Violated> {
        let done = self.disks[at].volume.prepare_journal();
        self.answered(format!("prepare the journal of volume {}", at + 1), done)
    }

    /// Tells what came of a request.
    fn answered<T>(&mut self, what: String, done: Result<T, VolumeError>) -> Result<(), Violated> {
        match done {
            Ok(_) => {
                self.story.tell(what);
                Ok(())
            }
            Err(error) => self.failed(&what, &error),
        }
    }

    /// A request has failed, which is a violation where the disk has refused nothing and has space. Where it was full, it gets space
    /// again, and everything goes on; otherwise the machine is stopped, as its node would be.
    fn failed(&mut self, what: &str, error: &dyn Display) -> Result<(), Violated> {
        let has_refused = self.site.disk.refusals() > 0;
        if !has_refused && !self.is_full {
            return Err(format!("{what}, and nothing was wrong with the disk: {error}"));
        }
        self.story.tell(format!("{what}: {error}"));
        if has_refused { self.after_failure() } else { self.make_room() }
    }

    /// The disk has space again. What has failed before may be told by a flush; then the machine is stopped.
    fn make_room(&mut self) -> Result<(), Violated> {
        self.story.tell("the disk has space again");
        self.site.disk.limit(None);
        self.is_full = false;
        for disk in &mut self.disks {
            match disk.volume.flush() {
                Ok(()) => disk.oracle.flush(),
                Err(error) => {
                    self.story.tell(format!("a flush behind that: {error}"));
                    return self.after_failure();
                }
            }
        }
        Ok(())
    }

    fn after_failure(&mut self) -> Result<(), Violated> {
        let seed = self.random.bits();
        // What a failed sync has left in memory is worth nothing: as after a loss of power.
        let mode = CrashMode::ALL[usize::try_from(seed % 3).unwrap_or(0)];
        self.stop(Stop::PowerLoss(seed, mode))
    }

    /// Stops the machine, starts it again, and looks at everything.
    fn stop(&mut self, stop: Stop) -> Result<(), Violated> {
        // A machine whose power has gone has lost it, however it is stopped.
        let stop = match stop {
            Stop::Kill if self.site.disk.refusals() > 0 => Stop::PowerLoss(self.random.bits(), CrashMode::InOrder),
            other => other,
        };
        self.story.tell(format!("{stop:?}"));
        self.note_disk();
        (self.stops, self.is_full) = (self.stops + 1, false);
        self.site.disk.limit(None);
        self.site = self.site.after(stop).map_err(|error| format!("the disk cannot be opened: {error}"))?;
        for at in 0..self.disks.len() {
            let OpenDisk { spec, volume, oracle } = &mut self.disks[at];
            *volume = Volume::open(&self.site.storage, spec)
                .map_err(|error| format!("volume {} cannot be opened: {error}", at + 1))?;
            if stop != Stop::Kill {
                oracle.crash();
            }
            let bytes = contents(volume, 0, oracle.block_count())
                .map_err(|error| format!("volume {} cannot be read: {error}", at + 1))?;
            oracle.read(0, &bytes).map_err(|wrong| format!("volume {}: {wrong}", at + 1))?;
            if stop != Stop::Kill {
                oracle.settle();
            }
            self.story.note(blake3::hash(&bytes).as_bytes());
        }
        self.look_at_snapshots()
    }

    fn look_at_snapshots(&self) -> Result<(), Violated> {
        for Snapshot { of, contents: expected } in &self.snapshots {
            let spec = VolumeSpec { id: CLONE, ..*of };
            let failed =
                |error| format!("the snapshot of generation {} of {:?} cannot be read: {error}", of.generation, of.id);
            let volume = Volume::open(&self.site.storage, &spec).map_err(failed)?;
            let found = contents(&volume, 0, of.size.bytes().0 / BLOCK).map_err(failed)?;
            if found != *expected {
                return Err(format!("the snapshot of generation {} of {:?} has changed", of.generation, of.id));
            }
            volume.close();
            drop(volume);
            self.site.storage.remove_volume(CLONE).map_err(failed)?;
        }
        Ok(())
    }

    fn note_disk(&mut self) {
        let log = format!("{:?}", self.site.disk.log());
        self.story.note(log.as_bytes());
    }

    fn some_blocks(&mut self, at: usize) -> (u64, u64) {
        let blocks = self.disks[at].oracle.block_count();
        let first = self.random.below(blocks);
        let most = if self.random.below(4) == 0 { 64 } else { 4 };
        (first, 1 + self.random.below(most.min(blocks - first)))
    }
}

fn contents(volume: &Volume, first: u64, count: u64) -> Result<Vec<u8>, VolumeError> {
    let mut bytes = vec![0xee; usize::try_from(count * BLOCK).unwrap_or(0)];
    match volume.read(range(first, count), &mut bytes)? {
        ReadOutcome::Filled => {}
        ReadOutcome::Zeroes => bytes.fill(0),
    }
    Ok(bytes)
}

fn range(first: u64, count: u64) -> ByteRange {
    ByteRange::new(ByteOffset(first * BLOCK), count * BLOCK).expect("blocks of a volume")
}

fn spec(id: u64, blocks: u64) -> VolumeSpec {
    VolumeSpec {
        id: VolumeId(id),
        size: VolumeSize::try_from(ByteSize(blocks * BLOCK)).expect("a size of a volume"),
        epoch: Epoch::FIRST,
        root: Root::EMPTY,
        generation: 0,
        written_blocks: 0,
        chunking: ChunkingParameters::default(),
        reclaimed: None,
    }
}

/// About two files of a journal, or a few packs' batches.
const MOST_LEFT_BYTES: u64 = 256 << 10;
const BLOCK: u64 = BLOCK_BYTES as u64;
/// One that lies in one segment of the map, and one that lies in several.
const DISK_BLOCKS: [u64; 2] = [96, 700];
/// Looks at snapshots.
const CLONE: VolumeId = VolumeId(99);
const MOST_SNAPSHOTS: usize = 4;
const STEPS: u32 = 200;
