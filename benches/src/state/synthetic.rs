//! The metadata of a cluster as its commands make it.

use std::time::Duration;

use anyhow::{Context, Result};
use sterna_consensus::state::Metadata;
use sterna_consensus::state::cluster::MetadataVersion;
use sterna_consensus::state::command::{
    Admission, Bootstrap, Command, NewSnapshot, NewToken, NewVolume, Origin, RootPublication,
};
use sterna_consensus::state::outcome::Outcome;
use sterna_consensus::state::policy::{AttachPolicy, Durability};
use sterna_consensus::state::request::Request;
use sterna_consensus::state::session::{SessionLength, SessionNumber};
use sterna_consensus::state::token::Digest;
use sterna_consensus::state::volume::{Generation, UnixTime, VolumeFormat};
use sterna_types::{ByteSize, ChunkId, ClusterId, Epoch, NodeId, Root, TokenId, VolumeId, VolumeSize};

use super::State;

/// A cluster.
#[derive(Clone, Debug)]
pub(super) struct Synthetic {
    metadata: Metadata,
    nodes: u64,
    volumes: u64,
}

impl Synthetic {
    /// The cluster that is asked for; every volume has published a root, and its snapshots are of others.
    pub(super) fn make(state: &State) -> Result<Self> {
        let mut made = Self::of_one_node()?;
        made.admit(state)?;
        for _ in 0..state.volumes {
            let owner = NodeId(made.volumes % made.nodes + 1);
            made.apply(new_volume(made.volumes + 1, owner)?)?;
            made.volumes += 1;
        }
        for snapshot in 0..u64::from(state.snapshots) {
            let volume = snapshot % made.volumes + 1;
            made.apply(new_snapshot(VolumeId(volume), snapshot / made.volumes)?)?;
        }
        // Newer than the snapshots.
        for node in 1..=made.nodes {
            made.apply(Command::PublishRoots(made.publications(node, 1_000_000, usize::MAX)))?;
        }
        // From the next renewals on. Until then sessions last for as long as any measurement.
        made.apply(Command::SetSessionLength { length: SessionLength::DEFAULT })?;
        made.metadata.check().context("what was made is not as it should be")?;
        Ok(made)
    }

    /// One node, and so many volumes that it owns.
    pub(super) fn alone(volumes: u32) -> Result<Self> {
        let mut made = Self::of_one_node()?;
        made.apply(Command::OpenSession { node: NodeId::FIRST, knows: MetadataVersion::CURRENT })?;
        for _ in 0..volumes {
            made.apply(new_volume(made.volumes + 1, NodeId::FIRST)?)?;
            made.volumes += 1;
        }
        Ok(made)
    }

    pub(super) fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// How many nodes there are; their ids begin with 1.
    pub(super) fn nodes(&self) -> u64 {
        self.nodes
    }

    /// How many volumes there are; their ids begin with 1.
    pub(super) fn volumes(&self) -> u64 {
        self.volumes
    }

    /// What a node publishes in one command when `at_most` of its volumes have been sealed.
    pub(super) fn publications(&self, node: u64, generation: u64, at_most: usize) -> Vec<RootPublication> {
        let own = (node..=self.volumes).step_by(usize::try_from(self.nodes).unwrap_or(usize::MAX));
        own.take(at_most).map(|volume| publication(VolumeId(volume), generation)).collect()
    }

    fn of_one_node() -> Result<Self> {
        let mut made = Self { metadata: Metadata::default(), nodes: 1, volumes: 0 };
        let (site, node) = (site_name(0).parse()?, node_name(1).parse()?);
        let address = Some("10.77.0.1:7400".parse()?);
        made.apply(Command::Bootstrap(Bootstrap { cluster: ClusterId::from_bytes([7; 16]), site, node, address }))?;
        made.apply(Command::RaiseVersion { version: MetadataVersion::CURRENT })?;
        made.apply(Command::SetSessionLength { length: Duration::from_secs(600).try_into()? })?;
        Ok(made)
    }

