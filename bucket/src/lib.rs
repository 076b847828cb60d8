//! Chunks and published roots in an S3-compatible bucket: what a site is rebuilt from when its disks are gone.
//!
//! From the bottom up; each module knows only those above it in this list:
//! * [`error`]: what can go wrong. [`names`]: what objects are called. `sealed`: small objects of text, with a checksum.
//! * [`location`]: which bucket it is, and how it is reached. `objects`: its objects, one request each.
//! * [`pack`]: many chunks as one object, with an index of its own behind them.
//! * [`record`]: a volume as it has to be known to be made again: names, sizes, roots, snapshots. `terms`: what all who use a bucket
//!   agree on.
//! * `catalogue`: what this node knows of the packs: a cache on its disk, which the bucket can always give again.
//! * [`bucket`]: all of this together: what is there, and what may be relied on.
//! * [`fetch`]: chunks out of it. [`upload`]: chunks and records into it. [`collect`]: what no record needs goes.
//!
//! What is durable in which order, and what may be deleted when, is decided here and written down in `docs/bucket-format.md`. This crate
//! is *not* who decides which volumes are kept: it knows no metadata and no owner, and trusts nothing that it reads.

#![cfg_attr(test, expect(clippy::disallowed_methods, reason = "no simulation runs a test"))]

pub mod bucket;
mod catalogue;
pub mod collect;
pub mod error;
pub mod fetch;
pub mod location;
pub mod names;
mod objects;
mod pace;
pub mod pack;
pub mod record;
mod sealed;
mod terms;
#[cfg(test)]
mod testing;
pub mod upload;

pub use bucket::{Bucket, Options, Usage};
pub use error::BucketError;
pub use location::{Credentials, Location};
pub use record::{SnapshotRecord, VolumeRecord};
