//! The contract of a [`BlockDevice`] held to over NBD: the suite that every device passes runs against a device that is
//! a client of a server of a device. What is lost on the way (an error's details) is guessed back from the error number.

use std::collections::HashMap;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Mutex;

use anyhow::Result;
use bytes::Bytes;
use sterna_nbd_server::wire::{command, command_flag};
use sterna_tests::client::{Client, READ_LIMIT, Request, Style};
use sterna_tests::node::Node;
use sterna_tests::reply::Answer;
use sterna_tests::server::Server;
use sterna_types::device::{
    Allocation, BlockDevice, DeviceFuture, Geometry, Persistence, ReadData, Residency, StatusRun, ZeroRequest,
    conformance,
};
use sterna_types::{ByteOffset, ByteRange, ByteSize, DeviceError};

/// Ids of `base:allocation` and `x-sterna:residency`, in the order they were asked for.
const ALLOCATION: u32 = 1;
const RESIDENCY: u32 = 2;

/// A disk at the other end of a connection.
struct Remote {
    connection: Mutex<Connection>,
    size: ByteSize,
    /// What serves it, and ends with it.
    _server: Option<Server>,
}

struct Connection {
    client: Client<UnixStream>,
    next_cookie: u64,
    /// Answers that came while that to another request was awaited.
    early: HashMap<u64, Answer>,
}

impl Remote {
    /// The default export of a server.
    fn attach(server: Server, size: ByteSize, style: Style) -> Result<Self> {
        Self::over(server.client()?, "", size, style, Some(server))
    }

    /// A new volume of a node, which outlives it.
    fn volume(node: &Node, name: &str, size: ByteSize, style: Style) -> Result<Self> {
        node.create(name, size.0)?;
        let stream = UnixStream::connect(node.nbd_socket())?;
        stream.set_read_timeout(Some(READ_LIMIT))?;
        Self::over(Client::greet(stream)?, name, size, style, None)
    }

    fn over(
        mut client: Client<UnixStream>,
        export: &str,
        size: ByteSize,
        style: Style,
        server: Option<Server>,
    ) -> Result<Self> {
        let described = client.attach(style, &["base:allocation", "x-sterna:residency"], export)?;
        assert_eq!(described.size_bytes, size.0);
        let connection = Connection { client, next_cookie: 1, early: HashMap::new() };
        Ok(Self { connection: Mutex::new(connection), size, _server: server })
    }

    /// Sends a request at the first poll, and reads the reply at the second: so two requests can be in flight.
    async fn call(&self, request: Request) -> Result<Answer, DeviceError> {
        let lost = |error: anyhow::Error| DeviceError::Io(io::Error::other(error));
        let (command, at, length) = (request.command, request.offset, request.length);
        let cookie = {
            let mut connection = self.connection.lock().expect("no test panics with the connection");
            let cookie = connection.next_cookie;
            connection.next_cookie += 1;
            connection.client.send(request.cookie(cookie)).map_err(lost)?;
            cookie
        };
        tokio::task::yield_now().await;
        let mut connection = self.connection.lock().expect("no test panics with the connection");
        while !connection.early.contains_key(&cookie) {
            let answer = connection.client.answer().map_err(lost)?;
            connection.early.insert(answer.cookie, answer);
        }
        let answer = connection.early.remove(&cookie).expect("the answer that was awaited");
        let range = ByteRange::new(ByteOffset(at), length).expect("a range of the suite");
        match (answer.error(), command) {
            (0, _) => Ok(answer),
            (1, _) => Err(DeviceError::ReadOnly),
            (22, command::WRITE | command::WRITE_ZEROES) => Err(lost(anyhow::anyhow!("EINVAL for a change"))),
            (22 | 28, _) => Err(DeviceError::OutOfRange { range, size: self.size }),
            (95, command::WRITE_ZEROES) => Err(DeviceError::NotFaster),
            (code, _) => Err(lost(anyhow::anyhow!("error {code}"))),
        }
    }

    async fn change(&self, request: Request, persistence: Persistence) -> Result<(), DeviceError> {
        let fua = if persistence == Persistence::Durable { command_flag::FUA } else { 0 };
        self.call(request.flags(fua)).await.map(drop)
    }

    async fn status(&self, range: ByteRange, max_runs: usize, context: u32) -> Result<Vec<(u64, u64)>, DeviceError> {
        let one = if max_runs == 1 { command_flag::REQ_ONE } else { 0 };
        let answer = self.call(Request::status(range.start().0, range.length()).flags(one)).await?;
        let runs = answer.status(context).map_err(|error| DeviceError::Io(io::Error::other(error)))?;
        Ok(runs.iter().copied().take(max_runs).collect())
    }
}

impl BlockDevice for Remote {
    fn geometry(&self) -> Geometry {
        Geometry {
            size: self.size,
            minimum_io_bytes: 1,
            preferred_io_bytes: 4096,
            read_only: false,
            can_judge_fast_zeroes: true,
            rotational: false,
        }
    }

