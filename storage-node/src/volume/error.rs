//! Why a volume did not do what it was asked.

use std::io;

use sterna_types::{DeviceError, Epoch, SegmentIndex, VolumeId};

use super::absence::Absence;
use crate::chunk_store::StoreError;
use crate::journal::JournalError;
use crate::map::{InvalidExtent, MapError};

/// Why a volume did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// The request is not for this device, or not now.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// A chunk could not be read or stored.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The map could not be read or changed.
    #[error(transparent)]
    Map(#[from] MapError),
    /// The journal could not be read or written.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A manifest would have come to name blocks that are not there.
    #[error(transparent)]
    Extent(#[from] InvalidExtent),
    /// A payload could not be read back from the journal.
    #[error("the journal cannot be read back: {0}")]
    ReadBack(#[source] io::Error),
    /// The volume's own record does not make sense.
    #[error("the record of volume {volume} is damaged: {what}")]
    DamagedRecord {
        /// The volume.
        volume: VolumeId,
        /// What is wrong with it.
        what: &'static str,
    },
    /// What this node keeps of the volume was written in another epoch: it would be replayed onto contents that it does not
    /// belong to.
    #[error("what is here of volume {volume} is of epoch {kept}, and {}", of_epoch(*kept, *asked))]
    OtherEpoch {
        /// The volume.
        volume: VolumeId,
        /// The epoch of what is here.
        kept: Epoch,
        /// The epoch that it was to be opened in.
        asked: Epoch,
    },
    /// The segment's map names blocks that a chunk does not have.
    #[error("the manifest of segment {} names blocks that its chunk does not have", segment.0)]
    DamagedSegment {
        /// The segment.
        segment: SegmentIndex,
    },
    /// Something that is needed is not on this node.
    #[error("{0} not here")]
    Absent(Box<Absence>),
    /// The volume has been closed.
    #[error("the volume is closed")]
    Closed,
}

impl VolumeError {
    /// Whether it says that space has to be made, after which the same may succeed.
    pub fn is_full(&self) -> bool {
        matches!(
            self,
            Self::Store(StoreError::Full)
                | Self::Map(MapError::Store(StoreError::Full))
                | Self::Journal(JournalError::Full)
                | Self::Device(DeviceError::NoSpace)
        )
    }
}

fn of_epoch(kept: Epoch, asked: Epoch) -> String {
    if kept < asked {
        format!("the volume is in epoch {asked}: what is here has to be kept as a branch first")
    } else {
        format!("it was to be opened in epoch {asked}, which is over: the metadata says whose it is now")
    }
}

impl From<VolumeError> for DeviceError {
    fn from(error: VolumeError) -> Self {
        match error {
            VolumeError::Device(error) => error,
            // Whoever closes a volume that is in use has learnt that it is not this node's any more, or is shutting down.
            VolumeError::Closed => Self::NotOwner,
            error if error.is_full() => Self::NoSpace,
            VolumeError::Store(StoreError::Poisoned) | VolumeError::Journal(JournalError::Poisoned) => Self::Poisoned,
            error => Self::Io(io::Error::other(error)),
        }
    }
}
