//! Copies of a volume at other sites, and what becomes of an owner's contents when another node takes over without it (design
//! sections 5 and 6).
//!
//! ```text
//! epoch 1   A publishes  r1 ── r2 ── r3 ── r4          A is gone: r5 and its journal are known to A only
//! B holds all of         r1 ── r2
//! failover to B: epoch 2 begins with r2                 superseded: epoch 1 of A, published r4, resumed from r2
//! A returns: seals what it has as r6, and keeps it as a snapshot; it follows epoch 2 like any replica
//! ```
//!
//! Where B is in sync it takes over with everything: epoch 2 resumes from r4, and no root of epoch 1 is given up, whoever has it.
//! It begins to publish with r2 once more, which is what it has as chunks. The rest is in its copy of A's journal, and in what it seals
//! next. Until then another site may have more complete than is published.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sterna_types::{Epoch, NodeId, SiteName};

use super::Metadata;
use super::session::SessionState;
use super::volume::{Published, Volume};
use crate::limits::MAX_SUPERSEDED;

/// A copy of a volume at a site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Replica {
    /// The node of the site that keeps it.
    pub node: NodeId,
    /// How it follows.
    pub mode: ReplicaMode,
    /// The newest contents that are there completely, as far as the node has said so. None in mode cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub complete: Option<Complete>,
    /// In mode cache, and until anything is complete where that was its mode: the newest contents of which all of the map is there, and
    /// of the data what happens to be. That is kept. Since version 6 of the metadata.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mapped: Option<Complete>,
}

impl Replica {
    /// One of a node that has all of these contents.
    pub(super) fn new(node: NodeId, mode: ReplicaMode, has: Option<Complete>) -> Self {
        let (complete, mapped) = if mode == ReplicaMode::Cache { (None, has) } else { (has, None) };
        Self { node, mode, complete, mapped }
    }

    /// The same node's in another mode. A cache promises nothing, and what it has is no replica's.
    #[must_use]
    pub(super) fn in_mode(self, mode: ReplicaMode) -> Self {
        match mode {
            ReplicaMode::Cache => Self { mode, complete: None, mapped: self.complete.or(self.mapped), ..self },
            ReplicaMode::Async | ReplicaMode::Sync => Self { mode, ..self },
        }
    }

    /// Notes that it has come to these contents: to all of them, or where `is_map`, to their map.
    pub(super) fn come_to(&mut self, contents: Complete, is_map: bool) {
        if is_map || self.mode == ReplicaMode::Cache {
            self.mapped = Some(contents);
        } else {
            (self.complete, self.mapped) = (Some(contents), None);
        }
    }

    /// The newest contents that it has come to, as its mode has it.
    pub fn newest(&self) -> Option<Complete> {
        if self.mode == ReplicaMode::Cache { self.mapped } else { self.complete }
    }
}

/// How a replica follows its volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplicaMode {
    /// It follows the published roots; nobody waits for it.
    Async,
    /// It follows the published roots, and takes what the owner writes to its journal beside: it may be in sync. Since version 5 of
    /// the metadata.
    Sync,
    /// It follows the map of the published roots, and keeps what its site has of their data: what was read there, or was there when the
    /// volume went elsewhere. It fetches none, and nothing goes on with it. Since version 6 of the metadata.
    Cache,
}

impl fmt::Display for ReplicaMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Async => "async",
            Self::Sync => "sync",
            Self::Cache => "cache",
        })
    }
}

/// A text that is not a [`ReplicaMode`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is no mode of a replica: give 'async', 'sync' or 'cache'")]
pub struct InvalidReplicaMode {
    /// What was given.
    pub text: String,
}

impl FromStr for ReplicaMode {
    type Err = InvalidReplicaMode;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "async" => Ok(Self::Async),
            "sync" => Ok(Self::Sync),
            "cache" => Ok(Self::Cache),
            _ => Err(InvalidReplicaMode { text: text.to_owned() }),
        }
    }
}

/// Contents that are complete somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Complete {
    /// The epoch in which they were published.
    pub epoch: Epoch,
    /// The contents.
    pub contents: Published,
}

/// An epoch that ended without its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Superseded {
    /// Which.
    pub epoch: Epoch,
    /// Who owned the volume in it.
    pub owner: NodeId,
    /// What that had published last.
    pub published: Published,
    /// What the next epoch went on with of what was published: what is complete at the heir, or all of it where the heir was in sync.
    pub resumed: Published,
    /// Where the owner went on with what it had kept of an earlier epoch: see [`Volume::reclaimed`]. Unless the owner has opened it
    /// since, it has what it left in that epoch. Since version 4 of the metadata.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reclaimed: Option<Epoch>,
    /// Whether the owner has returned, and said what else it had.
    #[serde(default, skip_serializing_if = "super::cluster::is_default")]
    pub is_settled: bool,
}

