//! Which roots this node pulls, and when: those that were published of the volumes that it keeps, and their snapshots.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use sterna_consensus::Metadata;
use sterna_consensus::state::command::ReplicaReport;
use sterna_consensus::state::replica::{Replica, ReplicaMode};
use sterna_consensus::state::volume::{Published, Volume, VolumeState};
use sterna_types::{Epoch, NodeId, Root, SnapshotName, VolumeId, VolumeName};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::pull::{Target, pull, pull_map};
use super::report::{self, Arrival};
use crate::node::node::Node;

/// One root that is to come here.
#[derive(Clone, Debug)]
struct Work {
    volume: VolumeId,
    name: VolumeName,
    epoch: Epoch,
    what: What,
    target: Target,
}

/// What a root is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    /// What the owner has published.
    Published(Published),
    /// The map of that, for a cache.
    Map(Published),
    /// A snapshot.
    Snapshot(SnapshotName),
}

/// Keeps the replicas of this node following, until it shuts down.
pub(in crate::node) async fn run(node: Arc<Node>) {
    let (arrivals, arrived) = mpsc::channel(PULLS_AT_ONCE);
    let reporter = tokio::spawn(report::run(Arc::clone(&node), arrived));
    let mut follower = Follower { node: Arc::clone(&node), arrivals, pulls: JoinSet::new(), busy: HashMap::new() };
    let mut view = node.metadata.watch();
    loop {
        let next_look = follower.begin_due();
        tokio::select! {
            () = node.stopping.cancelled() => break,
            changed = view.changed() => if changed.is_err() { break },
            Some(ended) = follower.pulls.join_next() => follower.ended(ended),
            () = tokio::time::sleep_until(next_look) => {}
        }
        // The metadata changes all the time, and all volumes are looked through for each look.
        tokio::time::sleep(PAUSE).await;
    }
    follower.pulls.shutdown().await;
    drop(follower);
    if let Err(panic) = reporter.await {
        tracing::error!(error = %panic, "reporting what is complete here has failed");
    }
}

struct Follower {
    node: Arc<Node>,
    arrivals: mpsc::Sender<Arrival>,
    pulls: JoinSet<(VolumeId, bool)>,
    /// Volumes of which something is being pulled, and those that are left alone until then.
    busy: HashMap<VolumeId, Option<Instant>>,
}

impl Follower {
    /// Begins as many pulls as there is room for; when to look again at the latest.
    fn begin_due(&mut self) -> Instant {
        let now = Instant::now();
        self.busy.retain(|_, until| until.is_none_or(|until| until > now));
        let (metadata, own) = (self.node.metadata.read(), self.node.metadata.id());
        for volume in metadata.volumes() {
            if self.pulls.len() >= PULLS_AT_ONCE {
                break;
            }
            if self.busy.contains_key(&volume.id) {
                continue;
            }
            if let Some(work) = due(&metadata, volume, own) {
                self.busy.insert(work.volume, None);
                self.pulls.spawn(carry_out(Arc::clone(&self.node), self.arrivals.clone(), work));
            }
        }
        self.busy.values().flatten().copied().min().unwrap_or(now + LOOK)
    }

    fn ended(&mut self, ended: Result<(VolumeId, bool), tokio::task::JoinError>) {
        match ended {
            Ok((volume, true)) => drop(self.busy.remove(&volume)),
            Ok((volume, false)) => drop(self.busy.insert(volume, Some(Instant::now() + RETRY))),
            // Its volume stays busy: what has panicked once is not tried again and again.
            Err(panic) => tracing::error!(error = %panic, "pulling a root has failed"),
        }
    }
}

