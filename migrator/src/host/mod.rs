//! A host that takes VMs in: the migrations that come to it.
//!
//! * `service`: what other migrators ask about them.

mod service;

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use sterna_proto::migrator::{Machine, Obstacle, Vm};
use sterna_types::{ByteRate, VmName, VolumeName};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tonic::Status;

pub use service::MigrationsService;

use crate::carry::Carrier;
use crate::destination::{Arrival, Destination, IncomingRecord, Switch};
use crate::examine::differences;
use crate::hooks::{Event, Occasion, Role, Where};
use crate::launch::arguments::{Differences, Moved, at_destination};
use crate::launch::start::{Launch, LaunchError, Waiting, check_program};
use crate::monitor::Monitor;
use crate::peer::{MigrationId, Outcome};
use crate::phase::Verdict;
use crate::qmp::QmpError;
use crate::records::Records;
use crate::token::{Claim, Stage};
use crate::vms::{HostSettings, VmError, VmRecord, Vms};
use crate::volumes::{Node, NodeError, Place};

/// A host that takes VMs in.
pub struct Host {
    settings: HostSettings,
    node: Node,
    vms: Arc<Vms>,
    records: Arc<Records<IncomingRecord>>,
    incoming: Mutex<BTreeMap<MigrationId, Incoming>>,
    /// Those that were forgotten before they were known, the oldest first: a call that comes late is not to begin one.
    forgotten: Mutex<VecDeque<MigrationId>>,
    /// Held by who looks whether there is one, and begins it.
    turn: tokio::sync::Mutex<()>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// A migration that comes here.
#[derive(Clone)]
struct Incoming {
    /// Nothing once its QEMU has ended.
    carrier: Option<Arc<Carrier>>,
    outcome: watch::Sender<Outcome>,
    wish: watch::Sender<bool>,
    forgotten: watch::Sender<bool>,
    volumes: Vec<VolumeName>,
    heard: watch::Sender<Instant>,
    waited: watch::Sender<Option<Duration>>,
}

/// A VM that is to come here, as its source describes it.
struct Announced {
    name: VmName,
    volumes: Vec<VolumeName>,
    launch: Launch,
    machine: Machine,
}

impl Host {
    /// One that remembers what is below the migrator's directory. What an earlier run has left under way is brought to an end.
    ///
    /// # Errors
    /// [`VmError`]: what is remembered cannot be read.
    pub fn open(settings: HostSettings, node: Node, vms: Arc<Vms>) -> Result<Arc<Self>, VmError> {
        let records = Arc::new(Records::<IncomingRecord>::open(settings.migrator.join("incoming"))?);
        let remembered = records.all()?;
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let host = Arc::new(Self {
            settings,
            node,
            vms,
            records,
            incoming: Mutex::default(),
            forgotten: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
            tasks,
            stop,
        });
        for (id, record) in remembered {
            let Ok(migration) = id.parse::<MigrationId>() else { continue };
            if record.is_over && record.at + REMEMBERED.as_secs() < seconds_since_1970() {
                host.records.remove(&id)?;
                continue;
            }
            let outcome = record.verdict.map_or(Outcome::UnderWay, |verdict| Outcome::Decided(verdict.into()));
            if record.is_over {
                let outcome = watch::Sender::new(outcome);
                host.incoming().insert(migration, Incoming::new(None, outcome, Vec::new()));
                continue;
            }
            tracing::warn!(vm = record.vm, %migration, "a migration to here was under way when this migrator ended; it is brought to an end");
            let volumes: Result<Vec<VolumeName>, _> = record.volumes.iter().map(|volume| volume.parse()).collect();
            let from = Place { site: record.from_site.parse()?, node: record.from_node.parse()? };
            let monitor = Monitor::at(&record.qmp);
            host.begin(migration, Coming { volumes: volumes?, from, monitor, carrier: None, record });
        }
        Ok(host)
    }

    /// Leaves all migrations as they are, and returns when nothing is done about them any more.
    ///
    /// # Cancel safety
    /// May be dropped at any time.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn incoming(&self) -> MutexGuard<'_, BTreeMap<MigrationId, Incoming>> {
        self.incoming.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, migration: &[u8]) -> Result<(MigrationId, Option<Incoming>), Status> {
        let id = MigrationId::from_bytes(migration).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let known = self.incoming().get(&id).cloned();
        if let Some(known) = &known {
            known.heard.send_replace(Instant::now());
        }
        Ok((id, known))
    }

