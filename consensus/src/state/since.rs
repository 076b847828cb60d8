//! From which version of the metadata on each command can be carried out, where it matters by what it says.

use super::cluster::MetadataVersion;
use super::command::Command;
use super::policy::Durability;
use super::replica::ReplicaMode;

impl Command {
    /// The version of the metadata from which on it can be carried out.
    ///
    /// The durability `sync:N` could be written down from the first version on, and nobody was ever let choose it: nothing kept it.
    /// It is chosen from the version on in which nodes can be in sync. A volume that is made with it is taken from any version, as the
    /// commands of old are; who lets it be chosen sees to the version.
    pub fn since(&self) -> MetadataVersion {
        match self {
            Self::Bootstrap(_)
            | Self::CreateVolume(_)
            | Self::FinishImport { .. }
            | Self::DeleteVolume { .. }
            | Self::RenameVolume { .. }
            | Self::ResizeVolume { .. }
            | Self::CreateSnapshot(_)
            | Self::DeleteSnapshot { .. }
            | Self::PublishRoots(_)
            | Self::SetDurability { durability: Durability::Local, .. }
            | Self::SetAttach { .. }
            | Self::RaiseVersion { .. } => MetadataVersion::FIRST,
            Self::CreateToken(_)
            | Self::RevokeToken { .. }
            | Self::AdmitNode(_)
            | Self::SetNodeAddress { .. }
            | Self::OpenSession { .. }
            | Self::RenewSession { .. }
            | Self::CloseSession { .. }
            | Self::LapseSession { .. }
            | Self::SetSessionLength { .. }
            | Self::StageChange(_)
            | Self::DiscardChanges
            | Self::ApplyChanges { .. } => MetadataVersion::MANY_NODES,
            Self::SetReplica { mode: ReplicaMode::Async, .. }
            | Self::UnsetReplica { .. }
            | Self::ReportReplicas { .. }
            | Self::FailOver { .. }
            | Self::SettleEpoch { .. } => MetadataVersion::REPLICAS,
            Self::BeginHandoff { .. }
            | Self::CommitHandoff { .. }
            | Self::AbortHandoff { .. }
            | Self::DeclineHandoff { .. }
            | Self::Reclaim { .. }
            | Self::FinishHydration { .. } => MetadataVersion::HANDOFFS,
            Self::SetVolumeLimit { .. }
            | Self::SetLinkLimit { .. }
            | Self::SetDurability { durability: Durability::Sync(_), .. }
            | Self::SetDegraded { .. }
            | Self::SetReplica { mode: ReplicaMode::Sync, .. }
            | Self::ChangeInSync { .. }
            | Self::TakeOver { .. } => MetadataVersion::PROPAGATION,
            Self::SetReplica { mode: ReplicaMode::Cache, .. } => MetadataVersion::CACHES,
        }
    }
}