/// What is to be pulled next of a volume; `None` where all of it is here, or it is not kept here.
fn due(metadata: &Metadata, volume: &Volume, own: NodeId) -> Option<Work> {
    let replica = volume.replicas.values().find(|replica| replica.node == own)?;
    if volume.state != VolumeState::Ready {
        return None;
    }
    let old = replica.newest().map_or(Root::EMPTY, |newest| newest.contents.root);
    let (what, new, holders) = if is_current(volume, replica) {
        if replica.mode == ReplicaMode::Cache {
            return None;
        }
        let (name, snapshot) = volume.snapshots.iter().find(|(_, kept)| !volume.is_held_by(kept, own))?;
        (What::Snapshot(name.clone()), snapshot.root, volume.holders(snapshot).collect())
    } else {
        let published = volume.published;
        let has_it = |other: &&Replica| other.complete.is_some_and(|other| other.contents.root == published.root);
        let others = volume.replicas.values().filter(has_it).map(|other| other.node);
        // What the owner has not fetched yet is with those who have handed the volume over.
        let others = others.chain(volume.sources.iter().rev().map(|source| source.node));
        let what = if replica.mode == ReplicaMode::Cache { What::Map(published) } else { What::Published(published) };
        (what, published.root, std::iter::once(volume.owner).chain(others).collect::<Vec<_>>())
    };
    let is_live = |node: &NodeId| metadata.node(*node).and_then(|node| node.session).is_some_and(|s| s.is_live());
    let sources = holders.into_iter().filter(|node| *node != own && is_live(node)).collect();
    let (volume, name, epoch) = (volume.id, volume.name.clone(), volume.epoch);
    Some(Work { volume, name, epoch, what, target: Target { volume, old, new, sources } })
}

/// Whether a replica has what is published; a cache, the map of it.
fn is_current(volume: &Volume, replica: &Replica) -> bool {
    replica.newest().is_some_and(|newest| newest.epoch == volume.epoch && newest.contents == volume.published)
}

/// Pulls a root and has it reported; whether that went well.
async fn carry_out(node: Arc<Node>, arrivals: mpsc::Sender<Arrival>, work: Work) -> (VolumeId, bool) {
    let Work { volume, name, epoch, what, target } = work;
    let pulled = match what {
        What::Map(_) => pull_map(&node, &target).await,
        What::Published(_) | What::Snapshot(_) => pull(&node, &target).await,
    };
    let held = match pulled {
        Ok(held) => held,
        Err(error) => {
            tracing::info!(volume = %name, ?what, "a replica does not come further for now: {error}");
            return (volume, false);
        }
    };
    let is_map = matches!(what, What::Map(_));
    let (complete, snapshots) = match what {
        What::Published(published) | What::Map(published) => (Some(published), Vec::new()),
        What::Snapshot(name) => (None, vec![name]),
    };
    let report = ReplicaReport { volume, epoch, complete, is_map, snapshots };
    let (reported, told) = oneshot::channel();
    let sent = arrivals.send(Arrival { report, held, reported }).await.is_ok();
    (volume, sent && told.await.is_ok())
}

