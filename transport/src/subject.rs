//! Who a certificate is for: a node, or an administrator with a role. And who is at the other end of a connection,
//! which may be nobody that we know.

use std::fmt;
use std::str::FromStr;

use sterna_types::NodeId;
use sterna_types::limits::MAX_NAME_BYTES;
use sterna_types::names::NodeName;

/// What an administrator may do. Each role may do all that those before it may; which call needs which is for the
/// services to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Looks, and changes nothing.
    Viewer,
    /// Works with volumes, and leaves the cluster as it is.
    Operator,
    /// Everything.
    Admin,
}

/// A text that is not a [`Role`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not a role: there are 'viewer', 'operator' and 'admin'")]
pub struct InvalidRole {
    /// What was given.
    pub text: String,
}

impl Role {
    /// All roles, the least first.
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Operator, Self::Admin];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = InvalidRole;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or_else(|| InvalidRole { text: text.to_owned() })
    }
}

/// The name of an administrator, such as `anna` or `backup.ams`: a [name](sterna_types::names) that can also stand in a
/// DNS name, so each part between dots begins and ends with a letter or digit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AdministratorName(Box<str>);

/// A text that is not an [`AdministratorName`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{text}' is not an administrator's name: it takes 1 to {MAX_NAME_BYTES} of a-z, 0-9, '-', '_' and '.', and a \
     letter or digit at the beginning, at the end, and on both sides of each '.'"
)]
pub struct InvalidAdministratorName {
    /// What was given.
    pub text: String,
}

impl AdministratorName {
    /// The name as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for AdministratorName {
    type Err = InvalidAdministratorName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // The rules that all names share are written down once; what they are names of makes no difference.
        let is_name = text.parse::<NodeName>().is_ok();
        let is_label = |part: &str| {
            part.starts_with(|c: char| c.is_ascii_alphanumeric()) && part.ends_with(|c: char| c.is_ascii_alphanumeric())
        };
        if is_name && text.split('.').all(is_label) {
            Ok(Self(text.into()))
        } else {
            Err(InvalidAdministratorName { text: text.to_owned() })
        }
    }
}

impl fmt::Display for AdministratorName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who a certificate is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A node: its certificate is for both ends of a connection.
    Node(NodeId),
    /// An administrator: the certificate is for the connecting end only, so that it can never serve as a node's.
    Administrator {
        /// Who it is, for logs.
        name: AdministratorName,
        /// What it may do.
        role: Role,
    },
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(node) => write!(f, "node {node}"),
            Self::Administrator { name, role } => write!(f, "{role} {name}"),
        }
    }
}

/// Who is at the other end of a connection, as far as its certificate says; there is no other way to be somebody.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Peer {
    /// A node of the cluster.
    Node(NodeId),
    /// An administrator of the cluster.
    Administrator {
        /// Who it is, for logs.
        name: AdministratorName,
        /// What it may do.
        role: Role,
    },
    /// Anybody: no certificate was shown. One that is not valid is refused, and never counts as this.
    Stranger,
}

impl From<Subject> for Peer {
    fn from(subject: Subject) -> Self {
        match subject {
            Subject::Node(node) => Self::Node(node),
            Subject::Administrator { name, role } => Self::Administrator { name, role },
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(node) => write!(f, "node {node}"),
            Self::Administrator { name, role } => write!(f, "{role} {name}"),
            Self::Stranger => f.write_str("a stranger"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_role_may_do_what_the_one_before_may() {
        assert!(Role::Viewer < Role::Operator && Role::Operator < Role::Admin);
        for role in Role::ALL {
            assert_eq!(role.to_string().parse(), Ok(role));
        }
        assert!("Admin".parse::<Role>().is_err());
    }

    #[test]
    fn an_administrators_name_can_stand_in_a_dns_name() {
        let longest = "a".repeat(63);
        for good in ["anna", "a", "0", "anna.b", "backup-2.ams_1", longest.as_str()] {
            assert_eq!(good.parse::<AdministratorName>().map(|name| name.to_string()), Ok(good.to_owned()));
        }
        let too_long = "a".repeat(64);
        for bad in ["", ".", "a.", ".a", "a..b", "a-", "a_", "a.-b", "a-.b", "Anna", "a b", "*", "*.a", "ä", &too_long]
        {
            assert!(bad.parse::<AdministratorName>().is_err(), "{bad} was taken for a name");
        }
    }
}
