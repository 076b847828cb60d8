//! Pins, and the moment at which a collection begins.
//!
//! Invariant: while a collection begins there is no pin; while one waits to begin, no new pin is given out.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::chunk_store::StorePin;

#[derive(Debug, Default)]
pub(in crate::chunk_store) struct PinGate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    pins: usize,
    beginning: bool,
}

impl PinGate {
    /// A pin, once no collection is beginning.
    pub(in crate::chunk_store) fn pin(self: &Arc<Self>) -> StorePin {
        let mut state = self.lock();
        while state.beginning {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.pins += 1;
        StorePin::holding(Held { gate: Arc::clone(self) })
    }

    /// Does something while there is no pin, once those that are have been dropped; `None` where it is cancelled before.
    pub(in crate::chunk_store) fn without_pins<T>(&self, cancel: &AtomicBool, act: impl FnOnce() -> T) -> Option<T> {
        let mut state = self.lock();
        state.beginning = true;
        // Also when `act` panics: those who wait for a pin must not wait for ever.
        let _open = Opened { gate: self };
        while state.pins > 0 {
            if cancel.load(Ordering::Relaxed) {
                drop(state);
                return None;
            }
            let waited = self.changed.wait_timeout(state, CANCEL_CHECK);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(state);
        Some(act())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Opened<'a> {
    gate: &'a PinGate,
}

impl Drop for Opened<'_> {
    fn drop(&mut self) {
        self.gate.lock().beginning = false;
        self.gate.changed.notify_all();
    }
}

#[derive(Debug)]
struct Held {
    gate: Arc<PinGate>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.gate.lock().pins -= 1;
        self.gate.changed.notify_all();
    }
}

/// How long a cancelled collection may take to notice.
const CANCEL_CHECK: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[test]
    fn a_collection_begins_without_pins_and_pins_wait_for_it() {
        let gate = Arc::new(PinGate::default());
        let (running, order) = (AtomicBool::new(false), AtomicUsize::new(0));
        let first = gate.pin();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                gate.without_pins(&running, || order.fetch_add(1, Ordering::SeqCst)).expect("nobody cancels");
            });
            while !gate.lock().beginning {
                std::thread::yield_now();
            }
            let second = scope.spawn(|| {
                let _pin = gate.pin();
                order.load(Ordering::SeqCst)
            });
            assert_eq!(order.load(Ordering::SeqCst), 0, "it began in spite of a pin");
            drop(first);
            assert_eq!(second.join().expect("a pin"), 1, "a pin was given out while it waited");
        });
    }

    #[test]
    fn a_collection_that_waits_can_be_cancelled() {
        let gate = Arc::new(PinGate::default());
        let pin = gate.pin();
        assert_eq!(gate.without_pins(&AtomicBool::new(true), || ()), None);
        let _another = gate.pin();
        drop(pin);
    }
}
