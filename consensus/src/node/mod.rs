//! This node's part in the metadata: what the rest of the program sees of Raft and its storage.
//!
//! How metadata comes to be (`node init --bootstrap`):
//! 1. the directory and the empty database are made;
//! 2. the node's id is noted in it;
//! 3. Raft begins with a group of this one node;
//! 4. [`Command::Bootstrap`] is committed.
//!
//! What `open` does after a crash: before 4 it says that there is no metadata, and [`MetadataNode::bootstrap`] goes on from
//! where it was; after 4 the metadata is there.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use openraft::error::RaftError;
use openraft::network::RaftNetworkFactory;
use sterna_proto::node::metadata_server::MetadataServer;
use sterna_proto::node::raft_server::RaftServer;
use sterna_transport::{Channels, Tls};
use sterna_types::NodeId;
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::JoinHandle;
use tonic::codec::CompressionEncoding;
use tonic::service::Routes;

mod config;
mod error;
#[cfg(test)]
mod group_tests;
mod held;
mod leader;
mod leadership;
mod others;
mod overdue;
#[cfg(feature = "rehearsal")]
mod pretended;
mod proposer;
mod requests;
mod service;
#[cfg(test)]
mod tests;

pub use config::{InvalidConfig, MetadataConfig};
pub use error::{Ending, OpenError, ProposeError, ReadError};
#[cfg(feature = "rehearsal")]
pub(crate) use held::time_to_hold;
pub use others::{PingError, Pong, link_to};

use leader::Leader;
use leadership::Leadership;
use others::links;
use proposer::{Proposal, Proposer};
use service::MetadataService;

use crate::callers::Callers;
use crate::limits::{LONE_ELECTION_TIMEOUT, MAX_MESSAGE_BYTES};
use crate::raft::network::NoNetwork;
use crate::raft::peers::Peers;
use crate::raft::service::RaftService;
use crate::raft::{Fatal, Raft, TypeConfig};
use crate::state::Metadata;
use crate::state::cluster::MetadataVersion;
use crate::state::command::{Bootstrap, Command};
use crate::store::{Absent, Store, StoreError};

/// This node's part in the metadata, running.
///
/// Invariants:
/// * an answer to a proposal is given after it is durable on a majority of the voters, and this node's view has it;
/// * the view moves forward only.
///
/// ```
/// # let runtime = tokio::runtime::Builder::new_multi_thread().enable_time().build()?;
/// # runtime.block_on(async {
/// # let temp = tempfile::tempdir()?;
/// # let dir = temp.path().join("metadata");
/// use sterna_consensus::state::command::Bootstrap;
/// use sterna_consensus::{MetadataConfig, MetadataNode};
/// use sterna_types::ClusterId;
///
/// let cluster = ClusterId::from_bytes([7; 16]);
/// let bootstrap = Bootstrap { cluster, site: "ams".parse()?, node: "ams-1".parse()?, address: None };
/// let metadata = MetadataNode::bootstrap(&dir, MetadataConfig::default(), bootstrap).await?;
/// metadata.shutdown().await;
///
/// let metadata = MetadataNode::open(&dir, MetadataConfig::default(), None).await?;
/// assert_eq!(metadata.read().cluster().map(|cluster| cluster.id), Some(cluster));
/// metadata.shutdown().await;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct MetadataNode {
    dir: PathBuf,
    id: NodeId,
    raft: Raft,
    view: watch::Receiver<Arc<Metadata>>,
    proposals: mpsc::Sender<Proposal>,
    way_to_leader: Leader,
    channels: Option<Channels>,
    patience: Duration,
    knows: MetadataVersion,
    /// The proposer, and what this node does when it leads; taken by the first to shut down.
    tasks: Mutex<Option<Tasks>>,
    /// Ends once the database is closed.
    closed: watch::Receiver<()>,
    #[cfg(test)]
    database: std::sync::Weak<crate::store::Database>,
}

/// What runs beside Raft.
struct Tasks {
    proposer: JoinHandle<()>,
    leadership: JoinHandle<()>,
}

