//! Connections between Sterna's nodes, and from administrators to nodes: TLS 1.3 with certificates of the cluster's own
//! authority on both ends, and HTTP/2 inside.
//!
//! Read in this order:
//!
//! * [`subject`] and [`identity`]: who a certificate is for, and how that is written as the one name in it.
//! * [`key`], [`request`], [`certificate`], [`fingerprint`]: what a node or an administrator holds, asks for and gets.
//! * [`authority`]: the cluster's certificate authority. [`credentials`]: a key with its certificate and the
//!   authorities that are trusted. [`files`]: both as files that survive a crash.
//! * [`statement`]: bytes that somebody has signed, for those who were not there.
//! * [`token`]: what a person pastes to let a node join; it pins the authority, so that the first connection is safe
//!   too.
//! * [`tls`]: the settings of both ends, replaced while connections go on; `verifier`: servers that are known by less
//!   than their name.
//! * [`listener`]: who comes in, as a [`Peer`]; `handshake` and `census`: one of them, and how many there are;
//!   [`refusals`]: who does not come in, why, and how often. [`watched`]: what is wrong with a connection that has come in.
//! * [`channels`]: gRPC channels to nodes, each on a [`lane`]; `connect` and [`backoff`]: one connection, and when the
//!   next is tried; [`http2`]: windows, pings and bounds of both ends.
//! * [`links`]: what all connections to one peer share: whose turn it is, how much may be sent, and counts.
//! * `socket`: what is below TLS, of the system or of a [`simulation`]; only with the feature of that name.
//! * `sections`, `hex`: PEM, hexadecimal digits.
//! * [`limits`]: every bound, with its reason.
//!
//! It knows no Raft, no metadata and no service: where a node is, is told to it ([`Addresses`]), and what a peer may do
//! is for the services to decide, by the [`ConnectInfo`] of each request. It is not the TLS of NBD, whose clients are
//! other people's programs with other people's certificates.

#![cfg_attr(test, expect(clippy::disallowed_methods, reason = "no simulation runs a test"))]

pub mod authority;
pub mod backoff;
mod census;
pub mod certificate;
pub mod channels;
mod connect;
pub mod credentials;
pub mod files;
pub mod fingerprint;
mod handshake;
mod hex;
pub mod http2;
pub mod identity;
pub mod key;
pub mod lane;
pub mod limits;
pub mod links;
pub mod listener;
pub mod refusals;
pub mod request;
mod sections;
#[cfg(feature = "simulation")]
pub mod simulation;
mod socket;
pub mod statement;
pub mod subject;
#[cfg(test)]
mod testing;
pub mod tls;
pub mod token;
mod verifier;
pub mod watched;

pub use authority::{Authority, AuthorityCertificate};
pub use certificate::SignedCertificate;
pub use channels::{Addresses, Channels, JoinError, connect_as_administrator, connect_to_join};
pub use connect::ConnectError;
pub use credentials::Credentials;
pub use files::{CredentialFiles, load_administrator, store_administrator};
pub use fingerprint::Fingerprint;
pub use identity::Identity;
pub use key::PrivateKey;
pub use lane::Lane;
pub use links::{LinkId, LinkTraffic, Links};
pub use listener::{ConnectInfo, Connection, Listener, ListenerConfig, ListenerLimits};
pub use refusals::{RefusalReason, Refusals};
pub use request::CertificateRequest;
pub use sections::SectionsError;
pub use statement::{Purpose, UntrustedStatement};
pub use sterna_runtime::chance::NoRandomBytes;
pub use subject::{AdministratorName, Peer, Role, Subject};
pub use tls::Tls;
pub use token::{JoinToken, SecretHash, TokenSecret};
pub use verifier::NotANode;
pub use watched::Watched;