    fn read(&self, range: ByteRange) -> DeviceFuture<'_, ReadData> {
        let request = Request::read(range.start().0, range.length());
        Box::pin(async move { Ok(ReadData::Bytes(self.call(request).await?.data().into())) })
    }

    fn write(&self, at: ByteOffset, data: Bytes, persistence: Persistence) -> DeviceFuture<'_, ()> {
        Box::pin(self.change(Request::write(at.0, data.into()), persistence))
    }

    fn write_zeroes(&self, zero: ZeroRequest) -> DeviceFuture<'_, ()> {
        let no_hole = if zero.keep_allocated { command_flag::NO_HOLE } else { 0 };
        let fast = if zero.only_if_fast { command_flag::FAST_ZERO } else { 0 };
        let request = Request::new(command::WRITE_ZEROES, zero.range.start().0, zero.range.length());
        Box::pin(self.change(request.flags(no_hole | fast), zero.persistence))
    }

    fn trim(&self, range: ByteRange, persistence: Persistence) -> DeviceFuture<'_, ()> {
        Box::pin(self.change(Request::new(command::TRIM, range.start().0, range.length()), persistence))
    }

    fn flush(&self) -> DeviceFuture<'_, ()> {
        Box::pin(self.change(Request::flush(), Persistence::AtNextFlush))
    }

    fn prefetch(&self, range: ByteRange) -> DeviceFuture<'_, ()> {
        let request = Request::new(command::CACHE, range.start().0, range.length());
        Box::pin(self.change(request, Persistence::AtNextFlush))
    }

    fn allocation(&self, range: ByteRange, max_runs: usize) -> DeviceFuture<'_, Vec<StatusRun<Allocation>>> {
        Box::pin(async move {
            let told = |(length, bits)| match bits {
                0 => StatusRun { length, status: Allocation::Data },
                3 => StatusRun { length, status: Allocation::Hole },
                bits => panic!("an allocation of {bits}"),
            };
            Ok(self.status(range, max_runs, ALLOCATION).await?.into_iter().map(told).collect())
        })
    }

    fn residency(&self, range: ByteRange, max_runs: usize) -> DeviceFuture<'_, Vec<StatusRun<Residency>>> {
        Box::pin(async move {
            let told = |(length, bits)| match bits {
                0 => StatusRun { length, status: Residency::Here },
                1 => StatusRun { length, status: Residency::Elsewhere },
                bits => panic!("a residency of {bits}"),
            };
            Ok(self.status(range, max_runs, RESIDENCY).await?.into_iter().map(told).collect())
        })
    }
}

async fn file_over_nbd(style: Style) {
    conformance::run(|size| {
        let server = Server::builder().file("disk", size.0).start().expect("a server");
        Remote::attach(server, size, style).expect("a client")
    })
    .await;
}

async fn memory_over_nbd(style: Style) {
    conformance::run(|size| {
        let server = Server::builder().memory("disk", &size.0.to_string()).start().expect("a server");
        Remote::attach(server, size, style).expect("a client")
    })
    .await;
}

async fn volume_over_nbd(style: Style) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let node = Node::start(directory.path()).expect("a node");
    let mut number = 0;
    conformance::run(|size| {
        number += 1;
        Remote::volume(&node, &format!("disk-{number}"), size, style).expect("a client")
    })
    .await;
}

#[tokio::test]
async fn a_volume_over_nbd_keeps_the_contract_with_structured_replies() {
    volume_over_nbd(Style::Structured).await;
}

#[tokio::test]
async fn a_volume_over_nbd_keeps_the_contract_with_extended_headers() {
    volume_over_nbd(Style::Extended).await;
}

#[tokio::test]
async fn a_file_over_nbd_keeps_the_contract_with_structured_replies() {
    file_over_nbd(Style::Structured).await;
}

#[tokio::test]
async fn a_file_over_nbd_keeps_the_contract_with_extended_headers() {
    file_over_nbd(Style::Extended).await;
}

#[tokio::test]
async fn memory_over_nbd_keeps_the_contract_with_structured_replies() {
    memory_over_nbd(Style::Structured).await;
}

#[tokio::test]
async fn memory_over_nbd_keeps_the_contract_with_extended_headers() {
    memory_over_nbd(Style::Extended).await;
}

#[tokio::test]
async fn read_only_and_standby_disks_over_nbd_refuse_every_change() -> Result<()> {
    for mode in ["read-only", "standby"] {
        for style in [Style::Structured, Style::Extended] {
            let server = Server::builder().file("disk", 1 << 20).mode(mode).start()?;
            let device = Remote::attach(server, ByteSize(1 << 20), style)?;
            conformance::refuses_changes(&device, |error| matches!(error, DeviceError::ReadOnly)).await;
        }
    }
    Ok(())
}
