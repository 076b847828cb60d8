//! What stands against the leaving of a VM, apart from its disks: its QEMU, its state, and what is done with it.

use sterna_proto::migrator::Obstacle;

use super::facts::{BlockExport, Facts, Job, Version};
use super::obstacle;
use crate::qmp::{MigrationInfo, MigrationStatus, RunState, VmStatus};

pub(super) fn obstacles(facts: &Facts) -> Vec<Obstacle> {
    let mut obstacles = Vec::new();
    obstacles.extend(too_old(facts.version));
    obstacles.extend(not_running(&facts.status));
    obstacles.extend(underway(&facts.migration));
    obstacles.extend(facts.migration.blocked_reasons.iter().map(|reason| blocked(reason)));
    obstacles.extend(facts.jobs.iter().filter(|job| !IDLE.contains(&job.status.as_str())).map(busy));
    obstacles.extend(facts.exports.iter().filter(|export| !export.shutting_down).map(exported));
    obstacles
}

fn too_old(version: Version) -> Option<Obstacle> {
    let (major, minor) = NEEDED;
    (version.series() < NEEDED).then(|| {
        obstacle(
            format!("its QEMU is {version}, and a migration needs what {major}.{minor} has: {NEEDED_FOR}"),
            format!("end the VM, and start it with QEMU {major}.{minor} or newer"),
        )
    })
}

fn not_running(status: &VmStatus) -> Option<Obstacle> {
    let remedy = match &status.status {
        RunState::Running | RunState::Paused => return None,
        RunState::Prelaunch => "let it begin ('cont')",
        RunState::InMigrate => "wait until it has come in",
        RunState::FinishMigrate => "wait until the migration that is underway has ended",
        RunState::PostMigrate => "look where it runs now, and end this QEMU",
        RunState::IoError => "see to the disk that has failed, and let it go on ('cont')",
        RunState::Shutdown => "end its QEMU, and start it at the other site once its volumes have moved",
        RunState::Suspended => "wake it ('system_wakeup')",
        RunState::GuestPanicked | RunState::InternalError => "reset it or start it anew",
        RunState::SaveVm | RunState::RestoreVm => "wait until its state is saved or restored",
        RunState::Watchdog | RunState::Debug | RunState::Colo | RunState::Unknown(_) => "see to it that it runs",
    };
    Some(obstacle(format!("it is in state '{}', and has to be running or paused", status.status), remedy))
}

fn underway(migration: &MigrationInfo) -> Option<Obstacle> {
    let status = &migration.status;
    let is_underway = *status != MigrationStatus::None && !status.is_over();
    is_underway.then(|| {
        obstacle(
            format!("a migration of it is in state '{status}' already, and there can be one at a time"),
            "wait for its end, or cancel it ('migrate_cancel')",
        )
    })
}

fn blocked(reason: &str) -> Obstacle {
    obstacle(
        format!("its QEMU refuses to migrate it: {reason}"),
        "unplug or unmount what is named there, or start the VM without it",
    )
}

fn busy(job: &Job) -> Obstacle {
    let Job { id, kind, status } = job;
    obstacle(
        format!("its QEMU has a job '{id}' of type '{kind}' in state '{status}', and must have none"),
        "wait for its end, or cancel it ('job-cancel')",
    )
}

fn exported(export: &BlockExport) -> Obstacle {
    let BlockExport { id, kind, node_name, .. } = export;
    obstacle(
        format!("its QEMU serves node '{node_name}' to others, as export '{id}' of type '{kind}', and must serve none"),
        "end that ('block-export-del')",
    )
}

/// The oldest QEMU that a VM can leave.
const NEEDED: (u32, u32) = (10, 0);

/// Why that one, with what each came in.
const NEEDED_FOR: &str = "pause-before-switchover, switchover-ack (8.1), exit-on-error of migrate-incoming (9.1), and disks that a paused \
    VM can leave behind inactive (10.0)";

/// States of a job that does nothing: it is not yet, or was not yet removed.
const IDLE: [&str; 3] = ["created", "concluded", "null"];
