//! The metadata of simulated machines. Built with the feature `simulation` only, and of use only in a process that
//! [is one](sterna_runtime::simulation::install).
//!
//! There every metadata directory stands for a [`SimulatedDatabase`], and [`MetadataNode`](crate::MetadataNode) is used as it is
//! anywhere else: `bootstrap`, `prepare` and `open` find in the directory what was [`put`] there, and touch no real file.
//!
//! How a machine fails:
//! 1. what runs in it is stopped;
//! 2. its directory is given a [`crash_image`](SimulatedDatabase::crash_image), or what there is
//!    [`after_kill`](SimulatedDatabase::after_kill);
//! 3. it is started anew. What is left of its former life has the former database, which nobody looks at any more.

use std::path::Path;

pub use crate::store::SimulatedDatabase;

/// Has the directory `dir` stand for `database` from now on, in all of this process; whoever has another one open there keeps
/// that. A directory for which nothing was put has no metadata, and none can be made there.
pub fn put(dir: &Path, database: SimulatedDatabase) {
    crate::store::put_simulated(dir, database);
}
