//! A directory with any metadata in it, for measurements: as if the log before it had been dropped behind a snapshot.

use std::path::Path;

use sterna_types::NodeId;

use super::database::{Batch, Column, Sync};
use super::log::{COMMITTED_KEY, PURGED_KEY, VOTE_KEY};
use super::record::{EntryRecord, LogIdRecord, VoteRecord, to_json};
use super::snapshots::Snapshots;
use super::{Absent, Store, StoreError, contents};
use crate::raft::{Entry, SnapshotMeta, Vote};
use crate::state::Metadata;

/// Makes it for the first node, with these entries behind the snapshot, all of them committed. Durable on return. Blocks.
///
/// # Errors
/// [`StoreError`].
pub(crate) fn lay_out(
    dir: &Path,
    meta: &SnapshotMeta,
    metadata: &Metadata,
    entries: &[Entry],
) -> Result<(), StoreError> {
    let mut store = Store::open(dir, Absent::Create)?;
    store.set_node(NodeId::FIRST)?;
    let failed = |source| StoreError::Io { dir: dir.to_owned(), source };
    let contents = contents::encode(metadata).map_err(failed)?;
    Snapshots::open(store.database.clone())?.save(meta, &contents)?;
    let mut batch = Batch::default();
    if let Some(last) = meta.last_log_id {
        let committed = entries.last().map_or(last, |entry| entry.log_id);
        batch.put(Column::Meta, PURGED_KEY, to_json(&LogIdRecord::from(last)));
        batch.put(Column::Meta, COMMITTED_KEY, to_json(&LogIdRecord::from(committed)));
        for entry in entries {
            let index = entry.log_id.index.to_be_bytes();
            batch.put(Column::Log, &index, to_json(&EntryRecord::from(entry)));
        }
        let vote = Vote { leader_id: last.leader_id, committed: true };
        batch.put(Column::Meta, VOTE_KEY, to_json(&VoteRecord::from(vote)));
    }
    store.database.write(batch, Sync::Durable)
}
