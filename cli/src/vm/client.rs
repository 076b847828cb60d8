//! The connection to the migrator of this host.

use anyhow::{Result, bail};
use sterna_proto::migrator::vms_client::VmsClient;
use tonic::Status;
use tonic::transport::Channel;

use crate::args::target::Target;
use crate::call::{self, CallError, Callee, data_directory};

/// Connects to the migrator beside a node of this machine.
///
/// # Errors
/// The node is elsewhere; or the migrator is not there, or does not let us in.
pub(super) async fn connect(target: &Target) -> Result<VmsClient<Channel>> {
    let Target::Here(directory) = target else {
        bail!(
            "a VM's migrator is asked on its own host, and not over the network: give the command there, with --dir DIR or \
             STERNA_DIR"
        )
    };
    let directory = data_directory(directory)?;
    Ok(VmsClient::new(call::connect(Callee::Migrator, &directory).await?))
}

/// What a call to the migrator has ended with.
pub(super) fn of_migrator(status: Status) -> CallError {
    CallError::of(Callee::Migrator, status)
}
