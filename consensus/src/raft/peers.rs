//! Raft's way to the other nodes: one client for each, over the connections that the transport keeps.
//!
//! Votes and entries go on the control lane, snapshots on the bulk lane, so that a heartbeat never waits behind a snapshot.
//! openraft bounds the time of each call, and decides what to do about one that failed; here a failure is only told.

use std::sync::Arc;

use openraft::error::{
    InstallSnapshotError, NetworkError, RPCError, RaftError, RemoteError, SnapshotMismatch, Unreachable,
};
use openraft::network::{RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse, VoteRequest,
    VoteResponse,
};
use openraft::{EmptyNode, SnapshotSegmentId};
use sterna_proto::node::raft_client::RaftClient;
use sterna_transport::{Channels, Lane};
use sterna_types::NodeId;
use tokio::sync::watch;
use tonic::codec::CompressionEncoding;
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::acknowledgements::Acknowledgements;
use super::{TypeConfig, wire};
use crate::limits::MAX_MESSAGE_BYTES;
use crate::state::Metadata;
use crate::state::cluster::MetadataVersion;

/// All other nodes.
#[derive(Clone, Debug)]
pub(crate) struct Peers {
    channels: Channels,
    acknowledgements: Acknowledgements,
    view: watch::Receiver<Arc<Metadata>>,
}

/// One other node.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    to: NodeId,
    channels: Channels,
    acknowledgements: Acknowledgements,
    view: watch::Receiver<Arc<Metadata>>,
}

type Failed<E> = RPCError<u64, EmptyNode, RaftError<u64, E>>;

impl Peers {
    /// Reaches the nodes that `channels` reach, which understand the version of the metadata in `view`.
    pub(crate) fn new(channels: Channels, view: watch::Receiver<Arc<Metadata>>) -> Self {
        Self { channels, acknowledgements: Acknowledgements::new(view.clone()), view }
    }
}

impl Peer {
    fn client(&self, lane: Lane) -> RaftClient<Channel> {
        RaftClient::new(self.channels.channel(self.to, lane))
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
            .accept_compressed(CompressionEncoding::Zstd)
    }
}

impl RaftNetworkFactory<TypeConfig> for Peers {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, _: &EmptyNode) -> Peer {
        Peer {
            to: NodeId(target),
            channels: self.channels.clone(),
            acknowledgements: self.acknowledgements.clone(),
            view: self.view.clone(),
        }
    }
}

impl RaftNetwork<TypeConfig> for Peer {
    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, Failed<openraft::error::Infallible>> {
        let reads_compressed = self.view.borrow().version() >= MetadataVersion::REPLICAS;
        let request = wire::append_request(&request, reads_compressed);
        let client = self.client(Lane::Control);
        // Once is enough: what each message adds is short.
        let mut client = if reads_compressed { client } else { client.send_compressed(CompressionEncoding::Zstd) };
        let reply = client.append(request).await;
        self.acknowledgements.hold(self.to).await;
        let reply = reply.map_err(|status| failed(&status))?.into_inner();
        wire::append_reply_of(reply).map_err(|error| RPCError::Network(NetworkError::new(&error)))
    }

    async fn install_snapshot(
        &mut self,
        request: InstallSnapshotRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<InstallSnapshotResponse<u64>, Failed<InstallSnapshotError>> {
        let (id, offset) = (request.meta.snapshot_id.clone(), request.offset);
        let reply = self
            .client(Lane::Bulk)
            .send_compressed(CompressionEncoding::Zstd)
            .install_snapshot(wire::snapshot_request(request))
            .await;
        let reply = reply.map_err(|status| failed(&status))?.into_inner();
        if reply.mismatch {
            let expect = SnapshotSegmentId { id: id.clone(), offset: reply.expected_offset };
            let mismatch = SnapshotMismatch { expect, got: SnapshotSegmentId { id, offset } };
            return Err(RPCError::RemoteError(RemoteError::new(
                self.to.0,
                RaftError::APIError(InstallSnapshotError::SnapshotMismatch(mismatch)),
            )));
        }
        let vote = wire::vote_of(reply.vote).map_err(|error| RPCError::Network(NetworkError::new(&error)))?;
        Ok(InstallSnapshotResponse { vote })
    }

    async fn vote(
        &mut self,
        request: VoteRequest<u64>,
        _: RPCOption,
    ) -> Result<VoteResponse<u64>, Failed<openraft::error::Infallible>> {
        let reply = self.client(Lane::Control).vote(wire::vote_request(&request)).await;
        let reply = reply.map_err(|status| failed(&status))?.into_inner();
        wire::vote_reply_of(reply).map_err(|error| RPCError::Network(NetworkError::new(&error)))
    }
}

/// A node that is not there, or lets nobody in, is tried again after a pause; anything else at once.
fn failed<E: std::error::Error>(status: &Status) -> Failed<E> {
    match status.code() {
        Code::Unavailable | Code::PermissionDenied | Code::Unimplemented => {
            RPCError::Unreachable(Unreachable::new(status))
        }
        _ => RPCError::Network(NetworkError::new(status)),
    }
}
