//! What has to be known before a VM can go.

use std::path::Path;

use sterna_proto::migrator as wire;
use sterna_types::{VmName, VolumeName};

use super::{Order, VmError, VmRecord, Vms};
use crate::examine::{Expected, at_source};
use crate::launch::process::Started;
use crate::monitor::Monitor;
use crate::volumes::FoundMigrator;

/// A VM that is ready to go.
pub(super) struct Ready {
    /// Its QEMU.
    pub(super) monitor: Monitor,
    /// For the destination.
    pub(super) vm: wire::Vm,
    /// Its disks.
    pub(super) volumes: Vec<VolumeName>,
    /// What stands against its leaving.
    pub(super) obstacles: Vec<wire::Obstacle>,
}

impl Vms {
    /// Finds out all about a VM that is to go, and who is to take it.
    pub(super) async fn get_ready(&self, asked: &Order) -> Result<(FoundMigrator, Ready), VmError> {
        let Order { vm: name, site, node, .. } = asked;
        let told = self.told(name)?;
        let record = told.record.ok_or_else(|| VmError::Unknown(name.clone()))?;
        if let Some((to, _)) = told.migration {
            return Err(VmError::Moving(name.clone(), to));
        }
        let own = self.node.place();
        let mut found = self.node.find_migrators(site, node.as_ref()).await?;
        found.retain(|found| found.place != *own);
        if found.is_empty() && *site == own.site {
            return Err(VmError::There(name.clone(), own.clone()));
        }
        let found = found.into_iter().next().ok_or_else(|| VmError::NoMigrator(site.clone()))?;
        let (mut monitor, process) = Monitor::connect(&record.qmp).await?;
        let process = process.ok_or_else(|| VmError::NoProcess(name.clone()))?;
        let Some(qmp) = monitor.commands().await? else { return Err(VmError::NoProcess(name.clone())) };
        let volumes: Result<Vec<VolumeName>, _> = record.volumes.iter().map(|volume| volume.parse()).collect();
        let volumes = volumes?;
        let expected = Expected { volumes: volumes.clone(), nbd_socket: self.settings.nbd_socket.clone() };
        let examined = at_source(qmp, &expected).await?;
        let started = sterna_runtime::work::blocking(move || Started::of(process)).await;
        let started = started.expect("reading what a process was started with does not panic")?;
        let vm = described(name, &record, &self.settings.nbd_socket, started, examined.machine)?;
        Ok((found, Ready { monitor, vm, volumes, obstacles: examined.obstacles }))
    }
}

/// A VM, for its destination.
fn described(
    name: &VmName,
    record: &VmRecord,
    nbd_socket: &Path,
    started: Started,
    machine: wire::Machine,
) -> Result<wire::Vm, VmError> {
    let directory = record.qmp.parent().ok_or_else(|| VmError::Socket(record.qmp.clone()))?;
    Ok(wire::Vm {
        name: name.to_string(),
        volumes: record.volumes.clone(),
        program: started.program.display().to_string(),
        arguments: started.arguments,
        directory: directory.display().to_string(),
        nbd_socket: nbd_socket.display().to_string(),
        machine: Some(machine),
        qmp: record.qmp.display().to_string(),
    })
}
