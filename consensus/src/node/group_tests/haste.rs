//! Proposals that nobody waits for.

use futures_util::future::join_all;

use super::*;

/// A leader that holds back for as long as it can: 20 s, longer than any of this takes.
fn slow() -> MetadataConfig {
    let (heartbeat, election_min, election_max) =
        (Duration::from_secs(60), Duration::from_secs(120), Duration::from_secs(240));
    MetadataConfig { heartbeat, election_min, election_max, ..MetadataConfig::default() }
}

/// A cluster of so many nodes, of which one runs; each has a session, and Raft has let all of them in.
async fn cluster_of(count: u64) -> Group {
    let group = Group::begun(slow()).await;
    let first = &group.nodes[&1];
    first.watch().wait_for(|metadata| metadata.version() == MetadataVersion::CURRENT).await.unwrap();
    let length = Duration::from_secs(600).try_into().unwrap();
    first.propose(Command::SetSessionLength { length }).await.unwrap();
    for id in 1..=count {
        if id > 1 {
            first.propose(Command::CreateToken(new_token(id))).await.unwrap();
            first.propose(Command::AdmitNode(admission(id, &format!("n{id}"), "s"))).await.unwrap();
        }
        let knows = MetadataVersion::CURRENT;
        first.propose(Command::OpenSession { node: NodeId(id), knows }).await.unwrap();
    }
    let all_in = |metrics: &openraft::RaftMetrics<u64, EmptyNode>| {
        let is_applied = metrics.last_applied.map(|id| id.index) == metrics.last_log_index;
        metrics.membership_config.membership().nodes().count() as u64 == count && is_applied
    };
    first.raft.wait(None).metrics(all_in, "every node is a member").await.unwrap();
    group
}

fn renewal(node: u64) -> Command {
    Command::RenewSession { node: NodeId(node), number: SessionNumber(1) }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_large_cluster_what_can_wait_shares_an_entry_with_what_comes_behind_it() {
    const COUNT: u64 = 12;
    let group = cluster_of(COUNT).await;
    let node = &group.nodes[&1];
    let before = node.applied_index();
    let renewals = join_all((1..=COUNT).map(|id| node.propose_without_haste(renewal(id))));
    let (renewed, made) = tokio::join!(renewals, node.propose(create_volume("urgent")));
    assert!(matches!(made, Ok(Outcome::Created { .. })), "{made:?}");
    assert!(renewed.iter().all(|answer| matches!(answer, Ok(Outcome::Session { .. }))), "{renewed:?}");
    assert_eq!(node.applied_index(), before + 1, "they took more than one entry");
    for node in node.read().nodes() {
        assert_eq!(node.session.map(|session| session.renewals), Some(1), "node {}", node.id);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_an_entry_holds_goes_at_once() {
    let group = cluster_of(12).await;
    let node = &group.nodes[&1];
    let before = node.applied_index();
    let count = crate::limits::MAX_COMMANDS_PER_ENTRY;
    let answers = join_all((0..count).map(|_| node.propose_without_haste(renewal(2)))).await;
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(node.applied_index(), before + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_small_cluster_nothing_waits() {
    let group = cluster_of(10).await;
    let node = &group.nodes[&1];
    // Were it held, it would be for longer than this test may take.
    for round in 1..=20 {
        node.propose_without_haste(renewal(2)).await.unwrap();
        assert_eq!(node.read().node(NodeId(2)).unwrap().session.unwrap().renewals, round);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_held_goes_by_itself_in_the_end() {
    let group = cluster_of(12).await;
    let node = &group.nodes[&1];
    let length = Duration::from_secs(1).try_into().unwrap();
    node.propose(Command::SetSessionLength { length }).await.unwrap();
    let answer = node.propose_without_haste(renewal(3)).await;
    assert!(matches!(answer, Ok(Outcome::Session { .. })), "{answer:?}");
}
