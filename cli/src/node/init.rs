//! `sterna node init`: the data directory of a new node, the first of its cluster or one that joins.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use serde::Serialize;
use sterna_consensus::state::command::Bootstrap;
use sterna_consensus::{MetadataConfig, MetadataNode};
use sterna_runtime::chance;
use sterna_transport::JoinToken;
use sterna_types::{ClusterId, NodeName};

use super::config::ClusterConfig;
use super::directory::{DataDirectory, UnfinishedDirectory};
use super::format::Identity;
use super::join::{Newcomer, join};
use super::template::template;
use super::{credentials, storage};
use crate::args::node::Init;

/// Makes it. All of it is durable on return, or nothing of it is left.
///
/// # Errors
/// What is wrong with the directory or the disk, or why the cluster did not let the node in.
pub(super) fn run(init: Init, json: bool) -> Result<()> {
    let node = match init.name {
        Some(name) => name,
        None => default_name(&init.site.to_string())?,
    };
    let cluster = match &init.cluster.join {
        Some(token) => token.cluster(),
        None => ClusterId::from_bytes(chance::bytes()?),
    };
    let identity = Identity { cluster, node, site: init.site };
    let unfinished = UnfinishedDirectory::begin(&init.directory, identity)?;
    unfinished.write_config(&template(init.listen))?;
    let directory = unfinished.directory();
    storage::create_index(directory)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        match init.cluster.join {
            None => begin_cluster(directory, init.listen).await,
            Some(token) => {
                let address = init.listen.context("a node that joins needs --listen, where the others reach it")?;
                join_cluster(directory, &token, address).await
            }
        }
    })?;
    let (root, identity) = (directory.root().to_owned(), directory.identity().clone());
    unfinished.complete()?;
    let made = Made {
        node: identity.node.to_string(),
        site: identity.site.to_string(),
        cluster: identity.cluster.to_string(),
        directory: root.display().to_string(),
    };
    if json {
        println!("{}", serde_json::to_string(&made)?);
    } else {
        let Made { node, site, cluster, directory } = made;
        println!("node {node} at {site}, of cluster {cluster}, is in {directory}");
        println!("settings: {directory}/sterna.toml; start it: sterna node run {directory}");
    }
    Ok(())
}

/// The metadata of a new cluster, its authority, and the credentials of its first node.
async fn begin_cluster(directory: &DataDirectory, address: Option<SocketAddr>) -> Result<()> {
    let Identity { cluster, node, site } = directory.identity().clone();
    let lifetime = ClusterConfig::default().certificate_lifetime;
    credentials::create(&credentials::files(directory.root()), cluster, lifetime)?;
    let bootstrap = Bootstrap { cluster, site, node, address };
    let made = MetadataNode::bootstrap(&directory.metadata(), MetadataConfig::default(), bootstrap).await;
    made.context("cannot make the metadata")?.shutdown().await;
    Ok(())
}

/// A place in a cluster that is there already.
async fn join_cluster(directory: &DataDirectory, token: &JoinToken, address: SocketAddr) -> Result<()> {
    let Identity { node: name, site, .. } = directory.identity().clone();
    let (node, credentials) = join(token, &Newcomer { name, site, address }).await?;
    credentials::files(directory.root()).store(&credentials).context("cannot keep the node's credentials")?;
    MetadataNode::prepare(&directory.metadata(), node).await.context("cannot make the metadata")
}

/// What is told when it is done.
#[derive(Serialize)]
struct Made {
    node: String,
    site: String,
    cluster: String,
    directory: String,
}

fn default_name(site: &str) -> Result<NodeName> {
    let name = format!("{site}-1");
    name.parse().with_context(|| format!("'{name}' is too long to name the node: give another name with --name"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_called_as_its_site_unless_that_is_too_long() {
        assert_eq!(default_name("ams").expect("a name").as_str(), "ams-1");
        let error = default_name(&"a".repeat(62)).expect_err("a name that is too long");
        assert!(error.to_string().contains("--name"), "{error}");
    }
}
