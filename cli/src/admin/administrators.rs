//! Certificates for administrators who come over the network. The key is made here, and the node never sees it.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use sterna_proto::cluster::CreateAdministratorRequest;
use sterna_transport::{AuthorityCertificate, Credentials, PrivateKey, SignedCertificate, store_administrator};

use super::Session;
use super::client::CallError;
use crate::args::cluster::CreateAdministrator;
use crate::console::text::utc;

#[derive(Serialize)]
struct AdministratorView {
    name: String,
    role: String,
    file: String,
    node: String,
    expires_at_ms: u64,
}

impl Session {
    pub(super) async fn create_administrator(&mut self, create: CreateAdministrator) -> Result<()> {
        let CreateAdministrator { name, role, lifetime, out } = create;
        let shown = out.display().to_string();
        ensure!(!out.exists(), "{shown} is there already: give another path");
        let key = PrivateKey::generate()?;
        let request = CreateAdministratorRequest {
            name: name.to_string(),
            role: role.to_string(),
            lifetime_ms: u64::try_from(lifetime.as_millis()).context("the certificate would last too long")?,
            certificate_request: key.request()?.der().to_vec(),
        };
        let reply = self.node.cluster.create_administrator(request).await.map_err(CallError::from)?.into_inner();
        let certificate = SignedCertificate::from_der(&reply.certificate).context("the certificate that was sent")?;
        let authorities = reply.authorities.iter().map(|der| AuthorityCertificate::from_der(der));
        let authorities = authorities.collect::<Result<Vec<_>, _>>().context("the authority that was sent")?;
        let credentials = Credentials::new(key, certificate, authorities).context("the certificate that was sent")?;
        let node: SocketAddr = reply.address.parse().context("the node does not say where it is reached")?;
        store_administrator(&out, &credentials, node)?;
        let expires = credentials.not_after().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_millis();
        let view = AdministratorView {
            name: name.to_string(),
            role: role.to_string(),
            file: shown,
            node: node.to_string(),
            expires_at_ms: u64::try_from(expires).unwrap_or(u64::MAX),
        };
        let text = format!(
            "{} is the secret of {role} {name}, until {} (UTC): sterna --identity {} cluster status",
            view.file,
            utc(view.expires_at_ms),
            view.file
        );
        self.output.result(&view, text)
    }
}
