//! Volumes: sparse virtual disks made of a journal, a map and content-addressed chunks (design sections 3, 4 and 8).
//!
//! From the bottom up; each module knows only those above it in this list:
//! * [`progress`](mod@progress): how far long work has come.
//! * [`disk`]: the files of a data directory as the engine uses them, on the operating system or in a simulation that
//!   loses what was not synced.
//! * `cache`: what was used lately, up to a bound.
//! * [`chunk_store`]: immutable chunks by id: pack files, their index, garbage collection, compaction, scrub.
//! * [`chunk_writer`]: the new chunks of a seal or an import, gathered into few large appends.
//! * [`chunking`]: where a run of blocks is cut into chunks.
//! * [`map`]: which chunk holds which block: manifests of segments under a radix tree, named by one root.
//! * [`journal`]: the log of writes that are newer than the root.
//! * [`heat`]: how often which part of a volume is read and written, lately.
//! * [`trace`]: which parts of a volume are touched first after an attach, and in which order.
//! * [`prefetch`]: what is brought before anybody waits for it, and in which order: the policy.
//! * [`volume`]: one disk out of all these: overlay, seal, recovery, and the `BlockDevice` in front.
//!
//! * [`image`], [`verify`](mod@verify): whole disks in and out, and whether one is whole. [`needed`]: who needs what is lost.
//! * [`gaps`]: what a site lacks of a root, and taking what was fetched of it; [`bundle`]: how that comes over a link.
//! * [`salvage`]: volumes out of a data directory that cannot be used any more.
//!
//! This crate is *not* a server and not a cluster: it knows no NBD, no Raft, and decides nothing about who may write. The
//! formats on disk are written down in `docs/on-disk-format.md`.

#![cfg_attr(test, expect(clippy::disallowed_methods, reason = "no simulation runs a test"))]

pub mod bundle;
mod cache;
pub mod chunk_store;
pub mod chunk_writer;
pub mod chunking;
pub mod disk;
pub mod gaps;
pub mod heat;
pub mod image;
pub mod journal;
pub mod map;
pub mod needed;
pub mod prefetch;
pub mod progress;
pub mod salvage;
pub mod trace;
pub mod verify;
pub mod volume;
