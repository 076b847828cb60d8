//! What a peer can make this server hold or do, and why that much.

use std::time::Duration;

/// The longest string of the protocol, in bytes; the specification's own bound.
pub const MAX_STRING_BYTES: u32 = 4096;

/// The longest data of an option that is looked at: 64 KiB hold a name and a dozen queries of the greatest length. More
/// is read past, never kept, and answered with an error.
pub const MAX_OPTION_BYTES: u32 = 64 << 10;

/// The most options in one handshake. Real clients send fewer than ten; one that lists a server's exports and asks for
/// each sends as many as there are. The handshake's time bounds the same thing, this one does so without a clock.
pub const MAX_OPTIONS: u32 = 100_000;

/// The most metadata queries in one option. There are two contexts to ask for.
pub const MAX_META_QUERIES: u32 = 64;

/// The longest payload of a request, and the longest read, in bytes: 32 MiB, which the specification makes the default
/// and expects every server to take.
pub const MAX_PAYLOAD_BYTES: u32 = 32 << 20;

/// Most requests of one connection that wait for the device at a time. QEMU sends 16, libnbd's tools 64, fio what it is
/// told; a client that sends more waits in its socket.
pub const MAX_REQUESTS_IN_FLIGHT: usize = 128;

/// Most bytes of payload, in both directions, of one connection that wait for the device or for the client at a time:
/// two of the longest requests, so that one is read while the other is written.
pub const MAX_BYTES_IN_FLIGHT: usize = 64 << 20;

/// Longest transfer that is answered on the spot, in bytes. Longer ones take more than 100 µs of copying, in which the
/// other connections of the lane would wait.
pub const MAX_INLINE_BYTES: u64 = 1 << 20;

/// Replies are collected up to this many bytes before they are written: one system call for many small replies, while
/// large ones leave before they have fallen out of the processor's cache.
pub const REPLY_BATCH_BYTES: usize = 256 << 10;

/// The input buffer begins this small, so that idle connections cost little, ...
pub const INPUT_BYTES_MIN: usize = 16 << 10;

/// ... grows to this while requests come in faster than they are read, and beyond it only for one long payload. More would
/// not save system calls that show, and would receive the beginning of the next long payload where it cannot stay.
pub const INPUT_BYTES_MAX: usize = 64 << 10;

/// From the first byte to the end of the handshake, TLS included. QEMU's server allows as long.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Most connections of a server at a time, over all its listeners; one more waits to be accepted.
pub const MAX_CONNECTIONS: usize = 4096;

/// On shutdown, how long requests that are being served may take before their connection is cut.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// On shutdown, how long a connection that has nothing left to do stays open to answer ESHUTDOWN to what is still on its
/// way.
pub const DRAIN_LINGER: Duration = Duration::from_millis(100);

/// How long a connection that was just served keeps its lane awake for the next request. Falling asleep and being woken
/// costs two processors more than this; a client that is silent for longer costs nothing.
pub const SPIN: Duration = Duration::from_micros(10);
