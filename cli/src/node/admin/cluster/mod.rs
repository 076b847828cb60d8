//! What administrators ask about the cluster (`proto/cluster.proto`).
//!
//! * [`nodes`]: who there is, and how each answers. [`tokens`]: by which new ones come in. [`layout`]: who decides.
//! * [`links`]: what goes from site to site. [`outage`]: what would be left without one. [`session`]: how long nodes' sessions last.
//! * [`administrators`]: certificates for those who come over the network.

mod administrators;
mod layout;
mod links;
mod nodes;
mod outage;
mod session;
mod tokens;

use std::sync::Arc;

use sterna_proto::cluster;
use sterna_proto::cluster::cluster_server::Cluster;
use tonic::{Request, Response, Status};

use super::work::to_the_end;
use crate::node::node::Node;

/// What administrators can ask of a node about its cluster.
pub(in crate::node) struct ClusterService {
    node: Arc<Node>,
}

impl ClusterService {
    /// That of `node`.
    pub(in crate::node) fn new(node: Arc<Node>) -> Self {
        Self { node }
    }

    fn node(&self) -> Arc<Node> {
        Arc::clone(&self.node)
    }
}

type Reply<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Cluster for ClusterService {
    async fn list_nodes(&self, _: Request<cluster::ListNodesRequest>) -> Reply<cluster::ListNodesReply> {
        Ok(Response::new(nodes::list(&self.node).await))
    }

    async fn create_token(&self, request: Request<cluster::CreateTokenRequest>) -> Reply<cluster::CreateTokenReply> {
        to_the_end(tokens::create(self.node(), request.into_inner())).await.map(Response::new)
    }

    async fn list_tokens(&self, _: Request<cluster::ListTokensRequest>) -> Reply<cluster::ListTokensReply> {
        tokens::list(&self.node).await.map(Response::new)
    }

    async fn revoke_token(&self, request: Request<cluster::RevokeTokenRequest>) -> Reply<cluster::RevokeTokenReply> {
        to_the_end(tokens::revoke(self.node(), request.into_inner())).await.map(Response::new)
    }

    async fn show_sessions(&self, _: Request<cluster::ShowSessionsRequest>) -> Reply<cluster::Sessions> {
        session::show(&self.node).await.map(Response::new)
    }

    async fn set_session_length(&self, request: Request<cluster::SetSessionLengthRequest>) -> Reply<cluster::Sessions> {
        to_the_end(session::set_length(self.node(), request.into_inner())).await.map(Response::new)
    }

    async fn list_links(&self, _: Request<cluster::ListLinksRequest>) -> Reply<cluster::ListLinksReply> {
        links::list(&self.node).await.map(Response::new)
    }

    async fn set_link_limit(&self, request: Request<cluster::SetLinkLimitRequest>) -> Reply<cluster::ListLinksReply> {
        to_the_end(links::set_limit(self.node(), request.into_inner())).await.map(Response::new)
    }

    async fn show_outage(&self, request: Request<cluster::ShowOutageRequest>) -> Reply<cluster::Outage> {
        outage::show(&self.node, &request.into_inner()).await.map(Response::new)
    }

    async fn create_administrator(
        &self,
        request: Request<cluster::CreateAdministratorRequest>,
    ) -> Reply<cluster::CreateAdministratorReply> {
        administrators::create(&self.node, request.into_inner()).await.map(Response::new)
    }

    async fn show_layout(&self, _: Request<cluster::ShowLayoutRequest>) -> Reply<cluster::Layout> {
        layout::show(&self.node).await.map(Response::new)
    }

    async fn stage_change(&self, request: Request<cluster::StageChangeRequest>) -> Reply<cluster::Layout> {
        to_the_end(layout::stage(self.node(), request.into_inner())).await.map(Response::new)
    }

    async fn discard_changes(&self, _: Request<cluster::DiscardChangesRequest>) -> Reply<cluster::Layout> {
        to_the_end(layout::discard(self.node())).await.map(Response::new)
    }

    async fn apply_changes(&self, request: Request<cluster::ApplyChangesRequest>) -> Reply<cluster::Layout> {
        to_the_end(layout::apply(self.node(), request.into_inner())).await.map(Response::new)
    }
}