    /// Remembers that a migration is not to begin.
    fn never(&self, id: MigrationId) {
        let mut forgotten = self.forgotten.lock().unwrap_or_else(PoisonError::into_inner);
        if forgotten.len() == MAX_FORGOTTEN {
            forgotten.pop_front();
        }
        forgotten.push_back(id);
    }

    /// Lets go of what was declined before of these volumes: their owner has begun anew with them.
    fn supersede(&self, volumes: &[VolumeName]) {
        for earlier in self.incoming().values() {
            let is_about_them = earlier.volumes.iter().any(|volume| volumes.contains(volume));
            if is_about_them && *earlier.outcome.borrow() == Outcome::Decided(Verdict::Declined) {
                earlier.forgotten.send_replace(true);
            }
        }
    }

    /// What is to be started for a VM here.
    fn announced(&self, vm: Option<Vm>) -> Result<Announced, Status> {
        let invalid = |what: String| Status::invalid_argument(what);
        let vm = vm.ok_or_else(|| invalid("no VM is described".to_owned()))?;
        let name: VmName = vm.name.parse().map_err(|error| invalid(format!("{error}")))?;
        let volumes: Result<Vec<VolumeName>, _> = vm.volumes.iter().map(|volume| volume.parse()).collect();
        let volumes = volumes.map_err(|error| invalid(format!("{error}")))?;
        let directory = self.settings.vms.join(name.as_str());
        let differences = Differences {
            nbd_socket: Moved { from: vm.nbd_socket.into(), to: self.settings.nbd_socket.clone() },
            directory: Moved { from: vm.directory.clone().into(), to: directory.clone() },
        };
        let arguments = at_destination(&vm.arguments, &differences).map_err(|error| invalid(error.to_string()))?;
        let inside = PathBuf::from(vm.qmp).strip_prefix(&vm.directory).map(|qmp| directory.join(qmp));
        let qmp = inside.map_err(|_| invalid(format!("QEMU's control socket is not in {}", vm.directory)))?;
        check_program(Path::new(&vm.program)).map_err(|error| invalid(error.to_string()))?;
        let launch = Launch { program: vm.program.into(), arguments, directory, qmp };
        Ok(Announced { name, volumes, launch, machine: vm.machine.unwrap_or_default() })
    }

    /// What stands against a VM that is to come.
    fn obstacles(&self, announced: &Announced) -> Vec<Obstacle> {
        let mut obstacles = Vec::new();
        if !announced.launch.program.exists() {
            obstacles.push(Obstacle {
                what: format!("there is no {} at this host", announced.launch.program.display()),
                remedy: "install the same QEMU as the source has".to_owned(),
            });
        }
        if announced.launch.qmp.exists() && std::os::unix::net::UnixStream::connect(&announced.launch.qmp).is_ok() {
            obstacles.push(Obstacle {
                what: format!("a VM '{}' runs at this host", announced.name),
                remedy: "end it, or give the one that is to come another name".to_owned(),
            });
        }
        obstacles
    }

    /// What a VM would be here, and what stands against that.
    async fn try_out(&self, announced: &Announced) -> Result<Vec<Obstacle>, Status> {
        let obstacles = self.obstacles(announced);
        if !obstacles.is_empty() {
            return Ok(obstacles);
        }
        let mut waiting = match announced.launch.start().await {
            Ok(waiting) => waiting,
            Err(error) => return Ok(vec![cannot_start(announced, &error)]),
        };
        let found = differences(&announced.machine, &waiting.machine);
        end(&mut waiting).await;
        Ok(found)
    }

    /// Looks whether it may come here, before anything is done for it.
    async fn admit(
        &self,
        id: MigrationId,
        announced: &Announced,
        from: &Place,
        token: &[u8],
        rate: Option<ByteRate>,
    ) -> Result<(), Status> {
        let unknown =
            |error: NodeError| Status::unavailable(format!("what moves with it cannot be looked up: {error}"));
        let epochs = self.node.epochs(&announced.volumes).await.map_err(unknown)?;
        let (to, stage) = (&self.node.place().site, Stage::Beginning);
        let claim = Claim { vm: Some(&announced.name), volumes: &epochs, from: &from.site, to, rate, stage };
        let admitted = self.settings.admission.admit(token, &claim, id).await;
        admitted.map(drop).map_err(|error| Status::permission_denied(error.to_string()))
    }

