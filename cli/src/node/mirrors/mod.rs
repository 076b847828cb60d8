//! Copies of what is written, which flushes wait for: `sync:N` (design section 4).
//!
//! ```text
//!  client ── flush ──> owner: journal ───────────────────── sync ──> acknowledged, once all of these have it
//!                        │  Members: who counts, how far is each       ^   ^
//!                        └── Follow: every change, in order ──> member │   │
//!                                                    mirror: journal ── sync
//! ```
//!
//! * `members`: at the owner of one volume, who has to have a flush before it is acknowledged, and how far each of them is.
//! * `serve`: what the owner answers to those who follow. `wire`: the messages.
//! * `steward`: at the owner, who is taken into the in-sync set, and who out of it.
//! * `keep`: at a member, the mirrors that it keeps; `mirror`: one of them.
//!
//! **The set.** A member counts once the metadata says so, and before that: it is waited for from before it is asked to be taken in until
//! after it is known to be out. So at each moment the owner waits for all that the metadata may name, and whichever of those goes on
//! without the owner has every flush that was acknowledged. The order, at the owner:
//! 1. the node is waited for, by every flush that begins from now on;
//! 2. all is durable there that was written before, so that every flush which began earlier is covered;
//! 3. it is taken in: an entry of the metadata. *Unknown whether it was: it is waited for, and asked again.*
//!
//! Taking one out is an entry first; until the owner knows of that it waits.
//!
//! A member keeps what it has until the epoch is over or it is no member any more, also when it begins anew
//! ([`sterna_storage_node::volume::Rebase`]).

mod keep;
mod members;
mod mirror;
mod serve;
mod steward;
mod wire;

pub(super) use keep::{Mirrors, let_go, run as keep};
pub(super) use members::{Members, Roster};
pub(super) use serve::service;
pub(super) use steward::run as steward;
