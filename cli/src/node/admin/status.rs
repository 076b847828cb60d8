//! What went wrong, as gRPC statuses: the code tells programs what to do, the message people (`admin.proto`).

use sterna_consensus::state::refusal::Refusal;
use sterna_consensus::{ProposeError, ReadError};
use sterna_storage_node::chunk_store::StoreError;
use sterna_storage_node::chunk_store::collect::CollectError;
use sterna_storage_node::chunk_store::index::IndexError;
use sterna_storage_node::image::{ExportError, ImportError};
use sterna_storage_node::journal::JournalError;
use sterna_storage_node::map::MapError;
use sterna_storage_node::volume::VolumeError;
use sterna_types::DeviceError;
use tonic::{Code, Status};

use crate::node::volumes::OpenError;

/// An error that can be told to an administrator.
pub(super) trait IntoStatus: std::error::Error + Sized {
    /// What programs are to make of it.
    fn code(&self) -> Code;

    /// The status, whose message says what `subject` (such as "volume 'web'") has to do with it.
    fn about(self, subject: &str) -> Status {
        Status::new(self.code(), format!("{subject}: {self}"))
    }
}

impl IntoStatus for ProposeError {
    fn code(&self) -> Code {
        match self {
            Self::Refused(refusal) => code_of(refusal),
            Self::NotLeader { .. } | Self::CutOff { .. } | Self::Stopped { .. } => Code::Unavailable,
            Self::Unknown { .. } => Code::Unknown,
        }
    }
}

fn code_of(refusal: &Refusal) -> Code {
    match refusal {
        Refusal::NoSuchVolume { .. }
        | Refusal::NoSuchNode { .. }
        | Refusal::NoSuchSnapshot { .. }
        | Refusal::NoSuchToken { .. } => Code::NotFound,
        Refusal::VolumeNameTaken { .. }
        | Refusal::SnapshotNameTaken { .. }
        | Refusal::NodeNameTaken { .. }
        | Refusal::TokenTaken { .. } => Code::AlreadyExists,
        Refusal::TooManyRoots { .. }
        | Refusal::WouldShrink { .. }
        | Refusal::SnapshotTooLarge { .. }
        | Refusal::SmallerThanOrigin { .. }
        | Refusal::ReplacesItself { .. }
        | Refusal::OtherFormat { .. } => Code::InvalidArgument,
        // Everything else can be done once something else has changed.
        _ => Code::FailedPrecondition,
    }
}

impl IntoStatus for ReadError {
    fn code(&self) -> Code {
        Code::Unavailable
    }
}

impl IntoStatus for StoreError {
    fn code(&self) -> Code {
        match self {
            Self::Missing { .. } | Self::Corrupt { .. } => Code::DataLoss,
            Self::Full => Code::ResourceExhausted,
            Self::Poisoned | Self::Index(IndexError::Poisoned) => Code::FailedPrecondition,
            Self::Io { .. } | Self::Index(_) => Code::Internal,
        }
    }
}

impl IntoStatus for MapError {
    fn code(&self) -> Code {
        match self {
            Self::Store(error) | Self::Unreadable { source: error, .. } => error.code(),
            Self::Missing { .. }
            | Self::CorruptNode { .. }
            | Self::CorruptManifest { .. }
            | Self::WrongLevel { .. } => Code::DataLoss,
            _ => Code::Internal,
        }
    }
}

impl IntoStatus for VolumeError {
    fn code(&self) -> Code {
        match self {
            error if error.is_full() => Code::ResourceExhausted,
            Self::Store(error) => error.code(),
            Self::Map(error) => error.code(),
            Self::Journal(JournalError::Damaged { .. })
            | Self::DamagedRecord { .. }
            | Self::DamagedSegment { .. }
            | Self::Absent(_)
            | Self::Extent(_) => Code::DataLoss,
            Self::Journal(JournalError::Poisoned) | Self::Device(DeviceError::Poisoned) => Code::FailedPrecondition,
            Self::Closed => Code::Aborted,
            Self::OtherEpoch { .. } => Code::FailedPrecondition,
            Self::Journal(_) | Self::Device(_) | Self::ReadBack(_) => Code::Internal,
        }
    }
}

impl IntoStatus for OpenError {
    fn code(&self) -> Code {
        match self {
            Self::Volume(error) => error.code(),
            Self::ShuttingDown => Code::Unavailable,
            Self::Panicked => Code::Internal,
        }
    }
}

impl IntoStatus for ImportError {
    fn code(&self) -> Code {
        match self {
            Self::Read(_) | Self::Truncated { .. } => Code::FailedPrecondition,
            Self::Size(_) => Code::InvalidArgument,
            Self::Volume(error) => error.code(),
            Self::Stopped => Code::Cancelled,
        }
    }
}

impl IntoStatus for ExportError {
    fn code(&self) -> Code {
        match self {
            Self::Write(error) => match error.kind() {
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Code::ResourceExhausted,
                _ => Code::FailedPrecondition,
            },
            Self::Map(error) => error.code(),
            Self::Store(error) => error.code(),
            Self::Stopped => Code::Cancelled,
        }
    }
}

impl IntoStatus for CollectError {
    fn code(&self) -> Code {
        match self {
            Self::Running => Code::FailedPrecondition,
            Self::Unreadable { .. } => Code::DataLoss,
            Self::Store(error) => error.code(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sterna_types::{ChunkId, VolumeId};

    #[test]
    fn programs_can_tell_what_to_do() {
        let lost = || StoreError::Missing { id: ChunkId::from_bytes([1; 32]) };
        let refused = |refusal| ProposeError::Refused(refusal).code();
        let volume = VolumeId(1);
        let cases = [
            (refused(Refusal::NoSuchVolume { volume }), Code::NotFound),
            (refused(Refusal::HasSnapshots { volume, count: 2 }), Code::FailedPrecondition),
            (refused(Refusal::TooManyVolumes), Code::FailedPrecondition),
            (ProposeError::NotLeader { leader: None }.code(), Code::Unavailable),
            (ProposeError::Unknown { what: String::new() }.code(), Code::Unknown),
            (VolumeError::Store(StoreError::Full).code(), Code::ResourceExhausted),
            (VolumeError::Map(MapError::Store(lost())).code(), Code::DataLoss),
            (VolumeError::Journal(JournalError::Full).code(), Code::ResourceExhausted),
            (VolumeError::Journal(JournalError::Poisoned).code(), Code::FailedPrecondition),
            (ImportError::Stopped.code(), Code::Cancelled),
            (ExportError::Store(lost()).code(), Code::DataLoss),
            (CollectError::Store(StoreError::Full).code(), Code::ResourceExhausted),
        ];
        for (index, (found, expected)) in cases.into_iter().enumerate() {
            assert_eq!(found, expected, "case {index}");
        }
    }

    #[test]
    fn people_are_told_what_it_is_about() {
        let status = StoreError::Full.about("volume 'web'");
        assert_eq!(status.message(), "volume 'web': no space left in the data directory");
    }
}
