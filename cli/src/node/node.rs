//! The node: its metadata, its storage engine, and what goes on between the two.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use sterna_consensus::session::Lease;
use sterna_consensus::state::volume::{Volume as VolumeEntry, VolumeFormat, VolumeState};
use sterna_consensus::{Metadata, MetadataNode};
use sterna_migrator::token::Demand;
use sterna_runtime::work::blocking;
use sterna_storage_node::chunking::ChunkingParameters;
use sterna_storage_node::volume::VolumeSpec;
use sterna_transport::Tls;
use sterna_types::{Root, VolumeId};
use tokio::runtime::Handle;
use tokio::sync::RwLock;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::authority::Custody;
use super::background::Background;
use super::bucket::BucketLink;
use super::config::Config;
use super::credentials::{self, load_or_create};
use super::directory::DataDirectory;
use super::format::Identity;
use super::handoff::{Handoffs, Promises, Supplier};
use super::imports::Imports;
use super::mirrors::Roster;
use super::replication::{Pace, Precedence, Reach};
use super::storage::Engine;
use super::volumes::{HeldSlot, Volumes};

/// A node that is open.
///
/// What garbage collection may not miss is a root on its way from a volume to the metadata: for a moment neither names it.
/// So whoever takes a root from a volume and records it in the metadata holds [`Node::in_transit`] for reading meanwhile,
/// and a collection holds it for writing while it begins and asks for the roots.
#[derive(Debug)]
pub(super) struct Node {
    /// Which one it is.
    pub(super) identity: Identity,
    /// Where its data is.
    pub(super) directory: PathBuf,
    /// Its part in the metadata.
    pub(super) metadata: Arc<MetadataNode>,
    /// Who it is to others.
    pub(super) tls: Tls,
    /// How long the certificates are valid that it signs, where it holds the cluster's authority.
    pub(super) certificate_lifetime: Duration,
    /// Who else is known to hold the cluster's authority.
    pub(super) custody: Custody,
    /// Under which it answers clients.
    pub(super) lease: Arc<Lease>,
    /// Its storage engine.
    pub(super) engine: Engine,
    /// Its open volumes.
    pub(super) volumes: Arc<Volumes>,
    /// Where it does what no guest waits for.
    pub(super) background: Background,
    /// See above.
    pub(super) in_transit: Arc<RwLock<()>>,
    /// Roots that are being read, and that nobody else may name any more.
    held: Mutex<BTreeMap<Root, usize>>,
    /// Who sees to which handoff.
    pub(super) handoffs: Handoffs,
    /// What bulk waits for.
    pub(super) precedence: Precedence,
    /// How far away the nodes are that something is fetched from.
    pub(super) reach: Reach,
    /// How fast volumes are fetched that have limits.
    pub(super) pace: Pace,
    /// Where chunks and roots are kept besides.
    pub(super) bucket: Option<Arc<BucketLink>>,
    /// Where the migrator beside it listens to others, if there is to be one.
    pub(super) migrator: Option<SocketAddr>,
    /// Whether volumes that move with a VM need a token.
    pub(super) tokens: Demand,
    /// The volumes that are being filled.
    pub(super) imports: Arc<Imports>,
    /// When it was started.
    pub(super) started: Instant,
    /// Cancelled when it shuts down: long work ends.
    pub(super) stopping: CancellationToken,
    /// Cancelled later: other nodes are answered until the session is closed.
    pub(super) peers_stopping: CancellationToken,
    /// Last, so that the directory is locked until everything else is closed.
    _lock: Option<DataDirectory>,
}

/// What a node stands on: open, and nothing of it running yet but the metadata.
pub(super) struct Foundations {
    /// Which one it is.
    pub(super) identity: Identity,
    /// Where its data is.
    pub(super) directory: PathBuf,
    /// Its part in the metadata.
    pub(super) metadata: MetadataNode,
    /// Who it is to others.
    pub(super) tls: Tls,
    /// How long the certificates are valid that it signs.
    pub(super) certificate_lifetime: Duration,
    /// Its storage engine.
    pub(super) engine: Engine,
    /// How many volumes are sealed at the same time.
    pub(super) seals_at_once: u8,
    /// Where it does what no guest waits for.
    pub(super) background: Background,
    /// Where chunks and roots are kept besides.
    pub(super) bucket: Option<BucketLink>,
    /// Where the migrator beside it listens to others.
    pub(super) migrator: Option<SocketAddr>,
    /// Whether volumes that move with a VM need a token.
    pub(super) tokens: Demand,
    /// What keeps its data from being used by two processes; `None` where it cannot be: in a simulation.
    pub(super) lock: Option<DataDirectory>,
}

