//! The VMs of a host, and their migrations from it.
//!
//! * `known`: what is known of one. `ready`: what has to be known before it goes. `migrate`: that it goes. `error`: why something about it cannot
//!   be done.

mod error;
mod foresee;
mod known;
mod migrate;
mod ready;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sterna_proto::migrator as wire;
use sterna_proto::migrator::migrations_client::MigrationsClient;
use sterna_transport::{Channels, Lane, Tls};
use sterna_types::names::InvalidName;
use sterna_types::{NodeId, VmName, VolumeName};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::hooks::{Event, Hooks, Occasion};
use crate::monitor::Monitor;
use crate::peer::MigrationId;
use crate::records::Records;
use crate::source::Source;
use crate::source::record::{End, OutgoingRecord, Progress, Report};
use crate::source::setup::{Peer, Setup};
use crate::token::Admission;
use crate::volumes::{FoundMigrator, Node, NodeError, Place};

pub use error::VmError;
pub use known::{Ended, Told, Watched};
use known::{Known, Running};
pub use migrate::Order;

/// What is remembered of a VM of this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmRecord {
    /// QEMU's control socket.
    pub qmp: PathBuf,
    /// The volumes that are its disks.
    pub volumes: Vec<String>,
}

/// What is so on this host.
#[derive(Clone, Debug)]
pub struct HostSettings {
    /// The migrator's own directory.
    pub migrator: PathBuf,
    /// Below which each VM that comes gets a directory of its own.
    pub vms: PathBuf,
    /// Where its node serves volumes.
    pub nbd_socket: PathBuf,
    /// What is called at the steps of a migration.
    pub hooks: Arc<Hooks>,
    /// Who lets migrations from and to it begin.
    pub admission: Admission,
}

