//! Between Raft's messages and those of `node.proto`. What comes from a wire is checked here, and nowhere else.

use openraft::LeaderId;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, VoteRequest, VoteResponse};
use sterna_proto::node as wire;
use sterna_proto::node::append_reply::Outcome;

use super::packed::{pack, unpack};
use super::{LogId, SnapshotMeta, TypeConfig, Vote};
use crate::store::record::{SnapshotRecord, to_json};

/// A message that no node of this version sends.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InvalidMessage {
    /// A part without which it means nothing.
    #[error("the message has no {0}")]
    Missing(&'static str),
    /// An entry that is compressed, and not as it should be.
    #[error("the message's entry cannot be decompressed")]
    Compression {
        /// What is wrong with it.
        source: std::io::Error,
    },
    /// A part that is written down as JSON, and is none that is known.
    #[error("the message's {what} is not understood; a newer version may have sent it")]
    Json {
        /// The part.
        what: &'static str,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

pub(crate) fn ballot(vote: Vote) -> wire::BallotId {
    wire::BallotId { term: vote.leader_id.term, node: vote.leader_id.node_id, committed: vote.committed }
}

pub(crate) fn vote_of(ballot: Option<wire::BallotId>) -> Result<Vote, InvalidMessage> {
    let ballot = ballot.ok_or(InvalidMessage::Missing("vote"))?;
    Ok(Vote { leader_id: LeaderId::new(ballot.term, ballot.node), committed: ballot.committed })
}

fn log_id(id: LogId) -> wire::LogId {
    wire::LogId { term: id.leader_id.term, node: id.leader_id.node_id, index: id.index }
}

fn log_id_of(id: wire::LogId) -> LogId {
    LogId::new(LeaderId::new(id.term, id.node), id.index)
}

/// Entries for a node that can read compressed ones, or cannot.
pub(crate) fn append_request(
    request: &AppendEntriesRequest<TypeConfig>,
    reads_compressed: bool,
) -> wire::AppendRequest {
    wire::AppendRequest {
        vote: Some(ballot(request.vote)),
        previous: request.prev_log_id.map(log_id),
        commit: request.leader_commit.map(log_id),
        entries: request.entries.iter().map(|entry| pack(entry, reads_compressed)).collect(),
    }
}

pub(crate) fn append_request_of(
    request: wire::AppendRequest,
) -> Result<AppendEntriesRequest<TypeConfig>, InvalidMessage> {
    Ok(AppendEntriesRequest {
        vote: vote_of(request.vote)?,
        prev_log_id: request.previous.map(log_id_of),
        entries: request.entries.iter().map(|bytes| unpack(bytes)).collect::<Result<_, _>>()?,
        leader_commit: request.commit.map(log_id_of),
    })
}

pub(crate) fn append_reply(reply: AppendEntriesResponse<u64>) -> wire::AppendReply {
    let outcome = match reply {
        AppendEntriesResponse::Success | AppendEntriesResponse::PartialSuccess(None) => {
            Outcome::Success(wire::Taken {})
        }
        AppendEntriesResponse::PartialSuccess(Some(last)) => Outcome::Partial(log_id(last)),
        AppendEntriesResponse::Conflict => Outcome::Conflict(wire::Taken {}),
        AppendEntriesResponse::HigherVote(vote) => Outcome::HigherVote(ballot(vote)),
    };
    wire::AppendReply { outcome: Some(outcome) }
}

pub(crate) fn append_reply_of(reply: wire::AppendReply) -> Result<AppendEntriesResponse<u64>, InvalidMessage> {
    Ok(match reply.outcome.ok_or(InvalidMessage::Missing("outcome"))? {
        Outcome::Success(_) => AppendEntriesResponse::Success,
        Outcome::Partial(last) => AppendEntriesResponse::PartialSuccess(Some(log_id_of(last))),
        Outcome::Conflict(_) => AppendEntriesResponse::Conflict,
        Outcome::HigherVote(vote) => AppendEntriesResponse::HigherVote(vote_of(Some(vote))?),
    })
}

pub(crate) fn vote_request(request: &VoteRequest<u64>) -> wire::VoteRequest {
    wire::VoteRequest { vote: Some(ballot(request.vote)), last: request.last_log_id.map(log_id) }
}

pub(crate) fn vote_request_of(request: wire::VoteRequest) -> Result<VoteRequest<u64>, InvalidMessage> {
    Ok(VoteRequest::new(vote_of(request.vote)?, request.last.map(log_id_of)))
}

pub(crate) fn vote_reply(reply: &VoteResponse<u64>) -> wire::VoteReply {
    wire::VoteReply { vote: Some(ballot(reply.vote)), granted: reply.vote_granted, last: reply.last_log_id.map(log_id) }
}

pub(crate) fn vote_reply_of(reply: wire::VoteReply) -> Result<VoteResponse<u64>, InvalidMessage> {
    Ok(VoteResponse::new(vote_of(reply.vote)?, reply.last.map(log_id_of), reply.granted))
}

pub(crate) fn snapshot_request(request: InstallSnapshotRequest<TypeConfig>) -> wire::InstallSnapshotRequest {
    wire::InstallSnapshotRequest {
        vote: Some(ballot(request.vote)),
        snapshot: to_json(&SnapshotRecord::new(0, &request.meta, &[])),
        offset: request.offset,
        piece: request.data,
        done: request.done,
    }
}

pub(crate) fn snapshot_request_of(
    request: wire::InstallSnapshotRequest,
) -> Result<InstallSnapshotRequest<TypeConfig>, InvalidMessage> {
    let meta: SnapshotMeta = json_of::<SnapshotRecord>("snapshot", &request.snapshot)?.meta();
    Ok(InstallSnapshotRequest {
        vote: vote_of(request.vote)?,
        meta,
        offset: request.offset,
        data: request.piece,
        done: request.done,
    })
}

/// A part of a message that is written down as JSON.
pub(crate) fn json_of<T: serde::de::DeserializeOwned>(what: &'static str, json: &[u8]) -> Result<T, InvalidMessage> {
    serde_json::from_slice(json).map_err(|source| InvalidMessage::Json { what, source })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use openraft::{EntryPayload, StoredMembership};

    use super::*;
    use crate::raft::{Batch, Entry, Membership};
    use crate::state::request::Request;
    use crate::state::tests::create_volume;

    fn id(index: u64) -> LogId {
        LogId::new(LeaderId::new(3, 2), index)
    }

    fn vote() -> Vote {
        Vote { leader_id: LeaderId::new(3, 2), committed: true }
    }

    #[test]
    fn entries_arrive_as_they_were_sent() {
        let members = Membership::new(vec![BTreeSet::from([1, 2, 3])], BTreeSet::from([1, 2, 3, 4]));
        let request = Request { id: None, command: create_volume("a") };
        let payloads =
            [EntryPayload::Blank, EntryPayload::Membership(members), EntryPayload::Normal(Batch::from(vec![request]))];
        let entries: Vec<_> =
            (5..).zip(payloads).map(|(index, payload)| Entry { log_id: id(index), payload }).collect();
        for previous in [None, Some(id(4))] {
            let sent = AppendEntriesRequest {
                vote: vote(),
                prev_log_id: previous,
                entries: entries.clone(),
                leader_commit: previous,
            };
            for reads_compressed in [false, true] {
                let read = append_request_of(append_request(&sent, reads_compressed)).unwrap();
                assert_eq!((read.vote, read.prev_log_id, read.leader_commit), (vote(), previous, previous));
                assert_eq!(read.entries, entries);
            }
        }
    }

    #[test]
    fn answers_arrive_as_they_were_given() {
        for reply in [
            || AppendEntriesResponse::Success,
            || AppendEntriesResponse::PartialSuccess(Some(id(7))),
            || AppendEntriesResponse::Conflict,
            || AppendEntriesResponse::HigherVote(vote()),
        ] {
            assert_eq!(append_reply_of(append_reply(reply())).unwrap(), reply());
        }
        for (last, granted) in [(None, true), (Some(id(7)), false)] {
            let reply = VoteResponse::new(vote(), last, granted);
            assert_eq!(vote_reply_of(vote_reply(&reply)).unwrap(), reply);
            let request = VoteRequest::new(vote(), last);
            assert_eq!(vote_request_of(vote_request(&request)).unwrap(), request);
        }
    }

    #[test]
    fn a_piece_of_a_snapshot_arrives_as_it_was_sent() {
        let members = Membership::new(vec![BTreeSet::from([1])], BTreeSet::from([1, 2]));
        let meta = SnapshotMeta {
            last_log_id: Some(id(9)),
            last_membership: StoredMembership::new(Some(id(2)), members),
            snapshot_id: "3-2-9".to_owned(),
        };
        let sent = InstallSnapshotRequest { vote: vote(), meta, offset: 4096, data: vec![1, 2, 3], done: true };
        assert_eq!(snapshot_request_of(snapshot_request(sent.clone())).unwrap(), sent);
    }

    #[test]
    fn what_is_missing_or_not_understood_is_refused() {
        assert!(matches!(append_request_of(wire::AppendRequest::default()), Err(InvalidMessage::Missing("vote"))));
        assert!(matches!(append_reply_of(wire::AppendReply::default()), Err(InvalidMessage::Missing("outcome"))));
        let newer = wire::AppendRequest {
            vote: Some(ballot(vote())),
            entries: vec![b"{\"id\":{},\"wish\":1}".to_vec()],
            ..wire::AppendRequest::default()
        };
        assert!(matches!(append_request_of(newer), Err(InvalidMessage::Json { what: "entry", .. })));
    }
}
