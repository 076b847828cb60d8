//! Who else keeps a volume, and going on at another site without its owner.

use anyhow::{Context, Result, bail};
use serde::Serialize;
use sterna_proto::admin;

use super::Session;
use super::client::CallError;
use crate::args::volume::{Failover, Replica, ReplicaCommand};
use crate::console::table::{Facts, Table};
use crate::console::text::{about, duration, utc};

/// Published contents.
#[derive(Serialize)]
struct PublishedView {
    root: String,
    generation: u64,
    written_bytes: u64,
    published_at_ms: Option<u64>,
}

#[derive(Serialize)]
struct ReplicaView {
    site: String,
    node: String,
    mode: String,
    is_live: bool,
    complete: Option<PublishedView>,
    complete_epoch: Option<u64>,
    behind_bytes: u64,
    behind_ms: Option<u64>,
    /// Whether it has every flush that was acknowledged.
    is_in_sync: bool,
    /// Of what a cache keeps as much as it has.
    mapped: Option<PublishedView>,
}

#[derive(Serialize)]
struct SupersededView {
    epoch: u64,
    owner: String,
    published: PublishedView,
    resumed: PublishedView,
    is_settled: bool,
}

#[derive(Serialize)]
struct ReplicasView {
    volume: String,
    owner: String,
    site: String,
    epoch: u64,
    published: PublishedView,
    replicas: Vec<ReplicaView>,
    superseded: Vec<SupersededView>,
}

/// What a failover loses, and whether it was done.
#[derive(Serialize)]
struct FailoverView {
    volume: String,
    from_node: String,
    from_site: String,
    from_epoch: u64,
    published: PublishedView,
    to_node: String,
    to_site: String,
    complete: PublishedView,
    lost_bytes: u64,
    lost_ms: Option<u64>,
    all_is_published: bool,
    more_at: Vec<String>,
    /// The epoch that has begun; none where nothing was done.
    epoch: Option<u64>,
    obstacle: Option<String>,
    /// Whether the owner takes back what it was handing over to `from_node`.
    is_reclaimed: bool,
    /// Whether the node that goes on has every flush that was acknowledged in that epoch.
    is_in_sync: bool,
}

impl Session {
    pub(super) async fn replica(&mut self, replica: Replica) -> Result<()> {
        let volume = replica.name.to_string();
        let client = &mut self.node.client;
        let reply = match replica.command {
            ReplicaCommand::Set { site, mode, node } => {
                let (site, mode) = (site.to_string(), mode.to_string());
                let node = node.map(|node| node.to_string()).unwrap_or_default();
                client.set_replica(admin::SetReplicaRequest { volume, site, mode, node }).await
            }
            ReplicaCommand::Unset { site } => {
                client.unset_replica(admin::UnsetReplicaRequest { volume, site: site.to_string() }).await
            }
            ReplicaCommand::Status => client.list_replicas(admin::ListReplicasRequest { volume }).await,
        };
        let view = ReplicasView::try_from(reply.map_err(CallError::from)?.into_inner())?;
        if self.output.is_json() {
            return self.output.value(&view);
        }
        let owner = format!("{} at {}, epoch {}", view.owner, view.site, view.epoch);
        let published = format!("generation {}{}", view.published.generation, view.published.when());
        self.output.line(Facts::new([("volume", view.volume), ("owner", owner), ("published", published)]))?;
        let mut table = Table::new(["SITE", "NODE", "MODE", "COMPLETE", ">BEHIND", ">FOR"]);
        for replica in view.replicas {
            let complete = replica.complete.map(|complete| format!("generation {}", complete.generation));
            let mapped = replica.mapped.map(|mapped| format!("what it has of generation {}", mapped.generation));
            let complete = complete.or(mapped).unwrap_or_else(|| "nothing yet".to_owned());
            let node = if replica.is_live { replica.node } else { format!("{} (no session)", replica.node) };
            let time = replica.behind_ms.map_or_else(|| "-".to_owned(), |ms| duration(ms.div_ceil(1000)));
            let behind = if replica.mode == "cache" { "-".to_owned() } else { about(replica.behind_bytes) };
            let mode = if replica.is_in_sync { format!("{}, in sync", replica.mode) } else { replica.mode };
            table.row([replica.site, node, mode, complete, behind, time]);
        }
        if !table.is_empty() {
            self.output.line("")?;
            self.output.line(table)?;
        }
        for past in view.superseded {
            let lost = past.published.written_bytes.saturating_sub(past.resumed.written_bytes);
            let returned = if past.is_settled { "it has returned" } else { "it has not returned" };
            let SupersededView { epoch, owner, .. } = past;
            let text = format!(
                "epoch {epoch} of {owner} was taken over, {} behind what was published; {returned}",
                about(lost)
            );
            self.output.line(text)?;
        }
        Ok(())
    }

    pub(super) async fn fail_over(&mut self, failover: Failover) -> Result<()> {
        let Failover { name, to, dry_run, accept_loss } = failover;
        let request = admin::FailOverRequest { volume: name.to_string(), site: to.to_string(), dry_run, accept_loss };
        let reply = self.node.client.fail_over(request).await.map_err(CallError::from)?.into_inner();
        let view = FailoverView::try_from(reply)?;
        if self.output.is_json() {
            self.output.value(&view)?;
        } else {
            self.output.line(Facts::new(view.facts()))?;
        }
        if view.epoch.is_none() && !dry_run {
            bail!("nothing was done, as something is lost or may be: repeat it with --accept-loss if that is to be");
        }
        Ok(())
    }
}

