//! Who may call what: the one table that says it, for every call of every service.
//!
//! On the admin socket it is the file's permission that lets somebody in, and whoever it lets in may do everything. Where other
//! nodes come in, [`super::gate`] asks this table about each call.

use sterna_transport::{Peer, Role};

/// Who may make a call that comes over the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Needs {
    /// Anybody: the call itself looks at a join token.
    Token,
    /// A node. Whether the cluster knows it still, the call itself looks at.
    Node,
    /// An administrator whose role is this or a higher one.
    Role(Role),
    /// Nobody: it is about files of the node's machine, and so for those whom the admin socket lets in.
    Socket,
}

/// Why somebody may not make a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Denial {
    /// It is between nodes.
    #[error("this is for nodes of the cluster only")]
    NodesOnly,
    /// It is an administrator's.
    #[error("this is for administrators only, and takes a certificate of role '{needed}'")]
    AdministratorsOnly { needed: Role },
    /// It is a higher administrator's.
    #[error("role '{has}' may not do this: it takes a certificate of role '{needed}'")]
    RoleTooLow { has: Role, needed: Role },
    /// It is nobody's who comes over the network.
    #[error("this is about files of the node's machine: give the command there, with --dir")]
    SocketOnly,
    /// Nobody knows it.
    #[error("there is no such call")]
    Unknown,
}

/// Whether `peer` may make the call that HTTP/2 names `path`.
///
/// # Errors
/// Why not. What the table does not have, nobody may call.
pub(super) fn check(peer: &Peer, path: &str) -> Result<Needs, Denial> {
    let needs = CALLS.iter().find(|(call, _)| *call == path).map(|(_, needs)| *needs).ok_or(Denial::Unknown)?;
    match (needs, peer) {
        (Needs::Token, _) | (Needs::Node, Peer::Node(_)) => Ok(needs),
        (Needs::Node, Peer::Administrator { .. } | Peer::Stranger) => Err(Denial::NodesOnly),
        (Needs::Role(needed), Peer::Administrator { role, .. }) if *role >= needed => Ok(needs),
        (Needs::Role(needed), Peer::Administrator { role, .. }) => Err(Denial::RoleTooLow { has: *role, needed }),
        (Needs::Role(needed), Peer::Node(_) | Peer::Stranger) => Err(Denial::AdministratorsOnly { needed }),
        (Needs::Socket, _) => Err(Denial::SocketOnly),
    }
}

/// Looks, and changes nothing.
const VIEWER: Needs = Needs::Role(Role::Viewer);
/// Changes volumes, and has the node look after its data, which costs others of its time.
const OPERATOR: Needs = Needs::Role(Role::Operator);
/// Changes the cluster, and who may change it.
const ADMIN: Needs = Needs::Role(Role::Admin);

