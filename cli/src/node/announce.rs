//! What a node says on stdout once it serves.

use std::io::Write;

use anyhow::Result;
use serde::Serialize;

use super::node::Node;
use super::sockets::Sockets;

/// Says which node is ready, and where. Whoever started it may wait for this line.
///
/// # Errors
/// Nobody reads it.
pub(super) fn announce(node: &Node, sockets: &Sockets, json: bool) -> Result<()> {
    let ready = Ready {
        node: node.identity.node.to_string(),
        site: node.identity.site.to_string(),
        cluster: node.identity.cluster.to_string(),
        directory: node.directory.display().to_string(),
        volumes: node.metadata.read().volume_count(),
        nbd: sockets.uris(),
    };
    let line = if json { serde_json::to_string(&ready)? } else { ready.for_people() };
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}")?;
    stdout.flush()?;
    Ok(())
}

#[derive(Serialize)]
struct Ready {
    node: String,
    site: String,
    cluster: String,
    directory: String,
    volumes: usize,
    nbd: Vec<String>,
}

impl Ready {
    fn for_people(&self) -> String {
        let Self { node, site, volumes, nbd, .. } = self;
        format!("node {node} at {site} is ready, {volumes} volumes: {}", nbd.join(", "))
    }
}
