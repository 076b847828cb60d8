//! The cluster: its nodes, tokens for new ones, and who decides.

use anyhow::{Context, Result};
use serde::Serialize;
use sterna_proto::cluster::node_change::Kind;
use sterna_proto::cluster::{
    ApplyChangesRequest, CreateTokenRequest, DiscardChangesRequest, Layout, ListNodesRequest, ListTokensRequest, Node,
    NodeChange, RevokeTokenRequest, ShowLayoutRequest, StageChangeRequest, Token,
};
use sterna_types::NodeName;

use super::Session;
use super::client::CallError;
use super::views::if_any;
use crate::args::ClusterCommand;
use crate::args::cluster::{AdministratorCommand, CreateToken, NodeChangeCommand, TokenCommand};
use crate::console::table::{Facts, Table};
use crate::console::text::utc;

/// A node as it is shown.
#[derive(Serialize)]
pub(super) struct NodeView {
    id: u64,
    name: String,
    site: String,
    address: Option<String>,
    leads: bool,
    votes: bool,
    drains: bool,
    session: String,
    volumes: u64,
    round_trip_ms: Option<f64>,
    lag_entries: Option<u64>,
    version: Option<String>,
    knows: u32,
    silence: Option<String>,
}

/// What is known of the nodes, and whether that is all that was decided.
pub(super) struct Nodes {
    pub(super) views: Vec<NodeView>,
    pub(super) cut_off: Option<String>,
    pub(super) metadata_version: u32,
}

#[derive(Serialize)]
struct TokenView {
    id: String,
    expires_at_ms: u64,
    site: Option<String>,
    used_by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
}

#[derive(Serialize)]
struct LayoutView {
    revision: u64,
    voters: Vec<String>,
    draining: Vec<String>,
    staged: Vec<String>,
    voters_after: Vec<String>,
    removed_after: Vec<String>,
}

impl Session {
    pub(super) async fn cluster(&mut self, command: ClusterCommand) -> Result<()> {
        match command {
            ClusterCommand::Status => self.status().await,
            ClusterCommand::Token { command: TokenCommand::Create(create) } => self.create_token(create).await,
            ClusterCommand::Token { command: TokenCommand::List } => self.list_tokens().await,
            ClusterCommand::Token { command: TokenCommand::Revoke { id } } => self.revoke_token(id).await,
            ClusterCommand::Admin { command: AdministratorCommand::Create(create) } => {
                self.create_administrator(create).await
            }
            ClusterCommand::Node { command } => {
                let request = StageChangeRequest { change: Some(change(command)) };
                let layout = self.node.cluster.stage_change(request).await.map_err(CallError::from)?.into_inner();
                self.layout(layout)
            }
            ClusterCommand::Link(settings) => self.links(settings).await,
            ClusterCommand::Session(settings) => self.sessions(settings).await,
            ClusterCommand::Without { site } => self.outage(site).await,
            ClusterCommand::Changes => {
                let layout = self.node.cluster.show_layout(ShowLayoutRequest {}).await.map_err(CallError::from)?;
                self.layout(layout.into_inner())
            }
            ClusterCommand::Apply { revision } => {
                let request = ApplyChangesRequest { revision };
                let layout = self.node.cluster.apply_changes(request).await.map_err(CallError::from)?.into_inner();
                self.layout(layout)
            }
            ClusterCommand::Discard => {
                let layout = self.node.cluster.discard_changes(DiscardChangesRequest {}).await;
                self.layout(layout.map_err(CallError::from)?.into_inner())
            }
        }
    }

    /// The nodes as the node that was asked sees them.
    pub(super) async fn nodes(&mut self) -> Result<Nodes> {
        let reply = self.node.cluster.list_nodes(ListNodesRequest {}).await.map_err(CallError::from)?.into_inner();
        let cut_off = (!reply.is_current).then_some(reply.cut_off);
        let metadata_version = reply.metadata_version;
        Ok(Nodes { views: reply.nodes.into_iter().map(view).collect(), cut_off, metadata_version })
    }

    async fn create_token(&mut self, create: CreateToken) -> Result<()> {
        let request = CreateTokenRequest {
            site: create.site.map(|site| site.to_string()).unwrap_or_default(),
            lifetime_ms: u64::try_from(create.expires.as_millis()).context("the token would last too long")?,
        };
        let reply = self.node.cluster.create_token(request).await.map_err(CallError::from)?.into_inner();
        let view = TokenView { token: Some(reply.text.clone()), ..token_view(reply.token.unwrap_or_default()) };
        self.output.result(&view, reply.text)
    }

    async fn list_tokens(&mut self) -> Result<()> {
        let reply = self.node.cluster.list_tokens(ListTokensRequest {}).await.map_err(CallError::from)?.into_inner();
        let mut table = Table::new(["TOKEN", "SITE", "EXPIRES", "USED BY"]);
        for token in reply.tokens.into_iter().map(token_view) {
            if self.output.is_json() {
                self.output.value(&token)?;
                continue;
            }
            let TokenView { id, site, expires_at_ms, used_by, .. } = token;
            table.row([id, site.unwrap_or_default(), utc(expires_at_ms), used_by.unwrap_or_default()]);
        }
        if self.output.is_json() { Ok(()) } else { self.output.line(table) }
    }