impl Node {
    /// Opens the node of a data directory.
    ///
    /// # Errors
    /// What is damaged, missing, or of another version.
    pub(super) async fn open(directory: DataDirectory, config: &Config, background: Background) -> Result<Arc<Self>> {
        let files = credentials::files(directory.root());
        let (cluster, path) = (directory.identity().cluster, directory.metadata());
        let lifetime = config.cluster.certificate_lifetime;
        let credentials = blocking(move || load_or_create(&files, cluster, &path, lifetime)).await??;
        let bucket = config.bucket.as_ref().map(|bucket| BucketLink::new(bucket, directory.root())).transpose()?;
        let tls = Tls::new(credentials).context("the node's credentials cannot be used")?;
        let others = config.cluster.listen.map(|_| tls.clone());
        let metadata = MetadataNode::open(&directory.metadata(), config.cluster.metadata, others).await?;
        match Self::open_engine(directory, config, &metadata).await {
            Ok((directory, engine)) => Ok(Self::on(Foundations {
                identity: directory.identity().clone(),
                directory: directory.root().to_owned(),
                metadata,
                tls,
                certificate_lifetime: config.cluster.certificate_lifetime,
                engine,
                seals_at_once: config.storage.seals_at_once,
                background,
                bucket,
                migrator: config.migrator.listen,
                tokens: config.migrator.tokens,
                lock: Some(directory),
            })),
            Err(error) => {
                metadata.shutdown().await;
                Err(error)
            }
        }
    }

    /// The node that stands on these.
    pub(super) fn on(foundations: Foundations) -> Arc<Self> {
        let Foundations {
            identity,
            directory,
            metadata,
            tls,
            certificate_lifetime,
            engine,
            seals_at_once,
            background,
            bucket,
            migrator,
            tokens,
            lock,
        } = foundations;
        let (storage, lease) = (Arc::clone(&engine.storage), Arc::<Lease>::default());
        let promises = Promises::new(metadata.id(), Arc::clone(&storage));
        let metadata = Arc::new(metadata);
        let (roster, runtime) = (Roster::of(&metadata), Handle::current());
        let volumes = Volumes::new(storage, promises, roster, runtime, &background, seals_at_once, Arc::clone(&lease));
        let node = Arc::new(Self {
            identity,
            directory,
            metadata,
            tls,
            certificate_lifetime,
            custody: Custody::default(),
            lease,
            engine,
            volumes: Arc::new(volumes),
            background,
            in_transit: Arc::default(),
            held: Mutex::default(),
            handoffs: Handoffs::default(),
            precedence: Precedence::default(),
            reach: Reach::default(),
            pace: Pace::default(),
            bucket: bucket.map(Arc::new),
            migrator,
            tokens,
            imports: Arc::default(),
            started: Instant::now(),
            stopping: CancellationToken::new(),
            peers_stopping: CancellationToken::new(),
            _lock: lock,
        });
        node.volumes.supply_by(Arc::new(Supplier::new(Arc::downgrade(&node))));
        node
    }

    async fn open_engine(
        directory: DataDirectory,
        config: &Config,
        metadata: &MetadataNode,
    ) -> Result<(DataDirectory, Engine)> {
        let known = metadata.read();
        // A node that has just joined knows nothing yet.
        if known.cluster().is_some() {
            check_identity(&known, directory.identity(), directory.root())?;
        }
        let config = config.storage;
        let opening = blocking(move || {
            let engine = Engine::open(&directory, &config)?;
            Ok((directory, engine))
        });
        opening.await.context("opening the storage panicked")?
    }

    /// Removes what is kept of volumes that the metadata has deleted: the node was killed between the two. Only metadata that
    /// has everything says so; a volume that it does not know yet may be the newest of all.
    ///
    /// # Errors
    /// What is damaged.
    pub(super) async fn remove_deleted(self: &Arc<Self>) -> Result<()> {
        let known = self.metadata.linearizable().await?;
        let own = Arc::clone(self);
        blocking(move || remove_deleted(&own.engine, &known)).await?
    }

    /// Removes what is kept of a volume that the metadata has deleted. Durable on return.
    ///
    /// # Errors
    /// What the storage says; what is left then is found by the next attempt, at the latest after the next start.
    pub(super) async fn remove_left(&self, mut slot: HeldSlot, id: VolumeId) -> Result<()> {
        slot.close().await;
        let storage = Arc::clone(&self.engine.storage);
        blocking(move || storage.remove_deleted(id)).await??;
        self.volumes.promises().forget(id);
        slot.forget();
        Ok(())
    }

