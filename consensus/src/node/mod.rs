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

use openraft::error::{CheckIsLeaderError, RaftError};
use openraft::network::RaftNetworkFactory;
use sterna_types::NodeId;
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio::task::JoinHandle;

mod config;
mod error;
#[cfg(test)]
mod group_tests;
mod proposer;
#[cfg(test)]
mod tests;

pub use config::{InvalidConfig, MetadataConfig};
pub use error::{Ending, OpenError, ProposeError, ReadError};

use proposer::{Proposal, Proposer};

use crate::limits::LONE_ELECTION_TIMEOUT;
use crate::raft::network::NoNetwork;
use crate::raft::{Fatal, Raft, TypeConfig};
use crate::state::Metadata;
use crate::state::command::{Bootstrap, Command, Request, RequestId};
use crate::state::outcome::Outcome;
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
/// let metadata = MetadataNode::open(&dir, MetadataConfig::default()).await?;
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
    /// The proposer; taken by the first to shut down.
    proposer: Mutex<Option<JoinHandle<()>>>,
    /// Ends once the database is closed.
    closed: watch::Receiver<()>,
    #[cfg(test)]
    database: std::sync::Weak<crate::store::Database>,
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
        let node = Self::start(dir, config, store, NoNetwork).await?;
        let begun = node.begin(bootstrap).await;
        match begun {
            Ok(()) => Ok(node),
            Err(error) => {
                node.shutdown().await;
                Err(error)
            }
        }
    }

    /// Opens the metadata in `dir` and runs this node's part. A node that is a group of its own leads it on return, and its
    /// view has all that was ever acknowledged; another one catches up behind.
    ///
    /// # Errors
    /// [`OpenError`].
    ///
    /// # Cancel safety
    /// Dropped halfway, it may be tried again.
    pub async fn open(dir: &Path, config: MetadataConfig) -> Result<Self, OpenError> {
        let store = open_store(dir, Absent::Refuse).await?;
        if store.node.is_none() {
            return Err(OpenError::NotInitialised { dir: dir.to_owned() });
        }
        let node = Self::start(dir, config, store, NoNetwork).await?;
        let opened = match node.raft.is_initialized().await {
            Ok(true) => node.lead_alone().await,
            Ok(false) => Err(OpenError::NotInitialised { dir: dir.to_owned() }),
            Err(fatal) => Err(node.failed_to_open(&fatal)),
        };
        let begun = opened.and_then(|()| match node.read().cluster() {
            Some(_) => Ok(()),
            None => Err(OpenError::NotInitialised { dir: dir.to_owned() }),
        });
        match begun {
            Ok(()) => Ok(node),
            Err(error) => {
                node.shutdown().await;
                Err(error)
            }
        }
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

    /// The metadata with everything in it that was acknowledged to anybody before this call.
    ///
    /// # Errors
    /// [`ReadError`] where that cannot be said.
    ///
    /// # Cancel safety
    /// May be dropped at any time.
    pub async fn linearizable(&self) -> Result<Arc<Metadata>, ReadError> {
        match self.raft.ensure_linearizable().await {
            Ok(_) => Ok(self.read()),
            Err(RaftError::Fatal(fatal)) => Err(ReadError::Stopped { what: fatal.to_string() }),
            Err(RaftError::APIError(CheckIsLeaderError::ForwardToLeader(forward))) => {
                Err(ReadError::NotLeader { leader: forward.leader_id.map(NodeId) })
            }
            Err(RaftError::APIError(CheckIsLeaderError::QuorumNotEnough(_))) => {
                Err(ReadError::NotLeader { leader: None })
            }
        }
    }

    /// Has a command carried out. On return its outcome is durable on a majority of the voters, and in this node's view.
    ///
    /// # Errors
    /// [`ProposeError`], which tells a refusal from an outcome that is not known.
    ///
    /// # Cancel safety
    /// Dropped before its answer, the command may be carried out or not.
    pub async fn propose(&self, command: Command) -> Result<Outcome, ProposeError> {
        self.submit(Request { id: None, command }).await
    }

    /// As [`MetadataNode::propose`], for a command that must not be carried out twice: proposed again with the same `id`
    /// after its answer was lost, it is answered with the outcome of the first time.
    ///
    /// # Errors
    /// As [`MetadataNode::propose`].
    ///
    /// # Cancel safety
    /// As [`MetadataNode::propose`].
    pub async fn propose_once(&self, id: RequestId, command: Command) -> Result<Outcome, ProposeError> {
        self.submit(Request { id: Some(id), command }).await
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
        if let Err(error) = self.raft.shutdown().await {
            tracing::error!(%error, "the metadata's task did not end in order");
        }
        if let Some(proposer) = self.proposer.lock().await.take() {
            proposer.abort();
        }
        let mut closed = self.closed.clone();
        while closed.changed().await.is_ok() {}
    }

    async fn submit(&self, request: Request) -> Result<Outcome, ProposeError> {
        let (answer, answered) = oneshot::channel();
        let stopped = || ProposeError::Stopped { what: "it was shut down".to_owned() };
        self.proposals.send(Proposal { request, answer }).await.map_err(|_| stopped())?;
        let lost = |_| ProposeError::Unknown { what: "the metadata was shut down meanwhile".to_owned() };
        answered.await.map_err(lost)?
    }

    /// Runs Raft on what is in the store, over a network.
    async fn start(
        dir: &Path,
        config: MetadataConfig,
        store: Store,
        network: impl RaftNetworkFactory<TypeConfig>,
    ) -> Result<Self, OpenError> {
        let id = store.node.unwrap_or(NodeId::FIRST);
        let config = Arc::new(config.for_raft("sterna".to_owned())?);
        let Store { database, log, machine, view, .. } = store;
        let closed = database.closed();
        #[cfg(test)]
        let weak = Arc::downgrade(&database);
        drop(database);
        let started = Raft::new(id.0, config, network, log, machine).await;
        let raft = started.map_err(|fatal| failed_to_open(dir, &fatal))?;
        let (proposer, proposals) = Proposer::new(raft.clone(), id);
        let proposer = Mutex::new(Some(tokio::spawn(proposer.run())));
        Ok(Self {
            dir: dir.to_owned(),
            id,
            raft,
            view,
            proposals,
            proposer,
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
        let begun = self.propose(Command::Bootstrap(bootstrap)).await;
        begun.map(|_| ()).map_err(|error| failed(error.to_string()))
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
        let elected = async {
            // An election by oneself is over in one write; it is asked for once, and looked for often.
            while let Err(error) = self.linearizable().await {
                match error {
                    ReadError::NotLeader { .. } => tokio::time::sleep(LONE_ELECTION_PAUSE).await,
                    ReadError::Stopped { .. } => return Err(self.ended().await),
                }
            }
            Ok(())
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
    match tokio::task::spawn_blocking(run).await {
        Ok(result) => result.map_err(OpenError::from),
        Err(error) => Err(OpenError::Failed { dir: dir.to_owned(), what: error.to_string() }),
    }
}

/// Between two looks at an election that takes a few milliseconds.
const LONE_ELECTION_PAUSE: Duration = Duration::from_millis(1);
