//! How the metadata is written down: as one JSON object, whose names and meaning are in `docs/on-disk-format.md`.
//!
//! JSON, because it describes itself: a state can be read and repaired by people when everything else has failed, a field
//! that this program does not know is seen (and refused, never dropped), and its size matters little beside the data's.
//! What follows from other fields is not written, so that it cannot contradict them.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use sterna_types::{NodeId, SiteName, TokenId, VolumeId};

use super::Metadata;
use super::answered::{Answer, Answered};
use super::cluster::{Cluster, Node, Site, is_default};
use super::layout::Layout;
use super::shared_map::SharedMap;
use super::token::Token;
use super::volume::Volume;

/// The metadata as it is written down.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    cluster: Option<Cluster>,
    sites: SharedMap<SiteName, Arc<Site>>,
    nodes: SharedMap<NodeId, Arc<Node>>,
    volumes: SharedMap<VolumeId, Arc<Volume>>,
    last_volume: u64,
    last_node: u64,
    answered: Vec<Answer>,
    /// Since version 2; one that wrote none had none.
    #[serde(default, skip_serializing_if = "SharedMap::is_empty")]
    tokens: SharedMap<TokenId, Arc<Token>>,
    /// Since version 2; one that wrote none had its first node as its only voter.
    #[serde(default, skip_serializing_if = "is_default")]
    layout: Layout,
}

impl Serialize for Metadata {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let record = Record {
            cluster: self.cluster,
            sites: self.sites.clone(),
            nodes: self.nodes.clone(),
            volumes: self.volumes.clone(),
            last_volume: self.last_volume,
            last_node: self.last_node,
            answered: self.answered.answers(),
            tokens: self.tokens.clone(),
            layout: self.layout.clone(),
        };
        record.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Metadata {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let record = Record::deserialize(deserializer)?;
        let metadata = Self {
            cluster: record.cluster,
            names: record.volumes.values().map(|volume| (volume.name.clone(), volume.id)).collect(),
            snapshots: record.volumes.values().map(|volume| volume.snapshots.len()).sum(),
            sites: record.sites,
            nodes: record.nodes,
            volumes: record.volumes,
            last_volume: record.last_volume,
            last_node: record.last_node,
            answered: Answered::from_answers(record.answered),
            tokens: record.tokens,
            layout: record.layout,
        };
        metadata.check().map_err(D::Error::custom)?;
        Ok(metadata)
    }
}
