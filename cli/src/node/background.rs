//! Threads for work that no guest waits for, which give way to those that serve guests.
//!
//! A seal, a collection or a scrub can use a processor for seconds. The scheduler would share it fairly between them and a
//! thread that has been woken for a guest's request, and the request would wait for milliseconds. So such work has threads of
//! its own, with less weight (setpriority(2)), in two classes:
//!
//! | class | niceness | what | at least, of a processor that is busy |
//! |---|---|---|---|
//! | seals | 10 | sealing, which the writers of a full journal wait for | a tenth |
//! | upkeep | 19 | collections, scrubs, verifications, imports, exports | a seventieth |
//!
//! On a machine with nothing else to do either runs as fast as it can. No class is starved: a hypervisor's processors can be
//! busy for days, and journals and packs have to be emptied all the same.

use std::io;
use std::time::Duration;

use sterna_runtime::work::blocking_on;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinHandle;

/// The threads, for as long as the node runs.
#[derive(Debug)]
pub(super) struct BackgroundThreads {
    seals: Runtime,
    upkeep: Runtime,
}

impl BackgroundThreads {
    /// Starts them.
    ///
    /// # Errors
    /// The system has no more threads.
    pub(super) fn start() -> io::Result<Self> {
        Ok(Self { seals: threads("seal", SEAL_NICENESS)?, upkeep: threads("upkeep", UPKEEP_NICENESS)? })
    }

    /// For those who have work for them.
    pub(super) fn handle(&self) -> Background {
        Background { seals: self.seals.handle().clone(), upkeep: self.upkeep.handle().clone() }
    }

    /// Ends them; what a disk holds up for longer than `limit` is left to the end of the process.
    pub(super) fn shutdown(self, limit: Duration) {
        self.seals.shutdown_timeout(limit);
        self.upkeep.shutdown_timeout(limit);
    }
}

/// Gives work to the threads.
#[derive(Clone, Debug)]
pub(super) struct Background {
    seals: Handle,
    upkeep: Handle,
}

impl Background {
    /// Work like any other, on this runtime.
    #[cfg(any(test, feature = "simulation"))]
    pub(super) fn on(runtime: &Handle) -> Self {
        Self { seals: runtime.clone(), upkeep: runtime.clone() }
    }

    /// Where sealers run.
    pub(super) fn seals(&self) -> &Handle {
        &self.seals
    }

    /// Where upkeep is done.
    pub(super) fn upkeep_threads(&self) -> &Handle {
        &self.upkeep
    }

    /// Does something that may block and take long, and that no guest waits for.
    pub(super) fn upkeep<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        blocking_on(&self.upkeep, work)
    }
}

fn threads(name: &'static str, niceness: i32) -> io::Result<Runtime> {
    let give_way = move || {
        // Of the thread that calls it. Only to be less nice takes a right.
        if let Err(error) = rustix::process::setpriority_process(None, niceness) {
            tracing::warn!(%error, thread = name, "work in the background has the weight of any other");
        }
    };
    Builder::new_multi_thread().worker_threads(1).thread_name(name).on_thread_start(give_way).enable_all().build()
}

const SEAL_NICENESS: i32 = 10;
const UPKEEP_NICENESS: i32 = 19;

#[cfg(test)]
mod tests {
    use super::*;

    fn niceness() -> i32 {
        rustix::process::getpriority_process(None).expect("the niceness of this thread")
    }

    #[test]
    fn threads_in_the_background_give_way_and_no_other_does() {
        let before = niceness();
        let threads = BackgroundThreads::start().expect("threads");
        let background = threads.handle();
        let seal = background.seals().spawn_blocking(niceness);
        let upkeep = background.upkeep(|| (niceness(), std::thread::spawn(niceness).join()));
        let runtime = Builder::new_current_thread().build().expect("a runtime");
        assert_eq!(runtime.block_on(seal).expect("its niceness"), SEAL_NICENESS);
        let (upkeep, of_its_own_thread) = runtime.block_on(upkeep).expect("its niceness");
        assert_eq!((upkeep, of_its_own_thread.expect("its niceness")), (UPKEEP_NICENESS, UPKEEP_NICENESS));
        threads.shutdown(Duration::from_secs(1));
        assert_eq!(niceness(), before);
    }
}
