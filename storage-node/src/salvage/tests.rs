//! Salvage against what was written, with all kinds of things lost.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::{ControlFlow, Range};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use proptest::prelude::{Strategy, any, prop, prop_assert, prop_oneof, proptest};
use sterna_types::{BLOCK_SIZE, ByteOffset, ByteRange, ByteSize, Epoch, Root, SegmentIndex, VolumeId, VolumeSize};

use super::{Contents, Extracted, LostCause, NamedVolume, Salvage, SalvageError, SalvageOptions, Source};
use crate::chunk_store::index::{Index, MemoryIndex, RocksIndex, VolumeRecords};
use crate::chunk_store::pack::{PackId, PackScanner};
use crate::chunk_store::{ChunkKind, PackStore, PackStoreOptions};
use crate::chunking::ChunkingParameters;
use crate::disk::simulated::CrashMode;
use crate::disk::{Disk, SimulatedDisk, SystemDisk};
use crate::journal::SaltSource;
use crate::map;
use crate::volume::{Inheritance, SealedState, Storage, StorageOptions, Tail, Volume, VolumeError, VolumeSpec};

const BLOCKS: u64 = 1500;
const BLOCK: usize = 4096;

/// A node's storage, which is not opened anew after damage.
struct Machine {
    disk: SimulatedDisk,
    index: Arc<MemoryIndex>,
    storage: Arc<Storage>,
}

impl Machine {
    fn new() -> Self {
        let disk = SimulatedDisk::new();
        let index = Arc::new(MemoryIndex::on(&disk));
        Self::on(disk, index, 0)
    }

    fn on(disk: SimulatedDisk, index: Arc<MemoryIndex>, run: u8) -> Self {
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let storage = storage_on(shared, index.clone(), run);
        Self { disk, index, storage }
    }

    fn after_power_loss(&self, seed: u64, mode: CrashMode) -> Self {
        let disk = self.disk.crash_image(seed, mode);
        let index = Arc::new(self.index.crash_image(seed, &disk));
        Self::on(disk, index, 9)
    }

    fn volume(&self, id: u64, root: Root) -> Result<Arc<Volume>, VolumeError> {
        Volume::open(&self.storage, &spec(id, root))
    }

    /// What is found without an index.
    fn salvage(&self) -> Salvage {
        salvage(&self.disk, None)
    }
}

fn storage_on(disk: Arc<dyn Disk>, index: Arc<dyn Index>, run: u8) -> Arc<Storage> {
    let pack_options = PackStoreOptions { reserve_bytes: 0, ..PackStoreOptions::default() };
    let store = PackStore::open(Arc::clone(&disk), Arc::clone(&index), pack_options).expect("a store");
    let options = StorageOptions { journal_file_bytes: 64 << 10, reserve_bytes: 0, ..StorageOptions::default() };
    let (records, salts) = (VolumeRecords::new(index), SaltSource::new([run; 32]));
    Storage::new(disk, Arc::new(store), records, salts, options).expect("a storage")
}

fn spec(id: u64, root: Root) -> VolumeSpec {
    VolumeSpec {
        id: VolumeId(id),
        size: size(),
        epoch: Epoch::FIRST,
        root,
        generation: 0,
        written_blocks: 0,
        chunking: ChunkingParameters::default(),
        reclaimed: None,
    }
}

fn size() -> VolumeSize {
    VolumeSize::try_from(ByteSize(BLOCKS * BLOCK_SIZE)).expect("a size of a test")
}

fn salvage(disk: &SimulatedDisk, index: Option<Arc<dyn Index>>) -> Salvage {
    let operations = disk.operations();
    let disk_read = Arc::new(disk.clone());
    let opened = Salvage::open(disk_read, index, &[], &SalvageOptions::default(), &mut |_| ControlFlow::Continue(()));
    assert_eq!(disk.operations(), operations, "a salvage changes nothing");
    opened.expect("a data directory that can be read")
}

