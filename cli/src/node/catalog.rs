//! The exports of the node: each volume that is complete, under its name. Those that other nodes own are in standby.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use sterna_consensus::session::SessionNews;
use sterna_consensus::state::volume::VolumeState;
use sterna_nbd_server::export::{CatalogFuture, ExportListing};
use sterna_nbd_server::{Catalog, Client, Export, ExportName};
use sterna_storage_node::volume::VolumeSpec;
use sterna_types::VolumeName;
use tokio::sync::watch;

use super::handoff::StandbyDevice;
use super::nbd_access::AccessList;
use super::node::{Node, spec_of};

/// The exports of a node. There is no default one: which volume is meant has to be said.
#[derive(Debug)]
pub(super) struct VolumeCatalog {
    node: Arc<Node>,
    session: watch::Receiver<SessionNews>,
    access: AccessList,
}

impl VolumeCatalog {
    /// Those of `node`, whose session shows itself in `session`; over TCP for those whom `access` gives them to.
    pub(super) fn new(node: Arc<Node>, session: watch::Receiver<SessionNews>, access: AccessList) -> Self {
        Self { node, session, access }
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

    /// The export of a volume, which is opened for it where it is this node's; and whether it is.
    pub(super) async fn attach(&self, client: &Client, name: &VolumeName) -> Option<Attached> {
        let refused = |why: &dyn Display| tracing::warn!(volume = %name, %client, "a client was refused: {why}");
        // Before anything else: whoever may not have it learns nothing by how long it takes.
        let Some(mode) = self.access.mode(client, name) else {
            refused(&"[nbd.access] in sterna.toml does not give it this volume");
            return None;
        };
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
        let Some(spec) = spec_of(volume) else {
            refused(&"its format is unknown to this program: a later one made it");
            return None;
        };
        let name = ExportName::try_from(name.as_str().as_bytes()).ok()?;
        // It may be here before the metadata says so, and away as well.
        let Some(epoch) = self.node.volumes.promises().serves(volume) else {
            let called =
                |id| metadata.node(id).map(|node| format!("{} at {}", node.name, node.site)).unwrap_or_default();
            let standing = match volume.moving_to {
                Some(to) => format!("standby: handed over from {} to {}", called(volume.owner), called(to)),
                None => format!("standby: owned by {}", called(volume.owner)),
            };
            tracing::info!(volume = %name, %client, "a client has it in {standing}");
            let description = standing.parse().ok();
            let device = Arc::new(StandbyDevice::new(Arc::clone(&self.node), volume));
            return Some(Attached::Standby(Export { name, description, mode, requires_tls: false, device }));
        };
        let device = slot.attach(&VolumeSpec { epoch, ..spec }).await.inspect_err(|error| refused(error)).ok()?;
        let device = Arc::new(device);
        Some(Attached::Owned(Export { name, description: None, mode, requires_tls: false, device }))
    }
}

/// The export of a volume.
pub(super) enum Attached {
    /// Which this node serves.
    Owned(Export),
    /// Which it may serve later.
    Standby(Export),
}

impl Catalog for VolumeCatalog {
    fn list<'a>(&'a self, client: &'a Client) -> CatalogFuture<'a, Vec<ExportListing>> {
        let metadata = self.node.metadata.read();
        let ready = metadata.volumes().filter(|volume| volume.state == VolumeState::Ready);
        let given = ready.filter(|volume| self.access.mode(client, &volume.name).is_some());
        let listing = given.filter_map(|volume| {
            let name = ExportName::try_from(volume.name.as_str().as_bytes()).ok()?;
            Some(ExportListing { name, description: None, requires_tls: false })
        });
        let list = listing.collect();
        Box::pin(async move { list })
    }

    fn find<'a>(&'a self, client: &'a Client, name: &'a ExportName) -> CatalogFuture<'a, Option<Export>> {
        Box::pin(async move {
            let name: VolumeName = name.as_str().parse().ok()?;
            self.attach(client, &name).await.map(|(Attached::Owned(export) | Attached::Standby(export))| export)
        })
    }
}

/// How long a client that comes early waits for the node's session: an election, and two round trips around the world.
const SESSION_PATIENCE: Duration = Duration::from_secs(5);
