//! ImportVolume: a raw image on this machine as a new volume.
//!
//! The steps, and what is there after a crash behind each of them:
//! 1. The metadata learns of the volume, as one that is being imported. *Nobody can use it. The same import goes on with it,
//!    and it can be deleted.*
//! 2. The image's chunks are stored. *The same; the next import finds those that are there.*
//! 3. The metadata learns of the root: the volume is complete. *It is.*
//!
//! An import that fails or is stopped takes the volume back.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use sterna_consensus::state::command::{Command, NewVolume, Origin};
use sterna_consensus::state::volume::{Generation, Volume as VolumeEntry, VolumeState};
use sterna_proto::admin::import_volume_reply::Step;
use sterna_proto::admin::{ImportResult, ImportVolumeReply, ImportVolumeRequest};
use sterna_storage_node::chunking::ChunkingParameters;
use sterna_storage_node::image::{self, Imported};
use sterna_types::{BLOCK_SIZE, VolumeName, VolumeSize};
use tonic::{Response, Status};

use super::create::{blank, make, shown};
use super::lookup::{metadata, subject, volume};
use super::reply;
use super::request::{absolute, attach, durability, parsed, volume_size};
use super::status::IntoStatus;
use super::work::{Replies, Reporter, blocking, long_work, upkeep};
use crate::node::node::Node;

/// Imports an image.
pub(super) fn import(node: &Arc<Node>, request: ImportVolumeRequest) -> Response<Replies<ImportVolumeReply>> {
    let own = Arc::clone(node);
    long_work(node, move |reporter| async move {
        let name: VolumeName = parsed(&request.name)?;
        let path = absolute(request.path)?;
        let (durability, attach) = (durability(&request.durability)?, attach(&request.attach)?);
        let _turn = own.imports.begin(&name).ok_or_else(|| {
            Status::failed_precondition(format!("volume '{name}' is being imported already: wait for that"))
        })?;
        let opened = path.clone();
        let (image, size) = blocking(move || open_image(&opened)).await??;
        let new = NewVolume { durability, attach, origin: Origin::Import, ..blank(&own, name.clone(), size) };
        let entry = announced(&own, new).await?;
        let filled = fill(&own, &entry, image, &path, reporter).await;
        if filled.as_ref().is_err_and(|status| status.code() != tonic::Code::Unknown) {
            take_back(&own, &entry).await;
        }
        filled
    })
}

fn open_image(path: &Path) -> Result<(File, VolumeSize), Status> {
    let failed = |error| Status::failed_precondition(format!("cannot read the image {}: {error}", path.display()));
    let image = File::open(path).map_err(failed)?;
    let metadata = image.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(Status::invalid_argument(format!("{} is not a file: give a raw image", path.display())));
    }
    let padded = metadata.len().checked_next_multiple_of(BLOCK_SIZE).unwrap_or(u64::MAX);
    let size = volume_size(padded)
        .map_err(|status| Status::invalid_argument(format!("{}: {}", path.display(), status.message())))?;
    Ok((image, size))
}

/// Step 1: the volume that is to be filled. One that an interrupted import has left is taken over, if it is as it has to be.
pub(super) async fn announced(node: &Arc<Node>, new: NewVolume) -> Result<Arc<VolumeEntry>, Status> {
    let name = new.name.clone();
    if let Some(left) = metadata(node).await?.volume_named(&name) {
        if left.state != VolumeState::Importing {
            return Err(Status::already_exists(format!("there is a volume '{name}' already: choose another name")));
        }
        if (left.size, left.format, left.durability, left.attach) == (new.size, new.format, new.durability, new.attach)
        {
            return Ok(Arc::clone(left));
        }
        // It was to become another one.
        let delete = Command::DeleteVolume { volume: left.id, with_snapshots: false };
        node.metadata.propose(delete).await.map_err(|error| error.about(&subject(&name)))?;
    }
    make(node, new).await?;
    Ok(Arc::clone(volume(&*metadata(node).await?, &name)?))
}

/// Steps 2 and 3.
async fn fill(
    node: &Arc<Node>,
    entry: &VolumeEntry,
    image: File,
    path: &Path,
    mut reporter: Reporter<ImportVolumeReply>,
) -> Result<ImportVolumeReply, Status> {
    // From the first chunk to the record of the root: no collection begins meanwhile, and none is waited for.
    let _in_transit = node.in_transit.read().await;
    let imported = upkeep(node, move |own| {
        let step = |progress| ImportVolumeReply { step: Some(Step::Progress(progress)) };
        let mut watcher = reply::watcher(&mut reporter, step);
        image::import(&own.engine.storage, &ChunkingParameters::default(), &image, &mut watcher)
    });
    let name = &entry.name;
    let imported = imported.await?.map_err(|error| error.about(&format!("volume '{name}' from {}", path.display())))?;
    let Imported { root, size, data_bytes, new_bytes, pin } = imported;
    if size != entry.size {
        return Err(Status::failed_precondition(format!("{} has changed its size: repeat the import", path.display())));
    }
    let finish =
        Command::FinishImport { volume: entry.id, epoch: entry.epoch, root, generation: Generation(FIRST_GENERATION) };
    node.metadata.propose(finish).await.map_err(|error| error.about(&subject(name)))?;
    drop(pin);
    let result = ImportResult { volume: Some(shown(node, name).await?), data_bytes, new_bytes };
    Ok(ImportVolumeReply { step: Some(Step::Result(result)) })
}

/// Removes a volume that was not filled, unless it was filled after all.
pub(super) async fn take_back(node: &Node, entry: &VolumeEntry) {
    let is_importing =
        node.metadata.read().volume(entry.id).is_some_and(|volume| volume.state == VolumeState::Importing);
    if is_importing {
        let delete = Command::DeleteVolume { volume: entry.id, with_snapshots: false };
        if let Err(error) = node.metadata.propose(delete).await {
            tracing::warn!(volume = %entry.name, %error, "an import that failed has left its volume: delete it, or repeat");
        }
    }
}

/// That of a volume's first contents: the metadata has made it with generation 0.
const FIRST_GENERATION: u64 = 1;
