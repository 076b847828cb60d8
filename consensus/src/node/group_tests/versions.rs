//! Nodes of neighbouring versions in one group.

use sterna_types::NodeId;

use super::*;
use crate::state::refusal::Refusal;

/// The one before this program's.
const EARLIER: MetadataVersion = MetadataVersion(MetadataVersion::CURRENT.0 - 1);

impl Group {
    /// Starts a node as a program that knows `knows`, which opens a session as its first act.
    async fn start_as(&mut self, id: u64, knows: MetadataVersion) -> Result<Outcome, Refusal> {
        self.config.knows = knows;
        self.start(id).await;
        self.decide(&Command::OpenSession { node: NodeId(id), knows }).await
    }

    /// Has whoever leads decide on a command.
    async fn decide(&self, command: &Command) -> Result<Outcome, Refusal> {
        for node in self.nodes.values().cycle() {
            match node.propose(command.clone()).await {
                Ok(outcome) => return Ok(outcome),
                Err(ProposeError::Refused(refusal)) => return Err(refusal),
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
        unreachable!("a group is not empty")
    }

    fn versions(&self) -> Vec<u32> {
        self.nodes.values().map(|node| node.read().version().0).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_works_at_the_version_of_its_oldest_node_and_is_raised_when_that_is_replaced() {
    let mut group = Group::begun(MetadataConfig { knows: EARLIER, ..quick() }).await;
    for id in [2, 3] {
        group.admit(id).await;
    }
    group.promote(&[2, 3]).await;
    for id in [1, 2, 3] {
        group.decide(&Command::OpenSession { node: NodeId(id), knows: EARLIER }).await.unwrap();
    }
    group.make(0).await;

    // Two of the three programs are replaced, one after the other.
    for id in [1, 2] {
        group.stop(id).await;
        group.start_as(id, MetadataVersion::CURRENT).await.unwrap();
    }
    let refused = group.decide(&Command::RaiseVersion { version: MetadataVersion::CURRENT }).await;
    let too_old = Refusal::ProgramTooOld { node: NodeId(3), knows: EARLIER, required: MetadataVersion::CURRENT };
    assert_eq!(refused, Err(too_old));
    group.make(1).await;
    group.all_have(2).await;
    assert_eq!(group.versions(), [EARLIER.0; 3]);

    // The third as well: whoever leads raises the version by itself.
    group.stop(3).await;
    group.start_as(3, MetadataVersion::CURRENT).await.unwrap();
    for node in group.nodes.values() {
        node.watch().wait_for(|metadata| metadata.version() == MetadataVersion::CURRENT).await.unwrap();
    }
    group.make(2).await;
    group.all_have(3).await;

    // There is no way back.
    group.stop(3).await;
    let refused = group.start_as(3, EARLIER).await;
    let too_old = Refusal::ProgramTooOld { node: NodeId(3), knows: EARLIER, required: MetadataVersion::CURRENT };
    assert_eq!(refused, Err(too_old));
    group.decide(&Command::CreateToken(new_token(4))).await.unwrap();
    let newcomer = Admission { knows: EARLIER, ..admission(4, "n4", "s4") };
    let refused = group.decide(&Command::AdmitNode(newcomer)).await;
    assert_eq!(refused, Err(Refusal::NewcomerTooOld { knows: EARLIER, required: MetadataVersion::CURRENT }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_an_earlier_version_takes_a_snapshot_from_one_of_a_later_version() {
    // The last one that knows no compressed snapshots.
    let earlier = MetadataVersion::MANY_NODES;
    let few = MetadataConfig { snapshot_after_entries: 20, kept_entries: 2, ..quick() };
    let mut group = Group::begun(MetadataConfig { knows: earlier, ..few }).await;
    group.admit(2).await;
    group.decide(&Command::OpenSession { node: NodeId(2), knows: earlier }).await.unwrap();
    group.make(100).await;
    group.all_have(1).await;
    group.stop(2).await;
    group.stop(1).await;
    group.start_as(1, MetadataVersion::CURRENT).await.unwrap();
    for number in 0..60 {
        group.make(number).await;
    }
    let purged = |metrics: &openraft::RaftMetrics<u64, EmptyNode>| metrics.purged.is_some_and(|id| id.index > 30);
    group.nodes[&1].raft.wait(None).metrics(purged, "the log is dropped").await.unwrap();
    // As the earlier version knows it: not compressed.
    let snapshot = group.nodes[&1].raft.get_snapshot().await.unwrap().unwrap().snapshot.into_inner();
    assert_eq!(snapshot.first(), Some(&b'{'));
    group.config.knows = earlier;
    group.start(2).await;
    group.all_have(61).await;
    assert!(group.nodes[&2].raft.metrics().borrow().snapshot.is_some(), "there was no snapshot to be had otherwise");
}
