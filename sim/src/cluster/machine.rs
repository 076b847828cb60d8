//! A machine of a cluster: its disk, and the two databases on it. It is what is left when the machine stops.

use std::sync::Arc;

use sterna_consensus::simulation::SimulatedDatabase;
use sterna_storage_node::chunk_store::index::MemoryIndex;
use sterna_storage_node::disk::SimulatedDisk;

use crate::site::Stop;

/// A machine.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Its files.
    pub disk: SimulatedDisk,
    /// The index of its chunks.
    pub index: Arc<MemoryIndex>,
    /// Its metadata.
    pub metadata: SimulatedDatabase,
}

impl Machine {
    /// One with nothing on its disk.
    pub fn new() -> Self {
        let disk = SimulatedDisk::new();
        Self { index: Arc::new(MemoryIndex::on(&disk)), disk, metadata: SimulatedDatabase::new() }
    }

    /// What is found of it after it has stopped.
    #[must_use]
    pub fn after(&self, stop: Stop) -> Self {
        match stop {
            Stop::Kill => {
                let disk = self.disk.after_kill();
                Self { index: Arc::new(self.index.after_kill(&disk)), disk, metadata: self.metadata.after_kill() }
            }
            Stop::PowerLoss(seed, mode) => {
                let disk = self.disk.crash_image(seed, mode);
                let index = Arc::new(self.index.crash_image(seed, &disk));
                Self { index, disk, metadata: self.metadata.crash_image(seed) }
            }
        }
    }
}

impl Default for Machine {
    fn default() -> Self {
        Self::new()
    }
}