/// The VMs of a host.
pub struct Vms {
    settings: HostSettings,
    node: Node,
    channels: Channels,
    addresses: Arc<Mutex<BTreeMap<NodeId, SocketAddr>>>,
    records: Records<VmRecord>,
    outgoing: Arc<Records<OutgoingRecord>>,
    known: Mutex<BTreeMap<VmName, Known>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Vms {
    /// Those that are remembered below the migrator's directory.
    ///
    /// # Errors
    /// [`VmError::Record`].
    pub fn open(settings: HostSettings, node: Node, tls: Tls) -> Result<Arc<Self>, VmError> {
        let records = Records::<VmRecord>::open(settings.migrator.join("vms"))?;
        let outgoing = Arc::new(Records::open(settings.migrator.join("outgoing"))?);
        let addresses = Arc::<Mutex<BTreeMap<NodeId, SocketAddr>>>::default();
        let book = Arc::clone(&addresses);
        let channels = Channels::new(tls, move |node| locked(&book).get(&node).copied());
        let mut known = BTreeMap::new();
        for (name, record) in records.all()? {
            known.insert(name.parse()?, Known { record: Some(record), ..Known::default() });
        }
        let known = Mutex::new(known);
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        Ok(Arc::new(Self { settings, node, channels, addresses, records, outgoing, known, tasks, stop }))
    }

    /// Goes on with the migrations that an earlier run of the migrator has left: each is brought to an end.
    ///
    /// # Errors
    /// [`VmError::Record`].
    pub fn resume(self: &Arc<Self>) -> Result<(), VmError> {
        for (id, record) in self.outgoing.all()? {
            let Ok(migration) = id.parse::<MigrationId>() else { continue };
            let name: VmName = record.vm.parse()?;
            let address = record.address.parse().map_err(|_| NodeError::Unexpected(record.address.clone()))?;
            let found =
                FoundMigrator { place: place(&record.site, &record.node)?, node: NodeId(record.node_id), address };
            let vm = self.known().get(&name).and_then(|known| known.record.clone());
            let Some(vm) = vm.filter(|_| !record.is_ended) else {
                self.tell_forgotten(migration, self.peer(&found));
                continue;
            };
            let volumes: Result<Vec<VolumeName>, _> = vm.volumes.iter().map(|volume| volume.parse()).collect();
            let monitor = Monitor::at(&vm.qmp);
            tracing::warn!(vm = %name, %migration, to = %found.place, "a migration was under way when this migrator ended; it is brought to an end");
            self.begin(&name, self.setup(migration, volumes?, monitor, &found, record));
        }
        Ok(())
    }

    /// Remembers a VM. Durable on return.
    ///
    /// # Errors
    /// [`VmError`]: its name is taken, or it does not answer.
    ///
    /// # Cancel safety
    /// Dropped, it has remembered it or not.
    pub async fn add(self: &Arc<Self>, name: VmName, qmp: PathBuf, volumes: Vec<VolumeName>) -> Result<Told, VmError> {
        self.node.whereabouts(&volumes).await?;
        if self.known().get(&name).is_some_and(|known| known.record.is_some()) {
            return Err(VmError::Known(name));
        }
        let (_, process) = Monitor::connect(&qmp).await?;
        process.ok_or_else(|| VmError::NoProcess(name.clone()))?;
        let record = VmRecord { qmp, volumes: volumes.iter().map(ToString::to_string).collect() };
        self.adopt(name.clone(), record).await?;
        self.told(&name)
    }

    /// Remembers a VM that runs here. Durable on return.
    ///
    /// # Errors
    /// [`VmError::Record`].
    ///
    /// # Cancel safety
    /// Dropped, it has remembered it or not.
    pub async fn adopt(self: &Arc<Self>, name: VmName, record: VmRecord) -> Result<(), VmError> {
        let own = Arc::clone(self);
        let written = sterna_runtime::work::blocking(move || {
            own.records.put(name.as_str(), &record)?;
            own.known().entry(name).or_default().record = Some(record);
            Ok(())
        });
        written.await.expect("writing a record does not panic")
    }

    /// Forgets a VM; it runs on. Durable on return.
    ///
    /// # Errors
    /// [`VmError`]: there is none, or it is moving.
    ///
    /// # Cancel safety
    /// Dropped, it has forgotten it or not.
    pub async fn remove(self: &Arc<Self>, name: VmName) -> Result<(), VmError> {
        let told = self.told(&name)?;
        if let Some((to, _)) = told.migration {
            return Err(VmError::Moving(name, to));
        }
        self.forget(name).await
    }

    async fn forget(self: &Arc<Self>, name: VmName) -> Result<(), VmError> {
        let own = Arc::clone(self);
        let removed = sterna_runtime::work::blocking(move || {
            own.records.remove(name.as_str())?;
            let mut known = own.known();
            if let Some(known) = known.get_mut(&name) {
                known.record = None;
            }
            Ok(())
        });
        removed.await.expect("removing a record does not panic")
    }

    /// All that are known, and those that have gone since this migrator was started.
    pub fn list(&self) -> Vec<Told> {
        self.known().iter().map(|(name, known)| known.told(name)).collect()
    }

    /// One of them.
    ///
    /// # Errors
    /// [`VmError::Unknown`].
    pub fn told(&self, name: &VmName) -> Result<Told, VmError> {
        let known = self.known();
        known.get(name).map(|known| known.told(name)).ok_or_else(|| VmError::Unknown(name.clone()))
    }

    /// What stands against a migration, at both ends, and what it would take, which is measured for some seconds. Nothing is begun by it.
    ///
    /// # Errors
    /// [`VmError`].
    ///
    /// # Cancel safety
    /// Dropped, it changes nothing.
    pub async fn examine(&self, asked: &Order) -> Result<wire::ExamineReply, VmError> {
        let (found, ready) = self.get_ready(asked).await?;
        let mut peer = self.peer(&found);
        let request = wire::ExamineRequest { vm: Some(ready.vm.clone()) };
        let reply = peer.calls.examine(request).await.map_err(|status| silent(&found.place, status))?.into_inner();
        let obstacles = ready.obstacles.iter().cloned().chain(reply.obstacles).collect();
        let foreseen = self.foresee(asked, ready, &found).await;
        let prediction = foreseen
            .inspect_err(|error| tracing::info!(vm = %asked.vm, %error, "what its migration would take is not known"));
        Ok(wire::ExamineReply { obstacles, prediction: prediction.ok() })
    }

    /// Has a migration given up, as far as that is open.
    ///
    /// # Errors
    /// [`VmError`]: there is none.
    pub fn cancel(&self, name: &VmName, why: &str) -> Result<Watched, VmError> {
        let known = self.known();
        let vm = known.get(name).ok_or_else(|| VmError::Unknown(name.clone()))?;
        let running = vm.migration.as_ref().ok_or_else(|| VmError::Still(name.clone()))?;
        running.wish.send_if_modified(|wish| {
            let is_first = wish.is_none();
            wish.get_or_insert_with(|| why.to_owned());
            is_first
        });
        Ok(running.watched.clone())
    }

    /// What a migration is about of which there is nothing but its record.
    fn setup(
        &self,
        migration: MigrationId,
        volumes: Vec<VolumeName>,
        monitor: Monitor,
        found: &FoundMigrator,
        record: OutgoingRecord,
    ) -> Setup {
        Setup {
            migration,
            vm: None,
            volumes,
            token: Vec::new(),
            rate: None,
            from: self.node.place().clone(),
            to: found.place.clone(),
            is_offline: false,
            monitor,
            node: self.node.clone(),
            peer: self.peer(found),
            // Short: the system takes 107 bytes.
            socket: self.settings.migrator.join(format!("out-{}", &migration.to_string()[..8])),
            record,
            records: Arc::clone(&self.outgoing),
            hooks: Arc::clone(&self.settings.hooks),
        }
    }

    fn peer(&self, found: &FoundMigrator) -> Peer {
        locked(&self.addresses).insert(found.node, found.address);
        let on = |lane| MigrationsClient::new(self.channels.channel(found.node, lane));
        Peer { calls: on(Lane::Control), stream: on(Lane::Bulk) }
    }

    fn begin(self: &Arc<Self>, name: &VmName, setup: Setup) -> Watched {
        let (migration, from, to) = (setup.migration, setup.from.clone(), setup.to.clone());
        let (wish, wished) = watch::channel(None);
        let (progress, seen) = watch::channel(Progress::BEGINNING);
        let (tell, ended) = watch::channel(None);
        let (record, peer, occasion) = (setup.record.clone(), setup.peer.clone(), setup.occasion());
        let source = Source::new(setup, wished, progress);
        let watched = Watched { progress: seen, ended };
        let (own, vm, destination) = (Arc::clone(self), name.clone(), to.clone());
        let mut known = self.known();
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            let run = AbortOnDropHandle::new(tokio::spawn(source.run()));
            let report = tokio::select! {
                report = run => report,
                // The next run of the migrator finds what there is.
                () = stop.cancelled() => return,
            };
            let ended = match report {
                Ok(report) => Ended { migration, vm: vm.clone(), from, to: destination, report },
                Err(panic) => {
                    tracing::error!(%vm, %migration, %panic, "a migration has failed in this program: start the migrator again, and it is brought to an end");
                    return;
                }
            };
            let Report { end, why, took, .. } = &ended.report;
            tracing::info!(%vm, %migration, to = %ended.to, ?end, ?why, ?took, "a migration has ended");
            own.call_hooks(&ended, occasion).await;
            own.ended(vm, ended.clone(), record, peer).await;
            tell.send_replace(Some(ended));
        });
        known.entry(name.clone()).or_default().migration = Some(Running { to, wish, watched: watched.clone() });
        watched
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