    /// Has it come in.
    async fn take_in(
        self: &Arc<Self>,
        id: MigrationId,
        announced: Announced,
        from: Place,
    ) -> Result<Vec<Obstacle>, Status> {
        let _turn = self.turn.lock().await;
        // The same may have been asked twice.
        if self.incoming().contains_key(&id) {
            return Ok(Vec::new());
        }
        if self.forgotten.lock().unwrap_or_else(PoisonError::into_inner).contains(&id) {
            return Err(Status::failed_precondition("its source has given it up before"));
        }
        let obstacles = self.obstacles(&announced);
        if !obstacles.is_empty() {
            return Ok(obstacles);
        }
        self.supersede(&announced.volumes);
        let occasion = self.occasion(id, announced.name.as_str(), &announced.volumes, &from);
        if let Err(error) = self.settings.hooks.call(Event::Prepare, &occasion).await {
            self.call(Event::Finish, &Occasion { end: Some(KEPT), ..occasion }).await;
            let remedy = "see to what it says, or to the hook, at the destination".to_owned();
            return Ok(vec![Obstacle { what: error.to_string(), remedy }]);
        }
        let mut waiting = match announced.launch.start().await {
            Ok(waiting) => waiting,
            Err(error) => {
                self.call(Event::Finish, &Occasion { end: Some(KEPT), ..occasion }).await;
                return Ok(vec![cannot_start(&announced, &error)]);
            }
        };
        let found = differences(&announced.machine, &waiting.machine);
        if !found.is_empty() {
            end(&mut waiting).await;
            self.call(Event::Finish, &Occasion { end: Some(KEPT), ..occasion }).await;
            return Ok(found);
        }
        let record = IncomingRecord {
            vm: announced.name.to_string(),
            volumes: announced.volumes.iter().map(ToString::to_string).collect(),
            from_site: from.site.to_string(),
            from_node: from.node.to_string(),
            qmp: announced.launch.qmp,
            at: seconds_since_1970(),
            verdict: None,
            is_over: false,
        };
        let (records, kept, name) = (Arc::clone(&self.records), record.clone(), id.to_string());
        let put = sterna_runtime::work::blocking(move || records.put(&name, &kept)).await;
        let put = put.expect("writing a record does not panic");
        if let Err(error) = put {
            end(&mut waiting).await;
            return Err(Status::internal(error.to_string()));
        }
        let Waiting { monitor, carrier, .. } = waiting;
        let carrier = Some(carrier);
        self.begin(id, Coming { volumes: announced.volumes, from, monitor, carrier, record });
        Ok(Vec::new())
    }

    fn begin(self: &Arc<Self>, id: MigrationId, coming: Coming) {
        let Coming { volumes, from, monitor, carrier, record } = coming;
        let incoming = Incoming::new(carrier, watch::Sender::new(Outcome::UnderWay), volumes.clone());
        let occasion = self.occasion(id, &record.vm, &volumes, &from);
        let mut destination = Destination {
            migration: id,
            volumes,
            from,
            node: self.node.clone(),
            monitor,
            record,
            records: Arc::clone(&self.records),
            wish: incoming.wish.subscribe(),
            forgotten: incoming.forgotten.subscribe(),
            outcome: incoming.outcome.clone(),
            heard: incoming.heard.subscribe(),
            switch: Switch::new(Arc::clone(&self.settings.hooks), occasion),
            arrival: Arrival::new(incoming.waited.clone()),
        };
        self.incoming().insert(id, incoming);
        let (own, stop) = (Arc::clone(self), self.stop.clone());
        self.tasks.spawn(async move {
            let run = AbortOnDropHandle::new(tokio::spawn(async move {
                let outcome = destination.run().await;
                (destination, outcome)
            }));
            let ended = tokio::select! {
                ended = run => ended,
                // The next run of the migrator finds what there is.
                () = stop.cancelled() => return,
            };
            match ended {
                Ok((destination, outcome)) => own.ended(destination, outcome).await,
                Err(panic) => tracing::error!(
                    migration = %id,
                    %panic,
                    "a migration to here has failed in this program: start the migrator again, and it is brought to an end"
                ),
            }
        });
    }

