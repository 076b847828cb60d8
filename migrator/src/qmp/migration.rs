//! How a migration is doing, by `query-migrate`.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};

/// The state that a migration is in, at either end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MigrationStatus {
    /// There was none yet.
    #[default]
    None,
    /// It begins.
    Setup,
    /// Memory is sent while the guest runs.
    Active,
    /// The guest has stopped, its disks are flushed, and QEMU waits for `migrate-continue`.
    PreSwitchover,
    /// The rest of the memory and the devices are sent.
    Device,
    /// It has succeeded.
    Completed,
    /// It has failed. The source lets the guest go on by itself.
    Failed,
    /// It is being cancelled.
    Cancelling,
    /// It was cancelled. The source lets the guest go on by itself.
    Cancelled,
    /// The guest runs at the destination, and its memory follows.
    PostcopyActive,
    /// The same, interrupted.
    PostcopyPaused,
    /// The same, about to go on.
    PostcopyRecoverSetup,
    /// The same, going on.
    PostcopyRecover,
    /// Both ends run the guest (COLO).
    Colo,
    /// It waits for the guest to let go of a device.
    WaitUnplug,
    /// A word that we do not know.
    #[serde(untagged)]
    Unknown(String),
}

impl MigrationStatus {
    /// Whether it is over, one way or another. A word that we do not know is not.
    pub fn is_over(&self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }
}

impl fmt::Display for MigrationStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// What `query-migrate` says. What QEMU leaves out, because it has no meaning in this state, is nothing or zero.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct MigrationInfo {
    /// Its state.
    pub status: MigrationStatus,
    /// How long it has lasted, or did last.
    #[serde(deserialize_with = "millis")]
    pub total_time: Option<Duration>,
    /// How long the guest did not run, once it is over.
    #[serde(deserialize_with = "millis")]
    pub downtime: Option<Duration>,
    /// How long the guest would not run if it were stopped now, by QEMU's estimate.
    #[serde(deserialize_with = "millis")]
    pub expected_downtime: Option<Duration>,
    /// How long the beginning took.
    #[serde(deserialize_with = "millis")]
    pub setup_time: Option<Duration>,
    /// How the memory is doing; only at the source.
    pub ram: Option<RamProgress>,
    /// Why it has failed, for people.
    pub error_desc: Option<String>,
    /// Why this machine cannot be migrated, for people; empty if it can.
    pub blocked_reasons: Vec<String>,
}

/// How the memory is doing in a migration. Pages have [`page_size`](Self::page_size) bytes.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct RamProgress {
    /// Bytes that were sent.
    #[serde(rename = "transferred")]
    pub transferred_bytes: u64,
    /// Bytes that are still to be sent, by what QEMU knew at the beginning of this pass.
    #[serde(rename = "remaining")]
    pub remaining_bytes: u64,
    /// Bytes of memory that the guest has.
    #[serde(rename = "total")]
    pub total_bytes: u64,
    /// Pages that were sent as one byte, as they are all zero. (QEMU's word for them is older than that.)
    #[serde(rename = "duplicate")]
    pub zero_pages: u64,
    /// Pages that were sent whole.
    #[serde(rename = "normal")]
    pub normal_pages: u64,
    /// Bytes of pages that were sent whole.
    pub normal_bytes: u64,
    /// Pages that the guest writes in a second; zero before the second pass.
    #[serde(rename = "dirty-pages-rate")]
    pub dirty_pages_per_second: u64,
    /// What is sent, in millions of bits in a second.
    pub mbps: f64,
    /// How often the pages that were written have been collected: the number of passes.
    pub dirty_sync_count: u64,
    /// Bytes in a page.
    pub page_size: u64,
    /// Pages that are sent in a second.
    pub pages_per_second: u64,
}

/// QEMU gives times as a number of milliseconds.
fn millis<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    Ok(Option::<u64>::deserialize(deserializer)?.map(Duration::from_millis))
}

#[cfg(test)]
mod tests {
    use super::super::error::understand;
    use super::*;
    use serde_json::json;

    #[test]
    fn a_machine_that_was_never_migrated_says_nothing() {
        let info: MigrationInfo = understand("query-migrate", &json!({})).expect("it is understood");
        assert_eq!(info, MigrationInfo::default());
        assert_eq!(info.status, MigrationStatus::None);
    }

    #[test]
    fn an_answer_of_qemu_10_is_understood() {
        let said = json!({
            "status": "completed", "setup-time": 3, "downtime": 11, "total-time": 1600, "new": { "x": 1 },
            "ram": {
                "total": 134_750_208, "postcopy-requests": 0, "dirty-sync-count": 2, "multifd-bytes": 0,
                "pages-per-second": 5, "downtime-bytes": 509_114, "page-size": 4096, "remaining": 6, "postcopy-bytes": 0,
                "mbps": 292.8395, "transferred": 585_679, "dirty-sync-missed-zero-copy": 0, "precopy-bytes": 0,
                "duplicate": 32_846, "dirty-pages-rate": 7, "normal-bytes": 212_992, "normal": 52,
            },
        });
        let info: MigrationInfo = understand("query-migrate", &said).expect("it is understood");
        assert_eq!(info.status, MigrationStatus::Completed);
        assert_eq!(info.setup_time, Some(Duration::from_millis(3)));
        assert_eq!(info.downtime, Some(Duration::from_millis(11)));
        assert_eq!(info.total_time, Some(Duration::from_millis(1600)));
        assert_eq!((info.expected_downtime, info.error_desc), (None, None));
        let expected = RamProgress {
            transferred_bytes: 585_679,
            remaining_bytes: 6,
            total_bytes: 134_750_208,
            zero_pages: 32_846,
            normal_pages: 52,
            normal_bytes: 212_992,
            dirty_pages_per_second: 7,
            mbps: 292.8395,
            dirty_sync_count: 2,
            page_size: 4096,
            pages_per_second: 5,
        };
        assert_eq!(info.ram, Some(expected));
    }

    #[test]
    fn a_failure_and_what_is_in_the_way_are_told_in_qemus_words() {
        let said = json!({ "status": "failed", "error-desc": "Channel error", "blocked-reasons": ["vfio", "9p"] });
        let info: MigrationInfo = understand("query-migrate", &said).expect("it is understood");
        assert_eq!((info.status.is_over(), info.error_desc.as_deref()), (true, Some("Channel error")));
        assert_eq!(info.blocked_reasons, ["vfio", "9p"]);
    }

    #[test]
    fn every_state_has_qemus_name_and_a_new_one_is_kept() {
        let names = [
            ("none", MigrationStatus::None),
            ("pre-switchover", MigrationStatus::PreSwitchover),
            ("postcopy-recover-setup", MigrationStatus::PostcopyRecoverSetup),
            ("wait-unplug", MigrationStatus::WaitUnplug),
            ("teleporting", MigrationStatus::Unknown("teleporting".to_owned())),
        ];
        for (name, status) in names {
            let info: MigrationInfo = understand("query-migrate", &json!({ "status": name })).expect("understood");
            assert_eq!(info.status, status);
            assert_eq!(status.to_string(), name);
        }
    }

    #[test]
    fn what_cannot_be_understood_is_told_shortly() {
        let said = json!({ "status": "active", "total-time": "x".repeat(5000) });
        let error = understand::<MigrationInfo>("query-migrate", &said).expect_err("no number");
        assert_eq!(error.what, "query-migrate");
        assert!(error.text.len() < 300, "{error}");
    }
}
