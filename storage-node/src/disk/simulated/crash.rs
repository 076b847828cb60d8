//! What is left of a simulated disk when power is lost.
//!
//! Sectors of 512 bytes are atomic, and nothing else is. After a crash each sector of a file is as it was after some number
//! of the writes that were not synced, none and all included; each name likewise. Which, the seed decides: the same seed
//! gives the same image.

use super::contents::Contents;
use super::state::{Change, Entry, FileId, FileState, Names, State};

/// How much of what was not synced may be there after a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrashMode {
    /// None of it.
    Lose,
    /// Of each file and directory the changes up to some moment, in their order; the last write may be torn.
    InOrder,
    /// Any sectors of any writes, any changes of names, and a size of any moment.
    Scramble,
}

impl CrashMode {
    /// All of them, for tests that try each.
    pub const ALL: [Self; 3] = [Self::Lose, Self::InOrder, Self::Scramble];
}

/// Bytes that are written whole or not at all.
const SECTOR_BYTES: u64 = 512;

/// The disk as it is found after a crash: everything in it is durable, and nobody has it open.
pub(super) fn image(state: &State, seed: u64, mode: CrashMode) -> State {
    let mut left = State::empty();
    left.next_file = state.next_file;
    left.capacity = state.capacity;
    for (number, (path, directory)) in state.directories.iter().enumerate() {
        let dice = Dice { seed, object: u64::MAX - number as u64 };
        let mut names = directory.durable.clone();
        let moment = dice.below(0, directory.pending.len() + 1);
        for (index, change) in directory.pending.iter().enumerate() {
            let kept = match mode {
                CrashMode::Lose => false,
                CrashMode::InOrder => index < moment,
                CrashMode::Scramble => dice.below(1 + index as u64, 2) == 0,
            };
            if kept {
                change.apply(&mut names);
            }
        }
        insert_names(&mut left, path, names);
    }
    for (id, file) in &state.files {
        left.files.insert(*id, settled(left_of(file, *id, seed, mode)));
    }
    left.forget_unreachable();
    left
}

/// The disk as it is found after `kill -9`: nothing is missing.
pub(super) fn untouched(state: &State) -> State {
    let mut left = State::empty();
    left.next_file = state.next_file;
    left.capacity = state.capacity;
    for (path, directory) in &state.directories {
        insert_names(&mut left, path, directory.now.clone());
        let kept = left.directories.entry(path.clone()).or_default();
        kept.durable = directory.durable.clone();
        kept.pending = directory.pending.clone();
    }
    left.files = state.files.iter().map(|(id, file)| (*id, FileState { handles: 0, ..file.clone() })).collect();
    left.forget_unreachable();
    left
}

/// What a file comes to when its pending changes are dropped or kept as the seed says.
pub(super) fn left_of(file: &FileState, id: FileId, seed: u64, mode: CrashMode) -> Contents {
    let dice = Dice { seed, object: id.0 };
    let changes = file.pending.len();
    let mut left = file.durable.clone();
    if mode == CrashMode::Lose || changes == 0 {
        return left;
    }
    let moment = dice.below(0, changes + 1);
    let size_moment = if mode == CrashMode::InOrder { moment } else { dice.below(1, changes + 1) };
    let tear = dice.below(2, 2) == 0;
    let mut size = left.size();
    for (index, change) in file.pending.iter().enumerate() {
        match change {
            Change::Write { at, bytes } => {
                let keeps = |sector: u64| match mode {
                    CrashMode::Lose => false,
                    CrashMode::InOrder if tear && index == moment => dice.below(16 + sector, 2) == 0,
                    CrashMode::InOrder => index < moment,
                    // Half of the sectors are of the last moment, the others of any: long histories must not hide tears.
                    CrashMode::Scramble if dice.below(16 + 2 * sector, 2) == 0 => true,
                    CrashMode::Scramble => index < dice.below(17 + 2 * sector, changes + 1),
                };
                write_sectors(&mut left, *at, bytes, keeps);
                size = if index < size_moment { size.max(at + bytes.len() as u64) } else { size };
            }
            Change::Allocate { length } if index < size_moment => {
                left.allocate(*length);
                size = size.max(*length);
            }
            Change::Allocate { .. } => (),
        }
    }
    left.resize(if mode == CrashMode::InOrder && tear { size.max(left.size()) } else { size });
    left
}

fn write_sectors(contents: &mut Contents, at: u64, bytes: &[u8], keeps: impl Fn(u64) -> bool) {
    let (mut at, mut rest) = (at, bytes);
    while !rest.is_empty() {
        let left_in_sector = usize::try_from(SECTOR_BYTES - at % SECTOR_BYTES).unwrap_or(rest.len());
        let (here, behind) = rest.split_at(left_in_sector.min(rest.len()));
        if keeps(at / SECTOR_BYTES) {
            contents.write(at, here);
        }
        at += here.len() as u64;
        rest = behind;
    }
}

fn insert_names(state: &mut State, path: &str, names: Names) {
    let directory = state.directories.entry(path.to_owned()).or_default();
    directory.durable = names.clone();
    // A directory whose removal was lost is empty, and there.
    let children: Vec<&String> =
        names.iter().filter(|(_, entry)| **entry == Entry::Directory).map(|(name, _)| name).collect();
    let children: Vec<String> =
        children.iter().map(|name| if path.is_empty() { (*name).clone() } else { format!("{path}/{name}") }).collect();
    directory.now = names;
    for child in children {
        state.directories.entry(child).or_default();
    }
}

fn settled(contents: Contents) -> FileState {
    FileState { now: contents.clone(), durable: contents, pending: Vec::new(), handles: 0 }
}

/// Numbers that depend on nothing but a seed, an object, and which of its questions is asked.
#[derive(Clone, Copy)]
struct Dice {
    seed: u64,
    object: u64,
}

impl Dice {
    fn below(self, question: u64, limit: usize) -> usize {
        let mixed = mix(mix(mix(self.seed) ^ self.object) ^ question);
        usize::try_from(mixed % limit as u64).unwrap_or(0)
    }
}

/// The finisher of SplitMix64.
fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
