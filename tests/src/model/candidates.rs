//! The metadata of a volume that two nodes beside its owner may be in sync with, as it comes to be by the product's commands.

use sterna_consensus::Metadata;
use sterna_consensus::state::cluster::MetadataVersion;
use sterna_consensus::state::command::{Admission, Bootstrap, Command, NewToken, NewVolume, Origin, ReplicaReport};
use sterna_consensus::state::policy::{AttachPolicy, Durability};
use sterna_consensus::state::replica::ReplicaMode;
use sterna_consensus::state::request::Request;
use sterna_consensus::state::token::Digest;
use sterna_consensus::state::volume::{UnixTime, VolumeFormat};
use sterna_types::{ByteSize, ClusterId, NodeId, TokenId, VolumeId, VolumeSize};

/// Those that keep replicas in mode sync.
pub(super) const CANDIDATES: [NodeId; 2] = [NodeId(2), NodeId(3)];
/// The volume, which node 1 owns.
pub(super) const VOLUME: VolumeId = VolumeId(1);

/// The metadata, with nobody in sync.
pub(super) fn volume_with_candidates() -> Metadata {
    let mut metadata = Metadata::default();
    for command in commands() {
        metadata.apply(&Request { id: None, command }).expect("a new cluster takes these");
    }
    let published = metadata.volume(VOLUME).expect("it was made").published;
    for node in CANDIDATES {
        let epoch = metadata.volume(VOLUME).expect("it was made").epoch;
        let report =
            ReplicaReport { volume: VOLUME, epoch, complete: Some(published), is_map: false, snapshots: Vec::new() };
        let command = Command::ReportReplicas { node, reports: vec![report] };
        metadata.apply(&Request { id: None, command }).expect("a replica has what there is");
    }
    metadata
}

fn commands() -> Vec<Command> {
    let name = |number: u64| format!("n{number}");
    let secret = Digest([7; 32]);
    let at = |unix_ms| UnixTime { unix_ms };
    let volume = NewVolume {
        name: "disk".parse().expect("a name"),
        size: VolumeSize::try_from(ByteSize(1 << 20)).expect("a size"),
        format: VolumeFormat(1),
        durability: Durability::Local,
        attach: AttachPolicy::Manual,
        origin: Origin::Blank,
        owner: NodeId::FIRST,
    };
    let cluster = ClusterId::from_bytes([7; 16]);
    let (site, node) = ("s1".parse().expect("a site"), name(1).parse().expect("a node"));
    let version = MetadataVersion::CURRENT;
    let mut all = vec![
        Command::Bootstrap(Bootstrap { cluster, site, node, address: ADDRESS.parse().ok() }),
        Command::RaiseVersion { version },
    ];
    for NodeId(number) in CANDIDATES {
        let id = TokenId(number);
        all.push(Command::CreateToken(NewToken { id, secret, at: at(1_000), expires: at(2_000), site: None }));
        all.push(Command::AdmitNode(Admission {
            token: id,
            secret,
            at: at(1_500),
            knows: version,
            key: Digest([9; 32]),
            name: name(number).parse().expect("a node"),
            site: format!("s{number}").parse().expect("a site"),
            address: ADDRESS.parse().expect("an address"),
        }));
    }
    all.extend([NodeId::FIRST, CANDIDATES[0], CANDIDATES[1]].map(|node| Command::OpenSession { node, knows: version }));
    all.push(Command::CreateVolume(volume));
    all.extend(CANDIDATES.map(|node| Command::SetReplica { volume: VOLUME, node, mode: ReplicaMode::Sync }));
    all
}

const ADDRESS: &str = "10.77.0.1:7400";
