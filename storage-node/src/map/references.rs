//! Which chunks a chunk refers to: what garbage collection and copying follow.

use sterna_types::ChunkId;

use super::manifest::{Manifest, ManifestFormatError};
use super::node::{Node, NodeFormatError};
use crate::chunk_store::ChunkKind;

/// Why it cannot be said which chunks a chunk refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferencesError {
    /// It is no manifest.
    #[error(transparent)]
    Manifest(#[from] ManifestFormatError),
    /// It is no node.
    #[error(transparent)]
    Node(#[from] NodeFormatError),
    /// Checkpoints belong to volumes, not to maps: ask those who write them.
    #[error("a checkpoint is no part of a map")]
    Checkpoint,
}

/// The chunks that the chunk with these contents refers to: the data of a manifest, each chunk once; the children of a
/// node, each as often as it has it; none for data.
///
/// # Errors
/// [`ReferencesError`] where `bytes` are no chunk of this kind, and for [`ChunkKind::Checkpoint`].
pub fn children(kind: ChunkKind, bytes: &[u8]) -> Result<Vec<ChunkId>, ReferencesError> {
    match kind {
        ChunkKind::Data => Ok(Vec::new()),
        ChunkKind::Manifest => Ok(Manifest::decode(bytes)?.chunks()),
        ChunkKind::Node => Ok(Node::decode(bytes)?.children().to_vec()),
        ChunkKind::Checkpoint => Err(ReferencesError::Checkpoint),
    }
}

/// Of which kind the children of a node are.
pub fn kind_of_children(node: &Node) -> ChunkKind {
    if node.level().below().is_some() { ChunkKind::Node } else { ChunkKind::Manifest }
}
