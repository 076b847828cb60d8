//! An NBD server for any [`BlockDevice`](sterna_types::BlockDevice): what hypervisors attach their disks to.
//!
//! The specification is `doc/proto.md` of the NetworkBlockDevice project with its branch `extension-ext-header`;
//! `docs/nbd.md` names the test of each of its rules. Read in this order:
//!
//! * [`wire`]: the numbers of the protocol, and nothing else.
//! * [`handshake`] and [`transmission`]: the two phases as state machines. They take bytes and give bytes and decisions;
//!   no socket, clock or task is in them, so tests and fuzzers drive them as they like.
//! * [`export`]: what is served, under which name, and who answers for names ([`export::Catalog`]).
//! * [`client`]: who asks. `connection`: one client's connection, the I/O around the two machines.
//! * [`server`]: listeners, the lanes that connections run on, limits, drain. [`tls`]: STARTTLS.
//!   [`activation`]: sockets from systemd.
//! * `checks` (a feature of that name): what may never be false about the machines, for property tests and fuzz targets.
//! * [`limits`]: every bound, with its reason. [`counters`]: what the server counts.
//!
//! It knows no storage engine and no QEMU, and it is no client.

pub mod activation;
#[cfg(any(test, feature = "checks"))]
pub mod checks;
pub mod client;
mod connection;
pub mod counters;
pub mod export;
pub mod handshake;
pub mod limits;
pub mod server;
pub mod tls;
pub mod transmission;
pub mod wire;

pub use client::Client;
pub use export::{Catalog, Export, ExportMode, ExportName};
pub use server::{Listener, NbdServer, ServerConfig};
pub use tls::TlsPolicy;
