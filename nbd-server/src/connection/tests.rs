//! The I/O around the machines: batching, copies, bounds, order, drain, and what the device's errors become.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use sterna_types::device::{
    Allocation, DeviceFuture, Geometry, Inline, MemoryDevice, Persistence, ReadData, StatusRun, ZeroRequest,
};
use sterna_types::{BlockDevice, ByteOffset, ByteRange, ByteSize, DeviceError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::perform::error_code;
use super::{End, Neighbours, Shared, run};
use crate::counters::Counters;
use crate::export::{Export, ExportMode, ExportName, FixedCatalog};
use crate::limits::MAX_REQUESTS_IN_FLIGHT;
use crate::tls::TlsPolicy;
use crate::transmission::Command;
use crate::wire::{self, ErrorCode, command as cmd};

/// A client behind EXPORT_NAME: compact requests, simple replies.
struct Client {
    stream: UnixStream,
    served: JoinHandle<End>,
    shared: Shared,
}

impl Client {
    async fn attach(device: Arc<dyn BlockDevice>) -> Self {
        let name = ExportName::default();
        let export = Export { name, description: None, mode: ExportMode::ReadWrite, requires_tls: false, device };
        let shared = Shared {
            catalog: Arc::new(FixedCatalog(vec![export])),
            tls: TlsPolicy::Off,
            counters: Arc::new(Counters::default()),
            drain: CancellationToken::new(),
            neighbours: Neighbours::default(),
        };
        let (mut stream, other) = UnixStream::pair().expect("a pair of sockets");
        let serving = shared.clone();
        let served = tokio::spawn(async move { run(other, &mut crate::Client::Local, serving).await });
        let mut greeting = [0; 18];
        stream.read_exact(&mut greeting).await.expect("a greeting");
        stream.write_all(&3u32.to_be_bytes()).await.expect("flags sent");
        let option = [&wire::OPTION_MAGIC.to_be_bytes()[..], &1u32.to_be_bytes(), &0u32.to_be_bytes()].concat();
        stream.write_all(&option).await.expect("an option sent");
        let mut export = [0; 10];
        stream.read_exact(&mut export).await.expect("the export's size and flags");
        Self { stream, served, shared }
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("requests sent");
    }

    /// The error and cookie of the next reply, whose data is of the given length where there is no error.
    async fn reply(&mut self, data_bytes: usize) -> (u32, u64, Vec<u8>) {
        assert_eq!(self.stream.read_u32().await.expect("a reply"), wire::SIMPLE_REPLY_MAGIC);
        let error = self.stream.read_u32().await.expect("an error");
        let cookie = self.stream.read_u64().await.expect("a cookie");
        let mut data = vec![0; if error == 0 { data_bytes } else { 0 }];
        self.stream.read_exact(&mut data).await.expect("the data");
        (error, cookie, data)
    }
}

fn request(command: u16, cookie: u64, offset: u64, length: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = wire::REQUEST_MAGIC.to_be_bytes().to_vec();
    bytes.extend_from_slice(&0u16.to_be_bytes());
    bytes.extend_from_slice(&command.to_be_bytes());
    bytes.extend_from_slice(&cookie.to_be_bytes());
    bytes.extend_from_slice(&offset.to_be_bytes());
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A device that answers nothing at once, and each request only when the test allows one more.
struct Gated {
    memory: MemoryDevice,
    allowed: Semaphore,
    inside: AtomicUsize,
    most_inside: AtomicUsize,
    lies_about_length: AtomicBool,
    flushed_at_once: AtomicUsize,
}

impl Gated {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            memory: MemoryDevice::new(ByteSize(1 << 30)),
            allowed: Semaphore::new(0),
            inside: AtomicUsize::new(0),
            most_inside: AtomicUsize::new(0),
            lies_about_length: AtomicBool::new(false),
            flushed_at_once: AtomicUsize::new(0),
        })
    }

    async fn pass(&self) {
        let inside = self.inside.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_inside.fetch_max(inside, Ordering::SeqCst);
        self.allowed.acquire().await.expect("a semaphore that is never closed").forget();
        self.inside.fetch_sub(1, Ordering::SeqCst);
    }
}

impl BlockDevice for Gated {
    fn geometry(&self) -> Geometry {
        self.memory.geometry()
    }

