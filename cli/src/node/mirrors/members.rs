//! Who has to have a flush of a volume before it is acknowledged, and how far each of them is: at its owner.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use sterna_consensus::state::policy::{DegradedPolicy, Durability};
use sterna_consensus::state::volume::Volume as VolumeEntry;
use sterna_consensus::{Metadata, MetadataNode};
use sterna_storage_node::journal::record::Sequence;
use sterna_storage_node::volume::{Copied, Copies};
use sterna_types::{DeviceError, Epoch, NodeId, VolumeId};
use tokio::sync::Notify;
use tokio::time::Instant;

/// The copies of one volume that this node owns, in one epoch.
#[derive(Debug)]
pub(in crate::node) struct Members {
    /// `None` where a test has none: then nobody else counts.
    metadata: Option<Weak<MetadataNode>>,
    own: NodeId,
    pub(super) volume: VolumeId,
    pub(super) epoch: Epoch,
    state: Mutex<State>,
    /// Told when one of them has come further, or when it is another one's turn to count.
    progress: Notify,
    /// Told when more is waited for.
    wanted: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Waited for, whether the metadata names them or not: they are about to be taken in, or that may have happened.
    adding: BTreeSet<NodeId>,
    /// Those that follow now.
    following: BTreeMap<NodeId, Following>,
    /// How many calls there were: none has the number of an earlier one, which may not have noticed yet that it is over.
    calls: u64,
    /// The newest change that somebody waits for.
    wanted: Sequence,
    /// Whether nothing is carried out any more that an earlier run of this node has asked for about the set.
    is_settled: bool,
}

/// One that follows.
#[derive(Clone, Copy, Debug)]
struct Following {
    /// Which of its calls it is: a later one takes the place of an earlier one.
    call: u64,
    /// How far it has made changes durable; `None` while it begins.
    durable: Option<Sequence>,
    /// Since when it has lacked something that somebody waits for.
    behind_since: Option<Instant>,
}

/// How a node stands to a volume that it may hold a copy of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It does not follow.
    Away,
    /// It has not caught up.
    Begins,
    /// It has made all durable that was waited for, or is about to: for so long it has not.
    Follows {
        /// Nothing where it lacks nothing that is waited for.
        behind: Duration,
    },
}

/// Makes the [`Members`] of volumes that are opened; without metadata, where a test has none.
#[derive(Debug, Default)]
pub(in crate::node) struct Roster(Option<Weak<MetadataNode>>);

impl Roster {
    /// Of the node with this metadata.
    pub(in crate::node) fn of(metadata: &Arc<MetadataNode>) -> Self {
        Self(Some(Arc::downgrade(metadata)))
    }

    /// Those of a volume that this node opens as its own.
    pub(in crate::node) fn members(&self, volume: VolumeId, epoch: Epoch) -> Arc<Members> {
        let metadata = self.0.clone();
        let own = metadata.as_ref().and_then(Weak::upgrade).map_or(NodeId(0), |metadata| metadata.id());
        let (state, progress, wanted) = (Mutex::default(), Notify::new(), Notify::new());
        Arc::new(Members { metadata, own, volume, epoch, state, progress, wanted })
    }
}

impl Members {
    /// Notes that a node follows from now on; its call.
    pub(super) fn begin(&self, node: NodeId) -> u64 {
        let mut state = self.state();
        state.calls += 1;
        let call = state.calls;
        state.following.insert(node, Following { call, durable: None, behind_since: None });
        call
    }

    /// Whether a node's call is its last one.
    pub(super) fn is_current(&self, node: NodeId, call: u64) -> bool {
        self.state().following.get(&node).is_some_and(|following| following.call == call)
    }

    /// Notes that a node has made all changes through this one durable.
    pub(super) fn came_to(&self, node: NodeId, call: u64, through: Sequence) {
        let mut state = self.state();
        let wanted = state.wanted;
        if let Some(following) = state.following.get_mut(&node).filter(|following| following.call == call) {
            following.durable = following.durable.max(Some(through));
            if through >= wanted {
                following.behind_since = None;
            }
        }
        drop(state);
        self.progress.notify_waiters();
    }

    /// Notes that a node does not follow any more.
    pub(super) fn end(&self, node: NodeId, call: u64) {
        let mut state = self.state();
        if state.following.get(&node).is_some_and(|following| following.call == call) {
            state.following.remove(&node);
        }
    }

    /// The newest change that somebody waits for.
    pub(super) fn wanted(&self) -> Sequence {
        self.state().wanted
    }

    /// Waits until more is waited for than `than`.
    ///
    /// # Cancel safety
    /// May be dropped at any time.
    pub(super) async fn more_wanted(&self, than: Sequence) {
        loop {
            let told = self.wanted.notified();
            if self.wanted() > than {
                return;
            }
            told.await;
        }
    }

    /// How a node stands now.
    pub(super) fn standing(&self, node: NodeId) -> Standing {
        match self.state().following.get(&node) {
            None => Standing::Away,
            Some(Following { durable: None, .. }) => Standing::Begins,
            Some(following) => {
                Standing::Follows { behind: following.behind_since.map_or(Duration::ZERO, |since| since.elapsed()) }
            }
        }
    }

    /// Waits for a node from now on: step 1 of taking it in ([`super`]).
    pub(super) fn wait_for(&self, node: NodeId) {
        self.state().adding.insert(node);
    }

