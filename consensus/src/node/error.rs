//! What can go wrong with the metadata, as the rest of the program has to tell it apart.

use std::path::PathBuf;

use sterna_types::{ClusterId, NodeId};

use super::config::InvalidConfig;
use crate::state::refusal::Refusal;
use crate::store::StoreError;

/// Why the metadata could not be opened, or not be made. A message names the directory.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is none in the directory, or none that was ever completed.
    #[error("there is no metadata in {dir}: initialise the node first", dir = dir.display())]
    NotInitialised {
        /// The directory.
        dir: PathBuf,
    },
    /// There is some already, which was to be made.
    #[error("the metadata in {dir} belongs to cluster {cluster} already", dir = dir.display())]
    AlreadyInitialised {
        /// The directory.
        dir: PathBuf,
        /// The cluster.
        cluster: ClusterId,
    },
    /// It is that of another node.
    #[error("the metadata in {dir} is that of node {found}, not of node {expected}", dir = dir.display())]
    OtherNode {
        /// The directory.
        dir: PathBuf,
        /// Whose it is.
        found: NodeId,
        /// Whose it should be.
        expected: NodeId,
    },
    /// Another process has it open.
    #[error("the metadata in {dir} is in use by another process: stop that one first", dir = dir.display())]
    InUse {
        /// The directory.
        dir: PathBuf,
    },
    /// A later version of the program wrote it. Nothing was changed.
    #[error(
        "the metadata in {dir} has format {found}, and this program knows formats up to {known}: use the version that wrote it, or a later one",
        dir = dir.display()
    )]
    NewerFormat {
        /// The directory.
        dir: PathBuf,
        /// What it has.
        found: u32,
        /// What this program knows.
        known: u32,
    },
    /// What is there is not what was written.
    #[error("{what}: restore {dir} from a copy, or let the node join its cluster anew", dir = dir.display())]
    Damaged {
        /// The directory.
        dir: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The timeouts cannot work together.
    #[error(transparent)]
    Config(#[from] InvalidConfig),
    /// The disk, or what it takes to be a member, failed.
    #[error("{what}")]
    Failed {
        /// The directory.
        dir: PathBuf,
        /// What happened.
        what: String,
    },
}

impl From<StoreError> for OpenError {
    fn from(error: StoreError) -> Self {
        let what = error.to_string();
        match error {
            StoreError::NotThere { dir } => Self::NotInitialised { dir },
            StoreError::InUse { dir } => Self::InUse { dir },
            StoreError::NewerFormat { dir, found, known } => Self::NewerFormat { dir, found, known },
            StoreError::Damaged { dir, .. } => Self::Damaged { dir, what },
            StoreError::Io { dir, .. } | StoreError::Database { dir, .. } | StoreError::Poisoned { dir } => {
                Self::Failed { dir, what }
            }
        }
    }
}

/// What came of a proposal that was not carried out, or not known to be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// It was decided upon, and refused. Nothing has changed.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// This node does not lead; nothing was proposed.
    #[error("this node does not lead the metadata's group; {leads}", leads = leads(*leader))]
    NotLeader {
        /// Who does, if that is known.
        leader: Option<NodeId>,
    },
    /// The node that leads cannot be reached from this one; nothing was proposed.
    #[error("this node is cut off: it cannot reach node {leader}, which leads the metadata's group: {what}")]
    CutOff {
        /// Who leads, as far as this node knows.
        leader: NodeId,
        /// What happened.
        what: String,
    },
    /// The metadata is not running (any more); nothing was proposed.
    #[error("the metadata is not running: {what}")]
    Stopped {
        /// Why.
        what: String,
    },
    /// It may have been carried out, or may yet be: find out by a read, or propose it again with the same request id.
    #[error("it is not known whether this was carried out: {what}")]
    Unknown {
        /// What happened.
        what: String,
    },
}

/// Why it cannot be said what the metadata is now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// This node does not lead, or cannot reach enough others to be sure that it does.
    #[error("this node cannot answer for the metadata's group; {leads}", leads = leads(*leader))]
    NotLeader {
        /// Who does, if that is known.
        leader: Option<NodeId>,
    },
    /// The node that leads does not answer this one.
    #[error("this node is cut off: it cannot ask node {leader}, which leads the metadata's group: {what}")]
    CutOff {
        /// Who leads, as far as this node knows.
        leader: NodeId,
        /// What happened.
        what: String,
    },
    /// The metadata is not running (any more).
    #[error("the metadata is not running: {what}")]
    Stopped {
        /// Why.
        what: String,
    },
}

/// How this node's part in the metadata has ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ending {
    /// It was shut down.
    #[error("it was shut down")]
    ShutDown,
    /// It failed, and decides nothing any more. The node has to be started anew; what was acknowledged is there.
    #[error("it failed: {what}")]
    Failed {
        /// What happened.
        what: String,
    },
}

fn leads(leader: Option<NodeId>) -> String {
    match leader {
        Some(leader) => format!("node {leader} does"),
        None => "nobody is known to".to_owned(),
    }
}