impl Superseded {
    /// Whether what its owner has kept of this epoch is of the superseded one: of that epoch itself, or of the one that it was to go on
    /// with.
    pub fn is_of(&self, kept: Epoch) -> bool {
        self.epoch == kept || self.reclaimed == Some(kept)
    }
}

/// What a failover to one site would lose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// Who would own the volume.
    pub node: NodeId,
    /// What it would go on with.
    pub complete: Complete,
    /// What is published.
    pub published: Published,
    /// Blocks of data that writes had which are published, and not in what it would go on with.
    pub lost_blocks: u64,
    /// Milliseconds between the two, by the clocks of their owners; `None` where one of them is not known.
    pub lost_ms: Option<u64>,
    /// Whether nothing was acknowledged that was not published. It is so where the owner ended in good order, as did the node that
    /// it was being handed over to, and not known where a session lapsed.
    pub all_is_published: bool,
    /// Whether what is complete there was given up by an earlier failover: then there is nothing to go on with.
    pub is_given_up: bool,
    /// Other sites at which there is more of what was published, or all that was acknowledged.
    pub more_at: Vec<SiteName>,
    /// Whether the node is in sync: it takes over with all that was acknowledged in the volume's epoch, and a failover to its site is
    /// refused. Where the volume is being handed over, what the node that it goes to has acknowledged since is not of that epoch.
    pub is_in_sync: bool,
}

impl Metadata {
    /// What a failover of a volume to its replica at `site` would lose; `None` where nothing complete is there. O(replicas).
    pub fn loss(&self, volume: &Volume, site: &SiteName) -> Option<Loss> {
        let replica = volume.replicas.get(site)?;
        let complete = replica.complete?;
        let is_in_sync = volume.in_sync.contains(&replica.node);
        let (published, known) = (volume.published, volume.newest_known());
        let is_closed = |node: NodeId| {
            let session = self.node(node).and_then(|node| node.session);
            session.is_some_and(|session| session.state == SessionState::Closed)
        };
        let lost_ms = complete.contents.at.zip(known.at);
        let lost_ms = lost_ms.map(|(complete, known)| known.unix_ms.saturating_sub(complete.unix_ms));
        let kept = |complete: &Complete| {
            if volume.descends_from(complete) { complete.contents.written_blocks } else { 0 }
        };
        let has_more = |other: &Replica| {
            let has_all = volume.in_sync.contains(&other.node);
            !is_in_sync && (has_all || other.complete.is_some_and(|other| kept(&other) > kept(&complete)))
        };
        Some(Loss {
            node: replica.node,
            complete,
            published,
            lost_blocks: if is_in_sync { 0 } else { known.written_blocks.saturating_sub(kept(&complete)) },
            lost_ms: if is_in_sync { Some(0) } else { lost_ms },
            all_is_published: volume.ownership().writers().all(is_closed),
            is_given_up: !volume.descends_from(&complete),
            more_at: volume
                .replicas
                .iter()
                .filter(|(_, other)| has_more(other))
                .map(|(site, _)| site.clone())
                .collect(),
            is_in_sync,
        })
    }
}

impl Volume {
    /// At most so many blocks of the data writes that were published are nowhere but at the owner's site, or are still where the volume
    /// was handed over from: what is lost with one site. `None` where no replica has any of it completely, and so all of it is
    /// exposed. What the owner has not published is, too. Where a node is in sync nothing that was acknowledged is. O(replicas).
    pub fn exposed_blocks(&self) -> Option<u64> {
        if !self.in_sync.is_empty() {
            return Some(0);
        }
        let complete = self.replicas.values().filter_map(|replica| replica.complete);
        let kept = complete.filter(|complete| self.descends_from(complete)).map(|c| c.contents.written_blocks).max()?;
        Some(self.newest_known().written_blocks.saturating_sub(kept))
    }

    /// The newest contents that are known to be in it. They are those that are published, but for an heir that was in sync, and has
    /// published nothing yet: that has all that was published before it, and began to publish with less.
    fn newest_known(&self) -> Published {
        let resumed = self.superseded.last().filter(|_| self.was_taken_over()).map(|last| last.resumed);
        resumed.filter(|resumed| resumed.written_blocks > self.published.written_blocks).unwrap_or(self.published)
    }

    /// Whether these contents were a state of what the volume is now: of each epoch that has ended without its owner, only what
    /// the next one began with was gone on with, and what came before that. Of an epoch before those that are remembered it is
    /// not known, which is no.
    pub(super) fn descends_from(&self, complete: &Complete) -> bool {
        let is_remembered = self.superseded.len() < MAX_SUPERSEDED
            || self.superseded.first().is_none_or(|oldest| oldest.epoch <= complete.epoch);
        let mut later = self.superseded.iter().filter(|superseded| superseded.epoch >= complete.epoch);
        is_remembered && later.all(|superseded| complete.contents.generation <= superseded.resumed.generation)
    }
}
