//! Whether a machine runs, by `query-status`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What `query-status` says.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct VmStatus {
    /// Whether the guest's processors run.
    pub running: bool,
    /// Why, or why not.
    pub status: RunState,
}

/// The state that a machine is in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunState {
    /// It has not begun (`-S`).
    Prelaunch,
    /// It waits for a migration to come in, or for that to end.
    #[serde(rename = "inmigrate")]
    InMigrate,
    /// It runs.
    Running,
    /// It was stopped, or has come in by a migration and was not told to go on.
    Paused,
    /// A migration has stopped it, and is not over.
    FinishMigrate,
    /// It has left by a migration.
    #[serde(rename = "postmigrate")]
    PostMigrate,
    /// A request of a disk has failed, and the disk's policy is to stop.
    IoError,
    /// Something in QEMU has failed; it cannot go on.
    InternalError,
    /// It is off, and QEMU was told to stay.
    Shutdown,
    /// The guest sleeps.
    Suspended,
    /// The guest has panicked.
    GuestPanicked,
    /// A watchdog has stopped it.
    Watchdog,
    /// A debugger has stopped it.
    Debug,
    /// A state is being restored.
    RestoreVm,
    /// A state is being saved.
    SaveVm,
    /// It runs at both ends (COLO).
    Colo,
    /// A word that we do not know.
    #[serde(untagged)]
    Unknown(String),
}

impl fmt::Display for RunState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

#[cfg(test)]
mod tests {
    use super::super::error::understand;
    use super::*;
    use serde_json::json;

    #[test]
    fn every_state_has_qemus_name_and_a_new_one_is_kept() {
        let names = [
            ("prelaunch", RunState::Prelaunch),
            ("inmigrate", RunState::InMigrate),
            ("finish-migrate", RunState::FinishMigrate),
            ("postmigrate", RunState::PostMigrate),
            ("io-error", RunState::IoError),
            ("restore-vm", RunState::RestoreVm),
            ("dreaming", RunState::Unknown("dreaming".to_owned())),
        ];
        for (name, status) in names {
            let said = json!({ "running": false, "status": name, "singlestep": false });
            let expected = VmStatus { running: false, status: status.clone() };
            assert_eq!(understand::<VmStatus>("query-status", &said).expect("understood"), expected);
            assert_eq!(status.to_string(), name);
        }
    }

    #[test]
    fn a_status_without_its_most_important_word_is_refused() {
        let error = understand::<VmStatus>("query-status", &json!({ "status": "running" })).expect_err("incomplete");
        assert!(error.to_string().contains("running"), "{error}");
    }
}
