//! `sterna node`: where metadata, storage engine, NBD server and the administrators' service are put together.
//!
//! From the outside in:
//! * `init`, `run`: the two commands. `announce`, `sockets`: what a running node shows of itself.
//! * `directory`, `format`, [`config`], `template`: the data directory, what it says about itself, its settings.
//! * `node`: the open node. `storage`: its engine. `volumes`: its open volumes. `imports`: those being filled.
//! * `background`: threads that give way to those that serve guests.
//! * `catalog`: volumes as NBD exports. `publish`: volumes' roots to the metadata.
//! * `admin`: what administrators ask for.
//!
//! Nothing here knows a format of the engine or a message of Raft; each part is asked for what it promises.

mod admin;
mod announce;
mod background;
mod catalog;
pub mod config;
mod directory;
mod format;
mod imports;
mod init;
#[expect(clippy::module_inception, reason = "the type that this module is named after has a file of its own")]
mod node;
mod publish;
mod random;
mod run;
mod sockets;
mod storage;
mod template;
mod volumes;

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