impl FailoverView {
    fn facts(&self) -> Vec<(&'static str, String)> {
        let mut facts = if self.is_reclaimed { self.facts_of_reclaim() } else { self.facts_of_takeover() };
        match (&self.epoch, &self.obstacle) {
            (Some(epoch), _) => facts.push(("done", format!("epoch {epoch} has begun"))),
            (None, Some(obstacle)) => facts.push(("not now", obstacle.clone())),
            (None, None) => facts.push(("done", "nothing yet".to_owned())),
        }
        facts
    }

    fn facts_of_reclaim(&self) -> Vec<(&'static str, String)> {
        let Self { from_node, from_site, from_epoch, to_node, to_site, .. } = self;
        let lost = match self.all_is_published {
            true => format!("nothing: {from_node} ended in good order"),
            false => format!("whatever {from_node} acknowledged, if it has taken the volume"),
        };
        vec![
            ("volume", self.volume.clone()),
            ("handed over to", format!("{from_node} at {from_site}, epoch {from_epoch}")),
            ("goes on", format!("{to_node} at {to_site}, with all that it had")),
            ("lost", lost),
        ]
    }

    fn facts_of_takeover(&self) -> Vec<(&'static str, String)> {
        let going_on = format!("{} at {}, with generation {}", self.to_node, self.to_site, self.complete.generation);
        let lost = match (self.lost_bytes, self.lost_ms) {
            (0, _) => "nothing that was published".to_owned(),
            (bytes, Some(ms)) => format!("{} of writes, of {}", about(bytes), duration(ms.div_ceil(1000))),
            (bytes, None) => format!("{} of writes", about(bytes)),
        };
        let beyond = match self.all_is_published {
            true => "nothing: the owner ended in good order".to_owned(),
            false if self.is_in_sync => "nothing that was flushed: it is in sync".to_owned(),
            false => format!("whatever {} acknowledged after that{}", self.from_node, self.published.when()),
        };
        let mut facts = vec![
            ("volume", self.volume.clone()),
            ("owner", format!("{} at {}, epoch {}", self.from_node, self.from_site, self.from_epoch)),
            ("published", format!("generation {}{}", self.published.generation, self.published.when())),
            ("goes on", going_on),
            ("lost", lost),
            ("not published", beyond),
        ];
        if !self.more_at.is_empty() {
            facts.push(("less is lost at", self.more_at.join(", ")));
        }
        facts
    }
}

impl PublishedView {
    /// When it was published, behind a generation.
    fn when(&self) -> String {
        self.published_at_ms.map(|at| format!(", {} UTC", utc(at))).unwrap_or_default()
    }
}

impl From<admin::PublishedState> for PublishedView {
    fn from(state: admin::PublishedState) -> Self {
        let admin::PublishedState { root, generation, written_bytes, published_at_ms } = state;
        Self { root, generation, written_bytes, published_at_ms }
    }
}

impl TryFrom<admin::ListReplicasReply> for ReplicasView {
    type Error = anyhow::Error;

    fn try_from(reply: admin::ListReplicasReply) -> Result<Self> {
        let superseded = |past: admin::SupersededEpoch| {
            anyhow::Ok(SupersededView {
                epoch: past.epoch,
                owner: past.owner,
                published: past.published.context(INCOMPLETE)?.into(),
                resumed: past.resumed.context(INCOMPLETE)?.into(),
                is_settled: past.is_settled,
            })
        };
        Ok(Self {
            volume: reply.volume,
            owner: reply.owner,
            site: reply.site,
            epoch: reply.epoch,
            published: reply.published.context(INCOMPLETE)?.into(),
            replicas: reply.replicas.into_iter().map(ReplicaView::from).collect(),
            superseded: reply.superseded.into_iter().map(superseded).collect::<Result<_>>()?,
        })
    }
}

impl From<admin::Replica> for ReplicaView {
    fn from(replica: admin::Replica) -> Self {
        Self {
            site: replica.site,
            node: replica.node,
            mode: replica.mode,
            is_live: replica.is_live,
            complete: replica.complete.map(PublishedView::from),
            complete_epoch: (replica.complete_epoch > 0).then_some(replica.complete_epoch),
            behind_bytes: replica.behind_bytes,
            behind_ms: replica.behind_ms,
            is_in_sync: replica.is_in_sync,
            mapped: replica.mapped.map(PublishedView::from),
        }
    }
}

impl TryFrom<admin::FailOverReply> for FailoverView {
    type Error = anyhow::Error;

    fn try_from(reply: admin::FailOverReply) -> Result<Self> {
        Ok(Self {
            volume: reply.volume,
            from_node: reply.from_node,
            from_site: reply.from_site,
            from_epoch: reply.from_epoch,
            published: reply.published.context(INCOMPLETE)?.into(),
            to_node: reply.to_node,
            to_site: reply.to_site,
            complete: reply.complete.context(INCOMPLETE)?.into(),
            lost_bytes: reply.lost_bytes,
            lost_ms: reply.lost_ms,
            all_is_published: reply.all_is_published,
            more_at: reply.more_at,
            epoch: (reply.epoch > 0).then_some(reply.epoch),
            obstacle: super::views::if_any(reply.obstacle),
            is_reclaimed: reply.is_reclaimed,
            is_in_sync: reply.is_in_sync,
        })
    }
}

const INCOMPLETE: &str = "the node's answer is not complete: it runs another version";
