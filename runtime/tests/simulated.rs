//! A process that is a simulation: so it is a program of its own, and one test.
#![cfg(feature = "simulation")]

use std::thread::{self, ThreadId};
use std::time::{Duration, SystemTime};

use sterna_runtime::simulation::{AlreadySimulated, Simulated, install};
use sterna_runtime::{BootTime, chance, clock, work};

#[derive(Debug)]
struct Still;

impl Simulated for Still {
    fn boot_time_ns(&self) -> u64 {
        17
    }

    fn since_1970(&self) -> Duration {
        Duration::from_secs(5)
    }

    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(3);
    }
}

#[tokio::test]
async fn all_of_a_process_comes_from_its_simulation() {
    let on_another_thread = |thread: ThreadId| thread != thread::current().id();
    let before = work::blocking(|| thread::current().id()).await.unwrap();
    assert!(on_another_thread(before));

    install(Box::new(Still)).unwrap();
    assert_eq!(BootTime::now().nanoseconds(), 17);
    assert_eq!(clock::wall_time(), SystemTime::UNIX_EPOCH + Duration::from_secs(5));
    assert_eq!(chance::bytes(), Ok([3; 4]));
    let after = work::blocking(|| thread::current().id()).await.unwrap();
    assert!(!on_another_thread(after));
    assert_eq!(install(Box::new(Still)), Err(AlreadySimulated));
}