    /// Calls what is to be called at the end; what fails of it is told.
    async fn call_hooks(&self, ended: &Ended, occasion: Occasion) {
        let end = match ended.report.end {
            End::Moved => "moved",
            End::Kept => "kept",
            End::Lost => "lost",
        };
        let occasion = Occasion { end: Some(end), ..occasion };
        let switch = (ended.report.end == End::Moved).then_some(Event::Switch);
        for event in switch.into_iter().chain([Event::Finish]) {
            if let Err(error) = self.settings.hooks.call(event, &occasion).await {
                tracing::warn!(vm = %ended.vm, migration = %ended.migration, %error, "a hook has failed");
            }
        }
    }

    async fn ended(self: &Arc<Self>, name: VmName, ended: Ended, record: OutgoingRecord, peer: Peer) {
        let (own, id) = (Arc::clone(self), ended.migration.to_string());
        let has_left = (ended.report.end == End::Moved).then(|| name.clone());
        let written = sterna_runtime::work::blocking(move || {
            if let Some(name) = has_left {
                own.records.remove(name.as_str())?;
                own.known().entry(name).or_default().record = None;
            }
            own.outgoing.put(&id, &OutgoingRecord { is_ended: true, ..record })
        });
        if let Err(error) = written.await.expect("writing a record does not panic") {
            tracing::warn!(vm = %name, %error, "a migration has ended, and that cannot be written down: it is looked at again after the next start");
        }
        self.tell_forgotten(ended.migration, peer);
        let mut known = self.known();
        let vm = known.entry(name).or_default();
        vm.migration = None;
        vm.last = Some(ended);
    }

    /// Has the destination let go of a migration that has ended here, however long that takes to be heard.
    fn tell_forgotten(self: &Arc<Self>, migration: MigrationId, mut peer: Peer) {
        let (own, stop) = (Arc::clone(self), self.stop.clone());
        let telling = async move {
            let request = wire::GiveUpRequest { migration: migration.0.to_vec(), why: "it has ended".to_owned() };
            while let Err(status) = peer.calls.forget(request.clone()).await {
                tracing::info!(%migration, %status, "the destination does not hear that a migration has ended; it is told again");
                sleep(BETWEEN_TELLINGS).await;
            }
            let removed = sterna_runtime::work::blocking(move || own.outgoing.remove(&migration.to_string())).await;
            if let Err(error) = removed.expect("removing a record does not panic") {
                tracing::warn!(%migration, %error, "a migration that has ended is told again after the next start");
            }
        };
        self.tasks.spawn(async move {
            tokio::select! {
                () = telling => {}
                () = stop.cancelled() => {}
            }
        });
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<VmName, Known>> {
        locked(&self.known)
    }
}

fn place(site: &str, node: &str) -> Result<Place, InvalidName> {
    Ok(Place { site: site.parse()?, node: node.parse()? })
}

fn silent(to: &Place, status: tonic::Status) -> VmError {
    VmError::Peer { to: to.clone(), status: Box::new(status) }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A link that is cut comes back some day.
const BETWEEN_TELLINGS: Duration = Duration::from_secs(2);
