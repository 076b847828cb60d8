//! The exports of the node: each volume that is complete and that it owns, under its name.

use std::sync::Arc;
use std::time::Duration;

use sterna_consensus::session::SessionNews;
use sterna_consensus::state::volume::VolumeState;
use sterna_nbd_server::export::{CatalogFuture, ExportListing};
use sterna_nbd_server::{Catalog, Export, ExportMode, ExportName};
use sterna_types::VolumeName;
use tokio::sync::watch;

use super::node::{Node, spec_of};

/// The exports of a node. There is no default one: which volume is meant has to be said.
#[derive(Debug)]
pub(super) struct VolumeCatalog {
    node: Arc<Node>,
    session: watch::Receiver<SessionNews>,
}

impl VolumeCatalog {
    /// Those of `node`, whose session shows itself in `session`.
    pub(super) fn new(node: Arc<Node>, session: watch::Receiver<SessionNews>) -> Self {
        Self { node, session }
    }

    /// Waits until the node may answer clients, though not for ever.
    async fn session(&self) -> Result<(), String> {
        let mut news = self.session.clone();
        let is_open = |news: &SessionNews| matches!(news, SessionNews::Open(_));
        let lasts = tokio::time::timeout(SESSION_PATIENCE, news.wait_for(is_open)).await.is_ok();
        if lasts && self.node.lease.is_valid() {
            return Ok(());
        }
        Err(match &*self.session.borrow() {
            SessionNews::Failing { what } => format!("this node has no session: {what}"),
            SessionNews::NotOpen | SessionNews::Open(_) => "this node has no session: it is cut off".to_owned(),
        })
    }

    /// The export of a volume, which is opened for it.
    async fn attach(&self, name: &VolumeName) -> Option<Export> {
        let refused = |why: &dyn std::fmt::Display| tracing::warn!(volume = %name, "a client was refused: {why}");
        self.session().await.inspect_err(|error| refused(error)).ok()?;
        let found = self.node.metadata.read().volume_named(name).map(|volume| volume.id)?;
        let mut slot = self.node.volumes.hold(found).await;
        // With the slot held nobody deletes it, and what was decided before now is seen.
        let metadata = self.node.metadata.linearizable().await.inspect_err(|error| refused(error)).ok()?;
        let volume = metadata.volume_named(name).filter(|volume| volume.id == found)?;
        if volume.state != VolumeState::Ready {
            refused(&"its import is not complete");
            return None;
        }
        if volume.owner != self.node.metadata.id() {
            let owner = metadata.node(volume.owner).map(|owner| format!("{} at {}", owner.name, owner.site));
            refused(&format!("it is owned by {}", owner.unwrap_or_default()));
            return None;
        }
        let Some(spec) = spec_of(volume) else {
            refused(&"its format is unknown to this program: a later one made it");
            return None;
        };
        let device = slot.attach(&spec).await.inspect_err(|error| refused(error)).ok()?;
        Some(Export {
            name: ExportName::try_from(name.as_str().as_bytes()).ok()?,
            description: None,
            mode: ExportMode::ReadWrite,
            requires_tls: false,
            device: Arc::new(device),
        })
    }
}

impl Catalog for VolumeCatalog {
    fn list(&self) -> CatalogFuture<'_, Vec<ExportListing>> {
        let metadata = self.node.metadata.read();
        let own = self.node.metadata.id();
        let ready = metadata.volumes().filter(|volume| volume.state == VolumeState::Ready && volume.owner == own);
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

/// How long a client that comes early waits for the node's session: an election, and two round trips around the world.
const SESSION_PATIENCE: Duration = Duration::from_secs(5);