    fn read(&self, range: ByteRange) -> DeviceFuture<'_, ReadData> {
        Box::pin(async move {
            self.pass().await;
            if self.lies_about_length.load(Ordering::SeqCst) {
                return Ok(ReadData::Bytes(Bytes::from_static(b"short")));
            }
            self.memory.read(range).await
        })
    }

    fn write(&self, at: ByteOffset, data: Bytes, persistence: Persistence) -> DeviceFuture<'_, ()> {
        Box::pin(async move {
            self.pass().await;
            self.memory.write(at, data, persistence).await
        })
    }

    fn write_zeroes(&self, request: ZeroRequest) -> DeviceFuture<'_, ()> {
        self.memory.write_zeroes(request)
    }

    fn trim(&self, range: ByteRange, persistence: Persistence) -> DeviceFuture<'_, ()> {
        self.memory.trim(range, persistence)
    }

    fn flush(&self) -> DeviceFuture<'_, ()> {
        self.memory.flush()
    }

    fn try_flush(&self) -> Inline<()> {
        self.flushed_at_once.fetch_add(1, Ordering::SeqCst);
        Inline::Done(Ok(()))
    }

    fn prefetch(&self, range: ByteRange) -> DeviceFuture<'_, ()> {
        self.memory.prefetch(range)
    }

    fn allocation(&self, range: ByteRange, max_runs: usize) -> DeviceFuture<'_, Vec<StatusRun<Allocation>>> {
        self.memory.allocation(range, max_runs)
    }
}

fn filled_memory() -> Arc<MemoryDevice> {
    let device = MemoryDevice::new(ByteSize(64 << 20));
    let data = vec![7; 4 << 20];
    match device.try_write(ByteOffset(0), &data, Persistence::AtNextFlush) {
        sterna_types::device::Inline::Done(result) => result.expect("a write within the device"),
        sterna_types::device::Inline::Later => panic!("memory answers at once"),
    }
    Arc::new(device)
}

#[tokio::test]
async fn requests_that_arrive_together_are_answered_with_few_system_calls() {
    let mut client = Client::attach(filled_memory()).await;
    let before = client.shared.counters.values();
    let requests: Vec<u8> = (0..400).flat_map(|n| request(cmd::READ, n, n * 4096, 4096, &[])).collect();
    client.send(&requests).await;
    for n in 0..400 {
        let (error, cookie, data) = client.reply(4096).await;
        assert_eq!((error, cookie), (0, n));
        assert!(data.iter().all(|&byte| byte == 7));
    }
    let after = client.shared.counters.values();
    let calls = after.sends + after.receives - before.sends - before.receives;
    assert_eq!(after.requests - before.requests, 400);
    assert!(calls <= 100, "{calls} system calls for 400 requests");
    assert_eq!((after.deferred, after.bytes_moved), (0, 0));
}

#[test]
fn requests_that_memory_answers_take_no_memory_of_their_own() {
    const COUNT: usize = 400;
    // All in one thread, whose allocations are counted: the client's, which has none, and the server's.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut client = runtime.block_on(Client::attach(filled_memory()));
    for (command, payload, data_bytes) in [(cmd::READ, vec![], 4096), (cmd::WRITE, vec![9; 4096], 0)] {
        let requests: Vec<u8> = (0..COUNT as u64).flat_map(|n| request(command, n, n * 4096, 4096, &payload)).collect();
        let mut replies = vec![0; COUNT * (16 + data_bytes)];
        let mut answer_all = || {
            runtime.block_on(async {
                client.send(&requests).await;
                client.stream.read_exact(&mut replies).await.expect("all replies");
            });
        };
        // What a connection keeps it has then.
        answer_all();
        let counted = allocation_counter::measure(answer_all).count_total;
        assert!(counted <= COUNT as u64 / 100, "{counted} allocations for {COUNT} requests of type {command}");
    }
}

#[tokio::test]
async fn long_payloads_are_received_where_the_device_reads_them() {
    let mut client = Client::attach(Arc::new(MemoryDevice::new(ByteSize(64 << 20)))).await;
    let length = 128 << 10;
    let payload = vec![9; length as usize];
    for n in 0..64 {
        client.send(&request(cmd::WRITE, n, n * u64::from(length), length, &payload)).await;
    }
    for _ in 0..64 {
        assert_eq!(client.reply(0).await.0, 0);
    }
    let counted = client.shared.counters.values();
    let share = counted.bytes_moved * 100 / counted.bytes_received;
    assert!(share <= 1, "{} of {} bytes were copied within the server", counted.bytes_moved, counted.bytes_received);
    client.send(&request(cmd::READ, 99, 63 * u64::from(length), length, &[])).await;
    assert_eq!(client.reply(length as usize).await.2, payload);
}

