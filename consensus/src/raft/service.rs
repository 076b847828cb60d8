//! Raft's messages from other nodes.
//!
//! Who calls is known from the certificate, not from the message, and both have to agree: a vote is asked for by the node
//! whose vote it is, and entries come from the node that leads.

use std::sync::Arc;

use openraft::error::{InstallSnapshotError, RaftError};
use sterna_proto::node::raft_server;
use sterna_proto::node::{
    AppendReply, AppendRequest, InstallSnapshotReply, InstallSnapshotRequest, VoteReply, VoteRequest,
};
use sterna_types::NodeId;
use tonic::{Request, Response, Status};

use super::wire::{self, InvalidMessage};
use super::{Raft, Vote};
use crate::callers::Callers;

/// Answers for this node.
pub(crate) struct RaftService {
    raft: Raft,
    callers: Arc<Callers>,
}

impl RaftService {
    /// Answers for `raft` those whom `callers` let in.
    pub(crate) fn new(raft: Raft, callers: Arc<Callers>) -> Self {
        Self { raft, callers }
    }
}

#[tonic::async_trait]
impl raft_server::Raft for RaftService {
    async fn append(&self, request: Request<AppendRequest>) -> Result<Response<AppendReply>, Status> {
        let caller = self.callers.node(&request)?;
        let request = wire::append_request_of(request.into_inner()).map_err(|error| invalid(&error))?;
        check_voice(caller, request.vote)?;
        let reply = self.raft.append_entries(request).await.map_err(|error| stopped(&error))?;
        Ok(Response::new(wire::append_reply(reply)))
    }

    async fn vote(&self, request: Request<VoteRequest>) -> Result<Response<VoteReply>, Status> {
        let caller = self.callers.node(&request)?;
        let request = wire::vote_request_of(request.into_inner()).map_err(|error| invalid(&error))?;
        check_voice(caller, request.vote)?;
        let reply = self.raft.vote(request).await.map_err(|error| stopped(&error))?;
        Ok(Response::new(wire::vote_reply(&reply)))
    }

    async fn install_snapshot(
        &self,
        request: Request<InstallSnapshotRequest>,
    ) -> Result<Response<InstallSnapshotReply>, Status> {
        let caller = self.callers.node(&request)?;
        let request = wire::snapshot_request_of(request.into_inner()).map_err(|error| invalid(&error))?;
        check_voice(caller, request.vote)?;
        let reply = match self.raft.install_snapshot(request).await {
            Ok(reply) => {
                InstallSnapshotReply { vote: Some(wire::ballot(reply.vote)), mismatch: false, expected_offset: 0 }
            }
            Err(RaftError::APIError(InstallSnapshotError::SnapshotMismatch(mismatch))) => {
                InstallSnapshotReply { vote: None, mismatch: true, expected_offset: mismatch.expect.offset }
            }
            Err(error @ RaftError::Fatal(_)) => return Err(stopped(&error)),
        };
        Ok(Response::new(reply))
    }
}

/// Nobody speaks for another node.
fn check_voice(caller: NodeId, vote: Vote) -> Result<(), Status> {
    if vote.leader_id.node_id == caller.0 {
        return Ok(());
    }
    let claimed = vote.leader_id.node_id;
    tracing::warn!(%caller, claimed, "refused: a node spoke for another one");
    Err(Status::permission_denied(format!("node {caller} cannot speak for node {claimed}")))
}

fn invalid(error: &InvalidMessage) -> Status {
    Status::invalid_argument(error.to_string())
}

fn stopped<E: std::error::Error>(error: &E) -> Status {
    Status::unavailable(format!("the metadata is not running here: {error}"))
}
