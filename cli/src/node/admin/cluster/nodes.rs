//! The nodes: what the metadata says about each, and how it answers now.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use sterna_consensus::state::cluster::Node as NodeEntry;
use sterna_consensus::state::session::SessionState;
use sterna_proto::cluster;
use sterna_types::NodeId;
use tokio::time::Instant;

use crate::node::node::Node;

/// All of them, asked at the same time. A node that is cut off says what it knew last.
pub(super) async fn list(node: &Arc<Node>) -> cluster::ListNodesReply {
    let (read, answers) = tokio::join!(node.metadata.linearizable(), ask_all(node));
    let cut_off = read.as_ref().err().map(ToString::to_string).unwrap_or_default();
    let metadata = node.metadata.read();
    let leader = node.metadata.leader();
    let mut owned: HashMap<NodeId, u64> = HashMap::new();
    for volume in metadata.volumes() {
        *owned.entry(volume.owner).or_default() += 1;
    }
    let entry = |entry: &Arc<NodeEntry>| {
        let id = entry.id;
        let session = entry.session.map_or("none", |session| match session.state {
            SessionState::Live => "live",
            SessionState::Lapsed => "lapsed",
            SessionState::Closed => "closed",
        });
        let (answer, silence) = match answers.get(&id) {
            Some(Ok(answer)) => (Some(answer.clone()), String::new()),
            Some(Err(what)) => (None, what.clone()),
            None => (None, "it was not asked".to_owned()),
        };
        cluster::Node {
            id: id.0,
            name: entry.name.to_string(),
            site: entry.site.to_string(),
            address: entry.address.map(|address| address.to_string()).unwrap_or_default(),
            leads: leader == Some(id),
            votes: metadata.layout().voters.contains(&id),
            drains: metadata.layout().draining.contains(&id),
            session: session.to_owned(),
            session_renewals: entry.session.map_or(0, |session| session.renewals),
            volumes: owned.get(&id).copied().unwrap_or(0),
            answer,
            silence,
            knows: entry.knows.0,
        }
    };
    cluster::ListNodesReply {
        nodes: metadata.nodes().map(entry).collect(),
        is_current: read.is_ok(),
        cut_off,
        metadata_version: metadata.version().0,
    }
}

async fn ask_all(node: &Arc<Node>) -> HashMap<NodeId, Result<cluster::Answer, String>> {
    let metadata = node.metadata.read();
    let mut asking = tokio::task::JoinSet::new();
    for id in metadata.nodes().map(|node| node.id) {
        let node = Arc::clone(node);
        asking.spawn(async move { (id, ask(&node, id).await) });
    }
    let mut answers = HashMap::new();
    while let Some(answered) = asking.join_next().await {
        // One that panicked has been reported, and is shown as one that was not asked.
        let Ok((id, answer)) = answered else { continue };
        answers.insert(id, answer);
    }
    answers
}

async fn ask(node: &Node, id: NodeId) -> Result<cluster::Answer, String> {
    if id == node.metadata.id() {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        return Ok(cluster::Answer { round_trip_ms: 0.0, lag_entries: 0, version });
    }
    // The first call may have to connect, and is no measure of the way.
    let mut fastest = Duration::MAX;
    let mut last = None;
    for _ in 0..ROUND_TRIPS {
        let asked = Instant::now();
        let pong = tokio::time::timeout(PATIENCE, node.metadata.ping(id)).await;
        let pong = pong.map_err(|_| format!("no answer within {PATIENCE:?}"))?.map_err(|error| error.to_string())?;
        fastest = fastest.min(asked.elapsed());
        last = Some(pong);
    }
    let pong = last.ok_or("it was not asked")?;
    Ok(cluster::Answer {
        round_trip_ms: fastest.as_secs_f64() * 1e3,
        lag_entries: node.metadata.applied_index().saturating_sub(pong.applied),
        version: pong.version,
    })
}

const ROUND_TRIPS: usize = 3;
/// Ten times around the world.
const PATIENCE: Duration = Duration::from_secs(3);
