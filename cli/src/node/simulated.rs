//! A node in a simulation: on a simulated disk, with simulated metadata, in a simulated network; what it does is the product's.
//!
//! What it does not have are the sockets of its machine, so its clients are given devices, and administrators' calls are made
//! directly; and the renewal of its certificate, because no run lasts so long.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use sterna_consensus::state::command::{Admission, Bootstrap, Command, NewToken};
use sterna_consensus::state::outcome::Outcome;
use sterna_consensus::state::token::Digest;
use sterna_consensus::state::volume::UnixTime;
use sterna_consensus::{Metadata, MetadataConfig, MetadataNode};
use sterna_migrator::token::Demand;
use sterna_nbd_server::Client;
use sterna_runtime::chance;
use sterna_storage_node::chunk_store::index::Index;
use sterna_storage_node::chunk_store::{ChunkKind, PackStoreOptions};
use sterna_storage_node::disk::Disk;
use sterna_storage_node::map;
use sterna_storage_node::volume::StorageOptions;
use sterna_transport::{Authority, Credentials, Listener, PrivateKey, Subject, Tls};
use sterna_types::{BlockDevice, ClusterId, NodeId, NodeName, Root, SiteName, TokenId};
use tokio::runtime::Handle;

use super::admin::direct;
use super::background::Background;
use super::catalog::{Attached, VolumeCatalog};
use super::config::ClusterConfig;
use super::duties::Duties;
use super::format::Identity;
use super::nbd_access::AccessList;
use super::node::{Foundations, Node};
use super::peers;
use super::session::Session;
use super::storage::Engine;

/// Which node it is.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its cluster.
    pub cluster: ClusterId,
    /// Its name.
    pub name: NodeName,
    /// Its site.
    pub site: SiteName,
    /// Where it listens to other nodes, and where they find it.
    pub address: SocketAddr,
    /// What its metadata is called (`sterna_consensus::simulation`).
    pub metadata: PathBuf,
}

/// What it runs on.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Its files.
    pub disk: Arc<dyn Disk>,
    /// Its index.
    pub index: Arc<dyn Index>,
    /// Bounds of its engine.
    pub storage: StorageOptions,
    /// Bounds of its packs.
    pub packs: PackStoreOptions,
    /// How patient its part in Raft is.
    pub raft: MetadataConfig,
}

/// Who the nodes of a cluster are to one another.
#[derive(Debug)]
pub struct Certificates(Authority);

/// A node that runs.
pub struct SimulatedNode {
    node: Arc<Node>,
    catalog: Arc<VolumeCatalog>,
    duties: Duties,
}

/// What a failover says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailedOver {
    /// The epoch that it began; 0 where it did nothing.
    pub epoch: u64,
    /// What was published, and is lost.
    pub lost_bytes: u64,
    /// Whether who goes on was in sync, and has every flush that was acknowledged.
    pub is_in_sync: bool,
}

/// What a node holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holding {
    /// Chunks, whoever needs them.
    pub chunks: u64,
    /// Those of them that what it keeps of volumes refers to, or the volumes and snapshots that the metadata names.
    pub needed_chunks: u64,
    /// How many roots are held because they are being read.
    pub held_roots: usize,
    /// Of how many volumes it keeps anything of its own.
    pub volumes: usize,
}

/// What can be asked of a node that runs. Clones are the same one.
#[derive(Clone)]
pub struct NodeHandle {
    node: Arc<Node>,
    catalog: Arc<VolumeCatalog>,
}

impl Certificates {
    /// Of a new authority.
    ///
    /// # Errors
    /// What making it says.
    pub fn new(cluster: ClusterId) -> Result<Self> {
        Ok(Self(Authority::create(cluster)?))
    }

    /// Who a node is.
    ///
    /// # Errors
    /// What signing says.
    pub fn of(&self, node: NodeId) -> Result<Tls> {
        let key = PrivateKey::generate()?;
        let lifetime = ClusterConfig::default().certificate_lifetime;
        let certificate = self.0.sign(&key.request()?, &Subject::Node(node), lifetime)?;
        Ok(Tls::new(Credentials::new(key, certificate, vec![self.0.certificate().clone()])?)?)
    }
}

/// The metadata of a new cluster, with the node of this place as its first. Durable on return.
///
/// # Errors
/// What the metadata says.
pub async fn begin_cluster(place: &Place, raft: MetadataConfig) -> Result<()> {
    let Place { cluster, name, site, address, metadata } = place.clone();
    let bootstrap = Bootstrap { cluster, site, node: name, address: Some(address) };
    MetadataNode::bootstrap(&metadata, raft, bootstrap).await?.shutdown().await;
    Ok(())
}

