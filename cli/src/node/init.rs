//! `sterna node init`: the data directory of a new node.

use anyhow::{Context, Result};
use serde::Serialize;
use sterna_consensus::state::command::Bootstrap;
use sterna_consensus::{MetadataConfig, MetadataNode};
use sterna_types::{ClusterId, NodeName};

use super::directory::UnfinishedDirectory;
use super::format::Identity;
use super::template::TEMPLATE;
use super::{random, storage};
use crate::args::node::Init;

/// Makes it, with a new cluster in which this node is the only one. All of it is durable on return, or nothing of it is
/// left.
///
/// # Errors
/// What is wrong with the directory or the disk.
pub(super) fn run(init: Init, json: bool) -> Result<()> {
    let node = match init.name {
        Some(name) => name,
        None => default_name(&init.site.to_string())?,
    };
    let identity = Identity { cluster: ClusterId::from_bytes(random::bytes()?), node, site: init.site };
    let unfinished = UnfinishedDirectory::begin(&init.directory, identity.clone())?;
    unfinished.write_config(TEMPLATE)?;
    let directory = unfinished.directory();
    storage::create_index(directory)?;
    let bootstrap = Bootstrap {
        cluster: identity.cluster,
        site: identity.site.clone(),
        node: identity.node.clone(),
        address: init.listen,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let made = MetadataNode::bootstrap(&directory.metadata(), MetadataConfig::default(), bootstrap).await;
        made.context("cannot make the metadata")?.shutdown().await;
        anyhow::Ok(())
    })?;
    let root = directory.root().to_owned();
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
        println!("node {node} at {site}, the first of cluster {cluster}, is in {directory}");
        println!("settings: {directory}/sterna.toml; start it: sterna node run {directory}");
    }
    Ok(())
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
