//! An index in memory that loses what was not made durable, and may keep what could not be.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Batch, Index, IndexError, KeyValue, Space};
use crate::disk::SimulatedDisk;

type Map = BTreeMap<(Space, Vec<u8>), Vec<u8>>;

/// An index in memory. It may be part of a simulated machine: then its batches are operations of that machine's disk, fail
/// when they do, and stop when it stops.
#[derive(Debug, Default)]
pub struct MemoryIndex {
    state: Mutex<State>,
    machine: Option<SimulatedDisk>,
}

#[derive(Debug, Default)]
struct State {
    now: Map,
    durable: Map,
    /// Batches since the last durable one, in order; behind them the one that has failed.
    pending: Vec<Batch>,
    poisoned: bool,
}

impl MemoryIndex {
    /// An empty index that never fails.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty index in the machine that `disk` belongs to.
    pub fn on(disk: &SimulatedDisk) -> Self {
        Self { state: Mutex::default(), machine: Some(disk.clone()) }
    }

    /// The index as it may be found after power is lost: all that was durable, and as many of the batches behind it as the
    /// seed says. It is then part of the machine of `disk`.
    #[must_use]
    pub fn crash_image(&self, seed: u64, disk: &SimulatedDisk) -> Self {
        let state = self.lock();
        let kept = usize::try_from(seed % (state.pending.len() as u64 + 1)).unwrap_or(0);
        Self::holding(&state, kept, disk)
    }

    /// The index as it is found after `kill -9`, in the machine of `disk`.
    #[must_use]
    pub fn after_kill(&self, disk: &SimulatedDisk) -> Self {
        let state = self.lock();
        Self::holding(&state, state.pending.len(), disk)
    }

    fn holding(state: &State, kept: usize, disk: &SimulatedDisk) -> Self {
        let mut now = state.durable.clone();
        state.pending[..kept].iter().for_each(|batch| apply(batch, &mut now));
        let state = State { durable: now.clone(), now, ..State::default() };
        Self { state: Mutex::new(state), machine: Some(disk.clone()) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_stopped(&self) -> bool {
        self.machine.as_ref().is_some_and(SimulatedDisk::has_crashed)
    }

    fn check(&self) -> Result<(), IndexError> {
        if self.has_stopped() { Err(IndexError::Refused { what: STOPPED.to_owned() }) } else { Ok(()) }
    }
}

impl Index for MemoryIndex {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        self.check()?;
        Ok(self.lock().now.get(&(space, key.to_vec())).cloned())
    }

    fn page(
        &self,
        space: Space,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<KeyValue>, IndexError> {
        self.check()?;
        let state = self.lock();
        let start = match after {
            Some(key) if key >= prefix => Bound::Excluded((space, key.to_vec())),
            _ => Bound::Included((space, prefix.to_vec())),
        };
        let found = state.now.range((start, Bound::Unbounded));
        let page = found.take_while(|((of, key), _)| *of == space && key.starts_with(prefix)).take(limit);
        Ok(page.map(|((_, key), value)| (key.clone(), value.clone())).collect())
    }

    fn commit(&self, batch: Batch, durable: bool) -> Result<(), IndexError> {
        let mut state = self.lock();
        self.check()?;
        if state.poisoned {
            return Err(IndexError::Poisoned);
        }
        state.pending.push(batch);
        if let Some(Err(error)) = self.machine.as_ref().map(|machine| machine.count("index")) {
            state.poisoned = true;
            return Err(IndexError::Refused { what: error.to_string() });
        }
        let State { now, pending, .. } = &mut *state;
        pending.last().into_iter().for_each(|batch| apply(batch, now));
        if durable {
            let State { durable, pending, .. } = &mut *state;
            pending.drain(..).for_each(|batch| apply(&batch, durable));
        }
        Ok(())
    }

    fn check_sound(&self) -> Result<(), IndexError> {
        if self.lock().poisoned { Err(IndexError::Poisoned) } else { Ok(()) }
    }
}

fn apply(batch: &Batch, map: &mut Map) {
    for change in &batch.changes {
        let key = (change.space, change.key.clone());
        match &change.value {
            Some(value) => map.insert(key, value.clone()),
            None => map.remove(&key),
        };
    }
}

const STOPPED: &str = "the simulated machine has stopped";
