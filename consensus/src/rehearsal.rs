//! Pretended surroundings, for measurements of clusters that no single machine can hold: a directory with any metadata in it, and
//! other nodes that acknowledge everything. Built with the feature `rehearsal` only.
//!
//! Nothing here is for a cluster that anybody relies on: what pretended nodes acknowledge is nowhere.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use openraft::error::{Infallible, InstallSnapshotError, RPCError, RaftError};
use openraft::network::{RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse, VoteRequest,
    VoteResponse,
};
use openraft::{EmptyNode, EntryPayload, LeaderId};
use sterna_types::NodeId;

use crate::node::{MetadataConfig, MetadataNode, OpenError};
use crate::raft::acknowledgements::Acknowledgements;
use crate::raft::wire::append_request;
use crate::raft::{Entry, LogId, Membership, SnapshotMeta, StoredMembership, TypeConfig};
use crate::state::Metadata;
use crate::state::request::Request;
use crate::store;

/// What pretended nodes have been sent, all of them together.
#[derive(Debug, Default)]
pub struct Traffic {
    messages: AtomicU64,
    heartbeats: AtomicU64,
    bytes: AtomicU64,
}

/// [`Traffic`] at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Messages with entries.
    pub messages: u64,
    /// Messages without.
    pub heartbeats: u64,
    /// Bytes of entries, compressed as they are on a wire; without what the wire adds.
    pub bytes: u64,
}

impl Traffic {
    /// What has been sent so far.
    pub fn sent(&self) -> Sent {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Sent { messages: load(&self.messages), heartbeats: load(&self.heartbeats), bytes: load(&self.bytes) }
    }
}

/// Makes the directory of a node that is the only voter of a cluster with this metadata, as a snapshot, and with requests behind it,
/// each in an entry of its own; all its other nodes listen. Durable on return. Blocks.
///
/// # Errors
/// [`OpenError`], also where the metadata has no cluster.
pub fn lay_out(dir: &Path, metadata: &Metadata, behind: Vec<Request>) -> Result<(), OpenError> {
    if metadata.cluster().is_none() {
        return Err(OpenError::NotInitialised { dir: dir.to_owned() });
    }
    let last = LogId::new(LeaderId::new(1, NodeId::FIRST.0), 1);
    let nodes = metadata.nodes().map(|node| (node.id.0, EmptyNode {})).collect::<BTreeMap<_, _>>();
    let membership = Membership::new(vec![[NodeId::FIRST.0].into()], nodes);
    let meta = SnapshotMeta {
        last_log_id: Some(last),
        last_membership: StoredMembership::new(Some(last), membership),
        snapshot_id: "laid-out".to_owned(),
    };
    // Of a log that was dropped in full openraft sends nothing but snapshots: there is one entry at least.
    let requests = behind.into_iter().map(|request| EntryPayload::Normal(vec![request].into()));
    let payloads = std::iter::once(EntryPayload::Blank).chain(requests);
    let entry = |(index, payload)| Entry { log_id: LogId::new(last.leader_id, index), payload };
    let entries: Vec<_> = (last.index + 1..).zip(payloads).map(entry).collect();
    Ok(store::lay_out(dir, &meta, metadata, &entries)?)
}

/// Opens the metadata in `dir` as [`MetadataNode::open`] does, among nodes that acknowledge everything, each after a round trip of its
/// own: 0 to 199 ms.
///
/// # Errors
/// As [`MetadataNode::open`].
///
/// # Cancel safety
/// As [`MetadataNode::open`].
pub async fn open_among_echoes(dir: &Path, config: MetadataConfig) -> Result<(MetadataNode, Arc<Traffic>), OpenError> {
    let traffic = Arc::new(Traffic::default());
    let counted = Arc::clone(&traffic);
    let network = |view| Echoes { traffic: counted, acknowledgements: Acknowledgements::new(view) };
    let node = MetadataNode::open_on(dir, config, network).await?;
    Ok((node, traffic))
}

/// The bytes that a snapshot of `metadata` has, as it is kept and sent.
///
/// # Errors
/// There is no memory for it.
pub fn snapshot_of(metadata: &Metadata) -> io::Result<Vec<u8>> {
    store::encode_snapshot(metadata)
}

/// The metadata of a snapshot.
///
/// # Errors
/// [`OpenError::Damaged`].
pub fn metadata_of(snapshot: &[u8]) -> Result<Metadata, OpenError> {
    Ok(store::decode_snapshot(Path::new("a snapshot"), snapshot)?)
}

/// How long the node that leads a cluster holds back what can wait.
pub fn time_to_hold(metadata: &Metadata, config: &MetadataConfig) -> Duration {
    crate::node::time_to_hold(metadata, config.heartbeat)
}

/// How many entries the node that lacks most of them has not been sent yet, or has not acknowledged, where `node` leads.
pub fn furthest_behind(node: &MetadataNode) -> u64 {
    node.furthest_behind()
}

/// The bytes that these requests take as one entry of the log.
pub fn entry_of(requests: Vec<Request>) -> Vec<u8> {
    let log_id = LogId::new(LeaderId::new(1, NodeId::FIRST.0), 1_000_000);
    let payload = EntryPayload::Normal(requests.into());
    store::to_json(&store::record::EntryRecord::from(&Entry { log_id, payload }))
}

/// The network of nodes that are not there.
#[derive(Clone, Debug)]
struct Echoes {
    traffic: Arc<Traffic>,
    acknowledgements: Acknowledgements,
}

/// The way to one of them.
#[derive(Clone, Debug)]
struct Echo {
    to: NodeId,
    all: Echoes,
}

type Failed<E> = RPCError<u64, EmptyNode, RaftError<u64, E>>;

impl RaftNetworkFactory<TypeConfig> for Echoes {
    type Network = Echo;

    async fn new_client(&mut self, target: u64, _: &EmptyNode) -> Echo {
        Echo { to: NodeId(target), all: self.clone() }
    }
}

impl RaftNetwork<TypeConfig> for Echo {
    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, Failed<Infallible>> {
        let Echoes { traffic, acknowledgements } = &self.all;
        // What a leader does for each of its nodes, up to the connection.
        let bytes: usize = append_request(&request, true).entries.iter().map(Vec::len).sum();
        let counter = if bytes == 0 { &traffic.heartbeats } else { &traffic.messages };
        counter.fetch_add(1, Ordering::Relaxed);
        traffic.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(self.to.0 % 200)).await;
        acknowledgements.hold(self.to).await;
        Ok(AppendEntriesResponse::Success)
    }

    async fn install_snapshot(
        &mut self,
        request: InstallSnapshotRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<InstallSnapshotResponse<u64>, Failed<InstallSnapshotError>> {
        Ok(InstallSnapshotResponse { vote: request.vote })
    }

    async fn vote(&mut self, request: VoteRequest<u64>, _: RPCOption) -> Result<VoteResponse<u64>, Failed<Infallible>> {
        Ok(VoteResponse::new(request.vote, request.last_log_id, true))
    }
}
