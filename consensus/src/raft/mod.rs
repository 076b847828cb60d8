//! The types that openraft is run with. None of them leaves this crate, nor is any of them written to a disk as openraft
//! would do it: `store::record` has the format.

use std::io::Cursor;
use std::sync::Arc;

use packed::Packed;
use serde::{Deserialize, Serialize};

use crate::state::outcome::Outcome;
use crate::state::refusal::Refusal;
use crate::state::request::Request;

pub(crate) mod acknowledgements;
pub(crate) mod network;
pub(crate) mod packed;
pub(crate) mod peers;
mod runtime;
pub(crate) mod service;
pub(crate) mod wire;

openraft::declare_raft_types!(
    /// What Raft is run with. Nodes are known by their number alone; the metadata says where they are.
    pub(crate) TypeConfig:
        D = Batch,
        R = Answers,
        NodeId = u64,
        Node = openraft::EmptyNode,
        Entry = openraft::Entry<TypeConfig>,
        SnapshotData = Cursor<Vec<u8>>,
        AsyncRuntime = runtime::RaftRuntime,
);

pub(crate) type Raft = openraft::Raft<TypeConfig>;
pub(crate) type Entry = openraft::Entry<TypeConfig>;
pub(crate) type LogId = openraft::LogId<u64>;
pub(crate) type Vote = openraft::Vote<u64>;
pub(crate) type Membership = openraft::Membership<u64, openraft::EmptyNode>;
pub(crate) type StoredMembership = openraft::StoredMembership<u64, openraft::EmptyNode>;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<u64, openraft::EmptyNode>;
pub(crate) type Snapshot = openraft::Snapshot<TypeConfig>;
pub(crate) type StorageError = openraft::StorageError<u64>;
pub(crate) type Fatal = openraft::error::Fatal<u64>;

/// One entry of the log: requests that came at about the same time, carried out in this order. openraft writes and syncs
/// each entry by itself, so this is what lets many proposals share one sync.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Batch {
    /// Shared, because a leader hands each entry to all other nodes.
    pub(crate) requests: Arc<Vec<Request>>,
    /// Follows from the entry, and is not written down.
    #[serde(skip)]
    packed: Packed,
}

impl PartialEq for Batch {
    fn eq(&self, other: &Self) -> bool {
        self.requests == other.requests
    }
}

impl Eq for Batch {}

impl From<Arc<Vec<Request>>> for Batch {
    fn from(requests: Arc<Vec<Request>>) -> Self {
        Self { requests, packed: Packed::default() }
    }
}

impl From<Vec<Request>> for Batch {
    fn from(requests: Vec<Request>) -> Self {
        Arc::new(requests).into()
    }
}

/// What came of each request of an entry; none for an entry of Raft's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Answers(pub(crate) Vec<Result<Outcome, Refusal>>);
