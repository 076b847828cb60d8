//! What would be left if a site were switched off now.

use anyhow::{Context, Result};
use serde::Serialize;
use sterna_proto::cluster::affected_volume::Effect;
use sterna_proto::cluster::{AffectedVolume, Outage, ShowOutageRequest};
use sterna_types::SiteName;

use super::Session;
use super::client::CallError;
use super::views::if_any;
use crate::console::table::Table;
use crate::console::text::{about, count, duration};

#[derive(Serialize)]
struct OutageView {
    site: String,
    voters: u64,
    voters_left: u64,
    is_decided: bool,
    volumes: Vec<AffectedView>,
}

/// A volume to which it would make a difference.
#[derive(Serialize)]
struct AffectedView {
    volume: String,
    effect: &'static str,
    /// Where it can go on, where its owner is at that site.
    to_site: Option<String>,
    to_node: Option<String>,
    /// Of what was published.
    lost_bytes: u64,
    lost_ms: Option<u64>,
    /// Whether it goes on with every flush that was acknowledged.
    is_in_sync: bool,
    lost_snapshots: Vec<String>,
}

impl Session {
    pub(super) async fn outage(&mut self, site: SiteName) -> Result<()> {
        let request = ShowOutageRequest { site: site.to_string() };
        let reply = self.node.cluster.show_outage(request).await.map_err(CallError::from)?.into_inner();
        let view = OutageView::try_from(reply)?;
        if self.output.is_json() {
            return self.output.value(&view);
        }
        let OutageView { site, voters, voters_left, is_decided, volumes } = view;
        let left = format!("{voters_left} of the {} that vote would be left", count(voters, "node"));
        self.output.line(match is_decided {
            true => format!("without {site} {left}: they go on deciding"),
            false => format!("without {site} {left}: nothing would be decided, and no volume would go on for long"),
        })?;
        if volumes.is_empty() {
            return self.output.line("no volume would stop, wait or lose anything");
        }
        let mut table = Table::new(["VOLUME", "WITHOUT IT", "LOST", "SNAPSHOTS LOST"]);
        for volume in volumes {
            let (then, lost) = (volume.then(), volume.lost());
            table.row([volume.volume, then, lost, volume.lost_snapshots.join(", ")]);
        }
        self.output.line("")?;
        self.output.line(table)
    }
}

impl AffectedView {
    fn then(&self) -> String {
        match (self.effect, &self.to_site, &self.to_node) {
            (GOES_ON, Some(site), Some(node)) => format!("stops until a failover to {site} ({node})"),
            (GOES_ON | LOST, ..) => "stops: nobody else has all of it".to_owned(),
            (INCOMPLETE, ..) => "reads fail of what was not fetched from there yet".to_owned(),
            (FLUSHES_WAIT, ..) => "flushes wait: too few copies".to_owned(),
            _ => "is served as before".to_owned(),
        }
    }

    fn lost(&self) -> String {
        match (self.effect, self.lost_bytes, self.lost_ms) {
            (LOST, ..) => "all".to_owned(),
            (GOES_ON, ..) if self.is_in_sync => "nothing that was flushed".to_owned(),
            (GOES_ON, 0, _) => "what is not published".to_owned(),
            (GOES_ON, bytes, Some(ms)) => {
                format!("{} of {}, and what is not published", about(bytes), duration(ms.div_ceil(1000)))
            }
            (GOES_ON, bytes, None) => format!("{}, and what is not published", about(bytes)),
            _ => String::new(),
        }
    }
}

impl TryFrom<Outage> for OutageView {
    type Error = anyhow::Error;

    fn try_from(outage: Outage) -> Result<Self> {
        let Outage { site, voters, voters_left, is_decided, volumes } = outage;
        let volumes = volumes.into_iter().map(AffectedView::try_from).collect::<Result<_>>()?;
        Ok(Self { site, voters, voters_left, is_decided, volumes })
    }
}

impl TryFrom<AffectedVolume> for AffectedView {
    type Error = anyhow::Error;

    fn try_from(affected: AffectedVolume) -> Result<Self> {
        let effect = match affected.effect() {
            Effect::GoesOn => GOES_ON,
            Effect::Lost => LOST,
            Effect::Incomplete => INCOMPLETE,
            Effect::FlushesWait => FLUSHES_WAIT,
            Effect::Served => SERVED,
            Effect::Unknown => None.context("the node says something that this program does not know: it is newer")?,
        };
        Ok(Self {
            volume: affected.volume,
            effect,
            to_site: if_any(affected.to_site),
            to_node: if_any(affected.to_node),
            lost_bytes: affected.lost_bytes,
            lost_ms: affected.lost_ms,
            is_in_sync: affected.is_in_sync,
            lost_snapshots: affected.lost_snapshots,
        })
    }
}

const GOES_ON: &str = "goes_on";
const LOST: &str = "lost";
const INCOMPLETE: &str = "incomplete";
const FLUSHES_WAIT: &str = "flushes_wait";
const SERVED: &str = "served";
