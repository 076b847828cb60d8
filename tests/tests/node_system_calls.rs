//! What a request to a volume asks of the operating system, counted: a system call too many shows here before it shows in any
//! timing.
//!
//! Of several rounds the cheapest counts, since a node has other things to do now and then: a seal, a heartbeat. What each
//! request costs is in every round.

use std::io::Write;
use std::os::unix::net::UnixStream;

use anyhow::{Context, Result, ensure};
use sterna_tests::client::{Client, Request, Style};
use sterna_tests::disk_server::DiskServer;
use sterna_tests::node::Node;
use sterna_tests::random::Random;
use sterna_tests::strace;

const BLOCK: u64 = 4096;
const ROUNDS: u64 = 5;
const REQUESTS: u64 = 128;
const STYLE: Style = Style::Structured;

/// All but waiting for events: a lane asks its queue again and again for a moment before it sleeps, and how often it can is a
/// matter of time.
const WATCHED: &str = "trace=!epoll_wait,epoll_pwait";

struct Watched {
    node: Node,
    client: Client<UnixStream>,
    random: Random,
    _directory: tempfile::TempDir,
}

impl Watched {
    fn start() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let mut node = Node::init(directory.path())?.strace(&[WATCHED]).log_level("warn");
        node.run()?;
        node.create("disk", ROUNDS * REQUESTS * BLOCK)?;
        let (client, _) = node.disk("disk").attach(STYLE)?;
        Ok(Self { node, client, random: Random::new(1), _directory: directory })
    }

    /// Blocks that are unlike any other.
    fn writes(&mut self, round: u64) -> Vec<Request> {
        let mut block = || (0..BLOCK / 8).flat_map(|_| self.random.bits().to_le_bytes()).collect();
        (0..REQUESTS).map(|index| Request::write((round * REQUESTS + index) * BLOCK, block())).collect()
    }

    fn write_everything(&mut self) -> Result<()> {
        for round in 0..ROUNDS {
            let writes = self.writes(round);
            self.together(writes)?;
        }
        Ok(())
    }

    fn seal(&mut self, snapshot: &str) -> Result<()> {
        self.node.sterna(["volume", "snapshot", "disk", snapshot]).succeed()?;
        let shown = self.node.value(["volume", "show", "disk"])?;
        ensure!(shown["open"]["unsealed_bytes"] == 0, "{shown}");
        Ok(())
    }

    /// System calls for each of so many requests, those of one of several equal rounds.
    fn cheapest(&mut self, requests: u64, mut round: impl FnMut(&mut Self, u64) -> Result<()>) -> Result<f64> {
        let mut cheapest = usize::MAX;
        for index in 0..ROUNDS {
            let before = strace::count(&self.node.system_calls()?);
            round(self, index)?;
            cheapest = cheapest.min(strace::count(&self.node.system_calls()?) - before);
        }
        Ok(f64::from(u32::try_from(cheapest)?) / f64::from(u32::try_from(requests)?))
    }

    /// Sends all with one call, and reads all answers.
    fn together(&mut self, requests: Vec<Request>) -> Result<()> {
        let count = requests.len();
        let requests = requests.into_iter().zip(1..).map(|(request, cookie)| request.cookie(cookie));
        let mut bytes = Vec::new();
        for request in requests {
            bytes.extend(request.to_bytes(STYLE));
            self.client.expect(request);
        }
        let mut stream = self.client.link().try_clone()?;
        // The server need not take requests for as long as nobody takes its answers.
        let writer = std::thread::spawn(move || stream.write_all(&bytes));
        for _ in 0..count {
            ensure!(self.client.answer()?.error() == 0, "a request has failed");
        }
        writer.join().expect("the writer does not panic").context("the requests were not taken")
    }

    /// One behind the other.
    fn one_by_one(&mut self, requests: Vec<Request>) -> Result<()> {
        for request in requests {
            ensure!(self.client.call(request)?.error() == 0, "a request has failed");
        }
        Ok(())
    }
}

fn reads() -> Vec<Request> {
    // Not in the order in which they are on the disk.
    (0..REQUESTS).map(|index| Request::read(index * 61 % (ROUNDS * REQUESTS) * BLOCK, BLOCK)).collect()
}

#[test]
fn a_read_of_cached_sealed_data_costs_few_system_calls() -> Result<()> {
    let mut watched = Watched::start()?;
    watched.write_everything()?;
    watched.seal("sealed")?;
    // The first read of a segment brings its map.
    watched.together(reads())?;
    let alone = watched.cheapest(REQUESTS, |watched, _| watched.one_by_one(reads()))?;
    let together = watched.cheapest(REQUESTS, |watched, _| watched.together(reads()))?;
    // To receive, to read the pack, to send.
    assert!(alone <= ALONE, "{alone} system calls for a read by itself");
    assert!(together <= TOGETHER, "{together} system calls for a read among many");
    Ok(())
}

#[test]
fn a_long_read_costs_few_system_calls_however_its_data_is_scattered() -> Result<()> {
    const LONG: u64 = 128 << 10;
    let long =
        || (0..ROUNDS * REQUESTS * BLOCK / LONG).map(|index| Request::read(index * LONG, LONG)).collect::<Vec<_>>();
    let count = long().len() as u64;
    let mut watched = Watched::start()?;
    watched.write_everything()?;
    watched.seal("together")?;
    watched.one_by_one(long())?;
    let together = watched.cheapest(count, |watched, _| watched.one_by_one(long()))?;
    // Every third block on its own.
    for round in 0..ROUNDS {
        let writes = watched.writes(round).into_iter().step_by(3).collect();
        watched.together(writes)?;
    }
    watched.seal("scattered")?;
    watched.one_by_one(long())?;
    let scattered = watched.cheapest(count, |watched, _| watched.one_by_one(long()))?;
    // To receive, to read the pack, to send; and from each of two packs what is in more places.
    assert!(together <= ALONE, "{together} system calls for a long read of what was written together");
    assert!(scattered <= SCATTERED, "{scattered} system calls for a long read of what was written in pieces");
    Ok(())
}

#[test]
fn a_write_costs_few_system_calls() -> Result<()> {
    let mut watched = Watched::start()?;
    // The first write makes the journal's files.
    let writes = watched.writes(0);
    watched.together(writes)?;
    let alone = watched.cheapest(REQUESTS, |watched, round| {
        let writes = watched.writes(round);
        watched.one_by_one(writes)
    })?;
    let together = watched.cheapest(REQUESTS, |watched, round| {
        let writes = watched.writes(round);
        watched.together(writes)
    })?;
    // To receive, to write the journal, to send.
    assert!(alone <= ALONE, "{alone} system calls for a write by itself");
    assert!(together <= TOGETHER, "{together} system calls for a write among many");
    Ok(())
}

/// Exactly 3 were counted; one more for each request would be 4.
const ALONE: f64 = 3.1;

/// Exactly 4 were counted for 32 blocks, of which every third is in a chunk with others of its kind; with a call for each piece that
/// is not where the one before it ends, 14 would be.
const SCATTERED: f64 = 4.5;

/// 1.03 were counted for a read and 1.14 for a write: the one on the disk, and a part of what receives and sends for all.
/// Into how many parts the requests fall is up to the client; one more for each request would be 2.
const TOGETHER: f64 = 1.5;