    /// Keeps a root's chunks from being collected for as long as what is returned lives. The caller has taken the root
    /// with [`Node::in_transit`] held, and holds it still.
    pub(super) fn hold_root(self: &Arc<Self>, root: Root) -> HeldRoot {
        *self.held().entry(root).or_default() += 1;
        HeldRoot { node: Arc::clone(self), root }
    }

    /// The roots that the metadata, which has all that was decided, says are here: those of this node's volumes, of the replicas
    /// that it keeps, of snapshots that it holds, of what it has handed over and the owner has not fetched yet (also where that
    /// is this node again), and of what others have taken over and this node has not settled yet; and those that are being read.
    pub(super) fn named_roots(&self, metadata: &Metadata) -> Vec<Root> {
        let mut roots: Vec<_> = self.held().keys().copied().collect();
        let own = self.metadata.id();
        for volume in metadata.volumes() {
            roots.extend((volume.owner == own).then_some(volume.published.root));
            let replicas = volume.replicas.values().filter(|replica| replica.node == own);
            let kept = replicas.flat_map(|replica| [replica.complete, replica.mapped]).flatten();
            roots.extend(kept.map(|kept| kept.contents.root));
            roots.extend(volume.sources.iter().filter(|source| source.node == own).map(|source| source.root));
            let unsettled = volume.superseded.iter().filter(|past| past.owner == own && !past.is_settled);
            roots.extend(unsettled.map(|past| past.published.root));
            let snapshots = volume.snapshots.values().filter(|snapshot| volume.is_held_by(snapshot, own));
            roots.extend(snapshots.map(|snapshot| snapshot.root));
        }
        roots.sort_unstable();
        roots.dedup();
        roots
    }

    /// How many roots are held because they are being read.
    #[cfg(feature = "simulation")]
    pub(super) fn held_roots(&self) -> usize {
        self.held().len()
    }

    fn held(&self) -> std::sync::MutexGuard<'_, BTreeMap<Root, usize>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A root that is being read. See [`Node::hold_root`].
#[derive(Debug)]
pub(super) struct HeldRoot {
    node: Arc<Node>,
    root: Root,
}

impl Drop for HeldRoot {
    fn drop(&mut self) {
        let mut held = self.node.held();
        if let Some(count) = held.get_mut(&self.root) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.root);
            }
        }
    }
}

/// What the engine has to know of a volume to open it in the epoch that the metadata says; `None` for a format that this program does not know.
pub(super) fn spec_of(volume: &VolumeEntry) -> Option<VolumeSpec> {
    Some(VolumeSpec {
        id: volume.id,
        size: volume.size,
        epoch: volume.epoch,
        root: volume.published.root,
        generation: volume.published.generation.0,
        written_blocks: volume.published.written_blocks,
        chunking: ChunkingParameters::decode(volume.format.0.to_le_bytes()).ok()?,
        reclaimed: volume.reclaimed,
    })
}

/// The number under which the metadata keeps how a volume is cut into chunks.
pub(super) fn format_of(chunking: &ChunkingParameters) -> VolumeFormat {
    VolumeFormat(u32::from_le_bytes(chunking.encode()))
}

/// Refuses metadata and data directory of different nodes: somebody has mixed up two copies.
fn check_identity(metadata: &Metadata, identity: &Identity, root: &Path) -> Result<()> {
    let Identity { cluster, node, site } = identity;
    let is_known = metadata.nodes().any(|known| known.name == *node && known.site == *site);
    if metadata.cluster().is_none_or(|known| known.id != *cluster) || !is_known {
        bail!(
            "the metadata in {root} is not that of node {node} at {site} in cluster {cluster}, whose directory it is: \
             restore both from one copy",
            root = root.display()
        );
    }
    Ok(())
}

/// Removes what is kept of volumes that the metadata has deleted: the node was killed between the two.
fn remove_deleted(engine: &Engine, metadata: &Metadata) -> Result<()> {
    let is_known = |id: &VolumeId| metadata.volume(*id).is_some();
    for id in engine.storage.known_volumes()?.into_iter().filter(|id| !is_known(id)) {
        tracing::info!(volume = %id, "removing what is left of a deleted volume");
        engine.storage.remove_deleted(id).with_context(|| format!("cannot remove what is left of volume {id}"))?;
    }
    let importing = metadata.volumes().filter(|volume| volume.state == VolumeState::Importing);
    for volume in importing {
        tracing::info!(volume = %volume.name, "an import was interrupted: repeat it, or delete the volume");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volumes_format_is_how_it_is_cut() {
        // Volumes are written with this number: it may never change.
        assert_eq!(format_of(&ChunkingParameters::default()), VolumeFormat(0x2008_0201));
    }
}
