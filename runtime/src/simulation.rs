//! Time, chance and threads as a simulation gives them: for a whole process, and for good.

use std::fmt;
use std::sync::OnceLock;
use std::time::Duration;

/// What a simulation gives. It knows itself which of its nodes asks.
pub trait Simulated: fmt::Debug + Send + Sync {
    /// Nanoseconds since the node's machine was started, by its own clock.
    fn boot_time_ns(&self) -> u64;

    /// The time of day at the node, since 1970.
    fn since_1970(&self) -> Duration;

    /// Fills bytes by chance.
    fn fill(&self, bytes: &mut [u8]);

    /// How long the disk of the node that asks takes for what is about to be done.
    fn disk_takes(&self) -> Duration {
        Duration::ZERO
    }
}

/// Simulation has begun already in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this process is a simulation already: there is one to a process")]
pub struct AlreadySimulated;

/// Has everything in this process come from `simulated` from now on, before anything has asked for it.
///
/// # Errors
/// It does already.
pub fn install(simulated: Box<dyn Simulated>) -> Result<(), AlreadySimulated> {
    INSTALLED.set(simulated).map_err(|_| AlreadySimulated)
}

/// What everything comes from, if this process is a simulation.
#[inline]
pub fn installed() -> Option<&'static dyn Simulated> {
    INSTALLED.get().map(AsRef::as_ref)
}

static INSTALLED: OnceLock<Box<dyn Simulated>> = OnceLock::new();
