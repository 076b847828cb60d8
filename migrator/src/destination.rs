//! The destination's end of one migration: it looks at what there is, and does what [`crate::phase::destination()`] says.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sterna_types::VolumeName;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::task::AbortOnDropHandle;

use crate::hooks::{Event, Hooks, Occasion};
use crate::monitor::Monitor;
use crate::peer::{MigrationId, Outcome};
use crate::phase::destination::IncomingVm;
use crate::phase::{DestinationFacts, DestinationStep, Verdict, Volumes, destination};
use crate::qmp::{ConnectError, MigrationStatus, QmpError};
use crate::records::{RecordError, Records};
use crate::volumes::{Node, PassageState, Place, Purpose};

/// What a destination remembers of a migration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IncomingRecord {
    /// The VM.
    pub vm: String,
    /// Its volumes.
    pub volumes: Vec<String>,
    /// Where it comes from.
    pub from_site: String,
    /// The node beside its migrator there.
    pub from_node: String,
    /// QEMU's control socket here.
    pub qmp: PathBuf,
    /// When it came, in seconds since 1970.
    pub at: u64,
    /// What it has made of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<RecordedVerdict>,
    /// Whether all that followed from that has been done.
    #[serde(default)]
    pub is_over: bool,
}

/// [`Verdict`], as it is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RecordedVerdict {
    /// [`Verdict::Runs`].
    Runs,
    /// [`Verdict::Declined`].
    Declined,
}

impl From<RecordedVerdict> for Verdict {
    fn from(recorded: RecordedVerdict) -> Self {
        match recorded {
            RecordedVerdict::Runs => Self::Runs,
            RecordedVerdict::Declined => Self::Declined,
        }
    }
}

impl From<Verdict> for RecordedVerdict {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Runs => Self::Runs,
            Verdict::Declined => Self::Declined,
        }
    }
}