impl MetadataNode {
    /// Makes the metadata of a new cluster in `dir`, with this node as its only one, and runs it. Durable on return.
    ///
    /// # Errors
    /// [`OpenError::AlreadyInitialised`] where there is metadata already; it is as it was. After any other error the same may
    /// be tried again.
    ///
    /// # Cancel safety
    /// Dropped halfway, it may be tried again.
    pub async fn bootstrap(dir: &Path, config: MetadataConfig, bootstrap: Bootstrap) -> Result<Self, OpenError> {
        let mut store = open_store(dir, Absent::Create).await?;
        if store.node.is_none() {
            store = on_disk(dir, move || store.set_node(NodeId::FIRST).map(|()| store)).await?;
        }
        let node = Self::start(dir, config, store, NoNetwork, None).await?;
        let begun = node.begin(bootstrap).await;
        match begun {
            Ok(()) => Ok(node),
            Err(error) => {
                node.shutdown().await;
                Err(error)
            }
        }
    }

    /// Makes the place for the metadata of a node that has just been let into a cluster. It is empty; the node that leads
    /// fills it once this one runs. Durable on return.
    ///
    /// # Errors
    /// [`OpenError::AlreadyInitialised`] where another node's metadata is there.
    ///
    /// # Cancel safety
    /// Dropped halfway, it may be tried again.
    pub async fn prepare(dir: &Path, node: NodeId) -> Result<(), OpenError> {
        let mut store = open_store(dir, Absent::Create).await?;
        if let Some(found) = store.node.filter(|found| *found != node) {
            return Err(OpenError::OtherNode { dir: dir.to_owned(), found, expected: node });
        }
        on_disk(dir, move || store.set_node(node)).await
    }

    /// Opens the metadata in `dir` and runs this node's part. A node that is a group of its own leads it on return, and its
    /// view has all that was ever acknowledged; another one catches up behind. Other nodes are reached by `tls`, at the
    /// addresses that the metadata says; a node without it is alone.
    ///
    /// # Errors
    /// [`OpenError`].
    ///
    /// # Cancel safety
    /// Dropped halfway, it may be tried again.
    pub async fn open(dir: &Path, config: MetadataConfig, tls: Option<Tls>) -> Result<Self, OpenError> {
        let store = open_store(dir, Absent::Refuse).await?;
        let Some(id) = store.node else {
            return Err(OpenError::NotInitialised { dir: dir.to_owned() });
        };
        let (view, peers_view, links) = (store.view.clone(), store.view.clone(), links(store.view.clone()));
        let address = move |node: NodeId| view.borrow().node(node).and_then(|node| node.address);
        let node = match tls.map(|tls| Channels::new(tls, address).with_links(links)) {
            Some(channels) => {
                Self::start(dir, config, store, Peers::new(channels.clone(), peers_view), Some(channels)).await?
            }
            None => Self::start(dir, config, store, NoNetwork, None).await?,
        };
        let opened = match node.raft.is_initialized().await {
            Ok(true) => node.lead_alone().await,
            // It was let in, and nobody has told it anything yet.
            Ok(false) if id != NodeId::FIRST => return Ok(node),
            Ok(false) => Err(OpenError::NotInitialised { dir: dir.to_owned() }),
            Err(fatal) => Err(node.failed_to_open(&fatal)),
        };
        node.opened(opened).await
    }

    /// This node, if it was opened and there is metadata.
    async fn opened(self, opened: Result<(), OpenError>) -> Result<Self, OpenError> {
        let begun = opened.and_then(|()| match self.read().cluster() {
            None if self.id == NodeId::FIRST => Err(OpenError::NotInitialised { dir: self.dir.clone() }),
            _ => Ok(()),
        });
        match begun {
            Ok(()) => Ok(self),
            Err(error) => {
                self.shutdown().await;
                Err(error)
            }
        }
    }

