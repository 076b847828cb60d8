//! The NBD server on a disk in memory, beside `nbdkit memory`: the cost of the protocol, with no disk behind it.
//!
//! Each round runs each work against both servers, one behind the other, and the order turns from round to round: what
//! the machine does meanwhile hits both alike. The ratio of a round is that of its two runs; the report has the medians.

use anyhow::Result;

use crate::fio::{self, Seen, Work};
use crate::lean;
use crate::report::{Figures, Report, Row};
use crate::server::Server;

/// What is measured, with the ratio to nbdkit that `docs/performance.md` sets as its goal.
const WORKS: [(&str, Client, Work, f64); 8] = [
    ("4 KiB random read, queue 32", Client::Fio, work("randread", 4 << 10, 32), 2.0),
    ("4 KiB random write, queue 32", Client::Fio, work("randwrite", 4 << 10, 32), 1.0),
    ("4 KiB random read, queue 1", Client::Fio, work("randread", 4 << 10, 1), 0.95),
    ("4 KiB random write, queue 1", Client::Fio, work("randwrite", 4 << 10, 1), 0.95),
    ("128 KiB sequential read, queue 16", Client::Fio, work("read", 128 << 10, 16), 1.0),
    ("128 KiB sequential write, queue 16", Client::Fio, work("write", 128 << 10, 16), 1.0),
    ("4 KiB random read, queue 32, lean client", Client::Lean, work("randread", 4 << 10, 32), 2.0),
    ("4 KiB random write, queue 32, lean client", Client::Lean, work("randwrite", 4 << 10, 32), 1.0),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Client {
    Fio,
    Lean,
}

const fn work(pattern: &'static str, block_bytes: u32, depth: u32) -> Work {
    Work { pattern, block_bytes, depth }
}

/// Measures everything `rounds` times, each for `seconds`.
pub(crate) fn measure(rounds: u32, seconds: u32) -> Result<Report> {
    let directory = tempfile::tempdir()?;
    let servers = [Server::sterna_memory(directory.path(), "1G")?, Server::nbdkit_memory(directory.path(), "1G")?];
    for server in &servers {
        fio::fill(&server.uri())?;
    }
    let mut rows: Vec<Row> =
        WORKS.iter().map(|(name, _, work, goal)| Row::new(name, work.block_bytes, *goal)).collect();
    for round in 0..rounds {
        for ((_, client, work, _), row) in WORKS.iter().zip(&mut rows) {
            eprintln!("round {} of {rounds}: {}", round + 1, row.name);
            let mut pair = [None, None];
            for turn in 0..2 {
                let index = ((round + turn) % 2) as usize;
                pair[index] = Some(figures(&servers[index], *client, *work, seconds)?);
            }
            if let [Some(ours), Some(peers)] = pair {
                row.push(ours, peers);
            }
        }
    }
    for ((_, client, work, _), row) in WORKS.iter().zip(&mut rows) {
        let calls = |server| calls_per_request(server, *client, *work);
        (row.ours.calls_per_request, row.peer.calls_per_request) = (calls(&servers[0])?, calls(&servers[1])?);
    }
    let names = servers.each_ref().map(|server| server.name);
    Ok(Report::new("the NBD server on a disk in memory", names, rounds, seconds, rows))
}

fn figures(server: &Server, client: Client, work: Work, seconds: u32) -> Result<Figures> {
    let before = server.usage()?;
    let seen = load(server, client, work, seconds)?;
    let cpu_seconds = server.usage()?.cpu_seconds - before.cpu_seconds;
    Ok(Figures {
        per_second: seen.per_second,
        p50_us: seen.p50_us,
        p99_us: seen.p99_us,
        cpu_us_per_request: cpu_seconds * 1e6 / seen.requests,
    })
}

/// Counted apart from the timed runs, since counting costs time.
fn calls_per_request(server: &Server, client: Client, work: Work) -> Result<Option<f64>> {
    let (calls, seen) = server.count_system_calls(|| load(server, client, work, 1))?;
    #[expect(clippy::cast_precision_loss, reason = "fewer than 2^53 calls")]
    Ok(calls.map(|calls| calls as f64 / seen.requests))
}

fn load(server: &Server, client: Client, work: Work, seconds: u32) -> Result<Seen> {
    match client {
        Client::Fio => fio::run(&server.uri(), work, seconds),
        Client::Lean => lean::run(server.socket(), work, seconds),
    }
}
