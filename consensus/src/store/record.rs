//! How entries, votes and snapshots are written down: as JSON of our own shape, so that neither an upgrade of openraft nor
//! of serde's defaults can change what is on a disk. The tables are in `docs/on-disk-format.md`; fixtures pin them.
//!
//! JSON, because it describes itself: an entry can be read by people when everything else has failed, and a field or a
//! command that this program does not know is seen, and refused rather than dropped. Its cost is small beside that of the
//! sync that each entry waits for.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use openraft::{EmptyNode, EntryPayload, LeaderId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::StoreError;
use crate::raft::{Entry, LogId, Membership, SnapshotMeta, StoredMembership, Vote};
use crate::state::request::Request;

/// The vote: whom this node has given its voice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VoteRecord {
    term: u64,
    node: u64,
    committed: bool,
}

/// The place of an entry in the log, with the leader that put it there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LogIdRecord {
    term: u64,
    node: u64,
    index: u64,
}

/// An entry of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EntryRecord {
    id: LogIdRecord,
    payload: PayloadRecord,
}

/// What is in an entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum PayloadRecord {
    /// Nothing: a new leader's first entry.
    Blank,
    /// What was asked for.
    Requests(Arc<Vec<Request>>),
    /// Who takes part from now on.
    Members(MembershipRecord),
}

/// Who takes part: each list of voters has to have a majority (two while the members change), the rest listen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MembershipRecord {
    voters: Vec<BTreeSet<u64>>,
    learners: BTreeSet<u64>,
}

/// What a snapshot is, without its contents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SnapshotRecord {
    /// Under which number its pieces stand.
    pub(super) serial: u64,
    /// The last entry that is in it.
    last: Option<LogIdRecord>,
    /// Where the members were decided.
    members_at: Option<LogIdRecord>,
    members: MembershipRecord,
    /// What the leader that made it calls it.
    name: String,
    /// Bytes of its contents.
    pub(super) bytes: u64,
    /// CRC-32C of its contents.
    pub(super) crc32c: u32,
}

impl From<Vote> for VoteRecord {
    fn from(vote: Vote) -> Self {
        Self { term: vote.leader_id.term, node: vote.leader_id.node_id, committed: vote.committed }
    }
}

impl From<VoteRecord> for Vote {
    fn from(record: VoteRecord) -> Self {
        Self { leader_id: LeaderId::new(record.term, record.node), committed: record.committed }
    }
}

impl From<LogId> for LogIdRecord {
    fn from(id: LogId) -> Self {
        Self { term: id.leader_id.term, node: id.leader_id.node_id, index: id.index }
    }
}

impl From<LogIdRecord> for LogId {
    fn from(record: LogIdRecord) -> Self {
        Self::new(LeaderId::new(record.term, record.node), record.index)
    }
}

impl From<&Membership> for MembershipRecord {
    fn from(membership: &Membership) -> Self {
        Self { voters: membership.get_joint_config().clone(), learners: membership.learner_ids().collect() }
    }
}

impl From<MembershipRecord> for Membership {
    fn from(record: MembershipRecord) -> Self {
        let members = record.voters.iter().flatten().chain(&record.learners);
        let nodes: BTreeMap<u64, EmptyNode> = members.map(|id| (*id, EmptyNode {})).collect();
        Self::new(record.voters, nodes)
    }
}

impl From<&Entry> for EntryRecord {
    fn from(entry: &Entry) -> Self {
        let payload = match &entry.payload {
            EntryPayload::Blank => PayloadRecord::Blank,
            EntryPayload::Normal(batch) => PayloadRecord::Requests(Arc::clone(&batch.requests)),
            EntryPayload::Membership(membership) => PayloadRecord::Members(membership.into()),
        };
        Self { id: entry.log_id.into(), payload }
    }
}

impl From<EntryRecord> for Entry {
    fn from(record: EntryRecord) -> Self {
        let payload = match record.payload {
            PayloadRecord::Blank => EntryPayload::Blank,
            PayloadRecord::Requests(requests) => EntryPayload::Normal(requests.into()),
            PayloadRecord::Members(members) => EntryPayload::Membership(members.into()),
        };
        Self { log_id: record.id.into(), payload }
    }
}

impl SnapshotRecord {
    /// The record of a snapshot with these contents.
    pub(crate) fn new(serial: u64, meta: &SnapshotMeta, contents: &[u8]) -> Self {
        Self {
            serial,
            last: meta.last_log_id.map(Into::into),
            members_at: meta.last_membership.log_id().map(Into::into),
            members: meta.last_membership.membership().into(),
            name: meta.snapshot_id.clone(),
            bytes: contents.len() as u64,
            crc32c: crc32c::crc32c(contents),
        }
    }

    /// What openraft wants to know of it.
    pub(crate) fn meta(&self) -> SnapshotMeta {
        SnapshotMeta {
            last_log_id: self.last.map(Into::into),
            last_membership: StoredMembership::new(self.members_at.map(Into::into), self.members.clone().into()),
            snapshot_id: self.name.clone(),
        }
    }
}

/// A record as bytes.
pub(crate) fn to_json(record: &impl Serialize) -> Vec<u8> {
    // No record has a map with keys that are no text, and none of them fails by itself.
    serde_json::to_vec(record).expect("every record can be written as JSON")
}

/// The record that bytes from the metadata in `dir` are; `what` names it.
///
/// # Errors
/// [`StoreError::Damaged`].
pub(super) fn from_json<T: DeserializeOwned>(dir: &Path, what: &str, json: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(json)
        .map_err(|error| StoreError::Damaged { dir: dir.to_owned(), what: format!("{what}: {error}") })
}