/// What was written to a volume. Each operation is one record of its journal.
#[derive(Clone, Default)]
struct History {
    base: BTreeMap<u64, Vec<u8>>,
    operations: Vec<(Range<u64>, Option<u8>)>,
}

impl History {
    /// The blocks that are not zero after so many operations.
    fn after(&self, operations: u64) -> BTreeMap<u64, Vec<u8>> {
        let mut blocks = self.base.clone();
        for (range, seed) in &self.operations[..usize::try_from(operations).expect("few")] {
            for block in range.clone() {
                match seed {
                    Some(seed) => blocks.insert(block, content(block, *seed)),
                    None => blocks.remove(&block),
                };
            }
        }
        blocks
    }

    fn now(&self) -> BTreeMap<u64, Vec<u8>> {
        self.after(self.operations.len() as u64)
    }

    fn write(&mut self, volume: &Volume, blocks: Range<u64>, seed: u8) {
        let data: Vec<u8> = blocks.clone().flat_map(|block| content(block, seed)).collect();
        volume.write(ByteOffset(blocks.start * BLOCK_SIZE), &data).expect("a write");
        self.operations.push((blocks, Some(seed)));
    }

    fn zero(&mut self, volume: &Volume, blocks: Range<u64>) {
        volume.zero(bytes(&blocks)).expect("zeroes");
        self.operations.push((blocks, None));
    }
}

/// Alike for even seeds, and not to be compressed for odd ones.
fn content(block: u64, seed: u8) -> Vec<u8> {
    let mut data = vec![seed; BLOCK];
    if !seed.is_multiple_of(2) {
        blake3::Hasher::new().update(&block.to_le_bytes()).update(&[seed]).finalize_xof().fill(&mut data);
    }
    data
}

fn bytes(blocks: &Range<u64>) -> ByteRange {
    ByteRange::between(ByteOffset(blocks.start * BLOCK_SIZE), ByteOffset(blocks.end * BLOCK_SIZE))
}

fn extract(salvage: &Salvage, contents: &Contents) -> (Extracted, File) {
    let image = tempfile::tempfile().expect("a temporary file");
    let extracted = salvage.extract(contents, &image, &mut |_| ControlFlow::Continue(()));
    (extracted.expect("an image"), image)
}

/// The blocks of an image that are not as they should be, and not lost.
fn wrong(image: &File, expected: &BTreeMap<u64, Vec<u8>>, extracted: &Extracted) -> Vec<u64> {
    let mut all = vec![0; usize::try_from(BLOCKS).expect("few") * BLOCK];
    image.read_exact_at(&mut all, 0).expect("a whole image");
    let lost = |block: u64| {
        extracted.lost.iter().any(|lost| (lost.range.start().0..lost.range.end().0).contains(&(block * BLOCK_SIZE)))
    };
    let zeroes = vec![0; BLOCK];
    let found = (0..).zip(all.chunks(BLOCK));
    let is_wrong = |(block, data): &(u64, &[u8])| *data != expected.get(block).unwrap_or(&zeroes) && !lost(*block);
    found.filter(is_wrong).map(|(block, _)| block).collect()
}

/// The newest contents of a volume, nothing of which is lost.
fn check_whole(salvage: &Salvage, id: u64, expected: &BTreeMap<u64, Vec<u8>>) {
    let volume = salvage.volume(VolumeId(id)).expect("a volume that is found");
    assert!(!volume.is_incomplete(), "{volume:?}");
    let contents = volume.contents(false).expect("contents");
    let (extracted, image) = extract(salvage, &contents);
    assert_eq!((&extracted.lost, contents.size), (&Vec::new(), size()));
    assert_eq!(wrong(&image, expected, &extracted), [0; 0], "blocks of volume {id}");
    for check_data in [false, true] {
        let examined = salvage.examine(&contents, check_data, &mut |_| ControlFlow::Continue(()));
        assert_eq!(examined.expect("an examination"), extracted);
    }
}

