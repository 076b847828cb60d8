//! What a source sees of QEMU and of the volumes.

use std::time::Duration;

use tokio::time::Instant;

use super::Source;
use crate::converge::Advice;
use crate::phase::Volumes;
use crate::phase::source::{Memory, OutgoingVm};
use crate::qmp::MigrationStatus;
use crate::volumes::{Passage, PassageState};

impl Source {
    /// How it is with QEMU, and what that says of the migration.
    pub(super) async fn vm(&mut self) -> OutgoingVm {
        let running = match self.setup.monitor.status().await {
            Ok(None) => return OutgoingVm::Ended,
            Ok(Some(status)) => status.running,
            // Not known: as it was left. It would not say more of the migration either.
            Err(error) => {
                tracing::info!(migration = %self.setup.migration, %error, "it is not known how the VM's QEMU is");
                return if self.setup.record.is_stopped { OutgoingVm::Stopped } else { OutgoingVm::Running };
            }
        };
        if let Ok(Some(qmp)) = self.setup.monitor.commands().await
            && let Ok(info) = qmp.query_migrate().await
        {
            self.info = info;
        }
        // One that somebody else has stopped stays so: nothing is stopped for this, and nothing is to go on.
        if running || !self.setup.record.is_stopped { OutgoingVm::Running } else { OutgoingVm::Stopped }
    }

    pub(super) async fn volumes(&mut self) -> Volumes {
        match self.passage.as_mut().map(Passage::look) {
            Some(PassageState::Bringing { bytes }) => {
                self.brought_bytes = self.brought_bytes.max(bytes);
                return Volumes::Here;
            }
            Some(PassageState::Brought { bytes }) => {
                self.brought_bytes = bytes;
                return Volumes::Brought;
            }
            Some(PassageState::Ready(ready)) => {
                self.brought_bytes = ready.pre_copied_bytes;
                return if self.is_handed_over { Volumes::UnderWay } else { Volumes::Ready };
            }
            Some(PassageState::Failed(why)) => {
                self.given_up.get_or_insert_with(|| why.to_string());
                self.passage = None;
            }
            Some(PassageState::Passed(result)) => {
                self.volumes_paused = Some(Duration::from_micros(result.paused_us));
                self.passage = None;
            }
            None => {}
        }
        // Not known is not here.
        self.setup.node.whereabouts(&self.setup.volumes).await.unwrap_or(Volumes::UnderWay)
    }

    pub(super) fn memory(&mut self) -> Memory {
        let info = &self.info;
        match info.status {
            MigrationStatus::Active | MigrationStatus::Setup | MigrationStatus::Cancelling => Memory::Active,
            MigrationStatus::PreSwitchover => Memory::PreSwitchover,
            MigrationStatus::Device => Memory::Device,
            MigrationStatus::Completed if self.sending.is_some() => Memory::Completed,
            MigrationStatus::Failed | MigrationStatus::Cancelled if self.sending.is_some() => {
                let why = info.error_desc.clone();
                let status = &info.status;
                self.given_up.get_or_insert_with(|| why.unwrap_or_else(|| format!("QEMU says that it is {status}")));
                Memory::Idle
            }
            _ => Memory::Idle,
        }
    }

    /// Looks whether little is left, once for each round.
    pub(super) fn converge(&mut self) {
        let (Some(ram), Some(sending)) = (&self.info.ram, &self.sending) else { return };
        if ram.dirty_sync_count <= self.round.max(1) {
            return;
        }
        self.round = ram.dirty_sync_count;
        let rate = sending.carrier.progress().borrow().rate;
        let left_bytes = ram.remaining_bytes + sending.on_the_way();
        let advice = self.rounds.ended(left_bytes, rate);
        if advice != Advice::GoOn {
            self.converged.get_or_insert_with(Instant::now);
        }
        tracing::debug!(migration = %self.setup.migration, round = self.round, left_bytes, rate, ?advice, "a round of memory");
        self.is_converged = advice != Advice::GoOn;
    }
}
