//! Figures of two servers side by side: medians, and the median of the rounds' ratios.

use std::fmt;

use serde::Serialize;

use crate::median::median;

/// What one run of one work against one server showed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figures {
    pub(crate) per_second: f64,
    pub(crate) p50_us: Option<f64>,
    pub(crate) p99_us: Option<f64>,
    pub(crate) cpu_us_per_request: f64,
}

/// All runs of one work against one server.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Runs {
    per_second: Vec<f64>,
    p50_us: Vec<f64>,
    p99_us: Vec<f64>,
    cpu_us_per_request: Vec<f64>,
    /// System calls of the server for each request; `None` where they could not be counted.
    pub(crate) calls_per_request: Option<f64>,
}

/// One work.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    block_bytes: u32,
    /// The ratio of requests per second, ours to the peer's, that is to be reached.
    goal_ratio: f64,
    pub(crate) ours: Runs,
    pub(crate) peer: Runs,
    /// Ours to the peer's, of each round.
    ratios: Vec<f64>,
    median_ratio: f64,
    median_cpu_ratio: f64,
}

/// What a whole measurement showed.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    what: String,
    names: [&'static str; 2],
    rounds: u32,
    seconds: u32,
    rows: Vec<Row>,
}

impl Runs {
    fn push(&mut self, figures: Figures) {
        self.per_second.push(figures.per_second);
        self.p50_us.extend(figures.p50_us);
        self.p99_us.extend(figures.p99_us);
        self.cpu_us_per_request.push(figures.cpu_us_per_request);
    }
}

impl Row {
    pub(crate) fn new(name: &str, block_bytes: u32, goal_ratio: f64) -> Self {
        let (ours, peer) = (Runs::default(), Runs::default());
        let (name, none) = (name.to_owned(), f64::NAN);
        Self {
            name,
            block_bytes,
            goal_ratio,
            ours,
            peer,
            ratios: Vec::new(),
            median_ratio: none,
            median_cpu_ratio: none,
        }
    }

    /// Adds the two runs of a round.
    pub(crate) fn push(&mut self, ours: Figures, peer: Figures) {
        self.ours.push(ours);
        self.peer.push(peer);
        self.ratios.push(ours.per_second / peer.per_second);
        self.median_ratio = median(&self.ratios);
        let cpu = self.ours.cpu_us_per_request.iter().zip(&self.peer.cpu_us_per_request);
        self.median_cpu_ratio = median(&cpu.map(|(ours, peer)| ours / peer).collect::<Vec<_>>());
    }
}

impl Report {
    pub(crate) fn new(what: &str, names: [&'static str; 2], rounds: u32, seconds: u32, rows: Vec<Row>) -> Self {
        Self { what: what.to_owned(), names, rounds, seconds, rows }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [ours, peer] = self.names;
        writeln!(f, "{}: medians of {} rounds of {} s each\n", self.what, self.rounds, self.seconds)?;
        writeln!(
            f,
            "| work | {ours} | {peer} | ratio (of the rounds) | goal | p50 µs | p99 µs | CPU µs per request | calls per request |"
        )?;
        writeln!(f, "|---|---|---|---|---|---|---|---|---|")?;
        for row in &self.rows {
            let least = row.ratios.iter().copied().fold(f64::INFINITY, f64::min);
            let most = row.ratios.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let (a, b) = (&row.ours, &row.peer);
            writeln!(
                f,
                "| {} | {:.0}/s | {:.0}/s | {:.2} ({least:.2}-{most:.2}) | {:.2} | {} | {} | {:.1} / {:.1} ({:.2}) | {} |",
                row.name,
                median(&a.per_second),
                median(&b.per_second),
                row.median_ratio,
                row.goal_ratio,
                both(some_median(&a.p50_us), some_median(&b.p50_us)),
                both(some_median(&a.p99_us), some_median(&b.p99_us)),
                median(&a.cpu_us_per_request),
                median(&b.cpu_us_per_request),
                row.median_cpu_ratio,
                both(a.calls_per_request, b.calls_per_request),
            )?;
        }
        Ok(())
    }
}

fn both(ours: Option<f64>, peer: Option<f64>) -> String {
    let text = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.1}"));
    format!("{} / {}", text(ours), text(peer))
}

fn some_median(values: &[f64]) -> Option<f64> {
    if values.is_empty() { None } else { Some(median(values)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_that_of_its_round() {
        let figures = |per_second| Figures { per_second, p50_us: None, p99_us: None, cpu_us_per_request: 1.0 };
        let mut row = Row::new("work", 4096, 1.0);
        for (ours, peer) in [(10.0, 5.0), (100.0, 100.0), (9.0, 3.0)] {
            row.push(figures(ours), figures(peer));
        }
        assert_eq!(row.median_ratio.total_cmp(&2.0), std::cmp::Ordering::Equal);
    }
}