    /// What this node answers other nodes, for the server that listens to them. They see nothing of it before it is served.
    pub fn routes(&self) -> Routes {
        let callers = Arc::new(Callers::new(self.id, self.view.clone()));
        let raft = RaftServer::new(RaftService::new(self.raft.clone(), Arc::clone(&callers)))
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .accept_compressed(CompressionEncoding::Zstd)
            .send_compressed(CompressionEncoding::Zstd);
        let metadata = MetadataService::new(self.raft.clone(), self.proposals.clone(), callers);
        let metadata = MetadataServer::new(metadata)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .accept_compressed(CompressionEncoding::Zstd)
            .send_compressed(CompressionEncoding::Zstd);
        Routes::new(raft).add_service(metadata)
    }

    /// The node that a request comes from, for whatever else this node answers to the others.
    ///
    /// # Errors
    /// PERMISSION_DENIED for everybody who is not a node of the cluster.
    pub fn caller<T>(&self, request: &tonic::Request<T>) -> Result<NodeId, tonic::Status> {
        Callers::new(self.id, self.view.clone()).node(request)
    }

    /// This node's id.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// The metadata as far as this node has applied it, at once and all of one moment. It may lag behind what the group has
    /// decided, but has all that this node's own proposals were answered with.
    pub fn read(&self) -> Arc<Metadata> {
        Arc::clone(&self.view.borrow())
    }

    /// Shows each change of what [`MetadataNode::read`] returns; changes that come fast are shown as one.
    pub fn watch(&self) -> watch::Receiver<Arc<Metadata>> {
        self.view.clone()
    }

    /// Waits until this node's part has ended, and says how. Until then it is alive.
    ///
    /// # Cancel safety
    /// May be dropped at any time.
    pub async fn ended(&self) -> Ending {
        let mut metrics = self.raft.metrics();
        loop {
            match &metrics.borrow_and_update().running_state {
                Ok(()) => {}
                Err(Fatal::Stopped) => return Ending::ShutDown,
                Err(fatal) => return Ending::Failed { what: fatal.to_string() },
            }
            if metrics.changed().await.is_err() {
                return Ending::Failed { what: "its task is gone".to_owned() };
            }
        }
    }

    /// Ends this node's part. On return the directory is closed and may be opened anew. Proposals that were on their way are
    /// answered with an error.
    ///
    /// # Cancel safety
    /// Dropped halfway, it may be called again.
    pub async fn shutdown(&self) {
        let tasks = self.tasks.lock().await.take();
        if let Some(tasks) = &tasks {
            // Whoever leads next does what is left to do.
            tasks.leadership.abort();
        }
        if let Err(error) = self.raft.shutdown().await {
            tracing::error!(%error, "the metadata's task did not end in order");
        }
        if let Some(tasks) = tasks {
            tasks.proposer.abort();
        }
        let mut closed = self.closed.clone();
        while closed.changed().await.is_ok() {}
    }

    /// Runs Raft on what is in the store, over a network.
    async fn start(
        dir: &Path,
        config: MetadataConfig,
        store: Store,
        network: impl RaftNetworkFactory<TypeConfig>,
        channels: Option<Channels>,
    ) -> Result<Self, OpenError> {
        let id = store.node.unwrap_or(NodeId::FIRST);
        let MetadataConfig { patience, heartbeat, knows, .. } = config;
        let config = Arc::new(config.for_raft("sterna".to_owned())?);
        let Store { database, log, machine, view, .. } = store;
        let closed = database.closed();
        #[cfg(test)]
        let weak = Arc::downgrade(&database);
        drop(database);
        let started = Raft::new(id.0, config, network, log, machine).await;
        let raft = started.map_err(|fatal| failed_to_open(dir, &fatal))?;
        let leader = Leader::new(channels.clone());
        let (proposer, proposals) = Proposer::new(raft.clone(), id, leader.clone(), view.clone(), heartbeat);
        let leadership = Leadership::new(id, knows, raft.clone(), view.clone(), proposals.clone());
        let tasks = Tasks { proposer: tokio::spawn(proposer.run()), leadership: tokio::spawn(leadership.run()) };
        Ok(Self {
            dir: dir.to_owned(),
            id,
            raft,
            view,
            proposals,
            way_to_leader: leader,
            channels,
            patience,
            knows,
            tasks: Mutex::new(Some(tasks)),
            closed,
            #[cfg(test)]
            database: weak,
        })
    }