/// The metadata of a node that a cluster has let in under this id. Durable on return.
///
/// # Errors
/// What the metadata says.
pub async fn prepare(place: &Place, node: NodeId) -> Result<()> {
    Ok(MetadataNode::prepare(&place.metadata, node).await?)
}

impl SimulatedNode {
    /// Starts the node that is at a place, or is to be, on this machine.
    ///
    /// # Errors
    /// What is damaged or missing.
    pub async fn start(place: &Place, machine: Machine, tls: Tls) -> Result<Self> {
        let Machine { disk, index, storage, packs, raft } = machine;
        let metadata = MetadataNode::open(&place.metadata, raft, Some(tls.clone())).await?;
        let engine = match Engine::on(disk, index, storage, packs) {
            Ok(engine) => engine,
            Err(error) => {
                metadata.shutdown().await;
                return Err(error);
            }
        };
        let Place { cluster, name, site, address, .. } = place.clone();
        let node = Node::on(Foundations {
            identity: Identity { cluster, node: name, site },
            directory: place.metadata.clone(),
            metadata,
            tls,
            certificate_lifetime: ClusterConfig::default().certificate_lifetime,
            engine,
            seals_at_once: 1,
            background: Background::on(&Handle::current()),
            bucket: None,
            migrator: None,
            tokens: Demand::default(),
            lock: None,
        });
        let listener = Listener::start_simulated(address, peers::listener(&node)).await;
        let listener = listener.context("cannot listen to other nodes")?;
        let session = Session::keep(&node, Some(address));
        let catalog = Arc::new(VolumeCatalog::new(Arc::clone(&node), session.news(), AccessList::default()));
        let duties = Duties::start(&node, session, Some(listener), |routes| routes);
        Ok(Self { node, catalog, duties })
    }

    /// What can be asked of it.
    pub fn handle(&self) -> NodeHandle {
        NodeHandle { node: Arc::clone(&self.node), catalog: Arc::clone(&self.catalog) }
    }

    /// Waits until a part of it has ended by itself, and says why.
    ///
    /// # Cancel safety
    /// May be dropped at any time.
    pub async fn ended(&mut self) -> anyhow::Error {
        self.duties.ended().await
    }

    /// Ends it in good order, as SIGTERM does.
    pub async fn shutdown(self) {
        self.duties.drain(std::future::ready(())).await;
    }
}

impl NodeHandle {
    /// The metadata as this node knows it.
    pub fn metadata(&self) -> Arc<Metadata> {
        self.node.metadata.read()
    }

    /// The metadata with all that was decided before.
    ///
    /// # Errors
    /// Nobody leads, or it cannot be reached.
    pub async fn linearizable(&self) -> Result<Arc<Metadata>> {
        Ok(self.node.metadata.linearizable().await?)
    }

    /// Has a cluster let the node of this place in; its id.
    ///
    /// # Errors
    /// Why not.
    pub async fn admit(&self, place: &Place) -> Result<NodeId> {
        let secret = Digest([7; 32]);
        let (at, expires) = (UnixTime { unix_ms: 0 }, UnixTime { unix_ms: u64::MAX });
        let id = TokenId(u64::from_le_bytes(chance::bytes()?));
        let metadata = &self.node.metadata;
        metadata.propose(Command::CreateToken(NewToken { id, secret, at, expires, site: None })).await?;
        let admission = Admission {
            token: id,
            secret,
            at,
            knows: metadata.knows(),
            key: Digest(chance::bytes()?),
            name: place.name.clone(),
            site: place.site.clone(),
            address: place.address,
        };
        match metadata.propose(Command::AdmitNode(admission)).await? {
            Outcome::Admitted { node } => Ok(node),
            other => anyhow::bail!("an admission has the outcome {other:?}"),
        }
    }

    /// Has a command carried out that no call of an administrator is for.
    ///
    /// # Errors
    /// Why it was not.
    pub async fn propose(&self, command: Command) -> Result<Outcome> {
        Ok(self.node.metadata.propose(command).await?)
    }

    /// The volume as a client of this machine has it; `None` where this node does not serve it.
    pub async fn attach(&self, volume: &str) -> Option<Arc<dyn BlockDevice>> {
        match self.catalog.attach(&Client::Local, &volume.parse().ok()?).await? {
            Attached::Owned(export) => Some(export.device),
            Attached::Standby(_) => None,
        }
    }

