//! The newest metadata in a directory, read without Raft and without writing anything.

use std::path::Path;
use std::sync::Arc;

use super::StoreError;
use super::database::{Column, Database};
use super::log::{COMMITTED_KEY, decode, read_log_id};
use super::machine::Applied;
use super::snapshots::Snapshots;
use crate::raft::StoredMembership;
use crate::state::Metadata;

/// Metadata that was read and is not kept up.
#[derive(Clone, Debug)]
pub struct FoundMetadata {
    /// The metadata.
    pub metadata: Arc<Metadata>,
    /// What kept newer metadata from being read; `None` where nothing did.
    pub damage: Option<String>,
}

/// Reads the metadata in `dir`: the snapshot, and the log behind it as far as it is known to be committed. See
/// [`crate::read_only`].
pub(crate) fn read_only(dir: &Path) -> Result<FoundMetadata, StoreError> {
    let database = Arc::new(Database::open_read_only(dir)?);
    let mut applied = Applied::at_snapshot(&Snapshots::unaltered(Arc::clone(&database)))?;
    // Where it cannot be read, a group of one is still sure of its log.
    let committed = read_log_id(&database, COMMITTED_KEY).ok().flatten().map_or(0, |id| id.index);
    let damage = apply_log(&database, &mut applied, committed).err().map(|error| error.to_string());
    Ok(FoundMetadata { metadata: applied.metadata, damage })
}

fn apply_log(database: &Database, applied: &mut Applied, committed: u64) -> Result<(), StoreError> {
    let first = applied.last.map_or(0, |last| last.index.saturating_add(1));
    for (index, stored) in (first..).zip(database.iter_from(Column::Log, &first.to_be_bytes())) {
        let (key, json) = stored?;
        let entry = decode(database, &key, &json)?;
        if entry.log_id.index > committed && !is_alone(&applied.membership) {
            break;
        }
        if entry.log_id.index != index || applied.last >= Some(entry.log_id) {
            let what = format!("its log has entry {} in place of entry {index}", entry.log_id.index);
            return Err(StoreError::Damaged { dir: database.dir().to_owned(), what });
        }
        applied.apply(entry);
    }
    Ok(())
}

/// Whether the members are a group of one, in which what is in the log is committed.
fn is_alone(membership: &StoredMembership) -> bool {
    let voters = membership.membership().get_joint_config();
    voters.len() == 1 && voters.iter().all(|voters| voters.len() == 1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::path::PathBuf;

    use sterna_types::{ByteSize, ClusterId, NodeId, VolumeSize};

    use super::*;
    use crate::state::command::{Bootstrap, Command, NewVolume, Origin};
    use crate::state::policy::{AttachPolicy, Durability};
    use crate::state::volume::VolumeFormat;
    use crate::{MetadataConfig, MetadataNode, OpenError};

    fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut all = BTreeMap::new();
        for entry in fs::read_dir(dir).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                all.extend(files(&path));
            } else {
                all.insert(path.clone(), fs::read(&path).expect("a file"));
            }
        }
        all
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_was_acknowledged_is_read_and_nothing_is_altered() {
        let temp = tempfile::tempdir().expect("a temporary directory");
        let dir = temp.path().join("metadata");
        let (site, node) = ("ams".parse().expect("a name"), "ams-1".parse().expect("a name"));
        let bootstrap = Bootstrap { cluster: ClusterId::from_bytes([7; 16]), site, node, address: None };
        let running = MetadataNode::bootstrap(&dir, MetadataConfig::default(), bootstrap).await.expect("metadata");
        for name in ["a", "b"] {
            let new = NewVolume {
                name: name.parse().expect("a name"),
                size: VolumeSize::try_from(ByteSize(1 << 30)).expect("a size"),
                format: VolumeFormat(1),
                durability: Durability::Local,
                attach: AttachPolicy::Manual,
                origin: Origin::Blank,
                owner: NodeId::FIRST,
            };
            running.propose(Command::CreateVolume(new)).await.expect("a volume");
        }
        let shown = running.read();
        running.shutdown().await;
        let before = files(&dir);
        let found = crate::read_only(&dir).expect("metadata that can be read");
        assert_eq!((&*found.metadata, found.damage), (&*shown, None));
        assert!(files(&dir) == before, "a file has been altered, made or removed");
    }

    #[test]
    fn where_there_is_no_metadata_none_is_made() {
        let temp = tempfile::tempdir().expect("a temporary directory");
        let missing = crate::read_only(&temp.path().join("metadata"));
        assert!(matches!(missing, Err(OpenError::NotInitialised { .. })), "{missing:?}");
        assert!(files(temp.path()).is_empty());
    }
}
