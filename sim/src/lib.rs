//! Sterna from a seed: which requests there are, which faults come between them, and what a broken disk keeps, all of it follows from
//! one number, and is the same each time (`docs/reliability.md`).
//!
//! * [`surroundings`]: the time and the chance that the product gets, instead of the machine's.
//! * [`site`]: the storage of one site, on a disk that can be cut off at any moment.
//! * [`oracle`]: what a volume may hold.
//! * [`story`]: what has happened, for people; and its digest, for programs.
//! * [`run`]: a seed, played. * [`campaign`]: many of them.
//!
//! What runs is the product: journal, overlay, seal, map, packs, collection. It is one site so far; the metadata, the network, and
//! so several sites, are not in it yet.

pub mod campaign;
pub mod oracle;
pub mod run;
pub mod site;
pub mod story;
pub mod surroundings;
