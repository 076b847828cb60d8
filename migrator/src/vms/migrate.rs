//! A VM that is to go.

use std::sync::Arc;

use sterna_proto::migrator as wire;
use sterna_types::{ByteRate, NodeName, SiteName, VmName};

use super::ready::Ready;
use super::{VmError, Vms, Watched};
use crate::peer::MigrationId;
use crate::source::record::OutgoingRecord;
use crate::source::setup::Setup;
use crate::token::{Claim, Stage};

/// What is to be done with a VM.
#[derive(Clone, Debug)]
pub struct Order {
    /// Which one.
    pub vm: VmName,
    /// Where it is to go.
    pub site: SiteName,
    /// To which node there; nothing for whichever has a migrator.
    pub node: Option<NodeName>,
    /// What an operator allows; empty where there is nothing.
    pub token: Vec<u8>,
    /// How fast its memory is sent at most, while it runs.
    pub rate: Option<ByteRate>,
    /// Whether it is stopped before any of its memory is sent.
    pub is_offline: bool,
}

impl Vms {
    /// Begins to move a VM. Its token is used up by that, durably, whatever becomes of it.
    ///
    /// # Errors
    /// [`VmError`]. What stands against it is in the second part. Nothing was begun then either, and a token is as good as before, unless it
    /// could not be written down that it was used.
    ///
    /// # Cancel safety
    /// Dropped, it has begun or not; where it has not, the token may be used up.
    pub async fn migrate(self: &Arc<Self>, order: &Order) -> Result<Result<Watched, Vec<wire::Obstacle>>, VmError> {
        let Order { vm: name, token, rate, is_offline, .. } = order;
        let (found, ready) = self.get_ready(order).await?;
        let Ready { monitor, vm, volumes, obstacles } = ready;
        if !obstacles.is_empty() {
            return Ok(Err(obstacles));
        }
        let migration = MigrationId::random()?;
        let from = self.node.place();
        let epochs = self.node.epochs(&volumes).await?;
        let (to, stage) = (&found.place.site, Stage::Beginning);
        let claim = Claim { vm: Some(name), volumes: &epochs, from: &from.site, to, rate: *rate, stage };
        let rate = self.settings.admission.admit(token, &claim, migration).await?;
        let record = OutgoingRecord {
            vm: name.to_string(),
            from_site: from.site.to_string(),
            site: found.place.site.to_string(),
            node: found.place.node.to_string(),
            node_id: found.node.0,
            address: found.address.to_string(),
            is_stopped: false,
            is_ended: false,
        };
        let setup = self.setup(migration, volumes, monitor, &found, record);
        let setup = Setup { vm: Some(vm), token: token.clone(), rate, is_offline: *is_offline, ..setup };
        let known = self.known();
        let known_vm = known.get(name).ok_or_else(|| VmError::Unknown(name.clone()))?;
        if let Some(running) = &known_vm.migration {
            return Err(VmError::Moving(name.clone(), running.to.clone()));
        }
        drop(known);
        Ok(Ok(self.begin(name, setup)))
    }
}
