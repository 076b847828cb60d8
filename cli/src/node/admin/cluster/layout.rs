//! The layout: who votes, who drains, and what is staged.

use std::sync::Arc;

use sterna_consensus::Metadata;
use sterna_consensus::state::command::Command;
use sterna_consensus::state::layout::{LayoutRevision, NodeChange};
use sterna_proto::cluster;
use sterna_proto::cluster::node_change::Kind;
use sterna_types::{NodeId, NodeName};
use tonic::Status;

use crate::node::admin::lookup::metadata;
use crate::node::admin::request::parsed;
use crate::node::admin::status::IntoStatus;
use crate::node::node::Node;

/// As it is.
pub(super) async fn show(node: &Node) -> Result<cluster::Layout, Status> {
    Ok(shown(&*metadata(node).await?))
}

/// One more change.
pub(super) async fn stage(node: Arc<Node>, request: cluster::StageChangeRequest) -> Result<cluster::Layout, Status> {
    let change = request.change.ok_or_else(|| Status::invalid_argument("which change is to be staged is not said"))?;
    let change = change_of(&*metadata(&node).await?, &change)?;
    propose(&node, Command::StageChange(change)).await
}

/// None any more.
pub(super) async fn discard(node: Arc<Node>) -> Result<cluster::Layout, Status> {
    propose(&node, Command::DiscardChanges).await
}

/// All of them are made.
pub(super) async fn apply(node: Arc<Node>, request: cluster::ApplyChangesRequest) -> Result<cluster::Layout, Status> {
    propose(&node, Command::ApplyChanges { revision: LayoutRevision(request.revision) }).await
}

async fn propose(node: &Node, command: Command) -> Result<cluster::Layout, Status> {
    node.metadata.propose(command).await.map_err(|error| error.about("the layout"))?;
    Ok(shown(&node.metadata.read()))
}

fn change_of(metadata: &Metadata, change: &cluster::NodeChange) -> Result<NodeChange, Status> {
    let node = |name: &str| id_of(metadata, name);
    let id = node(&change.node)?;
    match change.kind() {
        Kind::Unknown => Err(Status::invalid_argument("this kind of change is not known")),
        Kind::Promote => Ok(NodeChange::Promote(id)),
        Kind::Demote => Ok(NodeChange::Demote(id)),
        Kind::Drain => Ok(NodeChange::Drain(id)),
        Kind::Undrain => Ok(NodeChange::Undrain(id)),
        Kind::Remove => Ok(NodeChange::Remove(id)),
        Kind::Replace => Ok(NodeChange::Replace(id, node(&change.by)?)),
    }
}

fn id_of(metadata: &Metadata, name: &str) -> Result<NodeId, Status> {
    let name: NodeName = parsed(name)?;
    let found = metadata.nodes().find(|node| node.name == name);
    found.map(|node| node.id).ok_or_else(|| Status::not_found(format!("there is no node '{name}'")))
}

fn shown(metadata: &Metadata) -> cluster::Layout {
    let name = |id: &NodeId| metadata.node(*id).map_or_else(|| id.to_string(), |node| node.name.to_string());
    let names = |ids: &mut dyn Iterator<Item = &NodeId>| -> Vec<String> { ids.map(name).collect() };
    let layout = metadata.layout();
    // Changes that cannot be made any more come to nothing; applying them says why.
    let (voters_after, removed_after) = match metadata.applied_layout(layout) {
        Ok((after, removed)) => (names(&mut after.voters.iter()), names(&mut removed.iter())),
        Err(_) => (Vec::new(), Vec::new()),
    };
    cluster::Layout {
        revision: layout.revision.0,
        voters: names(&mut layout.voters.iter()),
        draining: names(&mut layout.draining.iter()),
        staged: layout.staged.iter().map(|change| change_shown(*change, &name)).collect(),
        voters_after,
        removed_after,
    }
}

fn change_shown(change: NodeChange, name: &impl Fn(&NodeId) -> String) -> cluster::NodeChange {
    let (kind, node, by) = match change {
        NodeChange::Promote(node) => (Kind::Promote, node, None),
        NodeChange::Demote(node) => (Kind::Demote, node, None),
        NodeChange::Drain(node) => (Kind::Drain, node, None),
        NodeChange::Undrain(node) => (Kind::Undrain, node, None),
        NodeChange::Remove(node) => (Kind::Remove, node, None),
        NodeChange::Replace(node, by) => (Kind::Replace, node, Some(by)),
    };
    cluster::NodeChange { kind: kind.into(), node: name(&node), by: by.as_ref().map(name).unwrap_or_default() }
}
