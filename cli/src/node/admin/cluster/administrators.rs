//! Certificates for administrators who come over the network. They are kept nowhere: what ends one is its expiry, and so its lifetime
//! is bounded.

use std::time::Duration;

use sterna_proto::cluster::{CreateAdministratorReply, CreateAdministratorRequest};
use sterna_transport::{AdministratorName, CertificateRequest, Role, Subject};
use tonic::Status;

use crate::args::cluster::LONGEST_ADMINISTRATOR;
use crate::node::admin::request::parsed;
use crate::node::authority;
use crate::node::node::Node;

/// Signs one.
pub(super) async fn create(
    node: &Node,
    request: CreateAdministratorRequest,
) -> Result<CreateAdministratorReply, Status> {
    let invalid = |what: &dyn std::fmt::Display| Status::invalid_argument(what.to_string());
    let (name, role) = (parsed::<AdministratorName>(&request.name)?, parsed::<Role>(&request.role)?);
    let lifetime = Duration::from_millis(request.lifetime_ms);
    if lifetime.is_zero() || lifetime > LONGEST_ADMINISTRATOR {
        return Err(invalid(&format!("an administrator's certificate lasts from 1 ms to 365 days, not {lifetime:?}")));
    }
    let signing = CertificateRequest::from_der(&request.certificate_request).map_err(|error| invalid(&error))?;
    let address = node.metadata.read().node(node.metadata.id()).and_then(|node| node.address);
    let address = address.ok_or_else(|| {
        Status::failed_precondition(
            "nobody reaches this node over the network: set [cluster] listen in its sterna.toml, and start it anew",
        )
    })?;
    let authority = authority::to_sign(node).await?;
    let signed = authority.sign(&signing, &Subject::Administrator { name: name.clone(), role }, lifetime);
    let signed = signed.map_err(|error| Status::internal(error.to_string()))?;
    tracing::info!(%name, %role, ?lifetime, "an administrator has a certificate");
    let authorities = node.tls.credentials().authorities().iter().map(|ca| ca.der().to_vec()).collect();
    Ok(CreateAdministratorReply { certificate: signed.der().to_vec(), authorities, address: address.to_string() })
}