/// Why a step of a migration's destination cannot be done.
#[derive(Debug, thiserror::Error)]
pub enum IncomingError {
    /// QEMU's control socket does not answer.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// QEMU does not do what it is told.
    #[error(transparent)]
    Qmp(#[from] QmpError),
    /// What has become of it cannot be written down.
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// A migration at its destination.
pub struct Destination {
    /// Which it is.
    pub migration: MigrationId,
    /// Its volumes.
    pub volumes: Vec<VolumeName>,
    /// Where they go back to, if need be.
    pub from: Place,
    /// The node beside this migrator.
    pub node: Node,
    /// QEMU here.
    pub monitor: Monitor,
    /// What is remembered.
    pub record: IncomingRecord,
    /// Where it is.
    pub records: Arc<Records<IncomingRecord>>,
    /// Told to give up.
    pub wish: watch::Receiver<bool>,
    /// Told that the source has nothing more to do with it.
    pub forgotten: watch::Receiver<bool>,
    /// What has become of it, for whoever asks.
    pub outcome: watch::Sender<Outcome>,
    /// From the last sign of the source's on.
    pub heard: watch::Receiver<Instant>,
    /// What is called as it lets the VM run.
    pub switch: Switch,
    /// What the VM has waited for.
    pub arrival: Arrival,
}

/// When a VM's memory and its volumes had come.
#[derive(Debug)]
pub struct Arrival {
    memory: Option<Instant>,
    volumes: Option<Instant>,
    /// How long the volumes were waited for alone; once that is known.
    waited: watch::Sender<Option<Duration>>,
}

impl Arrival {
    /// Neither has; how long the volumes are waited for is told here.
    pub fn new(waited: watch::Sender<Option<Duration>>) -> Self {
        Self { memory: None, volumes: None, waited }
    }

    fn look(&mut self, is_loaded: bool, are_served: bool) {
        let now = Instant::now();
        if is_loaded {
            self.memory.get_or_insert(now);
        }
        if are_served {
            self.volumes.get_or_insert(now);
        }
        if let (Some(memory), Some(volumes)) = (self.memory, self.volumes) {
            self.waited.send_if_modified(|waited| {
                let is_first = waited.is_none();
                waited.get_or_insert(volumes.saturating_duration_since(memory));
                is_first
            });
        }
    }
}

/// What is called as a VM comes to run here, beside that, and once.
pub struct Switch {
    hooks: Arc<Hooks>,
    occasion: Occasion,
    called: Option<JoinHandle<()>>,
}

impl Switch {
    /// One that was not called yet.
    pub fn new(hooks: Arc<Hooks>, occasion: Occasion) -> Self {
        Self { hooks, occasion, called: None }
    }

    /// What programs are told.
    pub fn occasion(&self) -> &Occasion {
        &self.occasion
    }

    fn call(&mut self) -> &mut JoinHandle<()> {
        let (hooks, occasion) = (&self.hooks, &self.occasion);
        self.called.get_or_insert_with(|| {
            let (hooks, occasion) = (Arc::clone(hooks), occasion.clone());
            tokio::spawn(async move {
                if let Err(error) = hooks.call(Event::Switch, &occasion).await {
                    tracing::warn!(vm = occasion.vm, migration = occasion.migration, %error, "a hook has failed");
                }
            })
        })
    }
}

impl Destination {
    /// Does it, until it is decided and nothing is left to be done but what the caller does about a VM that runs here; then it is
    /// [`settled`](Self::settle).
    ///
    /// # Cancel safety
    /// Dropped, it leaves what there is to the next one who looks.
    pub async fn run(&mut self) -> Outcome {
        let (tell, served) = watch::channel(false);
        let (node, volumes) = (self.node.clone(), self.volumes.clone());
        let _waiting = AbortOnDropHandle::new(tokio::spawn(async move {
            while let Err(error) = node.until_served(&volumes).await {
                tracing::warn!(%error, "it is not known whether volumes have come here; it is asked again");
                sleep(AFTER_ERROR).await;
            }
            tell.send_replace(true);
        }));
        let mut has_come = served.clone();
        loop {
            let are_served = *served.borrow();
            let facts = self.look(are_served).await;
            self.arrival.look(facts.vm == IncomingVm::Loaded, are_served);
            let step = destination(&facts);
            tracing::debug!(migration = %self.migration, ?facts, ?step, "the destination of a migration");
            let ended = match step {
                DestinationStep::Done(verdict) => Some(Outcome::Decided(verdict)),
                DestinationStep::Lost => Some(Outcome::Lost),
                _ => None,
            };
            if let Some(outcome) = ended {
                self.outcome.send_if_modified(|told| std::mem::replace(told, outcome) != outcome);
                match outcome {
                    Outcome::Decided(Verdict::Runs) => {
                        self.announce().await;
                        // What is wrong with it is told by itself.
                        let _ = self.switch.call().await;
                    }
                    // The source may not know it yet, and hand the volumes over.
                    Outcome::Decided(Verdict::Declined) if !*self.forgotten.borrow() => {
                        tokio::select! {
                            Ok(()) = self.forgotten.changed() => {}
                            () = sleep(LOOK_DECLINED) => {}
                        }
                        continue;
                    }
                    _ => {}
                }
                return outcome;
            }
            if step != DestinationStep::Wait {
                if let Err(error) = self.take(step).await {
                    tracing::warn!(migration = %self.migration, ?step, %error, "a step of a migration has failed");
                    sleep(AFTER_ERROR).await;
                }
                continue;
            }
            tokio::select! {
                Ok(()) = self.wish.changed() => {}
                Ok(()) = has_come.changed() => {}
                () = sleep(LOOK) => {}
            }
        }
    }

    /// Writes down that nothing is left to be done.
    ///
    /// # Errors
    /// [`RecordError`]; it is done again after the next start then.
    pub async fn settle(mut self) -> Result<(), RecordError> {
        self.write_down(IncomingRecord { is_over: true, ..self.record.clone() }).await
    }

    async fn look(&mut self, are_served: bool) -> DestinationFacts {
        let silent = self.heard.borrow().elapsed();
        let vm = self.vm().await;
        let volumes = match self.record.verdict {
            None if are_served => Volumes::Here,
            None => Volumes::There,
            // Not known is not here.
            Some(_) => self.node.whereabouts(&self.volumes).await.unwrap_or(Volumes::There),
        };
        DestinationFacts {
            vm,
            volumes,
            verdict: self.record.verdict.map(Verdict::from),
            is_given_up: *self.wish.borrow() || silent > SOURCE_PATIENCE && vm == IncomingVm::Loading,
        }
    }

    async fn vm(&mut self) -> IncomingVm {
        match self.monitor.status().await {
            Ok(None) => return IncomingVm::Absent,
            Ok(Some(status)) if status.running => return IncomingVm::Running,
            Ok(Some(_)) => {}
            Err(error) => {
                tracing::info!(migration = %self.migration, %error, "it is not known how QEMU is");
                return IncomingVm::Loading;
            }
        }
        let info = match self.monitor.commands().await {
            Ok(Some(qmp)) => qmp.query_migrate().await,
            _ => return IncomingVm::Loading,
        };
        match info.map(|info| info.status) {
            Ok(MigrationStatus::Completed) => IncomingVm::Loaded,
            Ok(MigrationStatus::Failed | MigrationStatus::Cancelled) => IncomingVm::Failed,
            _ => IncomingVm::Loading,
        }
    }

    async fn take(&mut self, step: DestinationStep) -> Result<(), IncomingError> {
        match step {
            DestinationStep::Record(verdict) => {
                self.write_down(IncomingRecord { verdict: Some(verdict.into()), ..self.record.clone() }).await?;
            }
            DestinationStep::Continue => {
                self.switch.call();
                if let Some(qmp) = self.monitor.commands().await? {
                    qmp.cont().await?;
                }
            }
            DestinationStep::End => {
                if let Some(qmp) = self.monitor.commands().await? {
                    match qmp.quit().await {
                        // It may have ended before it answered.
                        Ok(()) | Err(QmpError::Ended { .. }) => self.monitor.closed().await,
                        Err(error) => return Err(error.into()),
                    }
                }
            }
            DestinationStep::Return => self.give_back().await,
            DestinationStep::Wait | DestinationStep::Done(_) | DestinationStep::Lost => {}
        }
        Ok(())
    }

    async fn write_down(&mut self, record: IncomingRecord) -> Result<(), RecordError> {
        let (records, name, kept) = (Arc::clone(&self.records), self.migration.to_string(), record.clone());
        let written = sterna_runtime::work::blocking(move || records.put(&name, &kept)).await;
        written.expect("writing a record does not panic")?;
        self.record = record;
        Ok(())
    }

    /// Has the volumes handed to where they came from, whether they have arrived here or not: what has not is there.
    async fn give_back(&self) {
        let mut passage = self.node.pass(&self.volumes, &self.from, Purpose::Return);
        let mut is_asked = false;
        loop {
            match passage.look() {
                PassageState::Brought { .. } if !std::mem::replace(&mut is_asked, true) => passage.prepare().await,
                PassageState::Bringing { .. } | PassageState::Brought { .. } => {}
                PassageState::Ready(_) => passage.hand_over().await,
                PassageState::Passed(_) => return,
                PassageState::Failed(why) => {
                    tracing::warn!(migration = %self.migration, %why, "its volumes are not handed back yet; it is tried again");
                    sleep(AFTER_ERROR).await;
                    return;
                }
            }
            if !passage.changed().await {
                return;
            }
        }
    }

    /// The network is told where the VM is now.
    async fn announce(&mut self) {
        if let Ok(Some(qmp)) = self.monitor.commands().await
            && let Err(error) = qmp.announce_self().await
        {
            tracing::warn!(migration = %self.migration, %error, "the network was not told that a VM has moved");
        }
    }
}

/// How often it is looked at what nobody tells.
const LOOK: Duration = Duration::from_millis(5);

/// The same once it has declined.
const LOOK_DECLINED: Duration = Duration::from_secs(1);

/// Before what has failed is tried again.
const AFTER_ERROR: Duration = Duration::from_millis(500);

/// How long a VM that has not all of its memory waits for a source that says nothing: longer than links are cut for by routers that
/// find another way.
const SOURCE_PATIENCE: Duration = Duration::from_secs(60);
