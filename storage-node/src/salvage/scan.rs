//! Reading all packs: which chunks are where, and what they say about volumes.

use std::collections::{BTreeMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use sterna_types::{ChunkId, VolumeId};

use super::chunks::FoundChunks;
use super::found::{FoundDamage, Source, Version};
use super::lenient::LenientFile;
use super::{SalvageError, SalvageOptions};
use crate::chunk_store::ChunkKind;
use crate::chunk_store::index::Index;
use crate::chunk_store::pack::{PACK_DIRECTORY, PackId, PackScanner, ScannedFrame, Verdict};
use crate::disk::{Disk, DiskFile};
use crate::map::{Level, Node};
use crate::progress::{Progress, Watcher};
use crate::volume::VolumeRecord;

/// What the packs hold.
pub(super) struct Scanned {
    pub(super) chunks: FoundChunks,
    /// The versions of each volume that checkpoints speak of, in the order in which they lie in the packs: a later one was
    /// written later, as what a collection moves is the newest one only.
    pub(super) checkpoints: BTreeMap<VolumeId, Vec<Version>>,
    /// The tops of maps, the newest last.
    pub(super) tops: Vec<ChunkId>,
    pub(super) damages: Vec<FoundDamage>,
}

/// Reads the headers of all batches, and all checkpoints and nodes.
pub(super) fn scan(
    disk: &Arc<dyn Disk>,
    index: Option<Arc<dyn Index>>,
    options: &SalvageOptions,
    watcher: Watcher<'_>,
) -> Result<Scanned, SalvageError> {
    let chunks = FoundChunks::new(Arc::clone(disk), index);
    let (checkpoints, tops, damages) = (BTreeMap::new(), Vec::new(), Vec::new());
    let mut scan = Scan { scanned: Scanned { chunks, checkpoints, tops, damages }, limit_bytes: options.table_bytes };
    let names = disk.list(PACK_DIRECTORY).unwrap_or_else(|error| {
        scan.unreadable(PACK_DIRECTORY.to_owned(), &error);
        Vec::new()
    });
    let packs: Vec<_> = names.iter().filter_map(|name| PackId::of_file_name(name)).collect();
    let (mut done_bytes, total_bytes) = (0, total(&**disk, &packs));
    for pack in packs {
        match disk.open(&pack.path()) {
            Ok(file) => scan.pack(pack, file, &mut |bytes| {
                done_bytes += bytes;
                watcher(Progress { done_bytes, total_bytes })
            })?,
            Err(error) => scan.unreadable(pack.path(), &error),
        }
    }
    scan.scanned.chunks.finish();
    Ok(scan.scanned)
}

fn total(disk: &dyn Disk, packs: &[PackId]) -> u64 {
    packs.iter().filter_map(|pack| disk.open(&pack.path()).and_then(|file| file.size()).ok()).sum()
}

struct Scan {
    scanned: Scanned,
    limit_bytes: u64,
}

impl Scan {
    fn pack(
        &mut self,
        pack: PackId,
        file: Arc<dyn DiskFile>,
        passed: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<(), SalvageError> {
        self.scanned.chunks.begin_pack(pack);
        let file = Arc::new(LenientFile::new(file));
        let lenient: Arc<dyn DiskFile> = file.clone();
        let mut scanner = match PackScanner::new(pack, lenient) {
            Ok(scanner) => scanner,
            Err(error) => {
                self.unreadable(pack.path(), &error);
                return Ok(());
            }
        };
        loop {
            let scanned = match scanner.next_frame() {
                Ok(Some(scanned)) => scanned,
                Ok(None) => break,
                // The file has become shorter: what is behind is gone.
                Err(error) => {
                    self.unreadable(pack.path(), &error);
                    break;
                }
            };
            if passed(scanned.frame.stored_length().into()).is_break() {
                return Err(SalvageError::Stopped);
            }
            let limit_bytes = self.limit_bytes;
            let added = self.scanned.chunks.add(&scanned.frame, limit_bytes);
            added.map_err(|_| SalvageError::TooManyChunks { limit_bytes })?;
            self.look_at(pack, &scanner, &scanned);
        }
        if scanner.skipped_bytes() > 0 {
            self.damage(FoundDamage::Unclaimed { path: pack.path(), bytes: scanner.skipped_bytes() });
        }
        if file.unreadable_bytes() > 0 {
            let what = format!("{} bytes cannot be read", file.unreadable_bytes());
            self.damage(FoundDamage::Unreadable { path: pack.path(), what });
        }
        Ok(())
    }

    /// Takes from a chunk what it says about volumes.
    fn look_at(&mut self, pack: PackId, scanner: &PackScanner, scanned: &ScannedFrame) {
        let frame = &scanned.frame;
        if !matches!(frame.kind, ChunkKind::Checkpoint | ChunkKind::Node) {
            return;
        }
        let Ok(Verdict::Sound(bytes)) = scanner.read(frame) else {
            return self.damage(FoundDamage::DamagedFrame { path: pack.path(), offset: frame.offset });
        };
        if frame.kind == ChunkKind::Checkpoint {
            let found = VolumeRecord::parse_checkpoint(&bytes, frame.id);
            let found = found.and_then(|(volume, record)| Some((volume, Version::of(&record, Source::Checkpoint)?)));
            let Some((volume, version)) = found else {
                return self.damage(FoundDamage::DamagedFrame { path: pack.path(), offset: frame.offset });
            };
            let versions = self.scanned.checkpoints.entry(volume).or_default();
            versions.retain(|known| *known != version);
            if versions.len() >= MAX_VERSIONS {
                versions.remove(0);
            }
            versions.push(version);
        } else if Node::decode(&bytes).is_ok_and(|node| node.level() == Level::TOP) {
            self.scanned.tops.push(frame.id);
            if self.scanned.tops.len() >= 2 * MAX_TOPS {
                keep_newest(&mut self.scanned.tops);
            }
        }
    }

    fn unreadable(&mut self, path: String, error: &std::io::Error) {
        self.damage(FoundDamage::Unreadable { path, what: error.to_string() });
    }

    fn damage(&mut self, damage: FoundDamage) {
        if self.scanned.damages.len() < MAX_DAMAGES {
            self.scanned.damages.push(damage);
        }
    }
}

/// Leaves the newest ids, each once.
pub(super) fn keep_newest(ids: &mut Vec<ChunkId>) {
    let mut seen = HashSet::new();
    let newest: Vec<_> = ids.iter().rev().copied().filter(|id| seen.insert(*id)).take(MAX_TOPS).collect();
    *ids = newest;
    ids.reverse();
}

/// Versions of a volume that are kept, so that a list stays one that can be read.
pub(super) const MAX_VERSIONS: usize = 256;
/// Roots that are kept which no volume claims, likewise.
const MAX_TOPS: usize = 4096;
/// Damages that are listed; who has more needs no list.
const MAX_DAMAGES: usize = 4096;
