//! The metadata as a pure value: what is known, and what a command makes of it.
//!
//! From the bottom up:
//! * [`shared_map`]: an ordered map whose copies cost nothing until they differ;
//! * [`ownership`]: who owns a volume, and how that passes on;
//! * [`policy`], [`volume`], [`replica`], [`in_sync`], [`hydration`]: what is known about one volume; [`cluster`], [`session`],
//!   [`token`], [`layout`]: about the cluster and its nodes;
//! * [`command`] and [`handoffs`]: what can be asked, `since` when, and [`request`]: how it is sent; [`outcome`] and [`refusal`]: what
//!   comes of it;
//! * `answered`: the outcomes of the last requests, for those that are sent again;
//! * `apply_volumes`, `apply_snapshots`, `apply_nodes`, `apply_sessions`, `apply_replicas`, `apply_in_sync`, `apply_handoffs`: what each
//!   command does;
//! * `record`: how all of it is written down; `check`: what is always true of it.
//!
//! Nothing here reads a clock, a disk or a random number: every node applies the same commands in the same order, and has to
//! arrive at the same value. So the meaning of a command changes only with the [`cluster::MetadataVersion`].

use std::collections::BTreeMap;
use std::sync::Arc;

use sterna_types::{NodeId, SiteName, TokenId, VolumeId, VolumeName};

mod answered;
mod apply_handoffs;
mod apply_in_sync;
mod apply_nodes;
mod apply_replicas;
mod apply_sessions;
mod apply_snapshots;
mod apply_volumes;
mod check;
pub mod cluster;
pub mod command;
pub mod handoffs;
pub mod hydration;
pub mod in_sync;
pub mod layout;
pub mod outage;
pub mod outcome;
pub mod ownership;
pub mod policy;
mod record;
pub mod refusal;
pub mod replica;
pub mod request;
pub mod session;
pub mod shared_map;
mod since;
#[cfg(test)]
pub(crate) mod tests;
mod text_form;
pub mod token;
pub mod volume;

pub use check::BrokenInvariant;

use answered::Answered;
use cluster::{Cluster, MetadataVersion, Node, Site};
use command::{Bootstrap, Command};
use layout::Layout;
use outcome::Outcome;
use refusal::Refusal;
use request::Request;
use session::{SessionLength, SessionState};
use shared_map::SharedMap;
use token::Token;
use volume::Volume;

/// All of the metadata at one moment. A copy is O(1) and shares all that is the same.
///
/// Invariants (checked by [`Metadata::check`]):
/// * before [`Command::Bootstrap`] it is empty; afterwards it has a cluster, a site and a node;
/// * a name belongs to one volume, an id to at most one volume ever;
/// * every owner is a node, every node's site a site;
/// * the limits of [`crate::limits`] hold;
/// * between two moments: ids, epochs, generations and sizes never fall, and a command that was refused changed nothing.
///
/// ```
/// use sterna_consensus::state::Metadata;
/// use sterna_consensus::state::command::{Bootstrap, Command};
/// use sterna_consensus::state::request::Request;
/// use sterna_types::ClusterId;
///
/// let mut metadata = Metadata::default();
/// let site = "ams".parse()?;
/// let bootstrap = Bootstrap { cluster: ClusterId::from_bytes([7; 16]), site, node: "ams-1".parse()?, address: None };
/// metadata.apply(&Request { id: None, command: Command::Bootstrap(bootstrap) })?;
/// assert_eq!(metadata.nodes().count(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    cluster: Option<Cluster>,
    sites: SharedMap<SiteName, Arc<Site>>,
    nodes: SharedMap<NodeId, Arc<Node>>,
    volumes: SharedMap<VolumeId, Arc<Volume>>,
    tokens: SharedMap<TokenId, Arc<Token>>,
    layout: Layout,
    /// The last id that was given to a volume; 0 before the first.
    last_volume: u64,
    /// The last id that was given to a node; 0 before the first.
    last_node: u64,
    answered: Answered,
    /// Which volume has a name. Follows from `volumes`, and is not written down.
    names: SharedMap<VolumeName, VolumeId>,
    /// How many snapshots all volumes have. Follows from `volumes`, and is not written down.
    snapshots: usize,
}

