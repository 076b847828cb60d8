//! What goes from site to site: how much may, and how much the node has sent and received.

use anyhow::Result;
use serde::Serialize;
use sterna_proto::cluster::{Link, ListLinksRequest, SetLinkLimitRequest};

use super::Session;
use super::client::CallError;
use super::views::if_any;
use crate::args::cluster::LinkSettings;
use crate::args::values::Limit;
use crate::console::table::Table;
use crate::console::text::about;

/// A link, in one direction.
#[derive(Serialize)]
struct LinkView {
    from: String,
    to: String,
    /// In bits in a second.
    limit: Option<String>,
    /// Of the node that was asked, where it is at the site that sends.
    lanes: Vec<LaneView>,
}

#[derive(Serialize)]
struct LaneView {
    lane: String,
    sent_bytes: u64,
    received_bytes: u64,
}

impl Session {
    /// Shows the links, having set the limit of one where that is asked for.
    pub(super) async fn links(&mut self, settings: LinkSettings) -> Result<()> {
        let reply = match (settings.from, settings.to, settings.limit) {
            (Some(from), Some(to), Some(limit)) => {
                let limit = match limit {
                    Limit::AtMost(rate) => rate.to_string(),
                    Limit::None => String::new(),
                };
                let request = SetLinkLimitRequest { from: from.to_string(), to: to.to_string(), limit };
                self.node.cluster.set_link_limit(request).await
            }
            _ => self.node.cluster.list_links(ListLinksRequest {}).await,
        };
        let links = reply.map_err(CallError::from)?.into_inner().links;
        let mut table = Table::new(["FROM", "TO", "LIMIT", "LANE", ">SENT", ">RECEIVED"]);
        for link in links.into_iter().map(view) {
            if self.output.is_json() {
                self.output.value(&link)?;
                continue;
            }
            let limit = link.limit.map_or("-".to_owned(), |limit| format!("{limit}/s"));
            let used = link.lanes.iter().filter(|lane| lane.sent_bytes + lane.received_bytes > 0);
            let mut rows: Vec<_> =
                used.map(|lane| [lane.lane.clone(), about(lane.sent_bytes), about(lane.received_bytes)]).collect();
            if rows.is_empty() {
                rows.push(Default::default());
            }
            for [lane, sent, received] in rows {
                table.row([link.from.clone(), link.to.clone(), limit.clone(), lane, sent, received]);
            }
        }
        if self.output.is_json() { Ok(()) } else { self.output.line(table) }
    }
}

fn view(link: Link) -> LinkView {
    let Link { from, to, limit, traffic } = link;
    let lane = |lane: sterna_proto::cluster::LaneTraffic| LaneView {
        lane: lane.lane,
        sent_bytes: lane.sent_bytes,
        received_bytes: lane.received_bytes,
    };
    LinkView { from, to, limit: if_any(limit), lanes: traffic.into_iter().map(lane).collect() }
}
