//! QEMU's control socket (QMP, the QEMU machine protocol): a client that is made for migrations.
//!
//! * [`QmpClient`]: one connection. Commands go in, answers and events come out; it knows no command but the first.
//! * [`Commands`]: the commands that a migration needs, with their types.
//! * [`Events`]: what QEMU tells by itself. [`EventKind`] is what we understand of it.
//! * [`MigrationInfo`], [`VmStatus`]: how a migration and a machine are doing.
//! * [`QmpError`], [`ConnectError`], [`End`]: what goes wrong. [`limits`]: every bound, with its reason.
//! * `connection`: the task that owns the socket. `message` and `lines`: what stands on it.
//!
//! What a newer QEMU says is never an error just because we do not know it: a field is passed over, a value becomes `Unknown`, and an
//! event is handed on as it is. What is no JSON ends the connection, since after that nothing is certain.
//!
//! It does *not* connect again: whoever drives a migration has to ask anew where it stands (`query-migrate`, `query-status`), and only
//! the driver knows what follows from the answer.

mod client;
mod commands;
mod connection;
mod error;
mod events;
pub mod limits;
mod lines;
mod message;
mod migration;
mod vm_status;

pub use client::QmpClient;
pub use commands::Commands;
pub use error::{ConnectError, End, QmpError, Unexpected};
pub use events::{BlockIoError, Event, EventKind, Events, EventsError, IoErrorAction, IoOperation};
pub use migration::{MigrationInfo, MigrationStatus, RamProgress};
pub use vm_status::{RunState, VmStatus};

#[cfg(test)]
mod tests;
