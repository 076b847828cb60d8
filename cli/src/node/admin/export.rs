//! ExportVolume: contents as a raw image on this machine.

use std::path::Path;
use std::sync::Arc;

use sterna_proto::admin::export_volume_reply::Step;
use sterna_proto::admin::{ExportResult, ExportVolumeReply, ExportVolumeRequest};
use sterna_storage_node::image;
use tonic::{Response, Status};

use super::lookup::{Freshness, HeldContents, contents};
use super::reply;
use super::request::absolute;
use super::status::IntoStatus;
use super::work::{Replies, Reporter, long_work, upkeep};
use crate::image_file::{ImageFile, ImageFileError};
use crate::node::node::Node;

/// Writes what was acknowledged so far to a file.
pub(super) fn export(node: &Arc<Node>, request: ExportVolumeRequest) -> Response<Replies<ExportVolumeReply>> {
    let own = Arc::clone(node);
    long_work(node, move |reporter| async move {
        let ExportVolumeRequest { source, path, overwrite } = request;
        let path = absolute(path)?;
        let contents = contents(&own, &source, Freshness::Now).await?;
        upkeep(&own, move |own| write(&own, &contents, &source, &path, overwrite, reporter)).await?
    })
}

fn write(
    node: &Node,
    contents: &HeldContents,
    source: &str,
    path: &Path,
    overwrite: bool,
    mut reporter: Reporter<ExportVolumeReply>,
) -> Result<ExportVolumeReply, Status> {
    let image = ImageFile::create(path, overwrite).map_err(status)?;
    let step = |progress| ExportVolumeReply { step: Some(Step::Progress(progress)) };
    let mut watcher = reply::watcher(&mut reporter, step);
    let exported = image::export(&node.engine.storage, contents.root, contents.size, image.file(), &mut watcher);
    let exported = exported.map_err(|error| error.about(&format!("'{source}' as {}", path.display())))?;
    image.keep().map_err(status)?;
    let result = ExportResult { size_bytes: contents.size.bytes().0, data_bytes: exported.data_bytes };
    Ok(ExportVolumeReply { step: Some(Step::Result(result)) })
}

fn status(error: ImageFileError) -> Status {
    match error {
        ImageFileError::Exists { .. } => {
            Status::already_exists(format!("{error}: give another path, or replace it (--overwrite)"))
        }
        error => Status::failed_precondition(error.to_string()),
    }
}
