//! What a running collection knows about chunks: one bit for each frame of the packs that it will sweep.

use std::collections::{BTreeMap, HashSet};

use sterna_types::ChunkId;

use crate::chunk_store::ChunkKind;
use crate::chunk_store::bits::Bits;
use crate::chunk_store::index::IndexEntry;
use crate::chunk_store::pack::{FramePlace, PackId};

/// Marks of the frames of the packs that were there when the collection began.
#[derive(Debug)]
pub(in crate::chunk_store) struct Marking {
    /// A bit for each frame, by its number.
    packs: BTreeMap<PackId, Bits>,
    /// The same of packs begun since: they are not swept, but what their chunks refer to is followed, and once.
    later: BTreeMap<PackId, Bits>,
    /// Chunks that somebody kept while marking was under way, and whose references have not been followed.
    kept: Vec<ChunkId>,
    /// Pieces of the map that are stored as data, and have been followed.
    masked: HashSet<ChunkId>,
    sweeping: bool,
}

impl Marking {
    pub(super) fn of(packs: &[PackId]) -> Self {
        let packs = packs.iter().map(|pack| (*pack, Bits::default())).collect();
        Self { packs, later: BTreeMap::new(), kept: Vec::new(), masked: HashSet::new(), sweeping: false }
    }

    /// Whether the collection will sweep this pack.
    pub(super) fn sweeps(&self, pack: PackId) -> bool {
        self.packs.contains_key(&pack)
    }

    pub(super) fn is_marked(&self, place: FramePlace) -> bool {
        self.packs.get(&place.pack).is_some_and(|bits| bits.get(place.number))
    }

    /// Marks a frame; whether it was not marked.
    pub(super) fn mark(&mut self, place: FramePlace) -> bool {
        let bits = match self.packs.get_mut(&place.pack) {
            Some(bits) => bits,
            None => self.later.entry(place.pack).or_default(),
        };
        bits.set(place.number)
    }

    /// A piece of the map turns out to be stored as data: whether that is new, so that it has to be followed.
    pub(super) fn unmask(&mut self, id: ChunkId) -> bool {
        self.masked.insert(id)
    }

    /// Somebody wants to keep a chunk that is here. While marking is under way it is marked, and its references will be
    /// followed. Later it is too late for these: a chunk without a mark counts as absent, and is stored again.
    pub(in crate::chunk_store) fn spare(&mut self, entry: &IndexEntry) -> bool {
        if !self.sweeps(entry.place.pack) || self.is_marked(entry.place) {
            return true;
        }
        if !self.sweeping {
            self.mark(entry.place);
            if entry.frame.kind != ChunkKind::Data {
                self.kept.push(entry.frame.id);
            }
        }
        !self.sweeping
    }

    /// Chunks that were kept since the last call. Where there are none, marking is over.
    pub(super) fn take_kept_or_sweep(&mut self) -> Vec<ChunkId> {
        self.sweeping = self.kept.is_empty();
        std::mem::take(&mut self.kept)
    }
}
