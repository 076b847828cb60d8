//! The commands that a migration needs, by their types.

use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::client::QmpClient;
use super::error::{QmpError, Unexpected, excerpt, understand};
use super::migration::MigrationInfo;
use super::vm_status::VmStatus;

/// The commands of a migration to one QEMU, each with the same patience. Cloning shares the connection.
///
/// Their errors are those of [`QmpClient::execute`], and so is their cancel safety; what is said with each comes on top of it.
#[derive(Clone, Debug)]
pub struct Commands {
    client: QmpClient,
    patience: Duration,
}

impl Commands {
    /// Commands over this connection. QEMU answers at once, unless its main loop waits for a disk; so long `patience` should be.
    pub fn new(client: QmpClient, patience: Duration) -> Self {
        Self { client, patience }
    }

    /// The connection.
    pub fn client(&self) -> &QmpClient {
        &self.client
    }

    /// Whether the machine runs, and why not.
    ///
    /// # Errors
    /// [`QmpError`].
    ///
    /// # Cancel safety
    /// Dropped, it changes nothing.
    pub async fn query_status(&self) -> Result<VmStatus, QmpError> {
        let command = "query-status";
        Ok(understand(command, &self.ask(command, Value::Null).await?)?)
    }

    /// How the migration is doing, at either end.
    ///
    /// # Errors
    /// [`QmpError`].
    ///
    /// # Cancel safety
    /// Dropped, it changes nothing.
    pub async fn query_migrate(&self) -> Result<MigrationInfo, QmpError> {
        let command = "query-migrate";
        Ok(understand(command, &self.ask(command, Value::Null).await?)?)
    }

    /// Turns capabilities of the migration on and off, all or none; those that are not named stay as they are.
    ///
    /// # Errors
    /// [`QmpError`]; refused if one is not known, contradicts another, or a migration is underway.
    ///
    /// # Cancel safety
    /// As of [`QmpClient::execute`].
    pub async fn set_capabilities(&self, capabilities: &[(&str, bool)]) -> Result<(), QmpError> {
        let one = |&(capability, state): &(&str, bool)| json!({ "capability": capability, "state": state });
        let capabilities: Vec<Value> = capabilities.iter().map(one).collect();
        self.tell("migrate-set-capabilities", json!({ "capabilities": capabilities })).await
    }

    /// Sets parameters of the migration, an object with QEMU's names and units; those that are not named stay as they are.
    ///
    /// # Errors
    /// [`QmpError`]; refused if one is not known, or has a value that it cannot have.
    ///
    /// # Cancel safety
    /// As of [`QmpClient::execute`].
    pub async fn set_parameters(&self, parameters: Value) -> Result<(), QmpError> {
        self.tell("migrate-set-parameters", parameters).await
    }

    /// Begins to migrate the machine to this address, such as `unix:/run/migration.sock`; returns when it has begun.
    ///
    /// # Errors
    /// [`QmpError`]; refused if something blocks migrations, or one is underway. That nobody listens there is told by the migration's
    /// state instead.
    ///
    /// # Cancel safety
    /// As of [`QmpClient::execute`].
    pub async fn migrate(&self, uri: &str) -> Result<(), QmpError> {
        self.tell("migrate", json!({ "uri": uri })).await
    }

    /// Listens at this address for a machine to come in; returns when it listens. If that fails later QEMU stays, and tells why.
    ///
    /// # Errors
    /// [`QmpError`]; refused if QEMU was not started with `-incoming defer`, or listens already.
    ///
    /// # Cancel safety
    /// As of [`QmpClient::execute`].
    pub async fn migrate_incoming(&self, uri: &str) -> Result<(), QmpError> {
        self.tell("migrate-incoming", json!({ "uri": uri, "exit-on-error": false })).await
    }

    /// Lets a migration go on that waits in `pre-switchover`.
    ///
    /// # Errors
    /// [`QmpError`]; refused if it is in another state.
    ///
    /// # Cancel safety
    /// As of [`QmpClient::execute`].
    pub async fn migrate_continue(&self) -> Result<(), QmpError> {
        self.tell("migrate-continue", json!({ "state": "pre-switchover" })).await
    }

    /// Asks for the end of a migration. Success says nothing: it may be cancelled, failed or completed after it, as its state tells.
    ///
    /// # Errors
    /// [`QmpError`].
    ///
    /// # Cancel safety
    /// As of [`QmpClient::execute`].
    pub async fn migrate_cancel(&self) -> Result<(), QmpError> {
        self.tell("migrate_cancel", Value::Null).await
    }

    /// Lets the guest run. Before a machine has come in, it is a promise to let it run as soon as it has.
    ///
    /// # Errors
    /// [`QmpError`]; refused while a migration takes the machine away.
    ///
    /// # Cancel safety
    /// As of [`QmpClient::execute`].
    pub async fn cont(&self) -> Result<(), QmpError> {
        self.tell("cont", Value::Null).await
    }

    /// Stops the guest; returns when it has stopped and its disks are flushed.
    ///
    /// # Errors
    /// [`QmpError`].
    ///
    /// # Cancel safety
    /// As of [`QmpClient::execute`].
    pub async fn stop(&self) -> Result<(), QmpError> {
        self.tell("stop", Value::Null).await
    }

    /// Asks QEMU to end; returns when it has agreed. The connection ends after it.
    ///
    /// # Errors
    /// [`QmpError`].
    ///
    /// # Cancel safety
    /// As of [`QmpClient::execute`].
    pub async fn quit(&self) -> Result<(), QmpError> {
        self.tell("quit", Value::Null).await
    }

    /// Has the machine's network cards tell the network where they are now, five times in the next second, as QEMU does by itself after
    /// a migration.
    ///
    /// # Errors
    /// [`QmpError`].
    ///
    /// # Cancel safety
    /// As of [`QmpClient::execute`].
    pub async fn announce_self(&self) -> Result<(), QmpError> {
        // Milliseconds: the first wait, the longest, and by how much each is longer. These are QEMU's own.
        self.tell("announce-self", json!({ "initial": 50, "max": 550, "rounds": 5, "step": 100 })).await
    }

    /// Begins to measure how fast the guest writes its memory, by a sample of its pages, for this many seconds.
    ///
    /// # Errors
    /// [`QmpError`]; refused while it is measured already.
    ///
    /// # Cancel safety
    /// As of [`QmpClient::execute`].
    pub async fn measure_dirty_rate(&self, seconds: u64) -> Result<(), QmpError> {
        self.tell("calc-dirty-rate", json!({ "calc-time": seconds })).await
    }

    /// What any other command returns, as a type of the caller's: an object, a list or a single value.
    ///
    /// # Errors
    /// [`QmpError`].
    ///
    /// # Cancel safety
    /// As of [`QmpClient::execute`].
    pub(crate) async fn ask_for<T: DeserializeOwned>(&self, command: &str, arguments: Value) -> Result<T, QmpError> {
        let said = self.ask(command, arguments).await?;
        let understood = T::deserialize(&said);
        Ok(understood.map_err(|error| Unexpected {
            what: command.to_owned(),
            why: error.to_string(),
            text: excerpt(said.to_string().as_bytes()),
        })?)
    }

    async fn ask(&self, command: &str, arguments: Value) -> Result<Value, QmpError> {
        self.client.execute(command, arguments, self.patience).await
    }

    /// For commands that return nothing of use.
    async fn tell(&self, command: &str, arguments: Value) -> Result<(), QmpError> {
        self.ask(command, arguments).await.map(drop)
    }
}
