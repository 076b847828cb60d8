//! The metadata as openraft's state machine: in memory, with its snapshots on the disk.
//!
//! Invariants:
//! * the view that readers have is the metadata after a whole entry, and moves forward only;
//! * what is in memory follows from the last snapshot and the log, so a crash loses nothing that was acknowledged.

use std::io::Cursor;
use std::sync::Arc;

use openraft::storage::RaftStateMachine;
use openraft::{AnyError, EntryPayload, OptionalSend, RaftSnapshotBuilder, StorageIOError};
use tokio::sync::watch;

use super::contents;
use super::database::Database;
use super::snapshots::Snapshots;
use super::{StoreError, blocking};
use crate::raft::{Answers, Entry, LogId, Snapshot, SnapshotMeta, StorageError, StoredMembership, TypeConfig};
use crate::session::trace::decided;
use crate::state::Metadata;
use crate::state::request::Request;

/// The applied metadata.
#[derive(Debug)]
pub(crate) struct StateMachine {
    applied: Applied,
    view: watch::Sender<Arc<Metadata>>,
    snapshots: Snapshots,
}

/// The metadata after one entry.
#[derive(Clone, Debug, Default)]
pub(super) struct Applied {
    pub(super) last: Option<LogId>,
    pub(super) membership: StoredMembership,
    pub(super) metadata: Arc<Metadata>,
}

/// Writes one moment of the metadata down as a snapshot.
#[derive(Debug)]
pub(crate) struct SnapshotBuilder {
    applied: Applied,
    snapshots: Snapshots,
}

impl StateMachine {
    /// The metadata as it was at the last snapshot, and a view of it. Blocks.
    pub(super) fn open(database: Arc<Database>) -> Result<(Self, watch::Receiver<Arc<Metadata>>), StoreError> {
        let snapshots = Snapshots::open(database)?;
        let applied = Applied::at_snapshot(&snapshots)?;
        let (view, receiver) = watch::channel(Arc::clone(&applied.metadata));
        Ok((Self { applied, view, snapshots }, receiver))
    }
}

impl Applied {
    /// The metadata as it was at the last snapshot. Blocks.
    pub(super) fn at_snapshot(snapshots: &Snapshots) -> Result<Self, StoreError> {
        match snapshots.read()? {
            Some((meta, contents)) => Self::from_snapshot(snapshots.database(), &meta, &contents),
            None => Ok(Self::default()),
        }
    }

    fn from_snapshot(database: &Database, meta: &SnapshotMeta, contents: &[u8]) -> Result<Self, StoreError> {
        let metadata = contents::decode(database.dir(), contents)?;
        let (last, membership) = (meta.last_log_id, meta.last_membership.clone());
        Ok(Self { last, membership, metadata: Arc::new(metadata) })
    }

    /// Carries out one entry.
    pub(super) fn apply(&mut self, entry: Entry) -> Answers {
        assert!(self.last < Some(entry.log_id), "{} is applied behind {:?}", entry.log_id, self.last);
        self.last = Some(entry.log_id);
        let index = entry.log_id.index;
        match entry.payload {
            EntryPayload::Blank => Answers(Vec::new()),
            EntryPayload::Membership(membership) => {
                self.membership = StoredMembership::new(Some(entry.log_id), membership);
                Answers(Vec::new())
            }
            EntryPayload::Normal(batch) => {
                let metadata = Arc::make_mut(&mut self.metadata);
                let apply = |request: &Request| {
                    let answer = metadata.apply(request);
                    decided(index, &request.command, &answer);
                    answer
                };
                Answers(batch.requests.iter().map(apply).collect())
            }
        }
    }

    fn meta(&self) -> SnapshotMeta {
        let name = self.last.map_or_else(|| "empty".to_owned(), |last| format!("{}-{}", last.leader_id, last.index));
        SnapshotMeta { last_log_id: self.last, last_membership: self.membership.clone(), snapshot_id: name }
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), StorageError> {
        Ok((self.applied.last, self.applied.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Answers>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let answers = entries.into_iter().map(|entry| self.applied.apply(entry)).collect();
        // Before the answers go out: who has one, sees what it tells of.
        self.view.send_replace(Arc::clone(&self.applied.metadata));
        Ok(answers)
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder { applied: self.applied.clone(), snapshots: self.snapshots.clone() }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Cursor<Vec<u8>>>, StorageError> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), StorageError> {
        let (snapshots, meta) = (self.snapshots.clone(), meta.clone());
        let signature = meta.signature();
        let installed = blocking(self.snapshots.database(), move |database| {
            let contents = snapshot.into_inner();
            // What cannot be read must not replace what can.
            let applied = Applied::from_snapshot(database, &meta, &contents)?;
            snapshots.save(&meta, &contents)?;
            Ok(applied)
        });
        let failed = |error: StoreError| StorageIOError::write_snapshot(Some(signature), AnyError::new(&error));
        self.applied = installed.await.map_err(failed)?;
        self.view.send_replace(Arc::clone(&self.applied.metadata));
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, StorageError> {
        let loaded = self.snapshots.load().await;
        let found = loaded.map_err(|error| StorageIOError::read_snapshot(None, AnyError::new(&error)))?;
        Ok(found.map(|(meta, contents)| Snapshot { meta, snapshot: Box::new(Cursor::new(contents)) }))
    }
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    async fn build_snapshot(&mut self) -> Result<Snapshot, StorageError> {
        let meta = self.applied.meta();
        let (metadata, snapshots) = (Arc::clone(&self.applied.metadata), self.snapshots.clone());
        let own = meta.clone();
        let saved = blocking(self.snapshots.database(), move |database| {
            let failed = |source| StoreError::Io { dir: database.dir().to_owned(), source };
            let contents = contents::encode(&metadata).map_err(failed)?;
            snapshots.save(&own, &contents)?;
            Ok(contents)
        });
        let failed = |error: StoreError| StorageIOError::write_snapshot(Some(meta.signature()), AnyError::new(&error));
        let contents = saved.await.map_err(failed)?;
        Ok(Snapshot { meta, snapshot: Box::new(Cursor::new(contents)) })
    }
}
