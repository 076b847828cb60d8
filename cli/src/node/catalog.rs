//! The exports of the node: each volume that is complete, under its name.

use std::sync::Arc;

use sterna_consensus::state::volume::VolumeState;
use sterna_nbd_server::export::{CatalogFuture, ExportListing};
use sterna_nbd_server::{Catalog, Export, ExportMode, ExportName};
use sterna_types::VolumeName;

use super::node::{Node, spec_of};

/// The exports of a node. There is no default one: which volume is meant has to be said.
#[derive(Debug)]
pub(super) struct VolumeCatalog {
    node: Arc<Node>,
}

impl VolumeCatalog {
    /// Those of `node`.
    pub(super) fn new(node: Arc<Node>) -> Self {
        Self { node }
    }

    /// The export of a volume, which is opened for it.
    async fn attach(&self, name: &VolumeName) -> Option<Export> {
        let refused = |why: &dyn std::fmt::Display| tracing::warn!(volume = %name, "a client was refused: {why}");
        let found = self.node.metadata.read().volume_named(name).map(|volume| volume.id)?;
        let mut slot = self.node.volumes.hold(found).await;
        // With the slot held nobody deletes it, and what was decided before now is seen.
        let metadata = self.node.metadata.linearizable().await.inspect_err(|error| refused(error)).ok()?;
        let volume = metadata.volume_named(name).filter(|volume| volume.id == found)?;
        if volume.state != VolumeState::Ready {
            refused(&"its import is not complete");
            return None;
        }
        let Some(spec) = spec_of(volume) else {
            refused(&"its format is unknown to this program: a later one made it");
            return None;
        };
        let device = slot.device(&spec).await.inspect_err(|error| refused(error)).ok()?;
        Some(Export {
            name: ExportName::try_from(name.as_str().as_bytes()).ok()?,
            description: None,
            mode: ExportMode::ReadWrite,
            requires_tls: false,
            device,
        })
    }
}

impl Catalog for VolumeCatalog {
    fn list(&self) -> CatalogFuture<'_, Vec<ExportListing>> {
        let metadata = self.node.metadata.read();
        let ready = metadata.volumes().filter(|volume| volume.state == VolumeState::Ready);
        let listing = ready.filter_map(|volume| {
            let name = ExportName::try_from(volume.name.as_str().as_bytes()).ok()?;
            Some(ExportListing { name, description: None, requires_tls: false })
        });
        let list = listing.collect();
        Box::pin(async move { list })
    }

    fn find<'a>(&'a self, name: &'a ExportName) -> CatalogFuture<'a, Option<Export>> {
        Box::pin(async move {
            let name: VolumeName = name.as_str().parse().ok()?;
            self.attach(&name).await
        })
    }
}
