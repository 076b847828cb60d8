//! Sterna from a seed: which requests there are, which faults come between them, and what a broken disk keeps, all of it follows from
//! one number, and is the same each time (`docs/reliability.md`).
//!
//! * [`surroundings`]: the time and the chance that the product gets, instead of the machine's.
//! * [`story`]: what has happened, for people; and its digest, for programs. [`ended`]: how it has ended.
//! * [`site`], [`oracle`], [`run`]: the storage of one site on a disk that can be cut off at any moment, what its volumes may hold, and
//!   a seed of it, played.
//! * [`cluster`]: several sites, and all that is between them.
//! * [`campaign`]: many seeds of either.
//!
//! What runs is the product, from the journal to Raft. It is *not* another implementation of anything, nor a test of speed.

pub mod campaign;
pub mod cluster;
pub mod ended;
pub mod oracle;
pub mod run;
pub mod site;
pub mod story;
pub mod surroundings;