/// Three volumes: one with seals and later writes, a clone of it that was written and never sealed, and one never sealed.
fn three_volumes() -> (Machine, BTreeMap<u64, History>) {
    let machine = Machine::new();
    let mut histories: BTreeMap<u64, History> = BTreeMap::new();
    let first = machine.volume(1, Root::EMPTY).expect("a volume");
    let mut history = History::default();
    history.write(&first, 0..10, 1);
    history.write(&first, 1020..1030, 3);
    first.seal().expect("a seal");
    history.write(&first, 5..12, 2);
    history.zero(&first, 1022..1024);
    let root = first.seal().expect("a seal").root;
    let clone_base = history.now();
    history.write(&first, 100..105, 5);
    history.zero(&first, 0..3);
    histories.insert(1, history);
    let clone = machine.volume(2, root).expect("a clone");
    let mut history = History { base: clone_base, ..History::default() };
    history.write(&clone, 7..9, 7);
    histories.insert(2, history);
    let third = machine.volume(3, Root::EMPTY).expect("a volume");
    let mut history = History::default();
    for round in 0..30u8 {
        history.write(&third, u64::from(round)..u64::from(round) + 3, round);
    }
    histories.insert(3, history);
    (machine, histories)
}

#[test]
fn without_an_index_all_volumes_come_back_with_what_was_not_sealed() {
    let (machine, histories) = three_volumes();
    let salvage = machine.salvage();
    assert_eq!(salvage.volumes().iter().map(|volume| volume.id.0).collect::<Vec<_>>(), [1, 2, 3]);
    for (id, history) in &histories {
        check_whole(&salvage, *id, &history.now());
    }
    assert_eq!(salvage.volume(VolumeId(2)).expect("the clone").versions[0].source, Source::Journal);
    assert_eq!((salvage.damages(), salvage.unclaimed()), (&[][..], &[][..]));
    // The version before the newest is there too.
    let first = salvage.volume(VolumeId(1)).expect("the first");
    let (extracted, image) = extract(&salvage, &first.versions[1].contents());
    assert_eq!(wrong(&image, &histories[&1].after(2), &extracted), [0; 0]);
}

#[test]
fn what_compaction_has_moved_and_compressed_is_found() {
    let (machine, histories) = three_volumes();
    let first = machine.volume(1, Root::EMPTY).expect("the volume that is open");
    first.seal().expect("a seal");
    let index: Arc<dyn Index> = machine.index.clone();
    let options = PackStoreOptions { reserve_bytes: 0, ..PackStoreOptions::default() };
    let store = PackStore::open(Arc::new(machine.disk.clone()), index.clone(), options).expect("a store");
    let options = crate::chunk_store::collect::CollectOptions {
        dead_percent: 1,
        small_pack_bytes: 1 << 30,
        ..Default::default()
    };
    let cancel = std::sync::atomic::AtomicBool::new(false);
    let versions = machine.salvage().volume(VolumeId(2)).expect("the clone").versions[0].root;
    let report =
        machine.storage.collect(&store, || Ok(vec![versions]), &options, &mut |_| {}, &cancel).expect("a collection");
    assert!(report.finished);
    let salvage = machine.salvage();
    for (id, history) in &histories {
        check_whole(&salvage, *id, &history.now());
    }
}

/// The first frame of this kind, and where it is.
fn frame(disk: &SimulatedDisk, kind: ChunkKind, pack: u64) -> (String, crate::chunk_store::pack::Frame) {
    let pack = PackId(pack);
    let mut scanner = PackScanner::new(pack, disk.open(&pack.path()).expect("a pack")).expect("a pack");
    loop {
        let scanned = scanner.next_frame().expect("a pack that can be read").expect("a frame of this kind");
        if scanned.frame.kind == kind {
            return (pack.path(), scanned.frame);
        }
    }
}

