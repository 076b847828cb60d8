//! Whether a VM can be moved: what QEMU says of it at both hosts, before anything of it is moved.
//!
//! * [`at_source`]: the VM where it is, and what stands against its leaving.
//! * [`at_destination`]: the QEMU that was started to take it in, and [`differences`]: what stands against it there.
//! * `facts`: what is asked. `state`, `disks`, `machine`: what follows from the answers, as functions that ask nothing.
//! * `cpu`: the CPU that the guest sees.
//!
//! It does *not* compare all that has to be the same: a device that was plugged in while the VM ran, and that the destination does not
//! have, is found by QEMU when the state is loaded there, and the VM stays where it is. Nor does it look at what a disk does after an
//! error (`werror`, `rerror`).

mod cpu;
mod disks;
mod facts;
mod machine;
mod state;

use std::path::PathBuf;

use sterna_proto::migrator::{self as wire, Obstacle};
use sterna_types::VolumeName;

use crate::qmp::{Commands, QmpError};

use facts::Facts;
pub use machine::differences;

/// What a VM's disks are to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// The volumes that were named as its disks.
    pub volumes: Vec<VolumeName>,
    /// Where the node of this host serves volumes, as QEMU was told it: a path is compared as text.
    pub nbd_socket: PathBuf,
}

/// What was found of a VM at its source.
#[derive(Clone, Debug, PartialEq)]
pub struct Examined {
    /// What has to be the same at the destination.
    pub machine: wire::Machine,
    /// What the guest has of memory.
    pub memory_bytes: u64,
    /// What stands against its leaving; nothing where it can be moved.
    pub obstacles: Vec<Obstacle>,
}

/// Looks at a VM at the host that it may leave.
///
/// # Errors
/// [`QmpError`]: QEMU does not say it, or says what cannot be understood.
///
/// # Cancel safety
/// Dropped, it changes nothing.
pub async fn at_source(qmp: &Commands, disks: &Expected) -> Result<Examined, QmpError> {
    let facts = Facts::gather(qmp).await?;
    let machine = machine::describe(qmp).await?;
    let memory_bytes = facts::memory_bytes(qmp).await?;
    Ok(Examined { machine, memory_bytes, obstacles: obstacles(&facts, disks) })
}

/// Looks at a QEMU that was started to take a VM in, and has not begun to.
///
/// # Errors
/// [`QmpError`]: QEMU does not say it, or says what cannot be understood.
///
/// # Cancel safety
/// Dropped, it changes nothing.
pub async fn at_destination(qmp: &Commands) -> Result<wire::Machine, QmpError> {
    machine::describe(qmp).await
}

/// All that stands against a VM's leaving.
fn obstacles(facts: &Facts, expected: &Expected) -> Vec<Obstacle> {
    let mut obstacles = state::obstacles(facts);
    obstacles.extend(disks::obstacles(facts, expected));
    obstacles
}

fn obstacle(what: impl Into<String>, remedy: impl Into<String>) -> Obstacle {
    Obstacle { what: what.into(), remedy: remedy.into() }
}

#[cfg(test)]
mod tests;