impl Metadata {
    /// The cluster; `None` before it has begun.
    pub fn cluster(&self) -> Option<&Cluster> {
        self.cluster.as_ref()
    }

    /// The sites, by name.
    pub fn sites(&self) -> impl Iterator<Item = &Arc<Site>> {
        self.sites.values()
    }

    /// The nodes, by id.
    pub fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.nodes.values()
    }

    /// How many nodes there are.
    pub fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// The node with this id.
    pub fn node(&self, id: NodeId) -> Option<&Arc<Node>> {
        self.nodes.get(&id)
    }

    /// The join tokens that were given out, by id. Expired ones go when the next one is made.
    pub fn tokens(&self) -> impl Iterator<Item = &Arc<Token>> {
        self.tokens.values()
    }

    /// Who votes, who drains, and what is to be changed of that.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Which commands can be carried out; before there is a cluster, the first.
    pub fn version(&self) -> MetadataVersion {
        self.cluster.map_or(MetadataVersion::FIRST, |cluster| cluster.version)
    }

    /// How long a session lasts after a renewal.
    pub fn session_length(&self) -> SessionLength {
        self.cluster.map_or(SessionLength::DEFAULT, |cluster| cluster.session)
    }

    /// The volumes, by id: in the order in which they were made.
    pub fn volumes(&self) -> impl Iterator<Item = &Arc<Volume>> {
        self.volumes.values()
    }

    /// How many volumes there are.
    pub fn volume_count(&self) -> usize {
        self.volumes.len()
    }

    /// The volume with this id.
    pub fn volume(&self, id: VolumeId) -> Option<&Arc<Volume>> {
        self.volumes.get(&id)
    }

    /// The volume of this name.
    pub fn volume_named(&self, name: &VolumeName) -> Option<&Arc<Volume>> {
        self.names.get(name).and_then(|id| self.volumes.get(id))
    }

    /// Carries a request out. One that was carried out before is answered as it was then, and not carried out again.
    ///
    /// # Errors
    /// Why it is refused; then nothing has changed.
    pub fn apply(&mut self, request: &Request) -> Result<Outcome, Refusal> {
        if let Some(outcome) = request.id.and_then(|id| self.answered.outcome(id)) {
            return Ok(outcome.clone());
        }
        let outcome = self.carry_out(&request.command)?;
        if let Some(id) = request.id {
            self.answered.remember(id, outcome.clone());
        }
        Ok(outcome)
    }

    fn carry_out(&mut self, command: &Command) -> Result<Outcome, Refusal> {
        if let Command::Bootstrap(bootstrap) = command {
            return self.bootstrap(bootstrap);
        }
        if self.cluster.is_none() {
            return Err(Refusal::NotBootstrapped);
        }
        if command.since() > self.version() {
            return Err(Refusal::NeedsVersion { required: command.since(), current: self.version() });
        }
        match command {
            Command::Bootstrap(bootstrap) => self.bootstrap(bootstrap),
            Command::CreateVolume(new) => self.create_volume(new),
            Command::FinishImport { volume, epoch, root, generation } => {
                self.finish_import(*volume, *epoch, *root, *generation)
            }
            Command::DeleteVolume { volume, with_snapshots } => self.delete_volume(*volume, *with_snapshots),
            Command::RenameVolume { volume, name } => self.rename_volume(*volume, name),
            Command::ResizeVolume { volume, size } => self.resize_volume(*volume, *size),
            Command::CreateSnapshot(new) => self.create_snapshot(new),
            Command::DeleteSnapshot { volume, name } => self.delete_snapshot(*volume, name),
            Command::PublishRoots(publications) => self.publish_roots(publications),
            Command::SetDurability { volume, durability } => {
                self.change_volume(*volume, |volume| volume.durability = *durability)
            }
            Command::SetAttach { volume, attach } => self.change_volume(*volume, |volume| volume.attach = *attach),
            Command::SetVolumeLimit { volume, limit } => self.change_volume(*volume, |volume| volume.limit = *limit),
            Command::SetLinkLimit { from, to, limit } => self.set_link_limit(from, to, *limit),
            Command::SetDegraded { volume, policy } => self.change_volume(*volume, |volume| volume.degraded = *policy),
            Command::SetReplica { volume, node, mode } => self.set_replica(*volume, *node, *mode),
            Command::UnsetReplica { volume, site } => self.unset_replica(*volume, site),
            Command::ReportReplicas { node, reports } => self.report_replicas(*node, reports),
            Command::FailOver { volume, epoch, site, root, published } => {
                self.fail_over(*volume, *epoch, site, *root, *published)
            }
            Command::ChangeInSync { volume, epoch, node, revision, add, remove } => {
                self.change_in_sync(*volume, (*epoch, *revision), *node, add, remove)
            }
            Command::TakeOver { volume, epoch, node } => self.take_over(*volume, *epoch, *node),
            Command::SettleEpoch { volume, epoch, node, branch } => {
                self.settle_epoch(*volume, *epoch, *node, branch.as_ref())
            }
            Command::BeginHandoff { by, to, volumes } => self.begin_handoff(*by, *to, volumes),
            Command::CommitHandoff { by, volumes } => self.commit_handoff(*by, volumes),
            Command::AbortHandoff { by, volumes } => self.abort_handoff(*by, volumes),
            Command::DeclineHandoff { by, volumes } => self.decline_handoff(*by, volumes),
            Command::Reclaim { volume, epoch, node } => self.reclaim(*volume, *epoch, *node),
            Command::FinishHydration { volume, epoch, node, snapshots } => {
                self.finish_hydration(*volume, *epoch, *node, snapshots)
            }
            Command::RaiseVersion { version } => self.raise_version(*version),
            Command::CreateToken(new) => self.create_token(new),
            Command::RevokeToken { token } => self.revoke_token(*token),
            Command::AdmitNode(admission) => self.admit_node(admission),
            Command::SetNodeAddress { node, address } => self.set_node_address(*node, *address),
            Command::OpenSession { node, knows } => self.open_session(*node, *knows),
            Command::RenewSession { node, number } => self.renew_session(*node, *number),
            Command::CloseSession { node, number, all_is_published } => {
                let state = if *all_is_published { SessionState::Closed } else { SessionState::Lapsed };
                self.end_session(*node, *number, state, None)
            }
            Command::LapseSession { node, number, renewals } => {
                self.end_session(*node, *number, SessionState::Lapsed, Some(*renewals))
            }
            Command::SetSessionLength { length } => self.set_session_length(*length),
            Command::StageChange(change) => self.stage_change(*change),
            Command::DiscardChanges => self.discard_changes(),
            Command::ApplyChanges { revision } => self.apply_changes(*revision),
        }
    }

    fn bootstrap(&mut self, bootstrap: &Bootstrap) -> Result<Outcome, Refusal> {
        if let Some(cluster) = &self.cluster {
            return Err(Refusal::AlreadyBootstrapped { cluster: cluster.id });
        }
        let Bootstrap { cluster, site, node, address } = bootstrap;
        let id = NodeId::FIRST;
        self.cluster = Some(Cluster { id: *cluster, version: MetadataVersion::FIRST, session: SessionLength::DEFAULT });
        self.sites.insert(site.clone(), Arc::new(Site { name: site.clone(), limits: BTreeMap::new() }));
        let node = Node {
            id,
            name: node.clone(),
            site: site.clone(),
            address: *address,
            knows: MetadataVersion::FIRST,
            key: None,
            session: None,
        };
        self.nodes.insert(id, Arc::new(node));
        self.last_node = id.0;
        Ok(Outcome::Done)
    }
}