fn flip(disk: &SimulatedDisk, path: &str, at: u64) {
    let file = disk.open(path).expect("a file");
    let mut byte = [0];
    file.read_at(at, &mut byte).expect("a byte");
    file.write_at(at, &[&[!byte[0]]]).expect("damage");
}

#[test]
fn of_a_damaged_chunk_only_its_ranges_are_lost_and_they_are_named() {
    let machine = Machine::new();
    let volume = machine.volume(1, Root::EMPTY).expect("a volume");
    let mut history = History::default();
    history.write(&volume, 10..22, 1);
    history.write(&volume, 1100..1110, 3);
    let root = volume.seal().expect("a seal").root;
    history.write(&volume, 12..13, 5);
    let (path, damaged) = frame(&machine.disk, ChunkKind::Data, 1);
    let salvage = machine.salvage();
    let mut expected = Vec::new();
    for found in map::segments(&salvage.chunks, &salvage.nodes, root, SegmentIndex(0)..SegmentIndex(2)) {
        let (segment, id) = found.expect("a map");
        let manifest = map::manifest(&salvage.chunks, &salvage.nodes, id, segment).expect("a manifest");
        for extent in manifest.extents().iter().filter(|extent| extent.chunk == damaged.id) {
            let first = segment.0 * 1024 + u64::from(extent.first_block);
            expected.extend(first..first + u64::from(extent.block_count));
        }
    }
    // What the journal holds is not lost.
    expected.retain(|block| *block != 12);
    assert!(!expected.is_empty() && expected.len() < 22, "{expected:?}");
    flip(&machine.disk, &path, u64::from(damaged.offset) + 5);
    let salvage = machine.salvage();
    let contents = salvage.volumes()[0].contents(false).expect("contents");
    let (extracted, image) = extract(&salvage, &contents);
    let lost =
        extracted.lost.iter().flat_map(|lost| lost.range.start().0 / BLOCK_SIZE..lost.range.end().0 / BLOCK_SIZE);
    assert_eq!(lost.collect::<Vec<_>>(), expected);
    assert!(extracted.lost.iter().all(|lost| lost.cause == LostCause::Data));
    assert_eq!(wrong(&image, &history.now(), &extracted), [0; 0]);
    // Looking alone does not find it; reading does.
    let examine = |check| salvage.examine(&contents, check, &mut |_| ControlFlow::Continue(())).expect("an answer");
    assert_eq!((examine(false).lost, examine(true).lost), (Vec::new(), extracted.lost));
}

#[test]
fn behind_a_damaged_batch_header_the_index_still_finds_chunks() {
    let (machine, histories) = three_volumes();
    let header_at = 4096;
    flip(&machine.disk, &PackId(1).path(), header_at + 20);
    let with_index = salvage(&machine.disk, Some(machine.index.clone()));
    for (id, history) in &histories {
        check_whole(&with_index, *id, &history.now());
    }
    assert!(!with_index.damages().is_empty());
    let without = machine.salvage();
    let contents = without.volume(VolumeId(1)).expect("the volume").contents(false).expect("contents");
    let (extracted, image) = extract(&without, &contents);
    assert!(!extracted.lost.is_empty());
    assert_eq!(wrong(&image, &histories[&1].now(), &extracted), [0; 0]);
}

const JOURNAL_3: &str = "volumes/0000000000000003/journal/0000000000000001.journal";

#[test]
fn a_damaged_journal_header_is_read_from_its_second_copy_and_without_both_is_reported() {
    let (machine, histories) = three_volumes();
    flip(&machine.disk, JOURNAL_3, 30);
    check_whole(&machine.salvage(), 3, &histories[&3].now());
    flip(&machine.disk, JOURNAL_3, 2048 + 30);
    let salvage = machine.salvage();
    let found = salvage.volume(VolumeId(3)).expect("the volume");
    assert!(found.journal.is_damaged());
    // The second file says what the volume stands on; its records do not follow.
    let (extracted, image) = extract(&salvage, &found.contents(false).expect("contents"));
    assert_eq!(extracted.through.map(|through| through.0), Some(0));
    assert_eq!(wrong(&image, &BTreeMap::new(), &extracted), [0; 0]);
    assert!(found.journal.strays > 0);
}