    fn occasion(&self, id: MigrationId, vm: &str, volumes: &[VolumeName], from: &Place) -> Occasion {
        Occasion {
            role: Role::Destination,
            migration: id.to_string(),
            vm: vm.to_string(),
            volumes: volumes.iter().map(ToString::to_string).collect(),
            from: Where::from(from),
            to: Where::from(self.node.place()),
            end: None,
        }
    }

    /// Calls a hook whose failure is only told.
    async fn call(&self, event: Event, occasion: &Occasion) {
        if let Err(error) = self.settings.hooks.call(event, occasion).await {
            tracing::warn!(vm = occasion.vm, migration = occasion.migration, %error, "a hook has failed");
        }
    }

    async fn ended(&self, destination: Destination, outcome: Outcome) {
        let id = destination.migration;
        let record = &destination.record;
        tracing::info!(vm = record.vm, migration = %id, ?outcome, "a migration to here has ended");
        if outcome == Outcome::Decided(Verdict::Runs) {
            let vm = VmRecord { qmp: record.qmp.clone(), volumes: record.volumes.clone() };
            let adopted = match record.vm.parse() {
                Ok(name) => self.vms.adopt(name, vm).await,
                Err(error) => Err(VmError::Name(error)),
            };
            if let Err(error) = adopted {
                tracing::warn!(migration = %id, %error, "a VM has come here and cannot be remembered: it is tried again after the next start");
                return;
            }
        }
        let end = match outcome {
            Outcome::Decided(Verdict::Runs) => MOVED,
            Outcome::Lost => LOST,
            Outcome::Decided(Verdict::Declined) | Outcome::Unknown | Outcome::UnderWay => KEPT,
        };
        let occasion = Occasion { end: Some(end), ..destination.switch.occasion().clone() };
        self.call(Event::Finish, &occasion).await;
        if let Err(error) = destination.settle().await {
            tracing::warn!(migration = %id, %error, "a migration to here has ended, and that cannot be written down");
        }
        if let Some(ended) = self.incoming().get_mut(&id) {
            // The last of the return path has been said, or is of no use.
            ended.carrier = None;
        }
    }
}

/// A VM that begins to come in, or has when this migrator was started.
struct Coming {
    volumes: Vec<VolumeName>,
    from: Place,
    monitor: Monitor,
    carrier: Option<Arc<Carrier>>,
    record: IncomingRecord,
}

impl Incoming {
    fn new(carrier: Option<Arc<Carrier>>, outcome: watch::Sender<Outcome>, volumes: Vec<VolumeName>) -> Self {
        let (wish, forgotten) = (watch::Sender::new(false), watch::Sender::new(false));
        let heard = watch::Sender::new(Instant::now());
        Self { carrier, outcome, wish, forgotten, volumes, heard, waited: watch::Sender::default() }
    }

    /// Has it given up, as far as that is open, and waits until it is decided.
    async fn decide(&self) {
        self.wish.send_replace(true);
        let mut outcome = self.outcome.subscribe();
        // It is decided as soon as it is written down.
        let _ = outcome.wait_for(|outcome| *outcome != Outcome::UnderWay).await;
    }
}

/// Ends a QEMU that has nothing.
async fn end(waiting: &mut Waiting) {
    let ended = async {
        if let Ok(Some(qmp)) = waiting.monitor.commands().await {
            qmp.quit().await?;
        }
        waiting.monitor.closed().await;
        Ok::<_, QmpError>(())
    };
    if let Err(error) = ended.await {
        tracing::warn!(%error, "a QEMU that was to take a VM in does not end");
    }
}

fn cannot_start(announced: &Announced, error: &LaunchError) -> Obstacle {
    Obstacle {
        what: format!("VM '{}' cannot be started at this host: {error}", announced.name),
        remedy: "make what it needs available here, too: firmware, bridges, files, the same QEMU".to_owned(),
    }
}

fn seconds_since_1970() -> u64 {
    sterna_runtime::clock::wall_time().duration_since(UNIX_EPOCH).map_or(0, |passed| passed.as_secs())
}

/// How a migration has ended, for hooks.
const MOVED: &str = "moved";
const KEPT: &str = "kept";
const LOST: &str = "lost";

/// Those whose calls may still be under way.
const MAX_FORGOTTEN: usize = 1024;

/// How long somebody may ask what has become of a migration.
const REMEMBERED: Duration = Duration::from_hours(7 * 24);
