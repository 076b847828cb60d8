//! What was asked, as the node's own types. What cannot be is refused here, with INVALID_ARGUMENT.

use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;

use sterna_consensus::Metadata;
use sterna_consensus::state::cluster::MetadataVersion;
use sterna_consensus::state::policy::{AttachPolicy, Durability};
use sterna_types::{ByteSize, VolumeSize};
use tonic::Status;

/// A name, or another value that has a form as text.
pub(super) fn parsed<T: FromStr<Err: Display>>(text: &str) -> Result<T, Status> {
    text.parse().map_err(|error: T::Err| Status::invalid_argument(error.to_string()))
}

/// The size of a volume.
pub(super) fn volume_size(size_bytes: u64) -> Result<VolumeSize, Status> {
    VolumeSize::try_from(ByteSize(size_bytes)).map_err(|error| Status::invalid_argument(error.to_string()))
}

/// What the flushes of a new volume wait for.
pub(super) fn durability(text: &str) -> Result<Durability, Status> {
    or_default(text)
}

/// Whether flushes could ever be as durable in this cluster.
pub(super) fn can_keep(metadata: &Metadata, durability: Durability) -> Result<(), Status> {
    let (nodes, version) = (metadata.nodes().count(), metadata.version());
    if usize::from(durability.copies()) > nodes {
        return Err(Status::failed_precondition(format!(
            "durability '{durability}' needs {} nodes, and this cluster has {nodes}: take 'local', or let more nodes join",
            durability.copies()
        )));
    }
    if durability != Durability::Local && version < MetadataVersion::PROPAGATION {
        return Err(Status::failed_precondition(format!(
            "durability '{durability}' takes version {} of the metadata, and this cluster uses {version}: 'sterna cluster status' says \
             which nodes need a newer program",
            MetadataVersion::PROPAGATION
        )));
    }
    Ok(())
}

/// Who may attach a new volume where.
pub(super) fn attach(text: &str) -> Result<AttachPolicy, Status> {
    or_default(text)
}

/// The path of a file on this machine.
pub(super) fn absolute(path: String) -> Result<PathBuf, Status> {
    let path = PathBuf::from(path);
    if path.is_absolute() {
        Ok(path)
    } else {
        Err(Status::invalid_argument(format!("'{}' is not an absolute path on the node's machine", path.display())))
    }
}

fn or_default<T: FromStr<Err: Display> + Default>(text: &str) -> Result<T, Status> {
    if text.is_empty() { Ok(T::default()) } else { parsed(text) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sterna_types::VolumeName;
    use tonic::Code;

    #[test]
    fn what_can_never_be_is_an_invalid_argument() {
        assert_eq!(parsed::<VolumeName>("No!").map_err(|status| status.code()), Err(Code::InvalidArgument));
        for size in [0, 4095, (64 << 40) + 4096] {
            assert_eq!(volume_size(size).map_err(|status| status.code()), Err(Code::InvalidArgument));
        }
        assert_eq!(durability("most").map_err(|status| status.code()), Err(Code::InvalidArgument));
        assert_eq!(attach("most").map_err(|status| status.code()), Err(Code::InvalidArgument));
        assert_eq!(absolute("disk.raw".to_owned()).map_err(|status| status.code()), Err(Code::InvalidArgument));
    }

    #[test]
    fn what_is_not_said_is_the_default() {
        assert_eq!(durability("").ok(), Some(Durability::Local));
        assert_eq!(attach("").ok(), Some(AttachPolicy::Manual));
        assert_eq!(attach("auto").ok(), Some(AttachPolicy::Auto));
    }

    #[test]
    fn a_durability_that_nobody_can_keep_is_refused() {
        let durability = durability("sync:2").expect("it can be said");
        let status = can_keep(&Metadata::default(), durability).expect_err("two copies in a cluster of none");
        assert_eq!(status.code(), Code::FailedPrecondition);
        assert!(status.message().contains("needs 2 nodes"), "{}", status.message());
    }
}
