//! A disk in memory that loses what was not synced.
//!
//! [`SimulatedDisk`] does what the [`Disk`] contract says and no more. It knows for each file what is durable and what was
//! written since, so that [`SimulatedDisk::crash_image`] gives a disk as one may find it after power was lost, and
//! [`SimulatedDisk::after_kill`] as after `kill -9`. It counts the operations that change something, and fails the ones it
//! is told to. All of it depends on seeds and on the order of calls alone.

mod contents;
mod crash;
mod faults;
mod state;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

pub use crash::CrashMode;
pub use faults::Operation;

use super::{Disk, DiskFile, check_path};
use faults::{Fate, Faults};
use state::{FileId, State};

/// A data directory in memory. Clones are the same disk.
///
/// ```
/// use sterna_storage_node::disk::simulated::CrashMode;
/// use sterna_storage_node::disk::{Disk, DiskFile, SimulatedDisk};
///
/// let disk = SimulatedDisk::new();
/// let file = disk.create("journal")?;
/// disk.sync_dir("")?;
/// file.write_at(0, &[b"kept"])?;
/// file.sync()?;
/// file.write_at(0, &[b"lost"])?;
/// let mut bytes = [0; 4];
/// disk.crash_image(1, CrashMode::Lose).open("journal")?.read_at(0, &mut bytes)?;
/// assert_eq!(&bytes, b"kept");
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct SimulatedDisk {
    machine: Arc<Mutex<Machine>>,
    /// Told when what was held is released.
    released: Arc<Condvar>,
}

#[derive(Debug)]
struct Machine {
    state: State,
    faults: Faults,
}

impl Default for SimulatedDisk {
    fn default() -> Self {
        Self::new()
    }
}

impl SimulatedDisk {
    /// An empty disk without a limit.
    pub fn new() -> Self {
        Self::holding(State::empty())
    }

    fn holding(state: State) -> Self {
        let machine = Arc::new(Mutex::new(Machine { state, faults: Faults::default() }));
        Self { machine, released: Arc::default() }
    }

    /// The disk as it may be found after power is lost at this moment. The same seed gives the same.
    #[must_use]
    pub fn crash_image(&self, seed: u64, mode: CrashMode) -> Self {
        Self::holding(crash::image(&self.lock().state, seed, mode))
    }

    /// The disk as it is found after `kill -9` at this moment: everything is there, but no more of it is durable than before.
    #[must_use]
    pub fn after_kill(&self) -> Self {
        Self::holding(crash::untouched(&self.lock().state))
    }

    /// How many operations were begun that change something; reads are not among them.
    pub fn operations(&self) -> u64 {
        self.lock().faults.operations
    }

    /// The latest 65,536 of these operations, oldest first.
    pub fn log(&self) -> Vec<Operation> {
        self.lock().faults.log.iter().cloned().collect()
    }

    /// The machine stops after `operations` more have succeeded: the next one is begun, and may leave something behind, but
    /// it and all later ones fail; reads too.
    pub fn crash_after(&self, operations: u64) {
        let mut machine = self.lock();
        machine.faults.crash_after = Some(machine.faults.operations + operations);
    }

    /// Whether the machine has stopped.
    pub fn has_crashed(&self) -> bool {
        self.lock().faults.is_dead()
    }

    /// The `n`-th operation from now on fails, the next one being the first: a write when half of it is done, a sync with
    /// anything lost or durable, any other with nothing changed.
    pub fn fail_operation(&self, n: u64) {
        let mut machine = self.lock();
        machine.faults.refuse = Some(machine.faults.operations + n);
    }

    /// The next sync, of a file or a directory, fails.
    pub fn fail_next_sync(&self) {
        self.lock().faults.refuse_next_sync = true;
    }

    /// The next read that waits fails.
    pub fn fail_next_read(&self) {
        self.lock().faults.refuse_next_read = true;
    }

    /// How many operations and reads have failed because they were told to: only then may somebody else have failed.
    pub fn refusals(&self) -> u64 {
        let machine = self.lock();
        machine.faults.refusals + u64::from(machine.faults.is_dead())
    }

    /// From now on whoever lists the directory `path` waits.
    pub fn hold(&self, path: &str) {
        self.lock().faults.held = Some(path.to_owned());
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.lock().faults.waiting
    }

    /// Those who wait go on, and nobody waits any more.
    pub fn release(&self) {
        self.lock().faults.held = None;
        self.released.notify_all();
    }

    /// From now on the disk has space for so many bytes in all (`None`: without a limit). What is there stays.
    pub fn limit(&self, bytes: Option<u64>) {
        self.lock().state.capacity = bytes;
    }

    /// From now on the disk has space for so many bytes more.
    pub fn leave(&self, bytes: u64) {
        let mut machine = self.lock();
        machine.state.capacity = Some(machine.state.taken() + bytes);
    }

    /// Counts an operation of something else that stops with this machine: an index in memory, say. What it does before it
    /// has asked may be there after a crash.
    ///
    /// # Errors
    /// As of any other operation: the fault that is due.
    pub fn count(&self, what: &'static str) -> io::Result<()> {
        self.change(Operation::Other(what), |_, _| Ok(()))
    }

    fn change<T>(&self, operation: Operation, act: impl FnOnce(&mut State, Fate) -> io::Result<T>) -> io::Result<T> {
        let mut machine = self.lock();
        let fate = machine.faults.begin(operation);
        match fate {
            Fate::Dead => fate.answer(Err(io::ErrorKind::Other.into())),
            Fate::Done | Fate::Refused | Fate::Interrupted => fate.answer(act(&mut machine.state, fate)),
        }
    }

