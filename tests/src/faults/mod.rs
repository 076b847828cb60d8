//! Faults by chance, under clients that write; and programs that judge what the clients saw (`docs/faults.md`).
//!
//! * [`plan`]: which faults, when and for how long, from a seed. * `inflict`: does that to nodes and network;
//!   `failover`: has volumes go on elsewhere, without their owners, `members`: where somebody is in sync; `handoff`: by their owners.
//! * [`writer`]: a client of one volume at one node, which tries for ever to write it. * [`mark`]: what it writes.
//! * [`history`]: all that was asked and answered, as it is kept in a file. * [`node_log`]: what nodes tell of their sessions.
//! * [`check`]: pure functions from a history to what is wrong with it.
//! * [`stage`]: a cluster, and a client of each volume at each node. [`campaign`]: faults upon that. [`rolling`]: a restart of
//!   all nodes, one after the other. [`report`]: the figures of either.
//!
//! By hand: `scripts/faults`. It is *not* a test of speed, and nothing in it depends on how long something took.

pub mod campaign;
pub mod check;
mod failover;
mod handoff;
pub mod history;
mod inflict;
pub mod mark;
mod members;
pub mod node_log;
pub mod plan;
pub mod report;
pub mod rolling;
pub mod stage;
pub mod writer;
