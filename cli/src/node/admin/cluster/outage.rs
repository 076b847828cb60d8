//! What would be left if a site were switched off now.

use sterna_consensus::Metadata;
use sterna_consensus::state::outage::{Affected, Effect};
use sterna_proto::cluster;
use sterna_proto::cluster::affected_volume::Effect as Shown;
use sterna_types::{BLOCK_SIZE, SiteName};
use tonic::Status;

use crate::node::admin::lookup::metadata;
use crate::node::admin::reply::node_name;
use crate::node::admin::request::parsed;
use crate::node::node::Node;

/// Of one site.
pub(super) async fn show(node: &Node, request: &cluster::ShowOutageRequest) -> Result<cluster::Outage, Status> {
    let site: SiteName = parsed(&request.site)?;
    let metadata = metadata(node).await?;
    if metadata.sites().all(|known| known.name != site) {
        return Err(Status::not_found(format!("there is no site '{site}': 'sterna cluster status' lists them")));
    }
    let outage = metadata.outage(&site);
    Ok(cluster::Outage {
        site: site.to_string(),
        voters: outage.voters as u64,
        voters_left: outage.voters_left as u64,
        is_decided: outage.is_decided(),
        volumes: outage.affected.iter().map(|affected| shown(&metadata, affected)).collect(),
    })
}

fn shown(metadata: &Metadata, affected: &Affected<'_>) -> cluster::AffectedVolume {
    let Affected { volume, effect, lost_snapshots } = affected;
    let (kind, going_on) = match effect {
        Effect::GoesOn { site, loss } => (Shown::GoesOn, Some((site, loss))),
        Effect::Lost => (Shown::Lost, None),
        Effect::Incomplete => (Shown::Incomplete, None),
        Effect::FlushesWait => (Shown::FlushesWait, None),
        Effect::Served => (Shown::Served, None),
    };
    let loss = going_on.map(|(_, loss)| loss);
    cluster::AffectedVolume {
        volume: volume.name.to_string(),
        effect: kind.into(),
        to_site: going_on.map(|(site, _)| site.to_string()).unwrap_or_default(),
        to_node: loss.map(|loss| node_name(metadata, loss.node)).unwrap_or_default(),
        lost_bytes: loss.map_or(0, |loss| loss.lost_blocks * BLOCK_SIZE),
        lost_ms: loss.and_then(|loss| loss.lost_ms),
        is_in_sync: loss.is_some_and(|loss| loss.is_in_sync),
        lost_snapshots: lost_snapshots.iter().map(ToString::to_string).collect(),
    }
}
