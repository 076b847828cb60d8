//! What other nodes ask of this one when it leads: to carry requests out, and how far the log goes.

use std::sync::Arc;

use openraft::error::{CheckIsLeaderError, RaftError};
use sterna_proto::node::metadata_server;
use sterna_proto::node::propose_reply::Outcome as Proposed;
use sterna_proto::node::read_index_reply::Outcome as ReadIndex;
use sterna_proto::node::{
    Answered, NotLeader, PingReply, PingRequest, ProposeReply, ProposeRequest, ReadIndexReply, ReadIndexRequest,
};
use sterna_types::NodeId;
use tokio::sync::mpsc;
use tonic::{Request, Response, Status};

use super::error::ProposeError;
use super::proposer::{Proposal, Urgency, ask};
use crate::callers::Callers;
use crate::limits::MAX_COMMANDS_PER_ENTRY;
use crate::raft::wire::json_of;
use crate::raft::{Fatal, Raft};
use crate::state::request;
use crate::store::to_json;

/// Answers for this node.
pub(super) struct MetadataService {
    raft: Raft,
    proposals: mpsc::Sender<Proposal>,
    callers: Arc<Callers>,
}

impl MetadataService {
    pub(super) fn new(raft: Raft, proposals: mpsc::Sender<Proposal>, callers: Arc<Callers>) -> Self {
        Self { raft, proposals, callers }
    }
}

#[tonic::async_trait]
impl metadata_server::Metadata for MetadataService {
    async fn propose(&self, request: Request<ProposeRequest>) -> Result<Response<ProposeReply>, Status> {
        self.callers.node(&request)?;
        let ProposeRequest { requests, can_wait } = request.into_inner();
        let urgency = if can_wait { Urgency::CanWait } else { Urgency::AtOnce };
        if requests.is_empty() || requests.len() > MAX_COMMANDS_PER_ENTRY {
            let given = requests.len();
            return Err(Status::invalid_argument(format!("{given} requests; it takes 1 to {MAX_COMMANDS_PER_ENTRY}")));
        }
        let parsed: Result<Vec<_>, _> =
            requests.iter().map(|json| json_of::<request::Request>("request", json)).collect();
        let parsed = parsed.map_err(|error| Status::invalid_argument(error.to_string()))?;
        // Whoever leads answers itself; to hand on what was handed on could go round for ever.
        let outcome = match ask(&self.proposals, parsed, false, urgency).await {
            Ok(written) => {
                let answer = |answer: Result<_, ProposeError>| match answer {
                    Ok(outcome) => Ok(to_json(&Ok::<_, crate::state::refusal::Refusal>(outcome))),
                    Err(ProposeError::Refused(refusal)) => {
                        Ok(to_json(&Err::<crate::state::outcome::Outcome, _>(refusal)))
                    }
                    Err(other) => Err(other),
                };
                let answers: Result<Vec<_>, _> = written.answers.into_iter().map(answer).collect();
                match answers {
                    Ok(answers) => Proposed::Answered(Answered { index: written.index, answers }),
                    Err(error) => Proposed::Unknown(error.to_string()),
                }
            }
            Err(ProposeError::NotLeader { leader }) => Proposed::NotLeader(not_leader(leader)),
            Err(ProposeError::Stopped { what }) => return Err(Status::unavailable(what)),
            Err(error) => Proposed::Unknown(error.to_string()),
        };
        Ok(Response::new(ProposeReply { outcome: Some(outcome) }))
    }

    async fn read_index(&self, request: Request<ReadIndexRequest>) -> Result<Response<ReadIndexReply>, Status> {
        self.callers.node(&request)?;
        let outcome = match self.raft.get_read_log_id().await {
            Ok((read, _)) => ReadIndex::Index(read.map_or(0, |id| id.index)),
            Err(RaftError::APIError(CheckIsLeaderError::ForwardToLeader(forward))) => {
                ReadIndex::NotLeader(not_leader(forward.leader_id.map(NodeId)))
            }
            Err(RaftError::APIError(CheckIsLeaderError::QuorumNotEnough(_))) => ReadIndex::NotLeader(not_leader(None)),
            Err(RaftError::Fatal(fatal)) => return Err(stopped(&fatal)),
        };
        Ok(Response::new(ReadIndexReply { outcome: Some(outcome) }))
    }

    async fn ping(&self, request: Request<PingRequest>) -> Result<Response<PingReply>, Status> {
        self.callers.node(&request)?;
        let applied = self.raft.metrics().borrow().last_applied.map_or(0, |id| id.index);
        Ok(Response::new(PingReply { applied, version: env!("CARGO_PKG_VERSION").to_owned() }))
    }
}

fn not_leader(leader: Option<NodeId>) -> NotLeader {
    NotLeader { leader: leader.map_or(0, |leader| leader.0) }
}

fn stopped(fatal: &Fatal) -> Status {
    Status::unavailable(format!("the metadata is not running here: {fatal}"))
}
