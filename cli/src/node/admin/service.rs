//! The gRPC service: from each call to the function that carries it out.

use std::sync::Arc;

use sterna_nbd_server::NbdServer;
use sterna_proto::admin;
use sterna_proto::admin::admin_server::Admin;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::work::{Replies, to_the_end};
use super::{
    bucket, clone, collect, create, delete, diff, export, failover, import, map, migrators, move_in_steps,
    move_volumes, node_status, replica, resize, restore, scrub, set, show, snapshot, verify,
};
use crate::node::node::Node;

/// What administrators can ask of a node.
pub(in crate::node) struct Service {
    node: Arc<Node>,
    nbd: Arc<NbdServer>,
    uris: Vec<String>,
}

impl Service {
    /// That of `node`, whose volumes are served by `nbd` at `uris`.
    pub(in crate::node) fn new(node: Arc<Node>, nbd: Arc<NbdServer>, uris: Vec<String>) -> Self {
        Self { node, nbd, uris }
    }

    /// Cancelled when the node shuts down.
    pub(super) fn stopping(&self) -> CancellationToken {
        self.node.stopping.clone()
    }

    pub(super) fn node(&self) -> Arc<Node> {
        Arc::clone(&self.node)
    }
}

type Reply<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Admin for Service {
    type MoveVolumesStream = Replies<admin::MoveVolumesReply>;
    type ImportVolumeStream = Replies<admin::ImportVolumeReply>;
    type ExportVolumeStream = Replies<admin::ExportVolumeReply>;
    type VerifyVolumeStream = Replies<admin::VerifyVolumeReply>;
    type CollectGarbageStream = Replies<admin::CollectGarbageReply>;
    type ScrubStream = Replies<admin::ScrubReply>;
    type RestoreVolumeStream = Replies<admin::RestoreVolumeReply>;
    type CollectBucketStream = Replies<admin::CollectBucketReply>;
    type DiffVolumesStream = Replies<admin::ChangedRange>;
    type MapVolumeStream = Replies<admin::MappedRange>;

    async fn status(&self, _: Request<admin::StatusRequest>) -> Reply<admin::StatusReply> {
        node_status::status(&self.node, &self.nbd, &self.uris).await.map(Response::new)
    }

    async fn create_volume(&self, request: Request<admin::CreateVolumeRequest>) -> Reply<admin::Volume> {
        to_the_end(create::create(self.node(), request.into_inner())).await.map(Response::new)
    }

    async fn list_volumes(&self, _: Request<admin::ListVolumesRequest>) -> Reply<admin::ListVolumesReply> {
        show::list(self.node()).await.map(Response::new)
    }

    async fn show_volume(&self, request: Request<admin::ShowVolumeRequest>) -> Reply<admin::ShowVolumeReply> {
        show::show(self.node(), request.into_inner()).await.map(Response::new)
    }

    async fn resize_volume(&self, request: Request<admin::ResizeVolumeRequest>) -> Reply<admin::Volume> {
        to_the_end(resize::resize(self.node(), request.into_inner())).await.map(Response::new)
    }

    async fn set_volume(&self, request: Request<admin::SetVolumeRequest>) -> Reply<admin::Volume> {
        to_the_end(set::set(self.node(), request.into_inner())).await.map(Response::new)
    }

    async fn delete_volume(&self, request: Request<admin::DeleteVolumeRequest>) -> Reply<admin::DeleteVolumeReply> {
        to_the_end(delete::delete_volume(self.node(), request.into_inner())).await.map(Response::new)
    }

    async fn clone_volume(&self, request: Request<admin::CloneVolumeRequest>) -> Reply<admin::Volume> {
        to_the_end(clone::clone(self.node(), request.into_inner())).await.map(Response::new)
    }

    async fn create_snapshot(&self, request: Request<admin::CreateSnapshotRequest>) -> Reply<admin::Snapshot> {
        to_the_end(snapshot::create(self.node(), request.into_inner())).await.map(Response::new)
    }

    async fn delete_snapshot(
        &self,
        request: Request<admin::DeleteSnapshotRequest>,
    ) -> Reply<admin::DeleteSnapshotReply> {
        to_the_end(delete::delete_snapshot(self.node(), request.into_inner())).await.map(Response::new)
    }

    async fn set_replica(&self, request: Request<admin::SetReplicaRequest>) -> Reply<admin::ListReplicasReply> {
        to_the_end(replica::set(self.node(), request.into_inner())).await.map(Response::new)
    }

    async fn unset_replica(&self, request: Request<admin::UnsetReplicaRequest>) -> Reply<admin::ListReplicasReply> {
        to_the_end(replica::unset(self.node(), request.into_inner())).await.map(Response::new)
    }

    async fn list_replicas(&self, request: Request<admin::ListReplicasRequest>) -> Reply<admin::ListReplicasReply> {
        replica::list(self.node(), request.into_inner()).await.map(Response::new)
    }

    async fn move_volumes(&self, request: Request<admin::MoveVolumesRequest>) -> Reply<Self::MoveVolumesStream> {
        Ok(move_volumes::run(&self.node, request.into_inner()))
    }

    type MoveInStepsStream = Replies<admin::MoveVolumesReply>;

    async fn move_in_steps(
        &self,
        request: Request<Streaming<admin::MoveInStepsRequest>>,
    ) -> Reply<Self::MoveInStepsStream> {
        Ok(move_in_steps::run(&self.node, request.into_inner()))
    }

    async fn await_volumes(&self, request: Request<admin::AwaitVolumesRequest>) -> Reply<admin::AwaitVolumesReply> {
        move_volumes::until_served(self.node(), request.into_inner()).await.map(Response::new)
    }

    async fn resume_clients(&self, request: Request<admin::ResumeClientsRequest>) -> Reply<admin::ResumeClientsReply> {
        to_the_end(move_volumes::resume_clients(self.node(), request.into_inner())).await.map(Response::new)
    }

    async fn find_migrators(&self, request: Request<admin::FindMigratorsRequest>) -> Reply<admin::FindMigratorsReply> {
        migrators::find(&self.node, request.into_inner()).await.map(Response::new)
    }

    async fn fail_over(&self, request: Request<admin::FailOverRequest>) -> Reply<admin::FailOverReply> {
        to_the_end(failover::fail_over(self.node(), request.into_inner())).await.map(Response::new)
    }

    async fn import_volume(&self, request: Request<admin::ImportVolumeRequest>) -> Reply<Self::ImportVolumeStream> {
        Ok(import::import(&self.node, request.into_inner()))
    }

    async fn export_volume(&self, request: Request<admin::ExportVolumeRequest>) -> Reply<Self::ExportVolumeStream> {
        Ok(export::export(&self.node, request.into_inner()))
    }

    async fn verify_volume(&self, request: Request<admin::VerifyVolumeRequest>) -> Reply<Self::VerifyVolumeStream> {
        Ok(verify::run(&self.node, request.into_inner()))
    }

    async fn collect_garbage(&self, _: Request<admin::CollectGarbageRequest>) -> Reply<Self::CollectGarbageStream> {
        Ok(collect::collect(&self.node))
    }

    async fn scrub(&self, request: Request<admin::ScrubRequest>) -> Reply<Self::ScrubStream> {
        Ok(scrub::run(&self.node, request.into_inner()))
    }

    async fn bucket_status(&self, _: Request<admin::BucketStatusRequest>) -> Reply<admin::BucketStatusReply> {
        bucket::status(&self.node).map(Response::new)
    }

    async fn list_bucket(&self, _: Request<admin::ListBucketRequest>) -> Reply<admin::ListBucketReply> {
        bucket::list(&self.node).await.map(Response::new)
    }

    async fn restore_volume(&self, request: Request<admin::RestoreVolumeRequest>) -> Reply<Self::RestoreVolumeStream> {
        Ok(restore::restore(&self.node, request.into_inner()))
    }

    async fn forget_volume(&self, request: Request<admin::ForgetVolumeRequest>) -> Reply<admin::ForgetVolumeReply> {
        to_the_end(bucket::forget(self.node(), request.into_inner())).await.map(Response::new)
    }

    async fn collect_bucket(&self, _: Request<admin::CollectBucketRequest>) -> Reply<Self::CollectBucketStream> {
        Ok(bucket::collect(&self.node))
    }

    async fn diff_volumes(&self, request: Request<admin::DiffVolumesRequest>) -> Reply<Self::DiffVolumesStream> {
        Ok(diff::diff(&self.node, request.into_inner()))
    }

    async fn map_volume(&self, request: Request<admin::MapVolumeRequest>) -> Reply<Self::MapVolumeStream> {
        Ok(map::map(&self.node, request.into_inner()))
    }
}
