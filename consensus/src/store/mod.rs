//! Raft's log, its vote and the snapshots of the metadata, in a RocksDB of their own; in a simulation, in a simulated one.
//!
//! From the bottom up:
//! * `format`: the file that says whose directory this is and in which version it is written;
//! * `database`: RocksDB, or what stands for it in a simulation, with the few guarantees that we need of it;
//! * `record`: how entries, votes and snapshots are written down;
//! * `contents`: what a snapshot holds; `recent`: the last entries, in memory;
//! * `snapshots`: one snapshot in pieces, replaced in one step;
//! * `log`: the log and the vote, as openraft wants them; `machine`: the state machine likewise;
//! * `read_only`: the newest metadata without Raft, for salvage.
//!
//! Order, on which Raft's promises rest:
//! 1. a vote, and each entry, is synced to the disk before openraft is told that it is there;
//! 2. what is committed is applied in memory, and how far that went is noted without a sync: it is only a shortcut;
//! 3. from time to time a snapshot of the applied state is written and synced; only then is the log before it dropped.
//!
//! What `open` does after a crash: it takes the last snapshot, applies the log up to the noted commit, and leaves the rest to
//! Raft, which finds out whether it was committed. In a group of one it was.
//!
//! After a write that failed nothing is written any more: what is on the disk then is unknown until it has been opened anew.

mod contents;
mod database;
#[cfg(test)]
mod fixture_tests;
mod format;
#[cfg(feature = "rehearsal")]
mod lay_out;
mod log;
mod machine;
mod read_only;
mod recent;
pub(crate) mod record;
mod snapshots;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sterna_types::NodeId;
use tokio::sync::watch;

#[cfg(feature = "rehearsal")]
pub(crate) use contents::{decode as decode_snapshot, encode as encode_snapshot};
pub(crate) use database::Database;
#[cfg(feature = "simulation")]
pub use database::SimulatedDatabase;
#[cfg(feature = "simulation")]
pub(crate) use database::put as put_simulated;
#[cfg(feature = "rehearsal")]
pub(crate) use lay_out::lay_out;
pub(crate) use log::LogStore;
pub(crate) use machine::StateMachine;
pub use read_only::FoundMetadata;
pub(crate) use read_only::read_only;
pub(crate) use record::to_json;

use crate::raft::LogId;
use crate::state::Metadata;
use database::{Batch, Column, Sync};

/// What is in a metadata directory, opened.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) database: Arc<Database>,
    /// The node whose directory it is; `None` if it has not been told yet.
    pub(crate) node: Option<NodeId>,
    pub(crate) log: LogStore,
    pub(crate) machine: StateMachine,
    /// The metadata as far as it has been applied.
    pub(crate) view: watch::Receiver<Arc<Metadata>>,
}

/// Whether a directory may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Absent {
    /// It is made where it is not there.
    Create,
    /// It has to be there.
    Refuse,
}

impl Store {
    /// Opens the metadata in `dir`. Blocks.
    ///
    /// # Errors
    /// [`StoreError`]; [`StoreError::NewerFormat`] and [`StoreError::NotThere`] have changed nothing.
    pub(crate) fn open(dir: &Path, absent: Absent) -> Result<Self, StoreError> {
        Self::on(Database::open(dir, absent)?)
    }

    fn on(database: Database) -> Result<Self, StoreError> {
        let database = Arc::new(database);
        let node = database.get(Column::Meta, NODE_KEY)?;
        let node = node.map(|json| record::from_json(database.dir(), "the node's id", &json));
        let log = LogStore::open(Arc::clone(&database))?;
        let (machine, view) = StateMachine::open(Arc::clone(&database))?;
        Ok(Self { node: node.transpose()?, database, log, machine, view })
    }

    /// Notes whose directory this is. Durable on return. Blocks.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) fn set_node(&mut self, node: NodeId) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        batch.put(Column::Meta, NODE_KEY, record::to_json(&node));
        self.database.write(batch, Sync::Durable)?;
        self.node = Some(node);
        Ok(())
    }
}

/// Why the metadata on the disk cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// There is no such directory, or it is empty.
    #[error("there is no metadata in {dir}", dir = dir.display())]
    NotThere {
        /// The directory.
        dir: PathBuf,
    },
    /// Another process has it open.
    #[error("the metadata in {dir} is in use by another process", dir = dir.display())]
    InUse {
        /// The directory.
        dir: PathBuf,
    },
    /// A later version of the program wrote it.
    #[error(
        "the metadata in {dir} has format {found}; this program knows formats up to {known}: use the version that wrote it, or a later one",
        dir = dir.display()
    )]
    NewerFormat {
        /// The directory.
        dir: PathBuf,
        /// What it has.
        found: u32,
        /// What we know.
        known: u32,
    },
    /// What is there is not what was written.
    #[error("the metadata in {dir} is damaged: {what}", dir = dir.display())]
    Damaged {
        /// The directory.
        dir: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The file system refused.
    #[error("the metadata in {dir}: {source}", dir = dir.display())]
    Io {
        /// The directory.
        dir: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// The database refused.
    #[error("the metadata in {dir}: the database says: {what}", dir = dir.display())]
    Database {
        /// The directory.
        dir: PathBuf,
        /// What it said.
        what: String,
    },
    /// A write has failed before.
    #[error("the metadata in {dir}: an earlier write failed; stop the node and start it anew to go on from what is durable", dir = dir.display())]
    Poisoned {
        /// The directory.
        dir: PathBuf,
    },
}

/// Runs something that waits for a disk where it is in nobody's way.
async fn blocking<T: Send + 'static>(
    database: &Arc<Database>,
    run: impl FnOnce(&Database) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let own = Arc::clone(database);
    match sterna_runtime::work::blocking(move || run(&own)).await {
        Ok(result) => result,
        Err(error) => Err(StoreError::Io { dir: database.dir().to_owned(), source: io::Error::other(error) }),
    }
}

/// `index 7 of term 2`, for what is said about an entry.
fn place(id: &LogId) -> String {
    format!("entry {} of term {}", id.index, id.leader_id.term)
}

/// Which node this is.
const NODE_KEY: &[u8] = b"node";
