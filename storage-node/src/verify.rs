//! Reading everything that a root names, to know that it is whole.

use std::collections::HashSet;
use std::ops::{ControlFlow, Range};

use sterna_types::{BLOCK_SIZE, BLOCKS_PER_SEGMENT, ByteOffset, ByteRange, ChunkId, Root, SEGMENT_SIZE, SegmentIndex};

use crate::chunk_store::{ChunkStore, StoreError};
use crate::map::{self, MAX_SEGMENTS, MapError, NodeCache};
use crate::progress::Progress;

/// A part of a root that cannot be read as it was written.
#[derive(Debug)]
pub struct Damage {
    /// The bytes of the volume that are concerned.
    pub range: ByteRange,
    /// The chunk, where one is to blame.
    pub chunk: Option<ChunkId>,
    /// What is wrong.
    pub what: String,
}

/// What a verification hears and says.
pub trait VerifyWatcher {
    /// Hears how far it has come, and says whether to go on.
    fn progress(&mut self, progress: Progress) -> ControlFlow<()>;

    /// Hears of damage.
    fn damage(&mut self, damage: Damage);
}

/// What a verification has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Verified {
    /// Bytes of data that hash to what the map says.
    pub sound_bytes: u64,
    /// How often damage was reported.
    pub damages: u64,
    /// Whether it was told to stop before the end.
    pub stopped: bool,
}

/// Reads every node, manifest and chunk of `root`, and checks each against its id. `size_bytes` is the volume's.
///
/// Damage is reported to `watcher`, and does not end it; what lies below a damaged part of the map cannot be looked at.
pub fn verify(
    store: &dyn ChunkStore,
    nodes: &NodeCache,
    root: Root,
    size_bytes: u64,
    watcher: &mut dyn VerifyWatcher,
) -> Verified {
    let mut verified = Verified::default();
    let mut from = SegmentIndex(0);
    while from.0 < MAX_SEGMENTS {
        let mut segments = map::segments(store, nodes, root, from..SegmentIndex(MAX_SEGMENTS));
        let Some(next) = segments.next() else { break };
        let (segment, id) = match next {
            Ok(found) => found,
            Err(error) => {
                let segments = unreadable(&error, from);
                from = segments.end;
                verified.report(watcher, bytes_of(&segments), None, error.to_string());
                continue;
            }
        };
        let done_bytes = segment.0 * SEGMENT_SIZE;
        if watcher.progress(Progress { done_bytes, total_bytes: size_bytes }).is_break() {
            verified.stopped = true;
            break;
        }
        verify_segment(store, nodes, segment, id, watcher, &mut verified);
        from = SegmentIndex(segment.0 + 1);
    }
    verified
}

fn verify_segment(
    store: &dyn ChunkStore,
    nodes: &NodeCache,
    segment: SegmentIndex,
    id: ChunkId,
    watcher: &mut dyn VerifyWatcher,
    verified: &mut Verified,
) {
    let manifest = match map::manifest(store, nodes, id, segment) {
        Ok(manifest) => manifest,
        Err(error) => {
            let range = bytes_of(&(segment..SegmentIndex(segment.0 + 1)));
            return verified.report(watcher, range, Some(id), error.to_string());
        }
    };
    let mut sound = HashSet::new();
    for extent in manifest.extents() {
        let range =
            range(segment.0 * BLOCKS_PER_SEGMENT + u64::from(extent.first_block), u64::from(extent.block_count));
        if !sound.contains(&extent.chunk) {
            let end = (usize::from(extent.first_in_chunk) + usize::from(extent.block_count)) * 4096;
            let what = match store.get(extent.chunk) {
                Ok(Some(bytes)) if bytes.len() >= end => None,
                Ok(Some(bytes)) => Some(format!("the chunk has {} bytes, and {end} are needed", bytes.len())),
                Ok(None) => Some(StoreError::Missing { id: extent.chunk }.to_string()),
                Err(error) => Some(error.to_string()),
            };
            if let Some(what) = what {
                verified.report(watcher, range, Some(extent.chunk), what);
                continue;
            }
            sound.insert(extent.chunk);
        }
        verified.sound_bytes += range.length();
    }
}

impl Verified {
    fn report(&mut self, watcher: &mut dyn VerifyWatcher, range: ByteRange, chunk: Option<ChunkId>, what: String) {
        self.damages += 1;
        watcher.damage(Damage { range, chunk, what });
    }
}

/// The segments that cannot be looked at because of `error`, with which a walk from `from` on has ended: at least one, none
/// of them before `from`.
pub(crate) fn unreadable(error: &MapError, from: SegmentIndex) -> Range<SegmentIndex> {
    let segments = match error {
        MapError::Missing { part }
        | MapError::Unreadable { part, .. }
        | MapError::CorruptNode { part, .. }
        | MapError::CorruptManifest { part, .. }
        | MapError::WrongLevel { part, .. } => part.segments.clone(),
        _ => from..SegmentIndex(MAX_SEGMENTS),
    };
    let start = segments.start.max(from);
    start..segments.end.max(SegmentIndex(start.0 + 1))
}

/// The bytes of a volume that these segments are.
pub(crate) fn bytes_of(segments: &Range<SegmentIndex>) -> ByteRange {
    ByteRange::between(segments.start.start(), segments.end.start())
}

/// The bytes of a volume that these blocks are.
pub(crate) fn range(first_block: u64, block_count: u64) -> ByteRange {
    let start = ByteOffset(first_block * BLOCK_SIZE);
    ByteRange::between(start, ByteOffset(start.0 + block_count * BLOCK_SIZE))
}
