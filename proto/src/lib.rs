//! The messages that Sterna's programs send each other, and the traits of those who answer.
//!
//! * [`admin`]: what an administrator asks of a node, compiled from `proto/admin.proto`, which documents it.
//! * [`cluster`]: what an administrator asks about the cluster, from `proto/cluster.proto`.
//! * [`migrator`]: what migrators ask of each other, and are asked on their hosts, from `proto/migrator.proto`.
//! * [`node`]: what nodes ask of each other, from `proto/node.proto`.
//!
//! This crate is *not* a place for meaning: its types are what stands on a wire, unchecked. Whoever receives one turns it
//! into a type of `sterna-types`, or refuses it, before anything else sees it.

/// Every call of every service, as HTTP/2 names it: `/package.Service/Method`. Who gives access to some has to have an
/// opinion about each.
pub const CALLS: &[&str] = include!(concat!(env!("OUT_DIR"), "/calls.rs"));

/// What an administrator asks of a node, on its admin socket (`admin.proto`).
///
/// The client is `admin_client::AdminClient`, and the trait that a node implements `admin_server::Admin`.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    reason = "generated code; the `.proto` file has the documentation"
)]
pub mod admin {
    tonic::include_proto!("sterna.admin.v1");
}

/// What an administrator asks about the cluster (`cluster.proto`).
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    reason = "generated code; the `.proto` file has the documentation"
)]
pub mod cluster {
    tonic::include_proto!("sterna.cluster.v1");
}

/// What nodes ask of each other (`node.proto`): a client and a trait for each of `Raft`, `Metadata` and `Enrolment`.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    reason = "generated code; the `.proto` file has the documentation"
)]
pub mod node {
    tonic::include_proto!("sterna.node.v1");
}

/// What migrators say to each other, and what is asked of one on its host (`migrator.proto`).
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    reason = "generated code; the `.proto` file has the documentation"
)]
pub mod migrator {
    tonic::include_proto!("sterna.migrator.v1");
}
