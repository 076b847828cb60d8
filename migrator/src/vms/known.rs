//! What is known of a VM, and of its migrations.

use sterna_types::VmName;
use tokio::sync::watch;

use super::VmRecord;
use crate::peer::MigrationId;
use crate::source::record::{Progress, Report};
use crate::volumes::Place;

/// What is known of a VM.
#[derive(Default)]
pub(super) struct Known {
    /// Nothing where it has gone, and only how that went is told.
    pub(super) record: Option<VmRecord>,
    /// Under way.
    pub(super) migration: Option<Running>,
    /// The last one that has ended.
    pub(super) last: Option<Ended>,
}

/// A migration that is under way.
#[derive(Clone)]
pub(super) struct Running {
    /// Where to.
    pub(super) to: Place,
    /// Has it given up, and says why.
    pub(super) wish: watch::Sender<Option<String>>,
    /// How it goes.
    pub(super) watched: Watched,
}

/// A migration, for whoever wants to know.
#[derive(Clone, Debug)]
pub struct Watched {
    /// How far it is.
    pub progress: watch::Receiver<Progress>,
    /// How it has ended, once it has.
    pub ended: watch::Receiver<Option<Ended>>,
}

/// A migration that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Which one.
    pub migration: MigrationId,
    /// The VM.
    pub vm: VmName,
    /// From where.
    pub from: Place,
    /// Where it was to go.
    pub to: Place,
    /// How it went.
    pub report: Report,
}

/// A VM, as it is told.
#[derive(Clone, Debug)]
pub struct Told {
    /// What it is called.
    pub name: VmName,
    /// What is remembered; nothing where it has gone.
    pub record: Option<VmRecord>,
    /// Its migration, and where to.
    pub migration: Option<(Place, Watched)>,
    /// The last one that has ended, since this migrator was started.
    pub last: Option<Ended>,
}

impl Known {
    /// What is told of it.
    pub(super) fn told(&self, name: &VmName) -> Told {
        let migration = self.migration.as_ref().map(|running| (running.to.clone(), running.watched.clone()));
        Told { name: name.clone(), record: self.record.clone(), migration, last: self.last.clone() }
    }
}