/// The table.
const CALLS: &[(&str, Needs)] = &[
    ("/sterna.admin.v1.Admin/Status", VIEWER),
    ("/sterna.admin.v1.Admin/ListVolumes", VIEWER),
    ("/sterna.admin.v1.Admin/ShowVolume", VIEWER),
    ("/sterna.admin.v1.Admin/ListReplicas", VIEWER),
    ("/sterna.admin.v1.Admin/DiffVolumes", VIEWER),
    ("/sterna.admin.v1.Admin/MapVolume", VIEWER),
    ("/sterna.admin.v1.Admin/BucketStatus", VIEWER),
    ("/sterna.admin.v1.Admin/ListBucket", VIEWER),
    ("/sterna.admin.v1.Admin/RestoreVolume", OPERATOR),
    ("/sterna.admin.v1.Admin/ForgetVolume", OPERATOR),
    ("/sterna.admin.v1.Admin/CollectBucket", OPERATOR),
    ("/sterna.admin.v1.Admin/CreateVolume", OPERATOR),
    ("/sterna.admin.v1.Admin/ResizeVolume", OPERATOR),
    ("/sterna.admin.v1.Admin/SetVolume", OPERATOR),
    ("/sterna.admin.v1.Admin/DeleteVolume", OPERATOR),
    ("/sterna.admin.v1.Admin/CloneVolume", OPERATOR),
    ("/sterna.admin.v1.Admin/CreateSnapshot", OPERATOR),
    ("/sterna.admin.v1.Admin/DeleteSnapshot", OPERATOR),
    ("/sterna.admin.v1.Admin/SetReplica", OPERATOR),
    ("/sterna.admin.v1.Admin/UnsetReplica", OPERATOR),
    ("/sterna.admin.v1.Admin/MoveVolumes", OPERATOR),
    ("/sterna.admin.v1.Admin/MoveInSteps", OPERATOR),
    ("/sterna.admin.v1.Admin/AwaitVolumes", VIEWER),
    ("/sterna.admin.v1.Admin/FindMigrators", VIEWER),
    ("/sterna.admin.v1.Admin/FailOver", OPERATOR),
    ("/sterna.admin.v1.Admin/VerifyVolume", OPERATOR),
    ("/sterna.admin.v1.Admin/CollectGarbage", OPERATOR),
    ("/sterna.admin.v1.Admin/Scrub", OPERATOR),
    // Who asks for it has to know what a VM of this host has seen.
    ("/sterna.admin.v1.Admin/ResumeClients", Needs::Socket),
    // They read and write whatever path is named, as the user that the node runs as.
    ("/sterna.admin.v1.Admin/ImportVolume", Needs::Socket),
    ("/sterna.admin.v1.Admin/ExportVolume", Needs::Socket),
    ("/sterna.cluster.v1.Cluster/ListNodes", VIEWER),
    ("/sterna.cluster.v1.Cluster/ListTokens", VIEWER),
    ("/sterna.cluster.v1.Cluster/ShowSessions", VIEWER),
    ("/sterna.cluster.v1.Cluster/ShowLayout", VIEWER),
    ("/sterna.cluster.v1.Cluster/ListLinks", VIEWER),
    ("/sterna.cluster.v1.Cluster/ShowOutage", VIEWER),
    ("/sterna.cluster.v1.Cluster/CreateToken", ADMIN),
    ("/sterna.cluster.v1.Cluster/RevokeToken", ADMIN),
    ("/sterna.cluster.v1.Cluster/CreateAdministrator", ADMIN),
    ("/sterna.cluster.v1.Cluster/SetSessionLength", ADMIN),
    ("/sterna.cluster.v1.Cluster/SetLinkLimit", ADMIN),
    ("/sterna.cluster.v1.Cluster/StageChange", ADMIN),
    ("/sterna.cluster.v1.Cluster/DiscardChanges", ADMIN),
    ("/sterna.cluster.v1.Cluster/ApplyChanges", ADMIN),
    ("/sterna.node.v1.Raft/Append", Needs::Node),
    ("/sterna.node.v1.Raft/Vote", Needs::Node),
    ("/sterna.node.v1.Raft/InstallSnapshot", Needs::Node),
    ("/sterna.node.v1.Metadata/Propose", Needs::Node),
    ("/sterna.node.v1.Metadata/ReadIndex", Needs::Node),
    ("/sterna.node.v1.Metadata/Ping", Needs::Node),
    ("/sterna.node.v1.Chunks/Fetch", Needs::Node),
    ("/sterna.node.v1.Chunks/Locate", Needs::Node),
    ("/sterna.node.v1.Handoff/PreCopy", Needs::Node),
    ("/sterna.node.v1.Handoff/Prepare", Needs::Node),
    ("/sterna.node.v1.Handoff/Release", Needs::Node),
    ("/sterna.node.v1.Handoff/FetchTail", Needs::Node),
    ("/sterna.node.v1.Handoff/Read", Needs::Node),
    ("/sterna.node.v1.Handoff/Ask", Needs::Node),
    ("/sterna.node.v1.Handoff/FindMigrator", Needs::Node),
    ("/sterna.node.v1.Mirrors/Follow", Needs::Node),
    ("/sterna.node.v1.Enrolment/Join", Needs::Token),
    ("/sterna.node.v1.Enrolment/Renew", Needs::Node),
    ("/sterna.node.v1.Enrolment/HoldsAuthority", Needs::Node),
    ("/sterna.node.v1.Enrolment/FetchAuthority", Needs::Node),
    // A migrator's, at doors of its own.
    ("/sterna.migrator.v1.Migrations/Examine", Needs::Node),
    ("/sterna.migrator.v1.Migrations/Prepare", Needs::Node),
    ("/sterna.migrator.v1.Migrations/Carry", Needs::Node),
    ("/sterna.migrator.v1.Migrations/Probe", Needs::Node),
    ("/sterna.migrator.v1.Migrations/Ask", Needs::Node),
    ("/sterna.migrator.v1.Migrations/GiveUp", Needs::Node),
    ("/sterna.migrator.v1.Migrations/Forget", Needs::Node),
    ("/sterna.migrator.v1.Vms/AddVm", Needs::Socket),
    ("/sterna.migrator.v1.Vms/RemoveVm", Needs::Socket),
    ("/sterna.migrator.v1.Vms/ListVms", Needs::Socket),
    ("/sterna.migrator.v1.Vms/MigrateVm", Needs::Socket),
    ("/sterna.migrator.v1.Vms/CancelMigration", Needs::Socket),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use sterna_types::NodeId;

    #[test]
    fn every_call_is_in_the_table_once_and_nothing_else() {
        let table: BTreeSet<&str> = CALLS.iter().map(|(call, _)| *call).collect();
        assert_eq!(table.len(), CALLS.len(), "a call is in the table twice");
        let calls: BTreeSet<&str> = sterna_proto::CALLS.iter().copied().collect();
        assert_eq!(table, calls, "say in the table who may make a new call, and take out one that is gone");
    }

    #[test]
    fn each_peer_may_call_what_it_is_for() {
        let administrator = |role| Peer::Administrator { name: "anna".parse().expect("a name"), role };
        let (node, [viewer, operator, admin]) = (Peer::Node(NodeId(2)), Role::ALL.map(administrator));
        let allowed = |peer: &Peer| CALLS.iter().filter(|(call, _)| check(peer, call).is_ok()).count();
        let of = |needs: &[Needs]| CALLS.iter().filter(|(_, call)| needs.contains(call)).count();
        assert_eq!(allowed(&Peer::Stranger), of(&[Needs::Token]));
        assert_eq!(allowed(&node), of(&[Needs::Token, Needs::Node]));
        assert_eq!(allowed(&viewer), of(&[Needs::Token, VIEWER]));
        assert_eq!(allowed(&operator), of(&[Needs::Token, VIEWER, OPERATOR]));
        assert_eq!(allowed(&admin), of(&[Needs::Token, VIEWER, OPERATOR, ADMIN]));
        for peer in [&Peer::Stranger, &node, &admin] {
            assert_eq!(check(peer, "/sterna.admin.v1.Admin/ExportVolume"), Err(Denial::SocketOnly));
            assert_eq!(check(peer, "/sterna.admin.v1.Admin/Anything"), Err(Denial::Unknown));
        }
    }
}