    /// A change of names: all of it or nothing.
    fn change_names<T>(&self, operation: Operation, act: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        self.change(operation, |state, fate| match fate {
            Fate::Refused => Err(io::ErrorKind::Other.into()),
            _ => act(state),
        })
    }

    fn look<T>(&self, look: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut machine = self.lock();
        let fate = if machine.faults.is_dead() { Fate::Dead } else { Fate::Done };
        fate.answer(look(&mut machine.state))
    }

    fn handle(&self, path: &str, id: FileId) -> io::Result<Arc<dyn DiskFile>> {
        self.lock().state.file(id)?.handles += 1;
        Ok(Arc::new(SimulatedFile { disk: self.clone(), id, path: path.to_owned() }))
    }

    fn lock(&self) -> MutexGuard<'_, Machine> {
        // A test that panicked with the lock held has failed already.
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Disk for SimulatedDisk {
    fn create_dir(&self, path: &str) -> io::Result<()> {
        check_path(path)?;
        self.change_names(Operation::CreateDir(path.to_owned()), |state| state.create_dir(path))
    }

    fn list(&self, path: &str) -> io::Result<Vec<String>> {
        check_path(path)?;
        let mut machine = self.lock();
        machine.faults.waiting += 1;
        while machine.faults.held.as_deref() == Some(path) {
            machine = self.released.wait(machine).unwrap_or_else(PoisonError::into_inner);
        }
        machine.faults.waiting -= 1;
        drop(machine);
        self.look(|state| Ok(state.list(path)))
    }

    fn create(&self, path: &str) -> io::Result<Arc<dyn DiskFile>> {
        check_path(path)?;
        let id = self.change_names(Operation::Create(path.to_owned()), |state| state.create(path))?;
        self.handle(path, id)
    }

    fn open(&self, path: &str) -> io::Result<Arc<dyn DiskFile>> {
        let id = self.look(|state| state.lookup(path))?;
        self.handle(path, id)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let operation = Operation::Rename { from: from.to_owned(), to: to.to_owned() };
        self.change_names(operation, |state| state.rename(from, to))
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.change_names(Operation::Remove(path.to_owned()), |state| state.remove(path))
    }

    fn sync_dir(&self, path: &str) -> io::Result<()> {
        self.change(Operation::SyncDir(path.to_owned()), |state, fate| match fate {
            Fate::Done => state.sync_dir(path),
            _ => Ok(()),
        })
    }

    fn available_bytes(&self) -> io::Result<u64> {
        self.look(|state| Ok(state.available()))
    }
}

#[derive(Debug)]
struct SimulatedFile {
    disk: SimulatedDisk,
    id: FileId,
    /// The name it was opened by.
    path: String,
}

impl SimulatedFile {
    fn write(&self, at: u64, parts: &[&[u8]], is_kept: bool) -> io::Result<()> {
        let bytes = parts.concat();
        let length = bytes.len() as u64;
        if at.checked_add(length).is_none() {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let operation = Operation::Write { path: self.path.clone(), at, length, is_kept };
        self.disk.change(operation, |state, fate| {
            let done = if fate == Fate::Refused { bytes.len() / 2 } else { bytes.len() };
            state.write(self.id, at, &bytes[..done])
        })
    }

    fn sync_with(&self, sync: impl FnOnce(&mut State) -> io::Result<()>) -> io::Result<()> {
        self.disk.change(Operation::Sync(self.path.clone()), |state, fate| match fate {
            Fate::Done => sync(state),
            Fate::Refused => {
                // The kernel takes pages that it could not write for clean: what is not durable now is lost, and still read.
                let file = state.file(self.id)?;
                file.durable = crash::left_of(file, self.id, self.id.0, CrashMode::Scramble);
                file.pending.clear();
                Ok(())
            }
            Fate::Interrupted | Fate::Dead => Ok(()),
        })
    }
}

impl DiskFile for SimulatedFile {
    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        if self.disk.lock().faults.take_read() {
            return Fate::Refused.answer(Ok(()));
        }
        self.disk.look(|state| {
            if state.file(self.id)?.now.read(at, into) { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
        })
    }

    fn read_at_now(&self, at: u64, into: &mut [u8]) -> bool {
        let filled = self.disk.look(|state| Ok(state.file(self.id)?.now.read(at, into)));
        filled.unwrap_or(false)
    }

    fn write_at(&self, at: u64, parts: &[&[u8]]) -> io::Result<()> {
        self.write(at, parts, true)
    }

    fn write_unkept_at(&self, at: u64, parts: &[&[u8]]) -> io::Result<()> {
        self.write(at, parts, false)
    }

    fn drop_cached(&self) {}

    fn write_durably_at(&self, at: u64, parts: &[&[u8]]) -> io::Result<()> {
        self.write_at(at, parts)?;
        let length: usize = parts.iter().map(|part| part.len()).sum();
        self.sync_with(|state| state.sync_range(self.id, &(at..at + length as u64)))
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_with(|state| state.sync(self.id))
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        let operation = Operation::Allocate { path: self.path.clone(), length };
        self.disk.change_names(operation, |state| state.allocate(self.id, length))
    }

    fn size(&self) -> io::Result<u64> {
        self.disk.look(|state| Ok(state.file(self.id)?.now.size()))
    }
}

impl Drop for SimulatedFile {
    fn drop(&mut self) {
        let state = &mut self.disk.lock().state;
        if let Ok(file) = state.file(self.id) {
            file.handles -= 1;
            if file.handles == 0 {
                state.forget_unreachable();
            }
        }
    }
}
