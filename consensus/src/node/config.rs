//! How patient this node's part in Raft is.

use std::time::Duration;

use crate::state::cluster::MetadataVersion;

/// Timeouts, set for groups whose members are continents apart (design section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetadataConfig {
    /// How often a leader shows that it lives. Default: 500 ms.
    pub heartbeat: Duration,
    /// How long at least a member waits without one before it asks to be elected. Default: 2 s.
    pub election_min: Duration,
    /// How long at most; each member draws its own patience between the two. Default: 4 s.
    pub election_max: Duration,
    /// How long the last piece of a snapshot may take to be sent and installed. Default: 30 s.
    pub snapshot: Duration,
    /// After how many entries the metadata is written down anew, and the log before it may be dropped. Default: 5,000, which
    /// are replayed within a second or two.
    pub snapshot_after_entries: u64,
    /// How many entries before a snapshot are kept, so that a node that was briefly away need not take the whole snapshot.
    /// Default: 1,000.
    pub kept_entries: u64,
    /// How long whoever proposes or reads waits for somebody to lead. Default: 10 s, two elections of which the first fails.
    pub patience: Duration,
    /// Which version of the metadata's commands this node says that it understands. Default: the newest that it does; tests let
    /// it pretend to be an older program.
    pub knows: MetadataVersion,
}

impl Default for MetadataConfig {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(500),
            election_min: Duration::from_secs(2),
            election_max: Duration::from_secs(4),
            snapshot: Duration::from_secs(30),
            snapshot_after_entries: 5_000,
            kept_entries: 1_000,
            patience: Duration::from_secs(10),
            knows: MetadataVersion::CURRENT,
        }
    }
}

/// Timeouts that cannot work together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the metadata's timeouts contradict each other: 1 ms <= heartbeat ({heartbeat:?}) < election_min ({election_min:?}) < election_max ({election_max:?}) <= 1 h, 1 ms <= snapshot ({snapshot:?}) <= 1 h and 1 <= snapshot_after_entries"
)]
pub struct InvalidConfig {
    heartbeat: Duration,
    election_min: Duration,
    election_max: Duration,
    snapshot: Duration,
}

impl MetadataConfig {
    /// The same for openraft.
    pub(super) fn for_raft(&self, cluster_name: String) -> Result<openraft::Config, InvalidConfig> {
        let invalid = InvalidConfig {
            heartbeat: self.heartbeat,
            election_min: self.election_min,
            election_max: self.election_max,
            snapshot: self.snapshot,
        };
        let in_ms = |time: Duration| {
            let ms = u64::try_from(time.as_millis()).ok().filter(|ms| (1..=MAX_TIMEOUT_MS).contains(ms));
            ms.ok_or(invalid)
        };
        let (heartbeat_interval, election_timeout_min) = (in_ms(self.heartbeat)?, in_ms(self.election_min)?);
        let (election_timeout_max, install_snapshot_timeout) = (in_ms(self.election_max)?, in_ms(self.snapshot)?);
        let config = openraft::Config {
            cluster_name,
            heartbeat_interval,
            election_timeout_min,
            election_timeout_max,
            install_snapshot_timeout,
            snapshot_max_chunk_size: SNAPSHOT_MESSAGE_BYTES,
            snapshot_policy: openraft::SnapshotPolicy::LogsSinceLast(self.snapshot_after_entries.max(1)),
            max_in_snapshot_log_to_keep: self.kept_entries,
            // Who lacks entries that are dropped takes a snapshot, sooner or later; who does not, should not.
            replication_lag_threshold: self.snapshot_after_entries.saturating_add(self.kept_entries).max(1),
            ..openraft::Config::default()
        };
        if self.snapshot_after_entries == 0 {
            return Err(invalid);
        }
        config.validate().map_err(|_| invalid)
    }
}

/// Of a snapshot in one message: 1.3 s over a link of 25 Mbit/s, and four fill one of 130 Mbit/s at a round trip of 250 ms.
const SNAPSHOT_MESSAGE_BYTES: u64 = 4 << 20;
/// An hour: beyond any network.
const MAX_TIMEOUT_MS: u64 = 3_600_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_those_of_the_design() {
        let raft = MetadataConfig::default().for_raft("sterna".to_owned()).unwrap();
        assert_eq!(raft.heartbeat_interval, 500);
        assert_eq!((raft.election_timeout_min, raft.election_timeout_max), (2_000, 4_000));
        assert_eq!(raft.install_snapshot_timeout, 30_000);
    }

    #[test]
    fn timeouts_that_contradict_each_other_are_refused() {
        let with = |change: fn(&mut MetadataConfig)| {
            let mut config = MetadataConfig::default();
            change(&mut config);
            config.for_raft("sterna".to_owned())
        };
        assert!(with(|config| config.heartbeat = Duration::ZERO).is_err());
        assert!(with(|config| config.heartbeat = Duration::from_secs(2)).is_err());
        assert!(with(|config| config.election_max = config.election_min).is_err());
        assert!(with(|config| config.snapshot = Duration::MAX).is_err());
        assert!(with(|config| config.snapshot_after_entries = 0).is_err());
    }
}
