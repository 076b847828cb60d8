//! The words that every part of Sterna uses, each with one meaning (`docs/vocabulary.md`).
//!
//! * [`units`]: bytes, blocks and segments, so that no two of them can be confused.
//! * [`ids`]: chunk ids and epochs. [`names`]: names of volumes, sites and nodes, checked where they enter.
//! * [`limits`]: every bound that more than one crate relies on, with its reason.
//! * [`device`]: the [`BlockDevice`] contract, the two simplest devices that keep it, and the suite that checks it.
//!
//! This crate is *not* a place for helpers: what it holds is either said on a wire or a disk, or promised between two
//! crates. It depends on no other crate of the workspace.

pub mod device;
pub mod ids;
pub mod limits;
pub mod names;
pub mod units;

pub use device::{BlockDevice, DeviceError};
pub use ids::{ChunkId, Epoch};
pub use names::{NodeName, SiteName, VolumeName};
pub use units::{BLOCK_SIZE, BlockIndex, ByteOffset, ByteRange, ByteSize, SEGMENT_SIZE, SegmentIndex, VolumeSize};