/// How many volumes are pulled at a time: enough to fill a link over a long distance, each of them a group of chunks in memory.
const PULLS_AT_ONCE: usize = 8;
/// A source that has let go of what was published has published something newer within seconds.
const RETRY: Duration = Duration::from_secs(2);
/// Small beside the seconds in which a root is sealed and published.
const PAUSE: Duration = Duration::from_millis(100);
/// Sessions come and go without a change of any volume.
const LOOK: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use sterna_consensus::state::cluster::MetadataVersion;
    use sterna_consensus::state::command::{
        Admission, Bootstrap, Command, NewSnapshot, NewToken, NewVolume, Origin, RootPublication,
    };
    use sterna_consensus::state::policy::{AttachPolicy, Durability};
    use sterna_consensus::state::request::Request;
    use sterna_consensus::state::token::Digest;
    use sterna_consensus::state::volume::{Generation, UnixTime, VolumeFormat};
    use sterna_types::{ByteSize, ChunkId, ClusterId, TokenId, VolumeSize};

    use super::*;

    const OWNER: NodeId = NodeId(1);
    const KEEPER: NodeId = NodeId(2);

    fn apply(metadata: &mut Metadata, command: Command) {
        metadata.apply(&Request { id: None, command }).expect("it is not refused");
    }

    fn root(number: u8) -> Root {
        Root::at(ChunkId::from_bytes([number; 32]))
    }

    fn publish(metadata: &mut Metadata, number: u8) {
        let (volume, epoch, generation) = (VolumeId(1), Epoch::FIRST, Generation(number.into()));
        let publication =
            RootPublication { volume, epoch, root: root(number), generation, written_blocks: 1, at: None };
        apply(metadata, Command::PublishRoots(vec![publication]));
    }

    fn report(metadata: &mut Metadata, complete: Option<Published>, snapshots: &[&str]) {
        let snapshots = snapshots.iter().map(|name| name.parse().expect("a name")).collect();
        let report = ReplicaReport { volume: VolumeId(1), epoch: Epoch::FIRST, complete, is_map: false, snapshots };
        apply(metadata, Command::ReportReplicas { node: KEEPER, reports: vec![report] });
    }

    /// Two nodes, the second of which keeps the first one's volume.
    fn metadata() -> Metadata {
        let mut metadata = Metadata::default();
        let at = |unix_ms| UnixTime { unix_ms };
        let address = "127.0.0.1:1".parse().expect("an address");
        let (site, node) = ("ams".parse().expect("a site"), "ams-1".parse().expect("a name"));
        let cluster = ClusterId::from_bytes([7; 16]);
        apply(&mut metadata, Command::Bootstrap(Bootstrap { cluster, site, node, address: Some(address) }));
        apply(&mut metadata, Command::RaiseVersion { version: MetadataVersion::CURRENT });
        let (id, secret) = (TokenId(1), Digest([1; 32]));
        apply(&mut metadata, Command::CreateToken(NewToken { id, secret, at: at(0), expires: at(9), site: None }));
        let (name, site) = ("chi-1".parse().expect("a name"), "chi".parse().expect("a site"));
        let (knows, key) = (MetadataVersion::CURRENT, Digest([2; 32]));
        let admission = Admission { token: id, secret, at: at(1), knows, key, name, site, address };
        apply(&mut metadata, Command::AdmitNode(admission));
        for node in [OWNER, KEEPER] {
            apply(&mut metadata, Command::OpenSession { node, knows });
        }
        apply(
            &mut metadata,
            Command::CreateVolume(NewVolume {
                name: "disk".parse().expect("a name"),
                size: VolumeSize::try_from(ByteSize(1 << 20)).expect("a size"),
                format: VolumeFormat(1),
                durability: Durability::Local,
                attach: AttachPolicy::Manual,
                origin: Origin::Blank,
                owner: OWNER,
            }),
        );
        let mode = ReplicaMode::Async;
        apply(&mut metadata, Command::SetReplica { volume: VolumeId(1), node: KEEPER, mode });
        metadata
    }

    fn next(metadata: &Metadata) -> Option<(What, Root, Root, Vec<NodeId>)> {
        let work = due(metadata, metadata.volumes().next()?, KEEPER)?;
        Some((work.what, work.target.old, work.target.new, work.target.sources))
    }

    #[test]
    fn what_was_published_comes_first_and_then_the_snapshots_that_are_not_here() {
        let mut metadata = metadata();
        publish(&mut metadata, 1);
        let published = metadata.volumes().next().expect("the volume").published;
        assert_eq!(next(&metadata), Some((What::Published(published), Root::EMPTY, root(1), vec![OWNER])));
        report(&mut metadata, Some(published), &[]);
        assert_eq!(next(&metadata), None, "all of it is here");

        let name: SnapshotName = "kept".parse().expect("a name");
        let size = VolumeSize::try_from(ByteSize(1 << 20)).expect("a size");
        apply(
            &mut metadata,
            Command::CreateSnapshot(NewSnapshot {
                volume: VolumeId(1),
                epoch: Epoch::FIRST,
                name: name.clone(),
                root: root(2),
                generation: Generation(2),
                size,
                at: UnixTime { unix_ms: 1 },
            }),
        );
        assert_eq!(next(&metadata), Some((What::Snapshot(name), root(1), root(2), vec![OWNER])));
        publish(&mut metadata, 3);
        let published = metadata.volumes().next().expect("the volume").published;
        assert_eq!(next(&metadata), Some((What::Published(published), root(1), root(3), vec![OWNER])));
        report(&mut metadata, Some(published), &["kept"]);
        assert_eq!(next(&metadata), None);
        let volume = metadata.volumes().next().expect("the volume");
        assert!(due(&metadata, volume, NodeId(3)).is_none(), "others keep it");
    }
}
