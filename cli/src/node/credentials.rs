//! Who this node is to others: its key and certificate, and where it holds it, the cluster's authority (`pki` in the data
//! directory).
//!
//! The first node makes the authority, and signs its own certificate with it. Every other node brings a token and its public
//! key, and is sent a certificate ([`super::join`]). Voters get a copy of the authority ([`super::authority`]).

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use sterna_transport::{Authority, CredentialFiles, Credentials, PrivateKey, Subject};
use sterna_types::{ClusterId, NodeId};

/// The files of a data directory.
pub(super) fn files(directory: &Path) -> CredentialFiles {
    CredentialFiles::new(directory.join(PKI))
}

/// Makes a cluster's authority, and with it the credentials of its first node, valid for `lifetime`. Durable on return.
///
/// # Errors
/// What the system says.
pub(super) fn create(files: &CredentialFiles, cluster: ClusterId, lifetime: Duration) -> Result<()> {
    // One whose making was interrupted behind its first file goes on with that.
    let authority = match files.load_authority()?.filter(|authority| authority.cluster() == cluster) {
        Some(authority) => authority,
        None => Authority::create(cluster).context("cannot make the cluster's authority")?,
    };
    let key = PrivateKey::generate().context("cannot make a key")?;
    let certificate = authority.sign(&key.request()?, &Subject::Node(NodeId::FIRST), lifetime)?;
    let credentials = Credentials::new(key, certificate, vec![authority.certificate().clone()])?;
    // The node counts as having credentials once the second file is there.
    files.store_authority(&authority).context("cannot keep the cluster's authority")?;
    files.store(&credentials).context("cannot keep the node's credentials")
}

/// The credentials of a complete data directory. One that an earlier version made has none yet, and gets them: its node has always
/// been the only one.
///
/// # Errors
/// They cannot be read, or do not belong to this cluster.
pub(super) fn load_or_create(
    files: &CredentialFiles,
    cluster: ClusterId,
    metadata: &Path,
    lifetime: Duration,
) -> Result<Credentials> {
    if !files.identity_path().exists() {
        let found = sterna_consensus::read_only(metadata)?;
        let lone = found.metadata.nodes().count() == 1 && found.metadata.node(NodeId::FIRST).is_some();
        ensure!(
            lone && found.damage.is_none(),
            "the node's credentials are missing ({}): restore them from a copy, or replace this node by a new one",
            files.identity_path().display()
        );
        tracing::info!("an earlier version made this node; it gets a key, and its cluster an authority");
        create(files, cluster, lifetime)?;
    }
    let credentials = files.load()?;
    ensure!(
        credentials.cluster() == cluster,
        "the node's credentials are for cluster {}, and it belongs to {cluster}: restore both from one copy",
        credentials.cluster()
    );
    Ok(credentials)
}

/// The directory of these files in a data directory.
pub(super) const PKI: &str = "pki";
