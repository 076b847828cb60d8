//! Why something did not come.

use sterna_bucket::BucketError;
use sterna_storage_node::bundle::UnpackError;
use sterna_storage_node::gaps::FetchedError;
use sterna_storage_node::map::MapError;
use sterna_types::{ChunkId, NodeId};
use tonic::{Code, Status};

/// Why a root is not complete here.
#[derive(Debug, thiserror::Error)]
pub(in crate::node) enum PullError {
    /// This node has no network.
    #[error("this node listens to no other node, and asks none: set 'listen' in sterna.toml")]
    Alone,
    /// There is nobody to ask.
    #[error("no node that holds it has a session")]
    NoSource,
    /// The source did not answer.
    #[error("node {node}: {}", status.message())]
    Source {
        /// Which.
        node: NodeId,
        /// What it said.
        status: Box<Status>,
    },
    /// None of the sources has it, such as the last one that was asked: there are newer contents.
    #[error("node {node} does not have chunk {id} any more")]
    Gone {
        /// Which.
        node: NodeId,
        /// What it does not have.
        id: ChunkId,
    },
    /// The source has sent something else.
    #[error("node {node} has sent what was not asked for")]
    Unasked {
        /// Which.
        node: NodeId,
    },
    /// What the source has sent is of no use.
    #[error("what node {node} has sent cannot be read: {source}")]
    Unpack {
        /// Which.
        node: NodeId,
        /// What is wrong with it.
        source: UnpackError,
    },
    /// No node has it, and the bucket cannot be asked.
    #[error("no node has it, and the bucket cannot be asked: {0}")]
    Bucket(#[from] BucketError),
    /// What is here of it cannot be walked.
    #[error(transparent)]
    Map(#[from] MapError),
    /// What came could not be stored.
    #[error(transparent)]
    Fetched(#[from] FetchedError),
    /// Collections have taken parts of it again and again.
    #[error("it was collected while it was pulled")]
    Collected,
    /// A thread that walked it panicked.
    #[error("walking it ended in a panic")]
    Panicked,
}

impl PullError {
    /// Whether another source may do better.
    pub(super) fn is_of_source(&self) -> bool {
        matches!(self, Self::Source { .. } | Self::Unasked { .. } | Self::Unpack { .. })
    }

    /// Whether the source has too much to do just now.
    pub(super) fn is_busy(&self) -> bool {
        matches!(self, Self::Source { status, .. } if status.code() == Code::ResourceExhausted)
    }
}