    async fn revoke_token(&mut self, id: String) -> Result<()> {
        let request = RevokeTokenRequest { id: id.clone() };
        self.node.cluster.revoke_token(request).await.map_err(CallError::from)?;
        self.output.result(&serde_json::json!({ "revoked": id }), format!("token {id} lets nobody in any more"))
    }

    fn layout(&mut self, layout: Layout) -> Result<()> {
        let view = LayoutView {
            revision: layout.revision,
            voters: layout.voters,
            draining: layout.draining,
            staged: layout.staged.iter().map(change_text).collect(),
            voters_after: layout.voters_after,
            removed_after: layout.removed_after,
        };
        let mut facts = vec![
            ("revision", view.revision.to_string()),
            ("voters", view.voters.join(", ")),
            ("draining", view.draining.join(", ")),
        ];
        if !view.staged.is_empty() {
            facts.push(("staged", view.staged.join(", ")));
            facts.push(("voters after that", view.voters_after.join(", ")));
            facts.push(("removed by that", view.removed_after.join(", ")));
            facts.push(("to make these", format!("sterna cluster apply {}", view.revision)));
        }
        facts.retain(|(_, value)| !value.is_empty());
        self.output.result(&view, Facts::new(facts))
    }
}

/// The version of the metadata, and which nodes keep it from being a later one that others understand.
pub(super) fn metadata_version(version: u32, nodes: &[NodeView]) -> String {
    let highest = nodes.iter().map(|node| node.knows).max().unwrap_or(version);
    let older: Vec<_> = nodes.iter().filter(|node| node.knows < highest).map(|node| node.name.as_str()).collect();
    match older.as_slice() {
        [] => format!("version {version}"),
        _ if highest <= version => format!("version {version}"),
        [.., _, _, _, _] => format!("version {version}; {highest} once {} nodes have newer programs", older.len()),
        few => format!("version {version}; {highest} once {} has a newer program", few.join(", ")),
    }
}

/// The nodes in columns.
pub(super) fn table(nodes: &[NodeView]) -> Table {
    let mut table = Table::new(["NODE", "SITE", "ROLE", "SESSION", ">VOLUMES", ">RTT MS", ">LAG", "ADDRESS"]);
    for node in nodes {
        let role = match (node.leads, node.votes) {
            (true, _) => "leader",
            (false, true) => "voter",
            (false, false) => "learner",
        };
        let role = if node.drains { format!("{role}, draining") } else { role.to_owned() };
        let no_answer = || "-".to_owned();
        table.row([
            node.name.clone(),
            node.site.clone(),
            role,
            node.session.clone(),
            node.volumes.to_string(),
            node.round_trip_ms.map_or_else(no_answer, |ms| format!("{ms:.1}")),
            node.lag_entries.map_or_else(no_answer, |lag| lag.to_string()),
            node.silence.clone().or_else(|| node.address.clone()).unwrap_or_default(),
        ]);
    }
    table
}

fn view(node: Node) -> NodeView {
    let answer = node.answer;
    NodeView {
        id: node.id,
        name: node.name,
        site: node.site,
        address: if_any(node.address),
        leads: node.leads,
        votes: node.votes,
        drains: node.drains,
        session: node.session,
        volumes: node.volumes,
        round_trip_ms: answer.as_ref().map(|answer| answer.round_trip_ms),
        lag_entries: answer.as_ref().map(|answer| answer.lag_entries),
        version: answer.map(|answer| answer.version),
        knows: node.knows,
        silence: if_any(node.silence),
    }
}

fn token_view(token: Token) -> TokenView {
    TokenView {
        id: token.id,
        expires_at_ms: token.expires_at_ms,
        site: if_any(token.site),
        used_by: if_any(token.used_by),
        token: None,
    }
}

fn change(command: NodeChangeCommand) -> NodeChange {
    let one = |kind: Kind, node: &NodeName| NodeChange { kind: kind.into(), node: node.to_string(), by: String::new() };
    match command {
        NodeChangeCommand::Promote(of) => one(Kind::Promote, &of.node),
        NodeChangeCommand::Demote(of) => one(Kind::Demote, &of.node),
        NodeChangeCommand::Drain(of) => one(Kind::Drain, &of.node),
        NodeChangeCommand::Undrain(of) => one(Kind::Undrain, &of.node),
        NodeChangeCommand::Remove(of) => one(Kind::Remove, &of.node),
        NodeChangeCommand::Replace { node, by } => NodeChange { by: by.to_string(), ..one(Kind::Replace, &node) },
    }
}

fn change_text(change: &NodeChange) -> String {
    let what = match change.kind() {
        Kind::Unknown => "something that this program does not know",
        Kind::Promote => "promote",
        Kind::Demote => "demote",
        Kind::Drain => "drain",
        Kind::Undrain => "undrain",
        Kind::Remove => "remove",
        Kind::Replace => "replace",
    };
    if change.by.is_empty() {
        format!("{what} {}", change.node)
    } else {
        format!("{what} {} by {}", change.node, change.by)
    }
}
