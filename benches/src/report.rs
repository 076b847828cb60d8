//! Figures of several servers side by side: ours first, then its peers. Medians, and the median of the rounds' ratios.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::goal::{Goal, range, short};
use crate::median::median;

/// What is measured of a work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Metric {
    /// Requests in a second.
    PerSecond,
    /// Median latency.
    P50Us,
    /// The latency that 99 in 100 stay below.
    P99Us,
    /// Processor time of the server for each request; where requests write, until all of it is sealed.
    CpuUsPerRequest,
    /// System calls of the server for each request.
    CallsPerRequest,
    /// The most memory that the server had.
    PeakMib,
    /// What the server has written to the disk for each byte that its clients wrote, once all of it is sealed, as the kernel
    /// charges it to the process.
    WrittenPerByte,
    /// The same, as the device counts it: whoever wrote it.
    DevicePerByte,
    /// Requests per second in the last quarter of a run, to those in the first.
    LastQuarter,
}

/// What one run of one work against one server showed.
pub(crate) type Figures = BTreeMap<Metric, f64>;

/// What a figure of ours is compared with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Beside {
    /// The same figure of this peer, which is counted from 0.
    Peer(usize),
    /// Our own same figure in the row of this name.
    Ourselves(String),
    /// Nothing: the figure counts by itself.
    Nothing,
}

/// Something that a row is to reach.
#[derive(Clone, Debug)]
pub(crate) struct Aim {
    pub(crate) metric: Metric,
    pub(crate) beside: Beside,
    /// For the ratio of ours to the other, or for the figure itself.
    pub(crate) goal: Goal,
}

/// One work, with the figures of all rounds for each server.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    #[serde(skip)]
    aims: Vec<Aim>,
    servers: Vec<BTreeMap<Metric, Vec<f64>>>,
}

/// How one aim was met.
#[derive(Clone, Debug, Serialize)]
struct Verdict {
    work: String,
    metric: Metric,
    ours: Option<f64>,
    /// What it was compared with, and the figure of that.
    beside: Option<(String, Option<f64>)>,
    /// What is judged, round by round: ratios, or the figures themselves.
    rounds: Vec<f64>,
    median: Option<f64>,
    goal: Goal,
    /// `None` where it was not measured.
    is_reached: Option<bool>,
}

/// What a whole measurement showed.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    what: String,
    names: Vec<&'static str>,
    rounds: u32,
    seconds: u32,
    rows: Vec<Row>,
    verdicts: Vec<Verdict>,
    /// What else the reader has to know.
    notes: Vec<String>,
}

impl Metric {
    const ALL: [Self; 9] = [
        Self::PerSecond,
        Self::P50Us,
        Self::P99Us,
        Self::CpuUsPerRequest,
        Self::CallsPerRequest,
        Self::PeakMib,
        Self::WrittenPerByte,
        Self::DevicePerByte,
        Self::LastQuarter,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::PerSecond => "requests/s",
            Self::P50Us => "p50 µs",
            Self::P99Us => "p99 µs",
            Self::CpuUsPerRequest => "CPU µs per request",
            Self::CallsPerRequest => "calls per request",
            Self::PeakMib => "peak MiB",
            Self::WrittenPerByte => "written per byte",
            Self::DevicePerByte => "device per byte",
            Self::LastQuarter => "last / first quarter",
        }
    }

    fn show(self, value: Option<f64>) -> String {
        value.map_or("-".to_owned(), |value| if self == Self::PerSecond { format!("{value:.0}") } else { short(value) })
    }
}

impl Row {
    /// A row of so many servers, of which nothing was measured yet.
    pub(crate) fn new(name: String, servers: usize, aims: Vec<Aim>) -> Self {
        Self { name, aims, servers: vec![BTreeMap::new(); servers] }
    }

    /// Adds what a round has shown of the server at `index`.
    pub(crate) fn push(&mut self, index: usize, figures: Figures) {
        for (metric, value) in figures {
            self.servers[index].entry(metric).or_default().push(value);
        }
    }

