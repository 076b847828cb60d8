//! What has happened on a wan since its start, direction by direction.

use std::fmt;
use std::net::Ipv4Addr;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::quantity::{Delay, Loss, Rate};

/// All sites, and all directions between them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// In the topology's order.
    pub sites: Vec<SiteReport>,
    /// From each site to each other one.
    pub directions: Vec<DirectionReport>,
}

/// One site.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SiteReport {
    /// Its name.
    pub name: String,
    /// Its network namespace.
    pub namespace: String,
    /// The address of its device.
    pub address: Ipv4Addr,
    /// Packets that it has sent to no site.
    pub strays: u64,
    /// Packets that its kernel has dropped, because this program did not read fast enough. Where there are any, the machine is
    /// too slow for what was asked of it.
    pub overruns: u64,
}

/// One direction. A packet is what a device hands over: with segmentation offload, up to 64 KiB.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DirectionReport {
    /// The site that sends.
    pub from: String,
    /// The site that receives.
    pub to: String,
    /// As it is set.
    pub delay: Delay,
    /// As it is set.
    pub rate: Rate,
    /// As it is set.
    pub loss: Loss,
    /// How much may wait, in bytes; `None` where there is no rate.
    pub queue_bytes: Option<u64>,
    /// Whether it is cut.
    pub is_cut: bool,
    /// Packets that have arrived.
    pub carried_packets: u64,
    /// Their bytes: of IP packets as they would be on a wire.
    pub carried_bytes: u64,
    /// What has not.
    pub dropped: Dropped,
    /// Packets that are waiting or under way.
    pub in_flight_packets: u64,
    /// Their bytes.
    pub in_flight_bytes: u64,
}

/// Packets that never arrive, by the reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// At random, as was asked for.
    pub loss: u64,
    /// The queue was full.
    pub queue: u64,
    /// The direction was cut.
    pub cut: u64,
    /// This program held as much as it may.
    pub limit: u64,
    /// The receiving site did not take it, because its device was down, for instance.
    pub refused: u64,
}

impl Report {
    /// The direction from one site to another.
    ///
    /// # Errors
    /// There is none.
    pub fn direction(&self, from: &str, to: &str) -> Result<&DirectionReport> {
        let found = self.directions.iter().find(|direction| direction.from == from && direction.to == to);
        found.with_context(|| format!("there is no direction from '{from}' to '{to}'"))
    }
}

/// Two tables.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rows = vec![["site", "namespace", "address", "strays", "overruns"].map(str::to_owned)];
        rows.extend(self.sites.iter().map(|site| {
            let SiteReport { name, namespace, address, strays, overruns } = site;
            [name.clone(), namespace.clone(), address.to_string(), strays.to_string(), overruns.to_string()]
        }));
        write_table(f, &rows)?;
        writeln!(f)?;
        let mut rows = vec![DirectionReport::HEADS.map(str::to_owned)];
        rows.extend(self.directions.iter().map(DirectionReport::cells));
        write_table(f, &rows)
    }
}

impl DirectionReport {
    const HEADS: [&str; 15] = [
        "from",
        "to",
        "state",
        "delay",
        "rate",
        "loss",
        "queue B",
        "packets",
        "bytes",
        "lost",
        "queue",
        "cut",
        "limit",
        "refused",
        "in flight B",
    ];

    fn cells(&self) -> [String; 15] {
        let Dropped { loss, queue, cut, limit, refused } = self.dropped;
        [
            self.from.clone(),
            self.to.clone(),
            if self.is_cut { "cut" } else { "up" }.to_owned(),
            self.delay.to_string(),
            self.rate.to_string(),
            self.loss.to_string(),
            self.queue_bytes.map_or("-".to_owned(), |bytes| bytes.to_string()),
            self.carried_packets.to_string(),
            self.carried_bytes.to_string(),
            loss.to_string(),
            queue.to_string(),
            cut.to_string(),
            limit.to_string(),
            refused.to_string(),
            self.in_flight_bytes.to_string(),
        ]
    }
}

fn write_table<const N: usize>(f: &mut fmt::Formatter<'_>, rows: &[[String; N]]) -> fmt::Result {
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    for row in rows {
        let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        writeln!(f, "{}", cells.join("  ").trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_shown_as_tables_and_survives_json() {
        let direction = DirectionReport {
            from: "ams".to_owned(),
            to: "nyc".to_owned(),
            delay: "40ms".parse().unwrap(),
            rate: "1G".parse().unwrap(),
            loss: "0.1%".parse().unwrap(),
            queue_bytes: Some(2 << 20),
            is_cut: true,
            carried_packets: 7,
            carried_bytes: 700,
            dropped: Dropped { loss: 1, cut: 2, ..Dropped::default() },
            in_flight_packets: 0,
            in_flight_bytes: 0,
        };
        let report = Report { sites: Vec::new(), directions: vec![direction] };
        let shown = report.to_string();
        let row = "ams   nyc  cut    40ms   1G    0.1%  2097152  7        700    1     0      2    0      0        0";
        assert!(shown.lines().any(|line| line == row), "{shown}");
        let again: Report = serde_json::from_str(&serde_json::to_string(&report).unwrap()).unwrap();
        assert_eq!(again.to_string(), shown);
        assert!(again.direction("nyc", "ams").is_err());
    }
}
