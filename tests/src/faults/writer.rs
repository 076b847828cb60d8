//! A client of one volume at one node. It tries for ever to be let in; once it is, it reads all of the volume, and then writes,
//! flushes and reads. It sends one request at a time, and takes down all that it asks and hears.
//!
//! It goes away again as long as the node has the volume in standby: a client at each node is how it is found out that two nodes serve
//! one volume.

use std::io::{self, ErrorKind};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::history::{Does, Operation, Outcome, Record, Recorder, now_ns};
use super::mark::{Found, Mark};
use crate::client::{Client, Request, Style};
use crate::disk_server::Disk;
use crate::oracle::block::BLOCK_BYTES;
use crate::random::Random;

/// What a client is given.
#[derive(Debug)]
pub struct Writer<'a> {
    /// The volume's number.
    pub volume: u8,
    /// The node's.
    pub node: u8,
    /// Where the node serves it.
    pub disk: Disk,
    /// How many blocks it has.
    pub blocks: u64,
    /// Decides what it does.
    pub random: Random,
    /// Takes it all down.
    pub recorder: &'a Recorder,
    /// How many of its flushes were acknowledged, for those who wait for one.
    pub flushes: &'a AtomicU64,
    /// Which connection this is.
    connection: u32,
    /// The number of its last write.
    sequence: u64,
}

/// How it went on a connection.
enum Ended {
    /// It is over.
    Lost,
    /// Nothing was acknowledged for long.
    GivenUp,
    /// The client has been told to stop.
    Stopped,
}

impl<'a> Writer<'a> {
    /// A client of a volume at a node that has done nothing yet.
    pub fn new(
        (volume, node): (u8, u8),
        disk: Disk,
        blocks: u64,
        random: Random,
        recorder: &'a Recorder,
        flushes: &'a AtomicU64,
    ) -> Self {
        Self { volume, node, disk, blocks, random, recorder, flushes, connection: 0, sequence: 0 }
    }

    /// Works until it is told to stop.
    ///
    /// # Errors
    /// What it does cannot be taken down, or the server breaks the protocol.
    pub fn run(&mut self, stop: &AtomicBool) -> Result<()> {
        while !stop.load(Ordering::Relaxed) {
            if let Some(mut client) = self.attach()? {
                match self.work(&mut client, stop)? {
                    Ended::Stopped => return Ok(()),
                    Ended::Lost | Ended::GivenUp => {}
                }
            }
            let pause_ms = self.random.below(MOST_ATTACH_PAUSE_MS);
            thread::sleep(Duration::from_millis(pause_ms));
        }
        Ok(())
    }

    /// Tries for so long to read all of the volume, and to flush it, on a new connection; whether it could.
    ///
    /// # Errors
    /// As [`Writer::run`].
    pub fn read_at_the_end(&mut self, at_most: Duration) -> Result<bool> {
        let begun = Instant::now();
        while begun.elapsed() < at_most {
            if let Some(mut client) = self.attach()?
                && self.read_all(&mut client)? == Outcome::Done
                && self.ask(&mut client, Request::flush(), Does::Flush)? == Outcome::Done
            {
                return Ok(true);
            }
            thread::sleep(AGAIN);
        }
        Ok(false)
    }

    fn attach(&mut self) -> Result<Option<Client<UnixStream>>> {
        self.connection += 1;
        let invoked_ns = now_ns();
        let attached = self.disk.attach_described(Style::Structured);
        let outcome = match &attached {
            Ok((_, described)) if described.is_standby => Outcome::Refused,
            Ok(_) => Outcome::Done,
            Err(error) => outcome_of(error).unwrap_or(Outcome::Refused),
        };
        self.tell(Does::Attach, invoked_ns, outcome)?;
        Ok(attached.ok().filter(|_| outcome == Outcome::Done).map(|(client, _)| client))
    }

    fn work(&mut self, client: &mut Client<UnixStream>, stop: &AtomicBool) -> Result<Ended> {
        let patience = Duration::from_millis(LEAST_PATIENCE_MS + self.random.below(MORE_PATIENCE_MS));
        let mut last_done = Instant::now();
        let mut outcome = self.read_all(client)?;
        // What was written without an answer is read before anything else is done.
        let mut doubt = None;
        loop {
            match outcome {
                Outcome::Done => last_done = Instant::now(),
                Outcome::Refused | Outcome::Lost | Outcome::Unanswered => return Ok(Ended::Lost),
                Outcome::Failed(_) if last_done.elapsed() > patience => return Ok(Ended::GivenUp),
                Outcome::Failed(_) => thread::sleep(AGAIN),
            }
            if stop.load(Ordering::Relaxed) {
                return Ok(Ended::Stopped);
            }
            thread::sleep(Duration::from_millis(self.random.below(MOST_PAUSE_MS)));
            if let Some(block) = doubt {
                outcome = self.read(client, block, 1)?;
                if outcome == Outcome::Done {
                    doubt = None;
                }
                continue;
            }
            outcome = match self.random.below(100) {
                0..65 => {
                    let (block, outcome) = self.write(client)?;
                    doubt = (outcome != Outcome::Done).then_some(block);
                    outcome
                }
                65..85 => self.flush(client)?,
                _ => {
                    let first = self.random.below(self.blocks);
                    let count = 1 + self.random.below(MOST_READ.min(self.blocks - first));
                    self.read(client, first, count)?
                }
            };
        }
    }