    fn values(&self, index: usize, metric: Metric) -> &[f64] {
        self.servers[index].get(&metric).map_or(&[], Vec::as_slice)
    }

    fn median(&self, index: usize, metric: Metric) -> Option<f64> {
        some_median(self.values(index, metric))
    }
}

impl Report {
    /// What the rows amount to. `names` are those of the servers, in the rows' order.
    pub(crate) fn new(what: &str, names: Vec<&'static str>, rounds: u32, seconds: u32, rows: Vec<Row>) -> Self {
        let verdicts = rows.iter().flat_map(|row| row.aims.iter().map(|aim| judge(row, aim, &names, &rows))).collect();
        Self { what: what.to_owned(), names, rounds, seconds, rows, verdicts, notes: Vec::new() }
    }

    /// The same with something else that the reader has to know.
    pub(crate) fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }
}

fn judge(row: &Row, aim: &Aim, names: &[&'static str], rows: &[Row]) -> Verdict {
    let metric = aim.metric;
    let ours = row.values(OURS, metric);
    let (beside, rounds) = match &aim.beside {
        Beside::Nothing => (None, ours.to_vec()),
        Beside::Peer(peer) => {
            let theirs = row.values(peer + 1, metric);
            (Some((names[peer + 1].to_owned(), some_median(theirs))), ratios(ours, theirs))
        }
        Beside::Ourselves(name) => {
            let other = rows.iter().find(|row| row.name == *name).map_or(&[][..], |row| row.values(OURS, metric));
            (Some((name.clone(), some_median(other))), ratios(ours, other))
        }
    };
    let median = some_median(&rounds);
    let is_reached = median.map(|median| aim.goal.is_reached(median));
    let ours = some_median(ours);
    Verdict { work: row.name.clone(), metric, ours, beside, rounds, median, goal: aim.goal, is_reached }
}

/// Those of each round. A ratio is that of one round, since what the machine does meanwhile hits both alike.
fn ratios(ours: &[f64], theirs: &[f64]) -> Vec<f64> {
    ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect()
}

fn some_median(values: &[f64]) -> Option<f64> {
    if values.is_empty() { None } else { Some(median(values)) }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, rounds, seconds, .. } = self;
        writeln!(f, "{what}: medians of {rounds} rounds of {seconds} s each")?;
        for note in &self.notes {
            writeln!(f, "\n{note}")?;
        }
        self.write_verdicts(f)?;
        self.write_figures(f)
    }
}

impl Report {
    fn write_verdicts(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let missed = self.verdicts.iter().filter(|verdict| verdict.is_reached == Some(false)).count();
        writeln!(f, "\n{missed} of {} goals missed:\n", self.verdicts.len())?;
        writeln!(f, "| work | figure | {} | beside | ratio (of the rounds) | goal |", self.names[OURS])?;
        writeln!(f, "|---|---|---|---|---|---|")?;
        for Verdict { work, metric, ours, beside, rounds, median, goal, is_reached } in &self.verdicts {
            let (beside, ratio) = match beside {
                None => ("-".to_owned(), "-".to_owned()),
                Some((name, theirs)) => {
                    let ratio = median.map_or("-".to_owned(), |median| short(median) + &range(rounds));
                    (format!("{name}: {}", metric.show(*theirs)), ratio)
                }
            };
            let (name, ours, goal) = (metric.name(), metric.show(*ours), goal.judged(*is_reached));
            writeln!(f, "| {work} | {name} | {ours} | {beside} | {ratio} | {goal} |")?;
        }
        Ok(())
    }

