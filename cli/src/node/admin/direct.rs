//! What a simulation asks of its nodes: the calls that administrators make, without a socket to make them on.

use std::io::{Read, Seek};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use sterna_proto::admin;
use sterna_storage_node::image;
use tokio_stream::StreamExt;
use tonic::Status;

use super::lookup::{Freshness, contents};
use super::{collect, create, delete, failover, move_volumes, replica, set, snapshot};
use crate::node::node::Node;

/// `sterna volume create`.
pub(in crate::node) async fn create(
    node: &Arc<Node>,
    name: &str,
    size_bytes: u64,
    durability: &str,
) -> Result<(), Status> {
    let (durability, attach) = (durability.to_owned(), "manual".to_owned());
    let request = admin::CreateVolumeRequest { name: name.to_owned(), size_bytes, durability, attach };
    create::create(Arc::clone(node), request).await.map(drop)
}

/// `sterna volume replica NAME set SITE MODE`.
pub(in crate::node) async fn set_replica(node: &Arc<Node>, volume: &str, site: &str, mode: &str) -> Result<(), Status> {
    let request = admin::SetReplicaRequest {
        volume: volume.to_owned(),
        site: site.to_owned(),
        mode: mode.to_owned(),
        node: String::new(),
    };
    replica::set(Arc::clone(node), request).await.map(drop)
}

/// `sterna volume set NAME --limit RATE`.
pub(in crate::node) async fn set_limit(node: &Arc<Node>, volume: &str, limit: &str) -> Result<(), Status> {
    let (name, limit) = (volume.to_owned(), limit.to_owned());
    set::set(Arc::clone(node), admin::SetVolumeRequest { name, limit, ..Default::default() }).await.map(drop)
}

/// `sterna volume failover NAME --to SITE --accept-loss`.
pub(in crate::node) async fn fail_over(
    node: &Arc<Node>,
    volume: &str,
    site: &str,
) -> Result<admin::FailOverReply, Status> {
    let request =
        admin::FailOverRequest { volume: volume.to_owned(), site: site.to_owned(), accept_loss: true, dry_run: false };
    failover::fail_over(Arc::clone(node), request).await
}

/// `sterna volume move NAME --to SITE --require REQUIREMENT`, interrupted where what has to be there is not there in time: the epoch that
/// has begun.
pub(in crate::node) async fn move_volume(
    node: &Arc<Node>,
    volume: &str,
    site: &str,
    require: &str,
) -> Result<u64, Status> {
    let request = admin::MoveVolumesRequest {
        volumes: vec![volume.to_owned()],
        site: site.to_owned(),
        node: String::new(),
        require: require.to_owned(),
    };
    let node = Arc::clone(node);
    // As the call does: whoever has asked may go away.
    let gone = tokio::time::sleep(PATIENCE);
    let moving = tokio::spawn(async move { move_volumes::move_volumes(&node, request, gone, |_| {}).await });
    let moved = moving.await.map_err(|panic| Status::internal(panic.to_string()))??;
    moved.volumes.first().map(|moved| moved.epoch).ok_or_else(|| Status::internal("nothing has moved"))
}

/// `sterna volume snapshot VOLUME NAME`.
pub(in crate::node) async fn snapshot(node: &Arc<Node>, volume: &str, name: &str) -> Result<(), Status> {
    let request = admin::CreateSnapshotRequest { volume: volume.to_owned(), name: name.to_owned() };
    snapshot::create(Arc::clone(node), request).await.map(drop)
}

/// `sterna volume delete VOLUME@NAME`.
pub(in crate::node) async fn delete_snapshot(node: &Arc<Node>, volume: &str, name: &str) -> Result<(), Status> {
    let request = admin::DeleteSnapshotRequest { volume: volume.to_owned(), name: name.to_owned() };
    delete::delete_snapshot(Arc::clone(node), request).await.map(drop)
}

/// `sterna volume delete NAME --with-snapshots`.
pub(in crate::node) async fn delete_volume(node: &Arc<Node>, name: &str) -> Result<(), Status> {
    let request = admin::DeleteVolumeRequest { name: name.to_owned(), with_snapshots: true };
    delete::delete_volume(Arc::clone(node), request).await.map(drop)
}

/// `sterna gc`.
pub(in crate::node) async fn collect(node: &Arc<Node>) -> Result<(), Status> {
    let mut steps = collect::collect(node).into_inner();
    while let Some(step) = steps.next().await {
        step?;
    }
    Ok(())
}

/// `sterna volume export SOURCE`, into memory.
pub(in crate::node) async fn export(node: &Arc<Node>, source: &str) -> Result<Vec<u8>, Status> {
    let contents = contents(node, source, Freshness::Now).await?;
    let own = Arc::clone(node);
    let exporting = node.background.upkeep(move || {
        let mut file = tempfile::tempfile().map_err(|error| error.to_string())?;
        let (root, size) = (contents.root, contents.size);
        image::export(&own.engine.storage, root, size, &file, &mut |_| ControlFlow::Continue(()))
            .map_err(|error| error.to_string())?;
        let mut bytes = Vec::new();
        file.rewind().and_then(|()| file.read_to_end(&mut bytes)).map_err(|error| error.to_string())?;
        Ok(bytes)
    });
    let exported: Result<_, String> = exporting.await.map_err(|panic| Status::internal(panic.to_string()))?;
    exported.map_err(Status::failed_precondition)
}

/// How long an administrator of a simulation watches something being brought.
const PATIENCE: Duration = Duration::from_secs(15);
