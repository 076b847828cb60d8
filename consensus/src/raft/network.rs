//! The way to the other nodes for one that has no network: a node that is being made, or that listens to none. Whoever is
//! asked for is truthfully unreachable; a group of one asks nobody.

use openraft::error::{InstallSnapshotError, RPCError, RaftError, Unreachable};
use openraft::network::{RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse, VoteRequest,
    VoteResponse,
};
use sterna_types::NodeId;

use super::TypeConfig;

/// Reaches nobody.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NoNetwork;

/// A node that cannot be reached.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NoRoute {
    to: NodeId,
}

#[derive(Debug, thiserror::Error)]
#[error("there is no network to node {to}")]
struct NoRouteError {
    to: NodeId,
}

type Failed<E> = RPCError<u64, openraft::EmptyNode, RaftError<u64, E>>;

impl NoRoute {
    fn unreachable<E: std::error::Error>(self) -> Failed<E> {
        RPCError::Unreachable(Unreachable::new(&NoRouteError { to: self.to }))
    }
}

impl RaftNetworkFactory<TypeConfig> for NoNetwork {
    type Network = NoRoute;

    async fn new_client(&mut self, target: u64, _: &openraft::EmptyNode) -> NoRoute {
        NoRoute { to: NodeId(target) }
    }
}

impl RaftNetwork<TypeConfig> for NoRoute {
    async fn append_entries(
        &mut self,
        _: AppendEntriesRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, Failed<openraft::error::Infallible>> {
        Err(self.unreachable())
    }

    async fn install_snapshot(
        &mut self,
        _: InstallSnapshotRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<InstallSnapshotResponse<u64>, Failed<InstallSnapshotError>> {
        Err(self.unreachable())
    }

    async fn vote(
        &mut self,
        _: VoteRequest<u64>,
        _: RPCOption,
    ) -> Result<VoteResponse<u64>, Failed<openraft::error::Infallible>> {
        Err(self.unreachable())
    }
}
