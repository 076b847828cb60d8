//! Which version of a volume its newest contents stand on.
//!
//! A seal that a loss of power has cut off before its record was put leaves a checkpoint, and whichever of its chunks had
//! got to the disk. So the newest checkpoint is not always one that counts. It is the newest version of which these hold:
//!
//! 1. **The journal does not contradict it.** The volume may have gone on without it, with other writes under the same
//!    sequence numbers. Such writes are in files that would hold later ones only, if the checkpoint counted.
//! 2. **The top of its map can be read.** Else an older version shows more.
//! 3. **It is whole, where it may have been cut off**: where an older version can take its place, since the journal goes on
//!    from that one, or the index names it. What has changed between the two is read for this. A version that a later
//!    file of the journal stands on was recorded, and is not doubted.
//!
//! A checkpoint that was cut off and is whole is taken: it has every acknowledged write, and some that the loss of power
//! took from the journal. That the index names an older one does not count against it, as an index that is older than the
//! packs would say the same of a seal that was recorded.

use sterna_types::{ChunkId, Root, SegmentIndex, VolumeId};

use super::chunks::FoundChunks;
use super::found::{Source, Version};
use super::volumes::notes;
use crate::chunk_store::ChunkStore;
use crate::journal::{Continued, Replay, Survey};
use crate::map::{self, Level, MAX_SEGMENTS, MapError, Node, NodeCache};

/// What there is to choose from, and what speaks for and against it.
pub(super) struct Choice<'a> {
    pub(super) id: VolumeId,
    /// Newest first.
    pub(super) versions: &'a [Version],
    pub(super) survey: &'a Survey,
    pub(super) chunks: &'a FoundChunks,
    pub(super) nodes: &'a NodeCache,
    /// What the index names.
    pub(super) recorded: Option<Version>,
}

/// What a journal comes to on a version.
pub(super) fn on(survey: &Survey, id: VolumeId, version: &Version) -> Continued {
    let begin = Replay { volume: id, sealed_through: version.sealed_through, from: version.replay_from };
    survey.on(&begin, false)
}

impl Choice<'_> {
    /// The version that the newest contents stand on; `None` where there is none at all.
    pub(super) fn newest(&self) -> Option<usize> {
        let possible = |index: &usize| self.is_possible(&self.versions[*index]);
        let best = (0..self.versions.len()).filter(possible).find(|index| self.is_best(*index));
        let all = 0..self.versions.len();
        best.or_else(|| all.clone().find(possible)).or_else(|| all.clone().next())
    }

    /// Whether a newer version than the one at `newest` was lost, and not just cut off, as far as can be told.
    pub(super) fn lost_a_newer_one(&self, newest: usize) -> bool {
        let (newer, chosen) = (&self.versions[..newest], &self.versions[newest]);
        newer.iter().any(|version| self.is_possible(version)) && !self.may_replace(chosen)
    }

    fn is_possible(&self, version: &Version) -> bool {
        // What the metadata knows is not in step with the journal: it counts where there is nothing else.
        let is_local = |version: &Version| version.source != Source::Metadata;
        let counts = is_local(version) || !self.versions.iter().any(is_local);
        counts && !on(self.survey, self.id, version).contradicts
    }

    fn is_best(&self, index: usize) -> bool {
        let version = &self.versions[index];
        if !self.top_is_sound(version.root) {
            return false;
        }
        let is_noted = notes(self.id, self.survey).any(|note| note.is(version));
        let replacement = || self.versions[index + 1..].iter().find(|older| self.may_replace(older));
        is_noted || replacement().is_none_or(|older| self.is_whole(older.root, version.root))
    }

    /// Whether a newer version may have been cut off, and this one be what counts.
    fn may_replace(&self, older: &Version) -> bool {
        let is_recorded = self.recorded.as_ref().is_some_and(|recorded| recorded.is(older));
        let stands = is_recorded || !on(self.survey, self.id, older).records.is_empty();
        stands && self.is_possible(older) && self.top_is_sound(older.root)
    }

    fn top_is_sound(&self, root: Root) -> bool {
        let Some(top) = root.top() else { return true };
        let bytes = self.chunks.get(top).ok().flatten();
        bytes.is_some_and(|bytes| Node::decode(&bytes).is_ok_and(|node| node.level() == Level::TOP))
    }

    /// Whether all is here that `new` has and `old` has not.
    fn is_whole(&self, old: Root, new: Root) -> bool {
        let changes: Result<Vec<_>, MapError> = map::diff(self.chunks, self.nodes, old, new).collect();
        if let Ok(changes) = changes {
            return changes.iter().all(|change| change.new.is_none_or(|id| self.segment_is_whole(change.segment, id)));
        }
        // The old map may be what is damaged: then all of the new one has to be looked at.
        let mut segments = map::segments(self.chunks, self.nodes, new, SegmentIndex(0)..SegmentIndex(MAX_SEGMENTS));
        segments.all(|found| found.is_ok_and(|(segment, id)| self.segment_is_whole(segment, id)))
    }

    fn segment_is_whole(&self, segment: SegmentIndex, id: ChunkId) -> bool {
        let manifest = map::manifest(self.chunks, self.nodes, id, segment);
        manifest.is_ok_and(|manifest| manifest.chunks().iter().all(|id| matches!(self.chunks.get(*id), Ok(Some(_)))))
    }
}