#[test]
fn a_volume_whose_journal_has_a_damaged_header_is_not_opened_and_keeps_its_files() {
    let (machine, _) = three_volumes();
    let disk = machine.disk.after_kill();
    for at in [30, 2048 + 30] {
        flip(&disk, JOURNAL_3, at);
    }
    let names = disk.list("volumes/0000000000000003/journal").expect("names");
    let index = Arc::new(machine.index.after_kill(&disk));
    let again = Machine::on(disk, index, 3);
    let refused = again.volume(3, Root::EMPTY);
    assert!(matches!(&refused, Err(VolumeError::Journal(_))), "{:?}", refused.map(|volume| volume.status()));
    assert_eq!(again.disk.list("volumes/0000000000000003/journal").expect("names"), names);
}

#[test]
fn what_is_behind_damage_of_the_journal_is_taken_only_if_told_to() {
    let machine = Machine::new();
    let volume = machine.volume(1, Root::EMPTY).expect("a volume");
    let mut history = History::default();
    for block in 0..4 {
        history.write(&volume, 10 * block..10 * block + 2, 3);
    }
    volume.flush().expect("a flush");
    history.write(&volume, 50..52, 3);
    let record = 48 + 2 * 4096;
    flip(&machine.disk, "volumes/0000000000000001/journal/0000000000000001.journal", 4096 + record + 100);
    let salvage = machine.salvage();
    let found = &salvage.volumes()[0];
    assert_eq!(found.journal.last.0, 1);
    assert_eq!(found.journal.durable_once.map(|sequence| sequence.0), Some(4));
    assert_eq!((found.journal.strays, found.journal.is_damaged()), (3, true));
    let (extracted, image) = extract(&salvage, &found.contents(false).expect("contents"));
    assert_eq!(wrong(&image, &history.after(1), &extracted), [0; 0]);
    let (extracted, image) = extract(&salvage, &found.contents(true).expect("contents"));
    assert_eq!(wrong(&image, &history.now(), &extracted), [10, 11], "all but the damaged record");
}

/// Power is lost at any moment, the volume goes on with other writes, and is salvaged without an index: it is what the
/// engine itself shows, also where a seal was cut off whose checkpoint says otherwise.
#[test]
fn after_any_end_and_whatever_came_then_a_salvage_finds_what_the_engine_shows() {
    let run = |machine: &Machine, seed: u8| -> Result<(), VolumeError> {
        let volume = machine.volume(1, Root::EMPTY)?;
        for round in 0..3 {
            let write = |block: u64, seed| volume.write(ByteOffset(block * BLOCK_SIZE), &content(block, seed));
            write(round, seed)?;
            volume.flush()?;
            (10..16).try_for_each(|block| write(block + round, seed))?;
            volume.seal()?;
            write(30 + round, seed)?;
        }
        Ok(())
    };
    let whole = Machine::new();
    let before = whole.disk.operations();
    run(&whole, 1).expect("a history");
    let operations = whole.disk.operations() - before;
    for cut in 0..operations {
        for (number, mode) in CrashMode::ALL.into_iter().enumerate() {
            let machine = Machine::new();
            machine.disk.crash_after(cut);
            // What fails last may be something that is tidied up later.
            let ended = run(&machine, 1);
            assert!(ended.is_err() || machine.disk.has_crashed());
            let again = machine.after_power_loss(cut ^ number as u64, mode);
            let volume = again.volume(1, Root::EMPTY).expect("a volume");
            for (step, block) in [2, 11, 40].into_iter().enumerate() {
                check_as_shown(&again, &volume, step == 0);
                volume.write(ByteOffset(block * BLOCK_SIZE), &content(block, 5)).expect("a write");
                if step == 1 {
                    volume.flush().expect("a flush");
                }
            }
            check_as_shown(&again, &volume, false);
            volume.seal().expect("a seal");
            check_as_shown(&again, &volume, false);
        }
    }
}

