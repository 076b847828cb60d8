//! What the server counts. Tests assert on ratios of these: a system call or a copy too many per request shows here
//! before it shows in any timing.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Counters of a server, or of all connections it has had. They only grow.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[$doc])* pub $name: Counter,)*
        }

        /// The values of [`Counters`] at one moment.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct CounterValues {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            /// The values now.
            pub fn values(&self) -> CounterValues {
                CounterValues { $($name: self.$name.get(),)* }
            }
        }
    };
}

counters! {
    /// Connections accepted.
    connections,
    /// Handshakes that did not lead to an export, though the client did not end them itself.
    handshakes_failed,
    /// Connections cut because the peer broke the protocol.
    violations,
    /// Requests answered, errors included.
    requests,
    /// Requests answered with an error.
    errors,
    /// Requests that had to wait for the device.
    deferred,
    /// System calls, or TLS records read, that brought input.
    receives,
    /// System calls, or TLS writes, that took output.
    sends,
    /// Bytes received.
    bytes_received,
    /// Bytes sent.
    bytes_sent,
    /// Bytes of payload that the server itself copied from one of its buffers to another.
    bytes_moved,
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds to it.
    pub fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    /// Its value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