    fn admit(&mut self, state: &State) -> Result<()> {
        let knows = MetadataVersion::CURRENT;
        self.apply(Command::OpenSession { node: NodeId::FIRST, knows })?;
        for number in 2..=u64::from(state.sites) * u64::from(state.nodes_per_site) {
            // Each token has expired when the next one is made.
            let (id, secret) = (TokenId(number), Digest(hash(number, 1)));
            let (at, expires) = (UnixTime { unix_ms: number }, UnixTime { unix_ms: number + 1 });
            self.apply(Command::CreateToken(NewToken { id, secret, at, expires, site: None }))?;
            let site = site_name((number - 1) / u64::from(state.nodes_per_site)).parse()?;
            let (name, key) = (node_name(number).parse()?, Digest(hash(number, 2)));
            let address = format!("10.{}.{}.{}:7400", number >> 16 & 255, number >> 8 & 255, number & 255).parse()?;
            let admission = Admission { token: id, secret, at, knows, key, name, site, address };
            self.apply(Command::AdmitNode(admission))?;
            self.apply(Command::OpenSession { node: NodeId(number), knows })?;
            self.nodes = number;
        }
        Ok(())
    }

    fn apply(&mut self, command: Command) -> Result<Outcome> {
        self.metadata.apply(&Request { id: None, command }).context("a command of the synthetic cluster is refused")
    }
}

/// A renewal of a node's only session.
pub(super) fn renewal(node: u64) -> Command {
    Command::RenewSession { node: NodeId(node), number: SessionNumber(1) }
}

/// What a node publishes that has sealed one volume.
pub(super) fn one_publication(node: u64) -> Vec<RootPublication> {
    vec![publication(VolumeId(node), 2_000_000)]
}

/// A volume of 20 GiB.
pub(super) fn new_volume(number: u64, owner: NodeId) -> Result<Command> {
    Ok(Command::CreateVolume(NewVolume {
        name: format!("customer-{}.vm-{number}.root", number % 997).parse()?,
        size: size()?,
        format: VolumeFormat(1),
        durability: Durability::Local,
        attach: AttachPolicy::Manual,
        origin: Origin::Blank,
        owner,
    }))
}

fn new_snapshot(volume: VolumeId, number: u64) -> Result<Command> {
    let generation = Generation(number + 1);
    Ok(Command::CreateSnapshot(NewSnapshot {
        volume,
        epoch: Epoch::FIRST,
        name: format!("nightly-2026-{number:03}").parse()?,
        root: root(volume, generation.0),
        generation,
        size: size()?,
        at: UnixTime { unix_ms: 1_790_000_000_000 + volume.0 * 1_000 },
    }))
}

fn publication(volume: VolumeId, generation: u64) -> RootPublication {
    let root = root(volume, generation);
    // A seal in these is of a few MiB, and at a time of our days.
    let (written_blocks, at) = (1_000 * generation, Some(UnixTime { unix_ms: 1_700_000_000_000 + 3_000 * generation }));
    RootPublication { volume, epoch: Epoch::FIRST, root, generation: Generation(generation), written_blocks, at }
}

/// As good as random, as roots are: nothing compresses it.
fn root(volume: VolumeId, generation: u64) -> Root {
    Root::at(ChunkId::from_bytes(hash(volume.0, generation)))
}

fn hash(one: u64, other: u64) -> [u8; 32] {
    *blake3::hash([one.to_le_bytes(), other.to_le_bytes()].as_flattened()).as_bytes()
}

fn size() -> Result<VolumeSize> {
    Ok(VolumeSize::try_from(ByteSize(20 << 30))?)
}

fn site_name(number: u64) -> String {
    format!("region-{number:03}")
}

fn node_name(number: u64) -> String {
    format!("host-{number:05}")
}
