//! Work that blocks.

use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinHandle;

/// Runs something that may block on a thread where it holds up nobody. In a simulation that is the one thread that there is.
///
/// # Panics
/// Outside of a tokio runtime.
///
/// # Cancel safety
/// What has begun goes on when the handle is dropped.
#[track_caller]
pub fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    blocking_on(&Handle::current(), work)
}

/// The same on a thread of this runtime.
#[track_caller]
pub fn blocking_on<T: Send + 'static>(runtime: &Handle, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    #[cfg(feature = "simulation")]
    if let Some(simulated) = crate::simulation::installed() {
        let takes = simulated.disk_takes();
        return runtime.spawn(async move {
            if !takes.is_zero() {
                tokio::time::sleep(takes).await;
            }
            work()
        });
    }
    #[expect(clippy::disallowed_methods, reason = "this is where work that blocks goes")]
    runtime.spawn_blocking(work)
}

/// Has a thread that works where it holds up nobody wait. `false` in a simulation, where time does not pass while something
/// blocks: then there is nothing to wait for.
pub fn pause(duration: Duration) -> bool {
    #[cfg(feature = "simulation")]
    if crate::simulation::installed().is_some() {
        return false;
    }
    #[expect(clippy::disallowed_methods, reason = "this is where threads wait")]
    std::thread::sleep(duration);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_blocks_holds_up_nobody() {
        let (sender, receiver) = std::sync::mpsc::channel();
        let waits = blocking(move || receiver.recv());
        sender.send(7).unwrap();
        assert_eq!(waits.await.unwrap(), Ok(7));
        assert!(blocking(|| panic!("on its own thread")).await.unwrap_err().is_panic());
    }
}
