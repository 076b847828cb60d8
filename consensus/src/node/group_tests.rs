//! Several nodes in one process, over a network of method calls: the same store and the same Raft as in a group of one.

mod haste;
mod versions;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use openraft::error::{InstallSnapshotError, RPCError, RaftError, RemoteError, Unreachable};
use openraft::network::{RPCOption, RaftNetwork};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse, VoteRequest,
    VoteResponse,
};
use openraft::{AnyError, EmptyNode};
use tempfile::TempDir;

use super::tests::new_bootstrap;
use super::*;
use crate::state::cluster::MetadataVersion;
use crate::state::command::Admission;
use crate::state::layout::NodeChange;
use crate::state::outcome::Outcome;
use crate::state::request::RequestId;
use crate::state::session::SessionNumber;
use crate::state::tests::create_volume;
use crate::state::tests::nodes::{admission, new_token};

/// Which nodes are connected: to each other, and others to nobody.
#[derive(Clone, Default)]
struct Network {
    nodes: Arc<Mutex<BTreeMap<u64, Raft>>>,
}

/// One node's way to the others.
struct Wires {
    network: Network,
    from: u64,
}

struct Wire {
    network: Network,
    from: u64,
    to: u64,
}

type Failed<E> = RPCError<u64, EmptyNode, RaftError<u64, E>>;

impl Wire {
    fn raft(&self) -> Result<Raft, Unreachable> {
        let nodes = self.network.nodes();
        let connected = nodes.get(&self.to).filter(|_| nodes.contains_key(&self.from));
        connected.cloned().ok_or_else(|| Unreachable::new(&AnyError::error("it is gone")))
    }

    fn remote<E: std::error::Error>(&self, error: RaftError<u64, E>) -> Failed<E> {
        RPCError::RemoteError(RemoteError::new(self.to, error))
    }
}

impl Network {
    fn nodes(&self) -> MutexGuard<'_, BTreeMap<u64, Raft>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RaftNetworkFactory<TypeConfig> for Wires {
    type Network = Wire;

    async fn new_client(&mut self, target: u64, _: &EmptyNode) -> Wire {
        Wire { network: self.network.clone(), from: self.from, to: target }
    }
}

impl RaftNetwork<TypeConfig> for Wire {
    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, Failed<openraft::error::Infallible>> {
        self.raft()?.append_entries(request).await.map_err(|error| self.remote(error))
    }

    async fn install_snapshot(
        &mut self,
        request: InstallSnapshotRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<InstallSnapshotResponse<u64>, Failed<InstallSnapshotError>> {
        self.raft()?.install_snapshot(request).await.map_err(|error| self.remote(error))
    }

    async fn vote(
        &mut self,
        request: VoteRequest<u64>,
        _: RPCOption,
    ) -> Result<VoteResponse<u64>, Failed<openraft::error::Infallible>> {
        self.raft()?.vote(request).await.map_err(|error| self.remote(error))
    }
}

/// A group in one process.
struct Group {
    temp: TempDir,
    network: Network,
    config: MetadataConfig,
    nodes: BTreeMap<u64, MetadataNode>,
}

impl Group {
    /// A group of one, to begin with.
    async fn begun(config: MetadataConfig) -> Self {
        let mut group =
            Self { temp: tempfile::tempdir().unwrap(), network: Network::default(), config, nodes: BTreeMap::new() };
        group.start(1).await;
        group.nodes[&1].begin(new_bootstrap()).await.unwrap();
        group
    }

    /// Starts a node, for the first time or again.
    async fn start(&mut self, id: u64) {
        let dir = self.temp.path().join(format!("node-{id}"));
        let mut store = Store::open(&dir, Absent::Create).unwrap();
        store.set_node(NodeId(id)).unwrap();
        let wires = Wires { network: self.network.clone(), from: id };
        let node = MetadataNode::start(&dir, self.config, store, wires, None).await.unwrap();
        self.nodes.insert(id, node);
        self.connect(id);
    }

    async fn stop(&mut self, id: u64) {
        self.cut_off(id);
        self.nodes.remove(&id).unwrap().shutdown().await;
    }

    fn connect(&self, id: u64) {
        self.network.nodes().insert(id, self.nodes[&id].raft.clone());
    }

    fn cut_off(&self, id: u64) {
        self.network.nodes().remove(&id);
    }