#[tokio::test]
async fn no_more_requests_are_in_flight_than_the_bound_and_all_are_answered() {
    let device = Gated::new();
    let mut client = Client::attach(Arc::clone(&device) as Arc<dyn BlockDevice>).await;
    let count = 3 * MAX_REQUESTS_IN_FLIGHT as u64;
    let requests: Vec<u8> = (0..count).flat_map(|n| request(cmd::WRITE, n, n * 512, 512, &[1; 512])).collect();
    client.send(&requests).await;
    while device.inside.load(Ordering::SeqCst) < MAX_REQUESTS_IN_FLIGHT {
        tokio::task::yield_now().await;
    }
    device.allowed.add_permits(3 * MAX_REQUESTS_IN_FLIGHT);
    let mut cookies: Vec<u64> = Vec::new();
    for _ in 0..count {
        let (error, cookie, _) = client.reply(0).await;
        assert_eq!(error, 0);
        cookies.push(cookie);
    }
    cookies.sort_unstable();
    assert!(cookies.into_iter().eq(0..count));
    assert_eq!(device.most_inside.load(Ordering::SeqCst), MAX_REQUESTS_IN_FLIGHT);
}

#[tokio::test]
async fn a_request_that_waits_does_not_hold_up_the_next() {
    let device = Gated::new();
    let mut client = Client::attach(Arc::clone(&device) as Arc<dyn BlockDevice>).await;
    let both = [request(cmd::READ, 1, 0, 4096, &[]), request(cmd::FLUSH, 2, 0, 0, &[])].concat();
    client.send(&both).await;
    assert_eq!(client.reply(0).await.1, 2);
    device.allowed.add_permits(1);
    assert_eq!(client.reply(4096).await.1, 1);
    assert_eq!(client.shared.counters.values().deferred, 1);
}

#[tokio::test]
async fn a_flush_is_done_on_the_lane_only_while_nobody_else_wants_it() {
    let device = Gated::new();
    let mut client = Client::attach(Arc::<Gated>::clone(&device)).await;
    let flush = |cookie| request(cmd::FLUSH, cookie, 0, 0, &[]);
    let at_once = || device.flushed_at_once.load(Ordering::SeqCst);
    client.send(&flush(1)).await;
    assert_eq!(client.reply(0).await.1, 1);
    assert_eq!(at_once(), 1);

    // Behind a request that waits, and before one that has arrived.
    client.send(&request(cmd::READ, 2, 0, 512, &[])).await;
    client.send(&flush(3)).await;
    assert_eq!(client.reply(0).await.1, 3);
    device.allowed.add_permits(1);
    assert_eq!(client.reply(512).await.1, 2);
    client.send(&[flush(4), flush(5)].concat()).await;
    assert_eq!((client.reply(0).await.1, client.reply(0).await.1), (4, 5));
    assert!(
        at_once() <= 2,
        "of two that came together none is alone: one has another behind it, one a reply before it"
    );

    let before = at_once();
    let others = [client.shared.neighbours.join(), client.shared.neighbours.join()];
    client.send(&flush(6)).await;
    assert_eq!((client.reply(0).await.1, at_once()), (6, before));
    drop(others);
    client.send(&flush(7)).await;
    assert_eq!((client.reply(0).await.1, at_once()), (7, before + 1));
}

#[tokio::test]
async fn long_data_of_a_device_is_sent_from_where_it_is() {
    let device = Gated::new();
    device.allowed.add_permits(100);
    let mut client = Client::attach(Arc::clone(&device) as Arc<dyn BlockDevice>).await;
    let payload: Vec<u8> = (0..3_000_000u32).map(|n| n.to_le_bytes()[0]).collect();
    client.send(&request(cmd::WRITE, 1, 5, 3_000_000, &payload)).await;
    assert_eq!(client.reply(0).await.0, 0);
    let reads: Vec<u8> = [(2, 3_000_000), (3, 100), (4, 2_000_000)]
        .iter()
        .flat_map(|&(n, l)| request(cmd::READ, n, 5, l, &[]))
        .collect();
    client.send(&reads).await;
    for _ in 0..3 {
        assert_eq!(client.stream.read_u32().await.expect("a reply"), wire::SIMPLE_REPLY_MAGIC);
        assert_eq!(client.stream.read_u32().await.expect("an error"), 0);
        let length = match client.stream.read_u64().await.expect("a cookie") {
            2 => 3_000_000,
            3 => 100,
            _ => 2_000_000,
        };
        let mut data = vec![0; length];
        client.stream.read_exact(&mut data).await.expect("the data");
        assert!(data == payload[..length]);
    }
    assert!(client.shared.counters.values().bytes_moved < 200 << 10);
}

#[tokio::test]
async fn a_device_that_returns_too_little_fails_the_read_and_not_the_connection() {
    let device = Gated::new();
    device.lies_about_length.store(true, Ordering::SeqCst);
    device.allowed.add_permits(1);
    let mut client = Client::attach(Arc::clone(&device) as Arc<dyn BlockDevice>).await;
    client.send(&request(cmd::READ, 1, 0, 4096, &[])).await;
    assert_eq!(client.reply(4096).await.0, ErrorCode::Io.number());
    client.send(&request(cmd::FLUSH, 2, 0, 0, &[])).await;
    assert_eq!(client.reply(0).await.0, 0);
}

