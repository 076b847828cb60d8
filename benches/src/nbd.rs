//! The NBD server on a disk in memory, beside `nbdkit memory`: the cost of the protocol, with no disk behind it.
//!
//! Each round runs each work against both servers, one behind the other, and the order turns from round to round: what
//! the machine does meanwhile hits both alike. The ratio of a round is that of its two runs; the report has the medians.

use anyhow::Result;

use crate::data;
use crate::goal::Goal;
use crate::measure::{self, Client};
use crate::report::{Aim, Beside, Figures, Metric, Report, Row};
use crate::server::Server;
use crate::work::{Pattern, Work};

/// What is measured, with the ratio to nbdkit that `docs/performance.md` sets as its goal.
const WORKS: [(Client, Work, f64); 8] = [
    (Client::Fio, Work::new(Pattern::RandomRead, 4, 32), 2.0),
    (Client::Fio, Work::new(Pattern::RandomWrite, 4, 32), 1.0),
    (Client::Fio, Work::new(Pattern::RandomRead, 4, 1), 0.95),
    (Client::Fio, Work::new(Pattern::RandomWrite, 4, 1), 0.95),
    (Client::Fio, Work::new(Pattern::Read, 128, 16), 1.0),
    (Client::Fio, Work::new(Pattern::Write, 128, 16), 1.0),
    (Client::Lean, Work::new(Pattern::RandomRead, 4, 32), 2.0),
    (Client::Lean, Work::new(Pattern::RandomWrite, 4, 32), 1.0),
];

/// Measures everything `rounds` times, each for `seconds`.
pub(crate) fn measure(rounds: u32, seconds: u32) -> Result<Report> {
    let directory = tempfile::tempdir()?;
    let servers = [Server::sterna_memory(directory.path(), "1G")?, Server::nbdkit_memory(directory.path(), "1G")?];
    let contents = directory.path().join("contents");
    data::write(&contents, 1024)?;
    for server in &servers {
        server.disk().fill(&contents)?;
    }
    std::fs::remove_file(&contents)?;
    let row = |&(client, work, ratio): &(Client, Work, f64)| {
        let aim = Aim { metric: Metric::PerSecond, beside: Beside::Peer(0), goal: Goal::AtLeast(ratio) };
        Row::new(client.name(work), servers.len(), vec![aim])
    };
    let mut rows: Vec<Row> = WORKS.iter().map(row).collect();
    for round in 0..rounds {
        for (&(client, work, _), row) in WORKS.iter().zip(&mut rows) {
            eprintln!("round {} of {rounds}: {}", round + 1, row.name);
            for turn in 0..servers.len() {
                let index = (round as usize + turn) % servers.len();
                let server = &servers[index];
                row.push(index, measure::figures(server, || client.run(server, work, seconds))?.1);
            }
        }
    }
    for (&(client, work, _), row) in WORKS.iter().zip(&mut rows) {
        for (index, server) in servers.iter().enumerate() {
            let calls = measure::calls_per_request(server, client, work)?;
            row.push(index, Figures::from_iter(calls.map(|calls| (Metric::CallsPerRequest, calls))));
        }
    }
    let names = servers.iter().map(|server| server.name).collect();
    Ok(Report::new("the NBD server on a disk in memory", names, rounds, seconds, rows))
}