    fn write(&mut self, client: &mut Client<UnixStream>) -> Result<(u64, Outcome)> {
        self.sequence += 1;
        let (block, sequence) = (self.sequence % self.blocks, self.sequence);
        let bytes = Mark { node: self.node, connection: self.connection, sequence }.to_bytes(self.volume, block);
        let outcome = self.ask(client, Request::write(offset(block), bytes), Does::Write { block, sequence })?;
        Ok((block, outcome))
    }

    fn flush(&mut self, client: &mut Client<UnixStream>) -> Result<Outcome> {
        let outcome = self.ask(client, Request::flush(), Does::Flush)?;
        if outcome == Outcome::Done {
            self.flushes.fetch_add(1, Ordering::Relaxed);
        }
        Ok(outcome)
    }

    fn read_all(&mut self, client: &mut Client<UnixStream>) -> Result<Outcome> {
        let mut first = 0;
        while first < self.blocks {
            let count = MOST_READ.min(self.blocks - first);
            match self.read(client, first, count)? {
                Outcome::Done => first += count,
                other => return Ok(other),
            }
        }
        Ok(Outcome::Done)
    }

    fn read(&mut self, client: &mut Client<UnixStream>, first: u64, count: u64) -> Result<Outcome> {
        self.ask(client, Request::read(offset(first), offset(count)), Does::Read { first, found: Vec::new() })
    }

    /// Sends a request, and waits for what comes of it.
    fn ask(&mut self, client: &mut Client<UnixStream>, request: Request, does: Does) -> Result<Outcome> {
        let (expected, invoked_ns) = (request.length, now_ns());
        let (outcome, data) = match client.call(request) {
            Ok(answer) if answer.error() == 0 => (Outcome::Done, answer.data()),
            Ok(answer) => (Outcome::Failed(answer.error()), Vec::new()),
            Err(error) => match outcome_of(&error) {
                Some(outcome) => (outcome, Vec::new()),
                None => return Err(error),
            },
        };
        let does = match does {
            Does::Read { first, .. } => {
                ensure!(
                    outcome != Outcome::Done || data.len() as u64 == expected,
                    "{} bytes for {expected}",
                    data.len()
                );
                let blocks = (first..).zip(data.chunks(BLOCK_BYTES));
                Does::Read { first, found: blocks.map(|(block, bytes)| Found::of(self.volume, block, bytes)).collect() }
            }
            other => other,
        };
        self.tell(does, invoked_ns, outcome)?;
        Ok(outcome)
    }

    fn tell(&self, does: Does, invoked_ns: u64, outcome: Outcome) -> Result<()> {
        let Self { volume, node, connection, .. } = *self;
        let answered_ns = now_ns();
        self.recorder.add(Record::Operation(Operation {
            volume,
            node,
            connection,
            does,
            invoked_ns,
            answered_ns,
            outcome,
        }))
    }
}

/// What an error of a connection says; `None` where that is not a connection's error, but the server's.
fn outcome_of(error: &anyhow::Error) -> Option<Outcome> {
    let error = error.chain().find_map(|cause| cause.downcast_ref::<io::Error>())?;
    Some(match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => Outcome::Unanswered,
        _ => Outcome::Lost,
    })
}

fn offset(blocks: u64) -> u64 {
    blocks * BLOCK_BYTES as u64
}

/// Between two attempts to be let in.
const MOST_ATTACH_PAUSE_MS: u64 = 600;
/// Between two requests: a campaign is about what overlaps with faults, and not about how much the cluster can do.
const MOST_PAUSE_MS: u64 = 40;
/// Before the next request after one that was refused.
const AGAIN: Duration = Duration::from_millis(50);
/// Without an acknowledgement, before the connection is given up: shorter and longer than a session.
const LEAST_PATIENCE_MS: u64 = 500;
const MORE_PATIENCE_MS: u64 = 6_000;
/// In one request.
const MOST_READ: u64 = 64;