    /// Whether nothing is carried out any more that an earlier run of this node has asked for about the set. Before, nobody knows who is
    /// in it, and nothing is acknowledged.
    pub(super) fn is_settled(&self) -> bool {
        self.state().is_settled
    }

    /// Notes that it is so.
    pub(super) fn settle(&self) {
        self.state().is_settled = true;
        self.progress.notify_waiters();
    }

    /// Waits for a node no longer than the metadata has it in the set.
    pub(super) fn leave_to_metadata(&self, node: NodeId) {
        self.state().adding.remove(&node);
        self.progress.notify_waiters();
    }

    /// Waits until a node has everything through this change. Step 2 of taking it in.
    ///
    /// # Cancel safety
    /// May be dropped at any time.
    pub(super) async fn has_come_to(&self, node: NodeId, through: Sequence) {
        self.want(through);
        loop {
            let progress = self.progress.notified();
            let durable = self.state().following.get(&node).and_then(|following| following.durable);
            if durable >= Some(through) {
                return;
            }
            progress.await;
        }
    }

    /// Waits until a node that follows has all that it begins with.
    ///
    /// # Cancel safety
    /// May be dropped at any time.
    pub(super) async fn has_begun(&self, node: NodeId) {
        loop {
            let progress = self.progress.notified();
            if matches!(self.standing(node), Standing::Follows { .. }) {
                return;
            }
            progress.await;
        }
    }

    /// Whether all who may be in sync have everything through this change; if not, it is asked of them.
    pub(in crate::node) fn have(&self, metadata: &Metadata, through: Sequence) -> bool {
        let Some(entry) = metadata.volume(self.volume) else { return false };
        let all_have_it = self.all_have(entry, &self.state(), through);
        if !all_have_it {
            self.want(through);
        }
        all_have_it
    }

    /// Waits until that is so.
    ///
    /// # Cancel safety
    /// May be dropped at any time.
    pub(in crate::node) async fn until_have(&self, through: Sequence) {
        loop {
            let progress = self.progress.notified();
            let Some(metadata) = self.metadata.as_ref().and_then(Weak::upgrade) else { return };
            if self.have(&metadata.read(), through) {
                return;
            }
            progress.await;
        }
    }

    fn all_have(&self, entry: &VolumeEntry, state: &State, through: Sequence) -> bool {
        let has_it = |node: &NodeId| state.following.get(node).is_some_and(|at| at.durable >= Some(through));
        let is_known = state.is_settled || !is_for_many(entry);
        is_known && state.adding.iter().chain(self.in_sync(entry)).all(has_it)
    }

    fn want(&self, through: Sequence) {
        let mut state = self.state();
        if through <= state.wanted {
            return;
        }
        state.wanted = through;
        let now = Instant::now();
        for following in state.following.values_mut().filter(|following| following.durable < Some(through)) {
            following.behind_since.get_or_insert(now);
        }
        drop(state);
        self.wanted.notify_waiters();
    }

    /// Whether a flush of all through this change may be acknowledged.
    ///
    /// # Errors
    /// The epoch is over.
    fn is_enough(&self, metadata: &Metadata, through: Sequence) -> Result<bool, DeviceError> {
        let entry = metadata.volume(self.volume).ok_or(DeviceError::NotOwner)?;
        if entry.epoch > self.epoch {
            return Err(DeviceError::NotOwner);
        }
        let all_have_it = self.all_have(entry, &self.state(), through);
        let copies = 1 + self.in_sync(entry).len();
        let are_enough = copies >= entry.durability.copies().into() || entry.degraded == DegradedPolicy::Continue;
        Ok(all_have_it && are_enough)
    }

    /// Those that the metadata names in this epoch. What this node was handed and serves already, the metadata may not know yet.
    fn in_sync<'a>(&self, entry: &'a VolumeEntry) -> &'a BTreeSet<NodeId> {
        const NOBODY: &BTreeSet<NodeId> = &BTreeSet::new();
        if entry.epoch == self.epoch && entry.owner == self.own { &entry.in_sync } else { NOBODY }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each entry is right by itself.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether somebody is or may come to be in sync with a volume.
pub(super) fn is_for_many(entry: &VolumeEntry) -> bool {
    entry.durability != Durability::Local || entry.candidates().next().is_some()
}

impl Copies for Members {
    fn are_needed(&self) -> bool {
        let Some(metadata) = &self.metadata else { return false };
        let Some(metadata) = metadata.upgrade() else { return true };
        let state = self.state();
        let is_asked_for = |entry: &VolumeEntry| {
            let is_due = entry.durability != Durability::Local || !self.in_sync(entry).is_empty();
            is_due || is_for_many(entry) && !state.is_settled
        };
        !state.adding.is_empty() || metadata.read().volume(self.volume).is_none_or(|entry| is_asked_for(entry))
    }

    fn durable(&self, through: Sequence) -> Copied<'_> {
        self.want(through);
        Box::pin(async move {
            let metadata = self.metadata.as_ref().and_then(Weak::upgrade).ok_or(DeviceError::NotOwner)?;
            let mut view = metadata.watch();
            drop(metadata);
            loop {
                let progress = self.progress.notified();
                let metadata = Arc::clone(&view.borrow_and_update());
                if self.is_enough(&metadata, through)? {
                    return Ok(());
                }
                drop(metadata);
                tokio::select! {
                    () = progress => {}
                    changed = view.changed() => changed.map_err(|_| DeviceError::NotOwner)?,
                }
            }
        })
    }
}
