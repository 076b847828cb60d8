//! A subject of a cluster, and how it is written: as one DNS name, so that the checks of WebPKI are all that is needed
//! to know a peer, and no verifier of our own stands between nodes.
//!
//! | subject | name |
//! |---|---|
//! | node 3 | `node-3.<cluster>.sterna` |
//! | operator anna | `anna.operator.<cluster>.sterna` |
//!
//! `<cluster>` is the cluster's id, 32 hexadecimal digits. An administrator's name may hold dots, so a name is read
//! from its end; in second place from there stands either a role or the name of a node, and no role looks like one.
//! Each subject has one spelling, and nothing else is read as it.

use std::fmt;
use std::str::FromStr;

use sterna_types::{ClusterId, NodeId};
use tokio_rustls::rustls::pki_types::{CertificateDer, DnsName, ServerName};
use webpki::EndEntityCert;

use crate::subject::{AdministratorName, Role, Subject};

/// A subject of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// Who it is there.
    pub subject: Subject,
}

/// A text that is not the name of an [`Identity`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{text}' is neither the name of a node (node-NUMBER.CLUSTER.sterna) nor of an administrator \
     (NAME.ROLE.CLUSTER.sterna)"
)]
pub struct InvalidIdentity {
    /// What was given.
    pub text: String,
}

/// Why a certificate does not say whose it is.
#[derive(Clone, Debug, thiserror::Error)]
pub enum IdentityError {
    /// It is no certificate.
    #[error("the certificate cannot be read")]
    Certificate(#[from] webpki::Error),
    /// It has no DNS name, or several.
    #[error("the certificate has {count} DNS names, and Sterna's have exactly one")]
    Names {
        /// How many.
        count: usize,
    },
    /// Its name is not one of ours.
    #[error("the certificate is for nobody that Sterna knows")]
    Name(#[from] InvalidIdentity),
}

impl Identity {
    /// Who a certificate is for. Whether it is valid, and from whom, is not looked at.
    ///
    /// # Errors
    /// [`IdentityError`]; so for a certificate that has two names, whatever they are.
    pub fn of_certificate(certificate: &CertificateDer<'_>) -> Result<Self, IdentityError> {
        let certificate = EndEntityCert::try_from(certificate)?;
        let mut names = certificate.valid_dns_names();
        match (names.next(), names.next()) {
            (Some(name), None) => Ok(name.parse()?),
            (None, _) => Err(IdentityError::Names { count: 0 }),
            (Some(_), Some(_)) => Err(IdentityError::Names { count: 2 + names.count() }),
        }
    }

    /// The end of all names of a cluster.
    pub(crate) fn domain(cluster: ClusterId) -> String {
        format!("{cluster}.{TOP}")
    }

    /// The name as a TLS client asks for it.
    pub(crate) fn server_name(&self) -> ServerName<'static> {
        let name = DnsName::try_from(self.to_string()).expect("each part of an identity's name is a label of DNS");
        ServerName::DnsName(name)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cluster = self.cluster;
        match &self.subject {
            Subject::Node(node) => write!(f, "{NODE}{node}.{cluster}.{TOP}"),
            Subject::Administrator { name, role } => write!(f, "{name}.{role}.{cluster}.{TOP}"),
        }
    }
}

impl FromStr for Identity {
    type Err = InvalidIdentity;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // The spelling is compared at the end: numbers and hexadecimal digits have more than one.
        read(text)
            .filter(|identity| identity.to_string() == text)
            .ok_or_else(|| InvalidIdentity { text: text.to_owned() })
    }
}

fn read(text: &str) -> Option<Identity> {
    let (rest, cluster) = text.strip_suffix(TOP)?.strip_suffix('.')?.rsplit_once('.')?;
    let cluster = cluster.parse().ok()?;
    let subject = match rest.rsplit_once('.') {
        None => Subject::Node(NodeId(rest.strip_prefix(NODE)?.parse().ok()?)),
        Some((name, role)) => {
            Subject::Administrator { name: name.parse::<AdministratorName>().ok()?, role: role.parse::<Role>().ok()? }
        }
    };
    Some(Identity { cluster, subject })
}

