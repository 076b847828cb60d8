//! Asking the node that leads, from one that does not.

use sterna_proto::node::metadata_client::MetadataClient;
use sterna_proto::node::propose_reply::Outcome as Proposed;
use sterna_proto::node::read_index_reply::Outcome as ReadIndex;
use sterna_proto::node::{NotLeader, ProposeRequest, ReadIndexRequest};
use sterna_transport::{Channels, ConnectError, Lane};
use sterna_types::NodeId;
use tonic::codec::CompressionEncoding;
use tonic::transport::Channel;

use super::error::{ProposeError, ReadError};
use super::proposer::{Answer, Urgency};
use crate::limits::MAX_MESSAGE_BYTES;
use crate::raft::wire::json_of;
use crate::state::outcome::Outcome;
use crate::state::refusal::Refusal;
use crate::state::request::Request;
use crate::store::to_json;

/// The way to whoever leads; none for a node that has no network.
#[derive(Clone, Debug)]
pub(super) struct Leader {
    channels: Option<Channels>,
}

/// Requests that were carried out, and where.
#[derive(Debug)]
pub(super) struct Written {
    /// The index of their entry.
    pub(super) index: u64,
    /// One for each.
    pub(super) answers: Vec<Answer>,
}

impl Leader {
    pub(super) fn new(channels: Option<Channels>) -> Self {
        Self { channels }
    }

    /// Has `leader` carry requests out.
    pub(super) async fn propose(
        &self,
        leader: NodeId,
        requests: &[Request],
        urgency: Urgency,
    ) -> Result<Written, ProposeError> {
        let Some(mut client) = self.client(leader) else {
            return Err(ProposeError::NotLeader { leader: Some(leader) });
        };
        let unknown = |what: String| ProposeError::Unknown { what };
        let requests: Vec<_> = requests.iter().map(to_json).collect();
        let count = requests.len();
        let reply = client.propose(ProposeRequest { requests, can_wait: urgency == Urgency::CanWait }).await;
        let reply = reply.map_err(|status| match ConnectError::behind(&status) {
            // There was no connection to propose over.
            Some(error) => ProposeError::CutOff { leader, what: error.to_string() },
            None => unknown(format!("node {leader}, which leads: {}", status.message())),
        })?;
        match reply.into_inner().outcome {
            Some(Proposed::Answered(answered)) if answered.answers.len() == count => {
                let answer = |json: &Vec<u8>| json_of::<Result<Outcome, Refusal>>("answer", json);
                let answers: Result<Vec<_>, _> = answered.answers.iter().map(answer).collect();
                let answers = answers.map_err(|error| unknown(format!("node {leader} has answered: {error}")))?;
                let answers = answers.into_iter().map(|answer| answer.map_err(ProposeError::from)).collect();
                Ok(Written { index: answered.index, answers })
            }
            Some(Proposed::NotLeader(other)) => Err(ProposeError::NotLeader { leader: leader_of(&other) }),
            Some(Proposed::Unknown(what)) => Err(unknown(what)),
            Some(Proposed::Answered(_)) | None => Err(unknown(format!("node {leader} has not answered all of it"))),
        }
    }

    /// How far this node has to have applied the log to know all that was acknowledged before.
    pub(super) async fn read_index(&self, leader: NodeId) -> Result<u64, ReadError> {
        let Some(mut client) = self.client(leader) else {
            return Err(ReadError::NotLeader { leader: Some(leader) });
        };
        let reply = client.read_index(ReadIndexRequest {}).await;
        let reply = reply.map_err(|status| ReadError::CutOff { leader, what: status.message().to_owned() })?;
        match reply.into_inner().outcome {
            Some(ReadIndex::Index(index)) => Ok(index),
            Some(ReadIndex::NotLeader(other)) => Err(ReadError::NotLeader { leader: leader_of(&other) }),
            None => Err(ReadError::CutOff { leader, what: "its answer is empty".to_owned() }),
        }
    }

    fn client(&self, leader: NodeId) -> Option<MetadataClient<Channel>> {
        let channels = self.channels.as_ref()?;
        let client = MetadataClient::new(channels.channel(leader, Lane::Control))
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
            .send_compressed(CompressionEncoding::Zstd)
            .accept_compressed(CompressionEncoding::Zstd);
        Some(client)
    }
}

fn leader_of(message: &NotLeader) -> Option<NodeId> {
    (message.leader != 0).then_some(NodeId(message.leader))
}