/// With `or_more` it may also hold writes that the loss of power took: those that a seal had got to before it was cut off.
fn check_as_shown(machine: &Machine, volume: &Volume, or_more: bool) {
    let blocks = 0..64u64;
    let mut shown = vec![0; 64 * BLOCK];
    if volume.read(bytes(&blocks), &mut shown).expect("a read") == sterna_types::device::ReadOutcome::Zeroes {
        shown.fill(0);
    }
    let salvage = machine.salvage();
    let Some(found) = salvage.volume(VolumeId(1)) else {
        assert!(shown.iter().all(|byte| *byte == 0), "the volume is not found");
        return;
    };
    let Some(contents) = found.contents(false) else {
        assert!(shown.iter().all(|byte| *byte == 0), "nothing says what the volume was");
        return;
    };
    let (extracted, image) = extract(&salvage, &contents);
    let mut salvaged = vec![0; 64 * BLOCK];
    image.read_exact_at(&mut salvaged, 0).expect("an image");
    let block_of = |all: &[u8], block: usize| all[block * BLOCK..][..BLOCK].to_vec();
    let differs = (0..64usize).filter(|block| block_of(&salvaged, *block) != block_of(&shown, *block));
    let differs = differs.filter(|block| !or_more || block_of(&salvaged, *block) != content(*block as u64, 1));
    assert_eq!(differs.collect::<Vec<_>>(), [0; 0], "{found:?}");
    assert_eq!((extracted.lost, found.is_incomplete()), (Vec::new(), false));
}

#[test]
fn names_and_snapshots_come_from_the_metadata_and_unclaimed_roots_are_found_without() {
    let (machine, histories) = three_volumes();
    let imported = machine.salvage().volume(VolumeId(1)).expect("the first").versions[1].root;
    let named = NamedVolume {
        id: VolumeId(4),
        name: "imported".parse().expect("a name"),
        size: size(),
        root: imported,
        generation: 0,
        epoch: Epoch::FIRST,
        snapshots: vec![super::NamedSnapshot { name: "s".parse().expect("a name"), root: imported, size: size() }],
    };
    let disk: Arc<dyn Disk> = Arc::new(machine.disk);
    let mut watcher = |_| ControlFlow::Continue(());
    let salvage = Salvage::open(disk, None, &[named], &SalvageOptions::default(), &mut watcher).expect("a salvage");
    check_whole(&salvage, 4, &histories[&1].after(2));
    let snapshot = &salvage.volume(VolumeId(4)).expect("the volume").snapshots[0];
    let (extracted, image) = extract(&salvage, &Contents::from(snapshot));
    assert_eq!(wrong(&image, &histories[&1].after(2), &extracted), [0; 0]);
    let contents = salvage.contents_of(imported);
    assert_eq!((contents.root, contents.size.bytes().0), (imported, 1030 * BLOCK_SIZE));
}

#[test]
fn a_root_that_nothing_names_is_found_by_its_top() {
    let (machine, _) = three_volumes();
    let first = machine.salvage().volume(VolumeId(1)).expect("the first").versions[1].root;
    for pack in 1..=1 {
        let (path, checkpoint) = frame(&machine.disk, ChunkKind::Checkpoint, pack);
        flip(&machine.disk, &path, u64::from(checkpoint.offset));
    }
    let salvage = machine.salvage();
    assert_eq!(salvage.unclaimed(), [first]);
    assert!(!salvage.damages().is_empty());
}

