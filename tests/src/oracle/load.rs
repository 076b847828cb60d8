//! Random requests over several connections, many at a time, each reported to an oracle before it is sent and after it
//! is answered.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::unix::net::UnixStream;

use anyhow::{Result, ensure};
use sterna_nbd_server::wire::{command, command_flag};

use super::block::BLOCK_BYTES;
use super::{Flush, Kind, Oracle, Write, offset};
use crate::client::{Client, Request, Style};
use crate::disk_server::Disk;
use crate::random::Random;

/// The longest write, in blocks: 64 KiB, as guests write.
const LONGEST_WRITE: u64 = 16;

/// The longest stretch of zeros, in blocks: more than one segment of a volume would be even more.
const LONGEST_ZEROS: u64 = 64;

/// How many blocks are read at once to verify them.
const VERIFIED_AT_ONCE: u64 = 64;

/// How to put a disk under load.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Over how many connections.
    pub connections: usize,
    /// How many requests at a time over each.
    pub depth: usize,
    /// When it is enough.
    pub requests: u64,
}

/// How a load came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// All requests were answered.
    Enough,
    /// The server went away.
    Cut,
}

/// What was answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answered {
    /// Writes of all kinds.
    pub writes: u64,
    /// Flushes.
    pub flushes: u64,
    /// Reads.
    pub reads: u64,
}

impl Default for Load {
    fn default() -> Self {
        Self { connections: 2, depth: 8, requests: u64::MAX }
    }
}

impl Load {
    /// Sends requests until it is enough or the server is gone. Adds to `answered`.
    ///
    /// # Errors
    /// The server answers with an error, breaks the protocol, or reads as what the oracle does not allow.
    pub fn run(
        &self,
        disk: &Disk,
        oracle: &mut Oracle,
        random: &mut Random,
        answered: &mut Answered,
    ) -> Result<Ending> {
        match self.attach_and_run(disk, oracle, random, answered) {
            Ok(()) => Ok(Ending::Enough),
            Err(error) if error.chain().any(|cause| cause.is::<io::Error>()) => Ok(Ending::Cut),
            Err(error) => Err(error),
        }
    }

    /// The same; a server that is gone, be it before all connections stand, is an error here.
    fn attach_and_run(
        &self,
        disk: &Disk,
        oracle: &mut Oracle,
        random: &mut Random,
        answered: &mut Answered,
    ) -> Result<()> {
        let link = |_| anyhow::Ok(Link { client: disk.attach(Style::Structured)?.0, pending: HashMap::new() });
        let links = (0..self.connections).map(link).collect::<Result<_>>()?;
        Session { oracle, random, answered, links, reading: HashSet::new(), cookie: 0 }.run(self)
    }
}

/// Reads all of a disk after a crash, and has the oracle judge it.
///
/// # Errors
/// A block cannot be read, or holds what it may not.
pub fn verify(disk: &Disk, oracle: &mut Oracle) -> Result<()> {
    let (mut client, size_bytes) = disk.attach(Style::Structured)?;
    ensure!(size_bytes == offset(oracle.block_count()), "the disk has {size_bytes} bytes now");
    let mut first = 0;
    while first < oracle.block_count() {
        let count = VERIFIED_AT_ONCE.min(oracle.block_count() - first);
        let answer = client.call(Request::read(offset(first), offset(count)))?;
        ensure!(answer.error() == 0, "{count} blocks from {first} cannot be read: {answer:?}");
        let data = answer.data();
        ensure!(data.len() as u64 == offset(count), "{} bytes for {count} blocks", data.len());
        for (block, bytes) in (first..).zip(data.chunks_exact(BLOCK_BYTES)) {
            oracle.verify(block, bytes)?;
        }
        first += count;
    }
    Ok(())
}

/// One connection, and what was sent over it and not answered yet.
struct Link {
    client: Client<UnixStream>,
    pending: HashMap<u64, Pending>,
}

enum Pending {
    Write { write: Write, fua: bool },
    Flush(Flush),
    Read(u64),
}

struct Session<'a> {
    oracle: &'a mut Oracle,
    random: &'a mut Random,
    answered: &'a mut Answered,
    links: Vec<Link>,
    /// Blocks that are being read, which therefore nobody writes.
    reading: HashSet<u64>,
    cookie: u64,
}

