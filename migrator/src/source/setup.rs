//! What a migration is about, whom it is done with, and why something of it cannot be done.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use sterna_proto::migrator as wire;
use sterna_proto::migrator::migrations_client::MigrationsClient;
use sterna_types::{ByteRate, VolumeName};
use tonic::transport::Channel;

use super::record::OutgoingRecord;
use crate::hooks::{HookError, Hooks, Occasion, Role, Where};
use crate::monitor::Monitor;
use crate::peer::MigrationId;
use crate::qmp::{ConnectError, QmpError};
use crate::records::{RecordError, Records};
use crate::volumes::{Node, NodeError, Place};

/// What a migration is about, and whom it is done with.
pub struct Setup {
    /// Which it is.
    pub migration: MigrationId,
    /// The VM, for the destination; nothing where all that is left is to learn what has become of it.
    pub vm: Option<wire::Vm>,
    /// Its volumes.
    pub volumes: Vec<VolumeName>,
    /// What an operator allows, for all who look at it; empty where there is nothing, or nothing more is begun.
    pub token: Vec<u8>,
    /// How fast memory is sent at most, while the VM runs.
    pub rate: Option<ByteRate>,
    /// Where it is.
    pub from: Place,
    /// Where it is to go.
    pub to: Place,
    /// Whether it is stopped before any of its memory is sent.
    pub is_offline: bool,
    /// The VM's QEMU.
    pub monitor: Monitor,
    /// The node beside this migrator.
    pub node: Node,
    /// The destination's migrator.
    pub peer: Peer,
    /// Where QEMU's stream is taken, a path that nothing is at yet.
    pub socket: PathBuf,
    /// What is remembered.
    pub record: OutgoingRecord,
    /// Where it is.
    pub records: Arc<Records<OutgoingRecord>>,
    /// What is called at its steps.
    pub hooks: Arc<Hooks>,
}

impl Setup {
    /// What programs are told of it.
    pub fn occasion(&self) -> Occasion {
        Occasion {
            role: Role::Source,
            migration: self.migration.to_string(),
            vm: self.record.vm.clone(),
            volumes: self.volumes.iter().map(ToString::to_string).collect(),
            from: Where::from(&self.from),
            to: Where::from(&self.to),
            end: None,
        }
    }
}

/// The destination's migrator, over two connections.
#[derive(Clone, Debug)]
pub struct Peer {
    /// For calls.
    pub calls: MigrationsClient<Channel>,
    /// For the stream.
    pub stream: MigrationsClient<Channel>,
}

/// Why something of a migration cannot be done.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// QEMU does not do it.
    #[error(transparent)]
    Qmp(#[from] QmpError),
    /// QEMU does not speak to us.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// QEMU has ended.
    #[error("the VM's QEMU has ended")]
    Ended,
    /// The node does not.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// The destination does not.
    #[error("the destination's migrator does not do it: {}", .0.message())]
    Peer(Box<tonic::Status>),
    /// The destination cannot take it.
    #[error("{to} does not take it: {obstacles}")]
    Obstacles {
        /// Where it was to go.
        to: Place,
        /// What stands against it.
        obstacles: String,
    },
    /// Its stream cannot be taken.
    #[error("QEMU's stream cannot be taken at {}: {source}", path.display())]
    Socket {
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It cannot be written down.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A program of this host's administrator refuses it.
    #[error(transparent)]
    Hook(#[from] HookError),
    /// A migrator was started anew in the middle of it.
    #[error("its migrator was started anew")]
    Restarted,
}
