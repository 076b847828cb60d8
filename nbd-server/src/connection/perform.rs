//! Having the device do what a request says, and saying how it went.

use std::io;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use sterna_types::device::{Allocation, ReadData, Residency, StatusRun};
use sterna_types::limits::MAX_STATUS_RUNS;
use sterna_types::{BlockDevice, ByteRange, DeviceError};

use crate::handshake::{Contexts, MetaContext, ReplyStyle};
use crate::transmission::{Command, Echo, reply};
use crate::wire::{ErrorCode, allocation_bit, residency_bit};

use super::outbox::Outbox;
use crate::counters::Counters;

/// A request that is with the device.
pub(super) type Pending = Pin<Box<dyn Future<Output = Finished> + Send>>;

/// A request that the device has answered.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) echo: Echo,
    /// What it counted for while it was in flight, in bytes.
    pub(super) held_bytes: usize,
    pub(super) outcome: Outcome,
}

#[derive(Debug)]
pub(super) enum Outcome {
    Done,
    Data(ReadData, ByteRange),
    Status(Vec<(MetaContext, Vec<StatusRun<u32>>)>),
    Failed(DeviceError, ErrorCode),
}

/// The command as a future of its own, with the payload that belongs to it.
pub(super) fn start(device: &Arc<dyn BlockDevice>, echo: Echo, command: Command, payload: Bytes) -> Pending {
    let device = Arc::clone(device);
    let held_bytes = held_bytes(command);
    Box::pin(async move {
        let outcome = match run(&*device, command, payload).await {
            Ok(outcome) => outcome,
            Err(error) => {
                let code = error_code(&error, command);
                Outcome::Failed(error, code)
            }
        };
        Finished { echo, held_bytes, outcome }
    })
}

/// The bytes of payload, in either direction, that a command keeps in memory while it is with the device.
pub(super) fn held_bytes(command: Command) -> usize {
    match command {
        // The transmission machine has bounded both.
        Command::Read(range) | Command::Write(range, _) => usize::try_from(range.length()).unwrap_or(usize::MAX),
        _ => 0,
    }
}

async fn run(device: &dyn BlockDevice, command: Command, payload: Bytes) -> Result<Outcome, DeviceError> {
    match command {
        Command::Read(range) => return Ok(Outcome::Data(read(device, range).await?, range)),
        Command::Status { range, one, contexts } => {
            return Ok(Outcome::Status(status(device, range, one, contexts).await?));
        }
        Command::Write(range, persistence) => device.write(range.start(), payload, persistence).await?,
        Command::Flush => device.flush().await?,
        Command::Trim(range, persistence) => device.trim(range, persistence).await?,
        Command::Prefetch(range) => device.prefetch(range).await?,
        Command::WriteZeroes(request) => device.write_zeroes(request).await?,
    }
    Ok(Outcome::Done)
}

async fn read(device: &dyn BlockDevice, range: ByteRange) -> Result<ReadData, DeviceError> {
    let data = device.read(range).await?;
    match &data {
        // The reply's header tells the length: one byte more or less, and the client takes data for headers.
        ReadData::Bytes(bytes) if bytes.len() as u64 != range.length() => {
            let text = format!("the device returned {} bytes where {range} were asked for", bytes.len());
            Err(DeviceError::Io(io::Error::other(text)))
        }
        _ => Ok(data),
    }
}

async fn status(
    device: &dyn BlockDevice,
    range: ByteRange,
    one: bool,
    contexts: Contexts,
) -> Result<Vec<(MetaContext, Vec<StatusRun<u32>>)>, DeviceError> {
    let most = if one { 1 } else { MAX_STATUS_RUNS };
    let mut told = Vec::new();
    for context in contexts.iter() {
        let runs = match context {
            MetaContext::Allocation => with_bits(device.allocation(range, most).await?, |status| match status {
                Allocation::Data => 0,
                Allocation::Hole => allocation_bit::HOLE | allocation_bit::ZERO,
            }),
            MetaContext::Residency => with_bits(device.residency(range, most).await?, |status| match status {
                Residency::Here => 0,
                Residency::Elsewhere => residency_bit::ELSEWHERE,
            }),
        };
        told.push((context, runs));
    }
    Ok(told)
}

fn with_bits<T>(runs: Vec<StatusRun<T>>, bits: impl Fn(T) -> u32) -> Vec<StatusRun<u32>> {
    runs.into_iter().map(|run| StatusRun { length: run.length, status: bits(run.status) }).collect()
}

/// What the protocol has for an error of the device.
pub(super) fn error_code(error: &DeviceError, command: Command) -> ErrorCode {
    match (error, command) {
        (DeviceError::OutOfRange { .. }, Command::Write(..) | Command::WriteZeroes(_)) => ErrorCode::NoSpace,
        (DeviceError::OutOfRange { .. }, _) => ErrorCode::Inval,
        (DeviceError::ReadOnly | DeviceError::Standby, _) => ErrorCode::Perm,
        (DeviceError::NotOwner, _) => ErrorCode::Shutdown,
        (DeviceError::NoSpace, _) => ErrorCode::NoSpace,
        (DeviceError::NotFaster, Command::WriteZeroes(_)) => ErrorCode::NotSup,
        (DeviceError::NotFaster | DeviceError::Poisoned | DeviceError::Io(_), _) => ErrorCode::Io,
    }
}

/// Puts the reply into the outbox.
pub(super) fn answer(style: ReplyStyle, finished: Finished, outbox: &mut Outbox, counters: &Counters) {
    let echo = finished.echo;
    counters.requests.add(1);
    match finished.outcome {
        Outcome::Done => outbox.push(reply::done(style, echo).as_bytes()),
        Outcome::Data(ReadData::Zeroes, range) => answer_zeroes(style, echo, range, outbox),
        Outcome::Data(ReadData::Bytes(data), range) => {
            outbox.push(reply::data(style, echo, read_length(range)).as_bytes());
            outbox.push_data(data, counters);
        }
        Outcome::Status(told) => {
            let mut out = Vec::new();
            let last = told.len().saturating_sub(1);
            for (index, (context, runs)) in told.iter().enumerate() {
                reply::status(style, echo, *context, runs, index == last, &mut out);
            }
            outbox.push_data(out.into(), counters);
        }
        Outcome::Failed(error, code) => refuse(style, echo, code, &error.to_string(), outbox, counters),
    }
}

/// Answers a READ of zeroes.
pub(super) fn answer_zeroes(style: ReplyStyle, echo: Echo, range: ByteRange, outbox: &mut Outbox) {
    let length = read_length(range);
    match reply::zeroes(style, echo, length) {
        Some(head) => outbox.push(head.as_bytes()),
        None => {
            outbox.push(reply::data(style, echo, length).as_bytes());
            outbox.push_zeroes(length as usize);
        }
    }
}

/// Answers with an error.
pub(super) fn refuse(
    style: ReplyStyle,
    echo: Echo,
    code: ErrorCode,
    text: &str,
    outbox: &mut Outbox,
    counters: &Counters,
) {
    let mut out = Vec::new();
    reply::error(style, echo, code, text, &mut out);
    outbox.push(&out);
    counters.errors.add(1);
}

/// The length of a READ, which the transmission machine has bounded.
pub(super) fn read_length(range: ByteRange) -> u32 {
    u32::try_from(range.length()).expect("a read is at most MAX_PAYLOAD_BYTES long")
}