impl Session<'_> {
    fn run(&mut self, load: &Load) -> Result<()> {
        let mut left = load.requests;
        while left > 0 {
            let link = usize::try_from(self.random.below(self.links.len() as u64))?;
            if self.links[link].pending.len() < load.depth {
                self.send(link)?;
                left -= 1;
            } else {
                self.hear(link)?;
            }
        }
        for link in 0..self.links.len() {
            while !self.links[link].pending.is_empty() {
                self.hear(link)?;
            }
        }
        Ok(())
    }

    fn send(&mut self, link: usize) -> Result<()> {
        let (pending, request) = match self.random.below(100) {
            0..70 => self.write(Kind::Data, LONGEST_WRITE),
            70..80 => self.write(Kind::Zeros, LONGEST_ZEROS),
            80..90 => (Pending::Flush(self.oracle.issue_flush()), Request::flush()),
            _ => self.read(),
        };
        self.cookie += 1;
        let Link { client, pending: sent } = &mut self.links[link];
        sent.insert(self.cookie, pending);
        client.send(request.cookie(self.cookie))
    }

    /// A write somewhere; a flush, if there is no room for one.
    fn write(&mut self, kind: Kind, longest: u64) -> (Pending, Request) {
        let first = self.random.below(self.oracle.block_count());
        let end = self.oracle.block_count().min(first + 1 + self.random.below(longest));
        let is_free = |&block: &u64| !self.oracle.is_busy(block) && !self.reading.contains(&block);
        let count = (first..end).take_while(is_free).count() as u64;
        if count == 0 {
            return (Pending::Flush(self.oracle.issue_flush()), Request::flush());
        }
        let write = self.oracle.issue(first, count, kind);
        let fua = self.random.below(10) == 0;
        let request = match kind {
            Kind::Data => Request::write(offset(first), self.oracle.payload(&write)),
            Kind::Zeros => {
                let commands = [command::TRIM, command::WRITE_ZEROES];
                let command = commands[usize::from(self.random.below(2) == 0)];
                Request::new(command, offset(first), offset(count))
            }
        };
        (Pending::Write { write, fua }, request.flags(if fua { command_flag::FUA } else { 0 }))
    }

    /// A read of a block that nobody writes; a flush, if there is none at hand.
    fn read(&mut self) -> (Pending, Request) {
        let block = self.random.below(self.oracle.block_count());
        if self.oracle.is_busy(block) || !self.reading.insert(block) {
            return (Pending::Flush(self.oracle.issue_flush()), Request::flush());
        }
        (Pending::Read(block), Request::read(offset(block), offset(1)))
    }

    /// Waits for the next answer on this connection.
    fn hear(&mut self, link: usize) -> Result<()> {
        let Link { client, pending } = &mut self.links[link];
        let answer = client.answer()?;
        // The client has checked that it was sent.
        let pending = pending.remove(&answer.cookie).expect("an answer is to a request");
        ensure!(answer.error() == 0, "the server answers with {answer:?}");
        match pending {
            Pending::Write { write, fua } => {
                self.oracle.acknowledge(&write, fua);
                self.answered.writes += 1;
            }
            Pending::Flush(flush) => {
                self.oracle.acknowledge_flush(flush);
                self.answered.flushes += 1;
            }
            Pending::Read(block) => {
                self.reading.remove(&block);
                self.oracle.verify_idle(block, &answer.data())?;
                self.answered.reads += 1;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;

    /// How a load ends at a server that says this much to whoever connects, and then is gone.
    fn ends_at_a_server_that_says(greeting: &[u8]) -> Result<Ending> {
        let directory = tempfile::tempdir()?;
        let socket = directory.path().join("socket");
        let listener = UnixListener::bind(&socket)?;
        let load = Load { requests: 1, connections: 1, ..Load::default() };
        thread::scope(|scope| {
            let server = scope.spawn(|| anyhow::Ok(listener.accept()?.0.write_all(greeting)?));
            let (mut oracle, mut random) = (Oracle::new(1, 1), Random::new(1));
            let ending = load.run(&Disk::new(&socket, "disk"), &mut oracle, &mut random, &mut Answered::default());
            server.join().expect("a server does not panic")?;
            ending
        })
    }

    #[test]
    fn a_server_that_goes_before_all_connections_stand_has_gone_and_not_failed() -> Result<()> {
        for said in [&b""[..], b"NBDMAGIC", b"NBDMAGICIHAVEOPT\0\x03"] {
            assert_eq!(ends_at_a_server_that_says(said)?, Ending::Cut, "after {said:?}");
        }
        let nobody = Disk::new("/nowhere", "disk");
        let (mut oracle, mut random) = (Oracle::new(1, 1), Random::new(1));
        assert_eq!(Load::default().run(&nobody, &mut oracle, &mut random, &mut Answered::default())?, Ending::Cut);
        Ok(())
    }

    #[test]
    fn a_server_that_speaks_something_else_has_failed() {
        let error = ends_at_a_server_that_says(b"HTTP/1.1 404 Not Found").expect_err("that is no NBD server");
        assert!(format!("{error:#}").contains("the greeting is"), "{error:#}");
    }
}
