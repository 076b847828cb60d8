//! Volumes that move with a VM: whether an operator allows it, as a node looks at the token (`sterna_migrator::token`).
//!
//! A node knows no VMs. What it knows is which volumes pass in which epochs from where to where, and that is what the token has to be for. So
//! one that was used is good for nothing any more as soon as the volumes have moved. A handoff that is no part of a VM's migration takes
//! none: whoever may call for that may do so for other reasons.

use sterna_migrator::token::admission::verified;
use sterna_migrator::token::{Claim, Stage, Volumes};
use sterna_runtime::clock::wall_time;
use sterna_types::SiteName;
use tonic::Status;

use super::node::Node;

/// Whether these volumes, in these epochs, may pass between two sites with a VM whose token is `given`: empty where it has none.
///
/// # Errors
/// PERMISSION_DENIED, with the reason.
pub(super) fn check(
    node: &Node,
    given: &[u8],
    volumes: &Volumes,
    from: &SiteName,
    to: &SiteName,
    stage: Stage,
) -> Result<(), Status> {
    // The VM, and how fast its memory goes, is for the migrators to look at.
    let claim = Claim { vm: None, volumes, from, to, rate: None, stage };
    let checked = verified(given, node.tokens, &claim, &node.tls.credentials(), wall_time());
    match checked {
        Ok(Some(signed)) => {
            let (token, vm, signer) = (signed.token().id(), signed.token().vm(), signed.signer());
            tracing::info!(%token, %vm, %signer, ?stage, "volumes that move with a VM have a token");
            Ok(())
        }
        Ok(None) => Ok(()),
        Err(error) => {
            tracing::warn!(%from, %to, ?stage, %error, "volumes that are to move with a VM are refused");
            Err(Status::permission_denied(error.to_string()))
        }
    }
}