    /// Cuts off the one that leads, which goes on taking itself for the leader; which one.
    async fn cut_off_leader(&self) -> u64 {
        loop {
            for (id, node) in &self.nodes {
                self.cut_off(*id);
                // Nobody can tell it otherwise from now on.
                if node.raft.metrics().borrow().state == openraft::ServerState::Leader {
                    return *id;
                }
                self.connect(*id);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Those that are connected, again and again.
    fn ask_around(&self) -> impl Iterator<Item = &MetadataNode> {
        let connected: BTreeSet<u64> = self.network.nodes().keys().copied().collect();
        self.nodes.iter().cycle().filter(move |(id, _)| connected.contains(id)).map(|(_, node)| node)
    }

    /// Lets a node in, and starts it; the node that leads has Raft take it in by itself.
    async fn admit(&mut self, id: u64) {
        let first = &self.nodes[&1];
        let knows = self.config.knows;
        first.watch().wait_for(|metadata| metadata.version() == knows).await.unwrap();
        first.propose(Command::CreateToken(new_token(id))).await.unwrap();
        let admission = Admission { knows, ..admission(id, &format!("n{id}"), &format!("s{id}")) };
        let admitted = first.propose(Command::AdmitNode(admission)).await.unwrap();
        assert_eq!(admitted, Outcome::Admitted { node: NodeId(id) });
        self.start(id).await;
    }

    /// Makes nodes voters, and waits until Raft has followed at all of them: those that have not heard that they vote elect nobody.
    async fn promote(&self, ids: &[u64]) {
        let first = &self.nodes[&1];
        for id in ids {
            first.propose(Command::StageChange(NodeChange::Promote(NodeId(*id)))).await.unwrap();
        }
        let revision = first.read().layout().revision;
        first.propose(Command::ApplyChanges { revision }).await.unwrap();
        let wanted: BTreeSet<u64> = first.read().layout().voters.iter().map(|id| id.0).collect();
        let followed = |metrics: &openraft::RaftMetrics<u64, EmptyNode>| {
            metrics.membership_config.membership().get_joint_config() == &vec![wanted.clone()]
        };
        for node in self.nodes.values() {
            node.raft.wait(None).metrics(followed, "the voters are those of the layout").await.unwrap();
        }
    }

    /// Has a volume made, by whoever leads; asks again until it is known to be.
    async fn make(&self, number: u64) {
        let id = RequestId(u128::from(number));
        for node in self.ask_around() {
            match node.propose_once(id, create_volume(&format!("v{number}"))).await {
                Ok(_) => return,
                Err(ProposeError::NotLeader { .. } | ProposeError::Unknown { .. }) => {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                Err(other) => panic!("{other}"),
            }
        }
    }

    /// Waits until every node's view has so many volumes.
    async fn all_have(&self, count: usize) {
        for node in self.nodes.values() {
            node.watch().wait_for(|metadata| metadata.volume_count() == count).await.unwrap();
        }
        let mut views = self.nodes.values().map(MetadataNode::read);
        let first = views.next().unwrap();
        assert!(views.all(|view| view == first), "the nodes have different metadata");
        assert_eq!(first.check(), Ok(()));
    }
}

/// Quick to elect, and yet slower than a machine that is busy with other tests.
fn quick() -> MetadataConfig {
    let ms = Duration::from_millis;
    let (heartbeat, election_min, election_max) = (ms(100), ms(1_000), ms(2_000));
    // Who asks the wrong node hears so at once.
    MetadataConfig { heartbeat, election_min, election_max, patience: Duration::ZERO, ..MetadataConfig::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_agree_and_go_on_without_the_one_that_led() {
    let mut group = Group::begun(quick()).await;
    group.make(0).await;
    for id in [2, 3] {
        group.admit(id).await;
    }
    group.promote(&[2, 3]).await;
    for number in 1..20 {
        group.make(number).await;
    }
    group.all_have(20).await;
    let error = group.nodes[&2].propose(create_volume("elsewhere")).await.expect_err("node 1 leads");
    assert_eq!(error, ProposeError::NotLeader { leader: Some(NodeId::FIRST) });

    group.stop(1).await;
    for number in 20..40 {
        group.make(number).await;
    }
    group.all_have(40).await;
    group.start(1).await;
    group.make(40).await;
    group.all_have(41).await;
    let mut answered = 0;
    for node in group.nodes.values() {
        if let Ok(metadata) = node.linearizable().await {
            assert_eq!(metadata.volume_count(), 41);
            answered += 1;
        }
    }
    assert!(answered <= 1, "{answered} nodes answer for the group");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_lacks_entries_which_were_dropped_takes_a_snapshot() {
    let mut group = Group::begun(MetadataConfig { snapshot_after_entries: 20, kept_entries: 2, ..quick() }).await;
    for number in 0..60 {
        group.make(number).await;
    }
    let purged = |metrics: &openraft::RaftMetrics<u64, EmptyNode>| metrics.purged.is_some_and(|id| id.index > 30);
    group.nodes[&1].raft.wait(None).metrics(purged, "the log is dropped").await.unwrap();
    group.admit(2).await;
    group.all_have(60).await;
    assert!(group.nodes[&2].raft.metrics().borrow().snapshot.is_some(), "there was no snapshot to be had otherwise");

    // What it took is durable: it stands there without the other one.
    let expected = group.nodes[&2].read();
    group.stop(1).await;
    group.stop(2).await;
    group.start(2).await;
    assert!(group.nodes[&2].read().volume_count() > 30);
    group.start(1).await;
    group.make(60).await;
    group.all_have(61).await;
    assert_eq!(group.nodes[&2].read().volume_count(), expected.volume_count() + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_proposes_that_was_leader_and_is_cut_off_has_an_end_when_a_snapshot_takes_its_place() {
    let mut group = Group::begun(MetadataConfig { snapshot_after_entries: 20, kept_entries: 2, ..quick() }).await;
    for id in [2, 3] {
        group.admit(id).await;
    }
    group.promote(&[2, 3]).await;
    group.all_have(0).await;
    // On a machine that is busy it need not be the first any more.
    let leader = group.cut_off_leader().await;
    let metrics = group.nodes[&leader].raft.metrics();
    let before = metrics.borrow().last_log_index;
    let mut written = metrics.clone();
    let (answer, ()) = tokio::join!(group.nodes[&leader].propose(create_volume("nowhere")), async {
        written.wait_for(|metrics| metrics.last_log_index > before).await.unwrap();
        for number in 0..60 {
            group.make(number).await;
        }
        group.connect(leader);
        group.all_have(60).await;
    });
    assert!(matches!(answer, Err(ProposeError::Unknown { .. })), "{answer:?}");
    assert!(metrics.borrow().snapshot.is_some_and(|taken| Some(taken.index) > before), "it has followed the log");
    assert_eq!(group.nodes[&leader].propose(create_volume("nowhere")).await.map(drop).ok(), None, "another node leads");
}
