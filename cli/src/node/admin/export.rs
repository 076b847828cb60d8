//! ExportVolume: contents as a raw image on this machine.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sterna_proto::admin::export_volume_reply::Step;
use sterna_proto::admin::{ExportResult, ExportVolumeReply, ExportVolumeRequest};
use sterna_storage_node::image;
use tonic::{Response, Status};

use super::lookup::{Freshness, HeldContents, contents};
use super::reply;
use super::request::absolute;
use super::status::IntoStatus;
use super::work::{Replies, Reporter, blocking, long_work};
use crate::node::node::Node;

/// Writes what was acknowledged so far to a file.
pub(super) fn export(node: &Arc<Node>, request: ExportVolumeRequest) -> Response<Replies<ExportVolumeReply>> {
    let own = Arc::clone(node);
    long_work(node, move |reporter| async move {
        let ExportVolumeRequest { source, path, overwrite } = request;
        let path = absolute(path)?;
        let contents = contents(&own, &source, Freshness::Now).await?;
        blocking(move || write(&own, &contents, &source, &path, overwrite, reporter)).await?
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
    let image = Image::create(path, overwrite)?;
    let step = |progress| ExportVolumeReply { step: Some(Step::Progress(progress)) };
    let mut watcher = reply::watcher(&mut reporter, step);
    let exported = image::export(&node.engine.storage, contents.root, contents.size, &image.file, &mut watcher);
    let exported = exported.map_err(|error| error.about(&format!("'{source}' as {}", path.display())))?;
    image.keep()?;
    let result = ExportResult { size_bytes: contents.size.bytes().0, data_bytes: exported.data_bytes };
    Ok(ExportVolumeReply { step: Some(Step::Result(result)) })
}

/// An image that is being written. It has another name until it is complete: dropped before, nothing is left of it, and a
/// file that was to be overwritten is as it was.
struct Image {
    file: File,
    path: PathBuf,
    partial: PathBuf,
    overwrite: bool,
}

impl Image {
    fn create(path: &Path, overwrite: bool) -> Result<Self, Status> {
        if !overwrite && path.symlink_metadata().is_ok() {
            return Err(exists(path));
        }
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let mut options = OpenOptions::new();
        let created = options.read(true).write(true).create_new(true).mode(FILE_MODE).open(&partial);
        let file = created.map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => Status::failed_precondition(format!(
                "{} is there already: another export writes it, or one was killed; then remove it",
                partial.display()
            )),
            _ => Status::failed_precondition(format!("cannot make {}: {error}", partial.display())),
        })?;
        Ok(Self { file, path: path.to_owned(), partial, overwrite })
    }

    /// Gives it its name. Durable on return.
    fn keep(self) -> Result<(), Status> {
        let failed = |error| Status::failed_precondition(format!("cannot make {}: {error}", self.path.display()));
        if self.overwrite {
            std::fs::rename(&self.partial, &self.path).map_err(failed)?;
        } else {
            // Fails where somebody else has made the file meanwhile.
            let linked = std::fs::hard_link(&self.partial, &self.path);
            linked.map_err(|error| {
                if error.kind() == ErrorKind::AlreadyExists { exists(&self.path) } else { failed(error) }
            })?;
        }
        let directory = self.path.parent().unwrap_or(Path::new("/"));
        File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // After a rename it is no more.
        let _ = std::fs::remove_file(&self.partial);
    }
}

fn exists(path: &Path) -> Status {
    Status::already_exists(format!(
        "{} is there already: give another path, or replace it (--overwrite)",
        path.display()
    ))
}

/// The contents of a disk are nobody else's business.
const FILE_MODE: u32 = 0o600;
