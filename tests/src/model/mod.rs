//! A model of sessions, ownership and handoff, explored in every order of events (`docs/reliability.md`).
//!
//! What decides is the product: every change of the metadata and every promise of a node is made by
//! [`sterna_consensus::state::ownership`], [`sterna_consensus::handoff`] and [`sterna_consensus::state::session`]. The model adds what
//! is around them: three nodes that start, stop and forget, and messages that are late, lost and repeated.
//!
//! * [`volume`]: the states, of one volume; [`step`]: what can happen in each, and what becomes of it.
//! * [`properties`]: what has to hold in every state; [`recover`]: that each state leads out of all trouble.
//! * [`clocks`]: why a lease has ended when its session lapses, which [`step`] takes for granted.
//! * [`in_sync`]: who is in sync with a volume, by the metadata's own state, which `candidates` makes.
//! * [`explore`]: looks at every state, and says what it has found.
//!
//! It is *not* the place of the journal, the map or Raft: their order of events is for the simulation and for the campaigns of
//! faults.

mod candidates;
pub mod clocks;
pub mod explore;
pub mod in_sync;
pub mod properties;
pub mod recover;
pub mod step;
pub mod volume;