/// The last label of all names: not a domain that anybody can own, since names are never looked up.
const TOP: &str = "sterna";
/// What a node's label begins with.
const NODE: &str = "node-";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};

    const CLUSTER: &str = "7369787465656e206279746573206f6b";

    fn identities() -> impl Strategy<Value = Identity> {
        let role = prop_oneof![Just(Role::Viewer), Just(Role::Operator), Just(Role::Admin)];
        let administrator =
            ("[a-z0-9]{1,8}(\\.[a-z0-9]([a-z0-9_-]{0,8}[a-z0-9])?){0,3}", role).prop_map(|(name, role)| {
                Subject::Administrator { name: name.parse().expect("the strategy makes names"), role }
            });
        let subject = prop_oneof![any::<u64>().prop_map(|number| Subject::Node(NodeId(number))), administrator];
        (any::<[u8; 16]>(), subject)
            .prop_map(|(cluster, subject)| Identity { cluster: ClusterId::from_bytes(cluster), subject })
    }

    proptest! {
        #[test]
        fn an_identity_reads_back_as_it_was_written(identity in identities()) {
            let text = identity.to_string();
            prop_assert_eq!(text.parse(), Ok(identity.clone()));
            // And it is a name that TLS can ask for.
            let _ = identity.server_name();
        }

        #[test]
        fn whatever_is_read_has_that_one_spelling(
            who in "(node-|[a-z0-9.-]{0,9}(viewer|admin)?)[+0-9.]{0,4}",
            cluster in "\\.?[0-9a-fA-F]{30,33}",
            end in "\\.sterna\\.?",
        ) {
            let text = who + &cluster + &end;
            if let Ok(identity) = text.parse::<Identity>() {
                prop_assert_eq!(identity.to_string(), text);
            }
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in any::<String>()) {
            prop_assert!(text.parse::<Identity>().is_err());
        }
    }

    #[test]
    fn names_look_as_the_table_says() {
        let cluster: ClusterId = CLUSTER.parse().expect("32 digits");
        let node = Identity { cluster, subject: Subject::Node(NodeId(3)) };
        assert_eq!(node.to_string(), format!("node-3.{CLUSTER}.sterna"));
        let subject = Subject::Administrator { name: "anna.b".parse().expect("a name"), role: Role::Operator };
        let anna = Identity { cluster, subject };
        assert_eq!(anna.to_string(), format!("anna.b.operator.{CLUSTER}.sterna"));
    }

    #[test]
    fn what_is_spelt_differently_is_nobody() {
        let upper = CLUSTER.to_uppercase();
        for text in [
            format!("node-03.{CLUSTER}.sterna"),
            format!("node-+3.{CLUSTER}.sterna"),
            format!("node-.{CLUSTER}.sterna"),
            format!("node-18446744073709551616.{CLUSTER}.sterna"),
            format!("Node-3.{CLUSTER}.sterna"),
            format!("*.{CLUSTER}.sterna"),
            format!("node-3.{upper}.sterna"),
            format!("node-3.{CLUSTER}.sterna."),
            format!("node-3.{CLUSTER}.Sterna"),
            format!("node-3.{CLUSTER}.sterna.example"),
            format!("x.node-3.{CLUSTER}.sterna"),
            format!("anna.boss.{CLUSTER}.sterna"),
            format!(".viewer.{CLUSTER}.sterna"),
            format!("viewer.{CLUSTER}.sterna"),
            format!("{CLUSTER}.sterna"),
            "sterna".to_owned(),
            String::new(),
        ] {
            assert!(text.parse::<Identity>().is_err(), "{text} was taken for somebody");
        }
    }

    #[test]
    fn an_administrator_called_like_a_node_is_still_an_administrator() {
        let text = format!("node-3.admin.{CLUSTER}.sterna");
        let identity: Identity = text.parse().expect("an administrator");
        assert!(matches!(identity.subject, Subject::Administrator { role: Role::Admin, .. }));
    }
}
