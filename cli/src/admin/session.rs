//! How long nodes' sessions last.

use anyhow::{Context, Result};
use serde::Serialize;
use sterna_proto::cluster::{SetSessionLengthRequest, ShowSessionsRequest};

use super::Session;
use super::client::CallError;
use crate::args::cluster::SessionSettings;
use crate::console::table::Facts;
use crate::console::text::seconds;

#[derive(Serialize)]
struct SessionsView {
    length_ms: u64,
    renewal_ms: u64,
    silent_after_ms: u64,
    lapsed_after_ms: u64,
}

impl Session {
    /// Shows how long sessions last, having set it where that is asked for.
    pub(super) async fn sessions(&mut self, settings: SessionSettings) -> Result<()> {
        let reply = match settings.length {
            None => self.node.cluster.show_sessions(ShowSessionsRequest {}).await,
            Some(length) => {
                let length_ms = u64::try_from(length.as_millis()).context("no session lasts so long")?;
                self.node.cluster.set_session_length(SetSessionLengthRequest { length_ms }).await
            }
        };
        let reply = reply.map_err(CallError::from)?.into_inner();
        let view = SessionsView {
            length_ms: reply.length_ms,
            renewal_ms: reply.renewal_ms,
            silent_after_ms: reply.silent_after_ms,
            lapsed_after_ms: reply.lapsed_after_ms,
        };
        let facts = Facts::new(vec![
            ("length", seconds(view.length_ms)),
            ("renewed every", seconds(view.renewal_ms)),
            ("a node that is cut off serves for", format!("{} at most", seconds(view.silent_after_ms))),
            ("others may take over after", seconds(view.lapsed_after_ms)),
        ]);
        self.output.result(&view, facts)
    }
}
