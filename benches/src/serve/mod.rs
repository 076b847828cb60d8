//! A volume of a node beside `nbdkit file` and `qemu-nbd` on raw files: what a disk costs that is sealed, checked and
//! de-duplicated, beside one that is only a file.
//!
//! Each round has new disks on one file system, with the same data, which nothing can make smaller; ours is sealed before
//! anything is measured. Each row runs against all servers, one behind the other, and their order turns from round to
//! round: what the machine does meanwhile hits all alike. A run finds its server with nothing left to do, and what it
//! writes costs until all of it is sealed and on the disk.
//!
//! * [`cases`]: the rows and their goals. * [`disks`]: the servers with their disks. * [`behind`]: what else a node does.

mod behind;
mod cases;
mod disks;

use anyhow::{Result, ensure};
use sterna_storage_node::volume::StorageOptions;

use self::cases::{CASES, Case};
use self::disks::Disks;
use crate::measure::{self, Client};
use crate::report::{Figures, Metric, Report, Row};
use crate::server::Server;
use crate::work::{Pattern, Work};
use crate::{fio, lean};

/// What to measure, and for how long.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Serve {
    /// How often each row is measured, each time on new disks; the medians are reported.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// How long each row runs against each server, in seconds; the steady state four times as long.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// MiB of each disk.
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(64..=65_536))]
    size_mib: u32,
    /// Measures only rows whose name contains this.
    #[arg(long, value_name = "PATTERN")]
    only: Option<String>,
}

/// Measures all rows that are wanted.
///
/// # Errors
/// No row is, a program is missing or fails, or the disks would be in memory.
pub(crate) fn measure(serve: &Serve) -> Result<Report> {
    let (mut cases, mut notes) = (wanted(serve.only.as_deref())?, Vec::new());
    if !disks::can_be_cold() {
        cases.retain(|case| !matches!(case, Case::Cold(_)));
        notes.push("Rows with a cold cache are left out: to empty the page cache takes root.".to_owned());
    }
    notes.extend(disks::others_write()?.map(|bytes| {
        let kib = bytes / 1024.0;
        format!(
            "Before all this, others wrote {kib:.0} KiB/s to the device; what they write counts in \"device per byte\"."
        )
    }));
    notes.iter().for_each(|note| eprintln!("{note}"));
    let names = vec!["sterna", "nbdkit file", "qemu-nbd"];
    let mut rows: Vec<Row> = cases.iter().map(|case| Row::new(case.name(), names.len(), case.aims())).collect();
    for round in 0..serve.rounds {
        eprintln!("round {} of {}: new disks", round + 1, serve.rounds);
        let mut disks = Disks::new(serve.size_mib)?;
        for (&case, row) in cases.iter().zip(&mut rows) {
            eprintln!("round {} of {}: {}", round + 1, serve.rounds, row.name);
            for turn in 0..disks.servers.len() {
                let index = (round as usize + turn) % disks.servers.len();
                let is_last = round + 1 == serve.rounds;
                row.push(index, run(case, &mut disks.servers[index], serve.seconds, is_last)?);
            }
            if matches!(case, Case::Cold(_)) {
                // All of them are cold now.
                disks.warm()?;
            }
        }
    }
    let what = format!("a disk of {} MiB, served", serve.size_mib);
    let report = Report::new(&what, names, serve.rounds, serve.seconds, rows);
    Ok(notes.into_iter().fold(report, Report::note))
}

fn wanted(pattern: Option<&str>) -> Result<Vec<Case>> {
    let is_wanted = |case: &Case| pattern.is_none_or(|pattern| case.name().contains(pattern));
    let cases: Vec<Case> = CASES.into_iter().filter(is_wanted).collect();
    let names = || CASES.map(Case::name).join("\n");
    ensure!(!cases.is_empty(), "no row contains '{}'; there are:\n{}", pattern.unwrap_or_default(), names());
    Ok(cases)
}

/// Runs the case against one server; system calls are counted where that is wanted, in a run of its own.
fn run(case: Case, server: &mut Server, seconds: u32, counts_calls: bool) -> Result<Figures> {
    let timed = |server: &Server, client: Client, work: Work| {
        let (_, mut figures) = measure::figures(server, || client.run(server, work, seconds))?;
        if counts_calls {
            let calls = measure::calls_per_request(server, client, work)?;
            figures.extend(calls.map(|calls| (Metric::CallsPerRequest, calls)));
        }
        anyhow::Ok(figures)
    };
    let once =
        |server: &Server, work| anyhow::Ok(measure::figures(server, || fio::run(server.disk(), work, seconds))?.1);
    match case {
        Case::Warm(client, work) => {
            if work.pattern == Pattern::RandomMixed {
                // Rows before it have written.
                disks::warm(server)?;
            }
            timed(server, client, work)
        }
        Case::Cold(work) => {
            server.settle()?;
            server.restart(disks::empty_page_cache)?;
            once(server, work)
        }
        Case::FirstScattered(work) => {
            scatter(server)?;
            once(server, work)
        }
        Case::Scattered(work) => {
            scatter(server)?;
            disks::warm(server)?;
            timed(server, Client::Fio, work)
        }
        Case::Busy(work) => {
            let Some(node) = server.node() else { return Ok(Figures::new()) };
            let load = || behind::during(node, seconds, || fio::run(server.disk(), work, seconds));
            Ok(measure::figures(server, load)?.1)
        }
        Case::Steady(work) => {
            let wrapped = WRAPS * StorageOptions::default().journal_limit_bytes + u64::from(work.block_bytes);
            // Others have no journal.
            let bytes = server.node().map_or(0, |_| wrapped);
            let (seen, mut figures) =
                measure::figures(server, || lean::run(server.disk(), work, seconds * STEADY_TIMES, bytes))?;
            figures.extend(seen.last_quarter.map(|ratio| (Metric::LastQuarter, ratio)));
            Ok(figures)
        }
    }
}

/// Writes a quarter of the blocks, and has them sealed.
fn scatter(server: &Server) -> Result<()> {
    let (_, size_bytes) = server.disk().attach(sterna_tests::client::Style::Simple)?;
    lean::run(server.disk(), SCATTERING, 0, size_bytes / 4)?;
    server.settle()
}

/// What scatters a disk's data.
const SCATTERING: Work = Work::new(Pattern::RandomWrite, 4, 32);

/// More than so many times the journal's limit is written to ours, and for so many times as long as in other rows to all.
const WRAPS: u64 = 4;
const STEADY_TIMES: u32 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_chosen_by_a_part_of_their_names() {
        let cold = wanted(Some("cache cold")).expect("rows");
        assert!(cold.len() == 3 && cold.iter().all(|case| matches!(case, Case::Cold(_))), "{cold:?}");
        assert_eq!(wanted(None).expect("rows").len(), CASES.len());
        let refused = wanted(Some("16 KiB")).expect_err("there is no such row").to_string();
        assert!(refused.contains("'16 KiB'") && refused.contains("4 KiB random read, queue 32\n"), "{refused}");
    }
}
