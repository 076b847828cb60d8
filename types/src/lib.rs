//! The words that every part of Sterna uses, each with one meaning (`docs/vocabulary.md`).
//!
//! * [`units`]: bytes, blocks and segments, so that no two of them can be confused.
//! * [`ids`]: ids of chunks, volumes, nodes and clusters, roots, epochs. [`names`]: names of volumes, snapshots, sites and
//!   nodes, checked where they enter.
//! * [`limits`]: every bound that more than one crate relies on, with its reason.
//! * with the feature `serde`, ids and names are serialised as the text that people read, counters and sizes as numbers.
//! * [`device`]: the [`BlockDevice`] contract, the two simplest devices that keep it, and the suite that checks it.
//!
//! This crate is *not* a place for helpers: what it holds is either said on a wire or a disk, or promised between two
//! crates. Of the workspace it depends on `sterna_runtime` only.

pub mod device;
pub mod ids;
pub mod limits;
pub mod names;
#[cfg(feature = "serde")]
mod serialised;
pub mod units;

pub use device::{BlockDevice, DeviceError};
pub use ids::{ChunkId, ClusterId, Epoch, NodeId, Root, TokenId, VolumeId};
pub use names::{NodeName, SiteName, SnapshotName, VmName, VolumeName};
pub use units::{
    BLOCK_SIZE, BLOCKS_PER_SEGMENT, BlockIndex, ByteOffset, ByteRange, ByteRate, ByteSize, SEGMENT_SIZE, SegmentIndex,
    VolumeSize,
};
