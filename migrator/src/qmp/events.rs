//! What QEMU tells by itself, and those of it that a migration goes by.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{broadcast, watch};

use super::client::end_of;
use super::error::{End, Unexpected, understand};
use super::migration::MigrationStatus;

/// Something that has happened in QEMU, as QEMU has told it.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Its name, in capital letters.
    pub name: String,
    /// What it says; null if it has nothing to say.
    pub data: Value,
    /// When it was, by the clock of QEMU's host, since 1970. Nothing if QEMU does not say.
    pub at: Option<Duration>,
}

/// What we understand of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// `MIGRATION`: the migration is in this state now. Only with the capability `events`.
    Migration(MigrationStatus),
    /// `MIGRATION_PASS`: this pass over the memory has begun; the first is 1. Only with the capability `events`.
    MigrationPass(u64),
    /// `STOP`: the guest does not run any more.
    Stop,
    /// `RESUME`: the guest runs again.
    Resume,
    /// `SHUTDOWN`: the machine goes off, and QEMU with it unless it was told to stay.
    Shutdown {
        /// Whether the guest wants that itself.
        guest: bool,
        /// Why, in QEMU's words, such as `host-qmp-quit`.
        reason: String,
    },
    /// `BLOCK_IO_ERROR`: a disk's request has failed.
    BlockIoError(BlockIoError),
    /// An event that no migration goes by.
    Other,
}

/// A disk's request that has failed.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct BlockIoError {
    /// The drive; empty for a disk that was made with `-blockdev`.
    #[serde(default)]
    pub device: String,
    /// The block node, if it has a name.
    #[serde(default)]
    pub node_name: Option<String>,
    /// What has failed.
    pub operation: IoOperation,
    /// What QEMU makes of it.
    pub action: IoErrorAction,
    /// The error, for people.
    #[serde(default)]
    pub reason: String,
}

/// What a request was to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IoOperation {
    /// It was to read.
    Read,
    /// It was to write, to flush or to discard.
    Write,
    /// A word that we do not know.
    #[serde(untagged)]
    Unknown(String),
}

/// What QEMU makes of a request that has failed (`werror`, `rerror`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IoErrorAction {
    /// The guest is told that it has succeeded.
    Ignore,
    /// The guest gets the error.
    Report,
    /// The guest stops, and the request is made again when it goes on.
    Stop,
    /// A word that we do not know.
    #[serde(untagged)]
    Unknown(String),
}

impl Event {
    /// What we understand of it.
    ///
    /// # Errors
    /// [`Unexpected`], if it has a name that we know and does not say what it should.
    pub fn kind(&self) -> Result<EventKind, Unexpected> {
        Ok(match self.name.as_str() {
            "MIGRATION" => EventKind::Migration(self.data::<Migration>()?.status),
            "MIGRATION_PASS" => EventKind::MigrationPass(self.data::<MigrationPass>()?.pass),
            "STOP" => EventKind::Stop,
            "RESUME" => EventKind::Resume,
            "SHUTDOWN" => {
                let Shutdown { guest, reason } = self.data()?;
                EventKind::Shutdown { guest, reason }
            }
            "BLOCK_IO_ERROR" => EventKind::BlockIoError(self.data()?),
            _ => EventKind::Other,
        })
    }

    fn data<T: for<'de> Deserialize<'de>>(&self) -> Result<T, Unexpected> {
        understand(&self.name, &self.data)
    }
}

#[derive(Deserialize)]
struct Migration {
    status: MigrationStatus,
}

#[derive(Deserialize)]
struct MigrationPass {
    pass: u64,
}

#[derive(Deserialize)]
struct Shutdown {
    guest: bool,
    #[serde(default)]
    reason: String,
}

impl fmt::Display for IoOperation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

impl fmt::Display for IoErrorAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// The events of a connection since [`subscribe`](super::QmpClient::subscribe).
///
/// What is never false: whoever gets no [`EventsError::Lagged`] has got every event.
#[derive(Debug)]
pub struct Events {
    pub(super) received: broadcast::Receiver<Event>,
    pub(super) ended: watch::Receiver<Option<End>>,
}

/// There is no next event.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EventsError {
    /// The receiver was so far behind that events are lost to it. It goes on with the oldest that is left, and whoever goes by events
    /// has to ask QEMU where it stands.
    #[error("{missed} events of QEMU came too fast and are lost")]
    Lagged {
        /// How many are lost.
        missed: u64,
    },
    /// The connection has ended, and all its events were received.
    #[error("the connection to QEMU has ended")]
    Ended(#[source] End),
}

impl Events {
    /// Waits for the next event.
    ///
    /// # Errors
    /// [`EventsError`].
    ///
    /// # Cancel safety
    /// Dropped, it has taken no event.
    pub async fn next(&mut self) -> Result<Event, EventsError> {
        match self.received.recv().await {
            Ok(event) => Ok(event),
            Err(broadcast::error::RecvError::Lagged(missed)) => Err(EventsError::Lagged { missed }),
            Err(broadcast::error::RecvError::Closed) => Err(EventsError::Ended(end_of(&mut self.ended).await)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn event(name: &str, data: Value) -> Event {
        Event { name: name.to_owned(), data, at: None }
    }

    #[test]
    fn the_events_of_a_migration_are_understood() {
        let kinds = [
            (event("MIGRATION", json!({ "status": "active" })), EventKind::Migration(MigrationStatus::Active)),
            (event("MIGRATION_PASS", json!({ "pass": 2, "more": 1 })), EventKind::MigrationPass(2)),
            (event("STOP", Value::Null), EventKind::Stop),
            (event("RESUME", json!({ "more": 1 })), EventKind::Resume),
            (
                event("SHUTDOWN", json!({ "guest": false, "reason": "host-qmp-quit" })),
                EventKind::Shutdown { guest: false, reason: "host-qmp-quit".to_owned() },
            ),
            (event("RTC_CHANGE", json!({ "offset": 1 })), EventKind::Other),
        ];
        for (event, kind) in kinds {
            assert_eq!(event.kind().expect("it is understood"), kind);
        }
    }

    #[test]
    fn a_failed_request_is_understood_whatever_words_are_new() {
        let data = json!({
            "device": "", "node-name": "n0", "reason": "Input/output error", "nospace": false, "qom-path": "/machine/x",
            "operation": "write", "action": "stop",
        });
        let EventKind::BlockIoError(error) = event("BLOCK_IO_ERROR", data).kind().expect("understood") else {
            panic!("it is a failed request");
        };
        assert_eq!(error.node_name.as_deref(), Some("n0"));
        assert_eq!((&error.operation, &error.action), (&IoOperation::Write, &IoErrorAction::Stop));

        let data = json!({ "operation": "verify", "action": "retry" });
        let EventKind::BlockIoError(error) = event("BLOCK_IO_ERROR", data).kind().expect("understood") else {
            panic!("it is a failed request");
        };
        assert_eq!((error.operation.to_string(), error.action.to_string()), ("verify".to_owned(), "retry".to_owned()));
    }

    #[test]
    fn an_event_that_does_not_say_what_it_should_is_named_in_the_error() {
        let error = event("MIGRATION_PASS", json!({ "pass": "two" })).kind().expect_err("no number");
        assert_eq!(error.what, "MIGRATION_PASS");
        assert!(error.why.contains("two") && error.text.contains("pass"), "{error}");
    }
}