    /// All figures; behind those of a rate, the ratio of ours to each peer's.
    fn write_figures(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let servers = 0..self.names.len();
        let is_there =
            |metric: &Metric| self.rows.iter().any(|row| row.servers.iter().any(|runs| runs.contains_key(metric)));
        let metrics: Vec<Metric> = Metric::ALL.into_iter().filter(is_there).collect();
        let heads: Vec<&str> = metrics.iter().map(|metric| metric.name()).collect();
        writeln!(f, "\nAll figures: {}\n\n| work | {} |", self.names.join(" / "), heads.join(" | "))?;
        writeln!(f, "|---|{}", "---|".repeat(metrics.len()))?;
        for row in &self.rows {
            let cell = |&metric: &Metric| {
                let medians: Vec<_> = servers.clone().map(|index| metric.show(row.median(index, metric))).collect();
                let ratio = |peer| {
                    let ratio = some_median(&ratios(row.values(OURS, metric), row.values(peer, metric)));
                    ratio.map_or("-".to_owned(), short)
                };
                let ratios: Vec<_> = servers.clone().skip(1).map(ratio).collect();
                let ratios =
                    if metric == Metric::PerSecond { format!(" ({})", ratios.join(", ")) } else { String::new() };
                medians.join(" / ") + &ratios
            };
            let cells: Vec<_> = metrics.iter().map(cell).collect();
            writeln!(f, "| {} | {} |", row.name, cells.join(" | "))?;
        }
        Ok(())
    }
}

/// Our own place among the servers.
const OURS: usize = 0;

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, aims: Vec<Aim>, rounds: &[[f64; 3]]) -> Row {
        let mut row = Row::new(name.to_owned(), 3, aims);
        for round in rounds {
            for (index, &value) in round.iter().enumerate() {
                row.push(index, Figures::from([(Metric::PerSecond, value)]));
            }
        }
        row
    }

    fn aim(beside: Beside, goal: Goal) -> Aim {
        Aim { metric: Metric::PerSecond, beside, goal }
    }

    fn judged(rows: Vec<Row>) -> Vec<(Option<f64>, Option<bool>)> {
        let report = Report::new("speed", vec!["ours", "one", "two"], 3, 1, rows);
        report.verdicts.iter().map(|verdict| (verdict.median, verdict.is_reached)).collect()
    }

    #[test]
    fn a_ratio_is_that_of_its_round() {
        let aims = vec![aim(Beside::Peer(0), Goal::AtLeast(2.0)), aim(Beside::Peer(1), Goal::AtLeast(0.6))];
        let row = row("work", aims, &[[10.0, 5.0, 20.0], [100.0, 100.0, 200.0], [9.0, 3.0, 18.0]]);
        assert_eq!(judged(vec![row]), [(Some(2.0), Some(true)), (Some(0.5), Some(false))]);
    }

    #[test]
    fn a_figure_is_judged_by_itself_and_beside_another_row() {
        let alone = row("alone", vec![aim(Beside::Nothing, Goal::AtMost(2.5))], &[[2.0, 1.0, 1.0]]);
        let behind =
            row("behind", vec![aim(Beside::Ourselves("alone".to_owned()), Goal::AtMost(3.0))], &[[8.0, 1.0, 1.0]]);
        assert_eq!(judged(vec![alone, behind.clone()]), [(Some(2.0), Some(true)), (Some(4.0), Some(false))]);
        assert_eq!(judged(vec![behind]), [(None, None)], "without the other row there is nothing to judge");
    }

    #[test]
    fn each_peer_stands_in_the_tables_and_what_was_missed_is_marked() {
        let aims = vec![aim(Beside::Peer(0), Goal::AtLeast(1.5)), aim(Beside::Peer(1), Goal::AtLeast(3.0))];
        let rows = vec![row("work", aims, &[[30.0, 20.0, 15.0]]), row("more", Vec::new(), &[[1.0, 1.0, 4.0]])];
        let printed = Report::new("speed", vec!["ours", "one", "two"], 1, 1, rows).note("a note").to_string();
        for line in [
            "a note",
            "1 of 2 goals missed:",
            "| work | requests/s | 30 | one: 20 | 1.50 | >= 1.50 |",
            "| work | requests/s | 30 | two: 15 | 2.00 | >= 3.00, **missed** |",
            "| work | requests/s |",
            "| work | 30 / 20 / 15 (1.50, 2.00) |",
            "| more | 1 / 1 / 4 (1.00, 0.25) |",
        ] {
            assert!(printed.lines().any(|printed| printed == line), "'{line}' is not in {printed}");
        }
    }
}