#[test]
fn a_table_that_is_too_small_is_an_error_and_a_watcher_can_stop() {
    let (machine, _) = three_volumes();
    let disk: Arc<dyn Disk> = Arc::new(machine.disk);
    let options = SalvageOptions { table_bytes: 300, ..SalvageOptions::default() };
    let mut go_on = |_| ControlFlow::Continue(());
    let stopped =
        Salvage::open(Arc::clone(&disk), None, &[], &SalvageOptions::default(), &mut |_| ControlFlow::Break(()));
    assert_eq!(stopped.err(), Some(SalvageError::Stopped));
    let result = Salvage::open(disk, None, &[], &options, &mut go_on);
    assert_eq!(result.err(), Some(SalvageError::TooManyChunks { limit_bytes: 300 }));
}

/// A file of the disk, and what becomes of it.
#[derive(Clone, Debug)]
enum Damage {
    Flip { file: prop::sample::Index, at: prop::sample::Index, early: bool },
    Remove { file: prop::sample::Index },
}

fn damages() -> impl Strategy<Value = Vec<Damage>> {
    let index = any::<prop::sample::Index>;
    let flip = (index(), index(), any::<bool>()).prop_map(|(file, at, early)| Damage::Flip { file, at, early });
    let remove = index().prop_map(|file| Damage::Remove { file });
    prop::collection::vec(prop_oneof![12 => flip, 1 => remove], 1..8)
}

fn files(disk: &SimulatedDisk, directory: &str) -> Vec<String> {
    let names = disk.list(directory).expect("names").into_iter();
    let paths = names.map(|name| if directory.is_empty() { name } else { format!("{directory}/{name}") });
    paths.flat_map(|path| if disk.open(&path).is_ok() { vec![path] } else { files(disk, &path) }).collect()
}

fn damage(disk: &SimulatedDisk, damage: &Damage) {
    let all = files(disk, "");
    match damage {
        Damage::Flip { file, at, early } => {
            let path = file.get(&all);
            let size = disk.open(path).and_then(|file| file.size()).expect("a size");
            // Half of them where headers are.
            let span = if *early { size.min(16 << 10) } else { size };
            if span > 0 {
                flip(disk, path, at.index(usize::try_from(span).expect("a small file")) as u64);
            }
        }
        Damage::Remove { file } => disk.remove(file.get::<String>(&all)).expect("a removal"),
    }
}

proptest! {
    #[test]
    fn whatever_is_damaged_what_is_not_reported_lost_is_right(damages in damages(), with_index in any::<bool>()) {
        let (machine, histories) = three_volumes();
        machine.volume(1, Root::EMPTY).expect("the volume").flush().expect("a flush");
        for one in &damages {
            damage(&machine.disk, one);
            if files(&machine.disk, "").is_empty() {
                break;
            }
        }
        let index = with_index.then(|| machine.index.clone() as Arc<dyn Index>);
        let salvage = salvage(&machine.disk, index);
        for found in salvage.volumes() {
            let history = &histories[&found.id.0];
            let Some(contents) = found.contents(false) else { continue };
            let (extracted, image) = extract(&salvage, &contents);
            let through = extracted.through.expect("a journal").0;
            prop_assert!(through <= history.operations.len() as u64);
            let wrong = wrong(&image, &history.after(through), &extracted);
            prop_assert!(wrong.is_empty(), "blocks {wrong:?} of {found:?}");
            // It comes to an end and does not panic.
            extract(&salvage, &found.contents(true).expect("contents"));
        }
        for root in salvage.unclaimed() {
            extract(&salvage, &salvage.contents_of(*root));
        }
    }

    #[test]
    fn an_index_that_lies_misleads_nobody(records in prop::collection::vec(any::<u8>(), 112), age in 0..3u64) {
        let (machine, histories) = three_volumes();
        let lying = Arc::new(MemoryIndex::new());
        let mut record = VolumeRecords::new(machine.index.clone()).get(VolumeId(1)).expect("an index").expect("a record");
        record[8..16].copy_from_slice(&age.to_le_bytes());
        if age == 0 {
            record[48..].copy_from_slice(&records[48..]);
        }
        let table = VolumeRecords::new(lying.clone());
        table.put(VolumeId(1), record).expect("a lie");
        table.put(VolumeId(3), records).expect("a lie");
        let salvage = salvage(&machine.disk, Some(lying));
        for (id, history) in &histories {
            check_whole(&salvage, *id, &history.now());
        }
    }
}

