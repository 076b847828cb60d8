//! Why something about a VM cannot be done.

use std::path::PathBuf;

use sterna_runtime::chance::NoRandomBytes;
use sterna_types::names::InvalidName;
use sterna_types::{SiteName, VmName};

use crate::launch::process::Unreadable;
use crate::qmp::{ConnectError, QmpError};
use crate::records::RecordError;
use crate::token::NotAdmitted;
use crate::volumes::{NodeError, Place};

/// Why something about a VM cannot be done.
#[derive(Debug, thiserror::Error)]
pub enum VmError {
    /// There is no such VM.
    #[error("no VM '{0}' is known at this host: 'sterna vm list' lists them, 'sterna vm add' adds one")]
    Unknown(VmName),
    /// There is one already.
    #[error("a VM '{0}' is known at this host already: remove it first ('sterna vm remove'), or take another name")]
    Known(VmName),
    /// It is moving.
    #[error("VM '{0}' is on its way to {1}: wait for that, or cancel it ('sterna vm cancel')")]
    Moving(VmName, Place),
    /// It is not.
    #[error("VM '{0}' is not on its way anywhere")]
    Still(VmName),
    /// It is there already.
    #[error("VM '{0}' is at {1} already")]
    There(VmName, Place),
    /// Nobody takes it in.
    #[error(
        "no migrator at site '{0}' can be reached: start one beside a node there ('sterna migrator run'), with [migrator] listen set"
    )]
    NoMigrator(SiteName),
    /// Nobody can move from here.
    #[error(
        "this host's migrator listens to no other: set [migrator] listen in sterna.toml, and start node and migrator again"
    )]
    Alone,
    /// Its control socket is somewhere else than a directory of its own.
    #[error("QEMU's control socket is at {}, and has to be named with its directory", .0.display())]
    Socket(PathBuf),
    /// It does not say who it is.
    #[error("the process of VM '{0}' cannot be found: its control socket was not made by QEMU itself")]
    NoProcess(VmName),
    /// A record has a name that is none.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// QEMU does not speak to us.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// QEMU does not answer.
    #[error(transparent)]
    Qmp(#[from] QmpError),
    /// What it was started with is not known.
    #[error(transparent)]
    Process(#[from] Unreadable),
    /// The node does not answer.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// It cannot be written down, or read.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// It may not move.
    #[error(transparent)]
    Token(#[from] NotAdmitted),
    /// The system has no random bytes.
    #[error(transparent)]
    Chance(#[from] NoRandomBytes),
    /// The destination does not answer.
    #[error("{to} does not answer: {}", .status.message())]
    Peer {
        /// Where it is to go.
        to: Place,
        /// What it said, or what the connection did.
        status: Box<tonic::Status>,
    },
}
