//! Why a map could not be read or altered.

use std::fmt;
use std::ops::Range;

use sterna_types::{ChunkId, SegmentIndex};

use super::extent::InvalidExtent;
use super::manifest::ManifestFormatError;
use super::node::{Level, NodeFormatError};
use super::tree::MAX_SEGMENTS;
use crate::chunk_store::StoreError;

/// A part of a map, and the segments whose blocks are found through it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its chunk.
    pub id: ChunkId,
    /// The level of the node; `None` for a manifest.
    pub level: Option<Level>,
    /// The segments that it is about.
    pub segments: Range<SegmentIndex>,
}

/// Why a map could not be read or altered.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// A part of the map is not in the store. It may be elsewhere: once it has been fetched, the same call succeeds.
    #[error("{part} is not here")]
    Missing {
        /// What is missing.
        part: Part,
    },
    /// The store could not give a part of the map.
    #[error("{part} cannot be read: {source}")]
    Unreadable {
        /// What could not be read.
        part: Part,
        /// What the store said.
        source: StoreError,
    },
    /// The chunk that should be a node is none, though it has the right id: the one who wrote it was wrong.
    #[error("{part} is no node: {source}")]
    CorruptNode {
        /// What is damaged.
        part: Part,
        /// What is wrong with it.
        source: NodeFormatError,
    },
    /// The chunk that should be a manifest is none, though it has the right id: the one who wrote it was wrong.
    #[error("{part} is no manifest: {source}")]
    CorruptManifest {
        /// What is damaged.
        part: Part,
        /// What is wrong with it.
        source: ManifestFormatError,
    },
    /// A node of another level than its place in the tree asks for.
    #[error("{part} is a node of level {found}")]
    WrongLevel {
        /// The node, with the level that it should have.
        part: Part,
        /// The level that it has.
        found: Level,
    },
    /// A segment that no volume has.
    #[error("segment {segment} is beyond the {MAX_SEGMENTS} that the largest volume has", segment = segment.0)]
    OutsideMap {
        /// The segment.
        segment: SegmentIndex,
    },
    /// Changes that are not in the order of their segments, touch one twice, or touch none.
    #[error("change {change} of an update is of no segment, or of one not behind those of the change before it")]
    ChangesOutOfOrder {
        /// Which change, from 0.
        change: usize,
    },
    /// Blocks that no segment or no chunk has.
    #[error(transparent)]
    Extent(#[from] InvalidExtent),
    /// An extent of blocks that its chunk does not have: the one who wrote the manifest was wrong.
    #[error("segment {segment} refers to block {block} of chunk {chunk}, which has {length} bytes", segment = segment.0)]
    BeyondChunk {
        /// The segment whose manifest is wrong.
        segment: SegmentIndex,
        /// The chunk.
        chunk: ChunkId,
        /// The last block of it that is referred to.
        block: u16,
        /// Its length in bytes.
        length: u32,
    },
    /// The store could not read or take a chunk.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, level, segments } = self;
        match level {
            Some(level) => write!(f, "the map's node {id} of level {level}")?,
            None => write!(f, "the manifest {id}")?,
        }
        write!(f, " (segments {} to {})", segments.start.0, segments.end.0.saturating_sub(1))
    }
}
