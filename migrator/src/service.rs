//! What is asked of a migrator on its own host.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sterna_proto::migrator::migrate_vm_reply::Step;
use sterna_proto::migrator::vms_server::Vms as Service;
use sterna_proto::migrator::{
    AddVmRequest, CancelMigrationRequest, ExamineReply, KnownVm, ListVmsReply, ListVmsRequest, MigrateVmReply,
    MigrateVmRequest, MigrationEnd, MigrationPhase, MigrationProgress, MigrationReport, RemoveVmReply, RemoveVmRequest,
};
use sterna_types::names::InvalidName;
use sterna_types::{ByteRate, NodeName, SiteName, VmName, VolumeName};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::converge::sent_in;
use crate::monitor::Monitor;
use crate::source::record::{End, Phase, Progress, Report};
use crate::token::{NotAdmitted, signed};
use crate::vms::{Ended, Order, Told, VmError, Vms, Watched};
use crate::volumes::NodeError;

/// Answers on the migrator's socket.
#[derive(Clone)]
pub struct VmsService(pub Arc<Vms>);

#[tonic::async_trait]
impl Service for VmsService {
    type MigrateVmStream = ReceiverStream<Result<MigrateVmReply, Status>>;

    async fn add_vm(&self, request: Request<AddVmRequest>) -> Result<Response<KnownVm>, Status> {
        let AddVmRequest { name, qmp, volumes } = request.into_inner();
        let name: VmName = name.parse().map_err(invalid)?;
        let volumes: Result<Vec<VolumeName>, _> =
            volumes.iter().map(|volume| volume.parse().map_err(invalid)).collect();
        let (volumes, qmp) = (volumes?, PathBuf::from(qmp));
        if volumes.is_empty() {
            return Err(Status::invalid_argument("name the volumes that are its disks"));
        }
        if !qmp.is_absolute() {
            return Err(Status::invalid_argument(format!("'{}' is no absolute path", qmp.display())));
        }
        let told = self.0.add(name, qmp, volumes).await?;
        Ok(Response::new(known(told).await))
    }

    async fn remove_vm(&self, request: Request<RemoveVmRequest>) -> Result<Response<RemoveVmReply>, Status> {
        self.0.remove(request.into_inner().name.parse().map_err(invalid)?).await?;
        Ok(Response::new(RemoveVmReply {}))
    }

    async fn list_vms(&self, request: Request<ListVmsRequest>) -> Result<Response<ListVmsReply>, Status> {
        let name = request.into_inner().name;
        let told = if name.is_empty() {
            self.0.list().into_iter().filter(|told| told.record.is_some()).collect()
        } else {
            vec![self.0.told(&name.parse().map_err(invalid)?)?]
        };
        let mut vms = Vec::with_capacity(told.len());
        for told in told {
            vms.push(known(told).await);
        }
        Ok(Response::new(ListVmsReply { vms }))
    }