    /// `sterna volume create --durability DURABILITY`.
    ///
    /// # Errors
    /// Why not.
    pub async fn create_volume(&self, name: &str, size_bytes: u64, durability: &str) -> Result<()> {
        Ok(direct::create(&self.node, name, size_bytes, durability).await?)
    }

    /// `sterna volume replica NAME set SITE MODE`.
    ///
    /// # Errors
    /// Why not.
    pub async fn set_replica(&self, volume: &str, site: &str, mode: &str) -> Result<()> {
        Ok(direct::set_replica(&self.node, volume, site, mode).await?)
    }

    /// `sterna volume set NAME --limit RATE`.
    ///
    /// # Errors
    /// Why not.
    pub async fn set_limit(&self, volume: &str, limit: &str) -> Result<()> {
        Ok(direct::set_limit(&self.node, volume, limit).await?)
    }

    /// `sterna volume failover NAME --to SITE --accept-loss`.
    ///
    /// # Errors
    /// Why it was not carried out, as far as is known.
    pub async fn fail_over(&self, volume: &str, site: &str) -> Result<FailedOver> {
        let reply = direct::fail_over(&self.node, volume, site).await?;
        Ok(FailedOver { epoch: reply.epoch, lost_bytes: reply.lost_bytes, is_in_sync: reply.is_in_sync })
    }

    /// `sterna volume move NAME --to SITE --require REQUIREMENT`: the epoch that has begun.
    ///
    /// # Errors
    /// Why it was not carried out, as far as is known.
    pub async fn move_volume(&self, volume: &str, site: &str, require: &str) -> Result<u64> {
        Ok(direct::move_volume(&self.node, volume, site, require).await?)
    }

    /// `sterna volume snapshot VOLUME NAME`.
    ///
    /// # Errors
    /// Why not, as far as is known.
    pub async fn snapshot(&self, volume: &str, name: &str) -> Result<()> {
        Ok(direct::snapshot(&self.node, volume, name).await?)
    }

    /// `sterna volume delete VOLUME@NAME`.
    ///
    /// # Errors
    /// Why not, as far as is known.
    pub async fn delete_snapshot(&self, volume: &str, name: &str) -> Result<()> {
        Ok(direct::delete_snapshot(&self.node, volume, name).await?)
    }

    /// `sterna volume delete NAME --with-snapshots`.
    ///
    /// # Errors
    /// Why not, as far as is known.
    pub async fn delete_volume(&self, name: &str) -> Result<()> {
        Ok(direct::delete_volume(&self.node, name).await?)
    }

    /// `sterna gc`.
    ///
    /// # Errors
    /// Why not; what it has freed by then stays free.
    pub async fn collect(&self) -> Result<()> {
        Ok(direct::collect(&self.node).await?)
    }

    /// What it holds now. Follows every reference by itself, not as a collection does.
    ///
    /// # Errors
    /// What cannot be read.
    pub fn holding(&self) -> Result<Holding> {
        let storage = &self.node.engine.storage;
        let mut needed = HashSet::new();
        let mut open = Vec::new();
        for record in storage.sealed()?.into_values() {
            open.extend(record.root.top().map(|top| (ChunkKind::Node, top)));
            needed.extend(record.checkpoint);
        }
        for volume in self.metadata().volumes() {
            let snapshots = volume.snapshots.values().map(|snapshot| snapshot.root);
            let roots = snapshots.chain([volume.published.root]);
            open.extend(roots.filter_map(Root::top).map(|top| (ChunkKind::Node, top)));
        }
        while let Some((kind, id)) = open.pop() {
            if needed.contains(&id) {
                continue;
            }
            // Of what the metadata names, a site may have nothing yet.
            let Some(bytes) = storage.store().get(id)? else { continue };
            needed.insert(id);
            let below = match kind {
                ChunkKind::Node => map::kind_of_children(&map::Node::decode(&bytes)?),
                ChunkKind::Manifest | ChunkKind::Data | ChunkKind::Checkpoint => ChunkKind::Data,
            };
            open.extend(map::children(kind, &bytes)?.into_iter().map(|child| (below, child)));
        }
        let (chunks, volumes) = (self.node.engine.store.stats()?.chunks, storage.known_volumes()?.len());
        let (needed_chunks, held_roots) = (needed.len() as u64, self.node.held_roots());
        Ok(Holding { chunks, needed_chunks, held_roots, volumes })
    }

    /// The contents of a snapshot that is here (`NAME@SNAPSHOT`).
    ///
    /// # Errors
    /// Why they cannot be read.
    pub async fn export(&self, source: &str) -> Result<Vec<u8>> {
        Ok(direct::export(&self.node, source).await?)
    }
}
