//! `sterna node`: where metadata, storage engine, NBD server and the administrators' service are put together.
//!
//! From the outside in:
//! * `init`, `run`: the two commands. `announce`, `sockets`: what a running node shows of itself. `simulated`: one without a machine.
//! * `directory`, `format`, [`config`], `template`: the data directory, what it says about itself, its settings.
//! * `credentials`, `join`: who the node is to others, and how new ones come in. `peers`: what it answers to other nodes.
//!   `renewal`: new certificates in time. `authority`: which nodes can sign them.
//! * `access`: who may call what. `gate`: where that is asked.
//! * `node`: the open node. `storage`: its engine. `volumes`: its open volumes. `imports`: those being filled.
//! * `ownership`: the right to answer for a volume. `session`: what that rests on. `clock`: the time of day.
//! * `duties`: what it does by itself as long as it runs. `background`: threads that give way to those that serve guests.
//! * `catalog`: volumes as NBD exports; [`nbd_access`]: who may have which over TCP. `publish`: volumes' roots to the metadata.
//!   `replication`: copies for other sites, and of theirs. `handoff`: volumes that pass from node to node. `returned`: what is
//!   left of volumes that others have now.
//! * `bucket`: what is kept besides in an S3-compatible bucket.
//! * `admin`: what administrators ask for.
//! * `migrator`: what runs beside a node on a host of VMs. `migration`: whether volumes may move with one of them.
//!
//! Nothing here knows a format of the engine or a message of Raft; each part is asked for what it promises.

mod access;
mod admin;
mod announce;
mod authority;
mod background;
mod bucket;
mod catalog;
mod clock;
pub mod config;
mod credentials;
mod directory;
mod duties;
mod format;
mod gate;
mod handoff;
mod imports;
mod init;
mod join;
mod link_limits;
mod migration;
pub(crate) mod migrator;
mod mirrors;
pub mod nbd_access;
#[expect(clippy::module_inception, reason = "the type that this module is named after has a file of its own")]
mod node;
mod ownership;
mod peers;
mod publish;
mod renewal;
mod replication;
mod returned;
mod run;
mod session;
#[cfg(feature = "simulation")]
pub mod simulated;
mod sockets;
mod storage;
mod template;
mod volumes;

pub(crate) use directory::{ADMIN_SOCKET, NBD_SOCKET};

use anyhow::Result;

use crate::args::NodeCommand;

/// Carries out a command about the node of this machine.
///
/// # Errors
/// What went wrong, for people.
pub(crate) fn command(command: NodeCommand, json: bool) -> Result<()> {
    match command {
        NodeCommand::Init(init) => init::run(init, json),
        NodeCommand::Run(run) => run::run(&run, json),
    }
}