    async fn migrate_vm(&self, request: Request<MigrateVmRequest>) -> Result<Response<Self::MigrateVmStream>, Status> {
        let MigrateVmRequest { name, site, node, dry_run, token, rate, is_offline } = request.into_inner();
        let vm: VmName = name.parse().map_err(invalid)?;
        let site: SiteName = site.parse().map_err(invalid)?;
        let node: Option<NodeName> = (!node.is_empty()).then(|| node.parse().map_err(invalid)).transpose()?;
        let asked = Order { vm, site, node, token, rate: asked_rate(rate)?, is_offline };
        let (replies, stream) = mpsc::channel(REPLIES);
        let examined = |examined| step(Step::Examined(examined));
        if dry_run {
            let found = self.0.examine(&asked).await?;
            // There is room for one.
            let _ = replies.send(Ok(examined(found))).await;
            return Ok(Response::new(ReceiverStream::new(stream)));
        }
        match self.0.migrate(&asked).await? {
            Err(obstacles) => drop(replies.send(Ok(examined(ExamineReply { obstacles, prediction: None }))).await),
            Ok(watched) => {
                let vms = Arc::clone(&self.0);
                tokio::spawn(async move { tell(watched, replies, &vms, &asked.vm).await });
            }
        }
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn cancel_migration(
        &self,
        request: Request<CancelMigrationRequest>,
    ) -> Result<Response<MigrationReport>, Status> {
        let name: VmName = request.into_inner().name.parse().map_err(invalid)?;
        let mut watched = self.0.cancel(&name, "it was cancelled")?;
        let ended = watched.ended.wait_for(Option::is_some).await.map_err(|_| gone())?.clone();
        Ok(Response::new(ended.map(MigrationReport::from).unwrap_or_default()))
    }
}

/// Tells a caller how far it is, and how it ends; has it given up where he goes away.
async fn tell(mut watched: Watched, replies: mpsc::Sender<Result<MigrateVmReply, Status>>, vms: &Vms, name: &VmName) {
    let telling = async {
        loop {
            let ended = watched.ended.borrow_and_update().clone();
            if let Some(ended) = ended {
                return replies.send(Ok(step(Step::Report(ended.into())))).await;
            }
            let progress = *watched.progress.borrow_and_update();
            replies.send(Ok(step(Step::Progress(progress.into())))).await?;
            tokio::select! {
                changed = watched.ended.changed() => if changed.is_err() {
                    return replies.send(Err(gone())).await;
                },
                // What is told faster than anybody reads is of no use.
                () = sleep(BETWEEN_REPLIES) => {}
            }
        }
    };
    let left = tokio::select! {
        told = telling => told.is_err(),
        () = replies.closed() => true,
    };
    if left {
        // It may have ended meanwhile.
        let _ = vms.cancel(name, "who asked for it has gone away");
    }
}

async fn known(told: Told) -> KnownVm {
    let Told { name, record, migration, last } = told;
    let (qmp, volumes) = record.map(|record| (record.qmp, record.volumes)).unwrap_or_default();
    // Its own connection is in use while it moves, and one more is answered by nobody.
    let state = if migration.is_some() || qmp.as_os_str().is_empty() {
        String::new()
    } else {
        let mut monitor = Monitor::at(&qmp);
        match timeout(STATE_PATIENCE, monitor.status()).await {
            Ok(Ok(Some(status))) => status.status.to_string(),
            Ok(Ok(None)) => "ended".to_owned(),
            Ok(Err(_)) | Err(_) => String::new(),
        }
    };
    KnownVm {
        name: name.to_string(),
        qmp: qmp.display().to_string(),
        volumes,
        state,
        migration: migration.map(|(to, watched)| {
            let progress = *watched.progress.borrow();
            MigrationProgress { site: to.site.to_string(), ..progress.into() }
        }),
        last: last.map(MigrationReport::from),
    }
}

impl From<Progress> for MigrationProgress {
    fn from(progress: Progress) -> Self {
        let Progress { phase, memory_bytes, memory_left_bytes, sent_bytes, brought_bytes, bytes_per_second } = progress;
        let phase = match phase {
            Phase::Preparing => MigrationPhase::Preparing,
            Phase::Bringing => MigrationPhase::Bringing,
            Phase::Switching => MigrationPhase::Switching,
            Phase::Undoing => MigrationPhase::Undoing,
        };
        let pause = (bytes_per_second > 0).then(|| micros(sent_in(memory_left_bytes, bytes_per_second)));
        Self {
            site: String::new(),
            phase: phase.into(),
            memory_bytes,
            memory_left_bytes,
            sent_bytes,
            brought_bytes,
            bytes_per_second,
            predicted_pause_us: pause.unwrap_or(0),
        }
    }
}

impl From<Ended> for MigrationReport {
    fn from(ended: Ended) -> Self {
        let Ended { migration, vm, from, to, report } = ended;
        let Report { end, why, took, stopped_for, downtime, .. } = report;
        let Report { sent_bytes, memory, brought_bytes, volumes_paused, waited_for_volumes, .. } = report;
        let end = match end {
            End::Moved => MigrationEnd::Moved,
            End::Kept => MigrationEnd::Kept,
            End::Lost => MigrationEnd::Lost,
        };
        Self {
            migration: migration.to_string(),
            vm: vm.to_string(),
            from_site: from.site.to_string(),
            site: to.site.to_string(),
            node: to.node.to_string(),
            end: end.into(),
            why: why.unwrap_or_default(),
            took_us: micros(took),
            stopped_us: stopped_for.map_or(0, micros),
            downtime_us: downtime.map_or(0, micros),
            sent_bytes,
            data_pages: memory.data_pages,
            zero_pages: memory.zero_pages,
            other_bytes: memory.other_bytes,
            brought_bytes,
            volumes_paused_us: volumes_paused.map_or(0, micros),
            waited_for_volumes_us: waited_for_volumes.map(micros),
        }
    }
}

impl From<VmError> for Status {
    fn from(error: VmError) -> Self {
        let message = with_causes(&error);
        match error {
            VmError::Unknown(_) => Self::not_found(message),
            VmError::Known(_) => Self::already_exists(message),
            VmError::Name(_) | VmError::Token(NotAdmitted::Invalid(_)) => Self::invalid_argument(message),
            VmError::Token(NotAdmitted::Missing | NotAdmitted::Refused(_)) => Self::permission_denied(message),
            VmError::Node(NodeError::Status(status)) => Self::new(status.code(), message),
            VmError::Peer { .. } => Self::unavailable(message),
            VmError::Record(_) | VmError::Chance(_) => Self::internal(message),
            _ => Self::failed_precondition(message),
        }
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(found) = cause {
        message.push_str(": ");
        message.push_str(&found.to_string());
        cause = found.source();
    }
    message
}

/// The rate that is asked for; nothing where that is 0.
pub(crate) fn asked_rate(bytes_per_second: u64) -> Result<Option<ByteRate>, Status> {
    signed::rate(bytes_per_second).map_err(|rate| {
        Status::invalid_argument(format!(
            "memory cannot be sent at {rate}: ask for {} to {}",
            ByteRate::MIN,
            ByteRate::MAX
        ))
    })
}

fn invalid(error: InvalidName) -> Status {
    Status::invalid_argument(error.to_string())
}

fn gone() -> Status {
    Status::aborted(
        "the migration has failed in the migrator itself: its log says more, and once it is started again it brings it to an end",
    )
}

fn step(step: Step) -> MigrateVmReply {
    MigrateVmReply { step: Some(step) }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Who reads slowly is told less.
const REPLIES: usize = 1;

/// Often enough for a display.
const BETWEEN_REPLIES: Duration = Duration::from_millis(200);

/// QEMU answers at once; where another client has its socket, nobody does.
const STATE_PATIENCE: Duration = Duration::from_secs(2);