/// All files below a directory with their contents.
fn contents_of_files(directory: &std::path::Path) -> BTreeMap<std::path::PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            all.extend(contents_of_files(&path));
        } else {
            all.insert(path.clone(), std::fs::read(&path).expect("a file"));
        }
    }
    all
}

#[test]
fn a_salvage_of_files_alters_none_of_them_and_needs_no_sound_database() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let database = directory.path().join("index");
    let mut history = History::default();
    {
        let disk: Arc<dyn Disk> = Arc::new(SystemDisk::open(directory.path()).expect("a data directory"));
        let index = Arc::new(RocksIndex::open(&database, 1 << 20).expect("an index"));
        let volume = Volume::open(&storage_on(disk, index, 1), &spec(1, Root::EMPTY)).expect("a volume");
        history.write(&volume, 0..9, 1);
        volume.seal().expect("a seal");
        history.write(&volume, 5..12, 3);
    }
    let before = contents_of_files(directory.path());
    let open = |index: Option<Arc<dyn Index>>| {
        let disk = Arc::new(SystemDisk::open_read_only(directory.path()).expect("a data directory"));
        let mut watcher = |_| ControlFlow::Continue(());
        Salvage::open(disk, index, &[], &SalvageOptions::default(), &mut watcher).expect("a salvage")
    };
    let index = RocksIndex::open_read_only(&database, 1 << 20).expect("an index");
    check_whole(&open(Some(Arc::new(index))), 1, &history.now());
    check_whole(&open(None), 1, &history.now());
    assert!(contents_of_files(directory.path()) == before, "a file has been altered, made or removed");
    let current = database.join("CURRENT");
    std::fs::write(&current, b"MANIFEST-999999\n").expect("damage");
    RocksIndex::open_read_only(&database, 1 << 20).expect_err("a damaged database");
}

#[test]
fn what_had_not_arrived_of_a_volume_is_lost_and_not_taken_from_its_root() {
    let (machine, mut history) = (Machine::new(), History::default());
    let volume = machine.volume(1, Root::EMPTY).expect("a volume");
    history.write(&volume, 0..9, 1);
    let SealedState { root, generation, written_blocks } = volume.seal().expect("a seal");
    volume.close();
    machine.storage.remove_volume(VolumeId(1)).expect("it is forgotten");
    // Blocks 3 to 5 are newer elsewhere, and 7 is a hole there.
    let numbers = [3u64, 3, 7, 1 | 1 << 63].map(u64::to_le_bytes).concat();
    let tail = Tail::parse(&numbers).expect("a tail");
    let spec = VolumeSpec { epoch: Epoch::FIRST.next(), generation, written_blocks, ..spec(1, root) };
    machine.storage.inherit(&Inheritance { spec, tail }, Vec::new()).expect("it is taken over");
    let volume = Volume::open(&machine.storage, &spec).expect("the volume");
    history.write(&volume, 4..5, 2);
    volume.flush().expect("a flush");

    let salvage = salvage(&machine.disk, Some(machine.index.clone()));
    let contents = salvage.volumes()[0].contents(false).expect("contents");
    let (extracted, image) = extract(&salvage, &contents);
    let lost: Vec<_> = extracted.lost.iter().map(|lost| (lost.range.start().0 / BLOCK_SIZE, lost.cause)).collect();
    assert_eq!(lost, [(3, LostCause::Elsewhere), (5, LostCause::Elsewhere)]);
    let mut expected = history.now();
    // What is lost is a hole in the image, and not what the root has there.
    for block in [3, 5, 7] {
        expected.remove(&block);
    }
    assert_eq!(wrong(&image, &expected, &Extracted { lost: Vec::new(), ..extracted }), []);
}