#[tokio::test]
async fn a_disconnect_waits_for_what_is_in_flight() {
    let device = Gated::new();
    let mut client = Client::attach(Arc::clone(&device) as Arc<dyn BlockDevice>).await;
    let both = [request(cmd::READ, 1, 0, 512, &[]), request(cmd::DISC, 2, 0, 0, &[])].concat();
    client.send(&both).await;
    while device.inside.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    device.allowed.add_permits(1);
    assert_eq!(client.reply(512).await.1, 1);
    let mut rest = Vec::new();
    client.stream.read_to_end(&mut rest).await.expect("the end");
    assert!(rest.is_empty());
    assert!(matches!(client.served.await, Ok(End::Orderly)));
}

#[tokio::test]
async fn a_shutdown_finishes_what_is_in_flight_and_refuses_what_comes_later() {
    let device = Gated::new();
    let mut client = Client::attach(Arc::clone(&device) as Arc<dyn BlockDevice>).await;
    client.send(&request(cmd::READ, 1, 0, 512, &[])).await;
    while device.inside.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    client.shared.drain.cancel();
    tokio::task::yield_now().await;
    client.send(&request(cmd::READ, 2, 0, 512, &[])).await;
    assert_eq!(client.reply(512).await, (ErrorCode::Shutdown.number(), 2, vec![]));
    device.allowed.add_permits(1);
    assert_eq!(client.reply(512).await, (0, 1, vec![0; 512]));
    let mut rest = Vec::new();
    client.stream.read_to_end(&mut rest).await.expect("the end");
    assert!(matches!(client.served.await, Ok(End::Orderly)));
}

#[tokio::test]
async fn a_shutdown_does_not_wait_for_ever_for_a_device_that_is_stuck() {
    for leaves_first in [false, true] {
        let device = Gated::new();
        let mut client = Client::attach(Arc::clone(&device) as Arc<dyn BlockDevice>).await;
        client.send(&request(cmd::READ, 1, 0, 512, &[])).await;
        if leaves_first {
            client.stream.shutdown().await.expect("half a goodbye");
        }
        while device.inside.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        client.shared.drain.cancel();
        // Nothing is left to happen but timers, which the paused clock lets fire at once.
        tokio::time::pause();
        assert!(matches!(client.served.await, Ok(End::DrainTimeout)), "leaves first: {leaves_first}");
        tokio::time::resume();
    }
}

#[tokio::test]
async fn a_shutdown_is_seen_by_a_connection_that_is_never_idle() {
    let mut client = Client::attach(filled_memory()).await;
    let batch: Vec<u8> = (0..64).flat_map(|n| request(cmd::READ, n, 0, 512, &[])).collect();
    client.shared.drain.cancel();
    for _ in 0..10_000 {
        if client.stream.write_all(&batch).await.is_err() {
            break;
        }
        let mut bytes = [0; 1 << 16];
        match client.stream.read(&mut bytes).await {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
    }
    assert!(matches!(client.served.await, Ok(End::Orderly | End::Broken(_))));
}

#[test]
fn the_devices_errors_become_the_protocols() {
    let range = ByteRange::between(ByteOffset(0), ByteOffset(1));
    let write = Command::Write(range, Persistence::AtNextFlush);
    let zero = Command::WriteZeroes(ZeroRequest {
        range,
        keep_allocated: false,
        only_if_fast: true,
        persistence: Persistence::AtNextFlush,
    });
    let beyond = || DeviceError::OutOfRange { range, size: ByteSize(0) };
    let io = || DeviceError::from(std::io::Error::other("a broken disk"));
    let full = || DeviceError::from(std::io::Error::from(std::io::ErrorKind::QuotaExceeded));
    let cases = [
        (beyond(), write, ErrorCode::NoSpace),
        (beyond(), zero, ErrorCode::NoSpace),
        (beyond(), Command::Read(range), ErrorCode::Inval),
        (DeviceError::ReadOnly, write, ErrorCode::Perm),
        (DeviceError::Standby, write, ErrorCode::Perm),
        (DeviceError::NotOwner, Command::Flush, ErrorCode::Shutdown),
        (full(), write, ErrorCode::NoSpace),
        (DeviceError::NotFaster, zero, ErrorCode::NotSup),
        (DeviceError::NotFaster, write, ErrorCode::Io),
        (DeviceError::Poisoned, Command::Flush, ErrorCode::Io),
        (io(), write, ErrorCode::Io),
    ];
    for (error, command, expected) in cases {
        assert_eq!(error_code(&error, command), expected, "{error:?} of {command:?}");
    }
}