    /// Steps 3 and 4 of the way in which metadata comes to be.
    async fn begin(&self, bootstrap: Bootstrap) -> Result<(), OpenError> {
        let failed = |what: String| OpenError::Failed { dir: self.dir.clone(), what };
        let initialised = self.raft.is_initialized().await.map_err(|fatal| self.failed_to_open(&fatal))?;
        if !initialised {
            let members = BTreeSet::from([self.id.0]);
            self.raft.initialize(members).await.map_err(|error| failed(error.to_string()))?;
        }
        self.lead_alone().await?;
        if let Some(cluster) = self.read().cluster() {
            return Err(OpenError::AlreadyInitialised { dir: self.dir.clone(), cluster: cluster.id });
        }
        self.propose(Command::Bootstrap(bootstrap)).await.map_err(|error| failed(error.to_string()))?;
        // Whoever leads does it too, a moment later, and until then a new cluster would refuse what is newer.
        let raised = self.propose(Command::RaiseVersion { version: self.knows }).await;
        raised.map(drop).map_err(|error| failed(error.to_string()))
    }

    /// Where this node is the only voter: makes it the leader at once, because nobody else could be, and waits until it has
    /// applied all of its log. Elsewhere elections take their course.
    async fn lead_alone(&self) -> Result<(), OpenError> {
        let alone =
            self.raft.with_raft_state(|state| state.membership_state.effective().voter_ids().collect::<Vec<_>>());
        let alone = alone.await.map_err(|fatal| self.failed_to_open(&fatal))? == [self.id.0];
        if !alone {
            return Ok(());
        }
        self.raft.trigger().elect().await.map_err(|fatal| self.failed_to_open(&fatal))?;
        // An election by oneself is over in one write; it is asked for once, and looked for often.
        let elected = async {
            loop {
                match self.raft.ensure_linearizable().await {
                    Ok(_) => return Ok(()),
                    Err(RaftError::APIError(_)) => tokio::time::sleep(LONE_ELECTION_PAUSE).await,
                    Err(RaftError::Fatal(_)) => return Err(self.ended().await),
                }
            }
        };
        match tokio::time::timeout(LONE_ELECTION_TIMEOUT, elected).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(ending)) => Err(OpenError::Failed { dir: self.dir.clone(), what: ending.to_string() }),
            Err(_) => {
                let what = format!("the disk of {} took too long for one small write", self.dir.display());
                Err(OpenError::Failed { dir: self.dir.clone(), what })
            }
        }
    }

    fn failed_to_open(&self, fatal: &Fatal) -> OpenError {
        failed_to_open(&self.dir, fatal)
    }
}

impl fmt::Debug for MetadataNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetadataNode").field("dir", &self.dir).field("id", &self.id).finish_non_exhaustive()
    }
}

/// Raft's reason; where that is the store, in the store's own words.
fn failed_to_open(dir: &Path, fatal: &Fatal) -> OpenError {
    OpenError::Failed { dir: dir.to_owned(), what: fatal.to_string() }
}

async fn open_store(dir: &Path, absent: Absent) -> Result<Store, OpenError> {
    let own = dir.to_owned();
    on_disk(dir, move || Store::open(&own, absent)).await
}

/// Runs something that waits for the disk.
async fn on_disk<T: Send + 'static>(
    dir: &Path,
    run: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, OpenError> {
    match sterna_runtime::work::blocking(run).await {
        Ok(result) => result.map_err(OpenError::from),
        Err(error) => Err(OpenError::Failed { dir: dir.to_owned(), what: error.to_string() }),
    }
}

/// Between two looks at an election that takes a few milliseconds.
const LONE_ELECTION_PAUSE: Duration = Duration::from_millis(1);
